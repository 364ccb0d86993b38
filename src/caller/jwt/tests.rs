//! Vectors of the standards, and tokens that a verifier must not believe.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};

use super::*;

/// RFC 7515 appendix A.2.
const RSA_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
const JOE: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const RS256: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
/// RFC 7515 appendix A.3.
const ES256: &str =
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
const EC_KEY: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
/// RFC 7520 section 4.2.
const PS384_N: &str = "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw";
const PS384: &str = "cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OLPpcbUrhiUSMxbbXUvdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8Vdz0TTrxUeT3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510a6GYmJUAfmWjwZ6oD4ifKo8DYM-X72Eaw";
const PS384_INPUT: &str = "eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4";
/// RFC 8037 appendix A.4.
const EDDSA: &str =
    "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
const ED_KEY: &str =
    r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

fn set(keys: &[&str]) -> KeySet {
    KeySet::parse(format!("{{\"keys\":[{}]}}", keys.join(",")).as_bytes()).unwrap()
}

fn rsa_key(n: &str, more: &str) -> String {
    format!(r#"{{"kty":"RSA","e":"AQAB","n":"{n}"{more}}}"#)
}

/// Signatures of the standards are verified by the key's algorithm, and by no other.
#[test]
fn the_vectors_of_the_standards_are_verified() {
    let rsa = rsa_key(RSA_N, "");
    let pss = rsa_key(PS384_N, r#","alg":"PS384","kid":"bilbo.baggins@hobbiton.example""#);
    for (key, algorithm, message, signature) in [
        (rsa.as_str(), "RS256", format!("eyJhbGciOiJSUzI1NiJ9.{JOE}"), RS256),
        (EC_KEY, "ES256", format!("eyJhbGciOiJFUzI1NiJ9.{JOE}"), ES256),
        (pss.as_str(), "PS384", PS384_INPUT.to_owned(), PS384),
        (
            ED_KEY,
            "EdDSA",
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc".to_owned(),
            EDDSA,
        ),
    ] {
        let keys = set(&[key]);
        let signature = BASE64.decode(signature).unwrap();
        let verifies = |algorithm: &str, message: &str, signature: &[u8]| {
            keys.verifies(None, algorithm, message.as_bytes(), signature)
        };
        assert!(verifies(algorithm, &message, &signature), "{algorithm}");
        for other in
            ["none", "HS256", "RS256", "RS384", "PS256", "PS384", "ES256", "ES384", "EdDSA"]
        {
            assert_eq!(verifies(other, &message, &signature), other == algorithm, "{other}");
        }
        assert!(!verifies(algorithm, &format!("{message}x"), &signature));
        for at in 0..signature.len() {
            let mut changed = signature.clone();
            changed[at] ^= 1;
            assert!(!verifies(algorithm, &message, &changed), "{algorithm}, byte {at}");
        }
        for short in [0, 1, signature.len() - 1] {
            assert!(!verifies(algorithm, &message, &signature[..short]), "{algorithm}");
        }
    }
}

/// All zeros and all ones are no signatures (CVE-2022-21449).
#[test]
fn signatures_of_zeros_are_refused() {
    let keys = set(&[EC_KEY, ED_KEY, &rsa_key(RSA_N, "")]);
    for algorithm in ["ES256", "EdDSA", "RS256"] {
        for signature in
            [[0; 64].to_vec(), [1; 64].to_vec(), [0; 256].to_vec(), [255; 256].to_vec()]
        {
            assert!(!keys.verifies(None, algorithm, b"message", &signature), "{algorithm}");
        }
    }
}

/// The signatures of public keys in Project Wycheproof; keys for encryption and of P-521 are passed
/// over.
#[test]
fn the_signatures_of_wycheproof_are_verified_or_refused() {
    let text = include_str!("../../../tests/data/wycheproof/json_web_signature.json");
    let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for group in vectors["groups"].as_array().unwrap() {
        let keys = KeySet::parse(format!("{{\"keys\":[{}]}}", group["key"]).as_bytes());
        for test in group["tests"].as_array().unwrap() {
            let token = test[2].as_str().unwrap();
            let verified = match &keys {
                Ok(keys) => token::signed_payload(token, keys).is_ok(),
                Err(KeySetError::Empty) => continue,
                Err(error) => panic!("{error}: {group}"),
            };
            // Tokens with PS384 under a key for PS256 alone: the key decides.
            let is_of_key = ![346, 350].contains(&test[0].as_u64().unwrap());
            let expected = test[1] == "valid" && is_of_key;
            assert_eq!(verified, expected, "{}: {}", group["comment"], test[0]);
            *(if verified { &mut valid } else { &mut invalid }) += 1;
        }
    }
    assert_eq!((valid, invalid), (32, 323));
}

#[test]
fn keys_that_verify_nothing_are_passed_over() {
    let keys = |text: &str| KeySet::parse(text.as_bytes()).map(|set| set.algorithms());
    for (key, expected) in [
        (EC_KEY.to_owned(), Ok(vec!["ES256"])),
        (rsa_key(RSA_N, ""), Ok(vec!["RS256"])),
        (rsa_key(RSA_N, r#","alg":"RS512""#), Ok(vec!["RS512"])),
        (rsa_key(RSA_N, r#","use":"enc""#), Err(KeySetError::Empty)),
        (rsa_key(RSA_N, r#","key_ops":["sign"]"#), Err(KeySetError::Empty)),
        (rsa_key(RSA_N, r#","alg":"HS256""#), Err(KeySetError::Empty)),
        (rsa_key(RSA_N, r#","alg":"ES256""#), Err(KeySetError::Empty)),
        (EC_KEY.replace("P-256", "P-521"), Err(KeySetError::Empty)),
        (EC_KEY.replace("P-256", "P-384"), Err(KeySetError::Empty)),
        (ED_KEY.replace("Ed25519", "X25519"), Err(KeySetError::Empty)),
        (r#"{"kty":"oct","k":"c2VjcmV0"}"#.to_owned(), Err(KeySetError::Empty)),
        ("5".to_owned(), Err(KeySetError::Empty)),
    ] {
        assert_eq!(keys(&format!("{{\"keys\":[{key}]}}")), expected, "{key}");
    }
    for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#] {
        assert_eq!(keys(text), Err(KeySetError::Form), "{text}");
    }
    let many = format!("{{\"keys\":[{}5]}}", format!("{EC_KEY},").repeat(256));
    assert_eq!(keys(&many), Err(KeySetError::TooMany));
}

const NOW: Duration = Duration::from_secs(1_800_000_000);

fn rules() -> JwtRules {
    JwtRules {
        issuer: "https://id.example".to_owned(),
        audience: "vouchers".to_owned(),
        claim: "client_id".to_owned(),
    }
}

/// A signer of tokens, with the key that verifies them.
struct Issuer {
    pair: EcdsaKeyPair,
    jwk: String,
}

impl Issuer {
    fn new(kid: &str) -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
        let point = pair.public_key().as_ref();
        let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..]));
        let jwk = format!(r#"{{"kty":"EC","crv":"P-256","kid":"{kid}","x":"{x}","y":"{y}"}}"#);
        Self { pair, jwk }
    }

    fn token(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", BASE64.encode(signature))
    }
}

const HEADER: &str = r#"{"alg":"ES256","kid":"a"}"#;
const CLAIMS: &str = r#"{"iss":"https://id.example","aud":"vouchers","exp":1800000100,"nbf":1799999000,"client_id":"till-7"}"#;

#[test]
fn a_token_names_its_caller() {
    let issuer = Issuer::new("a");
    let keys = set(&[&Issuer::new("b").jwk, &issuer.jwk]);
    let name = |token: &str| rules().verify(token, &keys, NOW);
    for (header, claims) in [
        (HEADER, CLAIMS.to_owned()),
        (r#"{"alg":"ES256"}"#, CLAIMS.to_owned()),
        (r#"{"typ":"at+jwt","kid":"a","alg":"ES256"}"#, CLAIMS.to_owned()),
        (HEADER, CLAIMS.replace(r#""vouchers""#, r#"["other","vouchers"]"#)),
        (HEADER, CLAIMS.replace("1800000100", "1799999940.5")),
        (HEADER, CLAIMS.replace("1799999000", "1800000060")),
        (HEADER, CLAIMS.replace(r#""nbf":1799999000,"#, "")),
    ] {
        let token = issuer.token(header, &claims);
        assert!(is_token(&token));
        assert_eq!(name(&token), Ok("till-7".to_owned()), "{header} {claims}");
    }
}

#[test]
fn a_token_that_is_not_all_right_names_nobody() {
    let (issuer, stranger) = (Issuer::new("a"), Issuer::new("a"));
    let keys = set(&[&issuer.jwk]);
    let check = |token: &str, error: JwtError| {
        assert_eq!(rules().verify(token, &keys, NOW), Err(error), "{token}");
    };
    let with = |this: &str, that: &str| {
        assert!(CLAIMS.contains(this), "{this}");
        issuer.token(HEADER, &CLAIMS.replace(this, that))
    };
    check(&stranger.token(HEADER, CLAIMS), JwtError::Signature);
    for header in [
        r#"{"alg":"none","kid":"a"}"#,
        r#"{"alg":"HS256","kid":"a"}"#,
        r#"{"alg":"RS256","kid":"a"}"#,
        r#"{"alg":"es256","kid":"a"}"#,
        r#"{"alg":"ES384","kid":"a"}"#,
    ] {
        check(&issuer.token(header, CLAIMS), JwtError::Signature);
    }
    // A key that the token brings itself is never used.
    let own = format!(r#"{{"alg":"ES256","kid":"a","jwk":{},"jku":"http://x/"}}"#, stranger.jwk);
    check(&stranger.token(&own, CLAIMS), JwtError::Signature);
    check(&issuer.token(r#"{"alg":"ES256","kid":"z"}"#, CLAIMS), JwtError::UnknownKey);
    check(&issuer.token(r#"{"alg":"ES256","crit":["b64"]}"#, CLAIMS), JwtError::Critical);
    for header in [
        r#"{"kid":"a"}"#,
        r#"{"alg":"ES256","kid":5}"#,
        "[]",
        "{",
        r#"{"alg":"ES256","alg":"ES256"}"#,
    ] {
        check(&issuer.token(header, CLAIMS), JwtError::Form);
    }
    check(&with("https://id.example", "https://id.example/"), JwtError::Issuer);
    check(&with(r#""iss":"https://id.example","#, ""), JwtError::Issuer);
    check(&with(r#""vouchers""#, r#""voucher""#), JwtError::Audience);
    check(&with(r#""vouchers""#, r#"["a",5,{}]"#), JwtError::Audience);
    check(&with("1800000100", "1799999940"), JwtError::Expired);
    check(&with("1800000100", "\"1800000100\""), JwtError::Expired);
    check(&with(r#""exp":1800000100,"#, ""), JwtError::Expired);
    check(&with("1799999000", "1800000061"), JwtError::NotYet);
    check(&with("1799999000", "null"), JwtError::NotYet);
    check(&with(r#""till-7""#, "\"\""), JwtError::Name);
    check(&with(r#""till-7""#, "7"), JwtError::Name);
    check(&with(r#""till-7""#, r#""a\u0000b""#), JwtError::Name);
    check(&with(r#","client_id":"till-7""#, ""), JwtError::Name);
    check(&with(r#""till-7""#, r#""till-7","client_id":"till-8""#), JwtError::Form);
    let token = issuer.token(HEADER, CLAIMS);
    for token in ["", "a", "a.b", "..", &token[1..], &format!("{token}.x"), &format!("{token}=")] {
        assert!(rules().verify(token, &keys, NOW).is_err(), "{token}");
    }
    let (message, signature) = token.rsplit_once('.').unwrap();
    check(&format!("{message}."), JwtError::Signature);
    let long = issuer.token(HEADER, &format!("{}{}", CLAIMS, " ".repeat(20_000)));
    check(&long, JwtError::Form);
    assert!(!signature.is_empty());
}

#[test]
fn bearer_tokens_of_other_kinds_are_no_tokens() {
    for bearer in ["", "opaque", "a.b.c", "eyJ.b", "eyJ.b.c.d", "eyJ b.c", "eyJ.b.c="] {
        assert!(!is_token(bearer), "{bearer}");
    }
    assert!(is_token("eyJh.eyJi.sig") && is_token("eyJh.eyJi."));
}

#[test]
fn tokens_of_ed25519_keys_are_verified() {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let x = BASE64.encode(pair.public_key().as_ref());
    let keys = set(&[&format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#)]);
    let message = format!("{}.{}", BASE64.encode(r#"{"alg":"EdDSA"}"#), BASE64.encode(CLAIMS));
    let token = format!("{message}.{}", BASE64.encode(pair.sign(message.as_bytes())));
    assert_eq!(rules().verify(&token, &keys, NOW), Ok("till-7".to_owned()));
}
