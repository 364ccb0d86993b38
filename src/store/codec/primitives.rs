//! Encoding of numbers, bytes and texts.
//!
//! Most numbers, counts and lengths are small, and a batch encodes many records. A number
//! therefore takes one byte per 7 bits, the lowest first, and every byte but the last has the
//! highest bit set.

use super::error::DecodeError;
use crate::clock::Timestamp;

/// Value bits in each byte of a number.
const BITS: u32 = 7;
/// Mask of the value bits.
const LOW: u8 = 0x7f;
/// Flag of a byte that another byte follows.
const MORE: u8 = 0x80;

/// Limit on the items for which a list allocates room before decoding them.
const AT_FIRST: u64 = 16;

/// Appends fields to a buffer.
pub(super) struct FieldWriter<'a>(pub(super) &'a mut Vec<u8>);

impl FieldWriter<'_> {
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.raw(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    pub(super) fn number(&mut self, mut value: u64) {
        while value > LOW.into() {
            self.raw(&[value.to_le_bytes()[0] | MORE]);
            value >>= BITS;
        }
        self.raw(&[value.to_le_bytes()[0]]);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.raw(bytes);
    }
}

/// Reads fields from the start of the remaining bytes.
pub(super) struct FieldReader<'a>(pub(super) &'a [u8]);

impl<'a> FieldReader<'a> {
    pub(super) fn take(
        &mut self,
        count: usize,
        field: &'static str,
    ) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(DecodeError::EndsIn(field))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(DecodeError::EndsIn(field))?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        Ok(self.array::<1>(field)?[0])
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// Reads a number; accepts the shortest form only, so that every record has one encoding.
    pub(super) fn number(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(BITS as usize) {
            let byte = self.u8(field)?;
            let bits = u64::from(byte & LOW);
            let beyond = (bits << shift) >> shift != bits;
            if beyond || (byte == 0 && shift > 0) {
                return Err(DecodeError::Invalid(field));
            }
            value |= bits << shift;
            if byte & MORE == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Invalid(field))
    }

    /// Reads a number of at most 32 bits.
    pub(super) fn small(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.number(field)?.try_into().map_err(|_| DecodeError::Invalid(field))
    }

    pub(super) fn time(&mut self, field: &'static str) -> Result<Timestamp, DecodeError> {
        self.number(field).map(Timestamp::from_millis)
    }

    pub(super) fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let count = usize::try_from(self.number(field)?).unwrap_or(usize::MAX);
        self.take(count, field)
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<String, DecodeError> {
        let text = std::str::from_utf8(self.bytes(field)?);
        text.map(str::to_owned).map_err(|_| DecodeError::Invalid(field))
    }

    /// Reads a count and so many items. The vector grows while decoding, so that a corrupt count
    /// allocates little memory.
    pub(super) fn list<T>(
        &mut self,
        field: &'static str,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.number(field)?;
        let mut list = Vec::with_capacity(count.min(AT_FIRST) as usize);
        for _ in 0..count {
            list.push(item(self)?);
        }
        Ok(list)
    }
}
