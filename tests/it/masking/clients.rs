//! Drivers of every kind: none gets what is masked, in either format, described or not.

use std::process::Command;

use super::{MASKS, Masked, SENTINELS};
use crate::support::client::{Client, transcript};
use crate::support::wire::{Session, Wire, messages};

#[test]
fn drivers_get_masks_of_the_columns_types() {
    let masked = Masked::new(MASKS);
    for program in ["masked_psycopg.py", "masked_asyncpg.py"] {
        let (succeeded, said) = transcript(masked.gateway.client("orders").python(program));
        assert!(succeeded, "{program}\n{said}");
        for sentinel in SENTINELS {
            assert!(!said.contains(sentinel), "{program}\n{said}");
        }
    }
    masked.finish(SENTINELS);
}

#[test]
fn a_statement_that_nobody_describes_is_masked() {
    let masked = Masked::new(MASKS);
    let token = masked.gateway.issuer().token("agent");
    let session = Session::of_many_messages("agent", "orders", &token);
    let message = |tag: u8, body: &[u8]| {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[tag][..], &length, body].concat()
    };
    let sql = b"select id, email, ssn::bytea, upper(email) from customers where id < 3\0";
    let script = [
        message(b'P', &[&b"s\0"[..], sql, b"\0\0"].concat()),
        // One portal in both formats, fetched row by row, and again.
        message(b'B', b"p\0s\0\0\0\0\0\0\x04\0\x01\0\0\0\x01\0\x01"),
        message(b'E', b"p\0\0\0\0\x01"),
        message(b'E', b"p\0\0\0\0\x01"),
        message(b'E', b"p\0\0\0\0\0"),
        message(b'S', b""),
        // Described as a statement, whose formats say nothing.
        message(b'D', b"Ss\0"),
        message(b'B', b"\0s\0\0\0\0\0\0\x01\0\x01"),
        message(b'E', b"\0\0\0\0\0"),
        message(b'S', b""),
        message(b'X', b""),
    ];
    let mut wire = Wire::connect(masked.gateway.address());
    wire.send(&session.startup);
    wire.read_to(b'R');
    wire.send(&session.password);
    wire.read_to(b'Z');
    wire.send(&script.concat());
    wire.read_to_end();
    let rows: Vec<_> = messages(&wire.received).filter(|m| m[0] == b'D').collect();
    assert_eq!(rows.len(), 4, "{}", String::from_utf8_lossy(&wire.received));
    for row in rows {
        for sentinel in SENTINELS {
            assert!(!super::contains(row, sentinel), "{}", String::from_utf8_lossy(row));
        }
        assert!(super::contains(row, "***@example.com"));
    }
    let described = messages(&wire.received).filter(|m| m[0] == b'T').count();
    assert_eq!(described, 1, "the client sees the one that it asked for");
    masked.finish(SENTINELS);
}

#[test]
fn ordinary_traffic_says_the_same_under_masks() {
    let masked = Masked::new(MASKS);
    let (direct, through) = (masked.database.client(), masked.gateway.client("orders"));
    let psql = |client: &Client| {
        let mut psql = client.psql();
        for command in [
            r"\d",
            r"\d customers",
            r"\d+ v_same",
            r"\dt+ orders",
            r"\dv",
            r"\df",
            r"\dn+",
            r"\dp",
            r"\dx",
            r"\sf get_contact",
            r"\dT",
            r"\di",
            r"\ds",
            r"\dP",
            r"\conninfo_not",
        ] {
            psql.args(["-c", command]);
        }
        psql.args(["-v", "ON_ERROR_STOP=0"]);
        psql
    };
    let dump = |client: &Client| {
        let mut dump = client.postgres_program("pg_dump");
        dump.args(["--schema-only", "--restrict-key=same"]);
        dump
    };
    let reflection = |client: &Client| client.python("masked_reflection.py");
    let programs: [&dyn Fn(&Client) -> Command; 3] = [&psql, &dump, &reflection];
    for program in programs {
        let (_, expected) = transcript(program(&direct));
        let (_, found) = transcript(program(&through));
        assert!(expected.lines().count() > 20, "{expected}");
        assert_eq!(expected, found);
    }
    masked.finish(&["alice.secret", "078-05-1120"]);
}

#[test]
fn values_keep_their_types_in_both_formats() {
    let masked =
        Masked::new("[[mask]]\nname = \"all\"\ncolumns = [\"public.typed.*\"]\nwith = \"hash\"\n");
    let (succeeded, said) = transcript(masked.gateway.client("orders").python("masked_types.py"));
    assert!(succeeded, "{said}");
    masked.finish(&["sentinel", "73656e74696e656c"]);
}
