//! The configuration: a TOML file, checked as a whole, as types that the gateway uses.
//!
//! `document` turns the text into a tree of values with places, `table` and `values` read tables
//! key by key and note every mistake in `diagnostics`. `load` starts there and leaves each table to
//! its own file: `server`, `stores`, `upstreams`, `routes` with `request`, `items` and `place`. The
//! result are the types of `model`, which `describe` prints with the text forms of `shown`.
//! `profiles` and `defaults` supply the values of keys that are left out.

mod backend_url;
mod callers;
mod capillary;
mod catalog;
mod cors;
pub mod defaults;
mod describe;
mod describe_items;
mod diagnostics;
mod directory;
mod document;
mod encryption;
mod environment;
mod errors;
mod files;
mod items;
mod items_consistency;
mod items_parts;
mod items_response;
mod json_members;
mod list_paths;
mod listener;
mod load;
mod log;
mod matcher;
mod model;
mod outcome;
mod own_requests;
mod path_dialects;
pub mod paths;
mod place;
mod policy;
mod probe;
pub mod profiles;
mod rate;
mod reloadable;
mod request;
mod routes;
mod server;
mod settlement;
mod shown;
mod siblings;
mod stores;
mod suspect;
mod syntax;
mod table;
mod table_lists;
mod template;
mod tenant;
#[cfg(test)]
mod tests;
mod traces;
pub mod units;
mod upstream_kinds;
mod upstreams;
mod values;
mod warnings;
mod when;

pub use self::backend_url::BackendUrl;
pub use self::callers::{
    AuthorizeConfig, CertificateName, JwtConfig, JwtKeys, TenantConfig, UnknownCaller,
};
pub use self::cors::CorsConfig;
pub use self::diagnostics::{Mistake, Mistakes, Warning};
pub use self::encryption::EncryptionConfig;
pub use self::errors::ErrorReplacement;
pub use self::files::{ConfigFiles, FileDigests};
pub use self::listener::{ClientAuth, ServerTlsConfig};
pub use self::load::{load, load_with_files, load_without_files, parse, without_file};
pub use self::log::LogConfig;
pub use self::model::{
    AdminConfig, Config, DuplicateRules, EngineConfig, ItemsMode, LimitsConfig, Mode,
    PostgresConfig, RecordRules, RedisConfig, RequestMode, RouteConfig, ServerConfig, StoreConfig,
    StoreServerConfig, UpstreamConfig,
};
pub use self::policy::{
    AbsenceRules, AfterReversal, AlreadyDone, AlreadyDoneRules, ListRules, NextPage, ProbeRules,
    RepeatMark, RequestTemplate, ResendRules, ResponseTemplate, ReverseRules, UnknownPolicy,
    WindowRules,
};
pub use self::rate::Rate;
pub(crate) use self::reloadable::NEEDS_RESTART;
pub use self::suspect::{SuspectAction, SuspectRules};
pub use self::template::HeaderTemplates;
pub(crate) use self::tenant::keys_server;
pub use self::traces::TracesConfig;
pub use self::units::Secret;
pub use self::upstream_kinds::{CloseDelimited, HostPolicy, HttpVersion};
pub(crate) use self::upstreams::at as default_upstream;
