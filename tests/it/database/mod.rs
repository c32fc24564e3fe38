//! The index and the state in PostgreSQL, and the server that the gateway runs for itself.

mod index;
mod million;
mod outage;
mod private_server;
