//! The data path.

pub mod headers;
pub mod upstream;
