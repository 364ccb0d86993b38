//! The values at a place of a message, and their tests.

use std::borrow::Cow;

use http::HeaderName;

use super::decimal::same_number;
use super::input::MatchInput;
use super::truth::Truth;
use crate::form::{QueryValue, query_value};
use crate::json::{JsonType, Pointer, Value};
use crate::place::BodyFormat;
use crate::xml::{FoundXml, XmlPath};

/// The test of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Place of the value.
    pub place: MatchPlace,
    /// Test of the value.
    pub test: ValueTest,
}

/// The place of a value in a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MatchPlace {
    /// A header; of several lines, any.
    Header(HeaderName),
    /// A member of the JSON body, or of the row.
    Pointer(Pointer),
    /// An element or an attribute of the XML body.
    Xml(XmlPath),
    /// A field of the form; of several, any.
    Form(String),
    /// A parameter of the query.
    Query(String),
}

/// The test of a value. Values are compared as texts; a JSON number also equals a number of
/// another spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueTest {
    /// A text of the list, written as a string, a number or a boolean.
    OneOf(Vec<String>),
    /// A number of three digits that starts with this digit, such as 404 of the class `4xx`.
    Class(u8),
    /// Present and not `null`.
    Present,
    /// Absent, or `null`.
    AbsentOrNull,
    /// A text within the value.
    Contains(String),
}

/// A value that stands at a place.
enum FoundValue<'v> {
    /// A text: of a header, a string, a number or a boolean.
    Text { text: Cow<'v, str>, is_number: bool },
    /// An object or an array of JSON, as written.
    Nested(&'v str),
    /// `null` of JSON.
    Null,
}

/// The values at a place; `Err`: the message cannot be read there.
type FoundValues<'v> = Result<Vec<FoundValue<'v>>, Unreadable>;

/// The message cannot be read as the place requires.
struct Unreadable;

impl Condition {
    pub(super) fn truth(&self, input: &MatchInput<'_, '_>) -> Truth {
        match self.place.values(input) {
            Ok(values) => self.test.holds(&values).into(),
            Err(Unreadable) => Truth::Undecided,
        }
    }
}

impl MatchPlace {
    /// The form that a body must have for this place; `None`: the place is in the head.
    pub fn body_format(&self) -> Option<BodyFormat> {
        match self {
            Self::Header(_) | Self::Query(_) => None,
            Self::Pointer(_) => Some(BodyFormat::Json),
            Self::Xml(_) => Some(BodyFormat::Xml),
            Self::Form(_) => Some(BodyFormat::Form),
        }
    }

    fn values<'v, 'm: 'v, 'a: 'v>(&self, input: &MatchInput<'m, 'a>) -> FoundValues<'v> {
        match self {
            Self::Header(name) => {
                let lines = input.headers.all(name);
                Ok(lines.map(|value| text(String::from_utf8_lossy(value.as_bytes()))).collect())
            }
            Self::Pointer(pointer) => {
                let root = input.body.json().ok_or(Unreadable)?;
                Ok(member(root, pointer)?.map(of_json).into_iter().collect())
            }
            Self::Xml(path) => {
                let body = input.body.whole().ok_or(Unreadable)?;
                Ok(match body.xml().ok_or(Unreadable)?.find(path) {
                    FoundXml::Nothing => Vec::new(),
                    FoundXml::Text(Cow::Borrowed(value)) => vec![text(value.trim().into())],
                    FoundXml::Text(Cow::Owned(value)) => vec![text(value.trim().to_owned().into())],
                    FoundXml::Elements => vec![FoundValue::Nested("")],
                    FoundXml::Several => return Err(Unreadable),
                })
            }
            Self::Form(name) => {
                let body = input.body.whole().ok_or(Unreadable)?;
                let values = body.form().ok_or(Unreadable)?.values(name);
                Ok(values.map(|value| text(value.into())).collect())
            }
            Self::Query(name) => match query_value(input.query.unwrap_or_default(), name) {
                QueryValue::Absent => Ok(Vec::new()),
                QueryValue::Value(value) => Ok(vec![text(value)]),
                QueryValue::Several | QueryValue::Undecodable => Err(Unreadable),
            },
        }
    }
}

/// The value at a pointer. A name that stands twice says two things, and an array without the named
/// member proves nothing: the member may be in the elements of the array.
fn member<'d, 'a>(
    root: Value<'d, 'a>,
    pointer: &Pointer,
) -> Result<Option<Value<'d, 'a>>, Unreadable> {
    let mut value = root;
    for token in pointer.tokens() {
        let found = match value.kind() {
            JsonType::Object => {
                let mut named = value.members().filter(|(name, _)| name == token);
                let first = named.next().map(|(_, member)| member);
                if named.next().is_some() {
                    return Err(Unreadable);
                }
                first
            }
            JsonType::Array if !token.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Err(Unreadable);
            }
            JsonType::Array => value.child(token),
            JsonType::Null | JsonType::Bool | JsonType::Number | JsonType::String => None,
        };
        match found {
            Some(found) => value = found,
            None => return Ok(None),
        }
    }
    Ok(Some(value))
}

fn of_json<'v>(value: Value<'_, 'v>) -> FoundValue<'v> {
    match value.kind() {
        JsonType::String => text(value.as_str().unwrap_or_default()),
        JsonType::Number => FoundValue::Text { text: value.raw().into(), is_number: true },
        JsonType::Bool => text(value.raw().into()),
        JsonType::Null => FoundValue::Null,
        JsonType::Array | JsonType::Object => FoundValue::Nested(value.raw()),
    }
}

fn text(text: Cow<'_, str>) -> FoundValue<'_> {
    FoundValue::Text { text, is_number: false }
}

impl ValueTest {
    fn holds(&self, values: &[FoundValue<'_>]) -> bool {
        let any = |test: &dyn Fn(&FoundValue<'_>) -> bool| values.iter().any(test);
        match self {
            Self::OneOf(texts) => any(&|value| texts.iter().any(|text| value.equals(text))),
            Self::Class(digit) => any(&|value| value.class() == Some(*digit)),
            Self::Present => any(&|value| !matches!(value, FoundValue::Null)),
            Self::AbsentOrNull => values.iter().all(|value| matches!(value, FoundValue::Null)),
            Self::Contains(part) => any(&|value| value.contains(part)),
        }
    }
}

impl FoundValue<'_> {
    fn equals(&self, expected: &str) -> bool {
        match self {
            Self::Text { text, is_number } => {
                text == expected || (*is_number && same_number(text, expected))
            }
            Self::Nested(_) | Self::Null => false,
        }
    }

    /// The first digit of a number of three digits.
    fn class(&self) -> Option<u8> {
        let Self::Text { text, .. } = self else { return None };
        match text.as_bytes() {
            [first, second, third]
                if [first, second, third].iter().all(|byte| byte.is_ascii_digit()) =>
            {
                Some(first - b'0')
            }
            _ => None,
        }
    }

    fn contains(&self, part: &str) -> bool {
        match self {
            Self::Text { text, .. } => text.contains(part),
            Self::Nested(raw) => raw.contains(part),
            Self::Null => false,
        }
    }
}
