//! Reads a request body: its items, their ids, quantities and fingerprints.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::digest::{Digester, ItemDigests, hash};
use super::request::BatchRequest;
use super::rules::{ItemRules, MatchBy, scalar};
use crate::idempotency::Fingerprint;
use crate::idempotency::fingerprint::RuleId;
use crate::json::{Document, JsonType, ParseError, Value};
use crate::matcher::{self, MatchInput};

/// Bytes of the longest id.
pub const MAX_ID: usize = 4096;

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
    /// Place of the array, or of the single item.
    pub(super) list: Range<usize>,
}

/// An item of a batch.
#[derive(Clone, PartialEq, Eq)]
pub struct Item {
    /// Id: the characters of a string, or the text of a number.
    pub id: Arc<str>,
    /// Units asked for; at least 1.
    pub quantity: u64,
    /// SHA-256 over the parts that must not change between tries: the item's `same` members, its
    /// quantity and the body's `shared` members.
    pub digest: [u8; 32],
    /// SHA-256 over the bytes of the item and those around all items.
    pub verbatim: [u8; 32],
    /// The item is sent whole or not at all.
    pub indivisible: bool,
    pub(super) span: Range<usize>,
    pub(super) quantity_span: Option<Range<usize>>,
    /// The id as written in the body, unless plain characters in quotes.
    pub(super) raw_id: Option<String>,
    /// The values of the `member:` pointers, in their order: compared text, and text of the body.
    pub(super) members: Vec<Option<(String, String)>>,
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Ids are keys, and keys never reach a log.
        write!(f, "Item({} units at {:?})", self.quantity, self.span)
    }
}

/// The reason a body was refused. Items are counted from 0; the text never repeats a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchError {
    /// The body is not readable as JSON.
    NotJson(ParseError),
    /// A member name is repeated within an object.
    DuplicateMember,
    /// The body has no items at the configured place.
    NoItems,
    /// The batch has more than `max_items` items.
    TooMany {
        /// The limit.
        most: usize,
    },
    /// An item is not an object.
    NotAnObject {
        /// Index of the item.
        item: usize,
    },
    /// An item has no id.
    IdMissing {
        /// Index of the item.
        item: usize,
    },
    /// An id is neither a string nor a number, or longer than [`MAX_ID`].
    IdInvalid {
        /// Index of the item.
        item: usize,
    },
    /// Two items have the same id.
    DuplicateItem {
        /// Index of the first item.
        first: usize,
        /// Index of the second item.
        item: usize,
    },
    /// A quantity is not a whole number from 1 to `max_quantity`, in digits.
    Quantity {
        /// Index of the item.
        item: usize,
        /// The limit.
        most: u64,
    },
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson(error) => write!(f, "The body cannot be read: {error}."),
            Self::DuplicateMember => {
                f.write_str("The body names a member twice in one object; name each once.")
            }
            Self::NoItems => f.write_str("The body has no items where this API expects them."),
            Self::TooMany { most } => {
                write!(f, "The body has more than {most} items; send them in several requests.")
            }
            Self::NotAnObject { item } => write!(f, "Item {} is not an object.", item + 1),
            Self::IdMissing { item } => {
                write!(f, "Item {} has no id; each item needs one of its own.", item + 1)
            }
            Self::IdInvalid { item } => write!(
                f,
                "The id of item {} must be a string or a number of at most {MAX_ID} bytes.",
                item + 1
            ),
            Self::DuplicateItem { first, item } => write!(
                f,
                "Items {} and {} have the same id; each item needs one of its own.",
                first + 1,
                item + 1
            ),
            Self::Quantity { item, most } => write!(
                f,
                "The quantity of item {} must be a whole number from 1 to {most}.",
                item + 1
            ),
        }
    }
}

impl std::error::Error for BatchError {}

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
    let list = document.find(&rules.at).ok_or(BatchError::NoItems)?;
    let values: Vec<Value<'_, '_>> = match (list.kind(), rules.single) {
        (JsonType::Object, true) => vec![list],
        (JsonType::Array, false) => list.elements().take(rules.max_items + 1).collect(),
        _ => return Err(BatchError::NoItems),
    };
    if values.is_empty() {
        return Err(BatchError::NoItems);
    }
    if values.len() > rules.max_items {
        return Err(BatchError::TooMany { most: rules.max_items });
    }
    let mut digester = Digester::new(rules, request, document, list);
    let mut items = Vec::with_capacity(values.len());
    let wrong = values.into_iter().enumerate().find_map(|(at, value)| {
        read_item(rules, value, at, &mut digester).map(|item| items.push(item)).err()
    });
    // An id that stands twice before an item that is wrong is what was wrong first.
    if let Some(error) = twice(&items).or(wrong) {
        return Err(error);
    }
    let serial = rules.serialize_by.iter().filter_map(|pointer| {
        let value = document.find(pointer).filter(|value| value.kind() != JsonType::Null)?;
        let mut text = pointer.to_string().into_bytes();
        text.push(0);
        // Written as a number or as a string, it is the same customer.
        match scalar(value) {
            Some(scalar) => text.extend_from_slice(scalar.as_bytes()),
            None => drop(value.canonical(&mut text, &[])),
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(&hash(b"oncegate/serial/1\0", request.tenant, &text)[..16]);
        Some(digest)
    });
    let serial = serial.collect();
    let batch = Batch { items, serial, rule: rules.rule, list: list.span() };
    Ok((batch, digester.into_digests()))
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
    value: Value<'d, 't>,
    at: usize,
    digester: &mut Digester<'_, 'd, 't>,
) -> Result<Item, BatchError> {
    if value.kind() != JsonType::Object {
        return Err(BatchError::NotAnObject { item: at });
    }
    let id_value = value.find(&rules.id).filter(|id| id.kind() != JsonType::Null);
    let id_value = id_value.ok_or(BatchError::IdMissing { item: at })?;
    let id = id_value.as_id().ok_or(BatchError::IdInvalid { item: at })?;
    if id.is_empty() {
        return Err(BatchError::IdMissing { item: at });
    }
    if id.len() > MAX_ID {
        return Err(BatchError::IdInvalid { item: at });
    }
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
    let skip = [Some(id_value.place()), quantity_value.map(|value| value.place())];
    let digest = digester.item(value, quantity, skip);
    let verbatim = digester.verbatim(value);
    let members = rules
        .response
        .by
        .iter()
        .filter_map(|by| match by {
            MatchBy::Member(pointer) => Some(pointer),
            MatchBy::Id(_) | MatchBy::Position => None,
        })
        .map(|pointer| {
            let value = value.find(pointer)?;
            Some((scalar(value)?.into_owned(), value.raw().to_owned()))
        })
        .collect();
    let raw = id_value.raw();
    let inside = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let raw_id = (inside != Some(&id)).then(|| raw.to_owned());
    Ok(Item {
        id: id.into(),
        quantity,
        digest,
        verbatim,
        indivisible: matcher::any(&rules.indivisible, &MatchInput::item(value)),
        span: value.span(),
        quantity_span: quantity_value.map(|value| value.span()),
        raw_id,
        members,
    })
}

/// A whole number in digits: no sign, fraction, exponent or quotes, no leading zero (JSON).
fn whole_number(value: Value<'_, '_>) -> Option<u64> {
    let digits =
        value.kind() == JsonType::Number && value.raw().bytes().all(|b| b.is_ascii_digit());
    if digits { value.raw().parse().ok() } else { None }
}
