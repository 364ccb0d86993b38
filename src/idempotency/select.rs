//! The compared parts of a JSON body, and their canonical text.

use std::ops::Range;

use super::preimage::field;
use crate::json::{Document, JsonType, Pointer};

/// Compared parts of a JSON body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// The whole body.
    All,
    /// Only the named parts.
    Include(Vec<Pointer>),
    /// All but the named parts.
    Exclude(Vec<Pointer>),
}

impl Select {
    /// The selection in its canonical order: the order of a list of pointers has no meaning.
    pub(super) fn sorted(self) -> Self {
        let sort = |mut pointers: Vec<Pointer>| {
            pointers.sort_by_cached_key(Pointer::to_string);
            pointers
        };
        match self {
            Self::All => Self::All,
            Self::Include(pointers) => Self::Include(sort(pointers)),
            Self::Exclude(pointers) if pointers.is_empty() => Self::All,
            Self::Exclude(pointers) => Self::Exclude(sort(pointers)),
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
            Self::Exclude(pointers) => {
                let found = pointers.iter().filter_map(|pointer| document.find(pointer));
                let skip: Vec<usize> = found.map(|value| value.place()).collect();
                whole(document, &skip, text, pieces)
            }
            Self::Include(pointers) => {
                !document.has_duplicates()
                    && pointers.iter().all(|pointer| {
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
fn member(
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
