//! The checks that values of all tables share, and where their mistakes are collected.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use toml::Spanned;

use super::diagnostics::{alternatives, nearest};
use super::file::{List, Unsupported, Written};
use super::units::{Count, Period, Size, Time};
use crate::idempotency::retention::{Keep, Retention};
use crate::json::Pointer;

/// The longest a timeout or wait may be; beyond a day it is no limit any more.
pub(super) const LONGEST_WAIT: Time = Time(Duration::from_secs(86_400));
/// Bodies beyond this cannot be buffered.
pub(super) const LARGEST_BODY: Size = Size(1 << 30);
pub(super) const SHORTEST: Time = Time(Duration::from_millis(1));

/// Headers that frame a message or name its hop; none of them can mean anything to the gateway.
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

/// Collects the mistakes of one file while it is read.
pub(super) struct Reader {
    /// Where relative paths start.
    pub(super) base: PathBuf,
    /// See [`super::document::Tree::removed`].
    pub(super) removed: Vec<(usize, String)>,
    /// Byte offset of each mistake, if it has a place, and what it is.
    pub(super) mistakes: Vec<(Option<usize>, String)>,
}

impl Reader {
    /// Notes a mistake at a value.
    pub(super) fn say<T>(&mut self, at: &Spanned<T>, what: impl Into<String>) {
        self.say_at(Some(at.span()), what);
    }

    pub(super) fn say_at(&mut self, at: Option<Range<usize>>, what: impl Into<String>) {
        self.mistakes.push((at.map(|span| span.start), what.into()));
    }

    /// Notes that `key` is missing in `table`, unless it was there and could not be read.
    pub(super) fn missing<T>(&mut self, table: &Spanned<T>, key: &str, what: &str) {
        let start = table.span().start;
        if !self.removed.iter().any(|(at, removed)| *at == start && removed == key) {
            self.say(table, what);
        }
    }

    /// Whether some value of this name could not be read.
    pub(super) fn was_removed(&self, key: &str) -> bool {
        self.removed.iter().any(|(_, removed)| removed == key)
    }

    pub(super) fn unsupported(&mut self, name: &str, written: &Written<Unsupported>) {
        if let Some(written) = written {
            self.say(written, format!("`{name}` is not supported by this version; remove it"));
        }
    }

    /// The value, or the default; a value outside `range` is a mistake.
    pub(super) fn bounded<T: Copy + PartialOrd + Display>(
        &mut self,
        key: &str,
        written: &Written<T>,
        default: T,
        range: RangeInclusive<T>,
    ) -> T {
        let Some(written) = written else { return default };
        let value = *written.get_ref();
        if !range.contains(&value) {
            let (least, most) = range.into_inner();
            self.say(written, format!("`{key}` is {value}, but must be {least} to {most}"));
        }
        value
    }

    pub(super) fn time(
        &mut self,
        key: &str,
        written: &Written<Time>,
        default: Duration,
        range: RangeInclusive<Time>,
    ) -> Duration {
        self.bounded(key, written, Time(default), range).0
    }

    /// A timeout: more than nothing, and at most a day.
    pub(super) fn timeout(
        &mut self,
        key: &str,
        written: &Written<Time>,
        default: Duration,
    ) -> Duration {
        self.time(key, written, default, SHORTEST..=LONGEST_WAIT)
    }

    pub(super) fn count(
        &mut self,
        key: &str,
        written: &Written<Count>,
        default: usize,
        range: RangeInclusive<u64>,
    ) -> usize {
        let (least, most) = range.into_inner();
        let value = self.bounded(key, written, Count(default as u64), Count(least)..=Count(most)).0;
        usize_of(value)
    }

    pub(super) fn retention(
        &mut self,
        answer: &Written<Period>,
        tombstone: &Written<Period>,
        default: Retention,
    ) -> Retention {
        if let Some(written) = answer
            && written.get_ref().0 == Keep::For(Duration::ZERO)
        {
            self.say(written, "`retention` is 0s, so that no answer could ever be replayed");
        }
        let value = |written: &Written<Period>, default| {
            written.as_ref().map_or(default, |written| written.get_ref().0)
        };
        Retention {
            answer: value(answer, default.answer),
            tombstone: value(tombstone, default.tombstone),
        }
    }

    /// One of `choices`; `None` there means a name this version does not support.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &str,
        written: &Written<String>,
        default: T,
        choices: &[(&str, Option<T>)],
    ) -> T {
        let Some(written) = written else { return default };
        let text = written.get_ref().as_str();
        let quoted = |name: &str| format!("\"{name}\"");
        let possible = || {
            let supported = choices.iter().filter(|(_, value)| value.is_some());
            alternatives(supported.map(|(name, _)| *name), quoted)
        };
        match choices.iter().find(|(name, _)| *name == text) {
            Some((_, Some(value))) => return *value,
            Some((_, None)) => self.say(
                written,
                format!(
                    "`{key} = \"{text}\"` is not supported by this version; use {}",
                    possible()
                ),
            ),
            None => {
                let advice = match nearest(text, choices.iter().map(|(name, _)| *name)) {
                    Some(meant) => format!("did you mean \"{meant}\"?"),
                    None => format!("use {}", possible()),
                };
                self.say(written, format!("`{key}` cannot be \"{text}\"; {advice}"));
            }
        }
        default
    }

    pub(super) fn header(&mut self, key: &str, written: &Spanned<String>) -> Option<HeaderName> {
        let text = written.get_ref();
        match HeaderName::from_bytes(text.as_bytes()) {
            Ok(name) if RESERVED_HEADERS.contains(&name.as_str()) => {
                self.say(
                    written,
                    format!(
                        "`{key}` cannot be {text}, which belongs to HTTP or to the gateway itself"
                    ),
                );
                None
            }
            Ok(name) => Some(name),
            Err(_) => {
                self.say(written, format!("`{key}`: \"{text}\" is not the name of a header"));
                None
            }
        }
    }

    pub(super) fn headers(&mut self, key: &str, written: &List<String>) -> Vec<HeaderName> {
        let mut names = Vec::new();
        for written in elements(written) {
            let Some(name) = self.header(key, written) else { continue };
            if names.contains(&name) {
                self.say(written, format!("`{key}` names {name} twice"));
            }
            names.push(name);
        }
        names
    }

    pub(super) fn pointer(&mut self, key: &str, written: &Spanned<String>) -> Option<Pointer> {
        match Pointer::parse(written.get_ref()) {
            Ok(pointer) => Some(pointer),
            Err(error) => {
                self.say(written, format!("`{key}`: \"{}\": {error}", written.get_ref()));
                None
            }
        }
    }

    /// A path of the file system; a relative one starts at the configuration's directory.
    pub(super) fn path(&self, written: &Spanned<String>) -> PathBuf {
        self.base.join(written.get_ref())
    }

    pub(super) fn address(&mut self, key: &str, written: &Spanned<String>) -> Option<SocketAddr> {
        let text = written.get_ref();
        let address = text.parse().ok();
        if address.is_none() {
            self.say(
                written,
                format!(
                    "`{key}`: \"{text}\" is not an IP address and a port, such as \
                     \"0.0.0.0:8080\" or \"[::]:8080\""
                ),
            );
        }
        address
    }
}

/// The elements of a list, none when it was not written.
pub(super) fn elements<T>(written: &List<T>) -> &[Spanned<T>] {
    written.as_ref().map_or(&[], |list| list.get_ref())
}

pub(super) fn span_of<T>(written: &Written<T>) -> Option<Range<usize>> {
    written.as_ref().map(Spanned::span)
}

pub(super) fn usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
