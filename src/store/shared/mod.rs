//! A store that several processes share: the port on top of an [`Engine`].
//!
//! `engine` says what a server has to offer; the parts beside it are the same for all servers.

pub(crate) mod engine;
