//! Codec of stored records: fields in fixed order, little endian, with a checksum at the end.
//!
//! ```text
//! schema   u8        6
//! state    u8        1 in flight, 2 unknown, 3 final and kept, 4 final and not kept, 5 tombstone,
//!                    6 item at rest, 7 item in flight, 8 item unknown, 9 lock, 10 released
//! flags    u8        bit 0: expires is set, bit 1: subject is set, bit 2: history is present,
//!                    bit 3: settled, and no client was told, bit 4: verbatim is present,
//!                    bit 5: data of a settlement is present, bit 6: the caller has a name
//! version  u64
//! owner    16 bytes
//! seen     u64       time of the first claim, milliseconds
//! expires  u64       milliseconds, if set
//! subject  16 bytes  if set
//! tenant 16, fingerprint 32, rule 8, verbatim 32 if it is not the fingerprint
//! updated, attempts: a number each
//! attempt 16, route, key, name of the caller if it has one
//! members: count, each a name and 4 bytes
//! fields of the state, data of a settlement if present, history if present
//! crc32    u32       over the record's id and everything before
//! ```
//! Sealed, see `sealed`, the first byte is 0x86, and `tenant` and all that follows is replaced by
//! the attempt in the clear and the sealed rest.
//!
//! Records are small and many. Numbers, counts and lengths therefore take one byte per 7 bits (see
//! `primitives`), and the update time is stored as the difference from the first-seen time, with
//! the sign in the lowest bit. Texts and bytes follow their length. The head ends with the subject
//! and holds everything that a compare-and-swap and the indexes need ([`Head::decode`]), so that no
//! answer is decoded for a comparison; Redis reads the head too, see `redis/scripts/commit.lua`.
//!
//! The layout is hand-written because a derived one costs a call for each byte of a body. Decoding
//! never panics, whatever the bytes are, and accepts nothing that [`Codec::encode`] does not write.

mod error;
mod head;
mod history;
mod layout;
mod ledger;
mod primitives;
mod sealed;
#[cfg(test)]
mod sealed_tests;
mod settling;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use super::seal::{self, KeyId, Keyring, SEALED_OVERHEAD};
use crate::clock::Timestamp;
use crate::idempotency::fingerprint::{Fingerprint, MemberDigest, RuleId};
use crate::idempotency::id::IdScheme;
use crate::idempotency::record::Nonce;
use crate::idempotency::{Answer, Record, RecordId, State, TenantId};
use head::{HeadFields, checksum, verified};
use layout::{
    FIXED, HAS_CALLER, HAS_EXPIRES, HAS_HISTORY, HAS_SETTLING, HAS_SUBJECT, HAS_VERBATIM,
    IN_FLIGHT, KEPT, LOCK, NOT_RETAINED, RELEASED, SCHEMA_BYTE, SEALED_BYTE, TOMBSTONE, UNKNOWN,
    UNREPORTED,
};
use ledger::ledger_tag;
use primitives::{FieldReader, FieldWriter};
use sealed::{ATTEMPT, Sealing};

pub use error::DecodeError;
pub use head::Head;
pub use layout::SCHEMA;

/// Encoder and decoder of the records of one store.
///
/// Every backend receives a codec when it is opened, and no other code encodes what a store keeps:
/// a property of stored bytes, such as encryption, belongs in this type.
#[derive(Debug, Clone)]
pub struct Codec {
    /// `None`: all fields are stored in the clear.
    sealing: Option<Arc<Sealing>>,
}

static PLAIN_IDS: IdScheme = IdScheme::plain();

impl Codec {
    /// A codec that stores all fields in the clear.
    pub fn plain() -> Self {
        Self { sealing: None }
    }

    /// A codec that seals all fields but the head.
    pub fn sealed(keyring: Keyring) -> Self {
        let sealing = Sealing { keyring, store: OnceLock::new() };
        Self { sealing: Some(Arc::new(sealing)) }
    }

    /// Names the store that sealed records belong to, and its ids.
    pub(in crate::store) fn bind(&self, store_id: uuid::Uuid, ids: IdScheme) {
        if let Some(sealing) = &self.sealing {
            // A codec belongs to a single store; the same again changes nothing.
            let _ = sealing.store.set((store_id, ids));
        }
    }

