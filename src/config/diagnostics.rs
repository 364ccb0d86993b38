//! The mistakes of a configuration, with places.

use std::cell::RefCell;
use std::fmt;

/// Tables that are named as the right ones for a key, at most; more are no advice.
const MOST_TABLES: usize = 4;

/// Mistakes to report at most; a file with more is not a configuration.
pub(super) const MOST_MISTAKES: usize = 200;

/// The mistakes of a configuration, in the order of the lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes {
    /// The file, as it was named.
    pub source: String,
    /// At least a single mistake.
    pub list: Vec<Mistake>,
}

/// A mistake and the remedy. The text never holds values of secrets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Line and column, both counted from 1, the column in characters; `None`: no single place.
    pub at: Option<(usize, usize)>,
    /// A sentence with the mistake and the remedy.
    pub what: String,
}

impl Mistakes {
    /// A single mistake without a position in the file.
    pub fn one(source: impl Into<String>, what: impl Into<String>) -> Self {
        Self { source: source.into(), list: vec![Mistake { at: None, what: what.into() }] }
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, mistake) in self.list.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&self.source)?;
            if let Some((line, column)) = mistake.at {
                write!(f, ":{line}:{column}")?;
            }
            write!(f, ": {}", mistake.what)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// The mistakes noted while a file is read. Noting takes a shared reference, so that every table
/// can hold the collection at the same time.
#[derive(Debug, Default)]
pub(super) struct Diagnostics {
    /// Byte offsets, where a mistake has a place, and texts.
    notes: RefCell<Vec<(Option<usize>, String)>>,
}

impl Diagnostics {
    /// Notes a mistake at a byte offset.
    pub(super) fn note(&self, at: Option<usize>, what: impl Into<String>) {
        self.notes.borrow_mut().push((at, what.into()));
    }

    /// The mistakes of the file `source` with this `text`; `None`: no mistakes.
    pub(super) fn into_mistakes(self, source: &str, text: &str) -> Option<Mistakes> {
        let mut notes = self.notes.into_inner();
        notes.sort();
        notes.dedup();
        let more = notes.len().saturating_sub(MOST_MISTAKES);
        notes.truncate(MOST_MISTAKES);
        let place = |at: usize| line_and_column(text, at);
        let mut list: Vec<Mistake> =
            notes.into_iter().map(|(at, what)| Mistake { at: at.map(place), what }).collect();
        if more > 0 {
            list.push(Mistake { at: None, what: format!("{more} more mistakes are not listed") });
        }
        (!list.is_empty()).then(|| Mistakes { source: source.to_owned(), list })
    }
}

/// The line and the column of the byte `offset` in `text`, from 1.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    // Bytes that continue a UTF-8 character do not count as a column.
    let column = before[line_start..].iter().filter(|&&byte| byte & 0xc0 != 0x80).count() + 1;
    (line, column)
}

/// The name in `known` most similar to `written`.
pub(super) fn nearest<'k>(
    written: &str,
    known: impl IntoIterator<Item = &'k str>,
) -> Option<&'k str> {
    let lower = written.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1 + name.chars().count() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// `a`, `b` or `c`, each formatted by `quote`.
pub(super) fn alternatives<'k>(
    names: impl IntoIterator<Item = &'k str>,
    quote: impl Fn(&str) -> String,
) -> String {
    let quoted: Vec<String> = names.into_iter().map(quote).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::from("nothing"),
    }
}

/// Advice on a key of other tables; `None`: no table has the key.
pub(super) fn belongs(keys: &[(String, &'static str)], name: &str) -> Option<String> {
    let tables = keys.iter().filter(|(_, key)| *key == name).map(|(table, _)| table.as_str());
    let tables: Vec<&str> = tables.collect();
    if tables.contains(&"") {
        let mut titles = keys.iter().map(|(table, _)| table.as_str());
        let own = titles.find(|table| table.trim_matches(['[', ']']) == name)?;
        return Some(format!("it is a table of its own, {own}"));
    }
    let few = (1..=MOST_TABLES).contains(&tables.len());
    few.then(|| format!("it belongs to {}", alternatives(tables, str::to_owned)))
}
