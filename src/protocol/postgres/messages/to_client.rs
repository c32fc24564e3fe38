//! Messages to a client, as a server sends them. Each function appends one.
//!
//! Texts go without their NULs, since what stands behind a NUL would be read as the next field.
//! What the gateway says is made of its own words, of parts of one message of the client or of the
//! target, and of what an operator wrote: nothing that comes near the 2 GiB of a message.

use std::borrow::Cow;

use bytes::{BufMut as _, Bytes, BytesMut};
use pgwire::error::PgWireError;
use pgwire::messages::Message;
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{
    BindComplete, CloseComplete, ParseComplete, PortalSuspended,
};
use pgwire::messages::response::{
    self, CommandComplete, EmptyQueryResponse, ErrorResponse, NoticeResponse, ReadyForQuery,
    SslResponse,
};
use pgwire::messages::startup::{Authentication, NegotiateProtocolVersion, ParameterStatus};

use super::{TOO_LONG, framed};
use crate::decode::postgres::Malformed;
use crate::decode::postgres::backend::TransactionStatus;

/// The answer to a request for TLS: it may begin.
pub(in super::super) const ENCRYPTION_ACCEPTED: u8 = SslResponse::BYTE_ACCEPT;
/// The answer to a request for TLS or GSSAPI that is refused.
pub(in super::super) const ENCRYPTION_REFUSED: u8 = SslResponse::BYTE_REFUSE;

/// A field of an `ErrorResponse` or a `NoticeResponse`: its kind and text.
pub(in super::super) type Field<'f> = (u8, &'f str);

/// What `write` appends.
pub(in super::super) fn bytes_of(write: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    write(&mut out);
    out.freeze()
}

pub(in super::super) fn error_response<'f>(
    out: &mut BytesMut,
    fields: impl IntoIterator<Item = Field<'f>>,
) {
    say(out, &ErrorResponse::new(owned(fields)));
}

pub(in super::super) fn notice_response<'f>(
    out: &mut BytesMut,
    fields: impl IntoIterator<Item = Field<'f>>,
) {
    say(out, &NoticeResponse::new(owned(fields)));
}

pub(in super::super) fn authentication_ok(out: &mut BytesMut) {
    say(out, &Authentication::Ok);
}

pub(in super::super) fn authentication_cleartext_password(out: &mut BytesMut) {
    say(out, &Authentication::CleartextPassword);
}

/// The newest minor version that is spoken, and the protocol options that are not.
pub(in super::super) fn negotiate_protocol_version(
    out: &mut BytesMut,
    minor: u16,
    unknown_options: &[&str],
) {
    let options = unknown_options.iter().map(|option| text(option)).collect();
    say(out, &NegotiateProtocolVersion::new(3 << 16 | i32::from(minor), options));
}

pub(in super::super) fn parameter_status(out: &mut BytesMut, name: &str, value: &str) {
    say(out, &ParameterStatus::new(text(name), text(value)));
}

/// Written here: `pgwire` would make one more copy of the key, which nobody wipes.
pub(in super::super) fn backend_key_data(out: &mut BytesMut, process_id: u32, cancel_key: &[u8]) {
    let written = framed(out, b'K', |body| {
        body.put_u32(process_id);
        body.put_slice(cancel_key);
        Ok::<_, Malformed>(())
    });
    debug_assert!(written.is_ok());
}

pub(in super::super) fn ready_for_query(out: &mut BytesMut, status: TransactionStatus) {
    let status = match status {
        TransactionStatus::Idle => response::TransactionStatus::Idle,
        TransactionStatus::Open => response::TransactionStatus::Transaction,
        TransactionStatus::Failed => response::TransactionStatus::Error,
    };
    say(out, &ReadyForQuery::new(status));
}

pub(in super::super) fn parse_complete(out: &mut BytesMut) {
    say(out, &ParseComplete::new());
}

pub(in super::super) fn bind_complete(out: &mut BytesMut) {
    say(out, &BindComplete::new());
}

