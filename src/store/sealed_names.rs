//! The store's secret beside the document of names.
//!
//! A store under encryption has a secret of its own, sealed by the master key and kept in front of
//! the document of names. Ids and look-up digests are keyed by the secret, so that a new master key
//! changes no id; and a start with a wrong master key, or without any, is noticed before a record
//! is read.
//!
//! ```text
//! "oncegate-seal-1\n" · length u16 · sealed (flags u8 · secret 32) · names
//! ```

use super::codec::Codec;
use super::port::NamesDocument;
use super::seal::{Keyring, UnsealError, key_id};
use crate::idempotency::id::IdScheme;

const MAGIC: &[u8] = b"oncegate-seal-1\n";
const SECRET: usize = 32;
/// The flag of a store whose ids are keyed. A store that was in plain before keeps its ids.
const KEYED_IDS: u8 = 1;

/// Reason why a store does not open with the configured keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SealProblem(pub(super) String);

/// The seal of a store that was opened.
pub(super) struct OpenedSeal {
    /// The way in which ids are made.
    pub(super) ids: IdScheme,
    /// A document to be stored in place of the present one, before anything else.
    pub(super) write: Option<Vec<u8>>,
}

/// Checks the keys of `codec` against the stored document, and prepares the codec for the store.
///
/// # Errors
/// When keys are missing, wrong, or given for a store that cannot use them.
pub(super) fn open(
    codec: &Codec,
    store_id: uuid::Uuid,
    stored: Option<&NamesDocument>,
) -> Result<OpenedSeal, SealProblem> {
    let (seal, names) = stored.map_or((None, &[][..]), |stored| split(&stored.bytes));
    let Some(keyring) = codec.keyring() else {
        return match seal {
            None => Ok(OpenedSeal { ids: IdScheme::plain(), write: None }),
            Some(seal) => Err(SealProblem(format!(
                "the store is encrypted (key {}); name the key in [store] encryption",
                key_id(seal).map_or_else(|| "unknown".to_owned(), |id| id.to_string())
            ))),
        };
    };
    if let Some(seal) = seal {
        return Ok(OpenedSeal { ids: ids(&unseal(keyring, store_id, seal)?), write: None });
    }
    let mut content = [0; 1 + SECRET];
    content[1..17].copy_from_slice(&crate::nonce::bytes());
    content[17..].copy_from_slice(&crate::nonce::bytes());
    // Names are pinned before the first record: without names there is no id to keep.
    content[0] = if stored.is_none() { KEYED_IDS } else { 0 };
    if stored.is_some() {
        tracing::warn!(
            "the store was in plain and is encrypted from now on: new records are sealed, and \
             `oncegate store rotate` seals the rest. Its ids stay as they are"
        );
    }
    let write = join(Some(&sealed(keyring, store_id, &content)), names);
    Ok(OpenedSeal { ids: ids(&content), write: Some(write) })
}

/// The document with its secret sealed under the present key; `None`: it is already, or there is
/// none.
///
/// # Errors
/// When the key of the present seal is missing.
pub(super) fn resealed(
    keyring: &Keyring,
    store_id: uuid::Uuid,
    stored: &[u8],
) -> Result<Option<Vec<u8>>, SealProblem> {
    let (Some(seal), names) = split(stored) else { return Ok(None) };
    if key_id(seal) == Some(keyring.current()) {
        return Ok(None);
    }
    let content = unseal(keyring, store_id, seal)?;
    Ok(Some(join(Some(&sealed(keyring, store_id, &content)), names)))
}

/// The document of names without the seal in front.
pub(super) fn names_of(stored: NamesDocument) -> NamesDocument {
    let NamesDocument { version, bytes } = stored;
    let bytes = split(&bytes).1.to_vec();
    NamesDocument { version, bytes }
}

/// The document of `names` behind the seal of the stored document.
pub(super) fn with_seal_of(stored: Option<&NamesDocument>, names: &[u8]) -> Vec<u8> {
    join(stored.and_then(|stored| split(&stored.bytes).0), names)
}

fn ids(content: &[u8; 1 + SECRET]) -> IdScheme {
    let mut secret = [0; SECRET];
    secret.copy_from_slice(&content[1..]);
    if content[0] & KEYED_IDS != 0 { IdScheme::keyed(secret) } else { IdScheme::plain() }
}

