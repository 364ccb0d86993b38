//! The demo: a built-in legacy backend, tills, the same faults twice, without and with the
//! gateway in between, and a table of the results; then batches that are issued in part.
//!
//! A running gateway uses nothing of this module. The numbers are counted at the tills and in the
//! backend's books; [`Report::check`] fails the demo when the gateway breaks a promise.

mod backend;
mod faults;
mod gateway;
mod rewards;
mod scene;
mod settlement;
mod table;
#[cfg(test)]
mod tests;
mod till;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderValue, Request};
use serde_json::Value;
use tokio_util::task::TaskTracker;

use self::backend::{AWARD, Backend, POINTS, REDEEM, TRANSACTIONS};
use self::faults::{FaultPlan, receipt_of};
use self::gateway::DemoGateway;
use self::rewards::RewardEngine;
use self::scene::Goods;
use self::till::ShopNetwork;
use crate::loopback;
use crate::shutdown::Trigger;
use crate::temporary::TemporaryDirectory;

pub use self::rewards::BatchCall;
pub use self::table::{Counts, Report, RunReport};

/// Options of the demo.
#[derive(Debug, Clone, Copy, Default)]
pub struct DemoOptions {
    /// Leaves backend and gateway running at the end, until a signal.
    pub keep: bool,
    /// Prints the report as JSON only.
    pub json: bool,
}

/// Runs the demo on standard output; ends early at Ctrl-C or SIGTERM.
///
/// # Errors
/// A server could not be started, or the numbers break a promise.
pub async fn run(options: DemoOptions) -> Result<(), String> {
    let mut out = std::io::stdout();
    let mut narrator = Narrator { out: &mut out, quiet: options.json };
    let (report, stage) = tokio::select! {
        ended = tell(&mut narrator) => ended?,
        interrupted = interruption() => {
            return interrupted.and_then(|()| Err("the demo was interrupted".to_owned()));
        }
    };
    let checked = report.check();
    let keep = options.keep && checked.is_ok();
    if options.json {
        narrator.print(&stage.json(&report, keep)?)?;
    } else if keep {
        narrator.say(&stage.invitation())?;
    } else if checked.is_ok() {
        narrator.say(TRY)?;
    }
    if keep {
        interruption().await?;
    }
    stage.strike().await;
    checked
}

/// Runs all scenes without and with the gateway; returns the report and the second stage, still
/// running.
async fn tell(narrator: &mut Narrator<'_>) -> Result<(Report, Stage), String> {
    narrator.say(OPENING)?;

    narrator.say("Without oncegate: the tills call the backend themselves.")?;
    let stage = Stage::set(false).await?;
    let without = stage.play(narrator).await?;
    stage.strike().await;

    narrator.say("\nWith oncegate: the same tills, the same faults, the gateway in between.")?;
    let stage = Stage::set(true).await?;
    let with = stage.play(narrator).await?;

    let report = Report { without, with };
    narrator.say(&format!("\n{}{LEGEND}", report.table()))?;
    narrator.say(&format!("{BATCHES}\n{}{BATCHES_LEGEND}", report.batches()))?;
    Ok((report, stage))
}

const OPENING: &str = "\
A legacy backend redeems vouchers and gives points. It knows no idempotency keys: it executes what
arrives. Tills send a key with each scan and ask once more with the same key when no answer comes.
";

const LEGEND: &str = "
calls: requests that reached the backend. executed: entries in the backend's own books.
refused: another sale's voucher, so rightly. disputes: refused although this very sale redeemed it.
unknown: nobody knows in the end. settled: lost answers that were cleared up: the gateway asked the
backend or undid the call, or an operator looked into the books; then the till asked once more.
doubles: executed more than once for one sale. prevented: repeats the backend never saw.
";

const BATCHES: &str = "\
A reward engine issues batches: two of R1 for 5 points each, two of R2 for 10. What a limit forbids
today it issues another day, so the client sends the same batch until all of it is issued.
";

