//! Every encoded record decodes to itself, and nothing else decodes.

use super::layout::CHECKSUM;
use super::*;
use crate::idempotency::ledger::Ledger;
use crate::idempotency::outcome::UnknownReason;
use crate::idempotency::retention::Keep;
use crate::store::samples::{self, Random, id};

fn plain() -> Codec {
    Codec::plain()
}

fn check(record: &Record) {
    let bytes = plain().encode(&id(1), record);
    assert_eq!(plain().decode(&id(1), &bytes).as_ref(), Ok(record));
    assert_eq!(Head::decode(&id(1), &bytes), Ok(Head::of(record)));
}

/// Content with a valid checksum appended, so that decoding goes on past the checksum.
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
fn the_name_of_a_caller_is_kept() {
    for record in samples::every_state() {
        check(&Record { caller: Some("shop-1".into()), ..record });
    }
}

#[test]
fn a_record_under_another_id_is_corrupt() {
    let bytes = plain().encode(&id(1), &samples::claim(1));
    assert_eq!(plain().decode(&id(2), &bytes), Err(DecodeError::Checksum));
    assert_eq!(Head::decode(&id(2), &bytes), Err(DecodeError::Checksum));
}

#[test]
fn every_single_changed_byte_is_noticed() {
    for record in samples::every_state().iter().filter(|record| plain().size_hint(record) < 1300) {
        let bytes = plain().encode(&id(1), record);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            assert!(plain().decode(&id(1), &changed).is_err(), "byte {at}");
            assert!(Head::decode(&id(1), &changed).is_err(), "byte {at}");
        }
    }
}

#[test]
fn every_truncation_is_noticed_even_when_sealed_again() {
    for record in samples::every_state().iter().filter(|record| plain().size_hint(record) < 1300) {
        let bytes = plain().encode(&id(1), record);
        for end in 0..bytes.len() - CHECKSUM {
            assert!(plain().decode(&id(1), &bytes[..end]).is_err(), "cut at {end}");
            assert!(
                plain().decode(&id(1), &sealed(bytes[..end].to_vec())).is_err(),
                "sealed at {end}"
            );
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
            let sample = [0, 1, 2, 3, 16, 17, 19, 20, 21, 26, 27, 28, 29, 30, 31, 32, 33, 34];
            let mut bytes = plain().encode(&id(1), &samples[sample[random.below(sample.len())]]);
            bytes.truncate(bytes.len() - CHECKSUM);
            bytes
        };
        for _ in 0..random.below(4) {
            if !content.is_empty() {
                let at = random.below(content.len());
                content[at] = random.next() as u8;
            }
        }
        let _ = plain().decode(&id(1), &content);
        let bytes = sealed(content);
        let head = Head::decode(&id(1), &bytes);
        if let Ok(record) = plain().decode(&id(1), &bytes) {
            assert_eq!(plain().encode(&id(1), &record), bytes, "two forms of one record");
            assert_eq!(head, Ok(Head::of(&record)));
        }
    }
}

