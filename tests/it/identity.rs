//! Tokens from real keys against a verifier that talks to issuers over real sockets.

mod auth_cases;
mod dev_issuer;
mod discovery;
pub mod mint;
mod scripted;
