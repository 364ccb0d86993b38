//! Matchers: the parts, and the truth of all of them together.

use super::input::MatchInput;
use super::status::StatusPattern;
use super::truth::Truth;
use super::value::{Condition, MatchPlace, ValueTest};
use crate::json::Pointer;
use crate::place::BodyFormat;

/// A condition on a message. Every part is optional; all must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matcher {
    /// The status of the answer.
    pub status: Option<StatusPattern>,
    /// Tests of single values; a place may have several.
    pub conditions: Vec<Condition>,
    /// A text that the body holds.
    pub contains: Option<String>,
    /// The array of the answer in which the row stands.
    pub array: Option<Pointer>,
    /// Matchers of which none may hold at the same time.
    pub unless: Vec<Matcher>,
}

impl Matcher {
    /// A matcher of the value at a JSON pointer.
    pub fn member(pointer: Pointer, test: ValueTest) -> Self {
        let condition = Condition { place: MatchPlace::Pointer(pointer), test };
        Self { conditions: vec![condition], ..Self::default() }
    }

    /// Reports whether the matcher holds for a message.
    pub fn matches(&self, input: &MatchInput<'_, '_>) -> bool {
        self.truth(input) == Truth::Yes
    }

    /// The truth of the matcher for a message.
    pub fn truth(&self, input: &MatchInput<'_, '_>) -> Truth {
        let by_status = self
            .status
            .is_none_or(|pattern| input.status.is_some_and(|status| pattern.covers(status)));
        let by_array = self.array.as_ref().is_none_or(|array| input.array == Some(array));
        if !by_status || !by_array {
            return Truth::No;
        }
        let conditions = self.conditions.iter().map(|condition| condition.truth(input));
        let text = self.contains.iter().map(|text| input.body.contains(text));
        let parts = conditions.chain(text).min().unwrap_or(Truth::Yes);
        if parts == Truth::No {
            return Truth::No;
        }
        let unless = self.unless.iter().map(|other| other.truth(input)).max();
        parts.min(unless.unwrap_or(Truth::No).not())
    }

    /// Reports whether the matcher has to see the body.
    pub fn looks_at_body(&self) -> bool {
        self.contains.is_some()
            || self.conditions.iter().any(|condition| condition.place.body_format().is_some())
            || self.unless.iter().any(Self::looks_at_body)
    }

    /// Reports whether the matcher looks for a value in a body of this form.
    pub fn reads(&self, format: BodyFormat) -> bool {
        self.conditions.iter().any(|condition| condition.place.body_format() == Some(format))
            || self.unless.iter().any(|other| other.reads(format))
    }

    /// Reports whether the matcher looks at nothing but the status.
    pub fn is_status_only(&self) -> bool {
        self.conditions.is_empty()
            && self.contains.is_none()
            && self.array.is_none()
            && self.unless.iter().all(Self::is_status_only)
    }
}

/// Reports whether any matcher of a list holds.
pub fn any(matchers: &[Matcher], input: &MatchInput<'_, '_>) -> bool {
    matchers.iter().any(|matcher| matcher.matches(input))
}
