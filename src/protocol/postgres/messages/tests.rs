//! The bytes of every message that the gateway writes, as literals: whatever writes them, what is on
//! the wire stays the same.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::super::refusal::{self, Objection, Refusal};
use super::to_target::Unwritable;
use super::{TOO_LONG, framed, to_client, to_target};
use crate::decode::postgres::Malformed;
use crate::decode::postgres::backend::TransactionStatus;
use crate::decode::postgres::frontend::Named;
use crate::decode::sql::{SyntaxError, Unparsed};
use crate::names::SessionId;

fn session() -> SessionId {
    "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap()
}

fn one(write: impl FnOnce(&mut BytesMut) -> Result<(), Unwritable>) -> Bytes {
    let mut out = BytesMut::new();
    write(&mut out).unwrap();
    out.freeze()
}

/// Fails with all that differ, as literals.
fn hold(written: &[(&str, Bytes, &[u8])]) {
    let differs = written.iter().filter(|(_, bytes, golden)| bytes != golden);
    let differs: Vec<_> =
        differs.map(|(what, b, _)| format!("{what}: {}", b.escape_ascii())).collect();
    assert!(differs.is_empty(), "{}", differs.join("\n"));
}

#[test]
fn refusals() {
    let orders = || "orders".parse().unwrap();
    let shown = |refusal: Refusal| refusal.to_words().as_bytes().clone();
    let asked =
        Refusal::AccessAsked { target: orders(), link: "https://gw/1".into(), denied: false };
    hold(&[
        (
            "without a hint",
            shown(Refusal::Shutdown),
            b"E\0\0\x003SFATAL\0VFATAL\0C57P01\0Mthe gateway is stopping\0\0",
        ),
        (
            "with a hint",
            shown(Refusal::Unreachable(orders())),
            b"E\0\0\0kSFATAL\0VFATAL\0C08001\0Mtarget \"orders\" cannot be reached\0\
              HThe gateway's operator finds why in its log.\0\0",
        ),
        (
            "with a link",
            shown(asked),
            b"E\0\0\0rSFATAL\0VFATAL\0C28000\0\
              Maccess to \"orders\" waits for approval: https://gw/1\0\
              HConnect again once it is granted.\0\0",
        ),
        (
            "a NUL is left out",
            shown(Refusal::Parameter("a\0Mb".into())),
            b"E\0\0\0xSFATAL\0VFATAL\0C0A000\0Mstartup parameter \"aMb\" is not allowed\0\
              HOnly the server's operator can set it. Leave it out.\0\0",
        ),
        (
            "not ASCII",
            shown(Refusal::Encoding("Grüße".into())),
            b"E\0\0\0\x9eSFATAL\0VFATAL\0C22023\0\
              Mclient_encoding \"Gr\xc3\xbc\xc3\x9fe\" cannot be used: the gateway reads UTF8\0\
              HSet client_encoding to UTF8: PGCLIENTENCODING=UTF8, for example.\0\0",
        ),
    ]);
}

#[test]
fn objections() {
    let shown = |objection: &Objection| objection.to_words().as_bytes().clone();
    let stored = |objection: &Objection| objection.to_words().stored().clone();
    let policy = Objection::Policy { reason: Some("no".into()), session: session() };
    let syntax = |position| Objection::NotUnderstood {
        unparsed: Unparsed::Syntax,
        syntax: Some(SyntaxError { message: "at \"x\"".into(), stored: "at".into(), position }),
        reason: "masks".into(),
        session: session(),
    };
    hold(&[
        (
            "policy",
            shown(&policy),
            b"E\0\0\0MSERROR\0VERROR\0C42501\0Mno\0\
              HSession 01890a5d-ac96-774b-bcce-b302099a8057.\0\0",
        ),
        (
            "no hint",
            shown(&Objection::TransactionAborted),
            b"E\0\0\0kSERROR\0VERROR\0C25P02\0\
              Mcurrent transaction is aborted, commands ignored until end of transaction block\0\0",
        ),
        (
            "a position",
            shown(&syntax(Some(7))),
            b"E\0\0\0[SERROR\0VERROR\0C42601\0Mat \"x\"\0Dmasks\0\
              HSession 01890a5d-ac96-774b-bcce-b302099a8057.\0P7\0\0",
        ),
        (
            "no position",
            shown(&syntax(None)),
            b"E\0\0\0XSERROR\0VERROR\0C42601\0Mat \"x\"\0Dmasks\0\
              HSession 01890a5d-ac96-774b-bcce-b302099a8057.\0\0",
        ),
        (
            "stored",
            stored(&syntax(Some(7))),
            b"E\0\0\0WSERROR\0VERROR\0C42601\0Mat\0Dmasks\0\
              HSession 01890a5d-ac96-774b-bcce-b302099a8057.\0P7\0\0",
        ),
    ]);
}

