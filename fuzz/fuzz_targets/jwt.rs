//! Verifying a token ends for any bytes, reading a key set does, and no token is believed: no one
//! signed one.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use oncegate::caller::jwt::{JwtRules, KeySet, is_token};

const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

static RULES: LazyLock<(JwtRules, KeySet)> = LazyLock::new(|| {
    let rules = JwtRules { issuer: "i".into(), audience: "a".into(), claim: "c".into() };
    (rules, KeySet::parse(KEYS.as_bytes()).expect("a set"))
});

fuzz_target!(|bytes: &[u8]| {
    let now = Duration::from_secs(1_800_000_000);
    let (rules, keys) = &*RULES;
    if let Ok(set) = KeySet::parse(bytes) {
        assert!(set.has(None));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = is_token(text);
    assert!(rules.verify(text, keys, now).is_err());
});
