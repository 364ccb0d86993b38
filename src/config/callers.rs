//! The kinds of names of callers, as configured: `[tenant]` and `[route.tenant]`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use http::header::AUTHORIZATION;
use http::uri::PathAndQuery;
use serde::{Serialize, Serializer};

use super::backend_url::BackendUrl;
use super::shown;
use crate::caller::Directory;
use crate::caller::jwt::{JwtRules, KeySet};
use crate::idempotency::tenant::CredentialHeaders;

/// `[tenant]`
#[derive(Debug, Clone, Serialize)]
pub struct TenantConfig {
    /// Headers identifying a caller.
    #[serde(serialize_with = "shown::texts")]
    pub headers: CredentialHeaders,
    /// The name in a verified client certificate; `None`: certificates name nobody.
    pub certificate: Option<CertificateName>,
    /// The directory.
    #[serde(serialize_with = "directory_size")]
    pub directory: Option<Arc<Directory>>,
    /// `[tenant.jwt]`
    pub jwt: Option<JwtConfig>,
    /// `[tenant.authorize]`
    pub authorize: Option<AuthorizeConfig>,
    /// Treatment of callers whom only credentials name, or nothing.
    pub unknown: UnknownCaller,
}

/// The kind of subject alternative name that names a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CertificateName {
    /// A URI, such as a SPIFFE ID.
    Uri,
    /// A name of a host.
    Dns,
}

/// Treatment of callers whom only credentials name, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownCaller {
    /// Named by a digest of the credentials, or anonymous.
    Allow,
    /// Answered with 401.
    Reject,
}

/// `[tenant.jwt]`
#[derive(Debug, Clone, Serialize)]
pub struct JwtConfig {
    /// The public keys.
    pub keys: JwtKeys,
    /// The claims.
    #[serde(serialize_with = "rules")]
    pub rules: JwtRules,
    /// Time for which a set that cannot be renewed is used.
    #[serde(serialize_with = "shown::time")]
    pub stale: Duration,
}

/// The source of public keys.
#[derive(Clone)]
pub enum JwtKeys {
    /// Read with the configuration.
    File(Arc<KeySet>),
    /// Fetched from this server, and renewed.
    Url {
        /// The server.
        server: BackendUrl,
        /// The target of the request.
        path: PathAndQuery,
    },
}

impl fmt::Debug for JwtKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(_) => f.write_str("File"),
            Self::Url { path, .. } => write!(f, "Url({path})"),
        }
    }
}

impl Serialize for JwtKeys {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::File(_) => to.serialize_str("file"),
            Self::Url { server, path } => {
                let origin = server.to_string();
                to.collect_str(&format_args!("{}{path}", origin.trim_end_matches('/')))
            }
        }
    }
}

/// `[tenant.authorize]`
#[derive(Debug, Clone, Serialize)]
pub struct AuthorizeConfig {
    /// Name of the upstream that is asked.
    pub upstream: String,
    /// Target of the request.
    #[serde(serialize_with = "shown::path_and_query")]
    pub path: PathAndQuery,
    /// Headers of the client that the request carries.
    #[serde(serialize_with = "shown::texts")]
    pub headers: Vec<HeaderName>,
    /// Time for which a permission is remembered.
    #[serde(serialize_with = "shown::time")]
    pub cache: Duration,
    /// Header of the answer with the caller's name.
    #[serde(serialize_with = "shown::optional_text")]
    pub tenant_header: Option<HeaderName>,
}

fn directory_size<S: Serializer>(
    directory: &Option<Arc<Directory>>,
    to: S,
) -> Result<S::Ok, S::Error> {
    directory.as_ref().map(|directory| directory.len()).serialize(to)
}

fn rules<S: Serializer>(rules: &JwtRules, to: S) -> Result<S::Ok, S::Error> {
    serde_json::json!({
        "issuer": rules.issuer,
        "audience": rules.audience,
        "claim": rules.claim,
    })
    .serialize(to)
}

impl TenantConfig {
    /// Reports callers that are named by their `authorization` header as it is, so that a renewed
    /// token is another caller.
    pub fn is_by_raw_token(&self) -> bool {
        let is_named_otherwise =
            self.directory.is_some() || self.jwt.is_some() || self.authorize.is_some();
        let is_refused = self.unknown == UnknownCaller::Reject;
        self.headers.contains(&AUTHORIZATION) && !is_named_otherwise && !is_refused
    }

    /// The kinds of names other than credentials, as the configuration writes them. A change of
    /// the kinds gives callers other names, and so other keys.
    pub fn kinds(&self) -> Vec<&'static str> {
        let certificate = self.certificate.map(|name| match name {
            CertificateName::Uri => "[tenant] certificate = \"uri\"",
            CertificateName::Dns => "[tenant] certificate = \"dns\"",
        });
        let kinds = [
            certificate,
            self.directory.as_ref().map(|_| "[tenant] directory"),
            self.jwt.as_ref().map(|_| "[tenant.jwt]"),
            self.authorize.as_ref().map(|_| "[tenant.authorize]"),
        ];
        kinds.into_iter().flatten().collect()
    }
}
