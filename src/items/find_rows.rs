//! The rows of an answer: the elements of the lists at the configured paths.

use std::borrow::Cow;

use super::edit::{Edit, edit_document, edit_value};
use super::rules::{ItemRules, ListKind};
use crate::idempotency::ledger::{KeptRow, OutcomeList};
use crate::json::{Document, JsonType, Pointer, Value};
use crate::matcher::{self, MatchInput};

/// Bytes of the largest group that is kept with a row.
const LARGEST_GROUP: usize = 1 << 10;

/// The rows of an answer.
pub(super) struct FoundRows<'d, 'a> {
    pub(super) rows: Vec<FoundRow<'d, 'a>>,
    /// The value at each path: the list, or the array of the groups.
    outer: Vec<Option<Value<'d, 'a>>>,
    /// The elements at each path that are no rows.
    others: Vec<Vec<Value<'d, 'a>>>,
}

/// A row of an answer.
#[derive(Debug, Clone)]
pub(super) struct FoundRow<'d, 'a> {
    pub(super) value: Value<'d, 'a>,
    /// The name in a map of rows.
    pub(super) name: Option<Cow<'a, str>>,
    /// Index of the path at which the row stands.
    pub(super) array: usize,
    /// The group around the row.
    group: Option<Value<'d, 'a>>,
}

/// The parts of an answer around its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AnswerFrame {
    /// The answer was not read.
    Unread,
    /// The rows are all of the answer.
    Nothing,
    /// The only list is at this place of the body.
    Around(std::ops::Range<usize>),
    /// The body with empty lists.
    Text(String),
}

/// A list of rows.
struct FoundList<'d, 'a> {
    array: usize,
    group: Option<Value<'d, 'a>>,
    list: Value<'d, 'a>,
}

/// Finds the rows of an answer; `None`: the answer has no rows that can be read.
pub(super) fn find<'d, 'a>(
    rules: &ItemRules,
    document: &'d Document<'a>,
    status: u16,
) -> Option<FoundRows<'d, 'a>> {
    let response = &rules.response;
    let mut lists = Vec::new();
    let mut outer = vec![None; response.at.len()];
    for (array, path) in response.at.iter().enumerate() {
        let found = document.find(path.outer()).filter(|found| found.kind() != JsonType::Null);
        let Some(found) = found else { continue };
        outer[array] = Some(found);
        let Some(inner) = path.inner() else {
            lists.push(FoundList { array, group: None, list: found });
            continue;
        };
        if found.kind() != JsonType::Array {
            return None;
        }
        for group in found.elements() {
            let list = group.find(inner).filter(|list| list.kind() != JsonType::Null);
            lists.extend(list.map(|list| FoundList { array, group: Some(group), list }));
        }
    }
    // A row with two members of one name makes nothing but its own item doubtful.
    let places: Vec<Value<'_, '_>> = lists.iter().map(|found| found.list).collect();
    if outer.iter().all(Option::is_none) || document.has_duplicates_outside(&places) {
        return None;
    }
    let mut found =
        FoundRows { rows: Vec::new(), outer, others: vec![Vec::new(); response.at.len()] };
    for list in lists {
        found.read(rules, &list, status)?;
    }
    let any_row = response.row.is_empty() || !found.rows.is_empty();
    any_row.then_some(found)
}

impl<'d, 'a> FoundRows<'d, 'a> {
    /// Adds the rows of a list; `None`: the value is not a list of rows.
    fn read(&mut self, rules: &ItemRules, found: &FoundList<'d, 'a>, status: u16) -> Option<()> {
        let FoundList { array, group, list } = *found;
        let row = |value, name| FoundRow { value, name, array, group };
        match (rules.response.kind, list.kind()) {
            (ListKind::Single, JsonType::Object) => self.rows.push(row(list, None)),
            (ListKind::Map, JsonType::Object) => {
                self.rows.extend(list.members().map(|(name, value)| row(value, Some(name))));
            }
            (ListKind::Single | ListKind::Array, JsonType::Array) => {
                for element in list.elements().map(|value| row(value, None)) {
                    let matchers = &rules.response.row;
                    // An element that names a member twice may be a row for another reader.
                    if matchers.is_empty()
                        || matcher::any(matchers, &element.input(rules, status))
                        || element.value.has_duplicates()
                    {
                        self.rows.push(element);
                    } else {
                        self.others.get_mut(array)?.push(element.value);
                    }
                }
            }
            (ListKind::Single | ListKind::Array | ListKind::Map, _) => return None,
        }
        Some(())
    }

    /// Reports rows in an array, which may also hold the errors of a refusal.
    pub(super) fn is_listed(&self) -> bool {
        self.outer.iter().flatten().any(|list| list.kind() == JsonType::Array)
    }

