//! Record ids: the names of records in a store.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

use ring::hmac;
use sha2::{Digest, Sha256};

use super::tenant::TenantId;
use crate::hex;

/// Bytes of a digest of a key.
const KEY_DIGEST: usize = 5;

/// A digest of a key alone, and a part of each id made for the key: stores find the records of a
/// key by it, whoever the callers are. Different keys may share a digest.
pub type KeyDigest = [u8; KEY_DIGEST];

/// The name of a record: one byte shared by all records of a tenant, the digest of the key, then a
/// digest of tenant, scope and key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RecordId([u8; 16]);

impl Ord for RecordId {
    /// Orders ids by their bytes. Thousands of ids are sorted at once, and comparing numbers is
    /// fastest.
    fn cmp(&self, other: &Self) -> Ordering {
        u128::from_be_bytes(self.0).cmp(&u128::from_be_bytes(other.0))
    }
}

impl PartialOrd for RecordId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for RecordId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The digest at the end: ids of one key differ there.
        state.write_u64(self.0.last_chunk().copied().map_or(0, u64::from_le_bytes));
    }
}

/// The way in which ids and look-up digests are made: plain digests, or keyed by a secret of the
/// store, so that nobody can guess keys and business ids from a copy of the store.
#[derive(Clone, Default)]
pub struct IdScheme {
    secret: Option<Arc<IdSecret>>,
}

/// The secret of a store's ids, and the HMAC key made of it, which every request needs.
struct IdSecret {
    bytes: [u8; 32],
    key: hmac::Key,
}

impl PartialEq for IdScheme {
    fn eq(&self, other: &Self) -> bool {
        let bytes = |scheme: &Self| scheme.secret.as_ref().map(|secret| secret.bytes);
        bytes(self) == bytes(other)
    }
}

impl Eq for IdScheme {}

impl fmt::Debug for IdScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.secret.is_some() { "IdScheme(keyed)" } else { "IdScheme(plain)" })
    }
}

impl IdScheme {
    /// Plain digests.
    pub const fn plain() -> Self {
        Self { secret: None }
    }

    /// Digests keyed by `secret`.
    pub fn keyed(secret: [u8; 32]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        Self { secret: Some(Arc::new(IdSecret { bytes: secret, key })) }
    }

    /// The id for `key` of `tenant`, see [`RecordId::new`].
    pub fn record(&self, tenant: &TenantId, scope: &str, key: &str) -> RecordId {
        let key = key_hash(key);
        let plain = RecordId::of(tenant, scope, &key);
        let Some(secret) = &self.secret else { return plain };
        let mut bytes = keyed(secret, b"oncegate/record/2\0", plain.as_bytes());
        bytes[0] = self.shard(tenant);
        bytes[1..=KEY_DIGEST].copy_from_slice(&self.key_digest(&key));
        RecordId(bytes)
    }

    /// The digest shared by the ids of all records of `key`.
    pub fn key(&self, key: &str) -> KeyDigest {
        self.key_digest(&key_hash(key))
    }

    fn key_digest(&self, plain: &KeyHash) -> KeyDigest {
        let digest = match &self.secret {
            None => plain.first_chunk().copied(),
            Some(secret) => keyed(secret, b"oncegate/key/1\0", plain).first_chunk().copied(),
        };
        // Either is longer than a digest.
        digest.unwrap_or_default()
    }

    /// The byte shared by the ids of all records of `tenant`.
    pub fn shard(&self, tenant: &TenantId) -> u8 {
        match &self.secret {
            None => tenant.as_bytes()[0],
            // The shard is keyed as well, and still the same for all records of a tenant.
            Some(secret) => keyed(secret, b"oncegate/shard/1\0", tenant.as_bytes())[0],
        }
    }

    /// The look-up digest of a business id, see [`subject_digest`].
    pub fn subject(&self, text: &str) -> [u8; 16] {
        let plain = subject_digest(text);
        match &self.secret {
            None => plain,
            Some(secret) => keyed(secret, b"oncegate/subject/3\0", &plain),
        }
    }
}

/// HMAC-SHA-256 of a purpose and a digest, cut to an id's length.
fn keyed(secret: &IdSecret, purpose: &[u8], digest: &[u8]) -> [u8; 16] {
    let mut context = hmac::Context::with_key(&secret.key);
    context.update(purpose);
    context.update(digest);
    let tag = context.sign();
    let mut id = [0; 16];
    id.copy_from_slice(&tag.as_ref()[..16]);
    id
}

