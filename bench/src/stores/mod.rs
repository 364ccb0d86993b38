//! The subcommand `stores`: gateways on shared stores, next to nginx + Lua + Redis, in one run.

mod fresh;
mod limit;
mod report;
mod servers;
mod wake;

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::Failure;
use crate::args::Args;
use crate::cases::REQUESTS;
use crate::servers::{Gateway, Peers, Place};
use crate::{backend, machine};
use fresh::Row;
use limit::Limit;
use servers::StoreServer;
use wake::Waits;

/// How much is measured.
struct Plan {
    rounds: usize,
    measured: Duration,
    connections: usize,
    /// Calls that a duplicate waits for on the other replica.
    wakes: usize,
    /// Only rows with this in their name are measured, and no waits.
    only: Option<String>,
}

impl Plan {
    fn parse(args: &Args) -> Result<Self, Failure> {
        let quick = args.flag("quick");
        Ok(Self {
            rounds: args.or("rounds", if quick { 1 } else { 5 })?,
            measured: Duration::from_secs_f64(args.or("seconds", if quick { 0.7 } else { 2.0 })?),
            connections: args.or("connections", 64)?,
            wakes: args.or("wakes", if quick { 20 } else { 300 })?,
            only: args.text("only").map(str::to_owned),
        })
    }
}

/// Gateways on one store. They end first: a server may wait for its clients.
struct Replicas {
    gateways: Vec<Gateway>,
    store: StoreServer,
}

/// One gateway, and two, each on a store of their own: what the others wrote makes it no larger.
struct Kind {
    name: &'static str,
    one: Replicas,
    two: Replicas,
}

/// As many connections as a fleet has that needs a second replica.
const MANY: usize = 256;

fn start(place: &Place, binary: &Path, pool: usize, suffix: &str) -> Result<Vec<Kind>, Failure> {
    let store = |kind: &str, name: &str| match kind {
        "Redis" => servers::redis(place, name),
        _ => servers::postgres(place, name, pool),
    };
    let replicas = |kind: &str, count: usize| {
        let name = format!("{}-{count}{suffix}", kind.to_lowercase());
        let store = store(kind, &name)?;
        let start = |at| Gateway::start_on(place, binary, &format!("{name}-{at}"), &store.table);
        let gateways = (0..count).map(start).collect::<Result<_, _>>()?;
        Ok::<_, Failure>(Replicas { gateways, store })
    };
    let kinds = ["PostgreSQL", "Redis"].into_iter();
    kinds.map(|name| Ok(Kind { name, one: replicas(name, 1)?, two: replicas(name, 2)? })).collect()
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let plan = Plan::parse(args)?;
    let cores = machine::cores()?;
    let (first, last) = (cores[0], cores[cores.len() - 1]);
    if first == last {
        eprintln!("one core only: the load disturbs what is measured");
    }
    machine::stay_on(&[last])?;
    let mut place = Place {
        tmp: args.path("tmp")?,
        pids: args.path("pids")?,
        bench: args.path("bench-dir")?,
        cores: vec![first],
        backend: backend::start()?,
    };
    let binary = args.path("oncegate")?;
    let before = machine::state(&place.tmp)?;
    let peers = (!args.flag("alone")).then(|| Peers::start(&place)).transpose()?;
    let embedded = Gateway::start(&place, &binary, REQUESTS)?;
    let pool = args.or("pool", 4)?;
    let shared = start(&place, &binary, pool, "")?;
    let mut rows = fresh::alone(plan.connections, peers.as_ref(), &embedded)?;
    rows.extend(fresh::replicas(plan.connections, &shared));
    let few = fresh::measure(&plan, rows)?;
    let mut waits = Vec::new();
    for kind in shared.iter().filter(|_| plan.only.is_none()) {
        waits.push((kind.name, wake::measure(&plan, kind)?));
    }
    drop(shared);
    // Each on stores of their own, which are as empty as the others were.
    let anew = |place: &Place, peers: Option<&Peers>, connections, suffix| {
        let shared = start(place, &binary, pool, suffix)?;
        let mut rows = fresh::naive(connections, peers)?;
        rows.extend(fresh::replicas(connections, &shared));
        fresh::measure(&plan, rows)
    };
    let many = anew(&place, peers.as_ref(), MANY, "-many")?;
    if peers.is_none() {
        // There is nothing to compare with.
        return Ok(());
    }
    // What is started from now on knows of all cores.
    drop(peers);
    machine::stay_on(&cores)?;
    place.cores = cores;
    let peers = Some(Peers::start(&place)?);
    let few_spread = anew(&place, peers.as_ref(), plan.connections, "-few-spread")?;
    let many_spread = anew(&place, peers.as_ref(), MANY, "-many-spread")?;
    drop(peers);
    let limited = limited(&plan, &place, &binary, pool)?;
    let rates = [few, many, few_spread, many_spread];
    let text = text(&plan, &place, &rates, &limited, &waits, &before)?;
    print!("{text}");
    if let Some(out) = args.text("out") {
        std::fs::write(out, text)?;
    }
    Ok(())
}

/// Gateways that may use no more of the cores than a container with a limit, so that a second one
/// brings what a replica brings that has a place of its own. The inner error: nothing can be limited
/// here.
fn limited(
    plan: &Plan,
    place: &Place,
    binary: &Path,
    pool: usize,
) -> Result<Result<Vec<Row>, io::Error>, Failure> {
    // Removed when the gateways have ended.
    let mut limits = Vec::new();
    let shared = start(place, binary, pool, "-limited")?;
    let replicas = shared.iter().flat_map(|kind| [&kind.one, &kind.two]);
    for gateway in replicas.flat_map(|replicas| &replicas.gateways) {
        match Limit::of(gateway.server.pid()) {
            Ok(limit) => limits.push(limit),
            Err(error) => return Ok(Err(error)),
        }
    }
    fresh::measure(plan, fresh::replicas(plan.connections, &shared)).map(Ok)
}

/// All tables, and what they were measured on.
fn text(
    plan: &Plan,
    place: &Place,
    [few, many, few_spread, many_spread]: &[Vec<Row>; 4],
    limited: &Result<Vec<Row>, io::Error>,
    waits: &[(&str, Waits)],
    before: &str,
) -> Result<String, Failure> {
    Ok(format!(
        "Gateways and their store on one core, {} connections:\n\n{}\n\
         The same over {MANY} connections:\n\n{}\n\
         Where all share all cores with the load, one worker of nginx for each core, {} connections:\n\n{}\n\
         The same over {MANY} connections:\n\n{}\n\
         There, where each gateway may use {}, {} connections:\n\n{}\n{}\n\
         Connections are kept alive; medians of {} interleaved rounds of {:.1} s, each in the other \
         direction; ratios are medians of the rounds' own. {} waits on each store.\n\n{}- Stores: {}; {}\n- Before: {before}\n- After: {}\n",
        plan.connections,
        report::fresh(few),
        report::fresh(many),
        plan.connections,
        report::fresh(few_spread),
        report::fresh(many_spread),
        limit::SHARE,
        plan.connections,
        limited.as_ref().map_or_else(
            |error| format!("Not measured: CPU time cannot be limited here: {error}.\n"),
            |rows| report::fresh(rows)
        ),
        report::waits(waits),
        plan.rounds,
        plan.measured.as_secs_f64(),
        plan.wakes,
        machine::description(&place.tmp),
        servers::postgres_version(),
        servers::SETTINGS,
        machine::state(&place.tmp)?,
    ))
}
