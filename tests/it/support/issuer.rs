//! An issuer of tokens, and the configuration that believes it.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

/// A signer of tokens with ES256.
pub(crate) struct TokenIssuer {
    pair: EcdsaKeyPair,
    kid: &'static str,
}

impl TokenIssuer {
    pub(crate) fn new(kid: &'static str) -> Self {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
        Self { pair, kid }
    }

    /// The public key as a member of a set.
    pub(crate) fn key(&self) -> String {
        let point = self.pair.public_key().as_ref();
        let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..]));
        let kid = self.kid;
        format!(r#"{{"kty":"EC","crv":"P-256","kid":"{kid}","x":"{x}","y":"{y}"}}"#)
    }

    /// A token for `client`, which expires in as many seconds.
    pub(crate) fn token(&self, client: &str, seconds: i64) -> String {
        let header = format!(r#"{{"alg":"ES256","kid":"{}"}}"#, self.kid);
        self.signed(&header, &claims(client, seconds))
    }

    /// A token of this header and these claims.
    pub(crate) fn signed(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", BASE64.encode(signature))
    }
}

/// The claims of a token for `client`, which expires in as many seconds.
pub(crate) fn claims(client: &str, seconds: i64) -> String {
    let expires = now() + seconds;
    format!(
        r#"{{"iss":"https://id.example","aud":"vouchers","exp":{expires},"client_id":"{client}"}}"#
    )
}

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the time that a token is compared with")]
pub(crate) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(now).unwrap()
}

/// The line of `[tenant]` that believes the tokens of these keys.
pub(crate) fn jwt(keys: &str) -> String {
    format!(
        "jwt = {{ {keys}, issuer = \"https://id.example\", audience = \"vouchers\", \
         claim = \"client_id\" }}"
    )
}

/// The key set of these issuers.
pub(crate) fn set(issuers: &[&TokenIssuer]) -> String {
    let keys: Vec<String> = issuers.iter().map(|issuer| issuer.key()).collect();
    format!("{{\"keys\":[{}]}}", keys.join(","))
}
