//! What the tests start and hold: the real binary, real servers, real clients, certificates.

pub mod certificates;
pub mod client;
pub mod daemon;
pub mod faults;
pub mod gateway;
pub mod http;
pub mod issuer;
pub mod postgres;
pub mod random;
pub mod sink;
pub mod sources;
pub mod ssh;
pub mod talk;
pub mod wire;