/// Hasher for ids, which are digests already; only for keys that write one `u64`.
#[derive(Debug, Default, Clone, Copy)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// Hasher builder for maps with ids as keys.
pub type BuildIdHasher = BuildHasherDefault<IdHasher>;

impl RecordId {
    /// The id for `key` of `tenant`; `scope` is the route's name where keys are scoped to routes,
    /// else empty.
    pub fn new(tenant: &TenantId, scope: &str, key: &str) -> Self {
        Self::of(tenant, scope, &key_hash(key))
    }

    fn of(tenant: &TenantId, scope: &str, key: &KeyHash) -> Self {
        let mut hash = Sha256::new();
        // Without a scope this is a single block: two digests cost no more than a long one.
        hash.update(b"oncegate/record/2\0");
        hash.update(tenant.as_bytes());
        hash.update(key);
        hash.update(scope.as_bytes());
        let mut bytes = [0; 16];
        bytes[0] = tenant.as_bytes()[0];
        bytes[1..=KEY_DIGEST].copy_from_slice(&key[..KEY_DIGEST]);
        bytes[1 + KEY_DIGEST..].copy_from_slice(&hash.finalize()[..15 - KEY_DIGEST]);
        Self(bytes)
    }

    /// The id under which the record of this id with this version is kept as a predecessor.
    pub fn archived(&self, version: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"oncegate/archive/1\0");
        hash.update(self.0);
        hash.update(version.to_le_bytes());
        let mut bytes = self.0;
        bytes[1 + KEY_DIGEST..].copy_from_slice(&hash.finalize()[..15 - KEY_DIGEST]);
        Self(bytes)
    }

    /// The digest shared by all records of the key.
    pub fn key_digest(&self) -> KeyDigest {
        self.0[1..].first_chunk().copied().unwrap_or_default()
    }

    /// Parses the form written by [`fmt::Display`]: 32 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        hex::decode_lower(text).map(Self)
    }

    /// An id read back from a store.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The byte shared by all records of a tenant. A store with several servers keeps the records
    /// of one shard together, so that a batch can be claimed in one step.
    pub const fn shard(&self) -> u8 {
        self.0[0]
    }

    /// The id with its first byte at the end: orders ids by their keys.
    pub const fn rotated(&self) -> u128 {
        u128::from_be_bytes(self.0).rotate_left(8)
    }

    /// The 16 bytes a store uses as its key.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As displayed: the log names records, and a part of an id finds none.
        fmt::Display::fmt(self, f)
    }
}

/// The first bytes of a key's SHA-256, as many as fit into one block with the rest of an id.
type KeyHash = [u8; 20];

fn key_hash(key: &str) -> KeyHash {
    let mut hash = Sha256::new();
    hash.update(b"oncegate/key/1\0");
    hash.update(key.as_bytes());
    hash.finalize().first_chunk().copied().unwrap_or_default()
}

/// The digest of a business id, used to look up the records of the id, whoever their caller is.
pub fn subject_digest(subject: &str) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(b"oncegate/subject/2\0");
    hash.update(subject);
    let mut digest = [0; 16];
    digest.copy_from_slice(&hash.finalize()[..16]);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyed_ids_of_a_tenant_share_a_byte_and_tell_nothing_without_the_secret() {
        let tenant = TenantId::from_bytes([7; 16]);
        let (plain, one) = (IdScheme::plain(), IdScheme::keyed([1; 32]));
        let two = IdScheme::keyed([2; 32]);
        assert_eq!(plain.record(&tenant, "s", "k"), RecordId::new(&tenant, "s", "k"));
        assert_eq!(plain.subject("v"), subject_digest("v"));
        let id = one.record(&tenant, "s", "k");
        assert_eq!(id, one.record(&tenant, "s", "k"));
        assert_eq!(
            (id.shard(), id.shard()),
            (one.shard(&tenant), one.record(&tenant, "", "j").shard())
        );
        for other in [plain.record(&tenant, "s", "k"), two.record(&tenant, "s", "k")] {
            assert_ne!(id, other);
        }
        assert_eq!((id.key_digest(), id.archived(7).key_digest()), (one.key("k"), one.key("k")));
        let other = plain.record(&TenantId::from_bytes([8; 16]), "", "k");
        assert_eq!(other.key_digest(), plain.record(&tenant, "s", "k").key_digest());
        assert_ne!(plain.key("k"), plain.key("j"));
        assert_ne!(one.key("k"), plain.key("k"));
        assert_ne!(one.subject("v"), two.subject("v"));
        assert_ne!(one.subject("v"), plain.subject("v"));
    }
}
