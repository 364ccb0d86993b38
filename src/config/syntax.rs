//! Mistakes of syntax, with the remedy: the parser's own words say what it expected, and not what
//! to write.
//!
//! The parser recovers from a mistake by guessing, so consequences look like mistakes. After each
//! mistake the line is left out and the rest is parsed again, unless the line is part of a longer
//! construct.

use std::borrow::Cow;

use toml::de::DeTable;

use super::diagnostics::{Diagnostics, MOST_MISTAKES};

/// Notes the mistakes of syntax, without consequences of earlier mistakes.
pub(super) fn note_mistakes(text: &str, diagnostics: &Diagnostics) {
    if text.trim_start().starts_with('{') {
        let what = "this is not TOML but JSON: write lines such as `name = \"redeem\"` below \
                    headers such as [[route]]";
        diagnostics.note(Some(0), what);
        return;
    }
    let mut rest = Cow::Borrowed(text);
    let mut reached = 0;
    for _ in 0..MOST_MISTAKES {
        let errors = DeTable::parse_recoverable(&rest).1;
        let place = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
        let Some(first) = errors.iter().min_by_key(|error| place(error)) else { return };
        let at = place(first).min(rest.len());
        // An earlier place would be a consequence of the line that was left out.
        if at < reached {
            return;
        }
        let start = rest[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let end = rest[at..].find('\n').map_or(rest.len(), |newline| at + newline);
        let line = &rest[start..end];
        let what = remedy(first.message(), line.trim(), &rest[at..end]);
        let what = what.unwrap_or_else(|| first.message().to_owned());
        diagnostics.note(Some(at), format!("this is not TOML: {what}"));
        if line.trim().is_empty() || !stands_for_itself(line) {
            return;
        }
        reached = end;
        rest = format!("{}{}{}", &rest[..start], " ".repeat(line.len()), &rest[end..]).into();
    }
}

/// `true` when the lines after `line` mean the same without it: the line opens no table, and begins
/// or ends no value of several lines.
fn stands_for_itself(line: &str) -> bool {
    let count = |character: char| line.matches(character).count();
    !line.trim_start().starts_with('[')
        && count('[') == count(']')
        && count('{') == count('}')
        && !line.contains("\"\"\"")
        && !line.contains("'''")
}

/// Words for values that other formats have and TOML has not.
const ABSENT: [&str; 4] = ["null", "nil", "none", "~"];

/// The remedy for a mistake that is common: `message` is the parser's, `after` the part of the line
/// from the mistake on. Values are not repeated, because they may be secret.
fn remedy(message: &str, line: &str, after: &str) -> Option<String> {
    let is = |part: &str| message.contains(part);
    let value = after.to_ascii_lowercase();
    let what = if is("duplicate key") {
        if line.starts_with('[') {
            let header = line.split('#').next().unwrap_or_default().trim();
            format!("{header} stands twice; write all its lines below the first one")
        } else {
            let key = after.split(['=', ' ', '\t']).next().unwrap_or_default();
            format!("`{key}` stands twice in this table; keep one of them")
        }
    } else if line.starts_with("//") {
        "a comment begins with `#`".to_owned()
    } else if after.starts_with(['“', '”', '„', '‘', '’']) {
        "typographic quotation marks; write straight ones, \"…\"".to_owned()
    } else if ABSENT.iter().any(|word| value.trim_end() == *word) {
        "there is no value for \"nothing\"; leave the key out".to_owned()
    } else if is("string values must be quoted") {
        "text stands in quotation marks; write \"…\" around the value".to_owned()
    } else if is("invalid boolean") {
        "write true or false, in lower case".to_owned()
    } else if is("extra `=`") {
        "write a single `=` between key and value".to_owned()
    } else if is("invalid unquoted key") && after.starts_with(':') {
        "write `key = value`, with `=` in the place of `:`".to_owned()
    } else if is("unexpected key or value") && after.starts_with([',', ';']) {
        "the line ends after the value; remove what follows it".to_owned()
    } else if is("invalid basic string") || is("invalid literal string") {
        format!("{message}; the text has to end with its quotation mark on the same line")
    } else if is("missing comma between array elements") {
        "a list that began above has no `]`, or two of its values have no `,` between them"
            .to_owned()
    } else {
        return None;
    };
    Some(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> String {
        let diagnostics = Diagnostics::default();
        note_mistakes(text, &diagnostics);
        diagnostics.finish("t.toml", text).map(|_| String::new()).unwrap_or_else(|m| m.to_string())
    }

    #[track_caller]
    fn check(text: &str, what: &str) {
        assert_eq!(mistakes(text), format!("t.toml:{what}"), "{text}");
    }

    #[test]
    fn mistakes_of_syntax_come_with_what_to_write() {
        for (text, what) in [
            (
                "a = 1\na = 2",
                "2:1: this is not TOML: `a` stands twice in this table; keep one of them",
            ),
            (
                "e = { a = 1, a = 2 }",
                "1:14: this is not TOML: `a` stands twice in this table; keep one of them",
            ),
            (
                "[server] # one\ndrain = \"5s\"\n[server]  # two\nworkers = 2",
                "3:2: this is not TOML: [server] stands twice; write all its lines below the first \
                 one",
            ),
            (
                "url = http://backend:9000",
                "1:7: this is not TOML: text stands in quotation marks; write \"…\" around the \
                 value",
            ),
            (
                "name = “redeem”",
                "1:8: this is not TOML: typographic quotation marks; write straight ones, \"…\"",
            ),
            (
                "max_body = null",
                "1:12: this is not TOML: there is no value for \"nothing\"; leave the key out",
            ),
            ("required = False", "1:12: this is not TOML: write true or false, in lower case"),
            ("name == \"a\"", "1:7: this is not TOML: write a single `=` between key and value"),
            (
                "name: \"a\"",
                "1:5: this is not TOML: write `key = value`, with `=` in the place of `:`",
            ),
            (
                "name = \"a\",",
                "1:11: this is not TOML: the line ends after the value; remove what follows it",
            ),
            ("// note\na = 1", "1:1: this is not TOML: a comment begins with `#`"),
            (
                "name = \"a",
                "1:10: this is not TOML: invalid basic string, expected `\"`; the text has to end \
                 with its quotation mark on the same line",
            ),
            (
                "a = [\"b\"\nc = 1",
                "2:1: this is not TOML: a list that began above has no `]`, or two of its values \
                 have no `,` between them",
            ),
            (
                "{\"server\": {}}",
                "1:1: this is not TOML but JSON: write lines such as `name = \"redeem\"` below \
                 headers such as [[route]]",
            ),
        ] {
            check(text, what);
        }
    }

    #[test]
    fn values_of_secrets_are_not_repeated() {
        for text in ["token = s3cret", "token = \"s3cret", "token: s3cret", "token = \"s3cret\","] {
            let mistakes = mistakes(text);
            assert!(!mistakes.is_empty() && !mistakes.contains("s3cret"), "{mistakes}");
        }
    }
}
