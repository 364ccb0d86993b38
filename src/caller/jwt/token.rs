//! A token: its parts, its signature and its claims.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::keys::KeySet;
use crate::json::{Document, JsonType, Value};

/// Bytes of the longest token.
const MAX_TOKEN: usize = 16 << 10;

/// Difference between the clocks of the issuer and the gateway that is tolerated.
const LEEWAY: Duration = Duration::from_secs(60);

/// Characters of the longest name in a claim.
const MAX_NAME: usize = 256;

/// The claims of an acceptable token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtRules {
    /// `iss`
    pub issuer: String,
    /// `aud`, or one of them.
    pub audience: String,
    /// The claim that names the caller.
    pub claim: String,
}

/// The reason a token was refused; the text goes to the log, never to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwtError {
    /// The token is too long, or not three parts of base64url with JSON objects inside.
    Form,
    /// The token asks for an extension that is not understood (`crit`).
    Critical,
    /// No key of the token's id is in the set.
    UnknownKey,
    /// The signature is not one of the key's algorithm over the token.
    Signature,
    /// Another issuer.
    Issuer,
    /// Another audience.
    Audience,
    /// The token has expired, or does not say when.
    Expired,
    /// The token is not valid yet.
    NotYet,
    /// The claim that names the caller is absent, empty, too long or no text.
    Name,
}

impl fmt::Display for JwtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "it is not a signed token in the compact form",
            Self::Critical => "it needs an extension that is not understood",
            Self::UnknownKey => "its key is not in the key set",
            Self::Signature => "its signature does not fit the key and the key's algorithm",
            Self::Issuer => "it has another issuer",
            Self::Audience => "it is for another audience",
            Self::Expired => "it has expired, or does not say when it expires",
            Self::NotYet => "it is not valid yet",
            Self::Name => "the claim that names the caller is missing or no text",
        })
    }
}

impl std::error::Error for JwtError {}

/// Reports a bearer token in the compact form of a JWT. Other bearer tokens are no JWTs, and name
/// callers as credentials of any kind do.
pub fn is_token(bearer: &str) -> bool {
    let is_base64url = |part: &str| {
        part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let mut parts = bearer.split('.');
    let three = [parts.next(), parts.next(), parts.next()];
    parts.next().is_none()
        && three.iter().all(|part| part.is_some_and(is_base64url))
        && three[0].is_some_and(begins_object)
}

/// Reports base64url of a text that begins as a JSON object does, behind any white space.
fn begins_object(header: &str) -> bool {
    // Three bytes in four characters; the last group may be short.
    let groups = header.as_bytes().chunks(4).map(|group| URL_SAFE_NO_PAD.decode(group));
    let mut bytes = groups.map_while(Result::ok).flatten();
    bytes.find(|byte| !b" \t\r\n".contains(byte)) == Some(b'{')
}

impl JwtRules {
    /// The name of the caller in a token that `keys` verify at `now`, the time since 1970.
    ///
    /// # Errors
    /// The reason the token is not accepted.
    pub fn verify(&self, token: &str, keys: &KeySet, now: Duration) -> Result<String, JwtError> {
        self.name(&object(&signed_payload(token, keys)?)?, now)
    }

    /// The caller's name in verified claims.
    fn name(&self, claims: &Document<'_>, now: Duration) -> Result<String, JwtError> {
        let claim = |name: &str| claims.root().child(name);
        let is = |value: Value<'_, '_>, text: &str| value.as_str().is_some_and(|it| it == text);
        if !claim("iss").is_some_and(|issuer| is(issuer, &self.issuer)) {
            return Err(JwtError::Issuer);
        }
        let is_audience = claim("aud").is_some_and(|audience| {
            is(audience, &self.audience) || audience.elements().any(|one| is(one, &self.audience))
        });
        if !is_audience {
            return Err(JwtError::Audience);
        }
        let expires = claim("exp").and_then(seconds).ok_or(JwtError::Expired)?;
        if expires + LEEWAY.as_secs_f64() <= now.as_secs_f64() {
            return Err(JwtError::Expired);
        }
        if let Some(begins) = claim("nbf") {
            let begins = seconds(begins).ok_or(JwtError::NotYet)?;
            if begins > (now + LEEWAY).as_secs_f64() {
                return Err(JwtError::NotYet);
            }
        }
        let name = claim(&self.claim).and_then(|name| name.as_str()).ok_or(JwtError::Name)?;
        let fits = (1..=MAX_NAME).contains(&name.len()) && !name.chars().any(char::is_control);
        if fits { Ok(name.into_owned()) } else { Err(JwtError::Name) }
    }
}

/// The payload of a token whose signature `keys` verify.
pub(super) fn signed_payload(token: &str, keys: &KeySet) -> Result<Vec<u8>, JwtError> {
    let (message, signature) = token.rsplit_once('.').ok_or(JwtError::Form)?;
    let (header, payload) = message.split_once('.').ok_or(JwtError::Form)?;
    if token.len() > MAX_TOKEN {
        return Err(JwtError::Form);
    }
    let (header, payload) = (decoded(header)?, decoded(payload)?);
    let signature = decoded(signature)?;
    let header = object(&header)?;
    let text = |name: &str| header.root().child(name).and_then(|value| value.as_str());
    if header.root().child("crit").is_some() {
        return Err(JwtError::Critical);
    }
    let id = match header.root().child("kid") {
        None => None,
        Some(id) => Some(id.as_str().ok_or(JwtError::Form)?),
    };
    if !keys.has(id.as_deref()) {
        return Err(JwtError::UnknownKey);
    }
    let algorithm = text("alg").ok_or(JwtError::Form)?;
    if !keys.verifies(id.as_deref(), &algorithm, message.as_bytes(), &signature) {
        return Err(JwtError::Signature);
    }
    Ok(payload)
}

fn decoded(part: &str) -> Result<Vec<u8>, JwtError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Form)
}

/// A JSON object without repeated names, which libraries read in different ways.
fn object(text: &[u8]) -> Result<Document<'_>, JwtError> {
    let document = Document::parse(text).map_err(|_| JwtError::Form)?;
    let is_object = document.root().kind() == JsonType::Object && !document.has_duplicates();
    if is_object { Ok(document) } else { Err(JwtError::Form) }
}

/// A time in seconds since 1970 (RFC 7519 section 2, `NumericDate`).
fn seconds(value: Value<'_, '_>) -> Option<f64> {
    let number = value.kind() == JsonType::Number;
    let seconds: f64 = number.then(|| value.raw().parse().ok()).flatten()?;
    seconds.is_finite().then_some(seconds)
}
