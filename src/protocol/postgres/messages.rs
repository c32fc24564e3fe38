//! The messages that the gateway writes itself: to a client in the server's place ([`to_client`]),
//! and to a target in the client's ([`to_target`]).
//!
//! `pgwire` and `postgres-protocol` write, and read nothing: `docs/decisions/postgres-messages.md`.
//! Rows and COPY data under masks are written where they are masked.

pub(super) mod to_client;
pub(super) mod to_target;

#[cfg(test)]
mod tests;

use bytes::{BufMut as _, BytesMut};

use crate::decode::postgres::Malformed;
use crate::decode::postgres::frame::HEADER;

/// A message is longer than its length can say.
const TOO_LONG: Malformed = Malformed("a message is too large");

/// Appends a message with the body that `write` appends, and the length that it then has. Nothing is
/// appended when it fails, or is longer than 2 GiB.
pub(super) fn framed<E: From<Malformed>>(
    out: &mut BytesMut,
    tag: u8,
    write: impl FnOnce(&mut BytesMut) -> Result<(), E>,
) -> Result<(), E> {
    let start = out.len();
    out.put_u8(tag);
    out.put_u32(0);
    let finished = write(out).and_then(|()| {
        // The length counts itself, and not the tag.
        let length = i32::try_from(out.len() - start - 1).map_err(|_| TOO_LONG)?;
        let place = out.get_mut(start + 1..start + HEADER).ok_or(TOO_LONG)?;
        place.copy_from_slice(&length.to_be_bytes());
        Ok(())
    });
    if finished.is_err() {
        out.truncate(start);
    }
    finished
}
