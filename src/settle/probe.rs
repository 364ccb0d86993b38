//! A probe: the question to the backend, page by page, and the control look-up behind an absence.

use std::collections::HashSet;

use http::HeaderMap;
use http::header::LINK;
use tokio::time::{Instant, timeout};

use super::ask::{self, OwnRequest};
use super::conclude::Evidence;
use super::evidence::{self, ProbeAnswer, RowSearch};
use super::route::SettleRoute;
use super::values::RecordValues;
use crate::clock::Timestamp;
use crate::config::{ListRules, NextPage, ProbeRules};
use crate::idempotency::Record;
use crate::json::{Document, JsonType};
use crate::template::RenderError;

/// The result of a probe.
pub(crate) enum Probed {
    /// The backend was asked.
    Evidence(Evidence),
    /// Nothing was sent: a template has no value for this record.
    Unrendered(RenderError),
}

/// Asks the backend about a record.
pub(crate) async fn probe(
    route: &SettleRoute,
    rules: &ProbeRules,
    record: &Record,
    now: Timestamp,
    client: Option<&HeaderMap>,
) -> Probed {
    let values = RecordValues { record, row: None, now };
    let forwarded = client.map(|headers| (rules.forward.as_slice(), headers));
    let asked = match ask::rendered(&rules.request, &values, forwarded) {
        Ok(asked) => asked,
        Err(error) => return Probed::Unrendered(error),
    };
    let evidence = match &rules.list {
        None => match asked.send(&route.upstream, route.plan.timeout).await {
            Ok(answer) => evidence::of_object(rules, record, &answer, now),
            Err(error) => Evidence::Nothing(error.reason()),
        },
        Some(list) => {
            let search = match RowSearch::new(list, record, now) {
                Ok(search) => search,
                Err(error) => return Probed::Unrendered(error),
            };
            match timeout(route.step_time(), read_list(route, list, (&asked, now), search)).await {
                Ok(Ok(search)) => search.evidence(rules, record, now),
                Ok(Err(why)) => Evidence::Nothing(why),
                Err(_) => Evidence::Nothing("the list took too long to read".to_owned()),
            }
        }
    };
    let evidence = match evidence {
        absent @ (Evidence::Absent | Evidence::PartlyAbsent(_)) => {
            match backend_works(route, rules, &asked, &values).await {
                Ok(()) => absent,
                Err(why) => Evidence::Nothing(why),
            }
        }
        other => other,
    };
    note_health(route, &evidence);
    Probed::Evidence(evidence)
}

/// Reads the whole list.
///
/// # Errors
/// The list, or a part of it, could not be read; a cut list proves nothing.
async fn read_list<'r>(
    route: &SettleRoute,
    list: &ListRules,
    (asked, started): (&OwnRequest, Timestamp),
    mut search: RowSearch<'r>,
) -> Result<RowSearch<'r>, String> {
    let begun = Instant::now();
    let mut page = asked.clone();
    let mut visited = HashSet::from([page.target.clone()]);
    for _ in 0..list.max_pages {
        let answer = page.send(&route.upstream, route.plan.timeout).await;
        let answer = answer.map_err(ask::AskError::reason)?;
        search.page(&answer, (started, started.saturating_add(begun.elapsed())))?;
        let Some(next) = next_target(route, list, &page.target, &answer)? else {
            return Ok(search);
        };
        if !visited.insert(next.clone()) {
            return Err("the pages of the list lead back to an earlier page".to_owned());
        }
        page.target = next;
    }
    Err(format!("the list has more than {} pages", list.max_pages))
}

/// The target of the next page; `None`: there is none.
fn next_target(
    route: &SettleRoute,
    list: &ListRules,
    target: &str,
    answer: &ProbeAnswer,
) -> Result<Option<String>, String> {
    match &list.next {
        None => Ok(None),
        Some(NextPage::Link { .. }) => match next_link(&answer.headers)? {
            None => Ok(None),
            Some(link) => match route.upstream.own_target(target, &link) {
                Some(target) => Ok(Some(target)),
                None => Err("the next page is on another server".to_owned()),
            },
        },
        Some(NextPage::Query { pointer, query }) => {
            let document = Document::parse(&answer.body).map_err(|error| error.to_string())?;
            let Some(value) = document.find(pointer) else { return Ok(None) };
            match value.kind() {
                JsonType::Null => Ok(None),
                JsonType::Bool if value.raw() == "false" => Ok(None),
                JsonType::String | JsonType::Number => {
                    let text = value.as_id().unwrap_or_default();
                    let next = (!text.is_empty()).then(|| with_query(target, query, &text));
                    Ok(next)
                }
                JsonType::Bool | JsonType::Array | JsonType::Object => {
                    Err(format!("the answer has no value for the next page at \"{pointer}\""))
                }
            }
        }
    }
}

