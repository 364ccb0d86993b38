//! Stores: the port every backend implements, its three backends, and the tasks that use the port.

#[cfg(test)]
mod contract;
#[cfg(test)]
pub(crate) mod samples;

pub mod cache;
pub mod codec;
pub mod embedded;
pub mod expiry;
pub(crate) mod key_counts;
pub(crate) mod metered;
mod port;
pub mod postgres;
pub mod reaper;
pub mod redis;
pub mod rotation;
pub mod seal;
mod sealed_names;
pub mod server;
mod shared;
pub(crate) mod urls;
pub mod watch;

pub use port::{
    Change, Identity, ListPosition, NamesDocument, Query, Store, StoreError, StoreFuture, Swap,
};
