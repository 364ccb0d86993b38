//! Decoding a sealed record ends for any bytes, and a record that was changed is never read.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use oncegate::idempotency::RecordId;
use oncegate::store::codec::{Codec, Head};
use oncegate::store::seal::{KEY, Keyring, MasterKey};

static SEALED: LazyLock<Codec> = LazyLock::new(|| {
    Codec::sealed(Keyring::new(MasterKey::new([1; KEY]), vec![MasterKey::new([2; KEY])]))
});

fuzz_target!(|bytes: &[u8]| {
    let id = RecordId::from_bytes([7; 16]);
    // Records in plain are taken, and nothing that the fuzzer makes is under the key.
    if let Ok(record) = SEALED.decode(&id, bytes) {
        assert_eq!(Codec::plain().encode(&id, &record), bytes);
        let sealed = SEALED.encode(&id, &record);
        assert_eq!(SEALED.decode(&id, &sealed).as_ref(), Ok(&record));
        assert_eq!(Head::decode(&id, &sealed), Ok(Head::of(&record)));
        let at = bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>() % sealed.len();
        let mut changed = sealed;
        changed[at] ^= 1;
        assert!(SEALED.decode(&id, &changed).is_err());
    }
});
