//! The path of a list in a JSON text: a JSON pointer, or a pointer with `*` for each element of an
//! array of groups (`/orders/*/lines`).

use std::fmt;

use serde::{Serialize, Serializer};

use crate::json::{Pointer, PointerError};

/// The path of a list: `/rewards`, or `/orders/*/lines` for lists within groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPath {
    outer: Pointer,
    inner: Option<Pointer>,
}

/// The reason a text is not the path of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListPathError {
    /// The text is not a JSON pointer.
    Pointer(PointerError),
    /// The path has two `*`.
    NestedGroups,
    /// The path ends with `*`.
    StarAtEnd,
}

impl fmt::Display for ListPathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pointer(error) => return error.fmt(f),
            Self::NestedGroups => "one \"*\" is read, not groups within groups",
            Self::StarAtEnd => {
                "the path names the array itself, without \"*\" for its elements at the end"
            }
        })
    }
}

impl From<Pointer> for ListPath {
    fn from(outer: Pointer) -> Self {
        Self { outer, inner: None }
    }
}

impl ListPath {
    /// Parses a pointer in which one name may be `*`.
    ///
    /// # Errors
    /// The text is no such pointer.
    pub fn parse(text: &str) -> Result<Self, ListPathError> {
        let tokens: Vec<&str> = text.split('/').collect();
        let stars: Vec<usize> =
            tokens.iter().enumerate().filter(|(_, token)| **token == "*").map(|it| it.0).collect();
        let pointer = |text: &str| Pointer::parse(text).map_err(ListPathError::Pointer);
        match stars.as_slice() {
            [] | [0] => Ok(Self { outer: pointer(text)?, inner: None }),
            [star] if *star + 1 == tokens.len() => Err(ListPathError::StarAtEnd),
            [star] => {
                let inner = format!("/{}", tokens[star + 1..].join("/"));
                let outer = pointer(&tokens[..*star].join("/"))?;
                Ok(Self { outer, inner: Some(pointer(&inner)?) })
            }
            [_, _, ..] => Err(ListPathError::NestedGroups),
        }
    }

    /// The pointer to the list, or to the array of the groups.
    pub fn outer(&self) -> &Pointer {
        &self.outer
    }

    /// The pointer from a group to its list; `None`: the list stands in no group.
    pub fn inner(&self) -> Option<&Pointer> {
        self.inner.as_ref()
    }

    /// Reports a list within groups.
    pub fn is_grouped(&self) -> bool {
        self.inner.is_some()
    }
}

impl fmt::Display for ListPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.inner {
            None => self.outer.fmt(f),
            Some(inner) => write!(f, "{}/*{inner}", self.outer),
        }
    }
}

impl Serialize for ListPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_pointer_with_at_most_one_star_between_names() {
        for (text, outer, inner) in [
            ("", "", None),
            ("/a/b", "/a/b", None),
            ("/a/*/b/c", "/a", Some("/b/c")),
            ("/*/b", "", Some("/b")),
            ("/a/**/b", "/a/**/b", None),
        ] {
            let path = ListPath::parse(text).unwrap();
            assert_eq!(path.to_string(), text);
            assert_eq!(path.outer().to_string(), outer);
            assert_eq!(path.inner().map(ToString::to_string).as_deref(), inner);
        }
        for (text, error) in [
            ("a", ListPathError::Pointer(PointerError::NoLeadingSlash)),
            ("*", ListPathError::Pointer(PointerError::NoLeadingSlash)),
            ("/a~2/*/b", ListPathError::Pointer(PointerError::Escape)),
            ("/a/*", ListPathError::StarAtEnd),
            ("/a/*/b/*/c", ListPathError::NestedGroups),
        ] {
            assert_eq!(ListPath::parse(text), Err(error), "{text}");
        }
    }
}
