//! Parts of a routing snapshot that its successor takes over.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::routing::{Routing, max_waiters};
use crate::config::{FileDigests, RouteConfig, ServerTlsConfig, UpstreamConfig};
use crate::net::tls_server::ListenerTls;
use crate::upstream::Upstream;

impl Routing {
    /// The upstream with these settings and files.
    pub(super) fn same_upstream(
        &self,
        wanted: &UpstreamConfig,
        now: &FileDigests,
    ) -> Option<Arc<Upstream>> {
        let (_, upstream) = self.upstreams.iter().find(|(config, _)| config == wanted)?;
        let pair = wanted.client_cert.iter().flat_map(|(cert, key)| [cert, key]);
        let is_same = |file: &PathBuf| now.is_same(&self.digests, file);
        wanted.ca.iter().chain(pair).all(is_same).then(|| upstream.clone())
    }

    /// The certificates with these settings and files.
    pub(super) fn same_tls(
        &self,
        wanted: &ServerTlsConfig,
        now: &FileDigests,
    ) -> Option<Arc<ListenerTls>> {
        let files = [&wanted.cert, &wanted.key].into_iter().chain(&wanted.client_ca);
        let is_same = |file: &PathBuf| now.is_same(&self.digests, file);
        let kept = self.tls_config.as_ref() == Some(wanted) && files.into_iter().all(is_same);
        if kept { self.tls.clone() } else { None }
    }

    /// The permits of waiters of the route with this name, if there are as many.
    pub(super) fn same_waiters(&self, wanted: &RouteConfig) -> Option<Arc<Semaphore>> {
        let at = self.configured.iter().position(|route| route.name == wanted.name)?;
        let is_same = max_waiters(&self.configured[at].mode) == max_waiters(&wanted.mode);
        if is_same { self.routes.get(at).map(|route| route.waiters.clone()) } else { None }
    }
}
