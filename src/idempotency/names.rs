//! Pinned names: the names under which a store keeps the keys of each route, compared with the
//! names of a configuration.
//!
//! A record's id is a digest of the caller, of a scope and of a key. A changed route name, ledger,
//! scope, key place or list of tenant headers changes the digest, so that a key that was used would
//! not be found and would run again. The store therefore keeps the names it was used with, for each
//! method and path pattern, and a configuration with other names is refused until an operator
//! accepts the change.

mod pattern;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::hex;

use self::pattern::{WHEN, wider, without_condition};
pub(crate) use self::pattern::{is_more_specific, may_meet, nearest, without_parameter_names};

/// Version of the document's layout.
const LAYOUT: u32 = 1;
/// Changes that a refusal lists; the digest covers all of them.
const LISTED: usize = 20;

/// Names under which the keys of a route are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum KeyNames {
    /// A key for each request.
    Request {
        /// The route's name where keys are scoped to routes.
        route: Option<String>,
        /// Place of the key, as the configuration writes it: `header = "idempotency-key"`.
        key: String,
        /// Names of the route's own way to tell callers apart; `None`: that of all routes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        callers: Option<BTreeSet<String>>,
    },
    /// A key for each item of a batch.
    Items {
        /// The ledger.
        ledger: String,
        /// Place of the items in the body.
        at: String,
        /// Place of the id in an item, or `position`, or `name`.
        id: String,
        /// Place of the batch's own key, where the key is a part of every id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        batch: Option<String>,
        /// Names of the route's own way to tell callers apart; `None`: that of all routes.
        callers: Option<BTreeSet<String>>,
    },
}

/// A method and a path pattern that a configuration serves.
#[derive(Debug, Clone)]
pub(crate) struct ServedPattern {
    /// Method and path pattern: `POST /v1/orders/{}`.
    pattern: String,
    /// Name of the route.
    route: String,
    /// Names of the route's keys; `None`: requests pass without keys.
    names: Option<KeyNames>,
}

impl ServedPattern {
    /// A pattern of the route called `route`.
    pub(crate) fn new(method: &str, path: &str, route: &str, names: Option<KeyNames>) -> Self {
        let pattern = format!("{method} {}", without_parameter_names(path));
        Self { pattern, route: route.to_owned(), names }
    }

    /// The pattern for the requests of a path that meet a condition, given as text.
    pub(crate) fn when(mut self, condition: &str) -> Self {
        let digest = Sha256::digest(condition);
        self.pattern = format!("{}{WHEN}{}", self.pattern, hex::encode(&digest[..8]));
        self
    }
}

/// Names of a configuration.
#[derive(Debug, Clone)]
pub(crate) struct ConfiguredNames {
    /// Names of the headers that tell callers apart, and of the other kinds of names of callers.
    pub(crate) callers: BTreeSet<String>,
    /// Every method and path pattern.
    pub(crate) patterns: Vec<ServedPattern>,
}

/// Names that a store keeps: the document behind [`Store::names`](crate::store::Store::names).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PinnedNames {
    layout: u32,
    callers: BTreeSet<String>,
    /// Names of the keys of every pattern that ever had keys.
    patterns: BTreeMap<String, KeyNames>,
    /// Patterns that pass requests without keys. A keyed pattern that comes later and has no names
    /// yet takes requests over from the most specific pattern before it, which may be one of these.
    off: BTreeSet<String>,
    /// Processes that use the names of a shared store, in hex digits.
    pub(crate) replicas: BTreeSet<String>,
}

/// A difference between the pinned names and those of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct NameChange {
    /// Pattern whose keys would be looked for elsewhere; `None`: the keys of all patterns.
    pattern: Option<String>,
    kept: NamesOf,
    configured: NamesOf,
    /// Route with the new names; not part of the change itself.
    #[serde(skip)]
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum NamesOf {
    Keys(KeyNames),
    Callers(BTreeSet<String>),
}

