//! `--name value` and `--flag`, without a dependency.

use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr;

use crate::Failure;

const FLAGS: &[&str] = &["quick", "alone", "read-first", "own-rotation"];

/// The words after the subcommand.
pub(crate) struct Args(HashMap<String, String>);

impl Args {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut found = HashMap::new();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").ok_or_else(|| format!("what is `{word}`?"))?;
            let value = if FLAGS.contains(&name) {
                String::new()
            } else {
                words.next().ok_or_else(|| format!("--{name} needs a value"))?
            };
            found.insert(name.to_owned(), value);
        }
        Ok(Self(found))
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn path(&self, name: &str) -> Result<PathBuf, Failure> {
        self.text(name).map(PathBuf::from).ok_or_else(|| format!("--{name} is missing").into())
    }

    pub(crate) fn required<T: FromStr>(&self, name: &str) -> Result<T, Failure> {
        let text = self.text(name).ok_or_else(|| format!("--{name} is missing"))?;
        text.parse().map_err(|_| format!("--{name} {text}: not understood").into())
    }

    pub(crate) fn or<T: FromStr>(&self, name: &str, default: T) -> Result<T, Failure> {
        if self.flag(name) { self.required(name) } else { Ok(default) }
    }
}
