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

/// A row or value that masks would have to hold whole.
pub const TOO_LARGE_TO_MASK: Malformed = Malformed("it is too large to be masked");
/// COPY data of which nothing tells what is masked in them.
pub const COPY_OF_UNKNOWN: Malformed = Malformed("what the COPY reads is not known");

impl Malformed {
    /// Whether the bytes are in order, and only cannot be masked.
    pub fn is_unmaskable(self) -> bool {
        [TOO_LARGE_TO_MASK, COPY_OF_UNKNOWN].contains(&self)
    }
}

/// A text of a client in another encoding.
pub const NOT_UTF8: Malformed = Malformed("a text in a message is not UTF-8");
