//! Layout of the state inside a record.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::error::DecodeError;
use super::layout::{
    GONE, IN_FLIGHT, ITEM, ITEM_IN_FLIGHT, ITEM_UNKNOWN, KEPT, LOCK, NOT_RETAINED, RELEASED,
    TOMBSTONE, UNKNOWN,
};
use super::ledger::{ledger_tag, reason_of, reason_to_tag};
use super::primitives::{FieldReader, FieldWriter};
use crate::clock::Timestamp;
use crate::idempotency::outcome::UnknownReason;
use crate::idempotency::record::StoredResponse;
use crate::idempotency::{Answer, State};

impl FieldWriter<'_> {
    pub(super) fn state(&mut self, state: &State) {
        match state {
            State::InFlight | State::SerializeLock | State::Released { expires: _ } => {}
            State::Unknown { since, reason } => {
                let (tag, status) = reason_to_tag(*reason);
                self.number(since.as_millis());
                self.raw(&[tag]);
                self.u16(status);
            }
            State::Final { answer, completed, expires: _, tombstone } => {
                self.number(completed.as_millis());
                self.keep(*tombstone);
                self.u16(answer.status());
                if let Answer::Kept(response) = answer {
                    self.response(response);
                }
            }
            State::Tombstone { status, completed, expires: _ } => {
                self.number(completed.as_millis());
                self.u16(*status);
            }
            State::Item { ledger, expires: _, tombstone } => {
                match tombstone {
                    None => self.raw(&[GONE]),
                    Some(keep) => self.keep(*keep),
                }
                self.ledger(ledger);
            }
        }
    }

    /// Headers and body of a response, behind its status.
    pub(super) fn response(&mut self, response: &StoredResponse) {
        self.number(response.headers.len() as u64);
        for (name, value) in &response.headers {
            self.bytes(name.as_str().as_bytes());
            self.bytes(value.as_bytes());
        }
        self.bytes(&response.body);
    }
}

impl FieldReader<'_> {
    pub(super) fn state(
        &mut self,
        tag: u8,
        expires: Option<Timestamp>,
    ) -> Result<State, DecodeError> {
        match tag {
            IN_FLIGHT => Ok(State::InFlight),
            UNKNOWN => {
                let since = self.time("since")?;
                let reason = self.reason()?;
                Ok(State::Unknown { since, reason })
            }
            KEPT | NOT_RETAINED => {
                let completed = self.time("completed")?;
                let tombstone = self.keep()?;
                let status = self.u16("status")?;
                let answer = match tag {
                    KEPT => Answer::Kept(Arc::new(self.stored_response(status)?)),
                    _ => Answer::NotRetained { status },
                };
                Ok(State::Final { answer, completed, expires, tombstone })
            }
            LOCK => Ok(State::SerializeLock),
            RELEASED => Ok(State::Released { expires }),
            TOMBSTONE => {
                let completed = self.time("completed")?;
                let status = self.u16("status")?;
                Ok(State::Tombstone { status, completed, expires })
            }
            ITEM | ITEM_IN_FLIGHT | ITEM_UNKNOWN => {
                let tombstone = if self.0.first() == Some(&GONE) {
                    self.u8("tombstone")?;
                    None
                } else {
                    Some(self.keep()?)
                };
                let ledger = Box::new(self.ledger()?);
                if ledger_tag(&ledger) != tag || (expires.is_some() && !ledger.is_done()) {
                    return Err(DecodeError::Invalid("state"));
                }
                Ok(State::Item { ledger, expires, tombstone })
            }
            _ => Err(DecodeError::Invalid("state")),
        }
    }

    pub(super) fn stored_response(&mut self, status: u16) -> Result<StoredResponse, DecodeError> {
        let headers = self.list("headers", |from| {
            let written = from.bytes("header name")?;
            let value = HeaderValue::from_bytes(from.bytes("header value")?);
            // Names are encoded in lower case, so any other spelling is corrupt.
            let name = HeaderName::from_bytes(written).ok();
            let name = name.filter(|name| name.as_str().as_bytes() == written);
            let name = name.ok_or(DecodeError::Invalid("header name"))?;
            Ok((name, value.map_err(|_| DecodeError::Invalid("header value"))?))
        })?;
        let body = Bytes::copy_from_slice(self.bytes("body")?);
        Ok(StoredResponse { status, headers, body })
    }

    fn reason(&mut self) -> Result<UnknownReason, DecodeError> {
        let tag = self.u8("reason")?;
        reason_of(tag, self.u16("reason")?)
    }
}
