//! The names under which keys are kept: the file `data/names`, replaced as a whole.
//!
//! ```text
//! oncename · version u64 · xxh3 u64 of store id, version and document · document
//! ```
//!
//! A file of its own and no entry of the table: the table changes with its checkpoints only, and
//! these bytes must be durable before the first claim.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use xxhash_rust::xxh3::Xxh3;

use crate::store::{NamesDocument, StoreError};

const NAMES: &str = "names";
const NEW: &str = "names.new";
const MAGIC: &[u8; 8] = b"oncename";
const HEADER: usize = 24;

/// The file.
pub(super) struct NamesFile {
    /// The directory `data`.
    directory: PathBuf,
    store_id: uuid::Uuid,
    /// Held while the version is compared and the file replaced; no other process has the store
    /// open.
    replacing: Mutex<()>,
}

impl NamesFile {
    pub(super) fn new(directory: PathBuf, store_id: uuid::Uuid) -> Self {
        Self { directory, store_id, replacing: Mutex::new(()) }
    }

    pub(super) fn read(&self) -> Result<Option<NamesDocument>, StoreError> {
        match fs::read(self.directory.join(NAMES)) {
            Ok(bytes) => self.decode(&bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.unavailable(&error.to_string())),
        }
    }

    pub(super) fn replace(&self, expect: Option<u64>, bytes: &[u8]) -> Result<bool, StoreError> {
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.read()?.map(|names| names.version) != expect {
            return Ok(false);
        }
        let encoded = self.encode(expect.unwrap_or(0) + 1, bytes);
        self.write(&encoded).map_err(|error| self.unavailable(&error.to_string()))?;
        Ok(true)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let new = self.directory.join(NEW);
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, self.directory.join(NAMES))?;
        File::open(&self.directory)?.sync_all()
    }

    fn encode(&self, version: u64, document: &[u8]) -> Vec<u8> {
        let checksum = self.checksum(version, document);
        [MAGIC, &version.to_le_bytes(), &checksum.to_le_bytes(), document].concat()
    }

    fn decode(&self, bytes: &[u8]) -> Result<NamesDocument, StoreError> {
        let decoded = bytes.split_at_checked(HEADER).and_then(|(header, document)| {
            let number = |at: usize| Some(u64::from_le_bytes(*header[at..].first_chunk()?));
            let (version, checksum) = (number(8)?, number(16)?);
            let sound = header.starts_with(MAGIC) && checksum == self.checksum(version, document);
            sound.then(|| NamesDocument { version, bytes: document.to_vec() })
        });
        decoded.ok_or_else(|| self.unavailable("its checksum is wrong; restore it from a backup"))
    }

    fn checksum(&self, version: u64, document: &[u8]) -> u64 {
        let mut hash = Xxh3::new();
        hash.update(self.store_id.as_bytes());
        hash.update(&version.to_le_bytes());
        hash.update(document);
        hash.digest()
    }

    fn unavailable(&self, reason: &str) -> StoreError {
        let path = self.directory.join(NAMES);
        StoreError::Unavailable(format!("the file {}: {reason}", path.display()))
    }
}

/// Checks the file of a store.
pub(super) fn check(directory: &Path, store_id: uuid::Uuid) -> Result<(), StoreError> {
    NamesFile::new(directory.to_owned(), store_id).read().map(drop)
}
