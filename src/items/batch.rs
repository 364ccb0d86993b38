//! Reads a request body: its items, their ids, quantities and fingerprints.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

pub use super::batch_error::{BatchError, MAX_ID};
use super::digest::{Digester, ItemDigests, hash};
use super::lists::{self, FoundItem};
use super::request::BatchRequest;
use super::rules::{ItemId, ItemRules, scalar};
use crate::idempotency::fingerprint::RuleId;
use crate::idempotency::{Fingerprint, TenantId};
use crate::json::{Document, JsonType, Pointer, Value};
use crate::matcher::{self, MatchInput};

/// Ids up to this number are compared pairwise, which is faster than hashing.
const FEW: usize = 16;

/// The items of one request. Places are byte offsets in its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// At least one, in the order of the body.
    pub items: Vec<Item>,
    /// Digests of the `serialize_by` values; two batches that share one run one after the other.
    pub serial: Vec<[u8; 16]>,
    /// The rule that made the items' digests.
    pub(super) rule: RuleId,
    /// The groups of items; empty: the items stand in no groups.
    pub(super) groups: Vec<ItemGroup>,
    /// Short digest of the number of items, where an item's id is its position.
    pub(super) count: Option<[u8; 4]>,
}

/// A group of items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ItemGroup {
    /// Place of the group in the body.
    pub(super) span: Range<usize>,
    /// The group's items.
    pub(super) items: Range<usize>,
}

/// The compared text of a value, and its text in the body.
pub(super) type MemberText = (String, String);

/// An item of a batch.
#[derive(Clone, PartialEq, Eq)]
pub struct Item {
    /// Id as rows name it: the characters of a string, the text of a number, the name in a map,
    /// or the position from 0.
    pub id: Arc<str>,
    /// Key of the item's record: the id, with the batch's own key where the id is unique in its
    /// batch only.
    pub key: Arc<str>,
    /// Units asked for; at least 1.
    pub quantity: u64,
    /// SHA-256 over the parts that must not change between tries: the item's `same` members, its
    /// quantity and the body's `shared` members.
    pub digest: [u8; 32],
    /// SHA-256 over the bytes of the item and those around all items.
    pub verbatim: [u8; 32],
    /// The item is sent whole or not at all.
    pub indivisible: bool,
    /// Place in the body, in a map with the name.
    pub(super) span: Range<usize>,
    /// Place of the value in the body.
    pub(super) value_span: Range<usize>,
    pub(super) quantity_span: Option<Range<usize>>,
    /// The id as written in the body, unless plain characters in quotes.
    pub(super) raw_id: Option<String>,
    /// The values of the `member:` pointers, in their order.
    pub(super) members: Vec<Option<MemberText>>,
    /// The values of the `echo` pointers, in their order.
    pub(super) echoes: Vec<Option<MemberText>>,
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Ids are keys, and keys never reach a log.
        write!(f, "Item({} units at {:?})", self.quantity, self.span)
    }
}

impl Item {
    /// The item's text in the body from which the batch was read.
    pub fn json<'b>(&self, body: &'b [u8]) -> Option<&'b [u8]> {
        body.get(self.value_span.clone())
    }
}

impl Batch {
    /// Reads the parsed body and the digests of item members needed by records of new items. The
    /// digests are equal for single items and arrays, in any order of the pointers, so that
    /// routes can share a ledger.
    ///
    /// # Errors
    /// The body is not a batch that can be claimed; nothing may be sent for the request.
    pub fn read(
        rules: &ItemRules,
        request: &BatchRequest<'_>,
        document: &Document<'_>,
    ) -> Result<(Self, ItemDigests), BatchError> {
        read(rules, request, document)
    }

    /// The fingerprint of the item at `at`; `digests` were read with this batch.
    pub fn fingerprint(&self, digests: &ItemDigests, at: usize) -> Option<Fingerprint> {
        let Item { digest, verbatim, .. } = *self.items.get(at)?;
        Some(Fingerprint { digest, verbatim, rule: self.rule, members: digests.of_item(at)? })
    }
}

fn read(
    rules: &ItemRules,
    request: &BatchRequest<'_>,
    document: &Document<'_>,
) -> Result<(Batch, ItemDigests), BatchError> {
    if document.has_duplicates() {
        return Err(BatchError::DuplicateMember);
    }
    let found = lists::find(rules, document)?;
    let mut digester = Digester::new(rules, request, document, &found);
    let mut items = Vec::with_capacity(found.count);
    let mut groups = Vec::new();
    let mut wrong = None;
    for group in &found.groups {
        if let Some(around) = &group.around {
            digester.enter(around);
            let first = items.len();
            let span = around.group.span();
            groups.push(ItemGroup { span, items: first..first + group.items.len() });
        }
        for item in &group.items {
            match read_item(rules, request, item, items.len(), &mut digester) {
                Ok(item) => items.push(item),
                Err(error) => wrong = wrong.or(Some(error)),
            }
            if wrong.is_some() {
                break;
            }
        }
    }
    // An id that stands twice before an item that is wrong is what was wrong first.
    if let Some(error) = twice(&items).or(wrong) {
        return Err(error);
    }
    let serial = rules.serialize_by.iter().filter_map(|pointer| {
        let value = document.find(pointer).filter(|value| value.kind() != JsonType::Null)?;
        // Written as a number or as a string, it is the same customer.
        let mut text = Vec::new();
        match scalar(value) {
            Some(scalar) => text.extend_from_slice(scalar.as_bytes()),
            None => drop(value.canonical(&mut text, &[])),
        }
        Some(serial_digest(request.tenant, &pointer.to_string(), &text))
    });
    let serial = serial.collect();
    let count = digester.count();
    let batch = Batch { items, serial, rule: rules.rule, groups, count };
    Ok((batch, digester.into_digests()))
}

