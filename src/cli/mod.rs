//! To come.

pub mod issuer;
