//! What may be written under `[route.items]`; as in [`super::file`], nothing about what it means.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

use super::file::{List, Table, Written};
use super::units::{Count, Flag, Status};

/// `[route.items]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Items {
    /// Where the items stand in the request.
    pub at: Written<String>,
    /// Whether one item stands there instead of an array.
    pub single: Written<Flag>,
    /// Where an item's id stands in it.
    pub id: Written<String>,
    /// Where its quantity stands in it.
    pub quantity: Written<String>,
    /// Items of the largest batch.
    pub max_items: Written<Count>,
    /// Units of the largest item.
    pub max_quantity: Written<Count>,
    /// Routes that name the same ledger share their ids.
    pub ledger: Written<String>,
    /// Members of an item that may not change between tries.
    pub same: List<String>,
    /// Members of the body that may not change either.
    pub shared: List<String>,
    /// Members of the body of which each value has one batch at a time.
    pub serialize_by: List<String>,
    /// Items that are sent whole or not at all.
    pub indivisible: Written<Table<Matcher>>,
    /// `cumulative` or `delta`
    pub view: Written<String>,
    /// How the backend's answer is read.
    pub response: Written<Table<Answer>>,
    /// What the client's answer says.
    pub render: Written<Table<Render>>,
}

/// `[route.items.response]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Answer {
    /// Where the rows stand.
    pub at: Written<String>,
    /// Whether one row stands there instead of an array.
    pub single: Written<Flag>,
    /// `id:/pointer`, `member:/pointer`, `position`
    #[serde(rename = "match")]
    pub by: List<String>,
    /// How many units a row says were issued.
    pub issued: Written<Table<Issued>>,
    /// Where a row repeats how many were asked for.
    pub requested: Written<String>,
    /// Arrays whose elements add up over the tries.
    pub append: List<String>,
    /// Answers without rows that say that nothing was issued.
    pub not_issued: Written<Matchers>,
    /// Rows that say that nothing was issued, this time.
    pub retry: Written<Matchers>,
    /// Rows that say that no more will ever be issued.
    #[serde(rename = "final")]
    pub finals: Written<Matchers>,
    /// Rows and answers that do not say what was issued.
    pub unknown: Written<Matchers>,
}

/// `issued = { count = "…", arrays = ["…"], all = { … } }`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Issued {
    /// A number, or a string that holds one.
    pub count: Written<String>,
    /// Arrays with one element for each unit.
    pub arrays: List<String>,
    /// Rows that say that everything sent was issued.
    pub all: Written<Table<Matcher>>,
}

/// `[route.items.render]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Render {
    /// Everything requested is issued.
    pub complete: Written<Table<Template>>,
    /// A part of it is.
    pub partial: Written<Table<Template>>,
    /// Nothing is.
    pub none: Written<Table<Template>>,
    /// Nobody knows.
    pub unknown: Written<Table<Template>>,
    /// An id was used for another item.
    pub mismatch: Written<Table<Refusal>>,
    /// An id stands twice in a body.
    pub duplicate: Written<Table<Refusal>>,
    /// Such a batch is running.
    pub parallel: Written<Table<Refusal>>,
}

/// `{ item = { "/pointer" = value }, top = { "/pointer" = value }, http = 200 }`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Template {
    /// Put into an item's row.
    pub item: Written<Puts>,
    /// Put into the whole answer.
    pub top: Written<Puts>,
    /// The answer's status.
    pub http: Written<Status>,
}

/// `{ top = { "/pointer" = value }, http = 422 }`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Refusal {
    /// The members of the answer.
    pub top: Written<Puts>,
    /// The answer's status.
    pub http: Written<Status>,
}

/// `{ status = 402, pointer = "/error/code", equals = "…", unless = { … } }`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Matcher {
    /// The status of the answer.
    pub status: Written<Status>,
    /// A member.
    pub pointer: Written<String>,
    /// What it must be.
    pub equals: Written<Text>,
    /// What it may be.
    pub one_of: List<Text>,
    /// `true`: it must be absent or `null`.
    pub absent_or_null: Written<Flag>,
    /// What must not hold at the same time.
    pub unless: Option<Box<Spanned<Table<Matcher>>>>,
}

/// One matcher, or a list of them of which any may match.
#[derive(Debug)]
pub struct Matchers(pub Vec<Spanned<Table<Matcher>>>);

impl<'de> Deserialize<'de> for Matchers {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Matchers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a matcher such as { pointer = \"/code\", equals = 5 }, or a list of them",
                )
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Matchers, A::Error> {
                let one = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Matchers(vec![Spanned::new(0..0, one)]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Matchers, A::Error> {
                let mut matchers = Vec::new();
                while let Some(matcher) = list.next_element()? {
                    matchers.push(matcher);
                }
                Ok(Matchers(matchers))
            }
        }
        source.deserialize_any(OneOrMore)
    }
}

/// A string, number or boolean, as text.
#[derive(Debug)]
pub struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Scalar;
        impl Visitor<'_> for Scalar {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a whole number, true or false")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }

            fn visit_bool<E: Error>(self, flag: bool) -> Result<Text, E> {
                Ok(Text(flag.to_string()))
            }
        }
        source.deserialize_any(Scalar)
    }
}

/// Any value but a date, as JSON text; members in the order written.
#[derive(Debug)]
pub struct Json(pub String);

/// Pointers and the values to put there, in the order written.
#[derive(Debug)]
pub struct Puts(pub Vec<(String, Spanned<Json>)>);

/// Reads `{ name = value, … }`, sorted by where the values stand.
fn members<'de, A: MapAccess<'de>>(mut map: A) -> Result<Vec<(String, Spanned<Json>)>, A::Error> {
    let mut members: Vec<(String, Spanned<Json>)> = Vec::new();
    while let Some(member) = map.next_entry()? {
        members.push(member);
    }
    members.sort_by_key(|(_, value)| value.span().start);
    Ok(members)
}

impl<'de> Deserialize<'de> for Puts {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Members(PhantomData<()>);
        impl<'de> Visitor<'de> for Members {
            type Value = Puts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table such as { \"/status\" = { code = 200 } }")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Puts, A::Error> {
                members(map).map(Puts)
            }
        }
        source.deserialize_any(Members(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Json;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value that JSON has")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Json, E> {
                Ok(Json(quoted(text)))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Json, E> {
                Ok(Json(number.to_string()))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Json, E> {
                Ok(Json(number.to_string()))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Json, E> {
                let number = serde_json::Number::from_f64(number);
                number
                    .map(|number| Json(number.to_string()))
                    .ok_or_else(|| E::custom("JSON has no such number"))
            }

            fn visit_bool<E: Error>(self, flag: bool) -> Result<Json, E> {
                Ok(Json(flag.to_string()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
                let mut elements = Vec::new();
                while let Some(Json(element)) = list.next_element()? {
                    elements.push(element);
                }
                Ok(Json(format!("[{}]", elements.join(","))))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Json, A::Error> {
                let members: Vec<String> = members(map)?
                    .iter()
                    .map(|(name, value)| format!("{}:{}", quoted(name), value.get_ref().0))
                    .collect();
                Ok(Json(format!("{{{}}}", members.join(","))))
            }
        }
        source.deserialize_any(Any)
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
