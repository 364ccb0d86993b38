//! Lists of a batch: their kinds, and their paths, pointers in which one name may be `*`.

use super::document::TomlValue;
use super::table::{Located, TableReader};
use super::values::never_matches;
use crate::items::list_path::ListPath;
use crate::items::rules::ListKind;

impl TableReader<'_> {
    /// A text, or a list of texts that is not empty.
    fn texts(&self, key: &'static str) -> Option<Vec<Located<String>>> {
        self.note_kind(key, || "a path of a list, or a list of them".to_owned());
        match self.node(key)?.value {
            TomlValue::List(_) => self.filled_list(key, "name at least one place"),
            _ => self.optional(key).map(|text| vec![text]),
        }
    }

    /// The path of a list.
    pub(super) fn list_path(&self, key: &'static str) -> Option<ListPath> {
        self.note_kind(key, || "a path of a list".to_owned());
        self.parsed_list_path(&self.optional(key)?)
    }

    /// The paths of a list, or of several lists.
    pub(super) fn one_or_more_list_paths(&self, key: &'static str) -> Option<Vec<ListPath>> {
        Some(self.distinct_paths(key, self.texts(key)?))
    }

    /// A list of paths.
    pub(super) fn list_paths(&self, key: &'static str) -> Option<Vec<ListPath>> {
        self.note_kind(key, || "a list of paths of lists".to_owned());
        Some(self.distinct_paths(key, self.list(key)?))
    }

    fn distinct_paths(&self, key: &'static str, texts: Vec<Located<String>>) -> Vec<ListPath> {
        let mut paths = Vec::with_capacity(texts.len());
        for written in texts {
            let Some(path) = self.parsed_list_path(&written) else { continue };
            if paths.contains(&path) {
                self.wrong(&written, format!("`{key}` names {path} twice"));
            } else {
                paths.push(path);
            }
        }
        paths
    }

    fn parsed_list_path(&self, written: &Located<String>) -> Option<ListPath> {
        let (key, text) = (written.key, &written.value);
        match ListPath::parse(text) {
            Ok(path) => {
                let parts = std::iter::once(path.outer()).chain(path.inner());
                if let Some(advice) = parts.into_iter().find_map(never_matches) {
                    self.wrong(written, format!("`{key}`: \"{text}\" can never match: {advice}"));
                }
                Some(path)
            }
            Err(error) => {
                self.wrong(written, format!("`{key}`: \"{text}\": {error}"));
                None
            }
        }
    }
}

/// `single` and `map`: the value that holds the items or rows.
pub(super) fn list_kind(table: &TableReader<'_>, preset: ListKind) -> ListKind {
    let single = table.optional::<bool>("single").map(|flag| flag.value);
    let map = table.optional::<bool>("map");
    if let Some(map) = map.as_ref().filter(|map| map.value && single == Some(true)) {
        let what = "`single` and `map` exclude each other: one value, or an object of values";
        table.wrong(map, what);
    }
    match (single, map.map(|map| map.value)) {
        (_, Some(true)) => ListKind::Map,
        (Some(true), _) => ListKind::Single,
        (None, None) => preset,
        (Some(false), _) | (_, Some(false)) => ListKind::Array,
    }
}
