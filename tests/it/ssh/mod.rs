//! SSH through the gateway: OpenSSH's own server behind it, ordinary clients before it.

mod cases;
mod channels;
mod clients;
mod exec;
mod login;
mod policy;
mod recording;
mod transfer;
