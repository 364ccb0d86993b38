//! The keys that the code reads, with their kinds of values and defaults: advice on misplaced keys
//! and the generated reference come from them.
//!
//! The catalog is collected by reading a configuration that has nothing but routes: every reader
//! of a key notes it, and readers of absent tables run too. So it cannot differ from the code.

use std::cell::RefCell;

/// A key of a table.
#[derive(Debug, Clone)]
pub(super) struct KnownKey {
    /// The title of the table, `[server]` or `[[route]]`; empty for the root.
    pub(super) table: String,
    pub(super) key: &'static str,
    /// The values that it takes; empty: those of a reader made for this key alone.
    pub(super) kind: String,
    /// The value of an absent key, as the file would have it; empty: none, or one of no fixed text.
    pub(super) default: String,
}

/// The keys in the order of reading, each of them once.
#[derive(Debug, Default)]
pub(super) struct Catalog(RefCell<Vec<KnownKey>>);

impl Catalog {
    pub(super) fn into_keys(self) -> Vec<KnownKey> {
        self.0.into_inner()
    }

    /// Changes the entry of a key, or adds it.
    pub(super) fn entry(
        &self,
        table: String,
        key: &'static str,
        change: impl FnOnce(&mut KnownKey),
    ) {
        let mut keys = self.0.borrow_mut();
        let at = keys.iter().position(|known| known.key == key && known.table == table);
        let at = at.unwrap_or_else(|| {
            let (kind, default) = (String::new(), String::new());
            keys.push(KnownKey { table, key, kind, default });
            keys.len() - 1
        });
        change(&mut keys[at]);
    }

    /// Notes that a table has a key.
    pub(super) fn note(&self, table: String, key: &'static str) {
        self.entry(table, key, |_| {});
    }
}
