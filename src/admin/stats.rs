//! `GET /api/stats`.

use serde_json::{Map, Value, json};

use super::state::AdminState;
use crate::clock::rfc3339;
use crate::observe::traffic::TrafficBar;

/// Bars of the last hour: their number and their minutes.
pub(super) const HOUR: (u64, u64) = (60, 1);
/// Bars of the last day.
pub(super) const DAY: (u64, u64) = (48, 30);

/// `GET /api/stats`: the figures of this process, and the unknown outcomes of the whole store.
pub(super) async fn stats(state: &AdminState) -> Value {
    let figures = state.gateway.figures();
    let unknown = state.unknown.figures(&state.store).await;
    let now = state.store.now();
    let identity = state.store.identity();
    let routes: Map<String, Value> = state
        .metrics
        .routes()
        .into_iter()
        .map(|(name, route)| {
            let requests: Map<String, Value> =
                route.counts().map(|(outcome, count)| (outcome.to_owned(), count.into())).collect();
            let shown = json!({
                "requests": requests,
                "prevented": route.prevented_count(),
                "replays": route.replay_count(),
            });
            (name, shown)
        })
        .collect();
    let bars = |(count, minutes): (u64, u64)| -> Value {
        let clock = crate::clock::now();
        state.traffic.bars(count, minutes, clock).iter().map(bar).collect()
    };
    let pools: Map<String, Value> =
        figures.pools.iter().map(|(name, count)| (name.clone(), (*count).into())).collect();
    let observed: Map<String, Value> = state
        .gateway
        .routes()
        .iter()
        .filter_map(|route| {
            let counts = state.metrics.observed_counts(&route.name);
            let counts: Map<String, Value> = counts
                .into_iter()
                .map(|(outcome, count)| (outcome.to_owned(), count.into()))
                .collect();
            (!counts.is_empty()).then(|| (route.name.to_string(), counts.into()))
        })
        .collect();
    json!({
        "store": { "id": identity.store_id.to_string(), "created": rfc3339(identity.created) },
        "now": rfc3339(now),
        "in_flight": figures.in_flight,
        "waiters": figures.waiters,
        "buffered_bytes": figures.buffered,
        "pool_connections": pools,
        "unknown": {
            "records": unknown.records,
            "oldest": unknown.oldest.map(rfc3339),
            "oldest_seconds": unknown.oldest.map_or(0, |oldest| oldest.until(now).as_secs()),
        },
        "routes": routes,
        "observed": observed,
        "hour": bars(HOUR),
        "day": bars(DAY),
    })
}

fn bar(bar: &TrafficBar) -> Value {
    json!({
        "start": rfc3339(bar.start),
        "requests": bar.totals.requests,
        "prevented": bar.totals.prevented,
    })
}
