//! oncegate: a reverse proxy that makes existing, non-idempotent HTTP APIs safe to retry.
//!
//! Where things live:
//! - [`config`]: what the configuration says and means.
//! - [`idempotency`]: the rules, pure functions.
//! - [`items`]: batches, pure functions: what is still to send, and what was issued.
//! - [`store`]: the port and its engines.
//! - [`proxy`]: connections, routes, and the exchange, one request from start to finish.
//! - [`admin`]: the operator's listener.
//! - [`demo`]: the told story of the lost answer.
//! - leaves: [`body`], [`clock`], [`json`], [`problem`], [`shutdown`], [`telemetry`], [`tls`].

pub mod admin;
pub mod body;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod idempotency;
pub mod items;
pub mod json;
pub mod problem;
pub mod proxy;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod tls;
