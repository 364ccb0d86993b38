//! Reading a body as a form ends for any bytes, and what was read and written again is read alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oncegate::form::{FormFields, MAX_FIELDS, QueryValue, query_value, query_without};

fuzz_target!(|bytes: &[u8]| {
    let Ok(fields) = FormFields::parse(bytes) else { return };
    let encoded =
        |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02x}")).collect() };
    let pairs: Vec<String> = fields
        .iter()
        .map(|field| format!("{}={}", encoded(&field.name), encoded(&field.value)))
        .collect();
    assert!(pairs.len() <= MAX_FIELDS);
    let text = pairs.join("&");
    assert_eq!(FormFields::parse(text.as_bytes()).as_ref(), Ok(&fields));
    let Some(first) = fields.iter().next() else { return };
    let several = fields.values(&first.name).count() > 1;
    match query_value(&text, &first.name) {
        QueryValue::Value(value) => assert!(!several && value == first.value),
        other => assert_eq!(other, QueryValue::Several),
    }
    let rest = query_without(&text, &[first.name.to_string()]);
    assert_eq!(query_value(&rest, &first.name), QueryValue::Absent);
});
