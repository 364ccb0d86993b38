//! Fingerprints of items: digests of the parts that must not change between two tries of the same
//! id.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::list_path::ListPath;
use super::lists::{FoundItems, GroupAround};
use super::request::BatchRequest;
use super::rules::{ItemId, ItemRules};
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

/// The name under which the number of items is compared, where an id is a position.
pub(super) const COUNT: &str = "number of items";

/// Computes the digests of items; shared members are digested once, those of a group once for
/// each group.
pub(super) struct Digester<'a, 'd, 't> {
    rules: &'a ItemRules,
    request: BatchRequest<'a>,
    /// Names and pointers of the compared members, sorted by name; `None`: all.
    same: Option<Vec<(String, &'a Pointer)>>,
    /// Hash state at the start of every item of the body, and of every item of the group: a label
    /// and the digest of the shared members.
    shared: Sha256,
    before: Sha256,
    /// Hash state at the start of the verbatim digest of every item of the body, and of every item
    /// of the group: a label and the digest of everything around the items.
    around: Sha256,
    verbatim: Sha256,
    quantity_name: String,
    collector: DigestCollector<'a>,
    /// Buffers for the preimage and the members of an item, reused for each item.
    text: Vec<u8>,
    members: Vec<(Cow<'t, str>, Value<'d, 't>)>,
    /// Places of the values of an item that are not compared with its members.
    skipped: Vec<usize>,
}

impl<'a, 'd, 't> Digester<'a, 'd, 't> {
    pub(super) fn new(
        rules: &'a ItemRules,
        request: &BatchRequest<'a>,
        document: &'d Document<'t>,
        found: &FoundItems<'d, 't>,
    ) -> Self {
        let list = found.outer;
        let same = rules.same.as_ref().map(|pointers| {
            let mut named: Vec<(String, &Pointer)> =
                pointers.iter().map(|pointer| (item_name(pointer), pointer)).collect();
            named.sort_unstable_by(|left, right| left.0.cmp(&right.0));
            named
        });
        let quantity_name =
            rules.quantity.as_ref().map_or_else(|| String::from("quantity"), item_name);
        let mut parts: Vec<(String, Value<'_, '_>)> = match &rules.shared {
            Some(paths) => paths
                .iter()
                .filter(|path| !path.is_grouped())
                .filter_map(|path| Some((path.to_string(), document.find(path.outer())?)))
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
        if rules.id == ItemId::ListPosition {
            // A position is another item in a batch with another number of items.
            part(&mut text, &mut collector, COUNT, |text| {
                text.extend_from_slice(&(found.count as u64).to_le_bytes());
            });
        }
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
        let shared = started(b"oncegate/item/1\0", tenant).chain_update(shared);
        let around = around_items(request, &list.span());
        let (before, verbatim) = (shared.clone(), around.clone());
        let members = Vec::new();
        Self {
            rules,
            request: *request,
            same,
            shared,
            before,
            around,
            verbatim,
            quantity_name,
            collector,
            text,
            members,
            skipped: Vec::new(),
        }
    }

    /// Digests the parts of a group that the following items share.
    pub(super) fn enter(&mut self, around: &GroupAround<'d, 't>) {
        let Self { rules, request, collector, text, members, .. } = self;
        let GroupAround { group, list } = *around;
        let place = list.map(|list| list.place());
        let skip: &[usize] = place.as_slice();
        let outer = rules.at.outer();
        text.clear();
        match &rules.shared {
            Some(paths) => {
                for path in paths {
                    let Some(value) = path.inner().and_then(|inner| group.find(inner)) else {
                        continue;
                    };
                    part(text, collector, &path.to_string(), |text| {
                        value.canonical(text, skip);
                    });
                }
            }
            None => {
                members.extend(group.members());
                members.sort_unstable_by(|left, right| left.0.cmp(&right.0));
                for (name, value) in members.drain(..) {
                    if place != Some(value.place()) {
                        let name = format!("{outer}/*{}", pointer_name(&name));
                        part(text, collector, &name, |text| {
                            value.canonical(text, skip);
                        });
                    }
                }
            }
        }
        collector.end_group();
        self.before = self.shared.clone().chain_update(hash(
            b"oncegate/items-group/1\0",
            request.tenant,
            text,
        ));
        let mut bytes = Vec::new();
        let span = group.span();
        let list = list.map_or(span.end..span.end, |list| list.span());
        field(&mut bytes, request.body.get(span.start..list.start).unwrap_or_default());
        field(&mut bytes, request.body.get(list.end..span.end).unwrap_or_default());
        self.verbatim = self.around.clone().chain_update(hash(
            b"oncegate/items-group-around/1\0",
            request.tenant,
            &bytes,
        ));
    }

    /// The short digest of the number of items, where an item's id is its position.
    pub(super) fn count(&self) -> Option<[u8; 4]> {
        let shared = &self.collector.digests.shared;
        shared.iter().find(|member| &*member.name == COUNT).map(|member| member.digest)
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
        let Self { rules, same, before, quantity_name, collector, text, members, skipped, .. } =
            self;
        text.clear();
        collector.begin_item();
        part(text, collector, quantity_name, |text| {
            text.extend_from_slice(&quantity.to_le_bytes());
        });
        skipped.clear();
        skipped.extend(skip.into_iter().flatten());
        let echoes = rules.response.echo.iter();
        skipped.extend(echoes.filter_map(|pointer| Some(item.find(pointer)?.place())));
        let mut member = |name: &str, value: Value<'_, '_>| {
            if !skipped.contains(&value.place()) {
                part(text, collector, name, |text| {
                    value.canonical(text, skipped);
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
        let mut list = |names: Option<Vec<String>>| {
            text.push(u8::from(names.is_some()));
            let mut names = names.unwrap_or_default();
            names.sort_unstable();
            text.extend_from_slice(&(names.len() as u64).to_le_bytes());
            names.iter().for_each(|name| field(&mut text, name.as_bytes()));
        };
        let pointers = |list: &[Pointer]| list.iter().map(Pointer::to_string).collect();
        list(self.same.as_deref().map(pointers));
        list(self.shared.as_ref().map(|paths| paths.iter().map(ListPath::to_string).collect()));
        list(self.quantity.as_ref().map(|quantity| vec![quantity.to_string()]));
        list(Some(vec![self.id.to_string()]));
        list(Some(pointers(&self.response.echo)));
        // The groups of items are compared with their items.
        list(self.at.is_grouped().then(|| vec![self.at.to_string()]));
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
    /// Digests of the present group's members, the first of each of its items.
    group: Vec<MemberDigest>,
}

impl<'a> DigestCollector<'a> {
    fn new(tenant: &'a TenantId) -> Self {
        Self { tenant, digests: ItemDigests::default(), before: 0, first: 0, group: Vec::new() }
    }

    fn end_shared(&mut self) {
        self.digests.shared = std::mem::take(&mut self.digests.own);
    }

    fn end_group(&mut self) {
        self.group.clear();
        self.group.extend(self.digests.own.drain(self.first..));
    }

    fn begin_item(&mut self) {
        self.digests.own.extend_from_slice(&self.group);
    }

    fn end_item(&mut self) {
        self.before = self.first;
        self.first = self.digests.own.len();
        self.digests.ends.push(self.first);
    }

    fn add(&mut self, name: &str, text: &[u8]) {
        let Self { tenant, digests, before, first, .. } = self;
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
