//! Whatever a key header holds, reading it ends, and what is accepted is visible ASCII.
#![no_main]

use http::HeaderName;
use libfuzzer_sys::fuzz_target;
use oncegate::idempotency::key::{KeyPlaces, KeyRules, Scope, Syntax};

fuzz_target!(|bytes: &[u8]| {
    let rules = |syntax| KeyRules {
        places: KeyPlaces::in_header(HeaderName::from_static("idempotency-key")),
        required: true,
        scope: Scope::Tenant,
        syntax,
        min_length: 1,
        max_length: 255,
        format: None,
        forward: false,
    };
    let any = rules(Syntax::Any).from_header_value(bytes);
    if let Ok(key) = &any {
        assert!((1..=255).contains(&key.as_str().len()));
        assert!(key.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
    }
    if let Ok(strict) = rules(Syntax::Strict).from_header_value(bytes) {
        assert_eq!(any, Ok(strict));
    }
});