    /// The parts of the answer around the rows.
    pub(super) fn frame(
        &self,
        rules: &ItemRules,
        document: &Document<'_>,
        body: &[u8],
    ) -> AnswerFrame {
        let paths = &rules.response.at;
        let plain = self.others.iter().all(Vec::is_empty);
        if plain && let ([path], [Some(list)]) = (paths.as_slice(), self.outer.as_slice()) {
            let is_object = document.root().kind() == JsonType::Object;
            return match path.outer().tokens() {
                [] => AnswerFrame::Nothing,
                _ if is_object => AnswerFrame::Around(list.span()),
                _ => AnswerFrame::Nothing,
            };
        }
        let Ok(text) = std::str::from_utf8(body) else { return AnswerFrame::Nothing };
        let mut edits = Vec::new();
        for ((path, others), outer) in paths.iter().zip(&self.others).zip(&self.outer) {
            if outer.is_some() {
                let others: Vec<&str> = others.iter().map(|other| other.raw()).collect();
                let text = rules.response.outer_kind().list(&others.join(","));
                edits.push(Edit::new(path.outer(), text));
            }
        }
        AnswerFrame::Text(edit_document(text, document, &edits))
    }
}

impl AnswerFrame {
    /// The body with empty lists, of at most `most` bytes; without anything but the rows, empty.
    pub(super) fn text(&self, kind: ListKind, body: &[u8], most: usize) -> Option<String> {
        let text = match self {
            Self::Unread => return None,
            Self::Nothing => return Some(String::new()),
            Self::Text(text) => (text.len() <= most).then(|| text.clone()),
            Self::Around(list) => {
                let (before, after) = (body.get(..list.start)?, body.get(list.end..)?);
                let fits = before.len() + after.len() <= most;
                let joined = || [before, kind.list("").as_bytes(), after].concat();
                fits.then(joined).and_then(|text| String::from_utf8(text).ok())
            }
        };
        // Of a body that is too long nothing is kept: an object, to which the lists are added.
        Some(text.unwrap_or_else(|| "{}".to_owned()))
    }
}

impl ListKind {
    /// The text of a list with these elements or members.
    pub(super) fn list(self, inside: &str) -> String {
        match self {
            Self::Array | Self::Single => format!("[{inside}]"),
            Self::Map => format!("{{{inside}}}"),
        }
    }
}

impl<'d, 'a> FoundRow<'d, 'a> {
    /// The row as matchers see it.
    pub(super) fn input<'m>(&self, rules: &'m ItemRules, status: u16) -> MatchInput<'m, 'a>
    where
        'd: 'm,
    {
        let array = rules.response.at.get(self.array).map(|path| path.outer());
        MatchInput { array, ..MatchInput::row(status, self.value) }
    }

    /// The id that the row names: its name in a map, or its member.
    pub(super) fn id(&self, rules: &ItemRules) -> Option<RowId<'a>> {
        if let Some(name) = &self.name {
            return Some(RowId::Id(name.clone()));
        }
        let value = self.value.find(rules.response.row_id()?)?;
        match value.kind() {
            JsonType::Null => None,
            _ => Some(value.as_id().map_or(RowId::Unreadable, RowId::Id)),
        }
    }

    /// The elements of the row's `append` arrays, and the row as it is kept.
    pub(super) fn gathered(&self, rules: &ItemRules) -> (Vec<OutcomeList>, KeptRow) {
        let response = &rules.response;
        let row = self.value;
        let mut appended = Vec::new();
        let mut emptied = Vec::new();
        for pointer in &response.append {
            let Some(array) = row.find(pointer) else { continue };
            let elements: Vec<String> =
                array.elements().map(|element| element.raw().to_owned()).collect();
            if !elements.is_empty() {
                emptied.push(Edit::new(pointer, "[]"));
                appended.push(OutcomeList { at: pointer.to_string(), elements });
            }
        }
        let path = response.at.get(self.array);
        let array = path.filter(|_| response.at.len() > 1).map(ToString::to_string);
        let group = path.and_then(|path| self.group_text(path.inner()?, response.kind));
        let text = edit_value(row, &emptied);
        (appended, KeptRow { text, array, group })
    }

    /// The group around the row with an empty list.
    fn group_text(&self, list: &Pointer, kind: ListKind) -> Option<String> {
        let group = self.group?;
        let text = edit_value(group, &[Edit::new(list, kind.list(""))]);
        (text.len() <= LARGEST_GROUP).then_some(text)
    }
}

/// The id that a row names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RowId<'a> {
    /// The id.
    Id(Cow<'a, str>),
    /// The member of the id is neither a string nor a number.
    Unreadable,
}