/// The target with a parameter of the query set.
fn with_query(target: &str, name: &str, value: &str) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut pairs: Vec<String> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .filter(|pair| pair.split('=').next() != Some(name))
        .map(str::to_owned)
        .collect();
    pairs.push(format!("{}={}", crate::percent::encode(name), crate::percent::encode(value)));
    format!("{path}?{}", pairs.join("&"))
}

/// The target of `Link: <…>; rel="next"` (RFC 8288); `None`: there is none.
///
/// # Errors
/// A line cannot be read, so that the list may go on.
fn next_link(headers: &HeaderMap) -> Result<Option<String>, String> {
    let unreadable = || "a `Link` header of the list cannot be read".to_owned();
    for line in headers.get_all(LINK) {
        let mut rest = line.to_str().map_err(|_| unreadable())?;
        while let Some((_, after)) = rest.split_once('<') {
            let (target, after) = after.split_once('>').ok_or_else(unreadable)?;
            // A target may hold commas, so the next link begins at the next bracket.
            let parameters = after.split('<').next().unwrap_or_default();
            if is_next(parameters) {
                return Ok(Some(target.to_owned()));
            }
            rest = after;
        }
    }
    Ok(None)
}

/// Reports `rel="next"` among the parameters of a link.
fn is_next(parameters: &str) -> bool {
    parameters.split([';', ',']).any(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case("rel")
            && value.split(' ').any(|relation| relation.eq_ignore_ascii_case("next"))
    })
}

/// The control look-up: an absence during an outage is none.
async fn backend_works(
    route: &SettleRoute,
    rules: &ProbeRules,
    asked: &OwnRequest,
    values: &RecordValues<'_>,
) -> Result<(), String> {
    let Some(absent) = &rules.absent else { return Ok(()) };
    let control = asked.control(&absent.control, values).map_err(|error| error.to_string())?;
    let answer = control.send(&route.upstream, route.plan.timeout).await;
    let answer =
        answer.map_err(|error| format!("the control look-up failed: {}", error.reason()))?;
    match answer.status {
        200..300 => Ok(()),
        status => Err(format!("the control look-up got {status}")),
    }
}

/// Counts failures of the backend for its breaker.
fn note_health(route: &SettleRoute, evidence: &Evidence) {
    match evidence {
        Evidence::Nothing(_) => {
            if route.breaker.failed(Instant::now()) {
                tracing::warn!(
                    route = %route.name,
                    "the backend gives no usable answers; its probes pause until one succeeds"
                );
            }
        }
        _ => route.breaker.succeeded(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[track_caller]
    fn check(lines: &[&'static [u8]], expected: Result<Option<&str>, ()>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(LINK, HeaderValue::from_bytes(line).unwrap());
        }
        let expected = expected.map(|target| target.map(str::to_owned));
        assert_eq!(next_link(&headers).map_err(|_| ()), expected, "{lines:?}");
    }

    #[test]
    fn the_next_page_is_found_or_the_list_is_incomplete() {
        check(&[], Ok(None));
        check(&[b"</a,b>; rel=\"prev\", </c?x=1>; rel=\"next\""], Ok(Some("/c?x=1")));
        check(&[b"</a>; rel=prev", b"</b>; title=x; rel=\"last Next\""], Ok(Some("/b")));
        check(&[b"</a>; rel=prev"], Ok(None));
        // A line that cannot be read may be the way to the row.
        check(&[b"</a; rel=next"], Err(()));
        check(&[b"</a>; rel=prev; title=\"\xff\"", b"</b>; rel=next"], Err(()));
    }
}
