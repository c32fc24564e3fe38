//! The protocols, one folder each. This is the one place that names them.

pub mod http;
pub mod postgres;
pub mod ssh;
mod taped;

pub use taped::TapeError;
