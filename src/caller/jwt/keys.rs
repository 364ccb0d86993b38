//! Sets of public keys (RFC 7517).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    self, EcdsaVerificationAlgorithm, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};

use crate::json::{Document, JsonType, Value};

/// Keys of the largest set.
const MAX_KEYS: usize = 256;

/// The public keys of an issuer.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<PublicKey>,
}

/// The reason a text is no set of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySetError {
    /// The text is not a JSON object with an array `keys`, or names a member twice.
    Form,
    /// More than `MAX_KEYS` keys.
    TooMany,
    /// None of the keys can verify a signature.
    Empty,
}

impl fmt::Display for KeySetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str("not a JSON Web Key Set, an object with an array \"keys\""),
            Self::TooMany => write!(f, "more than {MAX_KEYS} keys"),
            Self::Empty => f.write_str(
                "no key for signatures with RS256, RS384, RS512, PS256, PS384, PS512, ES256, \
                 ES384 or EdDSA",
            ),
        }
    }
}

impl std::error::Error for KeySetError {}

/// A public key with its only algorithm.
#[derive(Debug)]
struct PublicKey {
    /// `kid`
    id: Option<String>,
    algorithm: &'static str,
    material: KeyMaterial,
}

enum KeyMaterial {
    Rsa { parameters: &'static RsaParameters, n: Vec<u8>, e: Vec<u8> },
    Ec { curve: &'static EcdsaVerificationAlgorithm, point: Vec<u8> },
    Ed25519(Vec<u8>),
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa { .. } => "RSA",
            Self::Ec { .. } => "EC",
            Self::Ed25519(_) => "Ed25519",
        })
    }
}

impl KeySet {
    /// Reads a set. Keys of other kinds, and those for other uses than signatures, are passed over.
    ///
    /// # Errors
    /// The text is not a set, or has no key for signatures.
    pub fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        let document = Document::parse(text).map_err(|_| KeySetError::Form)?;
        if document.has_duplicates() {
            return Err(KeySetError::Form);
        }
        let list = document.root().child("keys").filter(|keys| keys.kind() == JsonType::Array);
        let list = list.ok_or(KeySetError::Form)?;
        if list.elements().nth(MAX_KEYS).is_some() {
            return Err(KeySetError::TooMany);
        }
        let keys: Vec<PublicKey> = list.elements().filter_map(PublicKey::read).collect();
        if keys.is_empty() { Err(KeySetError::Empty) } else { Ok(Self { keys }) }
    }

    /// Reports whether a key of this id is in the set; without an id, whether any key may verify.
    pub fn has(&self, id: Option<&str>) -> bool {
        self.candidates(id).next().is_some()
    }

    /// Reports whether a key of this id and algorithm verifies a signature. A token without an id
    /// is verified by any key of its algorithm.
    pub(super) fn verifies(
        &self,
        id: Option<&str>,
        algorithm: &str,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        let mut keys = self.candidates(id).filter(|key| key.algorithm == algorithm);
        keys.any(|key| key.material.verifies(message, signature))
    }

    /// The algorithms of the keys.
    #[cfg(test)]
    pub(super) fn algorithms(&self) -> Vec<&'static str> {
        self.keys.iter().map(|key| key.algorithm).collect()
    }

    fn candidates<'a>(&'a self, id: Option<&'a str>) -> impl Iterator<Item = &'a PublicKey> {
        self.keys.iter().filter(move |key| id.is_none() || key.id.as_deref() == id)
    }
}

impl PublicKey {
    /// Reads a key; `None`: a kind, a use or a size that verifies no signature here.
    fn read(key: Value<'_, '_>) -> Option<Self> {
        let text = |name: &str| key.child(name)?.as_str();
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(&*text(name)?).ok();
        if text("use").is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        if let Some(operations) = key.child("key_ops") {
            let mut operations = operations.elements().filter_map(|name| name.as_str());
            if !operations.any(|name| name == "verify") {
                return None;
            }
        }
        let named = text("alg");
        let (algorithm, material) = match (&*text("kty")?, text("crv").as_deref()) {
            ("RSA", None) => {
                let (algorithm, parameters) = rsa(named.as_deref().unwrap_or("RS256"))?;
                (algorithm, KeyMaterial::Rsa { parameters, n: bytes("n")?, e: bytes("e")? })
            }
            ("EC", Some(name)) => {
                let (algorithm, curve, length) = match name {
                    "P-256" => ("ES256", &signature::ECDSA_P256_SHA256_FIXED, 32),
                    "P-384" => ("ES384", &signature::ECDSA_P384_SHA384_FIXED, 48),
                    _ => return None,
                };
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != length || y.len() != length {
                    return None;
                }
                // An uncompressed point, SEC 1 section 2.3.3.
                (algorithm, KeyMaterial::Ec { curve, point: [&[4], &x[..], &y[..]].concat() })
            }
            ("OKP", Some("Ed25519")) => ("EdDSA", KeyMaterial::Ed25519(bytes("x")?)),
            _ => return None,
        };
        // The name that RFC 9864 gives to the same algorithm.
        let fits = |name: &str| name == algorithm || (algorithm == "EdDSA" && name == "Ed25519");
        if named.as_deref().is_some_and(|name| !fits(name)) {
            return None;
        }
        Some(Self { id: text("kid").map(std::borrow::Cow::into_owned), algorithm, material })
    }
}

/// The name and the parameters of an algorithm for RSA keys of 2048 bits and more.
fn rsa(name: &str) -> Option<(&'static str, &'static RsaParameters)> {
    Some(match name {
        "RS256" => ("RS256", &signature::RSA_PKCS1_2048_8192_SHA256),
        "RS384" => ("RS384", &signature::RSA_PKCS1_2048_8192_SHA384),
        "RS512" => ("RS512", &signature::RSA_PKCS1_2048_8192_SHA512),
        "PS256" => ("PS256", &signature::RSA_PSS_2048_8192_SHA256),
        "PS384" => ("PS384", &signature::RSA_PSS_2048_8192_SHA384),
        "PS512" => ("PS512", &signature::RSA_PSS_2048_8192_SHA512),
        _ => return None,
    })
}

impl KeyMaterial {
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match self {
            Self::Rsa { parameters, n, e } => {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
            }
            Self::Ec { curve, point } => {
                UnparsedPublicKey::new(*curve, point).verify(message, signature)
            }
            Self::Ed25519(key) => {
                UnparsedPublicKey::new(&signature::ED25519, key).verify(message, signature)
            }
        };
        verified.is_ok()
    }
}
