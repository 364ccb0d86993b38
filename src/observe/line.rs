//! A line of the log, as text or as a flat JSON object.
//!
//! The names of fields are the same in both forms and in all lines; docs/logging.md lists them.

use std::fmt::{self, Write as _};

use serde::Serialize;
use serde_json::Value;
use tracing::Level;

use crate::clock;
use crate::unseen::is_unseen;

/// The form of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people: time, level, message, then `name=value`.
    Text,
    /// For programs: a flat JSON object per line.
    Json,
}

impl LogFormat {
    /// The format with this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// A line before it is written.
#[derive(Debug)]
pub(crate) struct LogLine {
    level: Level,
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl LogLine {
    pub(crate) fn new(level: Level, message: &str) -> Self {
        Self { level, message: message.to_owned(), fields: Vec::new() }
    }

    pub(super) fn set_message(&mut self, message: &str) {
        message.clone_into(&mut self.message);
    }

    /// Adds a field, unless the line has one of this name.
    pub(crate) fn add(&mut self, name: &'static str, value: impl Into<Value>) {
        if !self.fields.iter().any(|(other, _)| *other == name) {
            self.fields.push((name, value.into()));
        }
    }

    /// The line with its line feed; `color`: with the level in color, in text only.
    pub(crate) fn render(&self, format: LogFormat, color: bool) -> String {
        let time = clock::rfc3339(clock::now());
        let mut line = String::with_capacity(160);
        // Writing to a string does not fail.
        let _ = match format {
            LogFormat::Text => self.text(&mut line, &time, color),
            LogFormat::Json => self.json(&mut line, &time),
        };
        line.push('\n');
        line
    }

    fn text(&self, line: &mut String, time: &str, color: bool) -> fmt::Result {
        let level = self.level;
        if color {
            let code = match level {
                Level::ERROR => 31,
                Level::WARN => 33,
                Level::INFO => 32,
                Level::DEBUG => 34,
                Level::TRACE => 35,
            };
            write!(line, "\x1b[2m{time}\x1b[0m \x1b[{code}m{level:>5}\x1b[0m ")?;
        } else {
            write!(line, "{time} {level:>5} ")?;
        }
        write_plain(line, &self.message)?;
        for (name, value) in &self.fields {
            match value {
                Value::String(text) if is_word(text) => write!(line, " {name}={text}")?,
                Value::String(text) => write!(line, " {name}={text:?}")?,
                other => write!(line, " {name}={other}")?,
            }
        }
        Ok(())
    }

    fn json(&self, line: &mut String, time: &str) -> fmt::Result {
        let message = Value::from(self.message.as_str());
        write!(line, r#"{{"timestamp":"{time}","level":"{}","message":{message}"#, self.level)?;
        for (name, value) in &self.fields {
            write!(line, r#","{name}":{value}"#)?;
        }
        line.push('}');
        escape_unseen(line)
    }
}

/// A text that needs no quotes.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|at| at.is_ascii_graphic() && !matches!(at, '"' | '='))
}

/// The text without characters that end a line, command a terminal or reorder what is shown.
fn write_plain(line: &mut String, text: &str) -> fmt::Result {
    for character in text.chars() {
        match is_unseen(character) {
            true => write!(line, "{}", character.escape_default())?,
            false => line.push(character),
        }
    }
    Ok(())
}

/// Escapes what would not be seen where a line of JSON is shown.
fn escape_unseen(line: &mut String) -> fmt::Result {
    if line.is_ascii() && !line.contains('\u{7f}') {
        return Ok(());
    }
    let json = std::mem::take(line);
    for character in json.chars() {
        match is_unseen(character) {
            // All of them are in the basic plane.
            true => write!(line, "\\u{:04x}", u32::from(character))?,
            false => line.push(character),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> LogLine {
        let mut line = LogLine::new(Level::WARN, "the subject\u{1b}[2J\nis away");
        line.add("record", "07da93cb5880890a15614f00ccccf47c");
        line.add("record", "another");
        line.add("error", "two words, a \"quote\" and\na line");
        line.add("empty", "");
        line.add("count", 3_u64);
        line.add("none", Value::Null);
        line
    }

    #[test]
    fn a_text_line_is_one_line_without_control_characters() {
        let text = line().render(LogFormat::Text, false);
        let expected = concat!(
            " WARN the subject\\u{1b}[2J\\nis away record=07da93cb5880890a15614f00ccccf47c ",
            r#"error="two words, a \"quote\" and\na line" empty="" count=3 none=null"#,
            "\n"
        );
        assert!(text.ends_with(expected), "{text}");
        let time = text.split(' ').next().unwrap();
        assert!(time.ends_with('Z') && time.len() == 24, "{text}");
        assert!(line().render(LogFormat::Text, true).contains("\x1b[33m WARN\x1b[0m"));
    }

    #[test]
    fn a_json_line_is_one_flat_object() {
        let text = line().render(LogFormat::Json, true);
        assert_eq!(text.lines().count(), 1, "{text}");
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["level"], "WARN");
        assert_eq!(document["message"], "the subject\u{1b}[2J\nis away");
        assert_eq!(document["record"], "07da93cb5880890a15614f00ccccf47c");
        assert_eq!(document["count"], 3);
        assert!(document["none"].is_null());
    }

    #[test]
    fn what_is_not_seen_or_reorders_the_line_is_escaped() {
        let hostile = "a\u{202e}b\u{200b}c\u{2066}d\u{7f}e\u{9b}f\u{feff}é";
        let mut line = LogLine::new(Level::INFO, hostile);
        line.add("by", hostile);
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = line.render(format, false);
            let shown = text.trim_end_matches('\n');
            assert!(shown.contains('é') && !shown.chars().any(is_unseen), "{text:?}");
        }
        let document: Value = serde_json::from_str(&line.render(LogFormat::Json, false)).unwrap();
        assert_eq!((&document["message"], &document["by"]), (&hostile.into(), &hostile.into()));
    }
}
