//! What is compared of a request, written down piece by piece, or compared with what was.

/// Where a text goes, piece by piece.
pub(crate) trait PreimageSink {
    fn put(&mut self, bytes: &[u8]);

    /// The same in lower case.
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

/// Compares with a text instead of writing one: what of it is still to come, `None` once something
/// was different.
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

/// Bytes behind their length.
pub(crate) fn field(text: &mut impl PreimageSink, bytes: &[u8]) {
    text.put(&(bytes.len() as u64).to_le_bytes());
    text.put(bytes);
}

/// The same of what may be absent.
pub(super) fn optional<T: PreimageSink>(text: &mut T, bytes: Option<&[u8]>) {
    marked(text, bytes, T::put);
}

/// The same as [`optional`] of the bytes in lower case.
pub(super) fn lower_case<T: PreimageSink>(text: &mut T, bytes: Option<&[u8]>) {
    marked(text, bytes, T::put_lower);
}

fn marked<T: PreimageSink>(text: &mut T, bytes: Option<&[u8]>, put: impl Fn(&mut T, &[u8])) {
    let Some(bytes) = bytes else { return text.put(&[0]) };
    text.put(&[1]);
    text.put(&(bytes.len() as u64).to_le_bytes());
    put(text, bytes);
}
