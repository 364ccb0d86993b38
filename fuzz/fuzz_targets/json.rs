//! Whatever a body is, reading it ends; what was read can be written down the same way twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oncegate::json::Document;

fuzz_target!(|bytes: &[u8]| {
    let Ok(document) = Document::parse(bytes) else { return };
    let (mut one, mut two) = (Vec::new(), Vec::new());
    let first = document.root().canonical(&mut one, &[]);
    let second = document.root().canonical(&mut two, &[]);
    assert_eq!((first, &one), (second, &two));
    assert_eq!(first, !document.has_duplicates());
    assert_eq!(document.root().raw().trim(), std::str::from_utf8(bytes).unwrap_or("").trim());
});
