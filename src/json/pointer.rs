//! JSON pointers (RFC 6901).

use std::fmt;

/// A JSON pointer, parsed: the names and indices from the root down.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pointer {
    tokens: Vec<String>,
}

/// The reason a text is not a JSON pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PointerError {
    /// The text is neither empty nor starts with `/`.
    NoLeadingSlash,
    /// A `~` is followed by something other than `0` or `1`.
    Escape,
}

impl fmt::Display for PointerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoLeadingSlash => "a JSON pointer is empty or starts with \"/\" (RFC 6901)",
            Self::Escape => "in a JSON pointer \"~\" is written \"~0\" and \"/\" is written \"~1\"",
        })
    }
}

impl Pointer {
    /// The empty pointer, to the whole value.
    pub const fn root() -> Self {
        Self { tokens: Vec::new() }
    }

    /// Parses the string form (RFC 6901 section 3).
    ///
    /// # Errors
    /// When the text is not a pointer.
    pub fn parse(text: &str) -> Result<Self, PointerError> {
        if text.is_empty() {
            return Ok(Self { tokens: Vec::new() });
        }
        let rest = text.strip_prefix('/').ok_or(PointerError::NoLeadingSlash)?;
        let tokens = rest.split('/').map(unescape).collect::<Result<_, _>>()?;
        Ok(Self { tokens })
    }

    /// Names and indices from the root down, unescaped.
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tokens
            .iter()
            .try_for_each(|token| write!(f, "/{}", token.replace('~', "~0").replace('/', "~1")))
    }
}

impl serde::Serialize for Pointer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn unescape(token: &str) -> Result<String, PointerError> {
    let mut plain = String::with_capacity(token.len());
    let mut characters = token.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '~' => match characters.next() {
                Some('0') => '~',
                Some('1') => '/',
                Some(_) | None => return Err(PointerError::Escape),
            },
            other => other,
        });
    }
    Ok(plain)
}

/// A token as an array index (RFC 6901 section 4): digits without a leading zero.
pub(super) fn array_index(token: &str) -> Option<usize> {
    let digits = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = token.len() > 1 && token.starts_with('0');
    if digits && !leading_zero { token.parse().ok() } else { None }
}
