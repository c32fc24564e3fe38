//! To come.

pub mod stream;
pub mod upstream;
