//! Decoding ends for any bytes, and every record that decodes encodes to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oncegate::idempotency::RecordId;
use oncegate::store::codec::Codec;

fuzz_target!(|bytes: &[u8]| {
    let id = RecordId::from_bytes([7; 16]);
    let codec = Codec::plain();
    if let Ok(record) = codec.decode(&id, bytes) {
        assert_eq!(codec.encode(&id, &record), bytes);
    }
});
