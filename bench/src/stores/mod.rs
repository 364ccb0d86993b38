//! The subcommand `stores`: gateways on shared stores, next to nginx + Lua + Redis, in one run.

mod fresh;
mod report;
mod servers;
mod wake;

use std::time::Duration;

use crate::Failure;
use crate::args::Args;
use crate::servers::{Gateway, Peers, Place};
use crate::{backend, machine};
use servers::StoreServer;

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

/// Two gateways on one store. The gateways end first: a server may wait for its clients.
struct Replicas {
    kind: &'static str,
    gateways: [Gateway; 2],
    store: StoreServer,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let plan = Plan::parse(args)?;
    let cores = machine::cores()?;
    let (first, last) = (cores[0], cores[cores.len() - 1]);
    if first == last {
        eprintln!("one core only: the load disturbs what is measured");
    }
    machine::stay_on(last)?;
    let place = Place {
        tmp: args.path("tmp")?,
        pids: args.path("pids")?,
        bench: args.path("bench-dir")?,
        core: first,
        backend: backend::start()?,
    };
    let binary = args.path("oncegate")?;
    let before = machine::state(&place.tmp)?;
    let peers = (!args.flag("alone")).then(|| Peers::start(&place)).transpose()?;
    let embedded = Gateway::start(&place, &binary)?;
    let mut shared = Vec::new();
    for (kind, store) in [
        ("PostgreSQL", servers::postgres(&place, "postgres", args.or("pool", 4)?)?),
        ("Redis", servers::redis(&place, "redis-strict")?),
    ] {
        let start = |replica: &str| {
            let name = format!("oncegate-{kind}-{replica}");
            Gateway::start_on(&place, &binary, &name, &store.table)
        };
        shared.push(Replicas { kind, gateways: [start("a")?, start("b")?], store });
    }
    let rows = fresh::measure(&plan, peers.as_ref(), &embedded, &shared)?;
    let mut waits = Vec::new();
    for replicas in shared.iter().filter(|_| plan.only.is_none()) {
        waits.push((replicas.kind, wake::measure(&plan, replicas)?));
    }
    if peers.is_none() {
        // There is nothing to compare with.
        return Ok(());
    }
    let text = format!(
        "{}\n{}\n{} connections, kept alive; medians of {} interleaved rounds of {:.1} s; ratios are \
         medians of the rounds' own. {} waits on each store.\n\n{}- Stores: {}; {}\n- Before: {before}\n- \
         After: {}\n",
        report::fresh(&rows),
        report::waits(&waits),
        plan.connections,
        plan.rounds,
        plan.measured.as_secs_f64(),
        plan.wakes,
        machine::description(&place.tmp),
        servers::postgres_version(),
        servers::SETTINGS,
        machine::state(&place.tmp)?,
    );
    print!("{text}");
    if let Some(out) = args.text("out") {
        std::fs::write(out, text)?;
    }
    Ok(())
}
