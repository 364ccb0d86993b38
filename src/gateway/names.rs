//! Comparison of a configuration with the names in the store, before the first request: a key
//! looked up under a different name would run again.

use std::collections::BTreeSet;

use crate::config::{Config, Mode, RouteConfig, TenantConfig};
use crate::hex;
use crate::idempotency::key::{KeyPlaces, Scope};
use crate::idempotency::names::{
    ConfiguredNames, KeyNames, NameComparison, PinnedNames, ServedPattern,
};
use crate::idempotency::record::Nonce;
use crate::place::Place;
use crate::store::{Query, Store};

/// Attempts, while other processes replace the names.
const ATTEMPTS: usize = 16;
/// Maximum number of patterns in a warning.
const LISTED: usize = 20;
/// Names are pinned before the first record: a store with records had names.
const NAMES_LOST: &str = "the store holds keys, but the document that says under which names, and \
    under encryption by which secret, is gone, so that keys which were used before could run \
    again; restore the store from a backup, and treat keys used since then as unknown";

/// Reason why the names of a configuration were not pinned.
#[derive(Debug)]
pub(crate) enum PinError {
    /// The store keeps keys under other names; holds the changes and the remedy.
    Refused(String),
    /// The store did not answer, or its names are unreadable.
    Store(String),
}

/// Pins the names of `config` in the store, or refuses the configuration.
///
/// On a shared store a process enters itself with the names it has read, in the same
/// compare-and-swap that would detect a change of the names. A change is therefore accepted only if
/// every process that entered itself before has ended.
///
/// # Errors
/// Keys would be looked for under other names and the change is not accepted, or other processes
/// still use the names so far.
pub(crate) async fn pin(config: &Config, store: &dyn Store) -> Result<(), PinError> {
    let configured = names_of(config);
    for _ in 0..ATTEMPTS {
        let stored = store.names().await.map_err(|error| PinError::Store(error.to_string()))?;
        let version = stored.as_ref().map(|stored| stored.version);
        let pinned = match stored {
            // A store under encryption has a secret before it has names.
            Some(stored) if !stored.bytes.is_empty() => {
                PinnedNames::decode(&stored.bytes).map_err(unreadable)?
            }
            Some(_) | None if holds_records(store).await? => match store.names().await {
                // Another process has pinned the first names meanwhile.
                Ok(Some(found)) if !found.bytes.is_empty() => continue,
                Ok(_) => return Err(PinError::Store(NAMES_LOST.to_owned())),
                Err(error) => return Err(PinError::Store(error.to_string())),
            },
            Some(_) | None => PinnedNames::default(),
        };
        let others = other_replicas(&pinned, store).await?;
        let comparison = pinned.compare(&configured);
        if comparison.is_change() {
            let accepted = config.store.accept_names.as_deref();
            check_acceptance(&comparison, accepted, others.len()).map_err(PinError::Refused)?;
        }
        let mut next = comparison.next.clone();
        next.replicas = others;
        if store.is_shared() {
            next.replicas.insert(hex::encode(&store.owner()));
        }
        let is_pinned = next == pinned || {
            let swapped = store.swap_names(version, next.encode()).await;
            swapped.map_err(|error| PinError::Store(error.to_string()))?
        };
        if is_pinned {
            log(&comparison);
            return Ok(());
        }
    }
    Err(PinError::Store(format!(
        "the names of the keys were replaced by other processes {ATTEMPTS} times in a row"
    )))
}

async fn holds_records(store: &dyn Store) -> Result<bool, PinError> {
    let found = store.list(Query { limit: 1, ..Query::default() }).await;
    found.map(|records| !records.is_empty()).map_err(|error| PinError::Store(error.to_string()))
}

/// The reason why a store with these pinned names refuses `config`, whichever replicas are alive;
/// `None`: it takes it.
pub(crate) fn refusal(config: &Config, names: &[u8]) -> Option<String> {
    let comparison = PinnedNames::decode(names).ok()?.compare(&names_of(config));
    if !comparison.is_change() {
        return None;
    }
    check_acceptance(&comparison, config.store.accept_names.as_deref(), 0).err()
}

