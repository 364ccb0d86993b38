//! Matchers: conditions on a message, its head and its body (contract section 5).
//!
//! A matcher never guesses. A condition on a value that cannot be read (a body that is no JSON, a
//! member named twice, a member looked for in an array) is [`Truth::Undecided`]: the matcher does
//! not hold, and neither does a matcher with such a condition in `unless`. `rule` is the matcher,
//! `input` the message as matchers see it, `value` the lookup of a value and its test, `shown` the
//! text form.

mod decimal;
mod input;
mod rule;
mod shown;
mod status;
#[cfg(test)]
mod tests;
mod truth;
mod value;

pub use self::decimal::same_number;
pub use self::input::{HeaderView, MatchBody, MatchInput, ParsedBody};
pub use self::rule::{Matcher, any};
pub use self::status::StatusPattern;
pub use self::truth::Truth;
pub use self::value::{Condition, MatchPlace, ValueTest};
