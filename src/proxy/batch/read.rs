//! Reading and identification of a batch. Nothing is claimed or sent here.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::caller::Caller;
use crate::config::ItemsMode;
use crate::content_coding;
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::settling::KeptValue;
use crate::idempotency::{RecordId, TenantId};
use crate::items::batch::serial_digest;
use crate::items::{self, Batch, BatchError, BatchPlan, BatchRequest, ItemDigests};
use crate::json::Document;
use crate::observe::exchange;
use crate::place::{Place, RequestValues};
use crate::problem::{Problem, Slug};
use crate::proxy::batch_cache::BatchReply;
use crate::proxy::batch_locks::LockName;
use crate::proxy::buffered::BufferedRequest;
use crate::proxy::incoming::Arrived;
use crate::proxy::kept::{self, KeptPlace};
use crate::proxy::request::{read as request_read, refusals};
use crate::proxy::routing::Route;
use crate::proxy::state::Gateway;

/// A valid batch with a complete body.
pub(crate) struct BatchInput {
    pub(crate) tenant: TenantId,
    /// Name of the tenant.
    pub(crate) caller: Option<Arc<str>>,
    pub(crate) batch: Batch,
    /// Digests of the items' members, for the records of new items. Dropped while the batch waits,
    /// and computed once more on demand.
    pub(crate) digests: Option<ItemDigests>,
    /// Record id of each item.
    pub(crate) ids: Vec<RecordId>,
    /// Digest of the business id the body names.
    pub(crate) subject: Option<[u8; 16]>,
    /// Names and values of the path's parameters.
    pub(crate) parameters: Vec<(String, String)>,
    /// The batch's own key, where it is a part of every id.
    pub(crate) batch_key: Option<String>,
    /// Digest of the exact bytes of the request and of all other inputs of its reply besides the
    /// records.
    pub(crate) verbatim: RecordId,
    pub(crate) buffered: BufferedRequest,
}

/// Result of reading a request.
pub(crate) enum BatchRead {
    Batch(Box<BatchInput>),
    /// The cached reply; no item has to be sent.
    Cached(Arc<BatchReply>),
    Refused(BatchError),
}

/// Reads and identifies a batch.
pub(crate) async fn read(
    gateway: &Gateway,
    route: &Route,
    mode: &ItemsMode,
    arrived: Box<Arrived<'_>>,
) -> Result<BatchRead, Problem> {
    let Arrived { head, body, client, path, caller, routing } = *arrived;
    let batch_header = mode.batch_key.as_ref().and_then(|key| key.places.header());
    let places = mode.record.subject.iter().chain(&mode.serialize_places);
    let named = places.filter_map(Place::header).chain(batch_header);
    request_read::refuse_nominations(route.callers.headers(), named, &head.headers)?;
    let (body, reservation) = request_read::read_body(gateway, route, body).await?;
    let Caller { id: tenant, name: caller } = caller;
    let parameters = routing.parameters(&head.method, path.of(&head.uri));
    let named = borrowed(&parameters);
    let values = RequestValues::new(&head.headers, head.uri.query(), &parameters, &body);
    let batch_key = match &mode.batch_key {
        None => None,
        Some(rules) => {
            let key = rules.from_values(&values);
            let key = key.map_err(|error| refusals::refused_key(error, &rules.places))?;
            Some(key.as_str().to_owned())
        }
    };
    let batch = batch_key.as_deref();
    let request = BatchRequest { tenant: &tenant, parameters: &named, batch, body: &body };
    let verbatim = verbatim(&route.name, &request);
    if let Some(merged) = gateway.batch_replies.get(
        &verbatim,
        gateway.store.expiry_time().at,
        gateway.cache.generation(),
    ) {
        return Ok(BatchRead::Cached(merged));
    }
    let document = match values.body().json() {
        Ok(document) => document,
        Err(_) if content_coding::is_coded(&head.headers) => {
            return Ok(BatchRead::Refused(BatchError::Coded));
        }
        Err(error) => return Ok(BatchRead::Refused(BatchError::NotJson(error))),
    };
    let (mut batch, digests) = match Batch::read(&mode.rules, &request, document) {
        Ok((batch, digests)) => (batch, Some(digests)),
        Err(error) => return Ok(BatchRead::Refused(error)),
    };
    for place in &mode.serialize_places {
        let value = values.text(place).map_err(|_| unserializable(place))?;
        batch.serial.extend(
            value.map(|value| serial_digest(&tenant, &place.to_string(), value.as_bytes())),
        );
    }
    let scope = items::scope(&mode.ledger);
    let id = |item: &items::batch::Item| gateway.store.ids().record(&tenant, &scope, &item.key);
    let ids = batch.items.iter().map(id).collect();
    let subject = request_read::subject(&values, &mode.record.subject, gateway.store.ids());
    drop(values);
    exchange::with_request_id(|id| batch.items.iter().for_each(|item| id.conceal(&item.id)));
    let client = client.address(&routing.trusted_proxies);
    let buffered = BufferedRequest { head, client, body, reservation };
    let input = BatchInput {
        tenant,
        caller,
        batch,
        digests,
        ids,
        subject,
        parameters,
        batch_key,
        verbatim,
        buffered,
    };
    Ok(BatchRead::Batch(Box::new(input)))
}

