//! Numbers, bytes and texts as they stand in a record. Most numbers, counts and lengths are small, and a batch
//! writes many records: they take a byte for each 7 bits, the lowest first, all but the last with the highest
//! bit set.

use super::DecodeError;
use crate::clock::Timestamp;

/// Of each byte of a number: how many bits count, which, and that another byte follows.
const BITS: u32 = 7;
const LOW: u8 = 0x7f;
const MORE: u8 = 0x80;

/// Items of a list that there is room for before they are read, at most.
const AT_FIRST: u64 = 16;

/// Writes behind what is there.
pub(super) struct Writer<'a>(pub(super) &'a mut Vec<u8>);

impl Writer<'_> {
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

/// Reads what is left.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
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

    /// A number in its one form, the shortest.
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

    /// As [`Reader::number`], of 32 bits.
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

    /// So many items. The vector grows as they are read, so a wrong count asks for little memory.
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
