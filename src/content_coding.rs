//! Content codings (RFC 9110 section 8.4): bodies decoded within a limit, to be compared and read.
//! The body that goes upstream keeps its coding.

use std::borrow::Cow;
use std::io::Read;

use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

/// The reason why a body stays coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodingError {
    /// Decoded, the body would exceed the limit.
    TooLarge,
    /// A coding other than gzip and deflate, or several codings.
    Unsupported,
    /// The bytes are not of the coding that the header names.
    Corrupt,
}

/// Reports a coding other than `identity`.
pub fn is_coded(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// The body without its content coding, of `most` bytes at most.
///
/// # Errors
/// The body cannot be decoded within the limit.
pub fn decoded<'a>(
    headers: &HeaderMap,
    body: &'a [u8],
    most: u64,
) -> Result<Cow<'a, [u8]>, CodingError> {
    let mut codings = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"));
    let Some(coding) = codings.next() else { return Ok(Cow::Borrowed(body)) };
    if codings.next().is_some() {
        return Err(CodingError::Unsupported);
    }
    let is = |name: &[u8]| coding.eq_ignore_ascii_case(name);
    if is(b"gzip") || is(b"x-gzip") {
        return limited(MultiGzDecoder::new(body), most).map(Cow::Owned);
    }
    if !is(b"deflate") {
        return Err(CodingError::Unsupported);
    }
    // The name stands for the zlib format; some clients send the bare stream inside.
    let mut zlib = ZlibDecoder::new(body);
    match limited(&mut zlib, most) {
        Err(CodingError::Corrupt) => {
            let mut bare = DeflateDecoder::new(body);
            let decoded = limited(&mut bare, most)?;
            whole(decoded, bare.into_inner())
        }
        decoded => whole(decoded?, zlib.into_inner()),
    }
}

/// The decoded bytes, unless bytes stand behind the stream: nobody would compare those.
fn whole<'a>(decoded: Vec<u8>, behind: &[u8]) -> Result<Cow<'a, [u8]>, CodingError> {
    if behind.is_empty() { Ok(Cow::Owned(decoded)) } else { Err(CodingError::Corrupt) }
}

/// Everything that the reader yields, unless that is more than `most` bytes.
fn limited(reader: impl Read, most: u64) -> Result<Vec<u8>, CodingError> {
    let mut bytes = Vec::new();
    let mut reader = reader.take(most.saturating_add(1));
    reader.read_to_end(&mut bytes).map_err(|_| CodingError::Corrupt)?;
    match u64::try_from(bytes.len()) {
        Ok(length) if length <= most => Ok(bytes),
        Ok(_) | Err(_) => Err(CodingError::TooLarge),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use http::HeaderValue;

    use super::*;

    fn coded(coding: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static(coding))])
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn gzip_and_both_kinds_of_deflate_are_decoded() {
        let text = b"qr=rsg:1&amount=5".as_slice();
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(text).unwrap();
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::fast());
        bare.write_all(text).unwrap();
        for (coding, body) in [
            ("gzip", gzip(text)),
            ("X-GZIP", gzip(text)),
            ("identity, gzip", gzip(text)),
            ("deflate", zlib.finish().unwrap()),
            ("deflate", bare.finish().unwrap()),
            ("identity", text.to_vec()),
        ] {
            assert_eq!(decoded(&coded(coding), &body, 100).as_deref(), Ok(text), "{coding}");
        }
        assert!(matches!(decoded(&HeaderMap::new(), text, 0), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn a_bomb_ends_at_the_limit() {
        let bomb = gzip(&vec![0; 10 << 20]);
        assert!(bomb.len() < 20 << 10, "{} bytes", bomb.len());
        assert_eq!(decoded(&coded("gzip"), &bomb, 1 << 20), Err(CodingError::TooLarge));
        // Members follow each other without a limit of their own.
        let many = gzip(&[7; 1000]).repeat(100);
        assert_eq!(decoded(&coded("gzip"), &many, 99_999), Err(CodingError::TooLarge));
        assert_eq!(decoded(&coded("gzip"), &many, 100_000).map(|text| text.len()), Ok(100_000));
    }

    #[test]
    fn what_cannot_be_decoded_is_reported() {
        let whole = gzip(b"{\"qr\":\"rsg:1\"}");
        for body in [&whole[..whole.len() - 1], &whole[..5], b"plain", b""] {
            assert_eq!(decoded(&coded("gzip"), body, 100), Err(CodingError::Corrupt), "{body:?}");
        }
        // Bytes behind the stream.
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(b"{}").unwrap();
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::fast());
        bare.write_all(b"{}").unwrap();
        for stream in [zlib.finish().unwrap(), bare.finish().unwrap()] {
            let twice = [stream.as_slice(), b"x"].concat();
            assert_eq!(decoded(&coded("deflate"), &twice, 100), Err(CodingError::Corrupt));
        }
        for coding in ["br", "gzip, gzip", "gzip, br"] {
            let unsupported = Err(CodingError::Unsupported);
            assert_eq!(decoded(&coded(coding), &whole, 100), unsupported, "{coding}");
        }
    }
}
