//! Doors for the fuzz targets (`fuzz/`) to parts that no other crate uses.

mod backend;
mod exchanges;
mod memory_store;

use std::net::IpAddr;

pub use self::exchanges::{Played, play};
use crate::net::proxy_protocol::{self, Announced};

/// The client and the length of a whole PROXY header at the begin of `bytes`; `None`: there is
/// none, or a part of one.
pub fn proxy_header(bytes: &[u8]) -> Option<(Option<IpAddr>, usize)> {
    let (announced, length) = proxy_protocol::parse(bytes).ok().flatten()?;
    match announced {
        Announced::Client(client) => Some((Some(client), length)),
        Announced::Own => Some((None, length)),
    }
}