fn place(store_id: uuid::Uuid) -> Vec<u8> {
    [b"oncegate/seal/1\0", &store_id.as_bytes()[..]].concat()
}

fn sealed(keyring: &Keyring, store_id: uuid::Uuid, content: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    keyring.seal(&place(store_id), content, &mut sealed);
    sealed
}

fn unseal(
    keyring: &Keyring,
    store_id: uuid::Uuid,
    seal: &[u8],
) -> Result<[u8; 1 + SECRET], SealProblem> {
    let content = keyring.open(&place(store_id), seal).map_err(|error| {
        SealProblem(match error {
            UnsealError::UnknownKey(id) => format!(
                "the store is encrypted under the key {id}, which is neither in `key_file` (key \
                 {}) nor in `previous_key_files`; give the key back",
                keyring.current()
            ),
            UnsealError::Tag | UnsealError::TooShort => {
                "the store's secret cannot be opened: the key is wrong, or the document of names \
                 belongs to another store; restore it from a backup"
                    .to_owned()
            }
        })
    })?;
    content.try_into().map_err(|_| SealProblem("the store's secret has a wrong length".to_owned()))
}

fn split(bytes: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let sealed = bytes.strip_prefix(MAGIC).and_then(|rest| {
        let (length, rest) = rest.split_first_chunk::<2>()?;
        rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))
    });
    sealed.map_or((None, bytes), |(seal, names)| (Some(seal), names))
}

fn join(seal: Option<&[u8]>, names: &[u8]) -> Vec<u8> {
    let Some(seal) = seal else { return names.to_vec() };
    // A seal has 89 bytes.
    let length = u16::try_from(seal.len()).unwrap_or_default();
    [MAGIC, &length.to_le_bytes(), seal, names].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::seal::{KEY, MasterKey};

    fn codec(current: u8, previous: &[u8]) -> Codec {
        let key = |byte: &u8| MasterKey::new([*byte; KEY]);
        Codec::sealed(Keyring::new(key(&current), previous.iter().map(key).collect()))
    }

    fn document(bytes: Vec<u8>) -> NamesDocument {
        NamesDocument { version: 1, bytes }
    }

    #[test]
    fn the_secret_outlives_the_master_key_and_a_wrong_key_is_noticed() {
        let id = uuid::Uuid::from_u128(1);
        let first = open(&codec(1, &[]), id, None).unwrap();
        let stored = document(first.write.clone().unwrap());
        let again = open(&codec(1, &[]), id, Some(&stored)).unwrap();
        assert!(again.write.is_none() && again.ids == first.ids);
        assert!(first.ids != IdScheme::plain());
        let problem = open(&codec(2, &[]), id, Some(&stored)).err().unwrap();
        assert!(problem.0.contains("key_file"), "{problem:?}");
        let problem = open(&Codec::plain(), id, Some(&stored)).err().unwrap();
        assert!(problem.0.contains("encrypted"), "{problem:?}");
        let other = uuid::Uuid::from_u128(2);
        assert!(open(&codec(1, &[]), other, Some(&stored)).is_err());
        let both = codec(2, &[1]);
        let rotated = resealed(both.keyring().unwrap(), id, &stored.bytes).unwrap().unwrap();
        assert_eq!(resealed(both.keyring().unwrap(), id, &rotated).unwrap(), None);
        let rotated = open(&codec(2, &[]), id, Some(&document(rotated))).unwrap();
        assert!(rotated.ids == first.ids, "no id changes");
    }

    #[test]
    fn a_store_in_plain_keeps_its_ids_and_its_names() {
        let (id, names) = (uuid::Uuid::from_u128(1), document(b"names".to_vec()));
        let plain = open(&Codec::plain(), id, Some(&names)).unwrap();
        assert!(plain.write.is_none() && plain.ids == IdScheme::plain());
        let sealed = open(&codec(1, &[]), id, Some(&names)).unwrap();
        assert!(sealed.ids == IdScheme::plain());
        let stored = document(sealed.write.unwrap());
        assert_eq!(names_of(stored.clone()).bytes, b"names");
        let next = document(with_seal_of(Some(&stored), b"next"));
        assert_eq!(names_of(next.clone()).bytes, b"next");
        assert!(open(&codec(1, &[]), id, Some(&next)).unwrap().write.is_none());
        assert_eq!(with_seal_of(Some(&names), b"next"), b"next");
    }
}
