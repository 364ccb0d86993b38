//! Encryption of stored bytes.
//!
//! Every sealed text has a key of its own, derived by HKDF from a master key and 32 random bytes,
//! and used once. No count of uses is kept, so that no crash and no copied disk can make a key be
//! used twice. The first step of HKDF is done once for a master key, and the random bytes are the
//! context of its second step (RFC 5869 section 2.3): half the work for each record.
//!
//! ```text
//! key id 8 · salt 32 · AES-256-GCM(content) · tag 16
//! ```
//! The additional data are the caller's, then key id and salt: a sealed text is valid in a single
//! place only.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::{digest, hkdf};

/// Bytes of a master key.
pub const KEY: usize = 32;
/// Bytes that name a master key: the begin of its SHA-256.
const KEY_ID: usize = 8;
const SALT: usize = 32;
const TAG: usize = 16;
/// Bytes of a sealed text beside its content.
pub(super) const SEALED_OVERHEAD: usize = KEY_ID + SALT + TAG;

/// The salt of master keys in HKDF's first step.
const MASTER: &[u8] = b"oncegate master key";

/// The purpose of derived keys, before the random bytes.
const INFO: &[u8] = b"oncegate record v2";

/// The name of a master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId([u8; KEY_ID]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A master key.
#[derive(Clone)]
pub struct MasterKey {
    bytes: [u8; KEY],
    extracted: hkdf::Prk,
}

impl PartialEq for MasterKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for MasterKey {}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

impl MasterKey {
    /// Wraps the bytes of a key.
    pub fn new(bytes: [u8; KEY]) -> Self {
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, MASTER).extract(&bytes);
        Self { bytes, extracted }
    }

    fn id(&self) -> KeyId {
        let digest = digest::digest(&digest::SHA256, &self.bytes);
        let mut id = [0; KEY_ID];
        id.copy_from_slice(&digest.as_ref()[..KEY_ID]);
        KeyId(id)
    }

    /// The key for a single use.
    fn derive(&self, salt: &[u8; SALT]) -> LessSafeKey {
        let info = [INFO, salt];
        let derived = self.extracted.expand(&info, &AES_256_GCM);
        // A key is no longer than 255 digests, the only limit.
        LessSafeKey::new(UnboundKey::from(derived.expect("32 bytes can be derived")))
    }
}

/// The master keys of a store: one seals, all open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyring {
    current: (KeyId, MasterKey),
    previous: Vec<(KeyId, MasterKey)>,
}

/// Reason why a sealed text cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnsealError {
    /// Fewer bytes than any sealed text has.
    TooShort,
    /// The keyring lacks the key.
    UnknownKey(KeyId),
    /// The tag is wrong: content, place or key differ.
    Tag,
}

impl Keyring {
    /// A keyring that seals with `current`, and opens with `previous` as well.
    pub fn new(current: MasterKey, previous: Vec<MasterKey>) -> Self {
        let named = |key: MasterKey| (key.id(), key);
        Self { current: named(current), previous: previous.into_iter().map(named).collect() }
    }

    /// The key that seals.
    pub fn current(&self) -> KeyId {
        self.current.0
    }

    /// Seals `content` and appends the result to `out`.
    pub(super) fn seal(&self, aad: &[u8], content: &[u8], out: &mut Vec<u8>) {
        let (id, key) = &self.current;
        let mut salt = [0; SALT];
        salt[..SALT / 2].copy_from_slice(&crate::nonce::bytes());
        salt[SALT / 2..].copy_from_slice(&crate::nonce::bytes());
        let start = out.len();
        out.extend_from_slice(&id.0);
        out.extend_from_slice(&salt);
        let aad = [aad, &out[start..]].concat();
        let start = out.len();
        out.extend_from_slice(content);
        let sealed = key.derive(&salt).seal_in_place_separate_tag(
            Nonce::assume_unique_for_key([0; 12]),
            Aad::from(aad),
            &mut out[start..],
        );
        // A content of 64 GiB is the only reason, and no record comes near.
        let tag = sealed.expect("the content can be sealed");
        out.extend_from_slice(tag.as_ref());
    }

    /// Opens a sealed text.
    ///
    /// # Errors
    /// When the key is missing, or the text is not one that was sealed for this place.
    pub(super) fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, UnsealError> {
        let id = key_id(sealed).ok_or(UnsealError::TooShort)?;
        if sealed.len() < SEALED_OVERHEAD {
            return Err(UnsealError::TooShort);
        }
        let mut keys = std::iter::once(&self.current).chain(&self.previous);
        let (_, key) = keys.find(|(other, _)| *other == id).ok_or(UnsealError::UnknownKey(id))?;
        let (clear, content) = sealed.split_at(KEY_ID + SALT);
        let salt = clear.last_chunk::<SALT>().ok_or(UnsealError::TooShort)?;
        let aad = [aad, clear].concat();
        let mut content = content.to_vec();
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let opened = key.derive(salt).open_in_place(nonce, Aad::from(aad), &mut content);
        let length = opened.map_err(|_| UnsealError::Tag)?.len();
        content.truncate(length);
        Ok(content)
    }
}

/// The master key of a sealed text.
pub(super) fn key_id(sealed: &[u8]) -> Option<KeyId> {
    sealed.first_chunk().map(|id| KeyId(*id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring(current: u8, previous: &[u8]) -> Keyring {
        let key = |byte: &u8| MasterKey::new([*byte; KEY]);
        Keyring::new(key(&current), previous.iter().map(key).collect())
    }

    #[test]
    fn a_sealed_text_opens_in_its_place_only_and_under_its_key_only() {
        let ring = keyring(1, &[]);
        let mut sealed = b"before".to_vec();
        ring.seal(b"place", b"secret", &mut sealed);
        let sealed = &sealed[6..];
        assert_eq!(sealed.len(), 6 + SEALED_OVERHEAD);
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        assert_eq!(ring.open(b"place", sealed).unwrap(), b"secret");
        assert_eq!(ring.open(b"elsewhere", sealed), Err(UnsealError::Tag));
        assert_eq!(keyring(2, &[1]).open(b"place", sealed).unwrap(), b"secret");
        let id = ring.current();
        assert_eq!(keyring(2, &[3]).open(b"place", sealed), Err(UnsealError::UnknownKey(id)));
        for at in 0..sealed.len() {
            let mut changed = sealed.to_vec();
            changed[at] ^= 1;
            assert!(ring.open(b"place", &changed).is_err(), "{at}");
            assert!(ring.open(b"place", &sealed[..at]).is_err(), "{at}");
        }
    }

    #[test]
    fn equal_texts_are_sealed_differently() {
        let ring = keyring(1, &[]);
        let sealed = |()| {
            let mut out = Vec::new();
            ring.seal(b"", b"secret", &mut out);
            out
        };
        assert_ne!(sealed(())[40..], sealed(())[40..]);
    }
}
