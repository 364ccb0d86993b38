//! The position of a listing, and its written form in a cursor.

use crate::clock::Timestamp;
use crate::idempotency::RecordId;

/// ListPosition of a listing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::admin) struct ListPosition {
    /// The window begins behind this id; `None`: at the first record.
    pub(in crate::admin) start: Option<RecordId>,
    /// The window ends with this id; `None`: at the last record, or not known yet.
    pub(in crate::admin) end: Option<RecordId>,
    /// The last record shown of the window, by its first claim and its id.
    pub(in crate::admin) shown: Option<(Timestamp, RecordId)>,
}

/// Characters of an absent id, and of an absent time and id.
const NO_ID: &str = "--------------------------------";
const NO_TIME: &str = "----------------";

impl ListPosition {
    /// The written form.
    pub(in crate::admin) fn text(&self) -> String {
        let id = |id: Option<RecordId>| id.map_or_else(|| NO_ID.to_owned(), |id| id.to_string());
        let time = self
            .shown
            .map_or_else(|| NO_TIME.to_owned(), |(time, _)| format!("{:016x}", time.as_millis()));
        let shown = id(self.shown.map(|(_, id)| id));
        [id(self.start), id(self.end), time, shown].concat()
    }

    /// Reads the written form.
    pub(in crate::admin) fn parse(text: &str) -> Option<Self> {
        let (start, rest) = text.split_at_checked(32)?;
        let (end, rest) = rest.split_at_checked(32)?;
        let (time, shown) = rest.split_at_checked(16)?;
        let id = |text: &str| match text {
            NO_ID => Some(None),
            text => RecordId::parse(text).map(Some),
        };
        let shown = match (time, id(shown)?) {
            (NO_TIME, None) => None,
            (time, Some(id)) => {
                Some((Timestamp::from_millis(u64::from_str_radix(time, 16).ok()?), id))
            }
            (_, None) => return None,
        };
        Some(Self { start: id(start)?, end: id(end)?, shown })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_written() {
        let id = |byte| Some(RecordId::from_bytes([byte; 16]));
        let shown = Some((Timestamp::from_millis(1 << 40), RecordId::from_bytes([7; 16])));
        for position in [
            ListPosition::default(),
            ListPosition { start: id(1), end: None, shown: None },
            ListPosition { start: id(1), end: id(2), shown },
            ListPosition { start: None, end: id(2), shown },
        ] {
            assert_eq!(ListPosition::parse(&position.text()), Some(position));
        }
        let text = ListPosition { start: id(1), end: id(2), shown }.text();
        for wrong in
            ["", "x", &text[1..], &format!("{text}0"), &text.to_uppercase().replace('0', "g")]
        {
            assert_eq!(ListPosition::parse(wrong), None, "{wrong}");
        }
    }
}
