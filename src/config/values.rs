//! Values of tables with a range or a form: durations, sizes, choices, headers, pointers, secrets.
//!
//! A value out of range is noted and used nevertheless, so that dependent checks cause no second
//! mistake.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use http::header::HOST;

use super::diagnostics::{alternatives, nearest};
use super::table::{Located, TableReader};
use super::units::{Period, Scalar, Secret, Size, Time};
use crate::idempotency::retention::{Keep, Retention};
use crate::json::Pointer;

/// The longest timeout or wait; beyond a day there is no limit in practice.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(86_400);
/// The shortest that may be: the resolution of durations.
pub(super) const SHORTEST: Duration = Duration::from_millis(1);
/// Bodies beyond this cannot be buffered.
pub(super) const LARGEST_BODY: u64 = 1 << 30;

/// Stands for the text of a file that is not read; passes the checks of a secret.
const UNREAD_FILE: &str = "unread";

/// Headers of framing and of hops, without use for keys or markers.
const RESERVED_HEADERS: [&str; 14] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "idempotency-error",
    "idempotency-expires",
    "idempotency-status",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// Characters of the longest name.
const LONGEST_NAME: usize = 64;

/// The reason why a pointer never matches, and what to write: other languages of paths have signs
/// for all elements of a list, JSON pointers have none.
pub(super) fn never_matches(pointer: &Pointer) -> Option<String> {
    let tokens = pointer.tokens();
    let at = tokens
        .iter()
        .position(|token| matches!(token.as_str(), "*" | "**" | "-" | "[]" | "[*]"))?;
    let why = match tokens[at].as_str() {
        "-" => "\"-\" stands for the place behind the last element".to_owned(),
        sign => format!("a JSON pointer has no \"{sign}\""),
    };
    let path = |tokens: &[String]| -> String {
        let escaped = |token: &String| format!("/{}", token.replace('~', "~0").replace('/', "~1"));
        tokens.iter().map(escaped).collect()
    };
    let (before, behind) = (path(&tokens[..at]), path(&tokens[at + 1..]));
    Some(match at {
        0 => format!("{why}; name the members, such as \"/id{behind}\""),
        _ => format!(
            "{why}; write \"{before}\" for all of it, or \"{before}/0{behind}\" for one element"
        ),
    })
}

