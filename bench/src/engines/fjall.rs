//! fjall: a log-structured merge tree, one write batch and one sync of its journal per batch.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Engine, Write};
use crate::Failure;
use crate::args::Args;

const MIB: u64 = 1 << 20;

/// The settings that matter to the gateway.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    cache: u64,
    memtable: u64,
    journals: u64,
    keyspaces: usize,
    workers: usize,
    sync: PersistMode,
    read_first: bool,
    /// Seal a full memtable from the writing thread instead of leaving that to the engine's workers.
    own_rotation: bool,
}

impl Settings {
    pub(crate) fn parse(args: &Args) -> Result<Self, Failure> {
        Ok(Self {
            cache: args.or("cache-mib", 32)? * MIB,
            memtable: args.or("memtable-mib", 8)? * MIB,
            journals: args.or("journal-mib", 64)? * MIB,
            keyspaces: args.or("keyspaces", 1)?,
            workers: args.or("workers", 1)?,
            sync: match args.text("sync") {
                None | Some("data") => PersistMode::SyncData,
                Some("all") => PersistMode::SyncAll,
                Some(other) => return Err(format!("--sync {other}: data or all").into()),
            },
            read_first: args.flag("read-first"),
            own_rotation: args.flag("own-rotation"),
        })
    }
}

pub(crate) struct Fjall {
    database: Database,
    pub(crate) records: Keyspace,
    /// Stands for the index of what expires when: a short entry per completed record.
    expiry: Option<Keyspace>,
    settings: Settings,
    /// Completed records so far: the time in the keys of the index.
    completed: u64,
    /// Bytes in the active memtables, as far as this thread knows.
    in_records: u64,
    in_expiry: u64,
}

/// An index's memtable is this much smaller than that of the records: it must be full about as often,
/// or it alone keeps old journals from being removed.
const INDEX_SHARE: u64 = 8;

/// What the engine adds to an entry in memory, roughly; the limit is not meant to be exact.
const ENTRY_OVERHEAD: u64 = 64;

impl Fjall {
    pub(crate) fn open(dir: &Path, settings: &Settings) -> Result<Self, Failure> {
        let database = Database::builder(dir)
            .cache_size(settings.cache)
            .max_journaling_size(settings.journals)
            .worker_threads(settings.workers)
            .open()?;
        // A full memtable makes every commit post one more request to seal it, into the bounded queue
        // that the workers themselves post to: with the queue full, a worker waits for itself (fjall's
        // pull request 323). With no limit set there are no such requests.
        let limit = if settings.own_rotation { u64::MAX } else { settings.memtable };
        let options = || KeyspaceCreateOptions::default().max_memtable_size(limit);
        let records = database.keyspace("records", options)?;
        let expiry = match settings.keyspaces {
            1 => None,
            _ => Some(database.keyspace("expiry", options)?),
        };
        let settings = *settings;
        Ok(Self { database, records, expiry, settings, completed: 0, in_records: 0, in_expiry: 0 })
    }
}

impl Engine for Fjall {
    fn commit(&mut self, batch: &[Write]) -> Result<(), Failure> {
        let mut writes = self.database.batch().durability(Some(self.settings.sync));
        for write in batch {
            if self.settings.read_first && write.claim && self.records.get(write.key)?.is_some() {
                return Err("a fresh key is there already".into());
            }
            self.in_records += ENTRY_OVERHEAD + write.value.len() as u64;
            writes.insert(&self.records, write.key, write.value.as_slice());
            if let (Some(expiry), false) = (&self.expiry, write.claim) {
                self.completed += 1;
                self.in_expiry += ENTRY_OVERHEAD + 24;
                let mut entry = [0; 24];
                entry[..8].copy_from_slice(&self.completed.to_be_bytes());
                entry[8..].copy_from_slice(&write.key);
                writes.insert(expiry, entry, []);
            }
        }
        writes.commit()?;
        if self.settings.own_rotation {
            self.rotate()?;
        }
        Ok(())
    }
}

impl Fjall {
    fn rotate(&mut self) -> Result<(), Failure> {
        if self.in_records > self.settings.memtable {
            self.records.rotate_memtable()?;
            self.in_records = 0;
        }
        if let Some(expiry) = &self.expiry
            && self.in_expiry > self.settings.memtable / INDEX_SHARE
        {
            expiry.rotate_memtable()?;
            self.in_expiry = 0;
        }
        Ok(())
    }
}
