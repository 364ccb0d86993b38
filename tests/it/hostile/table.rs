//! Tables of cases in text form.
//!
//! `== ` begins a section (its number and subject), `# ` a comment, and any other line names a case.
//! Lines with `> ` below the name are what is sent, the line with `< ` is what must happen. In what
//! is sent, `¶` stands for CRLF, `\r \n \t \s \0 \xNN \\` for single bytes (`\s` is a space),
//! `{N*text}` for N times the text, and the words of the file's chapter for longer texts.

use std::collections::BTreeSet;

/// A case of a table.
#[derive(Debug, Clone)]
pub(super) struct Case {
    /// The section of the standard and its subject.
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    /// What is sent, line by line.
    pub(super) sent: Vec<&'static str>,
    /// What must happen.
    pub(super) expected: &'static str,
}

/// The cases of a table.
///
/// # Panics
/// When a case has no section, nothing to send, no expectation, or the name of another.
#[track_caller]
pub(super) fn cases(text: &'static str) -> Vec<Case> {
    let (mut section, mut cases, mut names) = ("", Vec::<Case>::new(), BTreeSet::new());
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("# ")) {
        if let Some(title) = line.strip_prefix("== ") {
            section = title;
        } else if let Some(sent) = line.strip_prefix("> ") {
            cases.last_mut().expect("a name before").sent.push(sent);
        } else if let Some(expected) = line.strip_prefix("< ") {
            let case = cases.last_mut().expect("a name before");
            assert!(case.expected.is_empty(), "{}: two expectations", case.name);
            case.expected = expected;
        } else {
            assert!(names.insert((section, line)), "{section}: {line}: twice");
            cases.push(Case { section, name: line, sent: Vec::new(), expected: "" });
        }
    }
    for case in &cases {
        let is_whole = !section.is_empty() && !case.sent.is_empty() && !case.expected.is_empty();
        assert!(is_whole, "{}: {}: incomplete", case.section, case.name);
    }
    cases
}

/// The bytes that a text stands for; `words` are longer texts by name.
#[track_caller]
pub(super) fn bytes(text: &str, words: &[(&str, &str)]) -> Vec<u8> {
    let mut text = text.to_owned();
    for (word, meaning) in words {
        text = text.replace(word, meaning);
    }
    let mut bytes = Vec::new();
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        match first {
            '¶' => bytes.extend(b"\r\n"),
            '\\' => {
                let (byte, taken) = escape(rest);
                bytes.push(byte);
                rest = &rest[taken..];
            }
            '{' if rest.starts_with(|digit: char| digit.is_ascii_digit()) => {
                let (count, after) = rest.split_once('*').expect("{N*text}");
                let (part, after) = after.split_once('}').expect("{N*text}");
                bytes.extend(self::bytes(part, &[]).repeat(count.parse().expect("a number")));
                rest = after;
            }
            other => bytes.extend(other.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    bytes
}

fn escape(rest: &str) -> (u8, usize) {
    let byte = match rest.as_bytes()[0] {
        b'r' => b'\r',
        b'n' => b'\n',
        b't' => b'\t',
        b's' => b' ',
        b'0' => 0,
        b'x' => return (u8::from_str_radix(&rest[1..3], 16).expect("two digits"), 3),
        b'\\' => b'\\',
        other => panic!("no escape: {:?}", char::from(other)),
    };
    (byte, 1)
}

/// Fails with all `failures` at once.
#[track_caller]
pub(super) fn report(failures: &[String], count: usize) {
    assert!(count > 0, "no case ran");
    let (number, list) = (failures.len(), failures.join("\n\n"));
    assert!(failures.is_empty(), "{number} of {count} cases failed:\n\n{list}");
}
