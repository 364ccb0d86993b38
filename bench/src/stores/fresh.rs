//! Fresh requests: through one gateway and through two on one store.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Plan, Replicas};
use crate::Failure;
use crate::load::{self, Ask, Counted, Load, Sample, Status, Until};
use crate::servers::{Gateway, Peers};

const WARM_UP: Duration = Duration::from_millis(500);

/// What answers, and what its rounds found.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) samples: Vec<Sample>,
    pub(super) wanted: Wanted,
    address: SocketAddr,
    second: Option<SocketAddr>,
    server: Vec<u32>,
    store: Vec<u32>,
    status: Status,
}

/// What is wanted of a row.
pub(super) enum Wanted {
    Nothing,
    /// At least the rate of the first row and at most its CPU.
    AsFastAsFirst,
    /// At least the rate of the row before.
    AsFastAsBefore,
}

pub(super) fn measure(
    plan: &Plan,
    peers: Option<&Peers>,
    embedded: &Gateway,
    shared: &[Replicas],
) -> Result<Vec<Row>, Failure> {
    let mut rows = rows(peers, embedded, shared)?;
    rows.retain(|row| plan.only.as_ref().is_none_or(|only| row.name.contains(only.as_str())));
    for round in 1..=plan.rounds {
        for row in &mut rows {
            let load = Load {
                address: row.address,
                second: row.second,
                ask: Ask::Fresh,
                status: row.status,
                connections: plan.connections,
            };
            let until = Until::Elapsed { warm_up: WARM_UP, measured: plan.measured };
            let counted = Counted { server: &row.server, helpers: &row.store };
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

fn rows(
    peers: Option<&Peers>,
    embedded: &Gateway,
    shared: &[Replicas],
) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    if let Some(peers) = peers {
        let (naive, nginx, redis) = peers.naive().ok_or("no nginx + Lua + Redis")?;
        rows.push(Row {
            name: "nginx + Lua + Redis, not durable".to_owned(),
            samples: Vec::new(),
            wanted: Wanted::Nothing,
            address: naive,
            second: None,
            server: vec![nginx],
            store: vec![redis],
            status: Status::None,
        });
    }
    rows.push(Row {
        name: "oncegate, embedded store".to_owned(),
        samples: Vec::new(),
        wanted: Wanted::Nothing,
        address: embedded.address,
        second: None,
        server: vec![embedded.server.pid()],
        store: Vec::new(),
        status: Status::Is("executed"),
    });
    for Replicas { kind, gateways: [first, second], store } in shared {
        let one = |name: String, wanted: Wanted| Row {
            name,
            samples: Vec::new(),
            wanted,
            address: first.address,
            second: None,
            server: vec![first.server.pid()],
            store: vec![store.server.pid()],
            status: Status::Is("executed"),
        };
        rows.push(one(format!("oncegate, {kind}"), Wanted::AsFastAsFirst));
        rows.push(Row {
            second: Some(second.address),
            server: vec![first.server.pid(), second.server.pid()],
            ..one(format!("two oncegates, {kind}"), Wanted::AsFastAsBefore)
        });
    }
    Ok(rows)
}
