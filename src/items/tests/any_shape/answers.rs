//! The answers of a run.

use super::super::*;
use super::Run;
use super::shape::Wanted;
use super::shown::{Expected, check};

impl Run {
    /// Content that the answer to a batch must show of each item.
    pub(super) fn expected<'e>(
        &'e self,
        (call, wanted): (&'e Call, &'e [Wanted]),
        now: Option<&'e BatchOutcome>,
    ) -> Vec<Expected<'e>> {
        let entries = self.books.of(call).into_iter().enumerate();
        entries
            .map(|(at, entry)| Expected {
                wanted: &wanted[at],
                entry,
                now: now.and_then(|now| now.outcomes[at].as_ref()),
            })
            .collect()
    }

    /// Checks an answer against the entries of its batch.
    pub(super) fn check_answer(
        &self,
        batch: (&Call, &[Wanted]),
        (answer, now): (&BatchAnswer, Option<(&BatchOutcome, u64)>),
    ) {
        let expected = self.expected(batch, now.map(|(joined, _)| joined));
        let unknown = expected.iter().any(|item| item.entry.is_open());
        assert_eq!(unknown, answer.fulfillment == rules::Fulfillment::Unknown);
        if unknown {
            assert_eq!(answer.status, 409, "{answer:?}");
        }
        if answer.body.is_empty() {
            return assert!(self.shape.is_job && !unknown, "{answer:?}");
        }
        let body = value(answer);
        check(&self.shape, &expected, &body);
        // What stands beside the rows is the last answer's.
        let last = expected.iter().filter_map(|item| item.entry.envelope.as_ref());
        let last = last.map(|envelope| envelope.at.as_millis()).max();
        let last = now.map(|(_, trace)| trace).or(last);
        if let (Some(last), Some(trace)) = (last, body.get("trace")) {
            assert_eq!(*trace, last, "{body}");
        }
    }
}
