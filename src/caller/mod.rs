//! Callers: whom a key belongs to, by a name of one of several kinds.
//!
//! The module is pure: the directory and the verifier of tokens. Fetching keys, asking an
//! authorization service and the order of the kinds are left to `proxy::callers`.

mod directory;
pub mod jwt;
mod name;

pub use directory::{CredentialConflict, Directory, DirectoryEntry, DirectoryError};
pub use name::{Caller, CallerKind};
