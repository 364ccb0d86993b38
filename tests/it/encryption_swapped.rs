//! Two sealed values in each other's place in the files of a directory: refused, never run again.

use std::collections::BTreeMap;
use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use crate::support::{Act, Backend, Gateway, Request, Response, Setup};

/// Blocks of the log, each of which may begin a frame (`docs/store.md`).
const BLOCK: usize = 4096;
const HEADER: usize = 32;
const COVERED: usize = 24;
const CHANGE: usize = 20;

/// A frame of the log with a single change.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    /// Path of the file and offset of the frame.
    at: (std::path::PathBuf, usize),
    header: Vec<u8>,
    id: [u8; 16],
    record: Vec<u8>,
}

impl Frame {
    fn parse(at: (std::path::PathBuf, usize), bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..HEADER)?.to_vec();
        let number = |from: usize| {
            usize::try_from(u32::from_le_bytes(header[from..from + 4].try_into().unwrap())).unwrap()
        };
        if !header.starts_with(b"oncelog1") || number(20) != 1 {
            return None;
        }
        let payload = bytes.get(HEADER..HEADER + number(16))?;
        let id = payload[..16].try_into().unwrap();
        Some(Self { at, header, id, record: payload[CHANGE..].to_vec() })
    }

    /// Writes the frame with another record, as sound as before.
    fn write(mut self, record: &[u8], salt: &[u8; 16]) {
        let mut payload = self.id.to_vec();
        payload.extend_from_slice(&u32::try_from(record.len()).unwrap().to_le_bytes());
        payload.extend_from_slice(record);
        self.header[16..20].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        let mut sum = Xxh3::new();
        for part in [&salt[..], &self.header[..COVERED], &payload] {
            sum.update(part);
        }
        self.header[COVERED..].copy_from_slice(&sum.digest().to_le_bytes());
        let (path, at) = self.at;
        let mut file = std::fs::read(&path).unwrap();
        file[at..at + HEADER].copy_from_slice(&self.header);
        file[at + HEADER..at + HEADER + payload.len()].copy_from_slice(&payload);
        std::fs::write(&path, file).unwrap();
    }
}

/// The last frame of each record.
fn last_frames(log: &Path) -> Vec<Frame> {
    let mut found: BTreeMap<[u8; 16], (Vec<u8>, Frame)> = BTreeMap::new();
    for name in ["0", "1"] {
        let path = log.join(name);
        let bytes = std::fs::read(&path).unwrap();
        for at in (0..bytes.len()).step_by(BLOCK) {
            let Some(frame) = Frame::parse((path.clone(), at), &bytes[at..]) else { continue };
            // The sequence number, most significant byte first.
            let sequence: Vec<u8> = frame.header[8..16].iter().rev().copied().collect();
            let entry = found.entry(frame.id).or_insert_with(|| (sequence.clone(), frame.clone()));
            if sequence > entry.0 {
                *entry = (sequence, frame);
            }
        }
    }
    found.into_values().map(|(_, frame)| frame).collect()
}

fn redeem(gateway: &Gateway, number: usize) -> Response {
    Request::redeem(&format!("key-{number}"), r#"{"qr":"VOUCHER"}"#).send(gateway.addr)
}

#[test]
fn two_sealed_values_swapped_in_a_directory_are_refused_and_never_run_again() {
    let backend = Backend::start();
    backend.always(Act::whole(200, &[], br#"{"ok":true}"#));
    let setup = Setup::before(&backend).store("encryption = { key_file = \"a.key\" }");
    std::fs::write(setup.dir().join("a.key"), format!("{}\n", "a1".repeat(32))).unwrap();
    let mut gateway = setup.start();
    redeem(&gateway, 1).is(200, "executed", "");
    redeem(&gateway, 2).is(200, "executed", "");
    let start = gateway.logs(&["oncegate has started"]);
    let id = start.split("store.id=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let salt = *uuid::Uuid::parse_str(&id).unwrap().as_bytes();
    gateway.kill9();
    let frames = last_frames(&setup.store_path().join("data/log"));
    let [one, other] = &frames[..] else { panic!("{} records", frames.len()) };
    let (first, second) = (one.record.clone(), other.record.clone());
    one.clone().write(&second, &salt);
    other.clone().write(&first, &salt);
    // The log is read before anything is served, so that nothing of such a store runs.
    let exit = setup.try_start().expect_err("a refused start");
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.contains("is damaged: record"), "{exit:?}");
    assert_eq!(backend.calls(), 2);
    // The original bytes are sound again: the refusal came from the exchange alone.
    let (one, other) = (one.clone(), other.clone());
    one.write(&first, &salt);
    other.write(&second, &salt);
    let gateway = setup.start();
    for number in [1, 2] {
        redeem(&gateway, number).is(200, "replayed", "");
    }
    assert_eq!(backend.calls(), 2);
}
