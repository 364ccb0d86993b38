//! Whatever the bytes on disk are, reading them ends, and a record that was read writes back to the
//! same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oncegate::idempotency::RecordId;
use oncegate::store::codec;

fuzz_target!(|bytes: &[u8]| {
    let id = RecordId::from_bytes([7; 16]);
    if let Ok(record) = codec::decode(&id, bytes) {
        assert_eq!(codec::encode(&id, &record), bytes);
    }
});