    /// The way in which the store makes ids.
    pub(in crate::store) fn ids(&self) -> &IdScheme {
        let bound = self.sealing.as_ref().and_then(|sealing| sealing.store.get());
        bound.map_or(&PLAIN_IDS, |(_, ids)| ids)
    }

    /// The key that seals; `None`: nothing is sealed.
    pub fn current_key(&self) -> Option<KeyId> {
        self.keyring().map(Keyring::current)
    }

    /// The keys of a codec that seals.
    pub(in crate::store) fn keyring(&self) -> Option<&Keyring> {
        self.sealing.as_ref().map(|sealing| &sealing.keyring)
    }

    /// The master key of an encoded record; `None`: the record is in plain.
    ///
    /// # Errors
    /// When the bytes are not a record that was encoded for this id.
    pub fn key_of(id: &RecordId, bytes: &[u8]) -> Result<Option<KeyId>, DecodeError> {
        let content = verified(id, bytes)?;
        if content[0] != SEALED_BYTE {
            return Ok(None);
        }
        let mut from = FieldReader(content);
        from.head()?;
        let _attempt: Nonce = from.array("attempt")?;
        seal::key_id(from.0).map(Some).ok_or(DecodeError::EndsIn("seal"))
    }

    /// Encodes a record.
    pub fn encode(&self, id: &RecordId, record: &Record) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out, id, record);
        out
    }

    /// Encodes a record and appends the bytes to `out`.
    pub fn encode_into(&self, out: &mut Vec<u8>, id: &RecordId, record: &Record) {
        let size = self.size_hint(record);
        out.reserve(size);
        let start = out.len();
        match &self.sealing {
            None => {
                let mut out = FieldWriter(out);
                out.head(record, SCHEMA_BYTE);
                out.body(record);
            }
            Some(sealing) => sealing.encode(out, id, record, size),
        }
        let mut out = FieldWriter(out);
        let checksum = checksum(id, &out.0[start..]);
        out.raw(&checksum.to_le_bytes());
    }

    /// Decodes a record.
    ///
    /// # Errors
    /// When the bytes are not what [`Codec::encode`] wrote for this id.
    pub fn decode(&self, id: &RecordId, bytes: &[u8]) -> Result<Record, DecodeError> {
        let content = verified(id, bytes)?;
        let mut from = FieldReader(content);
        let head = from.head()?;
        if content[0] == SCHEMA_BYTE {
            return from.body(head);
        }
        let sealing = self.sealing.as_ref().ok_or(DecodeError::Sealed)?;
        sealing.decode(id, content, from, head)
    }

    /// Approximate size of an encoded record in bytes, seldom too small.
    pub fn size_hint(&self, record: &Record) -> usize {
        let members = record.fingerprint.members.iter().map(|member| member.name.len() + 8);
        let caller = record.caller.as_ref().map_or(0, |caller| caller.len() + 2);
        let names = record.route.len() + record.key.len() + caller;
        let answer = match &record.state {
            State::Final { answer: Answer::Kept(response), .. } => response.bytes(),
            State::Item { ledger, .. } => ledger.bytes(),
            State::Final { .. }
            | State::InFlight
            | State::Unknown { .. }
            | State::SerializeLock
            | State::Released { .. }
            | State::Tombstone { .. } => 0,
        };
        let settling = record.settling.as_ref().map_or(0, |settling| 48 + settling.bytes());
        let sealed = if self.sealing.is_some() { SEALED_OVERHEAD + ATTEMPT } else { 0 };
        let more = sealed + settling + history::size_hint(&record.history);
        FIXED + members.sum::<usize>() + names + answer + more
    }
}

