//! Fresh requests: through one gateway and through two on one store.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Kind, Plan, Replicas};
use crate::load::{self, Ask, Counted, Load, Sample, Status, Until};
use crate::secure::Wire;
use crate::servers::{Gateway, Peers};
use crate::{Failure, machine};

const WARM_UP: Duration = Duration::from_millis(500);

/// What answers, and what its rounds found.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) samples: Vec<Sample>,
    /// What it is compared with, and what is wanted then.
    pub(super) against: Option<(String, Wanted)>,
    connections: usize,
    address: SocketAddr,
    second: Option<SocketAddr>,
    server: Vec<u32>,
    store: Vec<u32>,
    status: Status,
}

/// What is wanted of a row, compared with another.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    Nothing,
    /// At least its rate and at most its CPU.
    RateAndCpu,
    /// At least its rate.
    Rate,
}

/// The row of nginx + Lua + Redis.
const NAIVE: &str = "nginx + Lua + Redis, not durable";

pub(super) fn measure(plan: &Plan, mut rows: Vec<Row>) -> Result<Vec<Row>, Failure> {
    rows.retain(|row| plan.only.as_ref().is_none_or(|only| row.name.contains(only.as_str())));
    for round in 1..=plan.rounds {
        // Each round in the other direction: what servers do afterwards burdens not the same ones
        // every time.
        let forth = rows.iter_mut();
        let order: Vec<&mut Row> =
            if round % 2 == 1 { forth.collect() } else { forth.rev().collect() };
        for row in order {
            let load = Load {
                address: row.address,
                wire: Wire::Plain,
                second: row.second,
                ask: Ask::Fresh,
                status: row.status,
                connections: row.connections,
            };
            let until = Until::Elapsed { warm_up: WARM_UP, measured: plan.measured };
            let counted = Counted { server: &row.server, helpers: &row.store };
            machine::flush()?;
            let told = |failure| format!("{}: {failure}", row.name);
            let sample = load::run(&load, until, counted).map_err(told)?;
            if sample.hits != sample.answered {
                let Sample { hits, answered, .. } = sample;
                let name = &row.name;
                return Err(
                    format!("{name}: {answered} answers, {hits} calls of the backend").into()
                );
            }
            eprintln!("round {round}: {}: {:.0}/s, {:.1} µs", row.name, sample.rate, sample.cpu);
            row.samples.push(sample);
        }
    }
    Ok(rows)
}

/// What is measured without a store on a server.
pub(super) fn alone(
    connections: usize,
    peers: Option<&Peers>,
    embedded: &Gateway,
) -> Result<Vec<Row>, Failure> {
    let mut rows = naive(connections, peers)?;
    rows.push(Row {
        name: "oncegate, embedded store".to_owned(),
        samples: Vec::new(),
        against: Some((NAIVE.to_owned(), Wanted::Nothing)),
        connections,
        address: embedded.address,
        second: None,
        server: vec![embedded.server.pid()],
        store: Vec::new(),
        status: Status::Is("executed"),
    });
    Ok(rows)
}

/// What others do without a promise, where there are peers.
pub(super) fn naive(connections: usize, peers: Option<&Peers>) -> Result<Vec<Row>, Failure> {
    let Some(peers) = peers else { return Ok(Vec::new()) };
    let (address, nginx, redis) = peers.naive().ok_or("no nginx + Lua + Redis")?;
    Ok(vec![Row {
        name: NAIVE.to_owned(),
        samples: Vec::new(),
        against: None,
        connections,
        address,
        second: None,
        server: vec![nginx],
        store: vec![redis],
        status: Status::None,
    }])
}

/// One replica and two, on each kind of store.
pub(super) fn replicas(connections: usize, kinds: &[Kind]) -> Vec<Row> {
    let rows = kinds.iter().map(|Kind { name, one, two }| {
        let row = |name: String, replicas: &Replicas, against: &str, wanted: Wanted| Row {
            name,
            samples: Vec::new(),
            against: Some((against.to_owned(), wanted)),
            connections,
            address: replicas.gateways[0].address,
            second: replicas.gateways.get(1).map(|second| second.address),
            server: replicas.gateways.iter().map(|gateway| gateway.server.pid()).collect(),
            store: vec![replicas.store.server.pid()],
            status: Status::Is("executed"),
        };
        let single = format!("oncegate, {name}");
        let two = row(format!("two oncegates, {name}"), two, &single, Wanted::Rate);
        [row(single, one, NAIVE, Wanted::RateAndCpu), two]
    });
    rows.flatten().collect()
}
