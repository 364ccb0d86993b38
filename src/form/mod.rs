//! Bodies of forms, read in place: `application/x-www-form-urlencoded`, queries of addresses, and
//! `multipart/form-data`. The number of fields and of parts is limited, so that reading takes
//! bounded time and memory for any input.

mod multipart;
#[cfg(test)]
mod tests;
mod urlencoded;

pub use multipart::{FormPart, MAX_PARTS, Multipart};
pub use urlencoded::{
    FormError, FormField, FormFields, MAX_FIELDS, QueryValue, query_value, query_without,
};
