//! Reading a PROXY header ends for any bytes, and what comes after a header changes nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oncegate::fuzzing::proxy_header;

fuzz_target!(|bytes: &[u8]| {
    let Some((client, length)) = proxy_header(bytes) else { return };
    assert!(length <= bytes.len());
    assert_eq!(proxy_header(&bytes[..length]), Some((client, length)));
    assert_eq!(proxy_header(&[bytes, b"GET / HTTP/1.1\r\n"].concat()), Some((client, length)));
    // No shorter part is a header.
    assert!((0..length).all(|end| proxy_header(&bytes[..end]).is_none()));
});
