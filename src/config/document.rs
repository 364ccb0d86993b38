//! From text to [`File`], past every mistake of syntax, names and types.
//!
//! serde stops at the first error. So each error is noted, the value it points at is taken out of
//! the tree, and the rest is read again, until it passes.

use std::ops::Range;

use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::diagnostics::{alternatives, nearest};
use super::environment;
use super::file::File;

/// Mistakes to report at most; a file with more is of another kind.
const MOST: usize = 200;

/// What could be read.
pub(super) struct Tree {
    pub(super) file: File,
    /// What had to be taken out, as the start of its table and its name there: nobody needs to be
    /// told that it is missing as well.
    pub(super) removed: Vec<(usize, String)>,
    /// Byte offsets of mistakes, and what they are.
    pub(super) mistakes: Vec<(usize, String)>,
}

/// One step from a table or an array to a value in it.
#[derive(Debug, Clone)]
enum Step {
    Name { name: String, table: usize },
    Index(usize),
}

/// Reads as much of `text` as can be read.
pub(super) fn read(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Tree {
    let (mut root, errors) = DeTable::parse_recoverable(text);
    let mut tree = Tree { file: File::default(), removed: Vec::new(), mistakes: Vec::new() };
    if !errors.is_empty() {
        // One slip can make the parser stumble several times; the first place is the one to mend.
        for error in errors.iter().take(1) {
            let at = error.span().map_or(0, |span| span.start);
            tree.mistakes.push((at, format!("this is not TOML: {}", error.message())));
        }
        return tree;
    }
    let mut unset = Vec::new();
    substitute_table(root.get_mut(), 0, &mut Vec::new(), variable, &mut unset);
    // From the back, so that the indices of what is still to be taken out stay right.
    for (path, at, what) in unset.into_iter().rev() {
        tree.mistakes.push((at, format!("`{}`: {what}", dotted(&path))));
        tree.take_out(root.get_mut(), &path);
    }
    while tree.mistakes.len() < MOST {
        let error = match File::deserialize(toml::Deserializer::from(root.clone())) {
            Ok(file) => {
                tree.file = file;
                break;
            }
            Err(error) => error,
        };
        let span = error.span().unwrap_or(0..0);
        let Some(path) = locate(root.get_ref(), 0, &span) else {
            tree.mistakes.push((span.start, error.message().to_owned()));
            break;
        };
        let what = tree.explain(root.get_ref(), &path, error.message());
        tree.mistakes.push((span.start, what));
        tree.take_out(root.get_mut(), &path);
    }
    tree
}

impl Tree {
    /// serde's message in the words of this project; the values themselves are not repeated.
    fn explain(&mut self, root: &DeTable<'_>, path: &[Step], message: &str) -> String {
        let Some((_, expected)) = message.rsplit_once(", expected ") else {
            return format!("`{}`: {message}", dotted(path));
        };
        if message.starts_with("unknown field ") {
            let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
            return self.unknown(path, &known);
        }
        let value = find(root, path);
        let is = value.map_or("of another kind", |value| match value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        });
        let place = dotted(path);
        if expected == "a sequence" {
            if value.is_some_and(DeValue::is_table) && matches!(path, [Step::Name { .. }]) {
                return format!(
                    "`{place}` is one table, but there may be several; write [[{place}]]"
                );
            }
            return format!("`{place}` is {is}, but must be a list: [ … ]");
        }
        format!("`{place}` is {is}, but must be {expected}")
    }

    fn unknown(&mut self, path: &[Step], known: &[&str]) -> String {
        let Some((Step::Name { name, table }, parent)) = path.split_last() else {
            return String::from("there is a key that is not known");
        };
        let inside = match dotted(parent) {
            parent if parent.is_empty() => String::new(),
            parent => format!(" in `{parent}`"),
        };
        let advice = match nearest(name, known.iter().copied()) {
            Some(meant) => {
                self.removed.push((*table, meant.to_owned()));
                format!("did you mean `{meant}`?")
            }
            None => {
                let known = alternatives(known.iter().copied(), |name| format!("`{name}`"));
                format!("known here: {known}")
            }
        };
        format!("unknown key `{name}`{inside}; {advice}")
    }

    fn take_out(&mut self, root: &mut DeTable<'_>, path: &[Step]) {
        let owner = path.iter().rev().find_map(|step| match step {
            Step::Name { name, table } => Some((*table, name.clone())),
            Step::Index(_) => None,
        });
        self.removed.extend(owner);
        take_out(root, path);
    }
}

