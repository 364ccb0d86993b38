//! The floor: one write and one `fdatasync` per batch, no index, nothing readable.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use super::{Engine, Write};
use crate::Failure;

pub(crate) struct Append {
    file: File,
    buffer: Vec<u8>,
}

impl Append {
    pub(crate) fn open(dir: &Path) -> Result<Self, Failure> {
        Ok(Self { file: File::create(dir.join("log"))?, buffer: Vec::new() })
    }
}

impl Engine for Append {
    fn commit(&mut self, batch: &[Write]) -> Result<(), Failure> {
        self.buffer.clear();
        for write in batch {
            self.buffer.extend_from_slice(&write.key);
            self.buffer.extend_from_slice(&(write.value.len() as u32).to_le_bytes());
            self.buffer.extend_from_slice(&write.value);
        }
        self.file.write_all(&self.buffer)?;
        Ok(self.file.sync_data()?)
    }
}