/// Result of comparing a configuration with the pinned names.
#[derive(Debug)]
pub(crate) struct NameComparison {
    changes: Vec<NameChange>,
    /// Keyed patterns that have no keys under the configuration, with the present treatment.
    pub(crate) retired: Vec<(String, &'static str)>,
    /// Pinned names once the configuration is in use.
    pub(crate) next: PinnedNames,
}

impl Default for PinnedNames {
    fn default() -> Self {
        Self {
            layout: LAYOUT,
            callers: BTreeSet::new(),
            patterns: BTreeMap::new(),
            off: BTreeSet::new(),
            replicas: BTreeSet::new(),
        }
    }
}

impl PinnedNames {
    /// Reads the names back from a store.
    ///
    /// # Errors
    /// When the bytes are damaged, or were written by a later version.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let names: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if names.layout != LAYOUT {
            return Err(format!("layout {} is not {LAYOUT}", names.layout));
        }
        Ok(names)
    }

    /// The bytes to store.
    pub(crate) fn encode(&self) -> Vec<u8> {
        // A structure of strings, lists and maps with string keys always has a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Compares a configuration with these names.
    pub(crate) fn compare(&self, configured: &ConfiguredNames) -> NameComparison {
        let mut comparison = NameComparison {
            changes: Vec::new(),
            retired: Vec::new(),
            next: Self { callers: configured.callers.clone(), ..self.clone() },
        };
        // Without a keyed pattern no key was kept for any caller.
        if !self.patterns.is_empty() && self.callers != configured.callers {
            comparison.changes.push(NameChange {
                pattern: None,
                kept: NamesOf::Callers(self.callers.clone()),
                configured: NamesOf::Callers(configured.callers.clone()),
                route: String::new(),
            });
        }
        self.compare_served(configured, &mut comparison);
        self.compare_pinned(configured, &mut comparison);
        let off = configured.patterns.iter().filter(|served| served.names.is_none());
        comparison.next.off = off.map(|served| served.pattern.clone()).collect();
        comparison
    }

    /// Compares each keyed pattern of the configuration with the names its requests had so far.
    fn compare_served(&self, configured: &ConfiguredNames, comparison: &mut NameComparison) {
        for served in &configured.patterns {
            let Some(names) = &served.names else { continue };
            let kept = self.kept_for(served, names, configured);
            if let Some(kept) = kept.filter(|kept| *kept != names) {
                comparison.change(&served.pattern, kept, names, &served.route);
            }
            comparison.next.patterns.insert(served.pattern.clone(), names.clone());
        }
    }

    /// The names that the requests of a served pattern had so far.
    fn kept_for(
        &self,
        served: &ServedPattern,
        names: &KeyNames,
        configured: &ConfiguredNames,
    ) -> Option<&KeyNames> {
        if let Some(kept) = self.patterns.get(&served.pattern) {
            return Some(kept);
        }
        let known = || self.patterns.keys().chain(&self.off).map(String::as_str);
        let base = without_condition(&served.pattern);
        if base != served.pattern && known().any(|pattern| pattern == base) {
            return self.patterns.get(base);
        }
        // Requests of a condition that is written no more may be requests of the pattern now.
        let is_served = |pattern: &str| configured.patterns.iter().any(|it| it.pattern == pattern);
        let mut left = self.patterns.iter().filter(|(pattern, _)| {
            without_condition(pattern) == base && **pattern != base && !is_served(pattern)
        });
        if let Some((_, first)) = left.clone().next() {
            return left.find(|(_, kept)| *kept == names).map(|(_, kept)| kept).or(Some(first));
        }
        if self.off.contains(&served.pattern) {
            return None;
        }
        // A pattern that had no keys yet takes over the requests of a wider path, on which several
        // patterns may have kept keys under different names.
        let kept = wider(&served.pattern, known());
        let mut kept = kept.into_iter().filter_map(|before| self.patterns.get(before));
        kept.clone().find(|kept| *kept != names).or_else(|| kept.next())
    }

    /// Finds the pinned patterns that the configuration does not name, and the patterns that take
    /// over their requests.
    fn compare_pinned(&self, configured: &ConfiguredNames, comparison: &mut NameComparison) {
        let served = || configured.patterns.iter().map(|served| served.pattern.as_str());
        for (pattern, kept) in &self.patterns {
            let path = without_condition(pattern);
            let is_served = |wanted: &str| served().any(|served| served == wanted);
            let found = match (is_served(pattern), is_served(path)) {
                (true, _) => vec![pattern.as_str()],
                (false, true) => vec![path],
                (false, false) => wider(pattern, served()),
            };
            let successors = configured.patterns.iter();
            let successors = successors.filter(|served| found.contains(&served.pattern.as_str()));
            let keyed =
                || successors.clone().filter_map(|it| Some((it.names.as_ref()?, &it.route)));
            if keyed().next().is_none() {
                let treatment =
                    if found.is_empty() { "is served no more" } else { "passes without keys" };
                comparison.retired.push((pattern.clone(), treatment));
            }
            // A pattern that is served itself is compared with the patterns of the configuration.
            let differing = keyed().find(|(names, _)| *names != kept && !is_served(pattern));
            let Some((names, route)) = differing else { continue };
            comparison.change(pattern, kept, names, route);
            if keyed().all(|(other, _)| other == names) {
                comparison.next.patterns.insert(pattern.clone(), names.clone());
            } else {
                // From now on the requests have the names of several patterns, which are pinned.
                comparison.next.patterns.remove(pattern);
            }
        }
    }
}

