//! The protocols, one folder each. This is the one place that names them.

pub mod http;
mod own_waker;
pub mod postgres;
pub mod ssh;
mod taped;

pub use taped::TapeError;
