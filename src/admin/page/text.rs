//! Texts of strangers on a page.

use crate::unseen::is_unseen;

/// The text with every character that is not seen, or that reorders its neighbors, written as its
/// number. Line feeds and tabs stay where `keeps_lines` is set. Markup is escaped by the templates.
pub(super) fn visible(text: &str, keeps_lines: bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for at in text.chars() {
        let is_kept = keeps_lines && matches!(at, '\n' | '\t');
        if !is_kept && is_unseen(at) {
            shown.push_str(&format!("\u{27e8}U+{:04X}\u{27e9}", u32::from(at)));
        } else {
            shown.push(at);
        }
    }
    shown
}

/// Compares without telling by its duration where two texts differ.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    let differing = one.bytes().zip(other.bytes()).fold(0, |sum, (one, other)| sum | (one ^ other));
    one.len() == other.len() && std::hint::black_box(differing) == 0
}

/// A duration in its two largest units.
pub(super) fn age(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// The text for the value of a query's parameter.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_shown_by_their_numbers() {
        assert_eq!(visible("a\u{202e}b\u{0}\nc", false), "a⟨U+202E⟩b⟨U+0000⟩⟨U+000A⟩c");
        assert_eq!(visible("a\n\tb\r", true), "a\n\tb⟨U+000D⟩");
        assert_eq!(visible("שלום <b> é", false), "שלום <b> é");
    }

    #[test]
    fn ages_have_two_units() {
        for (seconds, shown) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min 0 s"),
            (3599, "59 min 59 s"),
            (3600, "1 h 0 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(age(seconds), shown);
        }
        assert!(is_same("abc", "abc") && !is_same("abc", "abd") && !is_same("abc", "abcd"));
        assert_eq!(escaped("a b&+é"), "a%20b%26%2B%C3%A9");
    }
}
