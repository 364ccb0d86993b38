//! A place for a connection that is made again when it is lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::connect::Connector;
use super::connection::{Link, Sql};
use super::session::Session;
use crate::store::shared::engine::EngineError;

/// At most one connection, shared by all who ask.
#[derive(Debug)]
pub(super) struct Slot {
    /// What its connections are for: prepared before they are used, so that the first to ask does
    /// not wait for that as well.
    statements: &'static [&'static Sql],
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    link: Option<Arc<Link>>,
    /// Behind a connection that was lost; to be ended before another takes its place.
    lost: Option<Session>,
    /// When connecting failed last, and how.
    failed: Option<(Instant, EngineError)>,
}

impl Slot {
    /// Without a connection yet.
    pub(super) fn new(statements: &'static [&'static Sql]) -> Self {
        Self { statements, state: Mutex::default() }
    }

    /// With a connection in it.
    pub(super) fn with(link: Link) -> Self {
        let state = State { link: Some(Arc::new(link)), ..State::default() };
        Self { statements: &[], state: Mutex::new(state) }
    }

    /// The connection; made now when there is none, which takes the connector's time limit at most,
    /// and `timeout` for what is left of the one before.
    pub(super) async fn link(
        &self,
        connector: &Connector,
        timeout: Duration,
    ) -> Result<Arc<Link>, EngineError> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
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
        match self.replace(connector, state.lost.as_ref(), timeout).await {
            Ok(link) => {
                let link = Arc::new(link);
                *state = State { link: Some(link.clone()), ..State::default() };
                Ok(link)
            }
            Err(reason) => {
                let trouble = EngineError::Rejected(reason);
                state.failed = Some((Instant::now(), trouble.clone()));
                Err(trouble)
            }
        }
    }

    async fn replace(
        &self,
        connector: &Connector,
        lost: Option<&Session>,
        timeout: Duration,
    ) -> Result<Link, String> {
        let link = connector.link(None).await?;
        if let Some(lost) = lost {
            let ended = lost.end(&link, Instant::now() + timeout).await;
            ended.map_err(|failed| failed.of_question().reason().to_owned())?;
        }
        let prepared = link.prepare(self.statements, Instant::now() + timeout).await;
        prepared.map_err(|failed| failed.of_question().reason().to_owned())?;
        Ok(link)
    }
}
