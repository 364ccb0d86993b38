//! The written form of a position in a cursor: the time and the id of a record, in hexadecimal.

use crate::clock::Timestamp;
use crate::idempotency::RecordId;
use crate::store::ListPosition;

/// Digits of a time.
const TIME: usize = 16;

/// The written form.
pub(super) fn text(position: ListPosition) -> String {
    format!("{:0TIME$x}{}", position.first_seen.as_millis(), position.id)
}

/// Reads the written form.
pub(super) fn parse(text: &str) -> Option<ListPosition> {
    let (time, id) = text.split_at_checked(TIME)?;
    let first_seen = Timestamp::from_millis(u64::from_str_radix(time, 16).ok()?);
    Some(ListPosition { first_seen, id: RecordId::parse(id)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_written() {
        let id = RecordId::from_bytes([7; 16]);
        let position = ListPosition { first_seen: Timestamp::from_millis(1 << 40), id };
        for position in [position, ListPosition::NEWEST] {
            assert_eq!(parse(&text(position)), Some(position));
        }
        let text = text(position);
        for wrong in
            ["", "x", &text[1..], &format!("{text}0"), &text.to_uppercase().replace('0', "g")]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
