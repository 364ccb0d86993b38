//! Names of the keys and channels on the server.
//!
//! ```text
//! <prefix>:{meta}:store       hash: store_id, schema, created, state
//! <prefix>:{meta}:replicas    sorted set of owners by the end of their lease
//! <prefix>:{meta}:names       version and names of the keys: `<version> <document>`
//! <prefix>:{xx}:store         the marker of shard xx: the store's id
//! <prefix>:{xx}:r:<id>        a record
//!                             sorted sets with score 0, whose members are in byte order:
//! <prefix>:{xx}:ids             id; the records of a key stand together
//! <prefix>:{xx}:times           first seen, id
//! <prefix>:{xx}:open            first seen, id, and the owner when in flight
//! <prefix>:{xx}:expiry          expiry, id
//! <prefix>:{xx}:subjects        subject, first seen, id
//! <prefix>:wake:<owner>       the channel of a process
//! ```
//! The shard is the first byte of the id; in a cluster the keys of a shard share a slot (Redis
//! Cluster specification, "Hash tags"), as a script needs to change several keys.

use crate::hex;
use crate::idempotency::RecordId;
use crate::idempotency::record::Nonce;

/// Slots of a Redis Cluster.
pub(super) const SLOTS: u16 = 16_384;
/// The longest prefix; every key carries the prefix.
const LONGEST_PREFIX: usize = 64;
/// Hash tag of the keys outside the shards.
const META: &str = "meta";

/// The names under a prefix.
#[derive(Debug)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    /// Takes the prefix of the names.
    ///
    /// # Errors
    /// Keys with this prefix would be ambiguous, or a cluster would not keep a shard's keys
    /// together.
    pub(super) fn new(prefix: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"{}*?[]\\".contains(&byte);
        if prefix.is_empty() || prefix.len() > LONGEST_PREFIX || !prefix.bytes().all(plain) {
            return Err(format!(
                "the prefix {prefix:?} cannot be used: it must be 1 to {LONGEST_PREFIX} visible \
                 ASCII characters without {{ }} [ ] * ? and \\"
            ));
        }
        Ok(Self { prefix: prefix.to_owned() })
    }

    pub(super) fn meta(&self) -> String {
        format!("{}:{{{META}}}:store", self.prefix)
    }

    pub(super) fn replicas(&self) -> String {
        format!("{}:{{{META}}}:replicas", self.prefix)
    }

    pub(super) fn names(&self) -> String {
        format!("{}:{{{META}}}:names", self.prefix)
    }

    /// A key of a shard; `name` is `store`, `ids`, `times`, `open`, `expiry` or
    /// `subjects`.
    pub(super) fn of_shard(&self, shard: u8, name: &str) -> String {
        format!("{}:{{{shard:02x}}}:{name}", self.prefix)
    }

    pub(super) fn record(&self, id: &RecordId) -> String {
        // On the path of every change, where a formatter of single digits is slower than all the
        // rest.
        let digits = hex::encode(id.as_bytes());
        let (shard, _) = digits.split_at(2);
        [self.prefix.as_str(), ":{", shard, "}:r:", &digits].concat()
    }

    /// The channel of a process. Operators grant access by this name.
    pub(super) fn channel(&self, owner: &Nonce) -> String {
        format!("{}:wake:{}", self.prefix, hex::encode(owner))
    }
}

/// The slot of a shard's keys.
pub(super) fn slot_of(shard: u8) -> u16 {
    crc16(format!("{shard:02x}").as_bytes()) % SLOTS
}

/// The slot of the keys outside the shards.
pub(super) fn meta_slot() -> u16 {
    crc16(META.as_bytes()) % SLOTS
}

/// CRC-16/XMODEM (Redis Cluster specification, appendix A).
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            let next = crc << 1;
            if crc & 0x8000 == 0 { next } else { next ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_the_cluster_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
    }

    #[test]
    fn a_prefix_that_would_scatter_keys_is_refused() {
        assert!(Keys::new("oncegate").is_ok());
        for bad in ["", "a{b", "a}", "a b", "é", "a*", &"x".repeat(65)] {
            assert!(Keys::new(bad).unwrap_err().contains("prefix"), "{bad}");
        }
    }
}
