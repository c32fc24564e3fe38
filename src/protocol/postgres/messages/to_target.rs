//! Messages to a target, as a client sends them. Most functions append one; on failure they append
//! nothing.
//!
//! A text with a NUL is refused, since what stands behind it would be another message's.

use std::io;

use bytes::{BufMut as _, Bytes, BytesMut};
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;
use zeroize::{Zeroize as _, Zeroizing};

use super::framed;
use crate::decode::postgres::Malformed;
use crate::decode::postgres::frame::HEADER;
use crate::decode::postgres::frontend::Named;
use crate::decode::postgres::startup::CANCEL_REQUEST;

/// A message that cannot be written: a text in it has a NUL, or it is longer than its length or a
/// count in it can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message to the server has a NUL in a text, or is too long")]
pub(in super::super) struct Unwritable;

impl From<Malformed> for Unwritable {
    fn from(_: Malformed) -> Self {
        Self
    }
}

/// A text that is no SQL in any setting: the server says so and does nothing else, and its own
/// state goes on as after any failed statement.
const NO_SQL: &str = "portcullis refused a command";

/// The SQLSTATE of the server's answer to it: `syntax_error`.
pub(in super::super) const NO_SQL_CODE: &str = "42601";

/// What the server repeats when the gateway ends a COPY.
pub(in super::super) const GIVEN_UP: &str = "portcullis: a message that is no COPY data came";

/// A Query message that fails, to stand where one was refused.
pub(in super::super) fn failing_query() -> Bytes {
    fixed(|out| query(out, NO_SQL))
}

/// A Parse message that fails, to stand where a message of the extended protocol was refused: the
/// server then skips to the Sync. The unnamed statement goes with a Parse that was to replace it,
/// as it would have; no other is touched.
pub(in super::super) fn failing_parse(unnamed: bool) -> Bytes {
    fixed(|out| parse(out, if unnamed { "" } else { NO_SQL }, NO_SQL, &[]))
}

/// Flush: the server sends what it has, and nothing else comes of it in any state.
pub(in super::super) fn flush() -> Bytes {
    let mut out = BytesMut::new();
    frontend::flush(&mut out);
    out.freeze()
}

/// So many Syncs.
pub(in super::super) fn syncs(count: usize) -> Bytes {
    let mut out = BytesMut::new();
    (0..count).for_each(|_| sync(&mut out));
    out.freeze()
}

/// A `CopyFail` of the gateway's own.
pub(in super::super) fn copy_fail() -> Bytes {
    fixed(|out| put(out, |out| frontend::copy_fail(GIVEN_UP, out)))
}

/// A Describe of a portal that a message of the client names: the server says by it whether there is
/// one.
pub(in super::super) fn describe_portal(name: &str) -> Bytes {
    fixed(|out| describe(out, Named::Portal(name)))
}

pub(in super::super) fn query(out: &mut BytesMut, sql: &str) -> Result<(), Unwritable> {
    put(out, |out| frontend::query(sql, out))
}

pub(in super::super) fn parse(
    out: &mut BytesMut,
    statement: &str,
    sql: &str,
    parameter_types: &[u32],
) -> Result<(), Unwritable> {
    put(out, |out| frontend::parse(statement, sql, parameter_types.iter().copied(), out))
}

/// A Bind of a statement without parameters, whose rows come as text.
pub(in super::super) fn bind(
    out: &mut BytesMut,
    portal: &str,
    statement: &str,
) -> Result<(), Unwritable> {
    let no_values = std::iter::empty::<()>();
    let value = |(), _: &mut BytesMut| Ok(IsNull::Yes);
    put(out, |out| frontend::bind(portal, statement, [], no_values, value, [], out))
}

pub(in super::super) fn describe(out: &mut BytesMut, named: Named<'_>) -> Result<(), Unwritable> {
    let (variant, name) = variant(named);
    put(out, |out| frontend::describe(variant, name, out))
}

/// An Execute without a limit.
pub(in super::super) fn execute(out: &mut BytesMut, portal: &str) -> Result<(), Unwritable> {
    put(out, |out| frontend::execute(portal, 0, out))
}

pub(in super::super) fn close(out: &mut BytesMut, named: Named<'_>) -> Result<(), Unwritable> {
    let (variant, name) = variant(named);
    put(out, |out| frontend::close(variant, name, out))
}

pub(in super::super) fn sync(out: &mut BytesMut) {
    frontend::sync(out);
}

