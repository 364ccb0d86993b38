//! The caller of a request: the kinds of names in their order (SPEC: certificate, directory, token,
//! authorization service, credentials), and refusals of callers.
//!
//! Two names of a request that belong to two callers refuse the request; so does a token that is
//! present and fails. Credentials name a caller only where nothing else does.

mod authorize;
mod keys;
mod refusal;

use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, request};

use self::authorize::Authorizer;
use self::keys::KeySource;
pub(crate) use self::refusal::CallerRefusal;
use self::refusal::{contradiction, unknown};
use super::headers;
use super::peer::Peer;
use crate::caller::jwt::is_token;
use crate::caller::{Caller, CallerKind};
use crate::config::{CertificateName, TenantConfig, UnknownCaller};
use crate::upstream::Upstream;

/// The naming of callers by one `[tenant]` table.
#[derive(Debug)]
pub(crate) struct Callers {
    config: TenantConfig,
    keys: Option<KeySource>,
    authorizer: Option<Authorizer>,
    /// Only credentials name callers, so that no wait and no look-up is needed.
    is_simple: bool,
}

impl Callers {
    /// The naming that `config` describes; `upstream` finds upstreams by name, with their time
    /// limits. Keys that `previous` has fetched from the same server are kept.
    ///
    /// # Errors
    /// When certificates cannot be loaded, or the authorization service is not configured.
    pub(crate) fn new(
        config: &TenantConfig,
        upstream: impl Fn(&str) -> Option<(Arc<Upstream>, Duration)>,
        previous: Option<&Self>,
    ) -> Result<Self, String> {
        let previous = previous.and_then(|previous| previous.keys.as_ref());
        let jwt = config.jwt.as_ref();
        let keys = jwt.map(|jwt| KeySource::new(jwt, previous)).transpose()?;
        let authorizer = match &config.authorize {
            None => None,
            Some(authorize) => {
                let found = upstream(&authorize.upstream).ok_or_else(|| {
                    format!("[tenant.authorize]: no upstream {:?}", authorize.upstream)
                })?;
                Some(Authorizer::new(authorize, found))
            }
        };
        let is_simple = config.certificate.is_none()
            && config.directory.is_none()
            && keys.is_none()
            && authorizer.is_none()
            && config.unknown == UnknownCaller::Allow;
        Ok(Self { config: config.clone(), keys, authorizer, is_simple })
    }

    /// The table.
    pub(crate) fn config(&self) -> &TenantConfig {
        &self.config
    }

    /// The headers with credentials.
    pub(crate) fn headers(&self) -> &crate::idempotency::tenant::CredentialHeaders {
        &self.config.headers
    }

    /// Removes a header that only the authorization service may set, also as it is spelled with
    /// underscores: many servers read the two spellings as one name.
    pub(crate) fn strip(&self, headers: &mut HeaderMap) {
        let authorize = self.config.authorize.as_ref();
        let Some(name) = authorize.and_then(|it| it.tenant_header.as_ref()) else { return };
        let same = |other: &&HeaderName| headers::spelled(other).eq(headers::spelled(name));
        let found: Vec<HeaderName> = headers.keys().filter(same).cloned().collect();
        for name in found {
            headers.remove(name);
        }
    }

    /// The caller of a request. A header that only the authorization service may set is removed
    /// from `head`.
    ///
    /// # Errors
    /// The answer to a caller that is unknown, refused or contradictory.
    pub(crate) async fn identify(
        &self,
        client: Option<&Peer>,
        head: &mut request::Parts,
    ) -> Result<Caller, CallerRefusal> {
        if self.is_simple {
            return Ok(self.by_credentials(client, &head.headers));
        }
        self.strip(&mut head.headers);
        // Boxed, because it is rare and large: the common path stays small.
        let named = Box::pin(self.named(client, head)).await?;
        match (named, self.config.unknown) {
            (Some(caller), _) => Ok(caller),
            (None, UnknownCaller::Allow) => Ok(self.by_credentials(client, &head.headers)),
            (None, UnknownCaller::Reject) => Err(unknown(
                "The credentials of this request name no caller that is known here. Nothing was \
                 sent.",
            )),
        }
    }

