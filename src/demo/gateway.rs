//! The gateway of the demo, started in this process with a store in a temporary directory. Only
//! this file uses the start-up of the rest of the crate.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::rewards::ISSUE;
use crate::config;
use crate::gateway::{self, Running};
use crate::listen_address::ListenAddress;
use crate::shutdown::Shutdown;

/// Time limit for the end of the demo's servers.
pub(super) const DRAIN: Duration = Duration::from_secs(5);

/// The operator's token.
pub(super) const OPERATOR: &str = "the-operator-of-the-demo";

/// A running gateway.
pub(super) struct DemoGateway {
    /// Address for the tills.
    pub(super) address: SocketAddr,
    /// Address of the admin listener.
    pub(super) admin: SocketAddr,
    running: Running,
}

/// The configuration, in the form of a file.
fn configuration([backend, engine]: [SocketAddr; 2], store: &Path) -> String {
    let store = toml::Value::String(store.display().to_string());
    format!(
        r#"
server = {{ listen = ["127.0.0.1:0"], drain = "2s" }}
admin = {{ listen = "127.0.0.1:0", token = "{OPERATOR}" }}
store.embedded.path = {store}
upstream = [
  {{ name = "legacy", url = "http://{backend}" }},
  {{ name = "points", url = "http://{backend}", timeout = "3s" }},
  {{ name = "rewards", url = "http://{engine}" }},
]

[[route]]
name = "redeem"
methods = ["POST"]
path = "/v1/vouchers/redeem"
upstream = "legacy"
profile = "redeemsg"
outcome.on_unknown = "probe"

[route.probe]
path = "/v1/transactions"
headers = {{ x-api-key = "demo" }}
min_age = "0s"
every = "1s"
rows = "/data"
match = {{ "/metadata" = "{{/metadata}}" }}
window = {{ at = "/created_at", before = "2m", after = "2m" }}
executed = {{ pointer = "/id", present = true }}
response = {{ body = '{{"status":"succeeded","transaction":{{row:}}}}' }}

[[route]]
name = "award"
methods = ["POST"]
path = "/v1/points/award"
upstream = "points"
profile = "redeemsg"
outcome.on_unknown = "reverse"

[route.reverse]
path = "/v1/points/revoke"
headers = {{ x-api-key = "demo" }}
body = '{{"metadata":{{/metadata}}}}'
done = {{ pointer = "/status", equals = "revoked" }}
nothing = {{ status = 404, pointer = "/error/code", equals = "no_award" }}

[[route]]
name = "issue-rewards"
methods = ["POST"]
path = "{ISSUE}"
upstream = "rewards"
mode = "items"
profile = "capillary"

[[route]]
name = "rest"
methods = ["GET"]
path = "/{{*rest}}"
upstream = "legacy"
mode = "off"
"#
    )
}

impl DemoGateway {
    /// Starts the gateway in front of the backend and the reward engine, with its store under
    /// `folder`.
    pub(super) async fn start(
        behind: [SocketAddr; 2],
        folder: &Path,
        shutdown: Shutdown,
    ) -> Result<Self, String> {
        let text = configuration(behind, &folder.join("store"));
        let config = config::parse(&text, "the demo's configuration", &|_| None)
            .map_err(|mistakes| mistakes.to_string())?;
        let running =
            gateway::start(config, None, shutdown).await.map_err(|error| error.to_string())?;
        let address = running.listening.iter().find_map(|address| match address {
            ListenAddress::Tcp(address) => Some(*address),
            ListenAddress::Unix(_) => None,
        });
        let address = address.ok_or("the demo's gateway listens nowhere")?;
        Ok(Self { address, admin: running.admin, running })
    }

    /// Waits for the end of the gateway.
    pub(super) async fn finished(self) {
        // Whoever ends the demo is told about the story, not about its stage.
        let _ = tokio::time::timeout(DRAIN, self.running.finished()).await;
    }
}
