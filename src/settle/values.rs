//! The values of a record for templates.

use crate::clock::Timestamp;
use crate::idempotency::Record;
use crate::idempotency::settling::REQUEST;
use crate::json::{Document, Pointer};
use crate::template::{Field, FieldValue, FieldValues, TimeBase};

/// A record, and the row that was found about the record.
pub(crate) struct RecordValues<'r> {
    pub(crate) record: &'r Record,
    /// The matching row, or the object, as JSON text.
    pub(crate) row: Option<&'r str>,
    pub(crate) now: Timestamp,
}

impl FieldValues for RecordValues<'_> {
    fn value(&self, field: &Field) -> Option<FieldValue> {
        let settling = self.record.settling.as_ref();
        match field {
            Field::Key => Some(FieldValue::Text(self.record.key.to_string())),
            Field::Row(pointer) => member(self.row?.as_bytes(), pointer),
            Field::Answer(pointer) => member(&settling?.answer.as_ref()?.body, pointer),
            Field::Place(_) | Field::Body(_) => {
                let name = field.kept_name()?;
                if let Some(json) = settling?.value(&name) {
                    return Some(FieldValue::Json(json.to_owned()));
                }
                let pointer = Pointer::parse(&name).ok().filter(|_| name.starts_with('/'))?;
                member(settling?.value(REQUEST)?.as_bytes(), &pointer)
            }
            Field::Time { .. } | Field::Name(_) => None,
        }
    }

    fn time(&self, base: TimeBase) -> Option<Timestamp> {
        Some(match base {
            TimeBase::FirstSeen => self.record.first_seen,
            TimeBase::DispatchedAt => self.record.dispatched(),
            TimeBase::Now => self.now,
        })
    }
}

/// The member of a JSON text.
fn member(json: &[u8], pointer: &Pointer) -> Option<FieldValue> {
    let document = Document::parse(json).ok()?;
    let value = document.find(pointer)?;
    Some(FieldValue::Json(value.raw().to_owned()))
}
