//! The parts of answers that an item's ledger entry keeps: its row, the elements issued with its
//! units, and what stood beside the rows.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// The last readable row of an item, and where the row stood.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptRow {
    /// JSON text, its `append` arrays emptied.
    pub text: String,
    /// Path of the row's array, where an answer has several.
    pub array: Option<String>,
    /// The group around the row with an empty list, where rows stand in groups: JSON text.
    pub group: Option<String>,
}

impl KeptRow {
    /// Approximate bytes of the texts.
    pub fn bytes(&self) -> usize {
        let place = self.array.iter().chain(&self.group).map(String::len);
        self.text.len() + place.sum::<usize>()
    }
}

impl From<&str> for KeptRow {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned(), array: None, group: None }
    }
}

/// The parts of an answer beside its rows, for replies that are written from ledger entries alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Time of the answer. Of several envelopes, the latest is used.
    pub at: Timestamp,
    /// Status of the answer.
    pub status: u16,
    /// The text of the answer with empty lists in the place of the rows; empty when the rows were
    /// all of it.
    pub body: String,
    /// Name and value of each end-to-end header line.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Envelope {
    /// Approximate bytes of the texts.
    pub fn bytes(&self) -> usize {
        let lines = self.headers.iter().map(|(name, value)| name.len() + value.len());
        self.body.len() + lines.sum::<usize>()
    }
}

/// The elements of one `append` array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeList {
    /// The array's pointer in a row.
    pub at: String,
    /// The text of each element as the backend wrote it.
    pub elements: Vec<String>,
}

/// The elements of the list for a pointer, none when there is no such list.
pub fn elements<'l>(lists: &'l [OutcomeList], at: &str) -> &'l [String] {
    lists.iter().find(|list| list.at == at).map_or(&[], |list| &list.elements)
}