#[test]
fn mistakes_are_named() {
    let good = plain().encode(&id(1), &samples::claim(1));
    let content = good[..good.len() - CHECKSUM].to_vec();
    let with = |at: usize, byte: u8| {
        let mut changed = content.clone();
        changed[at] = byte;
        plain().decode(&id(1), &sealed(changed)).unwrap_err().to_string()
    };
    let invalid = |field| format!("the field \"{field}\" has an invalid value");
    let ends_in = |field| format!("the bytes end inside the field \"{field}\"");
    assert_eq!(with(0, 3), "layout 3 is not supported, this version reads layout 6");
    assert_eq!(with(1, 11), invalid("state"));
    assert_eq!(with(2, 128), invalid("flags"));
    assert_eq!(with(2, 24), invalid("flags"), "only what was settled is untold");
    assert_eq!(with(2, 20), ends_in("history"));
    assert_eq!(with(2, 17), invalid("expires"));
    assert_eq!(with(2, 18), ends_in("route"), "a subject that was never written");
    let longer = sealed([content.as_slice(), b"more"].concat());
    assert_eq!(
        plain().decode(&id(1), &longer).unwrap_err().to_string(),
        "4 bytes follow the last field"
    );
    assert_eq!(
        plain().decode(&id(1), b"abc").unwrap_err().to_string(),
        "3 bytes are too short for a record"
    );
    let mut changed = good;
    changed[40] ^= 1;
    assert_eq!(
        plain().decode(&id(1), &changed).unwrap_err().to_string(),
        "the checksum does not match"
    );
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
    let bytes = plain().encode(&id(1), &item(1));
    let content = &bytes[..bytes.len() - CHECKSUM];
    let (before, ledger) = content.split_at(content.len() - 5);
    assert_eq!(ledger, [1, 0, 1, 0, 0], "quantities and flags");
    let with = |requested: &[u8]| {
        let content = sealed([before, requested, &ledger[1..]].concat());
        plain()
            .decode(&id(1), &content)
            .map(|record| record.ledger().map(|ledger| ledger.requested))
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

#[test]
fn the_layout_is_the_one_its_number_stands_for() {
    let mut id = [7; 16];
    id[..8].copy_from_slice(&1u64.to_be_bytes());
    let id = RecordId::from_bytes(id);
    // Whoever changes what stands there has to raise the number.
    let lines: Vec<&str> = include_str!("records.txt").lines().collect();
    let with_subject = Record { subject: Some([9; 16]), ..samples::kept(9, 10) };
    let (mut items, mut settled) = (samples::items(), samples::settled());
    let records = [
        samples::claim(1),
        samples::kept(2, 3),
        with_subject,
        samples::claim(6).lost(UnknownReason::Status(503), samples::T0),
        items.swap_remove(4),
        items.swap_remove(5),
        settled.swap_remove(0),
    ];
    assert_eq!(lines.len(), records.len());
    for (line, record) in lines.iter().zip(records) {
        let bytes = plain().encode(&id, &record);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(&hex, line);
        assert_eq!(plain().decode(&id, &bytes), Ok(record));
    }
}

#[test]
fn a_clock_that_was_set_back_is_kept_as_it_told() {
    let times = [0, 1, 999, 1000, 1001, 1 << 41, 1 << 63, u64::MAX - 1, u64::MAX];
    for first in times.map(Timestamp::from_millis) {
        for updated in times.map(Timestamp::from_millis) {
            check(&Record { first_seen: first, updated, ..samples::claim(1) });
        }
    }
    let soon = |updated| Record { updated: Timestamp::from_millis(updated), ..samples::claim(1) };
    let length = |record| plain().encode(&id(1), &record).len();
    let at = samples::T0.as_millis();
    assert_eq!(length(soon(at + 50)), length(soon(at)), "what changes soon takes one byte");
}

#[test]
fn a_history_is_read_back_only_as_it_can_be_written() {
    let settled = samples::settled();
    settled.iter().for_each(check);
    let bytes = plain().encode(&id(1), &settled[3]);
    let content = &bytes[..bytes.len() - CHECKSUM];
    let entry = 6 + 1 + 1 + 1 + 3 + 1 + samples::note().why().len();
    let start = content.len() - entry - 1;
    assert_eq!(content[start], 1, "the count");
    let with = |at: usize, byte: u8| {
        let mut changed = content.to_vec();
        changed[start + at] = byte;
        plain().decode(&id(1), &sealed(changed)).unwrap_err()
    };
    assert_eq!(with(0, 0), DecodeError::Invalid("history"));
    assert_eq!(with(0, 17), DecodeError::Invalid("history"));
    assert_eq!(with(0, 2), DecodeError::EndsIn("history"));
    assert_eq!(with(7, 10), DecodeError::Invalid("history"), "what");
    assert_eq!(with(10, 7), DecodeError::Invalid("history"), "a control character in the name");
}
