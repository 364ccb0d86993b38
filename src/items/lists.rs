//! The lists of a request: its items, each with the group in which it stands.

use std::borrow::Cow;
use std::ops::Range;

use super::batch_error::BatchError;
use super::list_path::ListPath;
use super::rules::{ItemRules, ListKind};
use crate::json::{Document, JsonType, Value};

/// The items of a request.
pub(super) struct FoundItems<'d, 'a> {
    /// The list, or the array of the groups.
    pub(super) outer: Value<'d, 'a>,
    /// The groups; a single one for items without groups.
    pub(super) groups: Vec<FoundGroup<'d, 'a>>,
    /// Number of items in all groups.
    pub(super) count: usize,
}

/// A group of items.
pub(super) struct FoundGroup<'d, 'a> {
    /// The group and the list in it; `None`: the items stand in no group.
    pub(super) around: Option<GroupAround<'d, 'a>>,
    pub(super) items: Vec<FoundItem<'d, 'a>>,
}

/// The parts of a group around its items.
#[derive(Clone, Copy)]
pub(super) struct GroupAround<'d, 'a> {
    pub(super) group: Value<'d, 'a>,
    /// The list in the group, if there is one.
    pub(super) list: Option<Value<'d, 'a>>,
}

/// An item before its id is read.
pub(super) struct FoundItem<'d, 'a> {
    pub(super) value: Value<'d, 'a>,
    /// The name in a map of items.
    pub(super) name: Option<Cow<'a, str>>,
    /// Place of the item in its list, with the name.
    pub(super) span: Range<usize>,
}

/// Finds the items of a request.
pub(super) fn find<'d, 'a>(
    rules: &ItemRules,
    document: &'d Document<'a>,
) -> Result<FoundItems<'d, 'a>, BatchError> {
    let outer = document.find(rules.at.outer()).ok_or(BatchError::NoItems)?;
    let groups = groups(&rules.at, rules.kind, outer, rules.max_items)?;
    let count = groups.iter().map(|group| group.items.len()).sum();
    match count {
        0 => Err(BatchError::NoItems),
        count if count > rules.max_items => Err(BatchError::TooMany { most: rules.max_items }),
        count => Ok(FoundItems { outer, groups, count }),
    }
}

fn groups<'d, 'a>(
    at: &ListPath,
    kind: ListKind,
    outer: Value<'d, 'a>,
    most: usize,
) -> Result<Vec<FoundGroup<'d, 'a>>, BatchError> {
    let Some(inner) = at.inner() else {
        return Ok(vec![FoundGroup { around: None, items: list(kind, outer, most)? }]);
    };
    if outer.kind() != JsonType::Array {
        return Err(BatchError::NoItems);
    }
    let mut found = 0;
    let mut groups = Vec::new();
    for group in outer.elements() {
        if group.kind() != JsonType::Object {
            return Err(BatchError::NoItems);
        }
        let inner = group.find(inner).filter(|list| list.kind() != JsonType::Null);
        let items = match inner {
            Some(inner) => list(kind, inner, most)?,
            None => Vec::new(),
        };
        found += items.len();
        groups.push(FoundGroup { around: Some(GroupAround { group, list: inner }), items });
        if found > most {
            break;
        }
    }
    Ok(groups)
}

/// The items of a list, one more than `most` at most.
fn list<'d, 'a>(
    kind: ListKind,
    list: Value<'d, 'a>,
    most: usize,
) -> Result<Vec<FoundItem<'d, 'a>>, BatchError> {
    let element = |value: Value<'d, 'a>| FoundItem { value, name: None, span: value.span() };
    match (kind, list.kind()) {
        (ListKind::Single, JsonType::Object) => Ok(vec![element(list)]),
        (ListKind::Array, JsonType::Array) => {
            Ok(list.elements().take(most + 1).map(element).collect())
        }
        (ListKind::Map, JsonType::Object) => {
            let member = |(name, value): (Cow<'a, str>, Value<'d, 'a>)| FoundItem {
                value,
                name: Some(name),
                span: value.member_span(),
            };
            Ok(list.members().take(most + 1).map(member).collect())
        }
        (ListKind::Single | ListKind::Array | ListKind::Map, _) => Err(BatchError::NoItems),
    }
}
