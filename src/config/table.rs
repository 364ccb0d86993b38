//! Tables of a file, read key by key straight into the types of the configuration. Keys never asked
//! for are unknown keys. A mistake is noted, and the default replaces the value.

use std::cell::{LazyCell, RefCell};
use std::path::PathBuf;

use super::catalog::{Catalog, KnownKey};
use super::diagnostics::{Diagnostics, alternatives, belongs, nearest};
use super::document::{TomlMember, TomlNode, TomlValue};
use super::files::ConfigFiles;
use super::units::Scalar;

/// The state shared by the tables of a file during reading.
pub(super) struct Reading {
    pub(super) diagnostics: Diagnostics,
    /// The directory at which relative paths start.
    pub(super) base: PathBuf,
    /// False when files named by `*_file` keys are not read.
    pub(super) files: bool,
    /// The files that the configuration names.
    pub(super) named: RefCell<ConfigFiles>,
    /// Every key of every table, for advice on a key in the wrong one.
    all_keys: LazyCell<Vec<KnownKey>>,
    /// The keys asked for. Collected only to answer `all_keys`; absent tables are read then too.
    catalog: Option<Catalog>,
}

impl Reading {
    pub(super) fn new(base: PathBuf, all_keys: fn() -> Vec<KnownKey>) -> Self {
        Self {
            diagnostics: Diagnostics::default(),
            base,
            files: true,
            named: RefCell::default(),
            all_keys: LazyCell::new(all_keys),
            catalog: None,
        }
    }

    /// Every key that `read` asks for, whatever the tables in `members` hold.
    pub(super) fn catalog(
        members: &[TomlMember],
        read: impl FnOnce(&TableReader<'_>),
    ) -> Vec<KnownKey> {
        let mut reading = Self::new(PathBuf::new(), Vec::new);
        reading.catalog = Some(Catalog::default());
        reading.root(members, read);
        reading.catalog.take().map(Catalog::into_keys).unwrap_or_default()
    }

    /// Reads the root table.
    pub(super) fn root<T>(
        &self,
        members: &[TomlMember],
        read: impl FnOnce(&TableReader<'_>) -> T,
    ) -> T {
        TableReader::new(self, String::new(), false, None, members).read(read)
    }
}

/// A value with the key and the place in the file.
#[derive(Debug)]
pub(super) struct Located<T> {
    pub(super) key: &'static str,
    pub(super) at: usize,
    pub(super) value: T,
}

/// A table that is being read.
pub(super) struct TableReader<'d> {
    pub(super) reading: &'d Reading,
    /// `route.key`; empty for the root.
    path: String,
    /// Marks one of several tables, `[[route]]`.
    repeated: bool,
    /// The place of its header; `None`: the root, and tables that are not in the file.
    at: Option<usize>,
    members: &'d [TomlMember],
    asked: RefCell<Vec<&'static str>>,
    /// Keys whose values are mistakes.
    pub(super) failed: RefCell<Vec<&'static str>>,
    missing: RefCell<Vec<MissingKeys>>,
}

/// A mistake, unless a key in `keys` is misspelled or unreadable.
struct MissingKeys {
    keys: Vec<&'static str>,
    at: Option<usize>,
    what: String,
}

impl<'d> TableReader<'d> {
    fn new(
        reading: &'d Reading,
        path: String,
        repeated: bool,
        at: Option<usize>,
        members: &'d [TomlMember],
    ) -> Self {
        Self {
            reading,
            path,
            repeated,
            at,
            members,
            asked: RefCell::default(),
            failed: RefCell::default(),
            missing: RefCell::default(),
        }
    }

    pub(super) fn read<T>(self, read: impl FnOnce(&Self) -> T) -> T {
        let value = read(&self);
        self.finish();
        value
    }

    /// Notes unknown keys, then missing keys.
    fn finish(self) {
        let known = self.asked.into_inner();
        let mut excused = self.failed.into_inner();
        let inside =
            if self.path.is_empty() { String::new() } else { format!(" in `{}`", self.path) };
        for member in self.members {
            let name = member.key.as_str();
            if known.contains(&name) {
                continue;
            }
            let advice = match nearest(name, known.iter().copied()) {
                Some(meant) => {
                    // A misspelled key is not missing as well.
                    excused.extend(known.iter().find(|key| **key == meant));
                    format!("did you mean `{meant}`?")
                }
                None => match belongs(&self.reading.all_keys, name) {
                    Some(tables) => tables,
                    None => {
                        let known = alternatives(known.iter().copied(), |name| format!("`{name}`"));
                        format!("known here: {known}")
                    }
                },
            };
            let what = format!("unknown key `{name}`{inside}; {advice}");
            self.reading.diagnostics.note(Some(member.key_at), what);
        }
        for MissingKeys { keys, at, what } in self.missing.into_inner() {
            if !keys.iter().any(|key| excused.contains(key)) {
                self.reading.diagnostics.note(at, what);
            }
        }
    }

