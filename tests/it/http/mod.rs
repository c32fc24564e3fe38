//! HTTP through the gateway: real clients, real servers, and bytes that neither should see.

mod cases;
mod clients;
mod limits;
mod masks;
mod proxy;
mod secrets;
mod sessions;
mod websocket;
