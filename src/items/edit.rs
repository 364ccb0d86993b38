//! Edits of a JSON text that keep all other bytes unchanged.

use std::borrow::Cow;
use std::ops::Range;

use crate::json::{Document, JsonType, Pointer, Value};

/// A change: the new JSON text at a pointer.
#[derive(Debug)]
pub(super) struct Edit<'e> {
    pub(super) at: &'e Pointer,
    pub(super) text: Cow<'e, str>,
}

impl<'e> Edit<'e> {
    pub(super) fn new(at: &'e Pointer, text: impl Into<Cow<'e, str>>) -> Self {
        Self { at, text: text.into() }
    }

    /// Reports whether the edit changes the value at a pointer, or a part of the value.
    pub(super) fn concerns(&self, at: &Pointer) -> bool {
        self.at.tokens().iter().zip(at.tokens()).all(|(left, right)| left == right)
    }
}

/// A text that replaces a range.
pub(super) struct Splice<'e> {
    range: Range<usize>,
    text: Cow<'e, str>,
    /// Name of the member appended to an object, if any.
    adds: Option<&'e str>,
}

impl<'e> Splice<'e> {
    pub(super) fn replaces(range: Range<usize>, text: impl Into<Cow<'e, str>>) -> Self {
        Self { range, text: text.into(), adds: None }
    }

    /// Reports an overlap of two splices. Members of different names appended to the same object
    /// do not overlap: the members follow each other.
    fn touches(&self, other: &Self) -> bool {
        let both_add = self.range == other.range
            && self.adds.zip(other.adds).is_some_and(|(one, other)| one != other);
        !both_add && self.range.start <= other.range.end && other.range.start <= self.range.end
    }
}

/// Sets members of a JSON text: pointers with JSON texts. A text that is no JSON stays as it is.
pub(crate) fn with_members(text: &str, members: &[(Pointer, String)]) -> String {
    let edits: Vec<Edit<'_>> =
        members.iter().map(|(at, value)| Edit::new(at, value.as_str())).collect();
    edit(text, &edits)
}

/// Applies the edits in order. An absent member is appended to its object, with the objects
/// around the member; an absent array element is skipped.
pub(super) fn edit(text: &str, edits: &[Edit<'_>]) -> String {
    match Document::parse(text.as_bytes()) {
        Ok(document) => edit_document(text, &document, edits),
        Err(_) => text.to_owned(),
    }
}

/// Applies the edits to a parsed text, like [`edit`].
pub(super) fn edit_document(text: &str, document: &Document<'_>, edits: &[Edit<'_>]) -> String {
    let span = document.root().span();
    let inside = edit_value(document.root(), edits);
    if span.len() == text.len() {
        return inside;
    }
    [&text[..span.start], &inside, &text[span.end..]].concat()
}

