//! What is written is read back, and nothing else is.

use super::*;
use crate::idempotency::ledger::Ledger;
use crate::idempotency::record::Keep;
use crate::store::samples::{self, Random, id};

fn check(record: &Record) {
    let bytes = encode(&id(1), record);
    assert_eq!(decode(&id(1), &bytes).as_ref(), Ok(record));
    assert_eq!(peek(&id(1), &bytes), Ok(Head::of(record)));
}

/// Bytes with a right checksum, so that reading goes further than that.
fn sealed(mut content: Vec<u8>) -> Vec<u8> {
    let crc = checksum(&id(1), &content);
    content.extend_from_slice(&crc.to_le_bytes());
    content
}

#[test]
fn every_state_is_read_back_as_it_was() {
    samples::every_state().iter().for_each(check);
}

#[test]
fn a_record_under_another_id_is_corrupt() {
    let bytes = encode(&id(1), &samples::claim(1));
    assert_eq!(decode(&id(2), &bytes), Err(DecodeError::Checksum));
    assert_eq!(peek(&id(2), &bytes), Err(DecodeError::Checksum));
}

#[test]
fn every_single_changed_byte_is_noticed() {
    for record in samples::every_state().iter().filter(|record| size_hint(record) < 1000) {
        let bytes = encode(&id(1), record);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            assert!(decode(&id(1), &changed).is_err(), "byte {at}");
            assert!(peek(&id(1), &changed).is_err(), "byte {at}");
        }
    }
}

#[test]
fn every_truncation_is_noticed_even_when_sealed_again() {
    for record in samples::every_state().iter().filter(|record| size_hint(record) < 1000) {
        let bytes = encode(&id(1), record);
        for end in 0..bytes.len() - CHECKSUM {
            assert!(decode(&id(1), &bytes[..end]).is_err(), "cut at {end}");
            assert!(decode(&id(1), &sealed(bytes[..end].to_vec())).is_err(), "sealed at {end}");
        }
    }
}

#[test]
fn whatever_the_bytes_are_reading_ends_with_an_answer_that_writes_back_the_same() {
    let mut random = Random::new();
    let samples = samples::every_state();
    for round in 0..20_000 {
        let mut content = if round % 4 == 0 {
            (0..random.below(300)).map(|_| random.next() as u8).collect()
        } else {
            let mut bytes =
                encode(&id(1), &samples[[0, 1, 2, 3, 16, 17, 19, 20, 21][random.below(9)]]);
            bytes.truncate(bytes.len() - CHECKSUM);
            bytes
        };
        for _ in 0..random.below(4) {
            if !content.is_empty() {
                let at = random.below(content.len());
                content[at] = random.next() as u8;
            }
        }
        let _ = decode(&id(1), &content);
        let bytes = sealed(content);
        let head = peek(&id(1), &bytes);
        if let Ok(record) = decode(&id(1), &bytes) {
            assert_eq!(encode(&id(1), &record), bytes, "two forms of one record");
            assert_eq!(head, Ok(Head::of(&record)));
        }
    }
}

#[test]
fn mistakes_are_named() {
    let good = encode(&id(1), &samples::claim(1));
    let content = good[..good.len() - CHECKSUM].to_vec();
    let with = |at: usize, byte: u8| {
        let mut changed = content.clone();
        changed[at] = byte;
        decode(&id(1), &sealed(changed)).unwrap_err().to_string()
    };
    assert_eq!(with(0, 3), "it has layout 3, this version knows 2");
    assert_eq!(with(1, 10), "its state has an impossible value");
    assert_eq!(with(2, 4), "its flags has an impossible value");
    assert_eq!(with(2, 1), "its expires has an impossible value");
    assert_eq!(with(19, 1), "its subject has an impossible value");
    let longer = sealed([content.as_slice(), b"more"].concat());
    assert_eq!(decode(&id(1), &longer).unwrap_err().to_string(), "4 bytes follow its end");
    assert_eq!(decode(&id(1), b"abc").unwrap_err().to_string(), "3 bytes are no record");
    let mut changed = good;
    changed[40] ^= 1;
    assert_eq!(decode(&id(1), &changed).unwrap_err().to_string(), "its checksum is wrong");
}

#[test]
fn numbers_of_any_size_have_one_form() {
    let forever = samples::kept_for(Keep::Forever, Keep::Forever);
    let item = |units: u64| {
        let ledger = Ledger::new(units).unwrap().claim(units).unwrap();
        samples::claim(1).with_ledger(ledger, forever, samples::T0)
    };
    for units in [1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), 1 << 63, u64::MAX] {
        check(&item(units));
    }
    let bytes = encode(&id(1), &item(1));
    let content = &bytes[..bytes.len() - CHECKSUM];
    let (before, ledger) = content.split_at(content.len() - 5);
    assert_eq!(ledger, [1, 0, 1, 0, 0], "quantities and flags");
    let with = |requested: &[u8]| {
        let content = sealed([before, requested, &ledger[1..]].concat());
        decode(&id(1), &content).map(|record| record.ledger().map(|ledger| ledger.requested))
    };
    assert_eq!(with(&[0x81, 0x01]), Ok(Some(129)));
    assert_eq!(with(&[0x81, 0x00]), Err(DecodeError::Invalid("quantities")), "longer than needed");
    let most = [[0xff; 9].as_slice(), &[0x01]].concat();
    assert_eq!(with(&most), Ok(Some(u64::MAX)));
    let beyond = [[0xff; 9].as_slice(), &[0x02]].concat();
    assert_eq!(with(&beyond), Err(DecodeError::Invalid("quantities")));
    let endless = [0xff; 11];
    assert_eq!(with(&endless), Err(DecodeError::Invalid("quantities")));
}
