//! The text of a file as a tree of values and positions, with references to the environment
//! replaced. Mistakes of syntax are left to `syntax`.

use toml::de::{DeTable, DeValue};

use super::diagnostics::Diagnostics;
use super::{environment, syntax};

/// A value and its place.
#[derive(Debug)]
pub(super) struct TomlNode {
    /// The byte offset of the first character.
    pub(super) at: usize,
    pub(super) value: TomlValue,
}

/// A value of a TOML kind.
#[derive(Debug)]
pub(super) enum TomlValue {
    Text(String),
    Integer(i128),
    Float(f64),
    Flag(bool),
    Date,
    List(Vec<TomlNode>),
    Table(Vec<TomlMember>),
    /// Noted as a mistake already.
    Unreadable,
}

/// A key of a table with the value, and the places of key and value.
#[derive(Debug)]
pub(super) struct TomlMember {
    pub(super) key: String,
    pub(super) key_at: usize,
    pub(super) node: TomlNode,
}

impl TomlValue {
    /// The kind, for messages: the value itself may be secret.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Flag(_) => "a boolean",
            Self::Date => "a date",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Unreadable => "of an unknown kind",
        }
    }
}

/// The members of the root table, in the order of the file; `None`: the text is not TOML.
pub(super) fn parse(
    text: &str,
    variable: &dyn Fn(&str) -> Option<String>,
    diagnostics: &Diagnostics,
) -> Option<Vec<TomlMember>> {
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        syntax::note_mistakes(text, diagnostics);
        return None;
    }
    let conversion = Conversion { variable, diagnostics };
    Some(conversion.table(root.get_ref(), ""))
}

struct Conversion<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
    diagnostics: &'a Diagnostics,
}

impl Conversion<'_> {
    fn table(&self, table: &DeTable<'_>, path: &str) -> Vec<TomlMember> {
        let mut members: Vec<TomlMember> = table
            .iter()
            .map(|(key, value)| {
                let name = key.get_ref().as_ref();
                let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                let node = TomlNode {
                    at: value.span().start,
                    value: self.value(value.get_ref(), value.span().start, &path),
                };
                TomlMember { key: name.to_owned(), key_at: key.span().start, node }
            })
            .collect();
        members.sort_by_key(|member| (member.key_at, member.node.at));
        members
    }

    fn value(&self, value: &DeValue<'_>, at: usize, path: &str) -> TomlValue {
        match value {
            DeValue::String(text) => match environment::substitute(text, self.variable) {
                Ok(meant) => {
                    if environment::looks_like_a_variable(text) {
                        let what = "begins with `$` and is taken as it is; for a variable of the \
                                    environment write \"${NAME}\"";
                        self.diagnostics.warn(Some(at), format!("`{path}` {what}"));
                    }
                    TomlValue::Text(meant)
                }
                Err(what) => {
                    self.diagnostics.note(Some(at), format!("`{path}`: {what}"));
                    TomlValue::Unreadable
                }
            },
            DeValue::Integer(number) => {
                match i128::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => TomlValue::Integer(number),
                    Err(_) => {
                        self.diagnostics
                            .note(Some(at), format!("`{path}`: the number is too large"));
                        TomlValue::Unreadable
                    }
                }
            }
            DeValue::Float(number) => TomlValue::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(flag) => TomlValue::Flag(*flag),
            DeValue::Datetime(_) => TomlValue::Date,
            DeValue::Array(list) => {
                let elements = list.iter().map(|element| TomlNode {
                    at: element.span().start,
                    value: self.value(element.get_ref(), element.span().start, path),
                });
                TomlValue::List(elements.collect())
            }
            DeValue::Table(table) => TomlValue::Table(self.table(table, path)),
        }
    }
}
