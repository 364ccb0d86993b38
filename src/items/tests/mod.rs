//! Batches: the worked example, every oddity that is known of real backends, exact texts, and
//! random sequences of calls.

pub(crate) mod any_shape;
mod doubtful;
mod oddities;
mod random;
mod reading;
mod shapes;
mod story;

use super::*;
use crate::config::{self, ItemsMode, Mode};
use crate::idempotency::ledger::elements;
use crate::idempotency::{Fingerprint, TenantId};
use crate::json::Document;
use crate::matcher::HeaderView;

/// Reads a batch from the bytes of a body.
fn read_batch(rules: &ItemRules, request: &BatchRequest<'_>) -> Result<Batch, BatchError> {
    let document = Document::parse(request.body).map_err(BatchError::NotJson)?;
    Batch::read(rules, request, &document).map(|(batch, _)| batch)
}

/// The rules of an example's route.
pub(super) fn example(text: &str, route: usize) -> ItemsMode {
    let config = config::parse(text, "t.toml", &|_| None).unwrap_or_else(|it| panic!("{it}"));
    match &config.routes[route].mode {
        Mode::Items(mode) => (**mode).clone(),
        Mode::Request(_) | Mode::Off => panic!("route {route} has another mode"),
    }
}

pub(super) fn capillary() -> ItemsMode {
    example(include_str!("../../../config/capillary.toml"), 0)
}

pub(super) fn currency() -> ItemsMode {
    example(include_str!("../../../config/currency.toml"), 0)
}

pub(super) fn single() -> ItemsMode {
    example(include_str!("../../../config/single-reward.toml"), 1)
}

/// The rules of a route whose `[route.items]` begins with these lines.
pub(super) fn mode_of(rules: &str) -> ItemsMode {
    let text = format!(
        "[[upstream]]\nname = \"a\"\nurl = \"http://127.0.0.1:9\"\n[[route]]\nname = \"b\"\n\
         methods = [\"POST\"]\npath = \"/b\"\nupstream = \"a\"\nmode = \"items\"\n\
         [route.items]\n{rules}\n"
    );
    example(&text, 0)
}

pub(super) fn tenant() -> TenantId {
    TenantId::from_bytes([7; 16])
}

pub(super) fn request(body: &str) -> BatchRequest<'_> {
    const TENANT: TenantId = TenantId::from_bytes([7; 16]);
    BatchRequest { tenant: &TENANT, parameters: &[], batch: None, body: body.as_bytes() }
}

/// A ledger in memory, driven as the proxy drives the store.
#[derive(Debug, Default, Clone)]
pub(super) struct Books {
    pub(super) entries: std::collections::HashMap<String, (Fingerprint, Ledger)>,
}

/// A call between its claim and its answer.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) batch: Batch,
    pub(super) plan: BatchPlan,
    /// What goes upstream; `None`: nothing.
    pub(super) upstream: Option<String>,
    /// The entries of the items of which nothing is sent, as the answer shows them.
    pub(super) unsent: Vec<Option<Ledger>>,
}

impl Books {
    /// Reads, splits and claims.
    pub(super) fn claim(&mut self, mode: &ItemsMode, body: &str) -> Result<Call, BatchDecision> {
        self.claim_of(mode, None, body)
    }

    /// Reads, splits and claims a batch with a key of its own.
    pub(super) fn claim_of(
        &mut self,
        mode: &ItemsMode,
        key: Option<&str>,
        body: &str,
    ) -> Result<Call, BatchDecision> {
        let document = Document::parse(body.as_bytes()).unwrap();
        let request = BatchRequest { batch: key, ..request(body) };
        let (batch, digests) = Batch::read(&mode.rules, &request, &document).unwrap();
        let known: Vec<Option<ExistingItem<'_>>> = batch
            .items
            .iter()
            .map(|item| {
                let (fingerprint, ledger) = self.entries.get(&*item.key)?;
                Some(ExistingItem { fingerprint, ledger })
            })
            .collect();
        let plan = BatchPlan::of(&batch, &known);
        match plan.decision() {
            BatchDecision::Send | BatchDecision::Replay => {}
            refused @ (BatchDecision::Reused { .. } | BatchDecision::InFlight { .. }) => {
                return Err(refused);
            }
        }
        let upstream = plan.body(&mode.rules, &batch, (body.as_bytes(), &[]));
        for (at, units) in plan.sent() {
            let item = &batch.items[at];
            let new = || {
                let fingerprint = batch.fingerprint(&digests, at).unwrap();
                (fingerprint, Ledger::new(item.quantity).unwrap())
            };
            let entry = self.entries.entry(item.key.to_string()).or_insert_with(new);
            let (fingerprint, ledger) = (&entry.0, &entry.1);
            if !(ExistingItem { fingerprint, ledger }).is_same(&batch, item) {
                *entry = new();
            }
            entry.1 = entry.1.claim(units).unwrap();
        }
        let upstream = upstream.map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(upstream.is_some(), plan.decision() == BatchDecision::Send);
        let sent: Vec<usize> = plan.sent().map(|(at, _)| at).collect();
        let entry = |(at, item): (usize, &super::batch::Item)| {
            (!sent.contains(&at)).then(|| self.entries[&*item.key].1.clone())
        };
        let unsent = batch.items.iter().enumerate().map(entry).collect();
        Ok(Call { batch, plan, upstream, unsent })
    }

    /// Takes the backend's answer to a call.
    pub(super) fn complete(
        &mut self,
        mode: &ItemsMode,
        call: &Call,
        status: u16,
        body: &str,
    ) -> (BatchOutcome, BatchAnswer) {
        let response =
            BackendResponse { status, headers: HeaderView::Lines(&[]), body: body.as_bytes() };
        let joined = join(&mode.rules, &mode.outcome, &call.batch, &call.plan, &response);
        for (item, outcome) in call.batch.items.iter().zip(&joined.outcomes) {
            if let Some(outcome) = outcome {
                let entry = self.entries.get_mut(&*item.key).unwrap();
                entry.1 = entry.1.complete(outcome).unwrap();
            }
        }
        let answer = render(&mode.rules, &call.batch, &self.of(call), Some((&response, &joined)));
        (joined, answer)
    }

    /// The answer of a call for which nothing was sent.
    pub(super) fn replay(&self, mode: &ItemsMode, call: &Call) -> BatchAnswer {
        render(&mode.rules, &call.batch, &self.of(call), None)
    }

    /// No answer came.
    pub(super) fn lose(&mut self, call: &Call) {
        for (at, _) in call.plan.sent() {
            let entry = self.entries.get_mut(&*call.batch.items[at].key).unwrap();
            entry.1 = entry.1.lose(crate::idempotency::outcome::UnknownReason::Timeout).unwrap();
        }
    }

    /// The entries of a batch as its answer shows them.
    pub(super) fn of<'c>(&'c self, call: &'c Call) -> Vec<&'c Ledger> {
        let items = call.batch.items.iter().zip(&call.unsent);
        items.map(|(item, unsent)| unsent.as_ref().unwrap_or(&self.entries[&*item.key].1)).collect()
    }
}

pub(super) fn text(answer: &BatchAnswer) -> &str {
    std::str::from_utf8(&answer.body).unwrap()
}

pub(super) fn value(answer: &BatchAnswer) -> serde_json::Value {
    serde_json::from_slice(&answer.body).unwrap()
}
