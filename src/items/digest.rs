//! Fingerprints of items: digests of the parts that must not change between two tries of the same
//! id.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::request::BatchRequest;
use super::rules::ItemRules;
use crate::idempotency::TenantId;
use crate::idempotency::fingerprint::{
    MAX_MEMBER_NAME, MAX_MEMBERS, MemberDigest, RuleId, member_digest,
};
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
    /// Hash state at the start of the verbatim digest of every item: a label and the digest of
    /// everything around the items.
    verbatim: Sha256,
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
        for (at, (name, value)) in request.parameters.iter().enumerate() {
            // A parameter is told by its place: its name is the configuration's alone.
            let start = text.len();
            field(&mut text, at.to_string().as_bytes());
            field(&mut text, value.as_bytes());
            collector.add(&format!("{{{name}}}"), &text[start..]);
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
        let verbatim = around_items(request, &list.span());
        let members = Vec::new();
        Self { same, before, verbatim, quantity_name, collector, text, members }
    }

    /// The verbatim digest of an item: its bytes, and those around all items.
    pub(super) fn verbatim(&self, item: Value<'_, '_>) -> [u8; 32] {
        self.verbatim.clone().chain_update(item.raw()).finalize().into()
    }

    /// The digest of an item. The values at the places `skip` are its id, which names the record,
    /// and its quantity, which is compared as a number.
    pub(super) fn item(
        &mut self,
        item: Value<'d, 't>,
        quantity: u64,
        skip: [Option<usize>; 2],
    ) -> [u8; 32] {
        let Self { same, before, quantity_name, collector, text, members, .. } = self;
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

/// The hash state before an item's bytes. No rule decides what stands around the items, so that
/// equal bytes have equal digests under any rule.
fn around_items(request: &BatchRequest<'_>, list: &Range<usize>) -> Sha256 {
    let mut text = Vec::new();
    for (_, value) in request.parameters {
        field(&mut text, value.as_bytes());
    }
    field(&mut text, request.body.get(..list.start).unwrap_or_default());
    field(&mut text, request.body.get(list.end..).unwrap_or_default());
    let around = hash(b"oncegate/items-around/1\0", request.tenant, &text);
    started(b"oncegate/item-verbatim/1\0", request.tenant).chain_update(around)
}

impl ItemRules {
    /// The identity of the rule by which items are compared. Single items and arrays have one
    /// rule, so that routes can share a ledger.
    pub(super) fn compared(&self) -> RuleId {
        let mut text = b"items\0".to_vec();
        let mut list = |pointers: Option<&[Pointer]>| {
            text.push(u8::from(pointers.is_some()));
            let mut names: Vec<String> =
                pointers.unwrap_or_default().iter().map(Pointer::to_string).collect();
            names.sort_unstable();
            text.extend_from_slice(&(names.len() as u64).to_le_bytes());
            names.iter().for_each(|name| field(&mut text, name.as_bytes()));
        };
        list(self.same.as_deref());
        list(self.shared.as_deref());
        list(self.quantity.as_ref().map(std::slice::from_ref));
        list(Some(std::slice::from_ref(&self.id)));
        RuleId::of(&text)
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
