//! Finding records: by voucher, by key, by state, route and time.

use std::sync::Arc;

use http::StatusCode;
use maud::{Markup, html};
use serde_json::Value;

use super::form::PageForm;
use super::layout;
use super::refusal::PageResult;
use super::text::{escaped, visible};
use crate::admin::records::{Filters, StateName, find};
use crate::admin::session::Session;
use crate::admin::state::AdminState;
use crate::clock::rfc3339;
use crate::config::RouteConfig;

/// Records of a page.
const PAGE: usize = 50;

pub(super) async fn show(state: &Arc<AdminState>, session: &Session, query: &str) -> PageResult {
    let form = PageForm::parse(query)?;
    let mut filters = Filters::from_pairs(form.filled())?;
    // Every key that touched a voucher is shown, in order.
    let is_subject = filters.subject.is_some();
    filters.limit = if is_subject { Filters::MOST } else { PAGE };
    let (mut records, next) = find(state, &filters).await?;
    if is_subject {
        records.reverse();
    }
    let routes = state.gateway.routes();
    let next = next.map(|position| {
        let kept = form.filled().filter(|(name, _)| *name != "cursor");
        let kept = kept.map(|(name, value)| format!("{}={}&", escaped(name), escaped(value)));
        let kept: String = kept.collect();
        format!("/records?{kept}cursor={}", filters.cursor(position))
    });
    let content = html! {
        h1 { "Records" }
        (search(&filters, &routes))
        @match &filters.subject {
            Some(subject) => h2 {
                "Every key that touched " bdi { (visible(subject, false)) } ", the first one first"
            },
            None => h2 { "Records found, the newest first" },
        }
        (table(&records))
        @if records.is_empty() {
            p {
                @if next.is_some() { "None among the records that were read." }
                @else { "None." }
            }
        }
        @if let Some(next) = next { p { a href=(next) { "Further records" } } }
    };
    Ok(layout::page(StatusCode::OK, session, "Records", &content))
}

/// The form to search with; a search can be bookmarked.
pub(super) fn search(filters: &Filters, routes: &[RouteConfig]) -> Markup {
    // A hidden character would be sent again without anybody seeing it.
    let is_plain = |text: &&String| visible(text, false) == **text;
    let text =
        |value: &Option<String>| value.as_ref().filter(is_plain).cloned().unwrap_or_default();
    let time = |at: Option<crate::clock::Timestamp>| at.map(rfc3339).unwrap_or_default();
    html! {
        form method="get" action="/records" class="search" role="search" {
            div {
                label for="subject" { "Voucher (business id)" }
                input id="subject" name="subject" value=(text(&filters.subject)) autocomplete="off";
            }
            div {
                label for="key" { "Key, or id of an item" }
                input id="key" name="key" value=(text(&filters.key)) autocomplete="off";
            }
            div {
                label for="state" { "State" }
                select id="state" name="state" {
                    option value="" { "any" }
                    @for state in StateName::ALL {
                        option value=(state.as_str()) selected[filters.state == Some(state)] {
                            (state.as_str())
                        }
                    }
                }
            }
            div {
                label for="route" { "Route" }
                select id="route" name="route" {
                    option value="" { "any" }
                    @for route in routes {
                        option value=(route.name)
                            selected[filters.route.as_deref() == Some(&route.name)] {
                            (route.name)
                        }
                    }
                }
            }
            div {
                label for="since" { "First seen since (UTC)" }
                input id="since" name="since" value=(time(filters.since))
                    placeholder="2026-01-31T13:00:00Z" autocomplete="off";
            }
            div {
                label for="until" { "until (UTC)" }
                input id="until" name="until" value=(time(filters.until))
                    placeholder="2026-01-31T14:00:00Z" autocomplete="off";
            }
            button type="submit" { "Find" }
        }
    }
}

fn table(records: &[Value]) -> Markup {
    let text = |value: &Value| match value {
        Value::String(text) => visible(text, false),
        Value::Null => "–".to_owned(),
        other => other.to_string(),
    };
    html! {
        div class="scroll" tabindex="0" role="region" aria-label="Records found" {
            table {
                thead {
                    tr {
                        th scope="col" { "first seen (UTC)" }
                        th scope="col" { "key" }
                        th scope="col" { "state" }
                        th scope="col" { "answer" }
                        th scope="col" { "attempts" }
                        th scope="col" { "route" }
                        th scope="col" { "caller" }
                    }
                }
                tbody {
                    @for record in records {
                        tr {
                            td { (text(&record["first_seen"])) }
                            td {
                                a href={ "/records/" (text(&record["id"])) } {
                                    bdi { (text(&record["key"])) }
                                }
                            }
                            td { span class={ "state " (text(&record["state"])) } {
                                (text(&record["state"]))
                            } }
                            td { (text(&record["status"])) }
                            td { (text(&record["attempts"])) }
                            td { (text(&record["route"])) }
                            td { code { (text(&record["tenant"]).get(..8).unwrap_or_default()) } }
                        }
                    }
                }
            }
        }
    }
}
