//! Dry runs: `oncegate try` on a vendor's own samples, before any money moves.
//!
//! `message` reads the samples, `gateway` runs a gateway on them, `report` tells the result. The
//! backend of the first gateway gives the sample answers, one for each try of the client, and then
//! one more retry follows. The backend of the second loses the first answer.

mod gateway;
mod message;
mod report;

use bytes::Bytes;
use http::{Request, Response};

use self::gateway::DryRunGateway;
use self::report::StepReport;
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
        let gateway = DryRunGateway::start(config).await?;
        let result = play(&gateway, config, samples, &mut report).await;
        gateway.stop().await;
        result?;
    }
    let gateway = DryRunGateway::start(config).await?;
    let result = lose(&gateway, config, samples, &mut report).await;
    gateway.stop().await;
    result?;
    report.note_refusal();
    Ok(report)
}

/// The tries with an answer each, and a retry.
async fn play(
    gateway: &DryRunGateway,
    config: &Config,
    samples: &Samples,
    report: &mut DryRun,
) -> Result<(), String> {
    for answer in &samples.answers {
        gateway.will_answer(answer);
        let exchange = gateway.send(&samples.request).await?;
        if report.route.is_none() {
            report.route = route(gateway, config).await?;
        }
        let unused = exchange.sent.is_empty();
        report.tries.push(StepReport::new(&exchange, Some(answer).filter(|_| !unused)));
        if unused {
            // Refused, or nothing was left to send: further answers have no request.
            break;
        }
    }
    report.records = gateway.records().await?;
    report.read_rows();
    if report.tries.last().is_some_and(|last| !last.is_refused()) {
        let exchange = gateway.send(&samples.request).await?;
        report.retry = Some(StepReport::new(&exchange, None));
    }
    Ok(())
}

/// A try whose answer is lost, and the retry, for which the backend would have the first answer.
async fn lose(
    gateway: &DryRunGateway,
    config: &Config,
    samples: &Samples,
    report: &mut DryRun,
) -> Result<(), String> {
    let exchange = gateway.send(&samples.request).await?;
    if report.route.is_none() {
        report.route = route(gateway, config).await?;
    }
    let lost = StepReport::new(&exchange, None);
    let refused = lost.is_refused();
    report.lost = Some(lost);
    if report.records.is_empty() {
        report.records = gateway.records().await?;
    }
    if let Some(answer) = samples.answers.first() {
        gateway.will_answer(answer);
    }
    if !refused {
        let exchange = gateway.send(&samples.request).await?;
        report.retry_of_lost = Some(StepReport::new(&exchange, None));
    }
    Ok(())
}

/// The route of the request, as the gateway counted it.
async fn route(gateway: &DryRunGateway, config: &Config) -> Result<Option<RouteReport>, String> {
    let name = gateway.route().await?;
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
