//! The layout and the meaning of the bodies of a batch API (`[route.items]`).

use std::fmt;

use serde::{Serialize, Serializer};

use super::list_path::ListPath;
use crate::idempotency::fingerprint::RuleId;
pub use crate::idempotency::ledger::Fulfillment;
use crate::json::{JsonType, Pointer, Value};
use crate::matcher::Matcher;

/// The items of the largest batch, unless configured.
pub const MAX_ITEMS: usize = 1000;
/// The units of the largest item, unless configured.
pub const MAX_QUANTITY: u64 = 1_000_000;

/// `[route.items]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ItemRules {
    /// Path of the items in the request; the empty path is the whole body.
    pub at: ListPath,
    /// The value at the path.
    pub kind: ListKind,
    /// Source of an item's id.
    pub id: ItemId,
    /// Place of the quantity in an item; `None`, or absent in the item: 1.
    pub quantity: Option<Pointer>,
    /// Items of the largest batch.
    pub max_items: usize,
    /// Units of the largest item.
    pub max_quantity: u64,
    /// Members of an item that must not change between tries; `None`: all but those of `echo`. Id
    /// and quantity are always compared.
    pub same: Option<Vec<Pointer>>,
    /// Members of the body, and with `*` of an item's group, that must not change between tries;
    /// `None`: all without items and groups, and all of the item's group without items.
    pub shared: Option<Vec<ListPath>>,
    /// Members of the body that serialize batches: batches with an equal value run one at a time.
    pub serialize_by: Vec<Pointer>,
    /// Items that are sent whole or not at all; any of these matchers.
    pub indivisible: Vec<Matcher>,
    /// The quantities shown in an answer.
    pub view: QuantityView,
    /// `[route.items.response]`
    pub response: ResponseRules,
    /// `[route.items.render]`
    pub render: RenderRules,
    /// Identity of the rule by which items are compared; see [`Self::finished`].
    #[serde(skip)]
    pub rule: RuleId,
}

impl ItemRules {
    /// The rules with the values derived from their other fields.
    pub fn finished(mut self) -> Self {
        self.rule = self.compared();
        self.response.meanings = self.response.meanings();
        self
    }
}

/// The value that holds the items of a request, or the rows of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ListKind {
    /// An array with an element for each item or row.
    #[default]
    Array,
    /// A single item or row, without an array.
    Single,
    /// An object whose names are the ids of the items or rows.
    Map,
}

/// The source of an item's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemId {
    /// A member of the item.
    Member(Pointer),
    /// The position in the batch, for batches with the same number of items.
    ListPosition,
    /// The name in the map of items.
    Name,
}

/// The quantities shown in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum QuantityView {
    /// All units issued for an item so far, so that a lost answer is repaired by the next.
    Cumulative,
    /// Units issued by this call.
    Delta,
}

/// `[route.items.response]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ResponseRules {
    /// Paths of the rows in the backend's answer, at least one.
    pub at: Vec<ListPath>,
    /// The values at the paths.
    pub kind: ListKind,
    /// Elements that are rows; empty: all.
    pub row: Vec<Matcher>,
    /// Ways to match a row with its item; the first successful way is used. The rows of a map have
    /// their names.
    #[serde(rename = "match")]
    pub by: Vec<MatchBy>,
    /// The count of issued units in a row.
    pub issued: IssuedRules,
    /// Place of the requested quantity in a row.
    pub requested: Option<Pointer>,
    /// Arrays of a row whose elements accumulate over the tries.
    pub append: Vec<Pointer>,
    /// Correlation ids in items and rows, given anew by each request.
    pub echo: Vec<Pointer>,
    /// Matchers of answers that report an item without a row as issued.
    pub all_issued: Vec<Matcher>,
    /// Matchers of answers without rows that report that nothing was issued.
    pub not_issued: Vec<Matcher>,
    /// Matchers of rows that report that nothing was issued, and that the item may be tried
    /// again.
    pub retry: Vec<Matcher>,
    /// Matchers of rows that close the item: no more units will ever be issued.
    #[serde(rename = "final")]
    pub finals: Vec<Matcher>,
    /// Matchers of rows, or of answers without rows, with unknown outcome; these take precedence.
    pub unknown: Vec<Matcher>,
    /// The meaning of a row's array, one for each path; see [`ItemRules::finished`].
    #[serde(skip)]
    pub meanings: Vec<ArrayMeaning>,
}

/// The meaning of a row by the array in which the row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArrayMeaning {
    /// Any outcome: the row itself reports the outcome.
    Any,
    /// The item was issued.
    Success,
    /// The item was not issued, or its outcome is unknown.
    Failure,
}

impl ResponseRules {
    /// The meanings of the arrays. Beside an array of failures, an array without a matcher of its
    /// own is read as one of successes, so that no unknown item is shown as a success.
    fn meanings(&self) -> Vec<ArrayMeaning> {
        let named = |list: &[Matcher], at: &ListPath| {
            list.iter().any(|matcher| matcher.array.as_ref() == Some(at.outer()))
        };
        let failures = [&self.retry, &self.finals, &self.unknown];
        let fails = |at: &ListPath| failures.iter().any(|list| named(list, at));
        let any_fails = self.at.len() > 1 && self.at.iter().any(fails);
        let meaning = |at: &ListPath| {
            if named(&self.issued.all, at) || (any_fails && !fails(at)) {
                ArrayMeaning::Success
            } else if fails(at) {
                ArrayMeaning::Failure
            } else {
                ArrayMeaning::Any
            }
        };
        self.at.iter().map(meaning).collect()
    }

