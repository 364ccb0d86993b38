//! The headers in which a proxy says who its own client is.

use std::net::IpAddr;

use http::{HeaderName, HeaderValue};

/// True for a header that only a trusted proxy may set, also as it is spelled with underscores,
/// which many servers read as the same name.
pub(super) fn is_claim(name: &HeaderName) -> bool {
    let name = name.as_str();
    is_claim_name(name) || (name.contains('_') && is_claim_name(&name.replace('_', "-")))
}

fn is_claim_name(name: &str) -> bool {
    matches!(
        name,
        "forwarded"
            | "x-real-ip"
            | "x-forwarded-for"
            | "x-forwarded-host"
            | "x-forwarded-port"
            | "x-forwarded-proto"
    )
}

/// The gateway's element of `Forwarded` (RFC 7239).
pub(super) fn element(
    client: Option<IpAddr>,
    scheme: &str,
    host: Option<&HeaderValue>,
) -> Option<HeaderValue> {
    let mut text = match client.map(|client| client.to_canonical()) {
        Some(IpAddr::V4(address)) => format!("for={address};proto={scheme}"),
        Some(IpAddr::V6(address)) => format!("for=\"[{address}]\";proto={scheme}"),
        None => format!("for=unknown;proto={scheme}"),
    };
    // A host was checked with the head and contains nothing to escape.
    if let Some(host) = host.and_then(|host| host.to_str().ok()) {
        text.push_str(";host=\"");
        text.push_str(host);
        text.push('"');
    }
    HeaderValue::try_from(text).ok()
}
