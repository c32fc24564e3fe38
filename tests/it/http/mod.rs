//! HTTP through the gateway: real clients, real servers, and bytes that neither should see.

mod cases;
mod clients;
mod conformance;
mod guarantees;
mod har;
mod limits;
mod masks;
mod php;
mod proxy;
mod secrets;
mod sentinel;
mod sessions;
mod websocket;
