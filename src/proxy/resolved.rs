//! Parts of a configuration in the form that the routing snapshot holds.

use crate::config::{ClientAuth, ServerTlsConfig};
use crate::net::tls_server::{ListenerTls, ListenerTlsFiles};

/// The certificates of the listener.
pub(super) fn server_tls(config: &ServerTlsConfig) -> Result<ListenerTls, String> {
    let files = ListenerTlsFiles {
        cert: &config.cert,
        key: &config.key,
        client_ca: config.client_ca.as_deref(),
        requires_client: config.client_auth == ClientAuth::Required,
    };
    ListenerTls::new(files).map_err(|error| format!("[server] tls: {error}"))
}