/// Applies the edits to the text of a value, like [`edit`].
pub(super) fn edit_value(value: Value<'_, '_>, edits: &[Edit<'_>]) -> String {
    // Changes that do not touch each other are made in one pass; the first that does starts the
    // next, on the changed text.
    let (splices, taken) = independent(value, edits.iter());
    let text = spliced(value.raw(), splices);
    match &edits[taken..] {
        [] => text,
        rest => edit(&text, rest),
    }
}

/// Appends the edited value to `out` and returns true when no two edits overlap, so that the
/// changed text need not be parsed again. Otherwise appends nothing.
pub(super) fn edit_at_once(
    out: &mut String,
    value: Value<'_, '_>,
    edits: [&[Edit<'_>]; 2],
) -> bool {
    let (splices, taken) = independent(value, edits.into_iter().flatten());
    let all = edits.map(<[_]>::len).into_iter().sum::<usize>();
    if taken == all {
        spliced_into(out, value.raw(), splices);
    }
    taken == all
}

/// The splices of the first edits that do not depend on each other, and the number of these
/// edits.
fn independent<'e>(
    value: Value<'_, '_>,
    edits: impl Iterator<Item = &'e Edit<'e>>,
) -> (Vec<Splice<'e>>, usize) {
    let start = value.span().start;
    let mut splices: Vec<Splice<'_>> = Vec::with_capacity(edits.size_hint().0);
    let mut taken = 0;
    for change in edits {
        match splice(value, change) {
            Some(mut new) => {
                new.range = new.range.start - start..new.range.end - start;
                if splices.iter().any(|other| other.touches(&new)) {
                    break;
                }
                splices.push(new);
            }
            // What has no place here may have one in the changed text.
            None if !splices.is_empty() => break,
            None => {}
        }
        taken += 1;
    }
    (splices, taken)
}

/// Replaces each range; the ranges do not overlap.
pub(super) fn spliced(text: &str, splices: Vec<Splice<'_>>) -> String {
    let added: usize = splices.iter().map(|splice| splice.text.len()).sum();
    let mut changed = String::with_capacity(text.len() + added);
    spliced_into(&mut changed, text, splices);
    changed
}

fn spliced_into(out: &mut String, text: &str, mut splices: Vec<Splice<'_>>) {
    // Those in one place stay in their order.
    splices.sort_by_key(|splice| splice.range.start);
    let mut done = 0;
    for Splice { range, text: new, .. } in splices {
        out.push_str(&text[done..range.start]);
        out.push_str(&new);
        done = range.end;
    }
    out.push_str(&text[done..]);
}

fn splice<'e>(root: Value<'_, '_>, change: &'e Edit<'_>) -> Option<Splice<'e>> {
    let tokens = change.at.tokens();
    let mut value = root;
    for (depth, token) in tokens.iter().enumerate() {
        if let Some(child) = value.child(token) {
            value = child;
            continue;
        }
        return match value.kind() {
            JsonType::Object => {
                let member = nested(&tokens[depth + 1..], change);
                Some(match value.members().last() {
                    Some((_, last)) => {
                        let end = last.span().end;
                        let text = format!(",{}:{member}", quoted(token)).into();
                        Splice { range: end..end, text, adds: Some(token) }
                    }
                    None => {
                        let inside = value.span().start + 1;
                        Splice::replaces(inside..inside, format!("{}:{member}", quoted(token)))
                    }
                })
            }
            JsonType::Array => None,
            JsonType::Null | JsonType::Bool | JsonType::Number | JsonType::String => {
                Some(Splice::replaces(value.span(), nested(&tokens[depth..], change)))
            }
        };
    }
    Some(Splice::replaces(value.span(), &*change.text))
}

/// The new text, nested in one object for each name.
fn nested<'e>(tokens: &[String], change: &'e Edit<'_>) -> Cow<'e, str> {
    tokens.iter().rev().fold(Cow::Borrowed(&change.text), |inner, token| {
        format!("{{{}:{inner}}}", quoted(token)).into()
    })
}

/// A JSON string.
pub(super) fn quoted(text: &str) -> String {
    // Most names are such as stand for themselves.
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return format!("\"{text}\"");
    }
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, edits: &[(&str, &str)], expected: &str) {
        let pointers: Vec<Pointer> =
            edits.iter().map(|(at, _)| Pointer::parse(at).unwrap()).collect();
        let edits: Vec<Edit<'_>> =
            pointers.iter().zip(edits).map(|(at, (_, new))| Edit::new(at, *new)).collect();
        assert_eq!(edit(text, &edits), expected);
    }

    #[test]
    fn only_what_is_meant_changes() {
        let text = r#"{ "n" : 1.10, "b":{"x" : 12345678901234567890},"é":"\u00e9" }"#;
        check(text, &[], text);
        check(
            text,
            &[("/b/x", "2"), ("/n", "null")],
            r#"{ "n" : null, "b":{"x" : 2},"é":"\u00e9" }"#,
        );
    }

    #[test]
    fn a_change_concerns_what_is_around_it_and_inside() {
        let pointer = |text: &str| Pointer::parse(text).unwrap();
        let at = pointer("/a/b");
        let change = Edit::new(&at, "1");
        for (other, concerned) in [
            ("", true),
            ("/a", true),
            ("/a/b", true),
            ("/a/b/c", true),
            ("/a/c", false),
            ("/b", false),
        ] {
            assert_eq!(change.concerns(&pointer(other)), concerned, "{other}");
        }
    }

    #[test]
    fn what_is_absent_is_added_at_the_end() {
        check(
            "{}",
            &[("/a", "1"), ("/b", "2"), ("/c/d", "3"), ("/c/e", "4")],
            r#"{"a":1,"b":2,"c":{"d":3,"e":4}}"#,
        );
        check("{ \"a\" : {} }", &[("/a/\u{22}x", "1")], "{ \"a\" : {\"\\\"x\":1} }");
        check(r#"{"a":null}"#, &[("/a/b", "1")], r#"{"a":{"b":1}}"#);
        check("[1]", &[("/1", "2"), ("/0", "3")], "[3]");
        check("[]", &[("", "5")], "5");
        check("\n {} \n", &[("/a", "1"), ("/b", "2")], "\n {\"a\":1,\"b\":2} \n");
    }

    #[test]
    fn later_changes_see_earlier_ones() {
        check(r#"{"a":1}"#, &[("/a", r#"{"b":2}"#), ("/a/b", "3")], r#"{"a":{"b":3}}"#);
        check(r#"{"a":1}"#, &[("/a", "2"), ("/c", "3")], r#"{"a":2,"c":3}"#);
    }
}
