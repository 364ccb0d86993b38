//! The directory of callers, a file of its own: a table for each caller.

use std::path::Path;
use std::sync::Arc;

use super::document::{self, TomlNode, TomlValue};
use super::table::{Reading, TableReader};
use crate::caller::{Directory, DirectoryEntry};
use crate::hex;
use crate::idempotency::TenantId;

/// Callers of the largest directory.
const MOST_CALLERS: usize = 100_000;

/// The directory that the key `directory` names. The mistakes of that file are noted at the key.
pub(super) fn directory(table: &TableReader<'_>) -> Option<Arc<Directory>> {
    let text = table.file_text("directory").filter(|_| table.reads_files())?;
    let path = table.optional::<String>("directory").map(|path| path.value).unwrap_or_default();
    match parse(&text.value, &path) {
        Ok(directory) => Some(Arc::new(directory)),
        Err(mistakes) => {
            for mistake in mistakes {
                table.wrong(&text, format!("`directory`: {mistake}"));
            }
            None
        }
    }
}

/// Reads the text of a directory; `name` is the file's.
pub(super) fn parse(text: &str, name: &str) -> Result<Directory, Vec<String>> {
    let base = Path::new("").to_owned();
    let reading = Reading::new(base, Vec::new);
    let members = document::parse(text, &|_| None, &reading.diagnostics);
    let mut directory = Directory::default();
    if let Some(members) = &members {
        if members.len() > MOST_CALLERS {
            reading.diagnostics.note(None, format!("more than {MOST_CALLERS} callers"));
        }
        for member in members.iter().take(MOST_CALLERS) {
            let TomlNode { at, value: TomlValue::Table(inside) } = &member.node else {
                let what = format!("`{}` is no table; write [{0}] and its lines", member.key);
                reading.diagnostics.note(Some(member.key_at), what);
                continue;
            };
            let entry = reading.root(inside, |table| entry(table, &member.key));
            if let Err(error) = directory.add(entry) {
                reading.diagnostics.note(Some(*at), format!("[{}]: {error}", member.key));
            }
        }
    }
    match reading.diagnostics.finish(name, text) {
        Err(mistakes) => Err(mistakes.to_string().lines().map(str::to_owned).collect()),
        Ok(_) => Ok(directory),
    }
}

fn entry(table: &TableReader<'_>, name: &str) -> DirectoryEntry {
    if name.is_empty() || name.chars().any(char::is_control) {
        table.wrong_at(&[], "the name of a caller is one or more characters");
    }
    let texts = |key| {
        let list = table.list::<String>(key).unwrap_or_default();
        list.into_iter().map(|written| written.value).collect::<Vec<_>>()
    };
    let mut digests = Vec::new();
    for written in table.list::<String>("digests").unwrap_or_default() {
        match hex::decode(&written.value) {
            Some(digest) => digests.push(digest),
            None => {
                let what = "`digests`: write the SHA-256 of a credential as 64 hex digits, such as \
                            `printf %s \"$KEY\" | sha256sum` prints it";
                table.wrong(&written, what);
            }
        }
    }
    let id = table.optional::<String>("id").and_then(|written| {
        let id = TenantId::parse(&written.value);
        if id.is_none() {
            let what = "`id` is the 32 hex digits that records show for the caller";
            table.wrong(&written, what);
        }
        id
    });
    let (uris, dns, jwt) = (texts("uris"), texts("dns"), texts("jwt"));
    if digests.is_empty() && uris.is_empty() && dns.is_empty() && jwt.is_empty() {
        let what =
            format!("[{name}] has nothing to be known by: `digests`, `uris`, `dns` or `jwt`");
        table.missing(&["digests", "uris", "dns", "jwt"], what);
    }
    DirectoryEntry { name: name.to_owned(), digests, uris, dns, jwt, id }
}