/// Refuses a batch that does not say after which others it has to run.
fn unserializable(place: &Place) -> Problem {
    let detail = format!(
        "The value of {place}, by which batches run one at a time, must stand once and be a text. \
         Nothing was sent."
    );
    Problem::new(Slug::RequestInvalid, detail)
}

/// Digest of all inputs of a batch's reply besides the records.
pub(crate) fn verbatim(route: &str, request: &BatchRequest<'_>) -> RecordId {
    let mut hash = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    field(b"oncegate/batch/1");
    field(route.as_bytes());
    field(request.tenant.as_bytes());
    for (name, value) in request.parameters {
        field(name.as_bytes());
        field(value.as_bytes());
    }
    field(&[u8::from(request.batch.is_some())]);
    field(request.batch.unwrap_or_default().as_bytes());
    field(request.body);
    let mut name = [0; 16];
    name.copy_from_slice(&hash.finalize()[..16]);
    RecordId::from_bytes(name)
}

pub(crate) fn borrowed(parameters: &[(String, String)]) -> Vec<(&str, &str)> {
    parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

impl BatchInput {
    /// The values that a settlement needs of each item to send, by position.
    pub(crate) fn kept_values(
        &self,
        places: &[KeptPlace],
        plan: &BatchPlan,
    ) -> HashMap<usize, Vec<KeptValue>> {
        let BufferedRequest { head, body, .. } = &self.buffered;
        let request = RequestValues::new(&head.headers, head.uri.query(), &self.parameters, body);
        let values = |at: usize| {
            let item = Document::parse(self.batch.items.get(at)?.json(body)?).ok()?;
            Some((at, kept::item_values(places, &item, &request)))
        };
        plan.sent().filter_map(|(at, _)| values(at)).collect()
    }

    /// Locks required to send the plan's items.
    pub(crate) fn names(&self, plan: &BatchPlan) -> Vec<LockName> {
        let items = plan.sent().map(|(at, _)| self.ids[at]);
        items.chain(self.batch.serial.iter().copied().map(RecordId::from_bytes)).collect()
    }

    /// The fingerprint of the item at position `at`, with a digest for each member.
    pub(crate) fn fingerprint(&mut self, mode: &ItemsMode, at: usize) -> Option<Fingerprint> {
        let digests = match self.digests.take() {
            Some(digests) => digests,
            None => {
                let named = borrowed(&self.parameters);
                let body = &self.buffered.body;
                let batch = self.batch_key.as_deref();
                let request =
                    BatchRequest { tenant: &self.tenant, parameters: &named, batch, body };
                // The same body was parsed before, so a failure is impossible.
                let document = Document::parse(body).ok()?;
                Batch::read(&mode.rules, &request, &document).ok()?.1
            }
        };
        self.batch.fingerprint(self.digests.insert(digests), at)
    }
}
