//! Dry runs: `oncegate try` on a vendor's own samples, before any money moves.
//!
//! `message` reads the samples, `scene` runs a gateway on them, `report` tells the result. The
//! first scene gives the sample answers, one for each try of the client, and one more retry. The
//! second loses the first answer.

mod message;
mod report;
mod scene;

use bytes::Bytes;
use http::{Request, Response};

use self::report::StepReport;
use self::scene::Scene;
use crate::config::{Config, Mode};

pub use self::report::{DryRun, RouteReport};

/// Samples of a vendor's documentation.
#[derive(Debug)]
pub struct Samples {
    request: Request<Bytes>,
    answers: Vec<Response<Bytes>>,
}

impl Samples {
    /// Reads samples in the form of HTTP messages. An answer is for the first try, the next for a
    /// retry, and so on.
    ///
    /// # Errors
    /// The sample, the line and the reason.
    pub fn parse(request: (&str, &[u8]), answers: &[(String, Vec<u8>)]) -> Result<Self, String> {
        let (name, text) = request;
        let request = message::request(text).map_err(|error| format!("{name}: {error}"))?;
        let answer = |(name, text): &(String, Vec<u8>)| {
            message::answer(text).map_err(|error| format!("{name}: {error}"))
        };
        let answers = answers.iter().map(answer).collect::<Result<_, _>>()?;
        Ok(Self { request, answers })
    }
}

/// Tries a configuration on samples. Nothing is sent to the configured backends.
///
/// # Errors
/// The dry run itself failed; it says nothing of the samples.
pub async fn run(config: &Config, samples: &Samples) -> Result<DryRun, String> {
    let mut report = DryRun::new(&samples.request);
    if !samples.answers.is_empty() {
        let scene = Scene::set(config).await?;
        let played = play(&scene, config, samples, &mut report).await;
        scene.strike().await;
        played?;
    }
    let scene = Scene::set(config).await?;
    let played = lose(&scene, config, samples, &mut report).await;
    scene.strike().await;
    played?;
    report.note_refusal();
    Ok(report)
}

/// The tries with an answer each, and a retry.
async fn play(
    scene: &Scene,
    config: &Config,
    samples: &Samples,
    report: &mut DryRun,
) -> Result<(), String> {
    for answer in &samples.answers {
        scene.will_answer(answer);
        let exchange = scene.send(&samples.request).await?;
        if report.route.is_none() {
            report.route = route(scene, config).await?;
        }
        let unused = exchange.sent.is_empty();
        report.tries.push(StepReport::new(&exchange, Some(answer).filter(|_| !unused)));
        if unused {
            // Refused, or nothing was left to send: further answers have no request.
            break;
        }
    }
    report.records = scene.records().await?;
    report.read_rows();
    if report.tries.last().is_some_and(|last| !last.is_refused()) {
        let exchange = scene.send(&samples.request).await?;
        report.retry = Some(StepReport::new(&exchange, None));
    }
    Ok(())
}

/// A try whose answer is lost, and the retry, for which the backend would have the first answer.
async fn lose(
    scene: &Scene,
    config: &Config,
    samples: &Samples,
    report: &mut DryRun,
) -> Result<(), String> {
    let exchange = scene.send(&samples.request).await?;
    if report.route.is_none() {
        report.route = route(scene, config).await?;
    }
    let lost = StepReport::new(&exchange, None);
    let refused = lost.is_refused();
    report.lost = Some(lost);
    if report.records.is_empty() {
        report.records = scene.records().await?;
    }
    if let Some(answer) = samples.answers.first() {
        scene.will_answer(answer);
    }
    if !refused {
        let exchange = scene.send(&samples.request).await?;
        report.retry_of_lost = Some(StepReport::new(&exchange, None));
    }
    Ok(())
}

/// The route of the request, as the gateway counted it.
async fn route(scene: &Scene, config: &Config) -> Result<Option<RouteReport>, String> {
    let name = scene.route().await?;
    let route = config.routes.iter().find(|route| name.as_deref() == Some(&*route.name));
    Ok(route.map(|route| RouteReport {
        name: route.name.to_string(),
        mode: match &route.mode {
            Mode::Request(_) => "request",
            Mode::Items(_) => "items",
            Mode::Off => "off",
        },
        upstream: config.upstreams.get(route.upstream).map(|upstream| upstream.name.clone()),
    }))
}
