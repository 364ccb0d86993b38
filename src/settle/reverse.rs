//! A reversal: the request that undoes a call, and the reading of its acknowledgement.

use tokio::time::Instant;

use super::ask;
use super::conclude::Evidence;
use super::evidence::ProbeAnswer;
use super::probe::Probed;
use super::response;
use super::route::SettleRoute;
use super::values::RecordValues;
use crate::clock::Timestamp;
use crate::config::{AfterReversal, ReverseRules};
use crate::idempotency::Record;
use crate::matcher::{HeaderView, MatchBody, MatchInput, ParsedBody, any};
use crate::problem::Dialect;
use crate::template::RenderError;

/// Sends the reversal of a record's call once.
pub(crate) async fn reverse(
    route: &SettleRoute,
    rules: &ReverseRules,
    record: &Record,
    now: Timestamp,
) -> Probed {
    let values = RecordValues { record, row: None, now };
    let asked = match ask::rendered(&rules.request, &values, None) {
        Ok(asked) => asked,
        Err(error) => return Probed::Unrendered(error),
    };
    match asked.send(&route.upstream, route.plan.timeout).await {
        Ok(answer) => {
            route.breaker.succeeded();
            Probed::Evidence(acknowledged((rules, route.plan.dialect), record, &answer, now))
        }
        Err(error) => {
            route.breaker.failed(Instant::now());
            Probed::Evidence(Evidence::Nothing(error.reason()))
        }
    }
}

/// Reports whether every template of the reversal has its values, before the reversal begins: a
/// reversal that cannot be sent must not turn a late answer into a contradiction.
pub(crate) fn is_sendable(
    rules: &ReverseRules,
    record: &Record,
    now: Timestamp,
) -> Result<(), RenderError> {
    ask::rendered(&rules.request, &RecordValues { record, row: None, now }, None).map(|_| ())
}

fn acknowledged(
    (rules, dialect): (&ReverseRules, Dialect),
    record: &Record,
    answer: &ProbeAnswer,
    now: Timestamp,
) -> Evidence {
    let body = ParsedBody::new(&answer.body);
    let headers = HeaderView::Map(&answer.headers);
    let input = MatchInput::answer(answer.status, headers, MatchBody::Whole(&body));
    let nothing = any(&rules.nothing, &input);
    if !nothing && !any(&rules.done, &input) {
        let why = format!("the reversal got {}, which acknowledges nothing", answer.status);
        return Evidence::Undecided(why);
    }
    let row = body.json().map(|json| json.root().raw());
    let values = RecordValues { record, row, now };
    let response = match (rules.then, &rules.response) {
        (AfterReversal::Release, _) => None,
        (AfterReversal::Fail, None) => Some(response::reversed(dialect, now)),
        (AfterReversal::Fail, Some(template)) => {
            let rendered = response::rendered(template, &values);
            Some(rendered.unwrap_or_else(|_| response::reversed(dialect, now)))
        }
    };
    Evidence::Reversed { nothing, response }
}
