//! The assignment of an answer's rows to items.

use std::collections::{HashMap, HashSet};

use super::batch::Item;
use super::find_rows::{FoundRow, RowId};
use super::issued::units;
use super::rules::{ItemRules, MatchBy, scalar};
use crate::json::{JsonType, Pointer};

/// The row of a sent item, by its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ItemRow {
    Row(usize),
    Missing,
    Twice,
}

/// The row of each sent item, and the number of rows without an item.
pub(super) fn assign(
    rules: &ItemRules,
    sent: &[&Item],
    rows: &[FoundRow<'_, '_>],
) -> (Vec<ItemRow>, usize) {
    let mut found = vec![ItemRow::Missing; sent.len()];
    let mut free: Vec<usize> = (0..rows.len()).collect();
    let mut surplus = 0;
    let ids: HashMap<&str, usize> =
        sent.iter().enumerate().map(|(at, item)| (&*item.id, at)).collect();
    // A row that names an id or an index is that item's or nobody's, whatever else it says.
    free.retain(|&row| {
        let item = match named(rules, &rows[row], &ids, sent.len()) {
            NamedItem::Nothing => return true,
            NamedItem::Nobody => None,
            NamedItem::Item(item) => Some(item),
        };
        match item.and_then(|item| found.get_mut(item)) {
            Some(of_item @ ItemRow::Missing) => *of_item = ItemRow::Row(row),
            Some(of_item) => *of_item = ItemRow::Twice,
            None => surplus += 1,
        }
        false
    });
    // With a row of nobody about, or an item with two, what only looks alike proves nothing.
    let certain = surplus == 0 && !found.contains(&ItemRow::Twice);
    let mut member = 0;
    for by in rules.response.by.iter().filter(|_| certain) {
        match by {
            MatchBy::Id(_) | MatchBy::Index(_) => {}
            MatchBy::Member(pointer) => {
                by_member(&mut found, &mut free, sent, rows, (pointer, member));
                member += 1;
            }
            MatchBy::ListPosition => by_position(&mut found, &mut free, rules, sent, rows),
        }
    }
    (found, surplus + free.len())
}

/// The item that a row names by its id or its index.
enum NamedItem {
    /// The row names none.
    Nothing,
    /// The row names one that was not sent.
    Nobody,
    /// Index of the item among the sent items.
    Item(usize),
}

fn named(
    rules: &ItemRules,
    row: &FoundRow<'_, '_>,
    ids: &HashMap<&str, usize>,
    sent: usize,
) -> NamedItem {
    match row.id(rules) {
        Some(RowId::Id(id)) => {
            return ids.get(&*id).map_or(NamedItem::Nobody, |item| NamedItem::Item(*item));
        }
        Some(RowId::Unreadable) => return NamedItem::Nobody,
        None => {}
    }
    let index = rules.response.row_index().and_then(|pointer| row.value.find(pointer));
    match index.filter(|index| index.kind() != JsonType::Null) {
        None => NamedItem::Nothing,
        Some(index) => match units(index).and_then(|index| usize::try_from(index).ok()) {
            Some(index) if index < sent => NamedItem::Item(index),
            Some(_) | None => NamedItem::Nobody,
        },
    }
}

fn by_member(
    found: &mut [ItemRow],
    free: &mut Vec<usize>,
    sent: &[&Item],
    rows: &[FoundRow<'_, '_>],
    (pointer, member): (&Pointer, usize),
) {
    let of_row = |row: usize| rows[row].value.find(pointer).and_then(scalar);
    let mut times: HashMap<String, usize> = HashMap::new();
    for row in free.iter() {
        if let Some(value) = of_row(*row) {
            *times.entry(value.into_owned()).or_default() += 1;
        }
    }
    let mut items: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, item) in sent.iter().enumerate() {
        if let Some((value, _)) = item.members.get(member).and_then(Option::as_ref)
            && matches!(found[at], ItemRow::Missing)
        {
            items.entry(value).or_default().push(at);
        }
    }
    free.retain(|&row| {
        let Some(value) = of_row(row) else { return true };
        match items.get(&*value).map(Vec::as_slice) {
            Some([item]) if times.get(&*value) == Some(&1) => {
                found[*item] = ItemRow::Row(row);
                false
            }
            Some(_) | None => true,
        }
    });
}

/// Assigns rows by position when there is a row for each item and all assigned rows stand at
/// their item's position. A row that contradicts a member of the item at its position is assigned
/// to no item.
fn by_position(
    found: &mut [ItemRow],
    free: &mut Vec<usize>,
    rules: &ItemRules,
    sent: &[&Item],
    rows: &[FoundRow<'_, '_>],
) {
    if rows.len() != sent.len() {
        return;
    }
    // An assigned row at another position shows that the backend uses another order.
    let moved = |(at, found): (usize, &ItemRow)| match found {
        ItemRow::Row(assigned) => *assigned != at,
        ItemRow::Missing | ItemRow::Twice => false,
    };
    if found.iter().enumerate().any(moved) {
        return;
    }
    let contradicts = |row: usize, only: Option<&HashSet<&str>>| {
        rules.response.members().zip(&sent[row].members).any(|(pointer, of_item)| {
            let of_row = rows[row].value.find(pointer).and_then(scalar);
            matches!((of_row, of_item), (Some(row), Some((item, _)))
                if row != *item && only.is_none_or(|values| values.contains(&*row)))
        })
    };
    // One that names what another item has shows the same; what no item has, the backend has put
    // in its place.
    let values: HashSet<&str> = sent
        .iter()
        .flat_map(|item| item.members.iter().flatten())
        .map(|(value, _)| value.as_str())
        .collect();
    if free.iter().any(|&row| contradicts(row, Some(&values))) {
        return;
    }
    free.retain(|&row| {
        if contradicts(row, None) || !matches!(found[row], ItemRow::Missing) {
            return true;
        }
        found[row] = ItemRow::Row(row);
        false
    });
}