/// Refuses a change without a matching `accept_names`, or while other replicas are alive.
fn check_acceptance(
    comparison: &NameComparison,
    accepted: Option<&str>,
    others: usize,
) -> Result<(), String> {
    let acceptance = comparison.acceptance();
    let is_accepted = accepted == Some(&*acceptance);
    if is_accepted && others == 0 {
        return Ok(());
    }
    let mut text = format!(
        "this configuration looks for keys under other names than the store keeps them, so that \
         keys which were used before would run again:\n{comparison}"
    );
    if !is_accepted {
        if accepted.is_some() {
            text.push_str("the `accept_names` in [store] is for another change\n");
        }
        text.push_str(&format!(
            "to accept that these keys may run again, write in [store]:\n  \
             accept_names = \"{acceptance}\""
        ));
    }
    if others > 0 {
        text.push_str(&format!(
            "{}replicas that use the names so far are alive ({others}); stop them before the \
             change is accepted (a replica that was killed counts until its lease ends)",
            if is_accepted { "" } else { "\n" }
        ));
    }
    Err(text)
}

/// The other living processes with these names.
async fn other_replicas(
    pinned: &PinnedNames,
    store: &dyn Store,
) -> Result<std::collections::BTreeSet<String>, PinError> {
    if !store.is_shared() {
        return Ok(Default::default());
    }
    let own = store.owner();
    let entered = pinned.replicas.iter().filter_map(|owner| hex::decode(owner));
    let entered: Vec<Nonce> = entered.filter(|owner| *owner != own).collect();
    let alive = store.live_owners(&entered).await;
    let alive = alive.map_err(|error| PinError::Store(error.to_string()))?;
    Ok(alive.iter().map(|owner| hex::encode(owner)).collect())
}

fn log(comparison: &NameComparison) {
    if comparison.is_change() {
        tracing::warn!(
            accepted = comparison.acceptance(),
            "keys are kept under other names from now on, as `accept_names` says; keys used before \
             may run again"
        );
    }
    let retired = &comparison.retired;
    for (pattern, treatment) in retired.iter().take(LISTED) {
        tracing::warn!(
            pattern,
            "requests had keys here and have none now: the path {treatment}; the store keeps its \
             names for when it returns"
        );
    }
    if let Some(more @ 1..) = retired.len().checked_sub(LISTED) {
        tracing::warn!(more, "more paths had keys and have none now");
    }
}

/// The names of a configuration's keys.
fn names_of(config: &Config) -> ConfiguredNames {
    let served = |route: &RouteConfig| {
        let names = key_names(route);
        let pattern = |method: &http::Method| {
            let served =
                ServedPattern::new(method.as_str(), &route.path, &route.name, names.clone());
            let when: Vec<String> = route.when.iter().map(ToString::to_string).collect();
            if when.is_empty() { served } else { served.when(&when.join(" or ")) }
        };
        route.methods.iter().map(pattern).collect::<Vec<_>>()
    };
    ConfiguredNames {
        callers: caller_names(&config.tenant),
        patterns: config.routes.iter().flat_map(served).collect(),
    }
}

/// The headers and the other kinds of names that tell callers apart.
fn caller_names(tenant: &TenantConfig) -> BTreeSet<String> {
    let headers = tenant.headers.iter().map(ToString::to_string);
    headers.chain(tenant.kinds().into_iter().map(str::to_owned)).collect()
}

/// The names of a route's keys; `None`: its requests pass without keys.
fn key_names(route: &RouteConfig) -> Option<KeyNames> {
    match &route.mode {
        Mode::Off => None,
        Mode::Request(mode) => Some(KeyNames::Request {
            route: match mode.key.scope {
                Scope::Tenant => None,
                Scope::Route => Some(route.name.to_string()),
            },
            key: key_line(&mode.key.places),
            callers: route.tenant.as_ref().map(caller_names),
        }),
        Mode::Items(mode) => Some(KeyNames::Items {
            ledger: mode.ledger.clone(),
            at: mode.rules.at.to_string(),
            id: mode.rules.id.to_string(),
            batch: mode.batch_key.as_ref().map(|key| key_line(&key.places)),
            callers: route.tenant.as_ref().map(caller_names),
        }),
    }
}

/// The places of a key as the configuration writes them; each place has one spelling.
fn key_line(places: &KeyPlaces) -> String {
    match places.single() {
        Some(Place::Header(name)) => format!("header = {:?}", name.as_str()),
        Some(Place::Pointer(pointer)) => format!("pointer = {:?}", pointer.to_string()),
        Some(place) => format!("from = {:?}", place.to_string()),
        None => {
            let places: Vec<String> = places.iter().map(ToString::to_string).collect();
            format!("from = {places:?}")
        }
    }
}

fn unreadable(reason: String) -> PinError {
    PinError::Store(format!(
        "the names of the keys in the store cannot be read ({reason}); if a later version wrote \
         them, run that one"
    ))
}
