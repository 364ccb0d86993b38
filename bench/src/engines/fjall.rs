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
}

impl Settings {
    pub(crate) fn parse(args: &Args) -> Result<Self, Failure> {
        Ok(Self {
            cache: args.or("cache-mib", 32)? * MIB,
            memtable: args.or("memtable-mib", 16)? * MIB,
            journals: args.or("journal-mib", 64)? * MIB,
            keyspaces: args.or("keyspaces", 1)?,
            workers: args.or("workers", 1)?,
            sync: match args.text("sync") {
                None | Some("data") => PersistMode::SyncData,
                Some("all") => PersistMode::SyncAll,
                Some(other) => return Err(format!("--sync {other}: data or all").into()),
            },
            read_first: args.flag("read-first"),
        })
    }
}

pub(crate) struct Fjall {
    database: Database,
    pub(crate) records: Keyspace,
    /// Stands for the index of what expires when: a short entry per completed record.
    expiry: Option<Keyspace>,
    settings: Settings,
    written: u64,
}

impl Fjall {
    pub(crate) fn open(dir: &Path, settings: &Settings) -> Result<Self, Failure> {
        let database = Database::builder(dir)
            .cache_size(settings.cache)
            .max_journaling_size(settings.journals)
            .worker_threads(settings.workers)
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(settings.memtable);
        let records = database.keyspace("records", options)?;
        let expiry = match settings.keyspaces {
            1 => None,
            _ => Some(database.keyspace("expiry", options)?),
        };
        Ok(Self { database, records, expiry, settings: *settings, written: 0 })
    }
}

impl Engine for Fjall {
    fn commit(&mut self, batch: &[Write]) -> Result<(), Failure> {
        let mut writes = self.database.batch().durability(Some(self.settings.sync));
        for write in batch {
            if self.settings.read_first && write.claim && self.records.get(write.key)?.is_some() {
                return Err("a fresh key is there already".into());
            }
            writes.insert(&self.records, write.key, write.value.as_slice());
            if let (Some(expiry), false) = (&self.expiry, write.claim) {
                self.written += 1;
                let mut entry = [0; 24];
                entry[..8].copy_from_slice(&self.written.to_be_bytes());
                entry[8..].copy_from_slice(&write.key);
                writes.insert(expiry, entry, []);
            }
        }
        Ok(writes.commit()?)
    }
}
