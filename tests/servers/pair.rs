//! A PostgreSQL primary and its synchronous standby.

use std::process::Command;

use super::place::{Owner, Place};
use super::postgres::{Postgres, binary};
use super::process::run;
use super::until;

/// The standby's name towards the primary.
const STANDBY: &str = "standby";

/// Two servers; a commit on the primary returns when the standby has it on disk.
#[derive(Debug)]
pub(crate) struct PostgresPair {
    primary: Postgres,
    standby: Postgres,
}

impl PostgresPair {
    /// Starts both; `settings` go to both. Ready when the standby is synchronous.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        let primary = Postgres::start(settings);
        let owner = Owner::unprivileged();
        let place = Place::new("pg", owner);
        let mut backup = Command::new(binary("pg_basebackup"));
        backup.arg("-D").arg(place.path().join("data")).args([
            "--checkpoint=fast",
            "--no-sync",
            "--wal-method=stream",
        ]);
        primary.by_socket(&mut backup);
        Owner::runs(owner, &mut backup);
        run(&mut backup).unwrap_or_else(|error| panic!("no copy of the primary: {error}"));
        place.write("data/standby.signal", "", owner);
        let source = format!(
            "host={} port={} user={} application_name={STANDBY}",
            primary.sockets().display(),
            primary.port(),
            super::postgres::USER,
        );
        let own = [("primary_conninfo", source.as_str()), ("wal_retrieve_retry_interval", "100ms")];
        let standby = Postgres::begin(place, &own, None);
        let pair = Self { primary, standby };
        pair.require_standby(true);
        pair
    }

    /// The server that was the primary at the start.
    pub(crate) fn primary(&self) -> &Postgres {
        &self.primary
    }

    /// The server that was the standby at the start; the primary after [`Self::fail_over`].
    /// Stop, pause or restart it through its own methods.
    pub(crate) fn standby(&self) -> &Postgres {
        &self.standby
    }

    /// Whether the primary's commits wait for the standby. They do from the start.
    pub(crate) fn require_standby(&self, required: bool) {
        let names = if required { STANDBY } else { "" };
        self.primary.run_sql(&format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"));
        self.primary.run_sql("SELECT pg_reload_conf()");
        if required {
            self.until_synchronous();
        }
    }

    /// Waits until the standby follows the primary synchronously, as after a restart of either.
    pub(crate) fn until_synchronous(&self) {
        until("the standby becomes synchronous", || {
            let states = self.primary.run_sql("SELECT sync_state FROM pg_stat_replication");
            if states == "sync" {
                Ok(())
            } else {
                Err(format!("sync_state is {states:?}\n{}", self.standby.log()))
            }
        });
    }

    /// Kills the primary hard and makes the standby the primary. The old one stays down; started
    /// again it takes writes as if nothing had happened.
    pub(crate) fn fail_over(&self) {
        self.primary.kill();
        self.standby.promote();
    }
}