/// A message of the client with other names at its beginning; `None` leaves one as it is. Written
/// here: the rest of it passes byte for byte.
pub(in super::super) fn renamed(
    out: &mut BytesMut,
    message: &[u8],
    names: &[Option<&str>],
) -> Result<(), Unwritable> {
    let (Some(tag), Some(mut rest)) = (message.first(), message.get(HEADER..)) else {
        return Ok(());
    };
    framed(out, *tag, |body| {
        for name in names {
            let end = rest.iter().position(|byte| *byte == 0).ok_or(Unwritable)?;
            let (old, behind) = rest.split_at(end);
            body.put_slice(name.map_or(old, str::as_bytes));
            body.put_u8(0);
            rest = behind.get(1..).unwrap_or_default();
        }
        body.put_slice(rest);
        Ok(())
    })
}

pub(in super::super) fn ssl_request() -> Bytes {
    let mut out = BytesMut::new();
    frontend::ssl_request(&mut out);
    out.freeze()
}

/// A `StartupMessage` of that version of the protocol.
pub(in super::super) fn startup_message<'p>(
    version: u32,
    parameters: impl IntoIterator<Item = (&'p str, &'p str)>,
) -> Result<Bytes, Unwritable> {
    let mut out = BytesMut::new();
    put(&mut out, |out| frontend::startup_message(parameters, out))?;
    // `postgres-protocol` writes 3.0.
    let place = out.get_mut(4..8).ok_or(Unwritable)?;
    place.copy_from_slice(&version.to_be_bytes());
    Ok(out.freeze())
}

/// A `CancelRequest` with the process id and the secret key that `BackendKeyData` had. Written here:
/// the key is a secret, and may be longer than the 4 bytes that `postgres-protocol` takes.
pub(in super::super) fn cancel_request(key: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unwritable> {
    let size = 8 + key.len();
    let mut request = Zeroizing::new(Vec::with_capacity(size));
    request.extend(u32::try_from(size).map_err(|_| Unwritable)?.to_be_bytes());
    request.extend(CANCEL_REQUEST.to_be_bytes());
    request.extend_from_slice(key);
    Ok(request)
}

/// A message with a secret in it. It is wiped when it is dropped.
pub(in super::super) struct SecretMessage(BytesMut);

impl SecretMessage {
    /// Room for the whole of it: a buffer that grows leaves a copy behind.
    fn of(
        size: usize,
        write: impl FnOnce(&mut BytesMut) -> io::Result<()>,
    ) -> Result<Self, Unwritable> {
        let mut message = Self(BytesMut::with_capacity(size));
        write(&mut message.0).map_err(|_| Unwritable)?;
        debug_assert!(message.0.len() <= size, "it grew");
        Ok(message)
    }

    pub(in super::super) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for SecretMessage {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

pub(in super::super) fn password_message(password: &[u8]) -> Result<SecretMessage, Unwritable> {
    let size = HEADER + password.len() + 1;
    SecretMessage::of(size, |out| frontend::password_message(password, out))
}

pub(in super::super) fn sasl_initial_response(
    mechanism: &str,
    data: &[u8],
) -> Result<SecretMessage, Unwritable> {
    let size = HEADER + mechanism.len() + 1 + 4 + data.len();
    SecretMessage::of(size, |out| frontend::sasl_initial_response(mechanism, data, out))
}

pub(in super::super) fn sasl_response(data: &[u8]) -> Result<SecretMessage, Unwritable> {
    SecretMessage::of(HEADER + data.len(), |out| frontend::sasl_response(data, out))
}

/// Messages of fixed texts, and of names that a message of the client had: none has a NUL, so all can
/// be written. One that could not would be left out.
fn fixed(write: impl FnOnce(&mut BytesMut) -> Result<(), Unwritable>) -> Bytes {
    let mut out = BytesMut::new();
    let written = write(&mut out);
    debug_assert!(written.is_ok(), "{written:?}");
    out.freeze()
}

/// Appends what `write` appends, or nothing: `postgres-protocol` leaves the beginning of a message
/// that it cannot write.
fn put<E>(
    out: &mut BytesMut,
    write: impl FnOnce(&mut BytesMut) -> Result<(), E>,
) -> Result<(), Unwritable> {
    let start = out.len();
    write(out).map_err(|_| {
        out.truncate(start);
        Unwritable
    })
}

fn variant(named: Named<'_>) -> (u8, &str) {
    match named {
        Named::Statement(name) => (b'S', name),
        Named::Portal(name) => (b'P', name),
    }
}
