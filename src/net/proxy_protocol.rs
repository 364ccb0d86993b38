//! The PROXY protocol, versions 1 and 2: the header in which a load balancer announces the address
//! of its client.
//!
//! The header is read with a bound and never beyond its end: a byte after it belongs to TLS or
//! HTTP. The caller decides whose headers are believed, and limits the time.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Bytes of the longest header of version 1, with its line end.
const LONGEST_LINE: usize = 107;

/// The first bytes of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes of version 2 before the addresses.
const FIXED: usize = 16;

/// Bytes of addresses and extensions of version 2, at most. Extensions may hold a client's
/// certificate.
const MOST_ADDED: usize = 8 << 10;

/// Reason for a connection without a usable header.
#[derive(Debug)]
pub(crate) enum ProxyHeaderError {
    /// The connection ended before its first byte, like a check of a load balancer.
    Silent,
    /// The connection broke, or ended within the header.
    Io(io::Error),
    /// The bytes are no header; holds the defect.
    Malformed(&'static str),
}

/// The content of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announced {
    /// The address of the proxy's client.
    Client(IpAddr),
    /// No address: the connection is the proxy's own, such as its health check.
    Own,
}

/// Reads a header from `stream`. Returns its content, and bytes that were read beyond the header.
///
/// # Errors
/// The defect of the header or of the connection.
pub(crate) async fn read<S>(stream: &mut S) -> Result<(Announced, Bytes), ProxyHeaderError>
where
    S: AsyncRead + Unpin,
{
    let mut read = BytesMut::with_capacity(256);
    loop {
        if let Some((announced, length)) = parse(&read)? {
            let beyond = read.split_off(length).freeze();
            return Ok((announced, beyond));
        }
        let is_first = read.is_empty();
        if stream.read_buf(&mut read).await.map_err(ProxyHeaderError::Io)? == 0 {
            return Err(match is_first {
                true => ProxyHeaderError::Silent,
                false => ProxyHeaderError::Io(io::ErrorKind::UnexpectedEof.into()),
            });
        }
    }
}

/// The content and the length of the header at the begin of `bytes`; `None`: more bytes are needed.
///
/// # Errors
/// The defect of bytes that no further ones can turn into a header.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Announced, usize)>, ProxyHeaderError> {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes[..known] == SIGNATURE[..known] {
        return if bytes.len() < FIXED { Ok(None) } else { binary(bytes) };
    }
    let known = bytes.len().min(b"PROXY ".len());
    if bytes[..known] != b"PROXY "[..known] {
        return Err(malformed("it does not begin with a PROXY header"));
    }
    let window = &bytes[..bytes.len().min(LONGEST_LINE)];
    match window.windows(2).position(|pair| pair == b"\r\n") {
        Some(end) => Ok(Some((text(&window[..end])?, end + 2))),
        None if window.len() == LONGEST_LINE => Err(malformed("its line has no end")),
        None => Ok(None),
    }
}

fn malformed(what: &'static str) -> ProxyHeaderError {
    ProxyHeaderError::Malformed(what)
}

/// The line of version 1 without its end.
fn text(line: &[u8]) -> Result<Announced, ProxyHeaderError> {
    let line = std::str::from_utf8(line).map_err(|_| malformed("its line is no ASCII text"))?;
    let mut words = line.split(' ').skip(1);
    let mut word = || words.next().unwrap_or_default();
    let (source, target) = match word() {
        // Whatever follows has no meaning.
        "UNKNOWN" => return Ok(Announced::Own),
        "TCP4" => {
            let address = |text: &str| text.parse().ok().map(|it: Ipv4Addr| IpAddr::V4(it));
            (address(word()), address(word()))
        }
        "TCP6" => {
            let address = |text: &str| text.parse().ok().map(|it: Ipv6Addr| IpAddr::V6(it));
            (address(word()), address(word()))
        }
        _ => return Err(malformed("its protocol is not TCP4, TCP6 or UNKNOWN")),
    };
    let (Some(source), Some(_)) = (source, target) else {
        return Err(malformed("an address in it is none"));
    };
    let is_port = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        digits && text.parse::<u16>().is_ok() && (text == "0" || !text.starts_with('0'))
    };
    if !is_port(word()) || !is_port(word()) || words.next().is_some() {
        return Err(malformed("its ports are no ports, or something follows them"));
    }
    Ok(Announced::Client(source))
}