    /// `[route.key]` or `[[route]]`; empty for the root.
    fn title(&self) -> String {
        match (self.path.as_str(), self.repeated) {
            ("", _) => String::new(),
            (path, true) => format!("[[{path}]]"),
            (path, false) => format!("[{path}]"),
        }
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn node(&self, key: &'static str) -> Option<&'d TomlNode> {
        if let Some(catalog) = &self.reading.catalog {
            catalog.note(self.title(), key);
        }
        self.ask(key);
        self.members.iter().find(|member| member.key == key).map(|member| &member.node)
    }

    /// Notes the values that a key takes. The first description counts: the outer reader of a value
    /// knows more of it than those that it calls.
    pub(super) fn note_kind(&self, key: &'static str, kind: impl FnOnce() -> String) {
        if let Some(catalog) = &self.reading.catalog {
            catalog.entry(self.title(), key, |known| {
                if known.kind.is_empty() {
                    known.kind = kind();
                }
            });
        }
    }

    /// Notes the value of an absent key.
    pub(super) fn note_default(&self, key: &'static str, default: impl FnOnce() -> String) {
        if let Some(catalog) = &self.reading.catalog {
            catalog.entry(self.title(), key, |known| known.default = default());
        }
    }

    fn ask(&self, key: &'static str) {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(&key) {
            asked.push(key);
        }
    }

    /// Notes a mistake at a place that belongs to `key`.
    pub(super) fn fail(&self, key: &'static str, at: usize, what: impl Into<String>) {
        self.failed.borrow_mut().push(key);
        self.reading.diagnostics.note(Some(at), what);
    }

    /// Notes a mistake at a value.
    pub(super) fn wrong<T>(&self, value: &Located<T>, what: impl Into<String>) {
        self.fail(value.key, value.at, what);
    }

    /// Notes a mistake at the first of `keys` that is in the file, else at the table.
    pub(super) fn wrong_at(&self, keys: &[&'static str], what: impl Into<String>) {
        let at = keys.iter().find_map(|key| self.place(key)).or(self.at);
        self.reading.diagnostics.note(at, what);
    }

    /// Notes a mistake at another table's place.
    pub(super) fn wrong_elsewhere(&self, at: Option<usize>, what: impl Into<String>) {
        self.reading.diagnostics.note(at, what);
    }

    /// Reports missing `keys` at the end of the table, unless a key is misspelled or unreadable.
    pub(super) fn missing(&self, keys: &[&'static str], what: impl Into<String>) {
        self.missing_at(self.at, keys, what);
    }

    /// Notes missing keys like [`Self::missing`], at another place.
    pub(super) fn missing_at(
        &self,
        at: Option<usize>,
        keys: &[&'static str],
        what: impl Into<String>,
    ) {
        self.missing.borrow_mut().push(MissingKeys { keys: keys.to_vec(), at, what: what.into() });
    }

    pub(super) fn other_kind(&self, key: &'static str, node: &TomlNode, expected: &str) {
        if matches!(node.value, TomlValue::Unreadable) {
            self.failed.borrow_mut().push(key);
            return;
        }
        let (path, kind) = (self.path_of(key), node.value.kind());
        self.fail(key, node.at, format!("`{path}` is {kind}, but must be {expected}"));
    }

    /// `true` when the key is in the file.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.place(key).is_some()
    }

    /// The place of the key's value, when it is in the file.
    pub(super) fn place(&self, key: &'static str) -> Option<usize> {
        self.node(key).map(|node| node.at)
    }

    /// The value of a key.
    pub(super) fn optional<T: Scalar>(&self, key: &'static str) -> Option<Located<T>> {
        self.note_kind(key, || T::EXPECTED.to_owned());
        self.scalar(key, self.node(key)?)
    }

    /// The value of a necessary key; `what` is the mistake without the key.
    pub(super) fn required<T: Scalar>(
        &self,
        key: &'static str,
        what: impl Into<String>,
    ) -> Option<Located<T>> {
        if !self.has(key) {
            self.missing(&[key], what);
        }
        self.optional(key)
    }

    pub(super) fn scalar<T: Scalar>(
        &self,
        key: &'static str,
        node: &TomlNode,
    ) -> Option<Located<T>> {
        let read = match &node.value {
            TomlValue::Text(text) => Some(T::from_text(text)),
            TomlValue::Integer(number) => T::from_integer(*number),
            TomlValue::Float(number) => T::from_fraction(*number),
            TomlValue::Flag(flag) => T::from_flag(*flag).map(Ok),
            TomlValue::Date | TomlValue::List(_) | TomlValue::Table(_) | TomlValue::Unreadable => {
                None
            }
        };
        match read {
            Some(Ok(value)) => return Some(Located { key, at: node.at, value }),
            Some(Err(what)) => self.fail(key, node.at, format!("`{}`: {what}", self.path_of(key))),
            None => self.other_kind(key, node, T::EXPECTED),
        }
        None
    }

    /// The elements of a list that can be read; `None`: the list is not in the file.
    pub(super) fn list<T: Scalar>(&self, key: &'static str) -> Option<Vec<Located<T>>> {
        self.note_kind(key, || format!("a list; each is {}", T::EXPECTED));
        let node = self.node(key)?;
        let TomlValue::List(elements) = &node.value else {
            self.other_kind(key, node, "a list: [ … ]");
            return None;
        };
        Some(elements.iter().filter_map(|element| self.scalar(key, element)).collect())
    }

    /// The elements of a list that may not be empty; `advice` says what to write.
    pub(super) fn filled_list<T: Scalar>(
        &self,
        key: &'static str,
        advice: &str,
    ) -> Option<Vec<Located<T>>> {
        if let Some(TomlNode { at, value: TomlValue::List(elements) }) = self.node(key)
            && elements.is_empty()
        {
            self.fail(key, *at, format!("`{key}` is empty; {advice}"));
        }
        self.list(key)
    }

    pub(super) fn child(
        &self,
        key: &'static str,
        repeated: bool,
        node: &'d TomlNode,
    ) -> Option<Self> {
        let TomlValue::Table(members) = &node.value else {
            self.other_kind(key, node, "a table");
            return None;
        };
        Some(Self::new(self.reading, self.path_of(key), repeated, Some(node.at), members))
    }

    pub(super) fn absent_child(&self, key: &'static str, repeated: bool) -> Self {
        Self::new(self.reading, self.path_of(key), repeated, self.at, &[])
    }

    /// True if an absent table is to be read for its keys; a table inside its like has no new keys.
    pub(super) fn catalogs(&self, key: &str) -> bool {
        self.reading.catalog.is_some() && !self.path.ends_with(key)
    }

    /// A table of which every key may be left out.
    pub(super) fn table<T>(&self, key: &'static str, read: impl FnOnce(&Self) -> T) -> T {
        self.note_kind(key, || "a table".to_owned());
        let child = self.node(key).and_then(|node| self.child(key, false, node));
        child.unwrap_or_else(|| self.absent_child(key, false)).read(read)
    }

    /// A table that may be left out as a whole.
    pub(super) fn optional_table<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&Self) -> T,
    ) -> Option<T> {
        self.note_kind(key, || "a table".to_owned());
        let child = match self.node(key) {
            Some(node) => self.child(key, false, node),
            None => self.catalogs(key).then(|| self.absent_child(key, false)),
        };
        child.map(|child| child.read(read))
    }

    /// Each of the tables `[[key]]`.
    pub(super) fn each_table(&self, key: &'static str, mut read: impl FnMut(&Self)) {
        self.note_kind(key, || "several tables".to_owned());
        match self.node(key) {
            Some(TomlNode { value: TomlValue::List(elements), .. }) => {
                let children = elements.iter().filter_map(|node| self.child(key, true, node));
                children.for_each(|child| child.read(&mut read));
            }
            Some(node @ TomlNode { value: TomlValue::Table(_), .. }) => {
                let what =
                    format!("`{key}` is one table, but there may be several; write [[{key}]]");
                self.fail(key, node.at, what);
            }
            Some(node) => self.other_kind(key, node, "a list: [ … ]"),
            None if self.catalogs(key) => self.absent_child(key, true).read(&mut read),
            None => {}
        }
    }
}