impl TableReader<'_> {
    /// The value of a key, noted when it is outside `range`.
    fn bounded<T: Scalar + PartialOrd + Display>(
        &self,
        key: &'static str,
        range: RangeInclusive<T>,
    ) -> Option<T> {
        self.note_kind(key, || {
            // The range says more than the kind's own least value.
            let kind = T::EXPECTED.trim_end_matches(", zero or more");
            format!("{kind}; {} to {}", range.start(), range.end())
        });
        let written = self.optional::<T>(key)?;
        if !range.contains(&written.value) {
            let (value, least, most) = (&written.value, range.start(), range.end());
            self.wrong(&written, format!("`{key}` is {value}, but must be {least} to {most}"));
        }
        Some(written.value)
    }

    pub(super) fn time(
        &self,
        key: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        self.note_default(key, || format!("\"{}\"", Time(default)));
        let (least, most) = range.into_inner();
        self.bounded(key, Time(least)..=Time(most)).map_or(default, |time| time.0)
    }

    /// A timeout: more than nothing, and at most a day.
    pub(super) fn timeout(&self, key: &'static str, default: Duration) -> Duration {
        self.time(key, default, SHORTEST..=LONGEST_WAIT)
    }

    pub(super) fn size(&self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        self.note_default(key, || format!("\"{}\"", Size(default)));
        let (least, most) = range.into_inner();
        self.bounded(key, Size(least)..=Size(most)).map_or(default, |size| size.0)
    }

    pub(super) fn count(
        &self,
        key: &'static str,
        default: usize,
        range: RangeInclusive<u64>,
    ) -> usize {
        self.note_default(key, || default.to_string());
        self.optional_count(key, range).unwrap_or(default)
    }

    pub(super) fn optional_count(
        &self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<usize> {
        self.bounded(key, range).map(|count| usize::try_from(count).unwrap_or(usize::MAX))
    }

    pub(super) fn number(
        &self,
        key: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> u64 {
        self.note_default(key, || default.to_string());
        self.bounded(key, range).unwrap_or(default)
    }

    pub(super) fn flag(&self, key: &'static str, default: bool) -> bool {
        self.note_default(key, || default.to_string());
        self.optional(key).map_or(default, |flag| flag.value)
    }

    /// The keys `retention` and `tombstone`.
    pub(super) fn retention(&self, default: Retention) -> Retention {
        let answer = self.optional::<Period>("retention");
        if let Some(written) = answer.as_ref().filter(|it| it.value.0 == Keep::For(Duration::ZERO))
        {
            let what = "`retention` is 0s, so that no answer could ever be replayed; write a time \
                        such as \"7d\"";
            self.wrong(written, what);
        }
        let tombstone = self.optional::<Period>("tombstone");
        Retention {
            answer: answer.map_or(default.answer, |period| period.value.0),
            tombstone: tombstone.map_or(default.tombstone, |period| period.value.0),
        }
    }

    /// The choice named in the file; `None` marks a name that this version does not support.
    pub(super) fn choice<T: Copy + PartialEq>(
        &self,
        key: &'static str,
        default: T,
        choices: &[(&str, Option<T>)],
    ) -> T {
        let possible = || {
            let supported = choices.iter().filter(|(_, value)| value.is_some());
            alternatives(supported.map(|(name, _)| *name), |name| format!("\"{name}\""))
        };
        self.note_kind(key, possible);
        if let Some((name, _)) = choices.iter().find(|(_, value)| *value == Some(default)) {
            self.note_default(key, || format!("\"{name}\""));
        }
        let Some(written) = self.optional::<String>(key) else { return default };
        let text = written.value.as_str();
        match choices.iter().find(|(name, _)| *name == text) {
            Some((_, Some(value))) => return *value,
            Some((_, None)) => {
                let what = format!("`{key} = \"{text}\"` is not supported by this version");
                self.wrong(&written, format!("{what}; use {}", possible()));
            }
            None => {
                let advice = match nearest(text, choices.iter().map(|(name, _)| *name)) {
                    Some(meant) => format!("did you mean \"{meant}\"?"),
                    None => format!("use {}", possible()),
                };
                self.wrong(&written, format!("`{key}` cannot be \"{text}\"; {advice}"));
            }
        }
        default
    }

    /// A name: fit for a metric label, and `taken` by no other of its `kind`.
    pub(super) fn name(
        &self,
        written: &Located<String>,
        kind: &str,
        taken: impl Fn(&str) -> bool,
    ) -> String {
        let (key, name) = (written.key, &written.value);
        let fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(fit) {
            let what = format!(
                "`{key}` must be 1 to {LONGEST_NAME} of the characters a-z, A-Z, 0-9, \"-\", \
                 \"_\" and \".\""
            );
            self.wrong(written, what);
        } else if taken(name) {
            self.wrong(written, format!("another {kind} is named \"{name}\" already"));
        }
        name.clone()
    }

    pub(super) fn header(&self, key: &'static str) -> Option<Located<HeaderName>> {
        self.note_kind(key, || "the name of a header".to_owned());
        self.header_name(self.optional(key)?)
    }

    pub(super) fn headers(&self, key: &'static str) -> Option<Vec<HeaderName>> {
        self.note_kind(key, || "a list of names of headers".to_owned());
        let mut names = Vec::new();
        for written in self.list::<String>(key)? {
            // The host names no message part that changes on its way, and callers may have one
            // each.
            let name = match written.value.eq_ignore_ascii_case(HOST.as_str()) {
                true => Some(Located { key, at: written.at, value: HOST }),
                false => self.header_name(written),
            };
            let Some(name) = name else { continue };
            if names.contains(&name.value) {
                self.wrong(&name, format!("`{key}` names {} twice", name.value));
            }
            names.push(name.value);
        }
        Some(names)
    }

    pub(super) fn header_name(&self, written: Located<String>) -> Option<Located<HeaderName>> {
        let (key, text) = (written.key, &written.value);
        let what = match HeaderName::from_bytes(text.as_bytes()) {
            Ok(name) if RESERVED_HEADERS.contains(&name.as_str()) => {
                format!("`{key}` cannot be {text}, which belongs to HTTP or to the gateway itself")
            }
            Ok(value) => return Some(Located { key, at: written.at, value }),
            Err(_) => format!("`{key}`: \"{text}\" is not the name of a header"),
        };
        self.wrong(&written, what);
        None
    }

    pub(super) fn pointer(&self, key: &'static str) -> Option<Pointer> {
        self.note_kind(key, || "a JSON pointer".to_owned());
        self.parsed_pointer(&self.optional(key)?)
    }

    pub(super) fn parsed_pointer(&self, written: &Located<String>) -> Option<Pointer> {
        let (key, text) = (written.key, &written.value);
        match Pointer::parse(text) {
            Ok(pointer) => {
                if let Some(advice) = never_matches(&pointer) {
                    self.wrong(written, format!("`{key}`: \"{text}\" can never match: {advice}"));
                }
                Some(pointer)
            }
            Err(error) => {
                self.wrong(written, format!("`{key}`: \"{text}\": {error}"));
                None
            }
        }
    }

    pub(super) fn pointers(&self, key: &'static str) -> Option<Vec<Pointer>> {
        self.note_kind(key, || "a list of JSON pointers".to_owned());
        let mut pointers = Vec::new();
        for written in self.list::<String>(key)? {
            let Some(pointer) = self.parsed_pointer(&written) else { continue };
            if pointers.contains(&pointer) {
                self.wrong(&written, format!("`{key}` names {pointer} twice"));
            } else {
                pointers.push(pointer);
            }
        }
        Some(pointers)
    }

    /// A path of the file system; a relative one starts at the configuration's directory.
    pub(super) fn path(&self, key: &'static str) -> Option<PathBuf> {
        self.note_kind(key, || "the path of a file or directory".to_owned());
        let path =
            self.optional::<String>(key).map(|written| self.reading.base.join(written.value));
        if let Some(path) = &path {
            self.reading.named.borrow_mut().add(path);
        }
        path
    }

    pub(super) fn address(&self, written: &Located<String>) -> Option<SocketAddr> {
        let (key, text) = (written.key, &written.value);
        let address = text.parse().ok();
        if address.is_none() {
            let what = format!(
                "`{key}`: \"{text}\" is not an IP address and a port, such as \"0.0.0.0:8080\" \
                 or \"[::]:8080\""
            );
            self.wrong(written, what);
        }
        address
    }

    /// False when files named by `*_file` keys are not read (`oncegate check --no-files`).
    pub(super) fn reads_files(&self) -> bool {
        self.reading.files
    }

    /// The text of the file that a key names, and the key's place. Where files are not read, a
    /// placeholder stands for the text.
    pub(super) fn file_text(&self, key: &'static str) -> Option<Located<String>> {
        self.note_kind(key, || "the path of a file".to_owned());
        self.text_of(self.optional::<String>(key)?).1
    }

    /// The path of a file and its text, as in [`Self::file_text`].
    pub(super) fn text_of(&self, written: Located<String>) -> (PathBuf, Option<Located<String>>) {
        let path = self.reading.base.join(&written.value);
        if !self.reads_files() {
            let text = Located { value: UNREAD_FILE.to_owned(), ..written };
            return (path, Some(text));
        }
        self.reading.named.borrow_mut().add(&path);
        let text = match std::fs::read_to_string(&path) {
            Ok(value) => Some(Located { value, ..written }),
            Err(error) => {
                let key = written.key;
                let what = format!("`{key}`: cannot read {}: {error}", path.display());
                self.wrong(&written, what);
                None
            }
        };
        (path, text)
    }

    /// A secret, given as it is or by a file; white space around the file's text does not count.
    pub(super) fn secret(
        &self,
        key: &'static str,
        file_key: &'static str,
    ) -> Option<Located<Secret>> {
        let secret = self.optional::<Secret>(key);
        if let Some(written) = secret.as_ref().filter(|_| self.has(file_key)) {
            let what = format!("`{key}` and `{file_key}` are both given; keep one of them");
            self.wrong(written, what);
            return secret;
        }
        let Located { key, at, value } = match secret {
            Some(secret) => return Some(secret),
            None => self.file_text(file_key)?,
        };
        Some(Located { key, at, value: Secret::new(value.trim().to_owned()) })
    }

    /// `client_cert = { cert = "…", key = "…" }`: PEM files of a certificate chain and its key.
    pub(super) fn client_cert(&self) -> Option<(PathBuf, PathBuf)> {
        let files = self.optional_table("client_cert", |pair| {
            for key in ["cert", "key"] {
                if !pair.has(key) {
                    pair.missing(&[key], format!("`client_cert` needs `{key}`, a PEM file"));
                }
            }
            pair.path("cert").zip(pair.path("key"))
        });
        files.flatten()
    }
}
