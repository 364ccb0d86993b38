//! Reading a multipart body ends for any bytes, and the parts are what stands in the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oncegate::form::Multipart;

fuzz_target!(|bytes: &[u8]| {
    // Parts appear sooner when the delimiter is short and the input need not find it.
    let framed = [b"--b\r\n", bytes, b"\r\n--b--"].concat();
    for body in [bytes, &framed] {
        let Some(parts) = Multipart::parse(body, "b") else { continue };
        let mut total = 0;
        for part in parts.iter() {
            part.name();
            total += part.content.len();
            total += part.headers().map(|(name, value)| name.len() + value.len()).sum::<usize>();
            assert!(!part.content.windows(7).any(|bytes| bytes == b"\r\n--b\r\n"));
        }
        assert!(total <= body.len());
    }
});
