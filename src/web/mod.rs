//! The HTTP side of the gateway: the API over TCP and over the admin socket, the pages for people,
//! and the figures for Prometheus.

pub mod admin;
pub mod api;
mod approvals;
mod caller;
pub mod certificates;
mod exports;
mod grants;
pub mod holds;
mod kills;
mod login_cookies;
pub mod metrics;
pub mod pages;
mod policy;
mod problem;
mod query;
mod recordings;
pub mod server;
mod starting;
mod targets;
mod tickets;
mod users;

pub use caller::Roles;
pub use login_cookies::Entrance;
