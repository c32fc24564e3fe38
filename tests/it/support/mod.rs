//! What the tests start and hold: real servers, real clients, certificates.

pub mod certificates;
pub mod postgres;
