//! The id of an exchange: in the log, in problems, on answers of the gateway, and upstream.

use std::fmt;
use std::sync::OnceLock;

use http::HeaderValue;
use uuid::Uuid;

use crate::nonce;

/// The id of an exchange: the client's, else a random UUID, made when first needed.
#[derive(Debug)]
pub(crate) struct RequestId {
    client: Option<HeaderValue>,
    made: OnceLock<Uuid>,
}

impl RequestId {
    /// The id of an exchange whose client sent the id `client`, fit for a log.
    pub(crate) fn new(client: Option<HeaderValue>) -> Self {
        Self { client, made: OnceLock::new() }
    }

    /// Replaces a client's id that is the key of its request: a key may stand in no log.
    pub(crate) fn conceal(&self, key: &str) {
        if let Some(client) = &self.client
            && client.as_bytes().eq_ignore_ascii_case(key.as_bytes())
        {
            self.made.get_or_init(nonce::uuid);
        }
    }

    /// The header with the id.
    pub(crate) fn header(&self) -> HeaderValue {
        if let Some(client) = self.client() {
            return client.clone();
        }
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let text: &str = self.uuid().hyphenated().encode_lower(&mut text);
        // Hexadecimal digits and hyphens are valid in every header.
        HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("invalid"))
    }

    /// The client's id; `None`: the client sent none, or its id was replaced.
    pub(crate) fn client(&self) -> Option<&HeaderValue> {
        self.client.as_ref().filter(|_| self.made.get().is_none())
    }

    fn uuid(&self) -> Uuid {
        *self.made.get_or_init(nonce::uuid)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.client().and_then(|id| id.to_str().ok()) {
            Some(id) => f.write_str(id),
            None => self.uuid().fmt(f),
        }
    }
}
