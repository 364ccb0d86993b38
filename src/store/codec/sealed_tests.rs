//! A sealed record is valid in its place only, and shows its head only.

use super::layout::CHECKSUM;
use super::*;
use crate::store::samples::{self, id};
use crate::store::seal::{KEY, MasterKey};

/// The codec of a store with these keys; the first seals.
fn codec(store: u128, keys: &[u8]) -> Codec {
    let mut keys = keys.iter().map(|byte| MasterKey::new([*byte; KEY]));
    let codec = Codec::sealed(Keyring::new(keys.next().unwrap(), keys.collect()));
    codec.bind(uuid::Uuid::from_u128(store), IdScheme::plain());
    codec
}

/// The same bytes with a valid checksum for this id.
fn checked(bytes: &[u8], number: u64) -> Vec<u8> {
    let mut content = bytes[..bytes.len() - CHECKSUM].to_vec();
    let crc = checksum(&id(number), &content);
    content.extend_from_slice(&crc.to_le_bytes());
    content
}

#[test]
fn every_state_is_read_back_as_it_was_and_only_the_head_is_open() {
    let sealing = codec(1, &[1]);
    for record in samples::every_state() {
        let bytes = sealing.encode(&id(1), &record);
        assert_eq!(sealing.decode(&id(1), &bytes).as_ref(), Ok(&record));
        assert_eq!(Head::decode(&id(1), &bytes), Ok(Head::of(&record)));
        assert_eq!(Codec::plain().decode(&id(1), &bytes), Err(DecodeError::Sealed));
        assert_eq!(Codec::key_of(&id(1), &bytes), Ok(sealing.current_key()));
        for text in [record.key.as_bytes(), record.route.as_bytes()] {
            let is_open = text.len() > 3 && bytes.windows(text.len()).any(|part| part == text);
            assert!(!is_open, "{record:?}");
        }
        // Records in plain are taken.
        let plain = Codec::plain().encode(&id(1), &record);
        assert_eq!(sealing.decode(&id(1), &plain).as_ref(), Ok(&record));
        assert_eq!(Codec::key_of(&id(1), &plain), Ok(None));
    }
}

#[test]
fn a_record_cannot_be_moved_to_another_place() {
    let sealing = codec(1, &[1]);
    let bytes = sealing.encode(&id(1), &samples::kept(1, 100));
    let moved = checked(&bytes, 2);
    assert_eq!(sealing.decode(&id(2), &moved), Err(DecodeError::Seal), "another key");
    assert_eq!(codec(2, &[1]).decode(&id(1), &bytes), Err(DecodeError::Seal), "another store");
    let unknown = codec(1, &[2]).decode(&id(1), &bytes);
    assert!(matches!(unknown, Err(DecodeError::UnknownKey(_))), "another master key");
    assert!(codec(1, &[2, 1]).decode(&id(1), &bytes).is_ok());
}

#[test]
fn no_byte_of_the_head_or_of_the_seal_can_be_changed() {
    let sealing = codec(1, &[1]);
    for record in [samples::kept(1, 10), samples::claim(1)] {
        let bytes = sealing.encode(&id(1), &record);
        for at in 0..bytes.len() - CHECKSUM {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let changed = checked(&changed, 1);
            assert!(sealing.decode(&id(1), &changed).is_err(), "byte {at}");
        }
    }
}
