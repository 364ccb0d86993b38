//! oncegate: a reverse proxy that makes existing, non-idempotent HTTP APIs safe to retry.
//!
//! Where things live:
//! - [`config`]: what the configuration says and means.
//! - [`idempotency`]: the rules, pure functions.
//! - [`caller`]: who sends a request, pure: the directory and the verifier of tokens.
//! - [`items`]: batches, pure functions: what is still to send, and what was issued.
//! - [`store`]: the port and its engines.
//! - `upstream`: one backend, sent or certainly not sent.
//! - `settle`: changes of records that have to become durable after a claim.
//! - [`proxy`]: connections, routes, and the exchange, one request from start to finish.
//! - [`admin`]: the operator's listener.
//! - [`demo`]: the told story of the lost answer.
//! - [`dry_run`]: a configuration tried on a vendor's own samples.
//! - `gateway`: starting all of it and ending it.
//! - [`cli`] and [`commands`]: what may be typed and what it does.
//! - [`place`]: where a value stands in a request, over [`json`], [`form`] and [`xml`].
//! - leaves: [`body`], [`clock`], [`content_coding`], [`failpoint`], [`form`], `hex`, `ip_network`,
//!   [`json`], `limit`, `listen_address`, `loopback`, `machine`, [`matcher`], [`media_type`],
//!   `net`, [`nonce`], [`observe`], `percent`, [`problem`], [`shutdown`], [`template`],
//!   `temporary`, [`xml`].

pub mod admin;
pub mod body;
pub mod caller;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod content_coding;
pub mod demo;
pub mod dry_run;
pub mod failpoint;
pub mod form;
#[doc(hidden)]
pub mod fuzzing;
pub(crate) mod gateway;
pub(crate) mod hex;
pub mod idempotency;
pub(crate) mod ip_network;
pub mod items;
pub mod json;
pub(crate) mod limit;
pub(crate) mod listen_address;
pub(crate) mod loopback;
pub(crate) mod machine;
pub mod matcher;
pub mod media_type;
pub(crate) mod net;
pub mod nonce;
pub mod observe;
mod percent;
pub mod place;
pub mod problem;
pub mod proxy;
#[cfg(test)]
#[path = "../tests/servers/mod.rs"]
mod servers;
pub(crate) mod settle;
pub mod shutdown;
pub mod store;
pub mod template;
pub(crate) mod temporary;
mod unseen;
pub(crate) mod upstream;
pub mod xml;
