//! The header `traceparent` (W3C Trace Context, level 1).

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::hex;

/// The header of the context.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The context of a client's span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TraceParent {
    pub(super) trace: [u8; 16],
    pub(super) span: [u8; 8],
    pub(super) is_sampled: bool,
}

impl TraceParent {
    /// The context of a request; `None`: there is none, or it cannot be read.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(TRACEPARENT).iter();
        match (lines.next(), lines.next()) {
            (Some(line), None) => Self::parse(line.to_str().ok()?),
            _ => None,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let version: [u8; 1] = hex::decode_lower(parts.next()?)?;
        let (trace, span) = (hex::decode_lower(parts.next()?)?, hex::decode_lower(parts.next()?)?);
        let [flags]: [u8; 1] = hex::decode_lower(parts.next()?)?;
        // A later version may have further parts; version 255 is forbidden.
        let is_whole = version != [0] || parts.next().is_none();
        let is_valid = version != [0xff] && trace != [0; 16] && span != [0; 8] && is_whole;
        is_valid.then_some(Self { trace, span, is_sampled: flags & 1 == 1 })
    }
}

/// The context of a sampled span in its written form.
pub(super) fn written(trace: &[u8; 16], span: &[u8; 8]) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("00-{}-{}-01", hex::encode(trace), hex::encode(span))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_read_as_the_standard_says() {
        let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let read = TraceParent::parse(valid).unwrap();
        assert!(read.is_sampled);
        assert_eq!(written(&read.trace, &read.span).unwrap(), valid);
        assert!(!TraceParent::parse(&valid.replace("-01", "-02")).unwrap().is_sampled);
        let later = format!("{}-more", valid.replacen("00", "cc", 1));
        assert!(TraceParent::parse(&later).is_some());
        for wrong in [
            "",
            "00",
            &valid[..54],
            &format!("{valid}-more"),
            &valid.replacen("00", "ff", 1),
            &valid.to_uppercase(),
            &valid.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &valid.replace("b7ad6b7169203331", &"0".repeat(16)),
            &valid.replace('b', "g"),
        ] {
            assert_eq!(TraceParent::parse(wrong), None, "{wrong}");
        }
        let line =
            || HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let two = HeaderMap::from_iter([(TRACEPARENT, line())]);
        let mut twice = two.clone();
        twice.append(TRACEPARENT, line());
        assert!(TraceParent::of(&two).is_some() && TraceParent::of(&twice).is_none());
    }
}