#[test]
fn notices_and_wire_replay() {
    let waits = refusal::waits_for_approval("r1", "https://gw/r1", Duration::from_secs(90));
    let missing = refusal::replay_not_recorded("none", &"orders".parse().unwrap(), session());
    hold(&[
        (
            "encoding",
            refusal::other_encoding("LATIN1").as_bytes().clone(),
            b"N\0\0\0\\SNOTICE\0VNOTICE\0C00000\0\
              Mclient_encoding LATIN1 was asked for; the session runs in UTF8\0\0",
        ),
        (
            "waits",
            waits.as_bytes().clone(),
            b"N\0\0\0mSNOTICE\0VNOTICE\0C00000\0\
              Mthe command waits for approval, 90 s at most: request r1\0\
              HDecide: https://gw/r1\0\0",
        ),
        (
            "not recorded",
            missing.as_bytes().clone(),
            b"E\0\0\0\xaeSERROR\0VERROR\0CP0002\0Mnone\0\
              HThis is a replay of session 01890a5d-ac96-774b-bcce-b302099a8057: \
              statements are answered as they were recorded, and nothing reaches orders.\0\0",
        ),
        (
            "no hint",
            refusal::replay_error("26000", "none", "").as_bytes().clone(),
            b"E\0\0\0 SERROR\0VERROR\0C26000\0Mnone\0\0",
        ),
        (
            "a hint",
            refusal::replay_error("0A000", "text", "Ask.").as_bytes().clone(),
            b"E\0\0\0&SERROR\0VERROR\0C0A000\0Mtext\0HAsk.\0\0",
        ),
        (
            "withholds",
            refusal::replay_withholds(7).as_bytes().clone(),
            b"N\0\0\0kSNOTICE\0VNOTICE\0C00000\0\
              Manswered with command #7 of the recording, which withholds literals or values\0\0",
        ),
    ]);
}

#[test]
fn the_beginning_of_a_session() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let parameters = [pair("server_version", "18.1"), pair("TimeZone", "Zürich"), pair("x", "")];
    let notice = Bytes::from_static(b"N\0\0\0\x05\0");
    let welcome = |notices: &[Bytes], key: &[u8]| {
        refusal::welcome(&parameters, notices, 0x8000_0001, key).as_bytes().clone()
    };
    let negotiate = |options: &[&str]| refusal::negotiate_version(2, options).as_bytes().clone();
    hold(&[
        ("password", refusal::ask_password().as_bytes().clone(), b"R\0\0\0\x08\0\0\0\x03"),
        ("version", negotiate(&[]), b"v\0\0\0\x0c\0\x03\0\x02\0\0\0\0"),
        (
            "options",
            negotiate(&["_pq_.a", "_pq_.b"]),
            b"v\0\0\0\x1a\0\x03\0\x02\0\0\0\x02_pq_.a\0_pq_.b\0",
        ),
        (
            "welcome",
            welcome(&[], &[1, 2, 3, 4]),
            b"R\0\0\0\x08\0\0\0\0S\0\0\0\x18server_version\x0018.1\0S\0\0\0\x15TimeZone\0\
              Z\xc3\xbcrich\0S\0\0\0\x07x\0\0\
              K\0\0\0\x0c\x80\0\0\x01\x01\x02\x03\x04Z\0\0\0\x05I",
        ),
        (
            "a longer key",
            welcome(&[notice], &[7; 32]),
            b"R\0\0\0\x08\0\0\0\0S\0\0\0\x18server_version\x0018.1\0S\0\0\0\x15TimeZone\0\
              Z\xc3\xbcrich\0S\0\0\0\x07x\0\0\
              K\0\0\0(\x80\0\0\x01\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\
              \x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07N\0\0\0\x05\0\
              Z\0\0\0\x05I",
        ),
    ]);
}

/// Servers send parameters that are longer than libpq's bound for such a message.
#[test]
fn a_long_parameter_is_told_whole() {
    let value = "x".repeat(60_000);
    let long = [("search_path".to_owned(), value.clone())];
    let welcome = refusal::welcome(&long, &[], 1, &[0; 4]);
    let told = [&b"S\0\0\xea\x71search_path\0"[..], value.as_bytes(), b"\0K"].concat();
    assert!(welcome.as_bytes().windows(told.len()).any(|window| window == told));
}