const BATCHES_LEGEND: &str = "
points: spent for this customer so far; the batch is worth 30. Calls 5 and 6 are another customer's.
";

const TRY: &str = "\
Try it by hand: `oncegate demo --keep` leaves backend and gateway running and prints curl lines.";

/// The servers of a run; the directory is removed on drop.
struct Stage {
    plan: Arc<FaultPlan>,
    backend: Backend,
    engine: RewardEngine,
    gateway: Option<DemoGateway>,
    shop: Arc<ShopNetwork>,
    trigger: Trigger,
    tasks: TaskTracker,
    folder: TemporaryDirectory,
}

impl Stage {
    async fn set(with_gateway: bool) -> Result<Self, String> {
        let (trigger, shutdown) = crate::shutdown::channel();
        let tasks = TaskTracker::default();
        let plan = Arc::new(FaultPlan::default());
        let folder = TemporaryDirectory::create("demo")?;
        let backend = Backend::start(plan.clone(), &tasks, shutdown.clone()).await?;
        let engine = RewardEngine::start(&tasks, shutdown.clone()).await?;
        let gateway = if with_gateway {
            let behind = [backend.address, engine.address];
            Some(DemoGateway::start(behind, folder.path(), shutdown.clone()).await?)
        } else {
            None
        };
        let next = gateway.as_ref().map_or(backend.address, |gateway| gateway.address);
        let shop = ShopNetwork::start(next, plan.clone(), &tasks, shutdown).await?;
        let shop = Arc::new(shop);
        Ok(Self { plan, backend, engine, gateway, shop, trigger, tasks, folder })
    }

    async fn play(&self, narrator: &mut Narrator<'_>) -> Result<RunReport, String> {
        Ok(RunReport {
            vouchers: self.play_with(Goods::Vouchers, narrator).await?,
            points: self.play_with(Goods::Points, narrator).await?,
            batches: match &self.gateway {
                None => rewards::play(&self.engine, self.engine.address, false).await,
                Some(gateway) => rewards::play(&self.engine, gateway.address, true).await,
            },
        })
    }

    async fn play_with(&self, goods: Goods, narrator: &mut Narrator<'_>) -> Result<Counts, String> {
        let (title, path, books) = match goods {
            Goods::Vouchers => ("Vouchers, which the backend redeems once:", REDEEM, TRANSACTIONS),
            Goods::Points => {
                ("Points, which the backend gives as often as it is asked:", AWARD, POINTS)
            }
        };
        narrator.say(&format!("  {title}"))?;
        let mut counts = Counts::default();
        for scene in goods.scenes() {
            let mut sales = scene::play(goods, *scene, &self.shop, &self.plan).await;
            if let Some(gateway) = &self.gateway {
                settlement::settle(goods, &mut sales, gateway, &self.shop).await?;
            }
            let executions = executions(self.backend.address, books).await?;
            let mut endings = Vec::new();
            let mut doubles = 0;
            for sale in &sales {
                let executed = executions.get(&sale.receipt).copied().unwrap_or(0);
                doubles += executed.saturating_sub(1);
                endings.push(counts.add(sale, executed));
            }
            let mut line =
                format!("    {:.<46} {}", format!("{} ", scene.title()), table::endings(&endings));
            if let Some(by) = sales.iter().find_map(|sale| sale.settled) {
                line.push_str(&format!(", {}", by.words()));
            }
            if doubles > 0 {
                line.push_str(&format!(", {doubles} executed twice"));
            }
            narrator.say(&line)?;
        }
        counts.requests = self.shop.carried(path);
        counts.calls = self.backend.calls(path);
        counts.prevented = counts.requests.saturating_sub(counts.calls);
        Ok(counts)
    }

    /// The report as JSON, with the addresses of servers left running.
    fn json(&self, report: &Report, keep: bool) -> Result<String, String> {
        let cannot_write = |error: serde_json::Error| format!("cannot write the report: {error}");
        let mut json = serde_json::to_value(report).map_err(cannot_write)?;
        if let (true, Some(gateway)) = (keep, &self.gateway) {
            json["gateway"] = format!("http://{}", gateway.address).into();
            json["admin"] = format!("http://{}", gateway.admin).into();
            json["backend"] = format!("http://{}", self.backend.address).into();
        }
        serde_json::to_string_pretty(&json).map_err(cannot_write)
    }

