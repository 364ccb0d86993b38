//! The parts of a body that a rule compares, and the canonical text of those of JSON bodies.

use std::ops::Range;

use super::preimage::field;
use crate::json::{Document, JsonType, Pointer};

/// Compared parts of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// The whole body.
    All,
    /// Only the named parts; of a form of body that has no names in the list, everything.
    Include(Selection),
    /// All but the named parts.
    Exclude(Selection),
}

/// Names of parts of a body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Values of JSON bodies.
    pub pointers: Vec<Pointer>,
    /// Fields of forms, URL-encoded or in parts.
    pub fields: Vec<String>,
}

impl Selection {
    /// A selection of values of JSON bodies.
    pub const fn of_json(pointers: Vec<Pointer>) -> Self {
        Self { pointers, fields: Vec::new() }
    }

    /// The names as the configuration writes them.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.pointers.iter().map(Pointer::to_string).chain(self.fields.iter().cloned())
    }

    fn is_empty(&self) -> bool {
        self.pointers.is_empty() && self.fields.is_empty()
    }

    fn sorted(mut self) -> Self {
        self.pointers.sort_by_cached_key(Pointer::to_string);
        self.fields.sort_unstable();
        self
    }
}

impl Select {
    /// The selection in its canonical order: the order of a list has no meaning.
    pub(super) fn sorted(self) -> Self {
        match self {
            Self::All => Self::All,
            Self::Include(selection) => Self::Include(selection.sorted()),
            Self::Exclude(selection) if selection.is_empty() => Self::All,
            Self::Exclude(selection) => Self::Exclude(selection.sorted()),
        }
    }

    /// Reports whether fields of forms are left out by name.
    pub(super) fn names_fields(&self) -> bool {
        match self {
            Self::All => false,
            Self::Include(selection) | Self::Exclude(selection) => !selection.fields.is_empty(),
        }
    }

    /// Reports whether a field of a form is compared.
    pub(super) fn takes_field(&self, name: &str) -> bool {
        let names = |selection: &Selection| selection.fields.iter().any(|field| *field == name);
        match self {
            Self::All => true,
            Self::Include(selection) => selection.fields.is_empty() || names(selection),
            Self::Exclude(selection) => !names(selection),
        }
    }

    /// Appends the compared parts of the document and the places of its top-level members.
    /// Returns false when a member name is repeated within an object, because such a body cannot
    /// be compared as JSON.
    pub(super) fn canonical(
        &self,
        document: &Document<'_>,
        text: &mut Vec<u8>,
        pieces: &mut Vec<Piece>,
    ) -> bool {
        match self {
            Self::All => whole(document, &[], text, pieces),
            Self::Include(selection) if selection.pointers.is_empty() => {
                whole(document, &[], text, pieces)
            }
            Self::Exclude(selection) => {
                let found = selection.pointers.iter().filter_map(|pointer| document.find(pointer));
                let skip: Vec<usize> = found.map(|value| value.place()).collect();
                whole(document, &skip, text, pieces)
            }
            Self::Include(selection) => {
                !document.has_duplicates()
                    && selection.pointers.iter().all(|pointer| {
                        let name = pointer.tokens().first().map_or("", String::as_str);
                        member(text, pieces, name, |text| match document.find(pointer) {
                            Some(value) => {
                                text.push(1);
                                value.canonical(text, &[])
                            }
                            None => {
                                text.push(0);
                                true
                            }
                        })
                    })
            }
        }
    }
}

/// Appends the whole document without the values at the places in `skip`.
fn whole(
    document: &Document<'_>,
    skip: &[usize],
    text: &mut Vec<u8>,
    pieces: &mut Vec<Piece>,
) -> bool {
    let root = document.root();
    if root.kind() != JsonType::Object || skip.contains(&root.place()) {
        return skip.contains(&root.place()) || root.canonical(text, skip);
    }
    let Some(members) = root.sorted_members() else { return false };
    text.push(b'{');
    let counted = members.iter().filter(|(_, value)| !skip.contains(&value.place()));
    for (name, value) in counted {
        if !member(text, pieces, name, |text| value.canonical(text, skip)) {
            return false;
        }
    }
    text.push(b'}');
    true
}

/// Appends a member's name, then its value by `append`, and records their places.
pub(super) fn member(
    text: &mut Vec<u8>,
    pieces: &mut Vec<Piece>,
    name: &str,
    append: impl FnOnce(&mut Vec<u8>) -> bool,
) -> bool {
    let start = text.len();
    field(text, name.as_bytes());
    let named = text.len();
    let appended = append(text);
    pieces.push(Piece { name: named - name.len()..named, whole: start..text.len() });
    appended
}

/// The place of a top-level member in the text of a preimage.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) name: Range<usize>,
    pub(super) whole: Range<usize>,
}
