//! Networks of IP addresses, as they are written in a configuration.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An address and the number of leading bits that its network shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// True for an address of the network, also when it is written as an IPv6 address that stands
    /// for an IPv4 one.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                masked(network.to_bits().into(), self.prefix, 32)
                    == masked(address.to_bits().into(), self.prefix, 32)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                masked(network.to_bits(), self.prefix, 128)
                    == masked(address.to_bits(), self.prefix, 128)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    fn is_bare(&self) -> bool {
        let (bits, width) = match self.address {
            IpAddr::V4(address) => (address.to_bits().into(), 32),
            IpAddr::V6(address) => (address.to_bits(), 128),
        };
        masked(bits, self.prefix, width) == bits
    }
}

/// The first `prefix` of `width` bits.
fn masked(bits: u128, prefix: u8, width: u8) -> u128 {
    let rest = u32::from(width - prefix.min(width));
    bits.checked_shr(rest).and_then(|kept| kept.checked_shl(rest)).unwrap_or(0)
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not a network; write an address, or an address and the number of its \
                 leading bits, such as \"10.0.0.0/8\" or \"fd00::/8\""
            )
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => width,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|prefix| *prefix <= width).ok_or_else(wrong)?
            }
            Some(_) => return Err(wrong()),
        };
        let network = Self { address, prefix };
        if !network.is_bare() {
            return Err(format!(
                "`{text}` has bits set beyond its first {prefix}; write the first address of the \
                 network, or leave out `/{prefix}` for a single address"
            ));
        }
        Ok(network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_the_addresses_with_its_leading_bits() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", ["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"], "11.0.0.0"),
            ("192.0.2.7", ["192.0.2.7", "192.0.2.7", "::ffff:192.0.2.7"], "192.0.2.6"),
            ("0.0.0.0/0", ["0.0.0.0", "255.255.255.255", "127.0.0.1"], "::1"),
            ("fd00::/8", ["fd00::", "fdff::1", "fd12:3456::"], "fe00::"),
            ("::1", ["::1", "::1", "::1"], "::2"),
            ("::/0", ["::", "ffff::", "::1"], "127.0.0.1"),
            ("172.16.0.0/12", ["172.16.0.0", "172.31.255.255", "172.20.1.1"], "172.32.0.0"),
        ] {
            let parsed: Network = network.parse().unwrap();
            for address in inside {
                assert!(parsed.contains(address.parse().unwrap()), "{network} {address}");
            }
            assert!(!parsed.contains(outside.parse().unwrap()), "{network} {outside}");
            assert_eq!(parsed.to_string().parse::<Network>().unwrap(), parsed);
        }
    }

    #[test]
    fn what_is_no_network_is_refused_with_what_to_write() {
        for text in ["", "10", "10.0.0.0/", "10.0.0.0/33", "::/129", "a/8", "10.0.0.0/+8", "/8"] {
            let error = text.parse::<Network>().unwrap_err();
            assert!(error.contains("10.0.0.0/8"), "{error}");
        }
        let error = "10.1.0.0/8".parse::<Network>().unwrap_err();
        assert!(error.contains("beyond its first 8"), "{error}");
    }
}
