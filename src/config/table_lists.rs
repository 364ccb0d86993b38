//! Keys that hold a table or several, and lists of tables beside plain values.

use super::document::{TomlNode, TomlValue};
use super::table::{Located, TableReader};
use super::units::Scalar;

/// An element of a list: a plain value, or a table.
pub(super) enum ListElement<S, T> {
    Plain(Located<S>),
    Table(Located<T>),
}

impl<'d> TableReader<'d> {
    /// A table, or a list of tables; `None`: the key is not in the file.
    pub(super) fn one_or_more_tables<T>(
        &self,
        key: &'static str,
        expected: &str,
        mut read: impl FnMut(&Self) -> T,
    ) -> Option<Vec<T>> {
        self.note_kind(key, || "a table, or several".to_owned());
        match self.node(key) {
            Some(TomlNode { value: TomlValue::List(elements), .. }) => {
                let children = elements.iter().filter_map(|node| self.child(key, false, node));
                Some(children.map(|child| child.read(&mut read)).collect())
            }
            Some(node @ TomlNode { value: TomlValue::Table(_), .. }) => {
                let child = self.child(key, false, node)?;
                Some(vec![child.read(&mut read)])
            }
            Some(node) => {
                self.other_kind(key, node, expected);
                None
            }
            None if self.catalogs(key) => Some(vec![self.absent_child(key, false).read(&mut read)]),
            None => None,
        }
    }

    /// The elements of a list that can be read; `None`: the list is not in the file. A lone table
    /// counts as a list of one.
    pub(super) fn mixed_list<S: Scalar, T>(
        &self,
        key: &'static str,
        mut read: impl FnMut(&Self) -> Option<T>,
    ) -> Option<Vec<ListElement<S, T>>> {
        self.note_kind(key, || format!("a list; each is {}, or a table", S::EXPECTED));
        let node = match self.node(key) {
            Some(node) => node,
            None if self.catalogs(key) => {
                let _ = self.absent_child(key, false).read(&mut read);
                return None;
            }
            None => return None,
        };
        let elements = match &node.value {
            TomlValue::List(elements) => elements.as_slice(),
            TomlValue::Table(_) => std::slice::from_ref(node),
            TomlValue::Text(_)
            | TomlValue::Integer(_)
            | TomlValue::Flag(_)
            | TomlValue::Float(_)
            | TomlValue::Date
            | TomlValue::Unreadable => {
                self.other_kind(key, node, "a list: [ … ]");
                return None;
            }
        };
        let element = |node: &'d TomlNode| match &node.value {
            TomlValue::Table(_) => {
                let value = self.child(key, false, node)?.read(&mut read)?;
                Some(ListElement::Table(Located { key, at: node.at, value }))
            }
            TomlValue::Text(_)
            | TomlValue::Integer(_)
            | TomlValue::Flag(_)
            | TomlValue::Float(_)
            | TomlValue::Date
            | TomlValue::List(_)
            | TomlValue::Unreadable => self.scalar(key, node).map(ListElement::Plain),
        };
        Some(elements.iter().filter_map(element).collect())
    }
}