impl NameComparison {
    fn change(&mut self, pattern: &str, kept: &KeyNames, configured: &KeyNames, route: &str) {
        self.changes.push(NameChange {
            pattern: Some(pattern.to_owned()),
            kept: NamesOf::Keys(kept.clone()),
            configured: NamesOf::Keys(configured.clone()),
            route: route.to_owned(),
        });
    }

    /// True if keys would be looked for under other names than those they are kept under.
    pub(crate) fn is_change(&self) -> bool {
        !self.changes.is_empty()
    }

    /// The value of `accept_names` that accepts exactly this change: 32 hex digits.
    pub(crate) fn acceptance(&self) -> String {
        let changes: BTreeSet<String> = self.changes.iter().map(NameChange::canonical).collect();
        let mut hash = Sha256::new();
        hash.update(b"oncegate/names/1\0");
        for change in changes {
            hash.update((change.len() as u64).to_le_bytes());
            hash.update(change);
        }
        hex::encode(&hash.finalize()[..16])
    }
}

impl fmt::Display for NameComparison {
    /// Lists the changes, each with the lines that keep the names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in self.changes.iter().take(LISTED) {
            writeln!(f, "  {change}")?;
        }
        match self.changes.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => writeln!(f, "  and {more} more patterns"),
        }
    }
}

impl NameChange {
    fn canonical(&self) -> String {
        // Strings, lists and maps with string keys always have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl fmt::Display for NameChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kept, configured) = (self.kept.lines(), self.configured.lines());
        let only = |lines: &[String], others: &[String]| {
            let only: Vec<&str> =
                lines.iter().filter(|line| !others.contains(line)).map(String::as_str).collect();
            only.join(", ")
        };
        match &self.pattern {
            Some(pattern) => write!(f, "{pattern} (route `{}`): keys", self.route)?,
            None => f.write_str("callers: all keys")?,
        }
        let kept_only = only(&kept, &configured);
        write!(f, " are kept under {kept_only}")?;
        match only(&configured, &kept).as_str() {
            "" => {}
            others => write!(f, ", and this configuration says {others}")?,
        }
        write!(f, "; to keep them write {kept_only}")
    }
}

impl NamesOf {
    /// The names as lines of a configuration.
    fn lines(&self) -> Vec<String> {
        match self {
            Self::Callers(names) => caller_lines(names, "[tenant"),
            Self::Keys(KeyNames::Request { route, key, callers }) => {
                let mut lines = vec!["[[route]] mode = \"request\"".to_owned()];
                match route {
                    Some(route) => lines.extend([
                        "[route.key] scope = \"route\"".to_owned(),
                        format!("[[route]] name = {route:?}"),
                    ]),
                    None => lines.push("[route.key] scope = \"tenant\"".to_owned()),
                }
                lines.push(format!("[route.key] {key}"));
                lines.extend(own_caller_lines(callers));
                lines
            }
            Self::Keys(KeyNames::Items { ledger, at, id, batch, callers }) => {
                let mut lines = vec![
                    "[[route]] mode = \"items\"".to_owned(),
                    format!("[route.items] ledger = {ledger:?}"),
                    format!("[route.items] at = {at:?}"),
                    format!("[route.items] id = {id:?}"),
                ];
                lines.extend(batch.as_ref().map(|place| format!("[route.items] batch: {place}")));
                lines.extend(own_caller_lines(callers));
                lines
            }
        }
    }
}

/// The names of callers as lines of a configuration. The kinds of names other than headers are
/// written as their tables.
fn caller_lines(names: &BTreeSet<String>, table: &str) -> Vec<String> {
    let (kinds, headers): (Vec<&String>, Vec<&String>) =
        names.iter().partition(|name| name.starts_with("[tenant"));
    let mut lines = vec![format!("{table}] headers = {headers:?}")];
    lines.extend(kinds.into_iter().map(|kind| kind.replacen("[tenant", table, 1)));
    lines
}

fn own_caller_lines(callers: &Option<BTreeSet<String>>) -> Vec<String> {
    callers.as_ref().map(|names| caller_lines(names, "[route.tenant")).unwrap_or_default()
}
