//! The index and the state in PostgreSQL, and the server that the gateway runs for itself.

mod private_server;
