//! Bar charts as inline SVG, each with its numbers in a table.

use maud::{Markup, html};

use crate::clock::rfc3339;
use crate::observe::traffic::TrafficBar;

/// Units of the drawing, which the style scales: the place of a bar, and the height.
const STEP: usize = 12;
const HEIGHT: u64 = 120;
/// Units between two bars.
const GAP: usize = 2;

/// The chart of some bars. `name`: a word for ids; `title`: what the chart shows.
pub(super) fn chart(name: &str, title: &str, bars: &[TrafficBar]) -> Markup {
    let most = bars.iter().map(|bar| bar.totals.requests.max(bar.totals.prevented)).max();
    let most = most.unwrap_or(0).max(1);
    // As wide as its bars, so that the last one ends with the axis.
    let width = bars.len().max(1) * STEP;
    let height = |count: u64| {
        let scaled = (u128::from(count) * u128::from(HEIGHT)).div_ceil(u128::from(most));
        u64::try_from(scaled).map_or(HEIGHT, |scaled| scaled.min(HEIGHT))
    };
    let sum = |of: fn(&TrafficBar) -> u64| bars.iter().map(of).sum::<u64>();
    let (requests, prevented) = (sum(|bar| bar.totals.requests), sum(|bar| bar.totals.prevented));
    let label = format!("{title}: {requests} requests, {prevented} doubles prevented");
    let heading = format!("{name}-title");
    html! {
        figure {
            figcaption id=(heading) { (label) }
            svg viewBox={ "0 0 " (width) " " (HEIGHT + 2) } role="img" aria-labelledby=(heading)
                preserveAspectRatio="none" {
                line class="axis" x1="0" x2=(width) y1=(HEIGHT + 1) y2=(HEIGHT + 1) {}
                @for (at, bar) in bars.iter().enumerate() {
                    @let (all, saved) = (height(bar.totals.requests), height(bar.totals.prevented));
                    g {
                        title {
                            (minute(bar)) ": " (bar.totals.requests) " requests, "
                            (bar.totals.prevented) " prevented"
                        }
                        rect class="requests" x=(at * STEP) width=(STEP - GAP)
                            y=(HEIGHT - all) height=(all) {}
                        rect class="prevented" x=(at * STEP) width=(STEP - GAP)
                            y=(HEIGHT - saved) height=(saved) {}
                    }
                }
            }
            p class="legend" {
                span class="key requests" {} " requests  "
                span class="key prevented" {} " doubles prevented"
            }
            details {
                summary { "Numbers of " (title) }
                div class="scroll" tabindex="0" role="region" aria-label={ "Numbers of " (title) } {
                    table {
                        thead {
                            tr {
                                th scope="col" { "from (UTC)" }
                                th scope="col" { "requests" }
                                th scope="col" { "prevented" }
                            }
                        }
                        tbody {
                            @for bar in bars.iter().rev() {
                                tr {
                                    td { (minute(bar)) }
                                    td { (bar.totals.requests) }
                                    td { (bar.totals.prevented) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The beginning of a bar, to the minute.
fn minute(bar: &TrafficBar) -> String {
    let text = rfc3339(bar.start);
    text.get(..16).unwrap_or_default().replace('T', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::observe::metrics::Totals;

    #[test]
    fn a_chart_has_a_bar_and_a_row_for_each_time() {
        let bar = |requests, prevented| TrafficBar {
            start: Timestamp::from_millis(0),
            totals: Totals { requests, prevented },
        };
        let drawn = chart("a", "the last hour", &[bar(10, 1), bar(0, 0), bar(u64::MAX / 2, 7)]);
        let drawn = drawn.into_string();
        assert_eq!(drawn.matches("<rect class=\"requests\"").count(), 3);
        // An element of SVG without its end would swallow its neighbors.
        assert_eq!((drawn.matches("</rect>").count(), drawn.matches("</line>").count()), (6, 1));
        assert_eq!(drawn.matches("<tr><td>").count(), 3);
        assert!(drawn.contains("y=\"0\" height=\"120\""), "{drawn}");
        assert!(drawn.contains("viewBox=\"0 0 36 122\"") && drawn.contains("x=\"24\""), "{drawn}");
        assert!(!drawn.contains("style="));
        chart("a", "nothing", &[]);
    }
}