#[test]
fn messages_to_a_target() {
    let query = |sql: &str| one(|out| to_target::query(out, sql));
    let parse =
        |name: &str, sql: &str, types: &[u32]| one(|out| to_target::parse(out, name, sql, types));
    hold(&[
        ("query", query("select 'ü'"), b"Q\0\0\0\x10select '\xc3\xbc'\0"),
        (
            "parse",
            parse("s", "select $1", &[23, 0xffff_ffff]),
            b"P\0\0\0\x1as\0select $1\0\0\x02\0\0\0\x17\xff\xff\xff\xff",
        ),
        ("no types", parse("", "", &[]), b"P\0\0\0\x08\0\0\0\0"),
        ("failing query", to_target::failing_query(), b"Q\0\0\0!portcullis refused a command\0"),
        (
            "failing parse",
            to_target::failing_parse(false),
            b"P\0\0\0@portcullis refused a command\0portcullis refused a command\0\0\0",
        ),
        (
            "failing unnamed parse",
            to_target::failing_parse(true),
            b"P\0\0\0$\0portcullis refused a command\0\0\0",
        ),
        ("describe", to_target::describe_portal("p"), b"D\0\0\0\x07Pp\0"),
        ("describe the unnamed", to_target::describe_portal(""), b"D\0\0\0\x06P\0"),
        (
            "copy fail",
            to_target::copy_fail(),
            b"f\0\0\x004portcullis: a message that is no COPY data came\0",
        ),
        ("flush", to_target::flush(), b"H\0\0\0\x04"),
        ("sync", to_target::syncs(1), b"S\0\0\0\x04"),
    ]);
}

