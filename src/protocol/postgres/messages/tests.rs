//! The bytes of every message that the gateway writes, as literals: whatever writes them, what is on
//! the wire stays the same.

use std::time::Duration;

use bytes::Bytes;

use super::super::refusal::{self, Objection, Refusal};
use crate::decode::sql::{SyntaxError, Unparsed};
use crate::names::SessionId;

fn session() -> SessionId {
    "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap()
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
    use crate::decode::postgres::frontend::{parse_message, query_message};
    hold(&[
        ("query", query_message("select 'ü'").into(), b"Q\0\0\0\x10select '\xc3\xbc'\0"),
        (
            "parse",
            parse_message("s", "select $1", &[23, 0xffff_ffff]).into(),
            b"P\0\0\0\x1as\0select $1\0\0\x02\0\0\0\x17\xff\xff\xff\xff",
        ),
        ("no types", parse_message("", "", &[]).into(), b"P\0\0\0\x08\0\0\0\0"),
        ("failing query", refusal::failing_query(), b"Q\0\0\0!portcullis refused a command\0"),
        (
            "failing parse",
            refusal::failing_parse(false),
            b"P\0\0\0@portcullis refused a command\0portcullis refused a command\0\0\0",
        ),
        (
            "failing unnamed parse",
            refusal::failing_parse(true),
            b"P\0\0\0$\0portcullis refused a command\0\0\0",
        ),
        ("describe", refusal::describe_portal("p"), b"D\0\0\0\x07Pp\0"),
        ("describe the unnamed", refusal::describe_portal(""), b"D\0\0\0\x06P\0"),
        (
            "copy fail",
            refusal::copy_fail(),
            b"f\0\0\x004portcullis: a message that is no COPY data came\0",
        ),
        ("flush", Bytes::from_static(refusal::FLUSH), b"H\0\0\0\x04"),
        ("sync", Bytes::from_static(refusal::SYNC), b"S\0\0\0\x04"),
    ]);
}
