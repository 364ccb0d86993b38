//! Kept answers on their way to slow clients: the store or a cache forgets an answer long before
//! its last client has read it, so the bytes are counted until then.

use std::sync::Arc;

use super::answer::AnswerResult;
use super::budget::{Budget, SMALL};
use super::reply;
use crate::body::owning;
use crate::problem::{Disposition, Problem, STATUS, Slug};

/// Counts the bytes of a replay until its client has them. A replay without room is refused:
/// nothing is lost, and a retry gets it. Small answers are part of what a connection takes, and the
/// answer to an execution is counted from its arrival.
pub(crate) fn counted(budget: &Arc<Budget>, answer: AnswerResult) -> AnswerResult {
    let response = answer?;
    let bytes = match response.body().whole() {
        Some(bytes) if bytes.len() as u64 > SMALL => bytes.clone(),
        Some(_) | None => return Ok(response),
    };
    if response.headers().get(STATUS) != Some(&Disposition::Replayed.header()) {
        return Ok(response);
    }
    let Some(held) = budget.reserve_replay(&bytes) else { return Err(no_room()) };
    Ok(response.map(|_| owning(bytes, held)))
}

fn no_room() -> Problem {
    let detail = "Too many large answers are being sent at once. Nothing was carried out by this \
                  call; the answer is kept, please ask for it again shortly.";
    Problem::new(Slug::Overloaded, detail).retry_after(reply::RETRY_LATER)
}
