//! Messages between the processes that share a store, and their text form.

use crate::hex;
use crate::idempotency::RecordId;
use crate::idempotency::record::Nonce;

/// A message between two processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    /// `from` waits for a record that the receiver has in flight.
    Waiting {
        /// Id of the record.
        id: RecordId,
        /// Waiting process.
        from: Nonce,
    },
    /// The record may have changed.
    Changed {
        /// Id of the record.
        id: RecordId,
    },
    /// A final record was replaced; sent to [`EVERYONE`], because any process may cache the record.
    Replaced {
        /// Id of the record.
        id: RecordId,
    },
}

/// Broadcast address, to which every process listens besides its own address.
pub(crate) const EVERYONE: Nonce = [0xff; 16];

impl Message {
    /// Encodes the message as a word of visible ASCII, 33 or 65 characters long.
    pub(crate) fn to_text(self) -> String {
        let (tag, id, from): (char, String, String) = match self {
            Self::Waiting { id, from } => ('w', hex::encode(id.as_bytes()), hex::encode(&from)),
            Self::Changed { id } => ('c', hex::encode(id.as_bytes()), String::new()),
            Self::Replaced { id } => ('r', hex::encode(id.as_bytes()), String::new()),
        };
        format!("{tag}{id}{from}")
    }

    /// Decodes the output of [`Message::to_text`]; `None` for any different text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let id = |digits| hex::decode(digits).map(RecordId::from_bytes);
        match text.split_at_checked(1)? {
            ("w", rest) => {
                let (record, from) = rest.split_at_checked(32)?;
                Some(Self::Waiting { id: id(record)?, from: hex::decode(from)? })
            }
            ("c", rest) => Some(Self::Changed { id: id(rest)? }),
            ("r", rest) => Some(Self::Replaced { id: id(rest)? }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples;

    #[test]
    fn messages_survive_encoding() {
        let id = samples::id(77);
        let waiting = Message::Waiting { id, from: [0xa5; 16] };
        for message in [Message::Changed { id }, Message::Replaced { id }, waiting] {
            assert_eq!(Message::parse(&message.to_text()), Some(message));
        }
    }

    #[test]
    fn other_text_is_rejected() {
        let good = Message::Waiting { id: samples::id(1), from: [1; 16] }.to_text();
        for cut in 0..good.len() {
            assert_eq!(Message::parse(&good[..cut]), None, "{cut}");
        }
        for bad in ["", "x", "c", "r", "w", "cé", &good.replace('0', "+"), &format!("{good}0")] {
            assert_eq!(Message::parse(bad), None, "{bad}");
        }
    }
}
