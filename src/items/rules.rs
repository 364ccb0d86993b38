//! The layout and the meaning of the bodies of a batch API (`[route.items]`).

use serde::{Serialize, Serializer};

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
    /// Place of the items in the request; the empty pointer is the whole body.
    pub at: Pointer,
    /// The place holds a single item instead of an array.
    pub single: bool,
    /// Place of the id in an item.
    pub id: Pointer,
    /// Place of the quantity in an item; `None`, or absent in the item: 1.
    pub quantity: Option<Pointer>,
    /// Items of the largest batch.
    pub max_items: usize,
    /// Units of the largest item.
    pub max_quantity: u64,
    /// Members of an item that must not change between tries; `None`: all. Id and quantity are
    /// always compared.
    pub same: Option<Vec<Pointer>>,
    /// Members of the body that must not change between tries; `None`: all without items.
    pub shared: Option<Vec<Pointer>>,
    /// Members of the body that serialize batches: batches with an equal value run one at a time.
    pub serialize_by: Vec<Pointer>,
    /// Items that are sent whole or not at all; any of the matchers.
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
    /// The rules with the identity that their other fields make.
    pub fn finished(self) -> Self {
        Self { rule: self.compared(), ..self }
    }
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResponseRules {
    /// Place of the rows in the backend's answer.
    pub at: Pointer,
    /// The place holds a single row instead of an array.
    pub single: bool,
    /// Ways to match a row with its item; the first successful way is used.
    #[serde(rename = "match")]
    pub by: Vec<MatchBy>,
    /// The count of issued units in a row.
    pub issued: IssuedRules,
    /// Place of the requested quantity in a row.
    pub requested: Option<Pointer>,
    /// Arrays of a row whose elements accumulate over the tries.
    pub append: Vec<Pointer>,
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
}

/// A way to match a row with its item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MatchBy {
    /// The row's member holds the item's id.
    Id(Pointer),
    /// The member has the same value in exactly one row and one item.
    Member(Pointer),
    /// The position in the sent array, when both arrays have the same length.
    Position,
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
    pub complete: Template,
    /// Template of a partial item or batch.
    pub partial: Template,
    /// Template of an item or batch without issued units.
    pub none: Template,
    /// Template of an item or batch with unknown outcome.
    pub unknown: Template,
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
pub struct Template {
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
    pub fn template(&self, fulfillment: Fulfillment) -> &Template {
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
            Self::Position => serializer.serialize_str("position"),
        }
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