#[test]
fn more_messages_to_a_target() {
    let one_name = |named| one(|out| to_target::describe(out, named));
    let close = |named| one(|out| to_target::close(out, named));
    let long_key = [&b"\0\0\0\x09"[..], &[7; 32]].concat();
    let cancel = |key: &[u8]| Bytes::copy_from_slice(&to_target::cancel_request(key).unwrap());
    let secret = |message: Result<to_target::SecretMessage, Unwritable>| {
        Bytes::copy_from_slice(message.unwrap().expose())
    };
    let startup =
        |version| to_target::startup_message(version, [("user", "ü"), ("a", "")]).unwrap();
    hold(&[
        ("bind", one(|out| to_target::bind(out, "p", "s")), b"B\0\0\0\x0ep\0s\0\0\0\0\0\0\0"),
        ("describe", one_name(Named::Statement("s")), b"D\0\0\0\x07Ss\0"),
        ("execute", one(|out| to_target::execute(out, "p")), b"E\0\0\0\x0ap\0\0\0\0\0"),
        ("close a statement", close(Named::Statement("s")), b"C\0\0\0\x07Ss\0"),
        ("close a portal", close(Named::Portal("p")), b"C\0\0\0\x07Pp\0"),
        ("syncs", to_target::syncs(2), b"S\0\0\0\x04S\0\0\0\x04"),
        ("no sync", to_target::syncs(0), b""),
        ("TLS", to_target::ssl_request(), b"\0\0\0\x08\x04\xd2\x16\x2f"),
        ("startup 3.0", startup(196_608), b"\0\0\0\x14\0\x03\0\0user\0\xc3\xbc\0a\0\0\0"),
        ("startup 3.2", startup(196_610), b"\0\0\0\x14\0\x03\0\x02user\0\xc3\xbc\0a\0\0\0"),
        ("cancel", cancel(b"\0\0\0\x09abcd"), b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x09abcd"),
        (
            "cancel by a longer key",
            cancel(&long_key),
            &[&b"\0\0\0\x2c\x04\xd2\x16\x2e"[..], &long_key].concat(),
        ),
        ("password", secret(to_target::password_message(b"s\xff")), b"p\0\0\0\x07s\xff\0"),
        (
            "SCRAM begins",
            secret(to_target::sasl_initial_response("SCRAM-SHA-256", b"n,,")),
            b"p\0\0\0\x19SCRAM-SHA-256\0\0\0\0\x03n,,",
        ),
        ("SCRAM goes on", secret(to_target::sasl_response(b"c=biws")), b"p\0\0\0\x0ac=biws"),
    ]);
}

#[test]
fn small_messages_to_a_client() {
    let ready = |status| to_client::bytes_of(|out| to_client::ready_for_query(out, status));
    let one = |write: fn(&mut BytesMut)| to_client::bytes_of(write);
    let types = |types| to_client::bytes_of(|out| to_client::parameter_description(out, types));
    let row = |values: &[Option<&'static [u8]>]| {
        let mut out = BytesMut::new();
        let each = values.iter().map(|value| Ok(value.map(Into::into)));
        to_client::data_row(&mut out, values.len(), each).unwrap();
        out.freeze()
    };
    let tag = to_client::bytes_of(|out| to_client::command_complete(out, "INSERT 0 3"));
    hold(&[
        ("idle", ready(TransactionStatus::Idle), b"Z\0\0\0\x05I"),
        ("in a transaction", ready(TransactionStatus::Open), b"Z\0\0\0\x05T"),
        ("in a failed one", ready(TransactionStatus::Failed), b"Z\0\0\0\x05E"),
        ("ParseComplete", one(to_client::parse_complete), b"1\0\0\0\x04"),
        ("BindComplete", one(to_client::bind_complete), b"2\0\0\0\x04"),
        ("CloseComplete", one(to_client::close_complete), b"3\0\0\0\x04"),
        ("NoData", one(to_client::no_data), b"n\0\0\0\x04"),
        ("PortalSuspended", one(to_client::portal_suspended), b"s\0\0\0\x04"),
        ("EmptyQueryResponse", one(to_client::empty_query_response), b"I\0\0\0\x04"),
        ("CommandComplete", tag, b"C\0\0\0\x0fINSERT 0 3\0"),
        ("no parameters", types(vec![]), b"t\0\0\0\x06\0\0"),
        ("parameters", types(vec![25, u32::MAX]), b"t\0\0\0\x0e\0\x02\0\0\0\x19\xff\xff\xff\xff"),
        (
            "DataRow",
            row(&[Some(b"7"), None, Some(b"")]),
            b"D\0\0\0\x13\0\x03\0\0\0\x017\xff\xff\xff\xff\0\0\0\0",
        ),
    ]);
    assert_eq!((to_client::ENCRYPTION_ACCEPTED, to_client::ENCRYPTION_REFUSED), (b'S', b'N'));
}

#[test]
fn a_nul_never_reaches_a_target() {
    let mut out = BytesMut::from(&b"before"[..]);
    let text = "select 1\0drop table t";
    for written in [
        to_target::query(&mut out, text),
        to_target::parse(&mut out, "s", text, &[]),
        to_target::parse(&mut out, text, "s", &[]),
        to_target::bind(&mut out, "p", text),
        to_target::bind(&mut out, text, "s"),
        to_target::describe(&mut out, Named::Portal(text)),
        to_target::execute(&mut out, text),
        to_target::close(&mut out, Named::Statement(text)),
        to_target::renamed(&mut out, b"P\0\0\0\x06no", &[Some("name")]),
        to_target::startup_message(196_608, [("a", text)]).map(drop),
        to_target::password_message(text.as_bytes()).map(drop),
        to_target::sasl_initial_response(text, b"").map(drop),
    ] {
        assert_eq!(written, Err(Unwritable));
    }
    assert_eq!(out, b"before"[..]);
}

#[test]
fn a_nul_never_reaches_a_client() {
    let parameter = to_client::bytes_of(|out| to_client::parameter_status(out, "a\0b", "\0c\0"));
    assert_eq!(parameter, b"S\0\0\0\x09ab\0c\0"[..]);
    let tag = to_client::bytes_of(|out| to_client::command_complete(out, "SELECT\0 1"));
    assert_eq!(tag, b"C\0\0\0\x0dSELECT 1\0"[..]);
    let report = to_client::bytes_of(|out| to_client::notice_response(out, [(b'M', "a\0Cb")]));
    assert_eq!(report, b"N\0\0\0\x0aMaCb\0\0"[..]);
}

#[test]
fn what_cannot_be_counted_is_not_written() {
    let mut out = BytesMut::from(&b"before"[..]);
    let most = vec![23; 65_535];
    to_target::parse(&mut out, "", "", &most).unwrap();
    assert_eq!(out[6..13], b"P\0\x04\0\x04\0\0"[..]);
    out.truncate(6);
    assert_eq!(to_target::parse(&mut out, "", "", &[most, vec![23]].concat()), Err(Unwritable));
    let values = std::iter::repeat_n(Ok(None), 65_536);
    assert!(to_client::data_row(&mut out, 65_536, values).is_err());
    let broken = [Ok(None), Err(Malformed("a row ends too early"))];
    assert!(to_client::data_row(&mut out, 2, broken).is_err());
    assert_eq!(framed(&mut out, b'x', |_| Err(TOO_LONG)), Err(TOO_LONG));
    assert_eq!(out, b"before"[..]);
}
