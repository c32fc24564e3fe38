//! The PostgreSQL frontend/backend protocol, versions 3.0 and 3.2.
//!
//! Source: PostgreSQL documentation, chapter "Frontend/Backend Protocol", message formats.
//! Framing ([`frame`]) is apart from the contents of messages ([`startup`], [`frontend`],
//! [`backend`]); a message's contents are read only when its whole body is there, and every
//! decoder insists that it used the whole body.

pub mod backend;
mod body;
pub mod command;
pub mod copy;
pub mod frame;
pub mod frontend;
pub mod startup;
pub mod typed;
pub mod values;

/// Bytes that are not what the protocol says they should be. Fit to be told to the client: it
/// holds nothing of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// A text of a client in another encoding.
pub const NOT_UTF8: Malformed = Malformed("a text in a message is not UTF-8");
