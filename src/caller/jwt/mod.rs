//! JSON Web Tokens (RFC 7519) as names of callers: signatures over `ring`, and the claims that
//! every token needs.
//!
//! The algorithm comes from the key and never from the token, keys come from a configured set and
//! never from the token, and what a token says is believed after its signature only.

mod keys;
#[cfg(test)]
mod tests;
mod token;

pub use keys::{KeySet, KeySetError};
pub use token::{JwtError, JwtRules, is_token};
