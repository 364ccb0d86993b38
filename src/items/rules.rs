//! Where things stand in the bodies of a batch API, and what they mean (`[route.items]`).

pub use crate::idempotency::ledger::Fulfillment;
use crate::idempotency::outcome::StatusPattern;
use crate::json::{JsonType, Pointer, Value};

/// The items of the largest batch, unless configured.
pub const MAX_ITEMS: usize = 1000;
/// The units of the largest item, unless configured.
pub const MAX_QUANTITY: u64 = 1_000_000;

/// `[route.items]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemRules {
    /// Where the items stand in the request; the empty pointer is the whole body.
    pub at: Pointer,
    /// Whether one item stands there instead of an array of them.
    pub single: bool,
    /// Where an item's id stands in it.
    pub id: Pointer,
    /// Where its quantity stands; `None`, or absent there: 1.
    pub quantity: Option<Pointer>,
    /// Items of the largest batch.
    pub max_items: usize,
    /// Units of the largest item.
    pub max_quantity: u64,
    /// Members of an item that must not change between tries; `None`: all of them. Id and quantity
    /// always count.
    pub same: Option<Vec<Pointer>>,
    /// Members of the body that must not change either; `None`: all that hold no items.
    pub shared: Option<Vec<Pointer>>,
    /// Members of the body of which each value has one batch at a time.
    pub serialize_by: Vec<Pointer>,
    /// Items that are sent whole or not at all.
    pub indivisible: Option<Matcher>,
    /// Which quantities an answer shows.
    pub view: QuantityView,
    /// `[route.items.response]`
    pub response: ResponseRules,
    /// `[route.items.render]`
    pub render: RenderRules,
}

/// Which quantities an answer shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuantityView {
    /// Everything issued for an item so far: heals a lost answer.
    Cumulative,
    /// What this call issued.
    Delta,
}

/// `[route.items.response]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseRules {
    /// Where the rows stand in the backend's answer.
    pub at: Pointer,
    /// Whether one row stands there instead of an array of them.
    pub single: bool,
    /// How a row finds its item, the first way that works.
    pub by: Vec<MatchBy>,
    /// How many units a row says were issued.
    pub issued: IssuedRules,
    /// Where a row repeats how many were asked for.
    pub requested: Option<Pointer>,
    /// Arrays of a row whose elements add up over the tries.
    pub append: Vec<Pointer>,
    /// An answer without rows that matches one of these says that nothing was issued.
    pub not_issued: Vec<Matcher>,
    /// Rows that say nothing was issued, and that the item may be tried again.
    pub retry: Vec<Matcher>,
    /// Rows that say no more will ever be issued.
    pub finals: Vec<Matcher>,
    /// Rows, or answers without rows, that do not say what was issued, whatever else stands there.
    pub unknown: Vec<Matcher>,
}

/// How a row finds its item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MatchBy {
    /// The row's member holds the item's id.
    Id(Pointer),
    /// This member has the same value in one row and one item only.
    Member(Pointer),
    /// Its place in the array that was sent, when both arrays are of one length.
    Position,
}

/// How many units a row says were issued.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IssuedRules {
    /// A number, or a string that holds one.
    pub count: Option<Pointer>,
    /// Arrays with one element for each unit, added up.
    pub arrays: Vec<Pointer>,
    /// Rows that say that everything sent was issued, where `count` and `arrays` say nothing.
    pub all: Option<Matcher>,
}

/// `[route.items.render]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RenderRules {
    /// Everything that was requested is issued.
    pub complete: Template,
    /// A part of it.
    pub partial: Template,
    /// Nothing of it.
    pub none: Template,
    /// Nobody knows.
    pub unknown: Template,
    /// An id was used for another item; `None`: a problem document.
    pub mismatch: Option<Refusal>,
    /// An id stands twice in one body; `None`: a problem document.
    pub duplicate: Option<Refusal>,
    /// A batch that shares an item or a `serialize_by` value is running; `None`: a problem document.
    pub parallel: Option<Refusal>,
}

/// A JSON text to put at a pointer.
pub type TemplateMember = (Pointer, String);

/// What an answer says in one state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Template {
    /// Put into the row of an item in this state.
    pub item: Vec<TemplateMember>,
    /// Put into the answer when the whole batch is in this state.
    pub top: Vec<TemplateMember>,
    /// The status then; `None`: the backend's, or 200 when nothing was sent.
    pub http: Option<u16>,
}

/// A refusal in the backend's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The members of the body.
    pub top: Vec<TemplateMember>,
    /// The status; `None`: the problem's.
    pub http: Option<u16>,
}

impl RenderRules {
    /// The template of a state.
    pub fn template(&self, fulfillment: Fulfillment) -> &Template {
        match fulfillment {
            Fulfillment::Complete => &self.complete,
            Fulfillment::Partial => &self.partial,
            Fulfillment::None => &self.none,
            Fulfillment::Unknown => &self.unknown,
        }
    }
}

/// A condition on a value and the status it came with. Every part is optional; all must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher {
    /// The status of the answer.
    pub status: Option<StatusPattern>,
    /// A member and what it must be.
    pub member: Option<(Pointer, MemberTest)>,
    /// What must not hold at the same time.
    pub unless: Option<Box<Matcher>>,
}

/// What a member must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberTest {
    /// Absent, or `null`.
    AbsentOrNull,
    /// One of these, whether it is written as a string, a number or a boolean.
    OneOf(Vec<String>),
}

impl Matcher {
    /// Whether `value`, from an answer with `status` (0: not from an answer), meets the condition.
    pub fn matches(&self, value: Value<'_, '_>, status: u16) -> bool {
        let by_status = self.status.is_none_or(|pattern| match pattern {
            StatusPattern::Exact(exact) => exact == status,
            StatusPattern::Class(digit) => u16::from(digit) == status / 100,
        });
        let by_member = self.member.as_ref().is_none_or(|(pointer, test)| match test {
            MemberTest::AbsentOrNull => absent_or_null(value, pointer),
            MemberTest::OneOf(texts) => value
                .find(pointer)
                .and_then(scalar)
                .is_some_and(|text| texts.iter().any(|expected| *expected == text)),
        });
        by_status
            && by_member
            && self.unless.as_ref().is_none_or(|other| !other.matches(value, status))
    }
}

/// Whether nothing, or `null`, stands at a pointer. That an array lacks a member says nothing: what
/// is meant may stand in its elements.
fn absent_or_null(mut value: Value<'_, '_>, pointer: &Pointer) -> bool {
    for token in pointer.tokens() {
        let Some(child) = value.child(token) else {
            let index = token.bytes().all(|byte| byte.is_ascii_digit());
            return value.kind() != JsonType::Array || index;
        };
        value = child;
    }
    value.kind() == JsonType::Null
}

/// The text of a string, number or boolean.
pub(super) fn scalar<'a>(value: Value<'_, 'a>) -> Option<std::borrow::Cow<'a, str>> {
    match value.kind() {
        JsonType::String | JsonType::Number => value.as_id(),
        JsonType::Bool => Some(value.raw().into()),
        JsonType::Null | JsonType::Array | JsonType::Object => None,
    }
}
