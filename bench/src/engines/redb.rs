//! redb: a copy-on-write B-tree, one write transaction per batch.

use std::path::Path;

use redb::{Database, Durability, TableDefinition};

use super::{Engine, Write};
use crate::Failure;

const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

/// The same bound as fjall's block cache.
const CACHE: usize = 32 << 20;

pub(crate) struct Redb(Database);

impl Redb {
    pub(crate) fn open(dir: &Path) -> Result<Self, Failure> {
        Ok(Self(Database::builder().set_cache_size(CACHE).create(dir.join("redb"))?))
    }
}

impl Engine for Redb {
    fn commit(&mut self, batch: &[Write]) -> Result<(), Failure> {
        let mut transaction = self.0.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut table = transaction.open_table(RECORDS)?;
            for write in batch {
                table.insert(write.key.as_slice(), write.value.as_slice())?;
            }
        }
        Ok(transaction.commit()?)
    }
}
