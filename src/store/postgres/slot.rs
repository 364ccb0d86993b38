//! A place for a connection that is made again when it is lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::connect::Connector;
use super::link::Link;
use super::session::Session;
use crate::store::shared::engine::Trouble;

/// At most one connection, shared by all who ask.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    link: Option<Arc<Link>>,
    /// Behind a connection that was lost; to be ended before another takes its place.
    lost: Option<Session>,
    /// When connecting failed last, and how.
    failed: Option<(Instant, Trouble)>,
}

impl Slot {
    /// With a connection in it.
    pub(super) fn with(link: Link) -> Self {
        Self(Mutex::new(State { link: Some(Arc::new(link)), ..State::default() }))
    }

    /// The connection; made now when there is none, which takes the connector's time limit at most,
    /// and `timeout` for what is left of the one before.
    pub(super) async fn link(
        &self,
        connector: &Connector,
        timeout: Duration,
    ) -> Result<Arc<Link>, Trouble> {
        let asked = Instant::now();
        let mut state = self.0.lock().await;
        if let Some(link) = &state.link
            && link.is_open()
        {
            return Ok(link.clone());
        }
        if let Some(lost) = state.link.take() {
            lost.close();
            state.lost = lost.session().cloned();
        }
        // Those who waited for a try that failed do not try one after the other.
        if let Some((at, trouble)) = &state.failed
            && *at >= asked
        {
            return Err(trouble.clone());
        }
        match Self::replace(connector, state.lost.as_ref(), timeout).await {
            Ok(link) => {
                let link = Arc::new(link);
                *state = State { link: Some(link.clone()), ..State::default() };
                Ok(link)
            }
            Err(reason) => {
                let trouble = Trouble::Refused(reason);
                state.failed = Some((Instant::now(), trouble.clone()));
                Err(trouble)
            }
        }
    }

    async fn replace(
        connector: &Connector,
        lost: Option<&Session>,
        timeout: Duration,
    ) -> Result<Link, String> {
        let link = connector.link(None).await?;
        if let Some(lost) = lost {
            let ended = lost.end(&link, Instant::now() + timeout).await;
            ended.map_err(|failed| failed.of_question().reason().to_owned())?;
        }
        Ok(link)
    }
}
