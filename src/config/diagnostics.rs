//! The mistakes of a configuration and the warnings about it, with places.

use std::cell::RefCell;
use std::fmt;

use super::catalog::KnownKey;

/// Tables that are named as the right ones for a key, at most; more are no advice.
const MOST_TABLES: usize = 4;

/// Mistakes, and warnings, to report at most; a file with more is not a configuration.
pub(super) const MOST_MISTAKES: usize = 200;

/// The mistakes of a configuration, in the order of the lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes {
    /// The file, as it was named.
    pub source: String,
    /// At least a single mistake.
    pub list: Vec<Mistake>,
    /// The warnings about the rest of the file.
    pub warnings: Vec<Warning>,
}

/// A trap that the configuration is allowed to have, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The file, as it was named.
    pub source: String,
    /// The line, counted from 1; `None`: no single place.
    pub line: Option<usize>,
    /// A sentence with the consequence and the remedy.
    pub what: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.what)
    }
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
        let list = vec![Mistake { at: None, what: what.into() }];
        Self { source: source.into(), list, warnings: Vec::new() }
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

/// Byte offsets, where a note has a place, and texts.
type Notes = Vec<(Option<usize>, String)>;

/// The mistakes and warnings noted while a file is read. Noting takes a shared reference, so that
/// every table can hold the collection at the same time.
#[derive(Debug, Default)]
pub(super) struct Diagnostics {
    mistakes: RefCell<Notes>,
    warnings: RefCell<Notes>,
}

impl Diagnostics {
    /// Notes a mistake at a byte offset.
    pub(super) fn note(&self, at: Option<usize>, what: impl Into<String>) {
        self.mistakes.borrow_mut().push((at, what.into()));
    }

    /// Notes a warning at a byte offset: the configuration is valid, and has a trap.
    pub(super) fn warn(&self, at: Option<usize>, what: impl Into<String>) {
        self.warnings.borrow_mut().push((at, what.into()));
    }

    /// The mistakes of the file `source` with this `text`, or, without mistakes, its warnings.
    ///
    /// # Errors
    /// With the mistakes, and the warnings about the rest.
    pub(super) fn finish(self, source: &str, text: &str) -> Result<Vec<Warning>, Mistakes> {
        let place = |at: usize| line_and_column(text, at);
        let (notes, more) = in_order(self.warnings);
        let warning = |(at, what): (Option<usize>, String)| {
            let line = at.map(|at| place(at).0);
            Warning { source: source.to_owned(), line, what }
        };
        let mut warnings: Vec<Warning> = notes.into_iter().map(warning).collect();
        if more > 0 {
            let what = format!("{more} more warnings are not listed");
            warnings.push(Warning { source: source.to_owned(), line: None, what });
        }
        let (notes, more) = in_order(self.mistakes);
        let mut list: Vec<Mistake> =
            notes.into_iter().map(|(at, what)| Mistake { at: at.map(place), what }).collect();
        if more > 0 {
            list.push(Mistake { at: None, what: format!("{more} more mistakes are not listed") });
        }
        match list.is_empty() {
            true => Ok(warnings),
            false => Err(Mistakes { source: source.to_owned(), list, warnings }),
        }
    }
}

/// The notes in the order of the file, each once and no more than are reported; and the number of
/// those left out.
fn in_order(notes: RefCell<Notes>) -> (Notes, usize) {
    let mut notes = notes.into_inner();
    notes.sort();
    notes.dedup();
    let more = notes.len().saturating_sub(MOST_MISTAKES);
    notes.truncate(MOST_MISTAKES);
    (notes, more)
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
pub(super) fn belongs(keys: &[KnownKey], name: &str) -> Option<String> {
    let tables = keys.iter().filter(|known| known.key == name).map(|known| known.table.as_str());
    let tables: Vec<&str> = tables.collect();
    if tables.contains(&"") {
        let mut titles = keys.iter().map(|known| known.table.as_str());
        let own = titles.find(|table| table.trim_matches(['[', ']']) == name)?;
        return Some(format!("it is a table of its own, {own}"));
    }
    let few = (1..=MOST_TABLES).contains(&tables.len());
    few.then(|| format!("it belongs to {}", alternatives(tables, str::to_owned)))
}
