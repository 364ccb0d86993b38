//! Layout of the data for a settlement, behind the state.
//!
//! ```text
//! dispatched a number
//! flags      u8   bit 0: reversing, bit 1: gave up, bit 2: several; presence of bit 3: next,
//!                 bit 4: absent, bit 5: answer, bit 6: last; bit 7: running
//! next, last      a number each
//! tries, resent   a number each
//! absent     count and time of the last, a number each
//! values     count, each: name, JSON text
//! answer     status u16, count of header lines, each: name, value; body
//! ```

use std::sync::Arc;

use super::error::DecodeError;
use super::primitives::{FieldReader, FieldWriter};
use crate::idempotency::settling::{KeptValue, Schedule, Settling, Sightings};

const REVERSING: u8 = 1;
const GAVE_UP: u8 = 2;
const SEVERAL: u8 = 4;
const HAS_NEXT: u8 = 8;
const HAS_ABSENT: u8 = 16;
const HAS_ANSWER: u8 = 32;
const HAS_LAST: u8 = 64;
const RUNNING: u8 = 128;

const FIELD: &str = "settlement";

impl FieldWriter<'_> {
    pub(super) fn settling(&mut self, settling: &Settling) {
        let Schedule { next, last, running, tries, absent, resent, reversing, gave_up, several } =
            &settling.schedule;
        self.number(settling.dispatched.as_millis());
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        self.raw(&[flag(*reversing, REVERSING)
            | flag(*gave_up, GAVE_UP)
            | flag(*several, SEVERAL)
            | flag(next.is_some(), HAS_NEXT)
            | flag(last.is_some(), HAS_LAST)
            | flag(*running, RUNNING)
            | flag(absent.is_some(), HAS_ABSENT)
            | flag(settling.answer.is_some(), HAS_ANSWER)]);
        for time in next.iter().chain(last) {
            self.number(time.as_millis());
        }
        self.number((*tries).into());
        self.number((*resent).into());
        if let Some(absent) = absent {
            self.number(absent.count.into());
            self.number(absent.last.as_millis());
        }
        self.number(settling.values.len() as u64);
        for value in settling.values.iter() {
            self.bytes(value.name.as_bytes());
            self.bytes(value.json.as_bytes());
        }
        if let Some(answer) = &settling.answer {
            self.u16(answer.status);
            self.response(answer);
        }
    }
}

impl FieldReader<'_> {
    pub(super) fn settling(&mut self) -> Result<Settling, DecodeError> {
        let dispatched = self.time(FIELD)?;
        let flags = self.u8(FIELD)?;
        let has = |flag: u8| flags & flag != 0;
        let next = if has(HAS_NEXT) { Some(self.time(FIELD)?) } else { None };
        let last = if has(HAS_LAST) { Some(self.time(FIELD)?) } else { None };
        let (tries, resent) = (self.small(FIELD)?, self.small(FIELD)?);
        let absent = match has(HAS_ABSENT) {
            true => Some(Sightings { count: self.small(FIELD)?, last: self.time(FIELD)? }),
            false => None,
        };
        let values = self.list(FIELD, |from| {
            let (name, json) = (from.text(FIELD)?, from.text(FIELD)?);
            Ok(KeptValue { name: name.into(), json: json.into() })
        })?;
        let answer = match has(HAS_ANSWER) {
            true => {
                let status = self.u16(FIELD)?;
                Some(Arc::new(self.stored_response(status)?))
            }
            false => None,
        };
        let schedule = Schedule {
            next,
            last,
            running: has(RUNNING),
            tries,
            absent,
            resent,
            reversing: has(REVERSING),
            gave_up: has(GAVE_UP),
            several: has(SEVERAL),
        };
        Ok(Settling { dispatched, values: values.into(), answer, schedule })
    }
}
