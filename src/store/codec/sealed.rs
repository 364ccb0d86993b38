//! Sealed records: the head and the attempt in the clear, the rest under a key of its own.
//!
//! ```text
//! head · attempt 16 · sealed (tenant and all that follows)
//! ```
//! The additional data are the store's id, the record's id, head and attempt: the sealed part of a
//! record is valid for this store, id, attempt, state and version only.

use std::sync::OnceLock;

use super::error::DecodeError;
use super::head::HeadFields;
use super::layout::SEALED_BYTE;
use super::primitives::{FieldReader, FieldWriter};
use crate::idempotency::id::IdScheme;
use crate::idempotency::record::Nonce;
use crate::idempotency::{Record, RecordId};
use crate::store::seal::{Keyring, UnsealError};

/// Bytes of the attempt.
pub(super) const ATTEMPT: usize = 16;

const PLACE: &[u8] = b"oncegate/record/1\0";

/// The keys, and the store that the sealed records belong to.
#[derive(Debug)]
pub(super) struct Sealing {
    pub(super) keyring: Keyring,
    /// The store and its ids. Set when the store is open; no record is read or written before.
    pub(super) store: OnceLock<(uuid::Uuid, IdScheme)>,
}

impl Sealing {
    /// Encodes a record without its checksum; `size`: about as many bytes as that takes.
    pub(super) fn encode(&self, out: &mut Vec<u8>, id: &RecordId, record: &Record, size: usize) {
        let start = out.len();
        FieldWriter(out).head(record, SEALED_BYTE);
        out.extend_from_slice(&record.attempt);
        let mut body = Vec::with_capacity(size);
        FieldWriter(&mut body).body(record);
        let place = self.place(id, &out[start..]);
        self.keyring.seal(&place, &body, out);
    }

    /// Decodes a record; `from` reads on behind the head at the begin of `content`.
    pub(super) fn decode(
        &self,
        id: &RecordId,
        content: &[u8],
        mut from: FieldReader<'_>,
        head: HeadFields,
    ) -> Result<Record, DecodeError> {
        let attempt: Nonce = from.array("attempt")?;
        let clear = &content[..content.len() - from.0.len()];
        let body = self.keyring.open(&self.place(id, clear), from.0);
        let body = body.map_err(|error| match error {
            UnsealError::TooShort => DecodeError::EndsIn("seal"),
            UnsealError::UnknownKey(id) => DecodeError::UnknownKey(id),
            UnsealError::Tag => DecodeError::Seal,
        })?;
        let record = FieldReader(&body).body(head)?;
        if record.attempt != attempt {
            return Err(DecodeError::Invalid("attempt"));
        }
        Ok(record)
    }

    fn place(&self, id: &RecordId, clear: &[u8]) -> Vec<u8> {
        let store_id = self.store.get().map(|(store_id, _)| *store_id).unwrap_or_default();
        [PLACE, store_id.as_bytes(), id.as_bytes(), clear].concat()
    }
}
