//! SSH through the gateway: OpenSSH's own server behind it, ordinary clients before it.

mod cases;
mod channels;
mod clients;
mod device;
mod exec;
mod load;
mod login;
mod masking;
mod policy;
mod recording;
mod transfer;
mod unknown;

pub use channels::AnyKey;
