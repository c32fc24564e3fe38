//! What neither side's protocol has: nothing of it passes, and the session ends.

use super::{POLICY, Proxy, Shop, has};
use crate::support::gateway::{Gateway, Setup};
use crate::support::talk::{Talk, bind, describe, execute, parse, query, sync};
use crate::support::wire::{message, strings};

/// Masks of columns, of patterns, and none.
const POLICIES: [&str; 3] = ["", "[[mask]]\nname = \"m\"\npatterns = [\"email\"]\n", POLICY];

#[test]
fn what_a_client_sends_that_the_protocol_has_not_ends_the_session() {
    let shop = Shop::open();
    // A value that is neither text nor binary, and a result that is to be neither.
    let bound = |value: u8, result: u8| {
        let body = [
            &strings(&["", ""])[..],
            &[0, 1, 0, value, 0, 1, 0, 0, 0, 1, b'1'],
            &[0, 1, 0, result],
        ];
        message(b'B', &body.concat())
    };
    let prepared = parse("", "select $1::text");
    let unknown = [b'z', b'W', b'V', b'R', b'Z', 0, 0xff].map(|tag| message(tag, b"stolen\0"));
    let mut cases = unknown.to_vec();
    cases.push(message(b'p', b"password\0"));
    cases.push([prepared.clone(), bound(2, 0), sync()].concat());
    cases.push([prepared.clone(), bound(0, 7), sync()].concat());
    cases.push([prepared, message(b'D', b"X\0"), sync()].concat());
    cases.push([message(b'C', b"X\0"), sync()].concat());
    for (at, case) in cases.into_iter().enumerate() {
        let mut talk = shop.talk();
        talk.send(&case);
        let said = talk.until_end();
        assert!(said.last().is_some_and(|last| last.starts_with("E[08P01")), "{at}: {said:?}");
        assert!(!said.iter().any(|line| line.starts_with("D[")), "{at}: {said:?}");
    }
    assert!(shop.gateway.stop().success());
    shop.gateway.verify_all();
}

#[test]
fn what_a_server_sends_that_the_protocol_has_not_ends_the_session() {
    let shop = Shop::open();
    let row = message(b'D', b"\0\x01\0\0\0\x06stolen");
    // A column of format 7; a status of the transaction that is none; a row of two values; a COPY
    // that is neither text nor binary.
    let odd = message(b'T', b"\0\x01x\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\x07");
    let pair = message(b'D', b"\0\x02\0\0\0\x06stolen\0\0\0\x06stolen");
    let mut cases: Vec<(String, u8, Vec<u8>)> = vec![
        ("a format".to_owned(), b'T', [odd, row.clone()].concat()),
        ("a status".to_owned(), b'Z', message(b'Z', b"X")),
        ("a row of another shape".to_owned(), b'D', pair),
        ("an error without an end".to_owned(), b'C', message(b'E', b"SERROR\0Mstolen")),
    ];
    for tag in [b'W', b'V', b'R', b'K', b'v', b'y', 0, 0xff] {
        let what = format!("a message of kind {tag:#x}");
        cases.push((what, b'C', [message(tag, b"\0\0\0\0stolen"), row.clone()].concat()));
    }
    for (what, tag, instead) in cases {
        let given = instead.clone();
        let proxy = Proxy::start(shop.database.port, "inject", move |message| {
            if message[0] == tag { given.clone() } else { message.to_vec() }
        });
        for policy in POLICIES {
            // Nobody looks into what nothing is masked in.
            let plain = match &*what {
                "a format" => policy.is_empty(),
                "a row of another shape" => !policy.contains("patterns"),
                _ => false,
            };
            if plain {
                continue;
            }
            let gateway = Gateway::start(&Setup {
                policy: policy.to_owned(),
                ..Setup::for_targets([shop.target(proxy.port())])
            });
            let token = gateway.issuer().token("agent");
            let prepared = [parse("", "select 'inject'"), bind("", "", &[]), describe(b'P', "")];
            let prepared = [&prepared[..], &[execute(""), sync()]].concat().concat();
            for asked in [query("select 'inject'"), prepared] {
                let mut talk = Talk::opened(gateway.address(), "agent", "orders", &token);
                talk.send(&asked);
                let said = talk.until_end();
                let last = said.last().unwrap();
                assert!(last.starts_with("E[08"), "{what}: {said:?}");
                assert!(!has(&said, "stolen"), "{what}: {said:?}");
            }
        }
    }
}

#[test]
fn a_first_packet_of_unknown_kind_is_asked_for_no_password() {
    let shop = Shop::open();
    let parameters = strings(&["user", "agent", "database", "orders", ""]);
    let unknown = [0, 1, 0x0002_0000, 0x0004_0000, 0x04d2_162a, 0x04d2_1631, u32::MAX];
    for version in unknown {
        let mut talk = Talk::silent(shop.gateway.address());
        talk.startup(version, &parameters);
        let said = talk.until_end();
        assert!(!said.iter().any(|line| line.starts_with('R')), "{version:#x}: {said:?}");
        assert!(said.iter().all(|line| line.starts_with("E[08P01")), "{version:#x}: {said:?}");
    }
    let mut talk = shop.talk();
    assert!(has(&talk.ask(&[query("select 1")]), "D[1]"), "others are served");
}