/// The digest of a `serialize_by` value at a place: batches of a caller that share one run one
/// after the other.
pub(crate) fn serial_digest(tenant: &TenantId, place: &str, value: &[u8]) -> [u8; 16] {
    let text = [place.as_bytes(), &[0], value].concat();
    let mut digest = [0; 16];
    digest.copy_from_slice(&hash(b"oncegate/serial/1\0", tenant, &text)[..16]);
    digest
}

/// The first item with the id of an earlier item.
fn twice(items: &[Item]) -> Option<BatchError> {
    if items.len() <= FEW {
        let same = |at: &usize| items[..*at].iter().position(|item| item.id == items[*at].id);
        return (0..items.len())
            .find_map(|at| Some(BatchError::DuplicateItem { first: same(&at)?, item: at }));
    }
    let mut seen: HashMap<&str, usize> = HashMap::with_capacity(items.len());
    items.iter().enumerate().find_map(|(item, value)| {
        let first = seen.insert(&value.id, item)?;
        Some(BatchError::DuplicateItem { first, item })
    })
}

fn read_item<'d, 't>(
    rules: &ItemRules,
    request: &BatchRequest<'_>,
    found: &FoundItem<'d, 't>,
    at: usize,
    digester: &mut Digester<'_, 'd, 't>,
) -> Result<Item, BatchError> {
    let value = found.value;
    if value.kind() != JsonType::Object {
        return Err(BatchError::NotAnObject { item: at });
    }
    let ReadId { id, raw: raw_id, place: id_place } = read_id(rules, found, at)?;
    let quantity_value = rules.quantity.as_ref().and_then(|pointer| value.find(pointer));
    let quantity = match quantity_value {
        None => 1,
        Some(value) => {
            let wrong = BatchError::Quantity { item: at, most: rules.max_quantity };
            whole_number(value)
                .filter(|units| (1..=rules.max_quantity).contains(units))
                .ok_or(wrong)?
        }
    };
    let skip = [id_place, quantity_value.map(|value| value.place())];
    let digest = digester.item(value, quantity, skip);
    let verbatim = digester.verbatim(value);
    let texts = |pointer: &Pointer| {
        let value = value.find(pointer)?;
        Some((scalar(value)?.into_owned(), value.raw().to_owned()))
    };
    let members = rules.response.members().map(texts).collect();
    let echoes = rules.response.echo.iter().map(texts).collect();
    let key = match request.batch {
        Some(batch) => ledger_key(batch, &id).into(),
        None => id.clone(),
    };
    Ok(Item {
        id,
        key,
        quantity,
        digest,
        verbatim,
        indivisible: matcher::any(&rules.indivisible, &MatchInput::item(value)),
        span: found.span.clone(),
        value_span: value.span(),
        quantity_span: quantity_value.map(|value| value.span()),
        raw_id,
        members,
        echoes,
    })
}

/// An id, as read.
struct ReadId {
    id: Arc<str>,
    /// The id as written, unless plain characters in quotes.
    raw: Option<String>,
    /// Index of the id's value in the document.
    place: Option<usize>,
}

fn read_id(rules: &ItemRules, found: &FoundItem<'_, '_>, at: usize) -> Result<ReadId, BatchError> {
    let pointer = match &rules.id {
        ItemId::Member(pointer) => pointer,
        ItemId::ListPosition => {
            return Ok(ReadId { id: at.to_string().into(), raw: None, place: None });
        }
        ItemId::Name => {
            let id = found.name.as_deref().unwrap_or_default();
            return Ok(ReadId { id: checked(id, at)?, raw: None, place: None });
        }
    };
    let value = found.value.find(pointer).filter(|id| id.kind() != JsonType::Null);
    let value = value.ok_or(BatchError::IdMissing { item: at })?;
    let id = checked(&value.as_id().ok_or(BatchError::IdInvalid { item: at })?, at)?;
    let raw = value.raw();
    let inside = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let raw = (inside != Some(&*id)).then(|| raw.to_owned());
    Ok(ReadId { id, raw, place: Some(value.place()) })
}

fn checked(id: &str, at: usize) -> Result<Arc<str>, BatchError> {
    match id.len() {
        0 => Err(BatchError::IdMissing { item: at }),
        length if length > MAX_ID => Err(BatchError::IdInvalid { item: at }),
        _ => Ok(id.into()),
    }
}

/// The key of an item whose id is unique in its batch only. No two pairs have one key.
fn ledger_key(batch: &str, id: &str) -> String {
    let escaped = |text: &str| text.replace('~', "~0").replace('/', "~1");
    format!("/{}/{}", escaped(batch), escaped(id))
}

/// A whole number in digits: no sign, fraction, exponent or quotes, no leading zero (JSON).
fn whole_number(value: Value<'_, '_>) -> Option<u64> {
    let digits =
        value.kind() == JsonType::Number && value.raw().bytes().all(|b| b.is_ascii_digit());
    if digits { value.raw().parse().ok() } else { None }
}
