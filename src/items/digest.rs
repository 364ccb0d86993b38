//! Fingerprints of items: digests of the parts that must not change between two tries of the same
//! id.

use std::borrow::Cow;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::request::BatchRequest;
use super::rules::ItemRules;
use crate::idempotency::TenantId;
use crate::idempotency::fingerprint::{MAX_MEMBER_NAME, MAX_MEMBERS, MemberDigest, member_digest};
use crate::idempotency::preimage::field;
use crate::json::{Document, Pointer, Value};

/// The short digests of the members of a batch's items: `quantity` for members of the item,
/// `/brand` for members of the body.
#[derive(Debug, Default, Clone)]
pub struct ItemDigests {
    /// Digests of the members shared by all items.
    shared: Vec<MemberDigest>,
    /// Digests of the items' own members, item after item.
    own: Vec<MemberDigest>,
    /// End of each item's own members.
    ends: Vec<usize>,
}

impl ItemDigests {
    /// Short digests of the item at `at`, shared members first.
    pub(super) fn of_item(&self, at: usize) -> Option<Arc<[MemberDigest]>> {
        let start = at.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        let own = self.own.get(start..*self.ends.get(at)?)?;
        Some(self.shared.iter().chain(own).take(MAX_MEMBERS).cloned().collect())
    }
}

/// Computes the digests of items; shared members are digested once.
pub(super) struct Digester<'a, 'd, 't> {
    /// Names and pointers of the compared members, sorted by name; `None`: all.
    same: Option<Vec<(String, &'a Pointer)>>,
    /// Hash state at the start of every item: a label and the digest of the shared members.
    before: Sha256,
    quantity_name: String,
    collector: DigestCollector<'a>,
    /// Buffers for the preimage and the members of an item, reused for each item.
    text: Vec<u8>,
    members: Vec<(Cow<'t, str>, Value<'d, 't>)>,
}

impl<'a, 'd, 't> Digester<'a, 'd, 't> {
    pub(super) fn new(
        rules: &'a ItemRules,
        request: &BatchRequest<'a>,
        document: &'d Document<'t>,
        list: Value<'d, 't>,
    ) -> Self {
        let same = rules.same.as_ref().map(|pointers| {
            let mut named: Vec<(String, &Pointer)> =
                pointers.iter().map(|pointer| (item_name(pointer), pointer)).collect();
            named.sort_unstable_by(|left, right| left.0.cmp(&right.0));
            named
        });
        let quantity_name =
            rules.quantity.as_ref().map_or_else(|| String::from("quantity"), item_name);
        let mut parts: Vec<(String, Value<'_, '_>)> = match &rules.shared {
            Some(pointers) => pointers
                .iter()
                .filter_map(|pointer| Some((pointer.to_string(), document.find(pointer)?)))
                .collect(),
            None => document
                .root()
                .members()
                .filter(|(_, member)| list.place() > 0 && member.place() != list.place())
                .map(|(name, member)| (pointer_name(&name), member))
                .collect(),
        };
        parts.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        let tenant = request.tenant;
        let mut collector = DigestCollector::new(tenant);
        let mut text = Vec::with_capacity(256);
        for (name, value) in request.parameters {
            part(&mut text, &mut collector, &format!("{{{name}}}"), |text| {
                field(text, value.as_bytes());
            });
        }
        for (name, value) in parts {
            // A member that holds the items and more counts without the items.
            part(&mut text, &mut collector, &name, |text| {
                value.canonical(text, &[list.place()]);
            });
        }
        collector.end_shared();
        let shared = hash(b"oncegate/items-shared/1\0", tenant, &text);
        let before = started(b"oncegate/item/1\0", tenant).chain_update(shared);
        Self { same, before, quantity_name, collector, text, members: Vec::new() }
    }

    /// The digest of an item. The values at the places `skip` are its id, which names the record,
    /// and its quantity, which is compared as a number.
    pub(super) fn item(
        &mut self,
        item: Value<'d, 't>,
        quantity: u64,
        skip: [Option<usize>; 2],
    ) -> [u8; 32] {
        let Self { same, before, quantity_name, collector, text, members } = self;
        text.clear();
        part(text, collector, quantity_name, |text| {
            text.extend_from_slice(&quantity.to_le_bytes());
        });
        let inner = skip.map(|place| place.unwrap_or(usize::MAX));
        let mut member = |name: &str, value: Value<'_, '_>| {
            if !inner.contains(&value.place()) {
                part(text, collector, name, |text| {
                    value.canonical(text, &inner);
                });
            }
        };
        match same {
            Some(named) => named
                .iter()
                .filter_map(|(name, pointer)| Some((name, item.find(pointer)?)))
                .for_each(|(name, value)| member(name, value)),
            None => {
                members.extend(item.members());
                members.sort_unstable_by(|left, right| left.0.cmp(&right.0));
                members.drain(..).for_each(|(name, value)| member(&name, value));
            }
        }
        collector.end_item();
        before.clone().chain_update(text).finalize().into()
    }

    /// The short digests of all items so far.
    pub(super) fn into_digests(self) -> ItemDigests {
        self.collector.digests
    }
}

/// Collects short digests, first of the shared members, then item after item.
struct DigestCollector<'a> {
    tenant: &'a TenantId,
    digests: ItemDigests,
    /// Start of the previous item's digests, and of the present item's.
    before: usize,
    first: usize,
}

impl<'a> DigestCollector<'a> {
    fn new(tenant: &'a TenantId) -> Self {
        Self { tenant, digests: ItemDigests::default(), before: 0, first: 0 }
    }

    fn end_shared(&mut self) {
        self.digests.shared = std::mem::take(&mut self.digests.own);
    }

    fn end_item(&mut self) {
        self.before = self.first;
        self.first = self.digests.own.len();
        self.digests.ends.push(self.first);
    }

    fn add(&mut self, name: &str, text: &[u8]) {
        let Self { tenant, digests, before, first } = self;
        let place = digests.own.len() - *first;
        if name.len() > MAX_MEMBER_NAME || digests.shared.len() + place >= MAX_MEMBERS {
            return;
        }
        // Most items have the members of the one before, and share their names.
        let like = digests.own.get(*before + place).map(|like| &like.name);
        let name = like.filter(|like| ***like == *name).map_or_else(|| name.into(), Arc::clone);
        digests.own.push(MemberDigest { name, digest: member_digest(tenant, text) });
    }
}

/// Appends one named part, and collects its short digest.
fn part(
    text: &mut Vec<u8>,
    collector: &mut DigestCollector<'_>,
    name: &str,
    value: impl FnOnce(&mut Vec<u8>),
) {
    let start = text.len();
    field(text, name.as_bytes());
    value(text);
    collector.add(name, &text[start..]);
}

/// A member of an item is named without the first slash, so that it differs from one of the body.
fn item_name(pointer: &Pointer) -> String {
    let name = pointer.to_string();
    name.strip_prefix('/').map_or(name.clone(), str::to_owned)
}

fn pointer_name(member: &str) -> String {
    format!("/{}", member.replace('~', "~0").replace('/', "~1"))
}

pub(super) fn hash(label: &[u8], tenant: &TenantId, text: &[u8]) -> [u8; 32] {
    started(label, tenant).chain_update(text).finalize().into()
}

fn started(label: &[u8], tenant: &TenantId) -> Sha256 {
    Sha256::new().chain_update(label).chain_update(tenant.as_bytes())
}
