//! The HTTP side of the gateway: the API over TCP and over the admin socket, and the figures for
//! Prometheus.

pub mod admin;
pub mod api;
mod ask;
mod caller;
pub mod certificates;
pub mod metrics;
mod problem;
pub mod server;

pub use caller::Roles;
