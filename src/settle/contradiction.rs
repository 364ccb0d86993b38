//! Results of a call that arrive after somebody else decided: kept in the record's history, and
//! alarmed when they disagree.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

pub(crate) use super::conclude::CallResult;
use super::conclude::{Alarm, contradiction};
use super::state::Settler;
use super::transition::{Advance, Transition, advance};
use crate::idempotency::{Record, RecordId};
use crate::store::{Change, Store};

/// Looks at a record that another attempt has in flight, and the pause between them.
const LOOKS: u32 = 8;
const PAUSE: Duration = Duration::from_secs(2);

/// Keeps a late result of a call that was decided otherwise.
pub(crate) async fn keep(settler: Arc<Settler>, id: RecordId, what: String, result: CallResult) {
    let store = settler.store.clone();
    for _ in 0..LOOKS {
        let record = match store.get(id).await {
            Ok(Some(record)) => record,
            Ok(None) => break,
            Err(_) => {
                sleep(PAUSE).await;
                continue;
            }
        };
        if record.is_in_flight() {
            // A later attempt holds the record, and nobody else may change it.
            sleep(PAUSE).await;
            continue;
        }
        let mut late = LateResult { store: &*store, id, record, what: &what, result, kept: None };
        let ended = advance(&*store, &mut late).await;
        if let (Advance::Done, Some((record, raised))) = (ended, late.kept) {
            if let Some(raised) = raised {
                settler.alarm(id, &record, raised);
            }
            return;
        }
    }
    tracing::warn!(
        record = %id, reason = Alarm::Contradiction.as_str(), result = what,
        "a result came after the decision about its call, and could not be kept with the record"
    );
}

struct LateResult<'s> {
    store: &'s dyn Store,
    id: RecordId,
    record: Record,
    what: &'s str,
    result: CallResult,
    kept: Option<(Box<Record>, Option<Alarm>)>,
}

impl Transition for LateResult<'_> {
    fn changes(&mut self) -> Vec<Change> {
        let now = self.store.now();
        let conclusion = contradiction(&self.record, self.what, self.result, now);
        let Some(next) = conclusion.next else { return Vec::new() };
        self.kept = Some((next.clone(), conclusion.alarm));
        let expect = Some(self.record.version);
        vec![Change { id: self.id, expect, put: Some(Arc::new(*next)) }]
    }

    fn rebase(&mut self, present: Vec<Option<Record>>) -> bool {
        self.kept = None;
        match present.into_iter().next().flatten() {
            Some(record) if !record.is_in_flight() => {
                self.record = record;
                true
            }
            Some(_) | None => false,
        }
    }
}
