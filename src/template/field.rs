//! Fields of templates: places of the request, the key, times, and places of answers.

use std::fmt;

use crate::json::Pointer;

/// A field in braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// A place of the request, without a leading `pointer:`; in items mode a pointer starts at the
    /// item.
    Place(String),
    /// `{body:/pointer}`: a place of the whole body in items mode.
    Body(Pointer),
    /// `{key}`: the idempotency key, or the item's id.
    Key,
    /// A time.
    Time {
        /// The time to start from.
        base: TimeBase,
        /// Milliseconds to add.
        offset: i64,
        /// The written form.
        format: TimeFormat,
    },
    /// `{row:/pointer}`: a place of the matching row.
    Row(Pointer),
    /// `{answer:/pointer}`: a place of the last answer that arrived.
    Answer(Pointer),
    /// A name of the caller's own, such as `{detail}`.
    Name(&'static str),
}

/// The time a field starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeBase {
    /// The first claim of the key.
    FirstSeen,
    /// The dispatch of the attempt.
    DispatchedAt,
    /// The time of rendering.
    Now,
}

/// The written form of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeFormat {
    /// `2026-01-31T23:59:59.000Z`
    Rfc3339,
    /// Whole seconds since 1970.
    Unix,
    /// Milliseconds since 1970.
    UnixMs,
    /// `2026-01-31`, the day in UTC.
    Date,
}

impl TimeBase {
    pub(super) const ALL: [Self; 3] = [Self::FirstSeen, Self::DispatchedAt, Self::Now];

    /// The name in templates.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FirstSeen => "first_seen",
            Self::DispatchedAt => "dispatched_at",
            Self::Now => "now",
        }
    }
}

impl TimeFormat {
    pub(super) const ALL: [Self; 4] = [Self::Rfc3339, Self::Unix, Self::UnixMs, Self::Date];

    /// The name in templates.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rfc3339 => "rfc3339",
            Self::Unix => "unix",
            Self::UnixMs => "unix_ms",
            Self::Date => "date",
        }
    }
}

impl Field {
    /// The place of the request whose value has to be kept with the claim; `None` for fields whose
    /// values are in the record or in an answer.
    pub fn kept_name(&self) -> Option<String> {
        match self {
            Self::Place(_) | Self::Body(_) => Some(self.to_string()),
            Self::Key | Self::Time { .. } | Self::Row(_) | Self::Answer(_) | Self::Name(_) => None,
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place(place) => f.write_str(place),
            Self::Body(pointer) => write!(f, "body:{pointer}"),
            Self::Key => f.write_str("key"),
            Self::Time { base, offset, format } => {
                f.write_str(base.as_str())?;
                match offset {
                    0 => {}
                    1.. => write!(f, "+{offset}ms")?,
                    _ => write!(f, "{offset}ms")?,
                }
                write!(f, "|{}", format.as_str())
            }
            Self::Row(pointer) => write!(f, "row:{pointer}"),
            Self::Answer(pointer) => write!(f, "answer:{pointer}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}