pub(in super::super) fn close_complete(out: &mut BytesMut) {
    say(out, &CloseComplete::new());
}

/// The types of a statement's parameters; 65,535 at most.
pub(in super::super) fn parameter_description(out: &mut BytesMut, types: Vec<u32>) {
    debug_assert!(u16::try_from(types.len()).is_ok(), "pgwire writes the count's lower half");
    say(out, &ParameterDescription::new(types));
}

pub(in super::super) fn no_data(out: &mut BytesMut) {
    say(out, &NoData::new());
}

pub(in super::super) fn portal_suspended(out: &mut BytesMut) {
    say(out, &PortalSuspended::new());
}

pub(in super::super) fn empty_query_response(out: &mut BytesMut) {
    say(out, &EmptyQueryResponse::new());
}

pub(in super::super) fn command_complete(out: &mut BytesMut, tag: &str) {
    say(out, &CommandComplete::new(text(tag)));
}

/// A row of that many values; `None` is NULL. Written here: `pgwire` takes the values as they are on
/// the wire, in a buffer of their own.
pub(in super::super) fn data_row<'v>(
    out: &mut BytesMut,
    columns: usize,
    values: impl IntoIterator<Item = Result<Option<Cow<'v, [u8]>>, Malformed>>,
) -> Result<(), Malformed> {
    let columns = u16::try_from(columns).map_err(|_| Malformed("a row is too wide"))?;
    framed(out, b'D', |body| {
        body.put_u16(columns);
        for value in values {
            match value? {
                None => body.put_i32(-1),
                Some(value) => {
                    body.put_i32(i32::try_from(value.len()).map_err(|_| TOO_LONG)?);
                    body.put_slice(&value);
                }
            }
        }
        Ok(())
    })
}

/// A report of the server's with other fields. Written here, since its texts need not be UTF-8, and
/// those of `pgwire` are.
pub(in super::super) fn report_instead<'f>(
    tag: u8,
    fields: impl IntoIterator<Item = (u8, Cow<'f, [u8]>)>,
) -> Result<Bytes, Malformed> {
    let mut out = BytesMut::new();
    framed(&mut out, tag, |body| {
        for (kind, text) in fields {
            body.put_u8(kind);
            body.put_slice(&text);
            body.put_u8(0);
        }
        body.put_u8(0);
        Ok::<_, Malformed>(())
    })?;
    Ok(out.freeze())
}

/// A notification of the server's with other texts; written here for the same reason.
pub(in super::super) fn notification_response(
    process: u32,
    channel: &[u8],
    payload: &[u8],
) -> Result<Bytes, Malformed> {
    let mut out = BytesMut::new();
    framed(&mut out, b'A', |body| {
        body.put_u32(process);
        for text in [channel, payload] {
            body.put_slice(text);
            body.put_u8(0);
        }
        Ok::<_, Malformed>(())
    })?;
    Ok(out.freeze())
}

fn owned<'f>(fields: impl IntoIterator<Item = Field<'f>>) -> Vec<(u8, String)> {
    fields.into_iter().map(|(kind, words)| (kind, text(words))).collect()
}

/// A text without NULs.
fn text(text: &str) -> String {
    text.replace('\0', "")
}

/// Appends a message that is known to be short enough. One that were not would be left out whole:
/// nothing on the wire is cut or has a wrong length.
fn say(out: &mut BytesMut, message: &impl Message) {
    let written = put(out, message);
    debug_assert!(written.is_ok(), "{written:?}");
}

/// Appends a message. Its length is counted here: `pgwire`'s `encode` refuses parameters of more than
/// 30,000 bytes, which servers send, and cuts lengths and counts that are too large.
fn put<M: Message>(out: &mut BytesMut, message: &M) -> Result<(), Malformed> {
    let tag = M::message_type().ok_or(Malformed("a message without a tag"))?;
    framed(out, tag, |body| message.encode_body(body).map_err(|_: PgWireError| TOO_LONG))
}
