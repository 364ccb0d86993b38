//! The number of units that a row reports as issued.

use super::batch::Item;
use super::find_rows::{FoundRow, RowId};
use super::rules::{ItemRules, scalar};
use crate::idempotency::ledger::Doubt;
use crate::json::{JsonType, Pointer, Value};
use crate::matcher::{self, Matcher};

/// The meaning of a row for its item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IssuedUnits {
    /// Units issued by this call.
    pub(super) units: u64,
    /// No more units will ever be issued.
    pub(super) closed: bool,
}

/// Reads the units issued for an item of which `sent` units were sent.
pub(super) fn issued(
    rules: &ItemRules,
    row: &FoundRow<'_, '_>,
    (sent, indivisible): (u64, bool),
    status: u16,
) -> Result<IssuedUnits, Doubt> {
    let response = &rules.response;
    let input = row.input(rules, status);
    let holds = |list: &[Matcher]| matcher::any(list, &input);
    let row = row.value;
    if row.kind() != JsonType::Object {
        return Err(Doubt::CountMissing);
    }
    if holds(&response.unknown) {
        return Err(Doubt::Declared);
    }
    let closed = holds(&response.finals);
    let denied = closed || holds(&response.retry);
    let counted = match response.issued.count.as_ref().and_then(|pointer| present(row, pointer)) {
        Some(count) => Some(units(count).ok_or(Doubt::Contradicting)?),
        None => None,
    };
    let mut listed = None;
    for array in response.issued.arrays.iter().filter_map(|pointer| present(row, pointer)) {
        if array.kind() != JsonType::Array {
            return Err(Doubt::Contradicting);
        }
        listed = Some(listed.unwrap_or(0) + array.elements().count() as u64);
    }
    let units = match (counted, listed) {
        (Some(counted), Some(listed)) if counted != listed => return Err(Doubt::Contradicting),
        // A row that denies and counts, without showing what it counts, says two things.
        (Some(counted), None) if counted > 0 && denied => return Err(Doubt::Contradicting),
        (Some(units), _) | (None, Some(units)) => units,
        (None, None) => match (denied, holds(&response.issued.all)) {
            (true, true) => return Err(Doubt::Contradicting),
            (true, false) => 0,
            (false, true) => sent,
            (false, false) => return Err(Doubt::CountMissing),
        },
    };
    if units > sent {
        return Err(Doubt::OverIssued);
    }
    if indivisible && units > 0 && units < sent {
        return Err(Doubt::Divided);
    }
    Ok(IssuedUnits { units, closed })
}

/// Reports a row with neither a count nor a code for the issued units.
pub(super) fn says_nothing(rules: &ItemRules, row: &FoundRow<'_, '_>, status: u16) -> bool {
    issued(rules, row, (u64::MAX, false), status) == Err(Doubt::CountMissing)
}

/// Reports an element that says nothing of issued units and names none of the sent items.
pub(super) fn is_no_row(
    rules: &ItemRules,
    sent: &[&Item],
    row: &FoundRow<'_, '_>,
    status: u16,
) -> bool {
    if row.value.has_duplicates() || !says_nothing(rules, row, status) {
        return false;
    }
    let names_id = match row.id(rules) {
        Some(RowId::Id(id)) => sent.iter().any(|item| *item.id == *id),
        Some(RowId::Unreadable) | None => false,
    };
    let mut members = rules.response.members().enumerate();
    let names_member = members.any(|(at, pointer)| {
        let value = row.value.find(pointer).and_then(scalar);
        let of = |item: &&Item| item.members.get(at).cloned().flatten();
        value.is_some_and(|value| sent.iter().filter_map(of).any(|(other, _)| other == *value))
    });
    let index = rules.response.row_index().and_then(|pointer| row.value.find(pointer));
    let names_index = index.and_then(units).is_some_and(|index| index < sent.len() as u64);
    !(names_id || names_member || names_index)
}

/// Reports a row that names another id than the item's.
pub(super) fn names_another(rules: &ItemRules, id: &str, row: &FoundRow<'_, '_>) -> bool {
    row.id(rules).is_some_and(|named| named != RowId::Id(id.into()))
}

fn present<'d, 'a>(row: Value<'d, 'a>, pointer: &Pointer) -> Option<Value<'d, 'a>> {
    row.find(pointer).filter(|value| value.kind() != JsonType::Null)
}

/// A count: digits, with a fraction of zeros at most, as a number or in a string.
pub(super) fn units(value: Value<'_, '_>) -> Option<u64> {
    let text = value.as_id()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let zeros = digits(fraction) && fraction.bytes().all(|byte| byte == b'0');
    if digits(whole) && zeros { whole.parse().ok() } else { None }
}
