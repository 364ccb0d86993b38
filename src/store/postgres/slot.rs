//! A place for a connection that is made again when it is lost.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::connect::Connector;
use super::link::Link;
use crate::store::shared::engine::Trouble;

/// At most one connection, shared by all who ask.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    link: Option<Arc<Link>>,
    /// When connecting failed last, and how.
    failed: Option<(Instant, Trouble)>,
}

impl Slot {
    /// With a connection in it.
    pub(super) fn with(link: Link) -> Self {
        Self(Mutex::new(State { link: Some(Arc::new(link)), failed: None }))
    }

    /// The connection; made now when there is none, which takes the connector's time limit at most.
    pub(super) async fn link(&self, connector: &Connector) -> Result<Arc<Link>, Trouble> {
        let asked = Instant::now();
        let mut state = self.0.lock().await;
        if let Some(link) = &state.link
            && link.is_open()
        {
            return Ok(link.clone());
        }
        state.link = None;
        // Those who waited for a try that failed do not try one after the other.
        if let Some((at, trouble)) = &state.failed
            && *at >= asked
        {
            return Err(trouble.clone());
        }
        match connector.link(None).await {
            Ok(link) => {
                let link = Arc::new(link);
                state.link = Some(link.clone());
                state.failed = None;
                Ok(link)
            }
            Err(reason) => {
                let trouble = Trouble::Refused(reason);
                state.failed = Some((Instant::now(), trouble.clone()));
                Err(trouble)
            }
        }
    }
}
