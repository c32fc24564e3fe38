//! To come.

pub mod postgres;