impl FieldWriter<'_> {
    fn head(&mut self, record: &Record, schema: u8) {
        let tag = match &record.state {
            State::InFlight => IN_FLIGHT,
            State::Unknown { .. } => UNKNOWN,
            State::Final { answer: Answer::Kept(_), .. } => KEPT,
            State::Final { answer: Answer::NotRetained { .. }, .. } => NOT_RETAINED,
            State::Tombstone { .. } => TOMBSTONE,
            State::SerializeLock => LOCK,
            State::Released { .. } => RELEASED,
            State::Item { ledger, .. } => ledger_tag(ledger),
        };
        let expires = record.expires();
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = flag(expires.is_some(), HAS_EXPIRES)
            | flag(record.subject.is_some(), HAS_SUBJECT)
            | flag(!record.history.is_empty(), HAS_HISTORY)
            | flag(record.settlement_unreported, UNREPORTED)
            | flag(record.fingerprint.verbatim != record.fingerprint.digest, HAS_VERBATIM)
            | flag(record.settling.is_some(), HAS_SETTLING)
            | flag(record.caller.is_some(), HAS_CALLER);
        self.raw(&[schema, tag, flags]);
        self.u64(record.version);
        self.raw(&record.owner);
        self.u64(record.first_seen.as_millis());
        if let Some(at) = expires {
            self.u64(at.as_millis());
        }
        if let Some(subject) = &record.subject {
            self.raw(subject);
        }
    }

    fn body(&mut self, record: &Record) {
        self.raw(record.tenant.as_bytes());
        self.raw(&record.fingerprint.digest);
        self.raw(record.fingerprint.rule.as_bytes());
        if record.fingerprint.verbatim != record.fingerprint.digest {
            self.raw(&record.fingerprint.verbatim);
        }
        self.number(signed_difference(record.first_seen, record.updated));
        self.number(record.attempts.into());
        self.raw(&record.attempt);
        self.bytes(record.route.as_bytes());
        self.bytes(record.key.as_bytes());
        if let Some(caller) = &record.caller {
            self.bytes(caller.as_bytes());
        }
        self.number(record.fingerprint.members.len() as u64);
        for member in record.fingerprint.members.iter() {
            self.bytes(member.name.as_bytes());
            self.raw(&member.digest);
        }
        self.state(&record.state);
        if let Some(settling) = &record.settling {
            self.settling(settling);
        }
        if !record.history.is_empty() {
            self.history(&record.history);
        }
    }
}

impl FieldReader<'_> {
    fn body(mut self, head: HeadFields) -> Result<Record, DecodeError> {
        let HeadFields { head, owner, tag, flags } = head;
        let tenant = TenantId::from_bytes(self.array("tenant")?);
        let digest = self.array("fingerprint")?;
        let rule = RuleId::from_bytes(self.array("rule")?);
        let verbatim = if flags & HAS_VERBATIM == 0 { digest } else { self.array("verbatim")? };
        if flags & HAS_VERBATIM != 0 && verbatim == digest {
            return Err(DecodeError::Invalid("verbatim"));
        }
        let first_seen = head.first_seen;
        let updated = add_difference(first_seen, self.number("updated")?);
        let attempts = self.small("attempts")?;
        let attempt: Nonce = self.array("attempt")?;
        let route = self.text("route")?;
        let key = self.text("key")?;
        let caller = match flags & HAS_CALLER {
            0 => None,
            _ => Some(self.text("caller")?.into()),
        };
        let members = self.list("members", |from| {
            Ok(MemberDigest { name: from.text("member")?.into(), digest: from.array("member")? })
        })?;
        let state = self.state(tag, head.expires)?;
        let settling = match flags & HAS_SETTLING {
            0 => None,
            _ => Some(Box::new(self.settling()?)),
        };
        let history = if flags & HAS_HISTORY != 0 { self.history()? } else { Vec::new() };
        if !self.0.is_empty() {
            return Err(DecodeError::TooLong(self.0.len()));
        }
        let fingerprint = Fingerprint { digest, verbatim, rule, members: members.into() };
        Ok(Record {
            version: head.version,
            tenant,
            caller,
            route: route.into(),
            key: key.into(),
            subject: head.subject,
            fingerprint,
            first_seen,
            updated,
            attempts,
            attempt,
            owner,
            state,
            settlement_unreported: flags & UNREPORTED != 0,
            history,
            settling,
        })
    }
}

/// Difference of two times with the sign in the lowest bit, since a clock may have been set back.
fn signed_difference(first: Timestamp, then: Timestamp) -> u64 {
    let passed = then.as_millis().wrapping_sub(first.as_millis()).cast_signed();
    ((passed << 1) ^ (passed >> 63)).cast_unsigned()
}

/// Inverse of [`signed_difference`].
fn add_difference(first: Timestamp, difference: u64) -> Timestamp {
    let passed = (difference >> 1) ^ (difference & 1).wrapping_neg();
    Timestamp::from_millis(first.as_millis().wrapping_add(passed))
}
