//! `[store] encryption`: the master keys.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::table::{Located, TableReader};
use crate::hex;
use crate::store::seal::{KEY, Keyring, MasterKey};

/// Keys of former times, at most.
const MOST_PREVIOUS: usize = 16;

/// `[store] encryption`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EncryptionConfig {
    /// The file of the key that seals.
    pub key_file: PathBuf,
    /// Files of keys that open what was sealed before.
    pub previous_key_files: Vec<PathBuf>,
    /// The keys; `None`: files were not read.
    #[serde(skip)]
    pub keyring: Option<Keyring>,
}

pub(super) fn encryption(table: &TableReader<'_>) -> Option<EncryptionConfig> {
    table.optional_table("encryption", read).flatten()
}

fn read(table: &TableReader<'_>) -> Option<EncryptionConfig> {
    if !table.has("key_file") {
        let what = "`encryption` needs `key_file`, a file with 32 bytes as hex or base64";
        table.missing(&["key_file"], what);
    }
    let key_file = table.path("key_file");
    let current = table.file_text("key_file").and_then(|text| key(table, &text));
    let mut previous_key_files = Vec::new();
    let mut previous = Vec::new();
    let written = table.list::<String>("previous_key_files").unwrap_or_default();
    if let Some(first) = written.get(MOST_PREVIOUS) {
        let what = format!("`previous_key_files` names more than {MOST_PREVIOUS} files");
        table.wrong(first, what);
    }
    for written in written.into_iter().take(MOST_PREVIOUS) {
        let (path, text) = table.text_of(written);
        previous_key_files.push(path);
        previous.extend(text.and_then(|text| key(table, &text)));
    }
    let keyring = current.map(|current| Keyring::new(current, previous));
    Some(EncryptionConfig { key_file: key_file?, previous_key_files, keyring })
}

/// The key in the text of a file; `None` also where files are not read.
fn key(table: &TableReader<'_>, text: &Located<String>) -> Option<MasterKey> {
    if !table.reads_files() {
        return None;
    }
    let line = text.value.trim();
    let base64 = || <[u8; KEY]>::try_from(STANDARD.decode(line).ok()?).ok();
    let key = hex::decode(line).or_else(base64);
    if key.is_none() {
        let what = format!(
            "`{}`: the file holds no key; write 32 random bytes on one line, as 64 hexadecimal \
             digits or as base64, for example by `openssl rand -base64 32`",
            text.key
        );
        table.wrong(text, what);
    }
    key.map(MasterKey::new)
}
