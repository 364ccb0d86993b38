//! The subcommand `http`: every server side by side in one run, rounds interleaved.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, HandshakeKind};

use crate::Failure;
use crate::args::Args;
use crate::cases::{Backend, CASES, Case, REQUESTS, SECURE, Target, Travel};
use crate::load::{self, Ask, Counted, Load, Sample, Status, Until};
use crate::secure::Wire;
use crate::servers::{Gateway, Peers, Place};
use crate::tls::Certificate;
use crate::{backend, machine, memory, process, report};

/// How much is measured.
struct Plan {
    rounds: usize,
    measured: Duration,
    connections: usize,
    records: u64,
    /// Only cases with this in their name are measured, and nothing else.
    only: Option<String>,
}

/// What is to be replayed is asked for once by every connection; that takes no longer than this.
const PRIMING: Duration = Duration::from_secs(9);
const WARM_UP: Duration = Duration::from_millis(300);

impl Plan {
    fn parse(args: &Args) -> Result<Self, Failure> {
        let quick = args.flag("quick");
        Ok(Self {
            rounds: args.or("rounds", if quick { 1 } else { 5 })?,
            measured: Duration::from_secs_f64(args.or("seconds", if quick { 0.7 } else { 1.2 })?),
            connections: args.or("connections", 64)?,
            records: args.or("records", if quick { 50_000 } else { 1_000_000 })?,
            only: args.text("only").map(str::to_owned),
        })
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let plan = Plan::parse(args)?;
    let cores = machine::cores()?;
    let (first, last) = (cores[0], cores[cores.len() - 1]);
    if first == last {
        eprintln!("one core only: the load disturbs what is measured");
    }
    machine::stay_on(&[last])?;
    let place = Place {
        tmp: args.path("tmp")?,
        pids: args.path("pids")?,
        bench: args.path("bench-dir")?,
        cores: vec![first],
        backend: backend::start()?,
    };
    let clients = Clients::new(&Certificate::write(&place.tmp)?)?;
    let peers = (!args.flag("alone")).then(|| Peers::start(&place)).transpose()?;
    let binary = args.text("oncegate").map(PathBuf::from);
    let mut gateways = Vec::new();
    for case in CASES {
        let (Target::Oncegate(store), Some(binary)) = (case.target, &binary) else { continue };
        if !gateways.iter().any(|(name, _)| *name == store) {
            let start = if store == SECURE { Gateway::start_secure } else { Gateway::start };
            gateways.push((store, start(&place, binary, store)?));
        }
    }
    let requests = gateways.iter().position(|(name, _)| *name == REQUESTS);
    let idle = requests.map(|at| memory::settled(&gateways[at].1)).transpose()?;
    let table = measure(&plan, peers.as_ref(), &gateways, &clients)?;
    if peers.is_none() {
        // There is nothing to compare with.
        return Ok(());
    }
    let mut text = report::table(&table);
    let gateway = requests.map(|at| gateways.swap_remove(at).1);
    drop(gateways);
    if let (None, Some(binary), Some(gateway), Some(idle)) = (&plan.only, binary, gateway, idle) {
        let stored: u64 = table.iter().map(Row::fresh_answers).sum();
        let found = memory::measure(&place, &binary, gateway, plan.records, stored)?;
        text.push_str(&report::memory(idle, &found));
    }
    text.push_str(&format!(
        "\n{} connections unless a case says otherwise, kept alive; medians of {} interleaved rounds of {:.1} s; the server on one core, load and backend on another.\n\n{}",
        plan.connections,
        plan.rounds,
        plan.measured.as_secs_f64(),
        machine::description(&place.tmp),
    ));
    print!("{text}");
    if let Some(out) = args.text("out") {
        std::fs::write(out, text)?;
    }
    Ok(())
}

/// A case with what its rounds found.
pub(crate) struct Row {
    pub(crate) case: &'static Case,
    pub(crate) samples: Vec<Sample>,
}

impl Row {
    /// How many records this case has left in the gateway's store.
    fn fresh_answers(&self) -> u64 {
        let fresh = [Ask::Fresh, Ask::FreshLarge].contains(&self.case.ask);
        let stores = self.case.target == Target::Oncegate(REQUESTS) && fresh;
        if stores { self.samples.iter().map(|sample| sample.answered).sum() } else { 0 }
    }
}

/// A client's settings for each way to travel.
struct Clients {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl Clients {
    fn new(certificate: &Certificate) -> Result<Self, Failure> {
        Ok(Self {
            http1: Arc::new(certificate.client("http/1.1")?),
            http2: Arc::new(certificate.client("h2")?),
        })
    }

