//! Tables whose member names are values as well, with the members as JSON texts.

use super::document::{TomlNode, TomlValue};
use super::table::{Located, TableReader};

impl<'d> TableReader<'d> {
    /// Members whose names are not keys, but values as well, with the values as JSON texts.
    pub(super) fn json_members(
        &self,
        key: &'static str,
        expected: &str,
    ) -> Option<Vec<(&'d str, Located<String>)>> {
        self.free_members(key, expected, |name, node| {
            self.json(key, &format!("{}.{name}", self.path_of(key)), node)
        })
    }

    /// Members whose names are not keys, but values as well, with texts as values.
    pub(super) fn text_members(
        &self,
        key: &'static str,
        expected: &str,
    ) -> Option<Vec<(&'d str, Located<String>)>> {
        self.free_members(key, expected, |_, node| match &node.value {
            TomlValue::Text(text) => Some(text.clone()),
            TomlValue::Integer(number) => Some(number.to_string()),
            TomlValue::Flag(flag) => Some(flag.to_string()),
            TomlValue::Float(_)
            | TomlValue::Date
            | TomlValue::List(_)
            | TomlValue::Table(_)
            | TomlValue::Unreadable => {
                self.other_kind(key, node, "a table of texts");
                None
            }
        })
    }

    /// The members of a table, with what `read` makes of their names and values.
    fn free_members(
        &self,
        key: &'static str,
        expected: &str,
        read: impl Fn(&str, &TomlNode) -> Option<String>,
    ) -> Option<Vec<(&'d str, Located<String>)>> {
        self.note_kind(key, || expected.to_owned());
        let node = self.node(key)?;
        let TomlValue::Table(members) = &node.value else {
            self.other_kind(key, node, expected);
            return None;
        };
        let read = members.iter().filter_map(|member| {
            let value = read(&member.key, &member.node)?;
            Some((member.key.as_str(), Located { key, at: member.node.at, value }))
        });
        Some(read.collect())
    }

    /// The value as JSON text; members stay in the order of the file.
    fn json(&self, key: &'static str, path: &str, node: &TomlNode) -> Option<String> {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        Some(match &node.value {
            TomlValue::Text(text) => quoted(text),
            TomlValue::Integer(number) => number.to_string(),
            TomlValue::Float(number) => match serde_json::Number::from_f64(*number) {
                Some(number) => number.to_string(),
                None => {
                    self.fail(key, node.at, format!("`{path}`: JSON has no such number"));
                    return None;
                }
            },
            TomlValue::Flag(flag) => flag.to_string(),
            TomlValue::List(elements) => {
                let elements = elements.iter().map(|element| self.json(key, path, element));
                format!("[{}]", elements.collect::<Option<Vec<_>>>()?.join(","))
            }
            TomlValue::Table(members) => {
                let members = members.iter().map(|member| {
                    let path = format!("{path}.{}", member.key);
                    let value = self.json(key, &path, &member.node)?;
                    Some(format!("{}:{value}", quoted(&member.key)))
                });
                format!("{{{}}}", members.collect::<Option<Vec<_>>>()?.join(","))
            }
            TomlValue::Date => {
                let what = format!("`{path}` is a date, but must be a value that JSON has");
                self.fail(key, node.at, what);
                return None;
            }
            TomlValue::Unreadable => {
                self.failed.borrow_mut().push(key);
                return None;
            }
        })
    }
}
