//! Stores as understood, without their credentials.

use serde_json::{Value, json};

use super::model::{EngineConfig, StoreServerConfig};
use super::units::{Secret, Size, Time};

impl EngineConfig {
    /// In one line.
    pub(super) fn line(&self) -> String {
        match self {
            Self::Embedded { path, .. } => format!("embedded, {}", path.display()),
            Self::Postgres(store) => format!("postgres, {}", without_credentials(&store.url)),
            Self::Redis(store) => {
                let places: Vec<String> = store.urls.iter().map(without_credentials).collect();
                let kind = match (store.cluster, &store.sentinel) {
                    (true, _) => " (cluster)".to_owned(),
                    (false, Some(name)) => format!(" (sentinels of {name})"),
                    (false, None) => String::new(),
                };
                let durability = if store.strict { "strict" } else { "relaxed" };
                format!("redis{kind}, {}, {durability}", places.join(" "))
            }
        }
    }

    /// The table's name in the file, and its contents.
    pub(super) fn json(&self) -> (&'static str, Value) {
        match self {
            Self::Embedded { path, cache } => {
                ("embedded", json!({ "path": path, "cache": Size(*cache).to_string() }))
            }
            Self::Postgres(store) => {
                let mut place = server_json(&store.server);
                place["url"] = without_credentials(&store.url).into();
                place["pool"] = store.pool.into();
                place["prepared"] = store.prepared.into();
                ("postgres", place)
            }
            Self::Redis(store) => {
                let mut place = server_json(&store.server);
                place["urls"] = store.urls.iter().map(without_credentials).collect();
                place["cluster"] = store.cluster.into();
                place["sentinel"] = store.sentinel.clone().into();
                place["durability"] = if store.strict { "strict" } else { "relaxed" }.into();
                place["replicas"] = store.replicas.into();
                place["prefix"] = store.prefix.clone().into();
                ("redis", place)
            }
        }
    }
}

fn server_json(server: &StoreServerConfig) -> Value {
    let time = |duration| Time(duration).to_string();
    json!({
        "connect_timeout": time(server.connect_timeout),
        "timeout": time(server.timeout),
        "lease": time(server.lease),
        "ca": server.ca,
        "client_cert": server.client_cert.as_ref().map(|(cert, key)| {
            json!({ "cert": cert, "key": key })
        }),
    })
}

/// Where a store is: what stands in its URL behind the credentials, without the options, which may
/// hold a password as well.
fn without_credentials(url: &Secret) -> String {
    let url = url.expose();
    let place = url.split_once("://").map_or(url, |(_, rest)| rest);
    let place = place.split('?').next().unwrap_or_default();
    place.rsplit_once('@').map_or(place, |(_, place)| place).to_owned()
}