    fn wire(&self, travel: Travel) -> Wire {
        match travel {
            Travel::Plain => Wire::Plain,
            Travel::Tls => Wire::Tls(Arc::clone(&self.http1)),
            Travel::Http2 => Wire::Http2(Arc::clone(&self.http2)),
            Travel::FullHandshake => Wire::Handshake(Arc::clone(&self.http1), HandshakeKind::Full),
            Travel::ResumedHandshake => {
                Wire::Handshake(Arc::clone(&self.http1), HandshakeKind::Resumed)
            }
        }
    }
}

fn measure(
    plan: &Plan,
    peers: Option<&Peers>,
    gateways: &[(&str, Gateway)],
    clients: &Clients,
) -> Result<Vec<Row>, Failure> {
    let find = |target| match target {
        Target::Oncegate(store) => {
            let (_, gateway) = gateways.iter().find(|(name, _)| *name == store)?;
            Some((gateway.address, vec![gateway.server.pid()]))
        }
        target => peers.and_then(|peers| peers.find(target)),
    };
    let mut rows: Vec<Row> = CASES
        .iter()
        .filter(|case| find(case.target).is_some())
        .filter(|case| plan.only.as_ref().is_none_or(|only| case.name.contains(only.as_str())))
        .map(|case| Row { case, samples: Vec::new() })
        .collect();
    for round in 0..plan.rounds {
        for row in &mut rows {
            let Some((address, pids)) = find(row.case.target) else { continue };
            let Case { name, ask, status, connections, .. } = *row.case;
            let connections = connections.unwrap_or(plan.connections);
            let wire = clients.wire(row.case.wire);
            let load = Load { address, second: None, ask, status, connections, wire };
            let counted = Counted { server: &pids, helpers: &[] };
            let told = |failure| format!("{name}: {failure}");
            let is_asked = !matches!(load.wire, Wire::Handshake(..));
            if round == 0 && row.case.backend == Backend::Never && is_asked {
                // What is to be replayed has to be there first.
                let prime = Load { status: Status::Any, ..load.clone() };
                load::run(&prime, Until::Answered(1, PRIMING), counted).map_err(told)?;
            }
            let until = Until::Elapsed { warm_up: WARM_UP, measured: plan.measured };
            let mut sample = load::run(&load, until, counted).map_err(told)?;
            // The warm-up's part of what was left to do is spread over its answers too.
            sample.cpu += process::rest(&pids).as_secs_f64() * 1e6 / sample.answered as f64;
            check_hits(row.case, &sample)?;
            eprintln!("round {}: {name}: {:.1} µs", round + 1, sample.cpu);
            row.samples.push(sample);
        }
    }
    Ok(rows)
}

/// A replay that reached the backend is none; a forwarded request reaches it exactly once.
fn check_hits(case: &Case, sample: &Sample) -> Result<(), Failure> {
    let expected = match case.backend {
        Backend::EveryTime => sample.answered,
        Backend::Never => 0,
    };
    if sample.hits == expected {
        return Ok(());
    }
    Err(format!(
        "{}: {} answers should have reached the backend {expected} times, not {}",
        case.name, sample.answered, sample.hits
    )
    .into())
}