    /// Commands to try while the servers are running.
    fn invitation(&self) -> String {
        let backend = self.backend.address;
        let gateway = self.gateway.as_ref().map_or(backend, |gateway| gateway.address);
        let admin = self.gateway.as_ref().map_or(backend, |gateway| gateway.admin);
        let random = uuid::Uuid::new_v4().simple().to_string();
        let qr = format!("rsg:{}", &random[..12]);
        let redeem = |key: &str, qr: &str, receipt: u32| {
            format!(
                "  curl -i http://{gateway}{REDEEM} \\\n    \
                 -H 'content-type: application/json' -H 'x-api-key: demo' \
                 -H 'Idempotency-Key: {key}' \\\n    \
                 -d '{{\"qr\":\"{qr}\",\"metadata\":\"receipt_number:{receipt}\"}}'"
            )
        };
        let (first, other_key) = (redeem("sale-1", &qr, 1), redeem("sale-2", &qr, 2));
        let other_voucher = redeem("sale-1", &format!("{qr}-b"), 1);
        format!(
            "\
DemoGateway http://{gateway}, backend http://{backend}, health http://{admin}/readyz

Redeem a fresh voucher, then send the same line again: the second answer is a replay.
{first}

The same voucher under another key is another request: the backend's own 402.
{other_key}

The same key for another voucher: refused, nothing is sent.
{other_voucher}

What the backend has done lately:
  curl 'http://{backend}{TRANSACTIONS}?limit=3' -H 'x-api-key: demo'

Ctrl-C ends both and removes the store.
"
        )
    }

    /// Ends the servers and waits for their end.
    async fn strike(self) {
        self.trigger.fire();
        if let Some(gateway) = self.gateway {
            gateway.finished().await;
        }
        crate::shutdown::ended(&self.tasks, gateway::DRAIN).await;
        // The store is closed now.
        drop(self.folder);
    }
}

/// Executions of each sale in the backend's books, requested over HTTP like an operator would.
async fn executions(backend: SocketAddr, books: &str) -> Result<BTreeMap<String, u64>, String> {
    let cannot_read = |error: &dyn std::fmt::Display| {
        format!("cannot read the demo backend's books at {books}: {error}")
    };
    let request = Request::get(format!("{books}?all=1"))
        .header(http::header::HOST, backend.to_string())
        .header("x-api-key", HeaderValue::from_static("demo"))
        .body(bytes::Bytes::new())
        .map_err(|error| cannot_read(&error))?;
    let answer = loopback::send(backend, request).await.map_err(|error| cannot_read(&error))?;
    let list: Value = serde_json::from_slice(answer.body()).map_err(|error| cannot_read(&error))?;
    let mut executions = BTreeMap::new();
    for entry in list["data"].as_array().into_iter().flatten() {
        if let Some(sale) = entry["metadata"].as_str().and_then(receipt_of) {
            *executions.entry(sale.to_owned()).or_default() += 1;
        }
    }
    Ok(executions)
}

/// Prints the demo's text, unless quiet.
struct Narrator<'a> {
    out: &'a mut (dyn Write + Send),
    quiet: bool,
}

impl Narrator<'_> {
    fn say(&mut self, text: &str) -> Result<(), String> {
        if self.quiet { Ok(()) } else { self.print(text) }
    }

    fn print(&mut self, text: &str) -> Result<(), String> {
        writeln!(self.out, "{text}")
            .and_then(|()| self.out.flush())
            .map_err(|error| format!("cannot write the story: {error}"))
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn interruption() -> Result<(), String> {
    use tokio::signal::unix::{SignalKind, signal};
    let cannot_wait = |error| format!("cannot wait for signals: {error}");
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot_wait)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot_wait)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
