//! The response that `oncegate records resolve` gives, from a JSON document or from its parts.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::admin_client::CommandFailure;
use crate::cli::records::ResolveArgs;

/// Status of a response whose arguments name none.
const DEFAULT_STATUS: u16 = 200;

/// The response of the arguments as JSON text; `None`: they give none.
///
/// # Errors
/// A file cannot be read, or an argument is no header line.
pub(super) fn written(args: &ResolveArgs) -> Result<Option<String>, CommandFailure> {
    if let Some(file) = &args.response {
        let name = file.display();
        let text = std::fs::read_to_string(file).map_err(|error| {
            CommandFailure::usage(format!("--response {name}: cannot be read: {error}"))
        })?;
        let wrong = |error: serde_json::Error| {
            // The reader's own text ends with the place.
            CommandFailure::usage(format!("--response {name}: {error}"))
        };
        serde_json::from_str::<Map<String, Value>>(&text).map_err(wrong)?;
        let response: Box<RawValue> = serde_json::from_str(&text).map_err(wrong)?;
        return Ok(Some(response.get().to_owned()));
    }
    if args.status.is_none() && args.body.is_none() && args.header.is_empty() {
        return Ok(None);
    }
    let mut response = json!({ "status": args.status.unwrap_or(DEFAULT_STATUS) });
    if let Some(file) = &args.body {
        let name = file.display();
        let bytes = std::fs::read(file).map_err(|error| {
            CommandFailure::usage(format!("--body {name}: cannot be read: {error}"))
        })?;
        match String::from_utf8(bytes) {
            Ok(text) => response["body"] = text.into(),
            Err(error) => response["body_base64"] = BASE64_STANDARD.encode(error.as_bytes()).into(),
        }
    }
    let mut headers: Map<String, Value> = Map::new();
    for line in &args.header {
        let Some((name, value)) = line.split_once(':') else {
            let what = "a header line is a name, a colon and a value";
            return Err(CommandFailure::usage(format!("--header {line}: {what}")));
        };
        let lines = headers.entry(name.trim().to_ascii_lowercase()).or_insert_with(|| json!([]));
        if let Value::Array(lines) = lines {
            lines.push(value.trim().into());
        }
    }
    response["headers"] = headers.into();
    Ok(Some(response.to_string()))
}
