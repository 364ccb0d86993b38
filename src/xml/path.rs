//! Paths to elements and attributes.

use std::fmt;

/// The place of an element or an attribute: local names from the root element down, and the local
/// name of an attribute at the end, if any. `/StoredValueRedeemRequest/@requestId`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct XmlPath {
    steps: Vec<String>,
    attribute: Option<String>,
}

/// The reason a text is not a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XmlPathError {
    /// The text does not start with `/`.
    NoLeadingSlash,
    /// A name is empty, as in `//` and at the end of `/a/`.
    EmptyName,
    /// An attribute stands before the end, or without an element.
    Attribute,
    /// A sign of XPath: a wildcard, a predicate, an axis or a function.
    XPath,
    /// A prefix of a namespace.
    Prefix,
}

impl fmt::Display for XmlPathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoLeadingSlash => "it starts with \"/\" and the root element, such as \"/Order\"",
            Self::EmptyName => "a name between two \"/\" is empty; write each element's name",
            Self::Attribute => {
                "one attribute stands at the end, behind its element, such as \"/Order/@id\""
            }
            Self::XPath => {
                "it is not XPath: names of elements from the root down, and one attribute at the \
                 end, such as \"/Order/Item/@id\""
            }
            Self::Prefix => {
                "elements and attributes are found by local name; leave out the prefix and its \
                 \":\""
            }
        })
    }
}

impl XmlPath {
    /// Parses the text form.
    ///
    /// # Errors
    /// When the text is not a path.
    pub fn parse(text: &str) -> Result<Self, XmlPathError> {
        let mut names: Vec<&str> =
            text.strip_prefix('/').ok_or(XmlPathError::NoLeadingSlash)?.split('/').collect();
        let attribute = names.last().and_then(|last| last.strip_prefix('@'));
        if attribute.is_some() {
            names.pop();
        }
        if names.is_empty() {
            return Err(XmlPathError::Attribute);
        }
        for name in names.iter().copied().chain(attribute) {
            check_name(name)?;
        }
        Ok(Self {
            steps: names.into_iter().map(str::to_owned).collect(),
            attribute: attribute.map(str::to_owned),
        })
    }

    /// Local names of the elements, the root's first.
    pub(super) fn steps(&self) -> &[String] {
        &self.steps
    }

    /// Local name of the attribute.
    pub(super) fn attribute(&self) -> Option<&str> {
        self.attribute.as_deref()
    }
}

fn check_name(name: &str) -> Result<(), XmlPathError> {
    match name {
        "" => Err(XmlPathError::EmptyName),
        name if name.starts_with('@') => Err(XmlPathError::Attribute),
        "." | ".." => Err(XmlPathError::XPath),
        name if name.contains("::") => Err(XmlPathError::XPath),
        name if name.contains(':') => Err(XmlPathError::Prefix),
        name if name.contains(['*', '[', ']', '(', ')', '@', '=', '"', '\'', '|', ' ', '<']) => {
            Err(XmlPathError::XPath)
        }
        _ => Ok(()),
    }
}

impl fmt::Display for XmlPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| write!(f, "/{step}"))?;
        self.attribute.as_ref().map_or(Ok(()), |name| write!(f, "/@{name}"))
    }
}

impl serde::Serialize for XmlPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