/// Version 2; `bytes` has at least the fixed part.
fn binary(bytes: &[u8]) -> Result<Option<(Announced, usize)>, ProxyHeaderError> {
    let (command, protocol) = (bytes[12], bytes[13]);
    let added = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if command >> 4 != 2 {
        return Err(malformed("its version is not 2"));
    }
    if added > MOST_ADDED {
        return Err(malformed("it is too long"));
    }
    let is_own = match command & 0xf {
        0 => true,
        1 => false,
        _ => return Err(malformed("its command is not LOCAL or PROXY")),
    };
    if protocol >> 4 > 3 || protocol & 0xf > 2 {
        return Err(malformed("its address family or protocol is unknown"));
    }
    let Some(rest) = bytes.get(FIXED..FIXED + added) else { return Ok(None) };
    let length = FIXED + added;
    if is_own {
        return Ok(Some((Announced::Own, length)));
    }
    let source = match protocol {
        0x11 => {
            let Some([a, b, c, d]) = rest.get(..12).and_then(|it| it.first_chunk::<4>()) else {
                return Err(malformed("it is too short for its addresses"));
            };
            IpAddr::V4(Ipv4Addr::new(*a, *b, *c, *d))
        }
        0x21 => {
            let Some(address) = rest.get(..36).and_then(|it| it.first_chunk::<16>()) else {
                return Err(malformed("it is too short for its addresses"));
            };
            IpAddr::V6(Ipv6Addr::from(*address))
        }
        // A Unix socket of the proxy's, or an address that it does not want to tell.
        0x00 | 0x31 => return Ok(Some((Announced::Own, length))),
        _ => return Err(malformed("its protocol is not TCP")),
    };
    Ok(Some((Announced::Client(source), length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version2(command: u8, protocol: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, protocol]);
        bytes.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    /// The result for all ways in which the bytes may arrive; all must agree.
    #[track_caller]
    fn parsed(bytes: &[u8]) -> Result<Option<(Announced, usize)>, String> {
        let describe = |error| format!("{error:?}");
        let whole = parse(bytes).map_err(describe);
        for length in 0..bytes.len() {
            match parse(&bytes[..length]) {
                Ok(None) => {}
                part => assert_eq!(part.map_err(describe), whole, "{length} of {bytes:?}"),
            }
        }
        whole
    }

    fn client(text: &str) -> Announced {
        Announced::Client(text.parse().unwrap())
    }

    #[test]
    fn the_announced_address_is_read_in_both_versions() {
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n", client("192.0.2.7")),
            ("PROXY TCP6 2001:db8::7 ::1 0 65535\r\n", client("2001:db8::7")),
            ("PROXY UNKNOWN\r\n", Announced::Own),
            ("PROXY UNKNOWN ffff::1 whatever 1 2\r\n", Announced::Own),
        ] {
            assert_eq!(parsed(line.as_bytes()), Ok(Some((expected, line.len()))), "{line}");
            let more = format!("{line}GET / HTTP/1.1\r\n");
            assert_eq!(parsed(more.as_bytes()), Ok(Some((expected, line.len()))), "{line}");
        }
        let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 1, 2, 3, 4];
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        let extended = [&v4[..], &[4, 0, 1, 0]].concat();
        for (bytes, expected) in [
            (version2(0x21, 0x11, &v4), client("192.0.2.7")),
            (version2(0x21, 0x11, &extended), client("192.0.2.7")),
            (version2(0x21, 0x21, &v6), client("2001:db8::7")),
            (version2(0x20, 0x00, &[]), Announced::Own),
            (version2(0x20, 0x11, &v4), Announced::Own),
            (version2(0x21, 0x31, &[0; 216]), Announced::Own),
            (version2(0x21, 0x00, &[1, 2, 3]), Announced::Own),
        ] {
            assert_eq!(parsed(&bytes), Ok(Some((expected, bytes.len()))), "{bytes:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_header_are_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "a".repeat(LONGEST_LINE));
        for line in [
            "GET / HTTP/1.1\r\n\r\n",
            "PROXY\r\n",
            "PROXY \r\n",
            "proxy TCP4 192.0.2.7 10.0.0.1 1 2\r\n",
            "PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n",
            "PROXY TCP4 2001:db8::7 10.0.0.1 1 2\r\n",
            "PROXY TCP6 192.0.2.7 ::1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 1 65536\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 01 2\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 1 2 3\r\n",
            "PROXY TCP4  192.0.2.7 10.0.0.1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 1 2\n\r\n",
            &long,
            "\x16\x03\x01\x02",
        ] {
            assert!(parsed(line.as_bytes()).is_err(), "{line:?}");
        }
        let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 1, 2, 3, 4];
        for bytes in [
            version2(0x11, 0x11, &v4),
            version2(0x22, 0x11, &v4),
            version2(0x21, 0x12, &v4),
            version2(0x21, 0x41, &v4),
            version2(0x21, 0x13, &v4),
            version2(0x21, 0x11, &v4[..11]),
            version2(0x21, 0x21, &v4),
            version2(0x21, 0x11, &vec![0; MOST_ADDED + 1]),
        ] {
            assert!(parsed(&bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn no_mutation_of_a_header_panics_or_reads_beyond_its_bytes() {
        let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 1, 2, 3, 4];
        for start in [b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n".to_vec(), version2(0x21, 0x11, &v4)]
        {
            for at in 0..start.len() {
                for value in 0..=255 {
                    let mut bytes = start.clone();
                    bytes[at] = value;
                    if let Ok(Some((_, length))) = parse(&bytes) {
                        assert!(length <= bytes.len());
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn bytes_behind_the_header_are_handed_back() {
        let mut stream = &b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\nGET /"[..];
        let (announced, beyond) = read(&mut stream).await.unwrap();
        assert_eq!((announced, &beyond[..]), (client("192.0.2.7"), &b"GET /"[..]));
        assert!(matches!(read(&mut &b""[..]).await, Err(ProxyHeaderError::Silent)));
        assert!(matches!(read(&mut &b"PRO"[..]).await, Err(ProxyHeaderError::Io(_))));
    }
}
