//! Report on observed routes: the effect that request mode would have had on their requests.

use maud::{Markup, html};

use crate::config::{Mode, RouteConfig};
use crate::observe::metrics::Metrics;

/// The section of the overview; empty without an observed route.
pub(super) fn report(metrics: &Metrics, routes: &[RouteConfig]) -> Markup {
    let observes = |route: &&RouteConfig| match &route.mode {
        Mode::Request(mode) => mode.observes,
        Mode::Items(_) | Mode::Off => false,
    };
    let observed: Vec<_> = routes
        .iter()
        .filter(observes)
        .map(|route| (&*route.name, metrics.observed_counts(&route.name)))
        .collect();
    html! {
        @if !observed.is_empty() {
            section aria-labelledby="observed" {
                h2 id="observed" { "Observed routes of this process" }
                p { "Nothing is changed on these routes. Request mode would have:" }
                div class="scroll" tabindex="0" role="region" aria-label="Table of observations" {
                    table {
                        thead {
                            tr {
                                th scope="col" { "route" }
                                th scope="col" { "outcome" }
                                th scope="col" { "requests" }
                                th scope="col" { "request mode would have" }
                            }
                        }
                        tbody {
                            @for (route, counts) in &observed {
                                @if counts.is_empty() {
                                    tr { td { (route) } td { "none" } td { "0" } td {} }
                                }
                                @for (outcome, count) in counts {
                                    tr {
                                        td { (route) }
                                        td { (outcome) }
                                        td { (count) }
                                        td { (effect(outcome)) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The effect of request mode on a request with this outcome.
fn effect(outcome: &str) -> &'static str {
    match outcome {
        "executed" | "unknown" | "not-executed" | "pending" | "upstream-unreachable" => {
            "sent the request, as happened"
        }
        "bypassed" => "passed the request without a key",
        "replayed" | "recovered" => "prevented a second execution: answered from the record",
        "request-in-progress" => "prevented a second execution: waited for the call in flight",
        "outcome-unknown" => "held the key, because an answer was lost",
        "response-not-retained" | "key-expired" | "reversed" => {
            "prevented a second execution: refused the request"
        }
        _ => "refused the request: the client is not ready",
    }
}