    /// The value at the paths: groups of rows stand in an array.
    pub(super) fn outer_kind(&self) -> ListKind {
        match self.at.iter().any(ListPath::is_grouped) {
            true => ListKind::Array,
            false => self.kind,
        }
    }

    /// The meaning of the array at this index.
    pub(super) fn meaning(&self, array: usize) -> ArrayMeaning {
        self.meanings.get(array).copied().unwrap_or(ArrayMeaning::Any)
    }

    /// The first array with one of these meanings, in their order.
    pub(super) fn array_of(&self, meanings: &[ArrayMeaning]) -> Option<usize> {
        let first =
            |meaning: &ArrayMeaning| (0..self.at.len()).find(|at| self.meaning(*at) == *meaning);
        meanings.iter().find_map(first)
    }

    /// The pointers of the ways `member:`, in their order.
    pub(super) fn members(&self) -> impl Iterator<Item = &Pointer> {
        self.by.iter().filter_map(|by| match by {
            MatchBy::Member(pointer) => Some(pointer),
            MatchBy::Id(_) | MatchBy::Index(_) | MatchBy::ListPosition => None,
        })
    }

    /// The pointer of the way `id:`.
    pub(super) fn row_id(&self) -> Option<&Pointer> {
        self.by.iter().find_map(|by| match by {
            MatchBy::Id(pointer) => Some(pointer),
            MatchBy::Member(_) | MatchBy::Index(_) | MatchBy::ListPosition => None,
        })
    }

    /// The pointer of the way `index:`.
    pub(super) fn row_index(&self) -> Option<&Pointer> {
        self.by.iter().find_map(|by| match by {
            MatchBy::Index(pointer) => Some(pointer),
            MatchBy::Id(_) | MatchBy::Member(_) | MatchBy::ListPosition => None,
        })
    }
}

/// A way to match a row with its item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MatchBy {
    /// The row's member holds the item's id.
    Id(Pointer),
    /// The member has the same value in exactly one row and one item.
    Member(Pointer),
    /// The row's member holds the item's index among the items that were sent, from 0.
    Index(Pointer),
    /// The position in the sent array, when both arrays have the same length.
    ListPosition,
}

/// The count of issued units in a row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct IssuedRules {
    /// A number, or a string that holds one.
    pub count: Option<Pointer>,
    /// Arrays with one element for each unit; the lengths are added.
    pub arrays: Vec<Pointer>,
    /// Matchers of rows that report all sent units as issued, where `count` and `arrays` are
    /// absent.
    pub all: Vec<Matcher>,
}

/// `[route.items.render]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RenderRules {
    /// Template of a complete item or batch.
    pub complete: StateTemplate,
    /// Template of a partial item or batch.
    pub partial: StateTemplate,
    /// Template of an item or batch without issued units.
    pub none: StateTemplate,
    /// Template of an item or batch with unknown outcome.
    pub unknown: StateTemplate,
    /// Refusal of an id used for another item; `None`: a problem document.
    pub mismatch: Option<Refusal>,
    /// Refusal of a repeated id in one body; `None`: a problem document.
    pub duplicate: Option<Refusal>,
    /// Refusal of a batch while another batch with a shared item or `serialize_by` value is
    /// running; `None`: a problem document.
    pub parallel: Option<Refusal>,
}

/// A JSON text and the pointer of its place.
pub type TemplateMember = (Pointer, String);

/// The gateway's members of an answer in one state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StateTemplate {
    /// Members of an item's row in this state.
    #[serde(serialize_with = "as_members")]
    pub item: Vec<TemplateMember>,
    /// Members of the answer when the whole batch is in this state.
    #[serde(serialize_with = "as_members")]
    pub top: Vec<TemplateMember>,
    /// Status of the answer; `None`: the backend's, or 200 when nothing was sent.
    pub http: Option<u16>,
}

/// A refusal in the backend's own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The members of the body.
    #[serde(serialize_with = "as_members")]
    pub top: Vec<TemplateMember>,
    /// Status of the refusal; `None`: the problem's.
    pub http: Option<u16>,
}

impl RenderRules {
    /// Template of a state.
    pub fn template(&self, fulfillment: Fulfillment) -> &StateTemplate {
        match fulfillment {
            Fulfillment::Complete => &self.complete,
            Fulfillment::Partial => &self.partial,
            Fulfillment::None => &self.none,
            Fulfillment::Unknown => &self.unknown,
        }
    }
}

impl Serialize for MatchBy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Id(pointer) => serializer.collect_str(&format_args!("id:{pointer}")),
            Self::Member(pointer) => serializer.collect_str(&format_args!("member:{pointer}")),
            Self::Index(pointer) => serializer.collect_str(&format_args!("index:{pointer}")),
            Self::ListPosition => serializer.serialize_str("position"),
        }
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(pointer) => pointer.fmt(f),
            Self::ListPosition => f.write_str("position"),
            Self::Name => f.write_str("name"),
        }
    }
}

impl Serialize for ItemId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The members of a template as a map from pointers to values.
fn as_members<S: Serializer>(members: &[TemplateMember], to: S) -> Result<S::Ok, S::Error> {
    let value = |text: &str| serde_json::from_str(text).unwrap_or(serde_json::Value::Null);
    to.collect_map(members.iter().map(|(pointer, text)| (pointer.to_string(), value(text))))
}

/// The text of a string, number or boolean.
pub(super) fn scalar<'a>(value: Value<'_, 'a>) -> Option<std::borrow::Cow<'a, str>> {
    match value.kind() {
        JsonType::String | JsonType::Number => value.as_id(),
        JsonType::Bool => Some(value.raw().into()),
        JsonType::Null | JsonType::Array | JsonType::Object => None,
    }
}
