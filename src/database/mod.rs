//! All SQL.
mod private_server;
pub use private_server::{PrivateServer, PrivateServerError};
