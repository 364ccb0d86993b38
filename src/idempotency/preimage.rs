//! The preimage of a fingerprint: the compared parts of a request, written in pieces to a buffer
//! or matched against an earlier preimage.

/// A destination for the pieces of a preimage.
pub(crate) trait PreimageSink {
    fn put(&mut self, bytes: &[u8]);

    /// Appends the bytes in lower case.
    fn put_lower(&mut self, bytes: &[u8]);
}

impl PreimageSink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn put_lower(&mut self, bytes: &[u8]) {
        self.extend(bytes.iter().map(u8::to_ascii_lowercase));
    }
}

/// Matches pieces against an existing preimage instead of writing a new one. Holds the unmatched
/// rest; `None` after the first difference.
pub(super) struct PreimageMatcher<'a>(pub(super) Option<&'a [u8]>);

impl PreimageMatcher<'_> {
    fn next(&mut self, bytes: &[u8], same: impl Fn(&[u8], &[u8]) -> bool) {
        let split = self.0.and_then(|rest| rest.split_at_checked(bytes.len()));
        self.0 = split.filter(|(piece, _)| same(piece, bytes)).map(|(_, rest)| rest);
    }
}

impl PreimageSink for PreimageMatcher<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.next(bytes, |piece, bytes| piece == bytes);
    }

    fn put_lower(&mut self, bytes: &[u8]) {
        let lower = |piece: &[u8]| piece.iter().all(|byte| !byte.is_ascii_uppercase());
        self.next(bytes, |piece, bytes| lower(piece) && piece.eq_ignore_ascii_case(bytes));
    }
}

/// Appends the length, then the bytes.
pub(crate) fn field(text: &mut impl PreimageSink, bytes: &[u8]) {
    text.put(&(bytes.len() as u64).to_le_bytes());
    text.put(bytes);
}

/// Appends a presence flag, then the field if present.
pub(super) fn optional<T: PreimageSink>(text: &mut T, bytes: Option<&[u8]>) {
    marked(text, bytes, T::put);
}

/// Appends like [`optional`], in lower case.
pub(super) fn lower_case<T: PreimageSink>(text: &mut T, bytes: Option<&[u8]>) {
    marked(text, bytes, T::put_lower);
}

fn marked<T: PreimageSink>(text: &mut T, bytes: Option<&[u8]>, put: impl Fn(&mut T, &[u8])) {
    let Some(bytes) = bytes else { return text.put(&[0]) };
    text.put(&[1]);
    text.put(&(bytes.len() as u64).to_le_bytes());
    put(text, bytes);
}
