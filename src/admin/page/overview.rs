//! The first page: traffic, what is in flight, and the unknown outcomes that wait for somebody.

use std::sync::Arc;

use http::StatusCode;
use maud::{Markup, html};
use serde_json::Value;

use super::refusal::PageResult;
use super::text::{age, visible};
use super::{chart, layout, lookup, observed};
use crate::admin::records::{Filters, StateName, find};
use crate::admin::session::Session;
use crate::admin::state::AdminState;
use crate::admin::stats::{DAY, HOUR};
use crate::clock::{self, parse_rfc3339};
use crate::config::{Mode, RouteConfig, UnknownPolicy};

/// Unknown outcomes on the page; the others are behind a link.
const QUEUE: usize = 50;

pub(super) async fn show(state: &Arc<AdminState>, session: &Session) -> PageResult {
    let figures = state.gateway.figures();
    let unknown = state.unknown.figures(&state.store).await;
    let now = state.store.now();
    let (hour, day) = {
        let clock = clock::now();
        (state.traffic.bars(HOUR.0, HOUR.1, clock), state.traffic.bars(DAY.0, DAY.1, clock))
    };
    let filters =
        Filters { state: Some(StateName::Unknown), limit: Filters::MOST, ..Filters::default() };
    let (mut queue, _) = find(state, &filters).await?;
    queue.reverse();
    queue.truncate(QUEUE);
    let oldest = unknown.oldest.map(|oldest| age(oldest.until(now).as_secs()));
    let routes = state.gateway.routes();
    let prevented = |bars: &[_]| prevented(bars);
    let content = html! {
        h1 { "Overview" }
        ul class="figures" {
            (figure("in flight", &figures.in_flight.to_string()))
            (figure("duplicates waiting", &figures.waiters.to_string()))
            (figure("unknown outcomes", &unknown.records.to_string()))
            (figure("oldest unknown", oldest.as_deref().unwrap_or("none")))
            (figure("prevented, last hour", &prevented(&hour)))
            (figure("prevented, last day", &prevented(&day)))
        }
        section aria-labelledby="queue" {
            h2 id="queue" { "Unknown outcomes" }
            (waiting(&queue, &routes, unknown.records, now))
        }
        section aria-labelledby="find" {
            h2 id="find" { "Find a record" }
            (lookup::search(&Filters::default(), &routes))
        }
        section aria-labelledby="traffic" {
            h2 id="traffic" { "Traffic of this process" }
            (chart::chart("hour", "the last hour", &hour))
            (chart::chart("day", "the last day", &day))
        }
        (observed::report(&state.metrics, &routes))
        section aria-labelledby="backends" {
            h2 id="backends" { "Connections to backends" }
            ul {
                @for (name, count) in &figures.pools { li { (name) ": " (count) } }
            }
        }
        p { a href="/" { "Load anew" } }
    };
    Ok(layout::page(StatusCode::OK, session, "Overview", &content))
}

fn prevented(bars: &[crate::observe::traffic::TrafficBar]) -> String {
    bars.iter().map(|bar| bar.totals.prevented).sum::<u64>().to_string()
}

fn figure(name: &str, value: &str) -> Markup {
    html! { li { span class="name" { (name) } strong { (value) } } }
}

/// The queue of unknown outcomes, the oldest first. Of more than [`Filters::MOST`] it has the
/// newest ones only, as listings do, and says so.
fn waiting(queue: &[Value], routes: &[RouteConfig], all: u64, now: clock::Timestamp) -> Markup {
    if queue.is_empty() {
        return html! { p { "None: every outcome is known." } };
    }
    let text = |value: &Value| visible(value.as_str().unwrap_or_default(), false);
    html! {
        div class="scroll" tabindex="0" role="region" aria-label="Table of unknown outcomes" {
            table {
                thead {
                    tr {
                        th scope="col" { "age" }
                        th scope="col" { "key" }
                        th scope="col" { "route" }
                        th scope="col" { "policy" }
                        th scope="col" { "why unknown" }
                        th scope="col" { "attempts" }
                    }
                }
                tbody {
                    @for record in queue {
                        @let seen = record["updated"].as_str().and_then(parse_rfc3339);
                        tr {
                            td { (since(seen, now)) }
                            td {
                                a href={ "/records/" (text(&record["id"])) } {
                                    bdi { (text(&record["key"])) }
                                }
                            }
                            td { (text(&record["route"])) }
                            td { (policy(routes, record["route"].as_str())) }
                            td { (text(&record["reason"])) }
                            td { (record["attempts"]) }
                        }
                    }
                }
            }
        }
        @if all > Filters::MOST as u64 {
            p {
                "The oldest of the " (Filters::MOST) " newest; list older ones with `until` in "
                "the records API."
            }
        }
        @if all > queue.len() as u64 {
            p { a href="/records?state=unknown" { "All " (all) " unknown outcomes" } }
        }
    }
}

/// The age of a time.
fn since(at: Option<clock::Timestamp>, now: clock::Timestamp) -> String {
    at.map(|at| age(at.until(now).as_secs())).unwrap_or_default()
}

/// The policy of a route for its unknown outcomes.
pub(super) fn policy(routes: &[RouteConfig], route: Option<&str>) -> &'static str {
    let Some(route) = routes.iter().find(|configured| Some(&*configured.name) == route) else {
        return "hold (no such route any more)";
    };
    let policy = match &route.mode {
        Mode::Request(mode) => &mode.on_unknown,
        Mode::Items(mode) => &mode.on_unknown,
        Mode::Off => return "hold",
    };
    match policy {
        UnknownPolicy::Hold => "hold",
        UnknownPolicy::Probe(_) => "probe",
        UnknownPolicy::Resend(_) => "resend",
        UnknownPolicy::Reverse(_) => "reverse",
    }
}
