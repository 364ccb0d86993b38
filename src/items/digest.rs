//! Fingerprints of items: what must not change between two tries of the same id.

use sha2::{Digest, Sha256};

use super::batch::Request;
use super::rules::ItemRules;
use crate::idempotency::TenantId;
use crate::idempotency::fingerprint::{MAX_MEMBER_NAME, MAX_MEMBERS, MemberDigest};
use crate::json::{Document, Pointer, Value};

/// Makes the digests of items; what they share is digested once.
pub(super) struct Digester<'a> {
    tenant: &'a TenantId,
    /// Names and pointers of the members that count, sorted by name; `None`: all.
    same: Option<Vec<(String, &'a Pointer)>>,
    shared: [u8; 32],
    shared_members: Vec<MemberDigest>,
    quantity_name: String,
    wants_members: bool,
}

impl<'a> Digester<'a> {
    pub(super) fn new(
        rules: &'a ItemRules,
        request: &Request<'a>,
        document: &Document<'_>,
        list: Value<'_, '_>,
        wants_members: bool,
    ) -> Self {
        let same = rules.same.as_ref().map(|pointers| {
            let mut named: Vec<(String, &Pointer)> =
                pointers.iter().map(|pointer| (item_name(pointer), pointer)).collect();
            named.sort_unstable_by(|left, right| left.0.cmp(&right.0));
            named
        });
        let quantity_name =
            rules.quantity.as_ref().map_or_else(|| String::from("quantity"), item_name);
        let mut digester = Self {
            tenant: request.tenant,
            same,
            shared: [0; 32],
            shared_members: Vec::new(),
            quantity_name,
            wants_members,
        };
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
        let mut text = Vec::new();
        let mut members = Vec::new();
        for (name, value) in request.parameters {
            let name = format!("{{{name}}}");
            members.extend(digester.fold(&mut text, &name, |text| field(text, value.as_bytes())));
        }
        for (name, value) in parts {
            // A member that holds the items and more counts without the items.
            let member = digester.fold(&mut text, &name, |text| {
                value.canonical(text, &[list.place()]);
            });
            members.extend(member);
        }
        digester.shared = hash(b"oncegate/items-shared/1\0", request.tenant, &text);
        digester.shared_members = members;
        digester
    }

    /// The digest of an item, and those of its members if they are wanted. The values at the places
    /// `skip` are its id, which names the record, and its quantity, which counts as a number.
    pub(super) fn item(
        &self,
        item: Value<'_, '_>,
        quantity: u64,
        skip: [Option<usize>; 2],
    ) -> ([u8; 32], Vec<MemberDigest>) {
        let mut text = Vec::with_capacity(256);
        text.extend_from_slice(&self.shared);
        let mut members = self.shared_members.clone();
        members.extend(self.fold(&mut text, &self.quantity_name, |text| {
            text.extend_from_slice(&quantity.to_le_bytes());
        }));
        let skipped = |value: &Value<'_, '_>| skip.contains(&Some(value.place()));
        let mut each = |name: &str, value: Value<'_, '_>| {
            if !skipped(&value) {
                let inner = skip.map(|place| place.unwrap_or(usize::MAX));
                members.extend(self.fold(&mut text, name, |text| {
                    value.canonical(text, &inner);
                }));
            }
        };
        match &self.same {
            Some(named) => named
                .iter()
                .filter_map(|(name, pointer)| Some((name, item.find(pointer)?)))
                .for_each(|(name, value)| each(name, value)),
            None => {
                let mut all: Vec<_> = item.members().collect();
                all.sort_unstable_by(|left, right| left.0.cmp(&right.0));
                all.into_iter().for_each(|(name, value)| each(&name, value));
            }
        }
        members.truncate(MAX_MEMBERS);
        (hash(b"oncegate/item/1\0", self.tenant, &text), members)
    }

    /// Appends one named part, and gives its short digest if those are wanted.
    fn fold(
        &self,
        text: &mut Vec<u8>,
        name: &str,
        value: impl FnOnce(&mut Vec<u8>),
    ) -> Option<MemberDigest> {
        let start = text.len();
        field(text, name.as_bytes());
        value(text);
        let wanted = self.wants_members && name.len() <= MAX_MEMBER_NAME;
        wanted.then(|| {
            let hash = hash(b"oncegate/item-member/1\0", self.tenant, &text[start..]);
            let mut digest = [0; 4];
            digest.copy_from_slice(&hash[..4]);
            MemberDigest { name: name.to_owned(), digest }
        })
    }
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
    let mut hash = Sha256::new();
    hash.update(label);
    hash.update(tenant.as_bytes());
    hash.update(text);
    hash.finalize().into()
}

fn field(text: &mut Vec<u8>, bytes: &[u8]) {
    text.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    text.extend_from_slice(bytes);
}