/// The way to what stands at `span`, a key or a value. Of several the innermost: a table that is
/// only implied has the span of the one that implies it.
fn locate(table: &DeTable<'_>, start: usize, span: &Range<usize>) -> Option<Vec<Step>> {
    table.iter().find_map(|(name, value)| {
        let step = Step::Name { name: name.get_ref().to_string(), table: start };
        let inside = if name.span() == *span { None } else { locate_value(value, span) };
        match inside {
            Some(rest) => Some(std::iter::once(step).chain(rest).collect()),
            None => (name.span() == *span || value.span() == *span).then(|| vec![step]),
        }
    })
}

fn locate_value(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> Option<Vec<Step>> {
    match value.get_ref() {
        DeValue::Table(table) => locate(table, value.span().start, span),
        // The first of several [[tables]] has the span of the list of them, which is meant.
        DeValue::Array(_) if value.span() == *span => None,
        DeValue::Array(array) => array.iter().enumerate().find_map(|(index, element)| {
            let rest = match locate_value(element, span) {
                Some(rest) => rest,
                None if element.span() == *span => Vec::new(),
                None => return None,
            };
            Some(std::iter::once(Step::Index(index)).chain(rest).collect())
        }),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => None,
    }
}

fn find<'t, 'i>(root: &'t DeTable<'i>, path: &[Step]) -> Option<&'t DeValue<'i>> {
    let (first, rest) = path.split_first()?;
    let Step::Name { name, .. } = first else { return None };
    rest.iter().try_fold(root.get(name.as_str())?.get_ref(), |value, step| {
        Some(match step {
            Step::Name { name, .. } => value.get(name.as_str())?.get_ref(),
            Step::Index(index) => value.get(*index)?.get_ref(),
        })
    })
}

fn take_out(table: &mut DeTable<'_>, path: &[Step]) {
    let Some((Step::Name { name, .. }, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        table.remove(name.as_str());
    } else if let Some(value) = table.get_mut(name.as_str()) {
        take_out_of_value(value.get_mut(), rest);
    }
}

fn take_out_of_value(value: &mut DeValue<'_>, path: &[Step]) {
    match (value, path) {
        (DeValue::Table(table), path) => take_out(table, path),
        (DeValue::Array(array), [Step::Index(index)]) => {
            let mut rest = DeArray::new();
            for (at, element) in array.iter().enumerate() {
                if at != *index {
                    rest.push(element.clone());
                }
            }
            *array = rest;
        }
        (DeValue::Array(array), [Step::Index(index), path @ ..]) => {
            if let Some(element) = array.get_mut(*index) {
                take_out_of_value(element.get_mut(), path);
            }
        }
        _ => {}
    }
}

/// `server.limits.wait`, `route.methods`: names only, the line says which of several.
fn dotted(path: &[Step]) -> String {
    let names = path.iter().filter_map(|step| match step {
        Step::Name { name, .. } => Some(name.as_str()),
        Step::Index(_) => None,
    });
    names.collect::<Vec<_>>().join(".")
}

type Unset = Vec<(Vec<Step>, usize, String)>;

fn substitute_table(
    table: &mut DeTable<'_>,
    start: usize,
    path: &mut Vec<Step>,
    variable: &dyn Fn(&str) -> Option<String>,
    unset: &mut Unset,
) {
    for (name, value) in table.iter_mut() {
        path.push(Step::Name { name: name.get_ref().to_string(), table: start });
        substitute_value(value, path, variable, unset);
        path.pop();
    }
}

fn substitute_value(
    value: &mut Spanned<DeValue<'_>>,
    path: &mut Vec<Step>,
    variable: &dyn Fn(&str) -> Option<String>,
    unset: &mut Unset,
) {
    let start = value.span().start;
    match value.get_mut() {
        DeValue::String(text) => {
            if text.contains("${") {
                match environment::substitute(text, variable) {
                    Ok(substituted) => *text = substituted.into(),
                    Err(what) => unset.push((path.clone(), start, what)),
                }
            }
        }
        DeValue::Array(array) => {
            for (index, element) in array.iter_mut().enumerate() {
                path.push(Step::Index(index));
                substitute_value(element, path, variable, unset);
                path.pop();
            }
        }
        DeValue::Table(table) => substitute_table(table, start, path, variable, unset),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
    }
}
