//! What is wrong with a configuration: all of it, each with its place.

use std::fmt;

/// Everything that is wrong with one configuration, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes {
    /// The file, as it was named.
    pub source: String,
    /// At least one.
    pub list: Vec<Mistake>,
}

/// One thing that is wrong, and what to do about it. Values of secrets never stand in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Line and column, both counted from 1, the column in characters; `None`: no one place.
    pub at: Option<(usize, usize)>,
    /// One sentence: what is wrong, and what to do.
    pub what: String,
}

impl Mistakes {
    /// One mistake that has no place in the file.
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

/// Where the byte `offset` stands in `text`: line and column, from 1.
pub(super) fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    // Bytes that continue a UTF-8 character do not count as a column.
    let column = before[line_start..].iter().filter(|&&byte| byte & 0xc0 != 0x80).count() + 1;
    (line, column)
}

/// The one of `known` that `written` was probably meant to be.
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

/// `a`, `b` or `c`, each as `quote` writes it.
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