    /// The caller of a request that is observed only: a caller that would be refused goes by its
    /// credentials.
    pub(crate) async fn observe(&self, client: &Peer, head: &mut request::Parts) -> Caller {
        match self.identify(Some(client), head).await {
            Ok(caller) => caller,
            Err(_) => self.by_credentials(Some(client), &head.headers),
        }
    }

    fn by_credentials(&self, client: Option<&Peer>, headers: &HeaderMap) -> Caller {
        Caller::unnamed(match client {
            Some(client) => client.tenant(&self.config.headers, headers),
            None => crate::idempotency::TenantId::of(&self.config.headers, headers),
        })
    }

    /// The caller by anything but plain credentials.
    async fn named(
        &self,
        client: Option<&Peer>,
        head: &request::Parts,
    ) -> Result<Option<Caller>, CallerRefusal> {
        let mut found: Option<Caller> = self.by_certificate(client)?;
        let by_directory = match &self.config.directory {
            None => None,
            Some(directory) => {
                let caller = directory.by_credentials(&self.config.headers, &head.headers);
                caller.map_err(|_| contradiction())?.cloned()
            }
        };
        agree(&mut found, by_directory)?;
        if let Some(keys) = &self.keys {
            for token in tokens(&head.headers) {
                let caller = self.by_token(keys, token).await?;
                agree(&mut found, Some(caller))?;
            }
        }
        if let Some(authorizer) = &self.authorizer {
            let name = authorizer.ask(head).await?;
            let caller = name.map(|name| Caller::named(CallerKind::Authorize, "", &name));
            agree(&mut found, caller)?;
        }
        Ok(found)
    }

    /// The caller by the subject alternative names of its certificate: the one in the directory, or
    /// the only name.
    ///
    /// # Errors
    /// Names of two callers of the directory.
    fn by_certificate(&self, client: Option<&Peer>) -> Result<Option<Caller>, CallerRefusal> {
        let certificate = client.and_then(|client| client.certificate.as_ref());
        let Some((kind, certificate)) = self.config.certificate.zip(certificate) else {
            return Ok(None);
        };
        let directory = self.config.directory.as_ref();
        let names = match kind {
            CertificateName::Uri => &certificate.uris,
            CertificateName::Dns => &certificate.dns,
        };
        let mut found = None;
        for name in names {
            let known = directory.and_then(|directory| match kind {
                CertificateName::Uri => directory.by_uri(name),
                CertificateName::Dns => directory.by_dns(name),
            });
            agree(&mut found, known.cloned())?;
        }
        Ok(match (found, names.as_slice()) {
            (None, [name]) => Some(Caller::named(CallerKind::Certificate, "", name)),
            (found, _) => found,
        })
    }

    async fn by_token(&self, keys: &KeySource, token: &str) -> Result<Caller, CallerRefusal> {
        let name = keys.verify(token).await?;
        let known = self.config.directory.as_ref().and_then(|it| it.by_jwt(&name).cloned());
        let rules = &keys.rules;
        let space = format!("{}\0{}", rules.issuer, rules.claim);
        Ok(known.unwrap_or_else(|| Caller::named(CallerKind::Jwt, &space, &name)))
    }
}

/// Adds a name of another kind, which must belong to the same caller.
fn agree(found: &mut Option<Caller>, other: Option<Caller>) -> Result<(), CallerRefusal> {
    match (&found, other) {
        (_, None) => Ok(()),
        (None, Some(caller)) => {
            *found = Some(caller);
            Ok(())
        }
        (Some(first), Some(other)) if first.id == other.id => Ok(()),
        (Some(_), Some(_)) => Err(contradiction()),
    }
}

/// The bearer tokens of a request that are JWTs.
fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.get_all(AUTHORIZATION).iter().filter_map(|line| {
        let (scheme, token) = line.to_str().ok()?.trim().split_once([' ', '\t'])?;
        let token = token.trim();
        (scheme.eq_ignore_ascii_case("bearer") && is_token(token)).then_some(token)
    })
}
