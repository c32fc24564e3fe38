//! The rows that are conversations, written out.

use std::time::{Duration, Instant};

use crate::support::talk::{Talk, bind, bind_as, describe, execute, parse, query, run, sync};
use crate::support::wire::{message, strings};

use super::{Plan, Stage};

type Script = fn(&Stage<'_>);

/// The conversation of a row.
pub fn of(id: &str) -> Option<Plan> {
    let script: Script = match id {
        "D11" => |stage| {
            let said = stage.talk().ask(&[query(&stage.row.sql)]);
            assert!(said.len() == 2 && said[0].starts_with("E[42"), "{said:?}");
            stage.is_intact();
        },
        "F25" => read_only_undone,
        "X01" => |stage| refused_at_start(stage, &[("user", "postgres")]),
        "X03" => |stage| {
            // It is decided like a SET, and texts are read by it from the first on.
            let mut talk = stage.start(&[("standard_conforming_strings", "off")]);
            assert_eq!(talk.until_ready(1).last().unwrap(), "ZI");
            let said = talk.ask(&[query(r"SELECT '\''; DROP TABLE orders; --'")]);
            assert!(said[0].starts_with("E[42501"), "{said:?}");
            let said = talk.ask(&[query(r"SELECT '\'; DROP TABLE orders; --'")]);
            assert!(said.contains(&"D['; DROP TABLE orders; --]".to_owned()), "{said:?}");
            stage.is_intact();
        },
        "X05" | "X07" => |stage| refused_at_start(stage, &[("replication", "database")]),
        "X57" => |stage| refused_at_start(stage, &[("client_encoding", "SJIS")]),
        "X08" => newer_protocol,
        "X10" => declared_too_long,
        "X12" => |stage| {
            let mut talk = Talk::silent(stage.site.gateway.address());
            talk.startup(131_072, &strings(&["user", "agent", ""]));
            assert!(!talk.until_end().iter().any(|line| line.starts_with('Z')));
        },
        "X21" => late_cancel,
        "X22" => |stage| bad_length(stage, 0x7fff_ffff, b""),
        "X24" => |stage| bad_length(stage, 0, b""),
        "X26" => |stage| bad_length(stage, 0x3fff_fff0, b"SELECT 1;"),
        "X28" => |stage| ends(stage, &message(b'Q', b"SELECT 1\0; DROP TABLE orders\0")),
        "X30" => |stage| ends(stage, &message(b'P', b"\0SELECT 1\0\0\0garbage")),
        "X32" => segments,
        "X34" => |stage| {
            let sql = format!("SELECT length('{}')", "x".repeat(10_000_000));
            let said = stage.talk().ask(&[query(&sql)]);
            assert_eq!(said, ["T(1)", "D[10000000]", "C[SELECT 1]", "ZI"]);
        },
        "X35" | "X37" | "X39" | "X41" | "X43" | "X45" | "X47" => nested,
        "X50" => columns,
        "X53" => |stage| other_encoding(stage, "SJIS"),
        "X55" => |stage| other_encoding(stage, "GBK"),
        "X59" | "X61" => |stage| other_encoding(stage, "LATIN1"),
        "X62" => |stage| {
            let sql = r"SET standard_conforming_strings=off; SELECT '\''; DROP TABLE orders; --'";
            let said = stage.talk().ask(&[query(sql)]);
            assert!(said.contains(&"C[SELECT 1]".to_owned()), "{said:?}");
            stage.is_intact();
        },
        "X64" => |stage| {
            let said = stage.talk().ask(&[
                run("select set_config('standard_conforming_strings','off',false)"),
                run(r"DELETE FROM orders WHERE note='\'' OR id>0 --'"),
                sync(),
            ]);
            assert!(said.iter().any(|line| line.starts_with("E[42501")), "{said:?}");
            stage.is_intact();
        },
        "X66" => local_setting,
        "X71" => values,
        "X73" => |stage| {
            let said = stage.talk().ask(&[parse("", "SELECT 1; DROP TABLE orders"), sync()]);
            assert!(said.len() == 2 && said[0].starts_with("E[42"), "{said:?}");
            stage.is_intact();
        },
        "X75" => |stage| {
            let drop = run("DROP TABLE orders");
            let said = stage.talk().ask(&[run("SELEC 1"), drop, sync()]);
            assert!(said.len() == 2 && said[0].starts_with("E[42") && said[1] == "ZI", "{said:?}");
            stage.is_intact();
        },
        "X83" => |stage| {
            let mut talk = stage.talk();
            talk.ask(&[parse("", "SELECT 2"), sync()]);
            talk.ask(&[query("SELECT 1")]);
            let said = talk.ask(&[bind("", "", &[]), execute(""), sync()]);
            assert!(said[0].starts_with("E[26000") && said[1] == "ZI", "{said:?}");
        },
        "X85" => |stage| {
            let mut talk = stage.talk();
            talk.ask(&[parse("", "SELECT 2"), bind("pp", "", &[]), sync()]);
            let said = talk.ask(&[execute("pp"), sync()]);
            assert!(said[0].starts_with("E[34000") && said[1] == "ZI", "{said:?}");
        },
        "X87" => |stage| {
            assert_eq!(stage.talk().ask(&[sync(), sync(), sync()]), ["ZI", "ZI", "ZI"]);
        },
        "X89" => many_values,
        "X91" => |stage| {
            let mut talk = stage.talk();
            talk.ask(&[query("BEGIN")]);
            let said = talk.ask(&[query("DROP TABLE orders")]);
            assert!(said[0].starts_with("E[42501") && said[1] == "ZE", "{said:?}");
            let said = talk.ask(&[query("SELECT 1")]);
            assert!(said[0].starts_with("E[25P02") && said[1] == "ZE", "{said:?}");
            assert_eq!(talk.ask(&[query("COMMIT")]), ["C[ROLLBACK]", "ZI"]);
        },
        "X93" => |stage| {
            let mut talk = stage.talk();
            talk.ask(&[parse("s1", "SELECT id FROM v_same"), sync()]);
            let sql = "CREATE OR REPLACE VIEW v_same AS SELECT id, ssn AS name FROM customers";
            let said = talk.ask(&[query(sql)]);
            assert!(said.iter().any(|line| line.starts_with("E[42501")), "{said:?}");
            stage.is_intact();
        },
        "X95" => |stage| {
            let sql = "SELECT email FROM customers";
            let said = stage.talk().ask(&[parse("", sql), describe(b'S', ""), sync()]);
            assert_eq!(said, ["1", "t", "T(1)", "ZI"]);
        },
        "X97" => |stage| {
            let said = stage.talk().ask(&[message(b'F', &[0, 0, 12, 86, 0, 0, 0, 0, 0, 0])]);
            assert!(said[0].starts_with("E[0A000") && said[1] == "ZI", "{said:?}");
        },
        "X99" => |stage| {
            let mut talk = stage.talk();
            let rows = [message(b'd', b"1\ta@b.example\n"), message(b'c', b"")].concat();
            let said = talk.ask(&[query("COPY vendors FROM STDIN"), rows]);
            assert_eq!(said.last().unwrap(), "ZI");
            assert!(said.contains(&"C[COPY 1]".to_owned()), "{said:?}");
        },
        "X101" => |stage| {
            let said = stage.talk().ask(&[
                query("COPY nosuch FROM STDIN"),
                message(b'd', b"1\n"),
                message(b'c', b""),
                query("DROP TABLE orders"),
            ]);
            assert!(said[0].starts_with("E[42P01") && said[2].starts_with("E[42501"), "{said:?}");
            stage.is_intact();
        },
        "X103" => |stage| {
            let mut talk = stage.talk();
            let rows = [message(b'd', b"1\t2\n"), message(b'c', b"")].concat();
            let said = talk.ask(&[query("COPY vendors FROM STDIN; DROP TABLE orders"), rows]);
            assert!(said.len() == 2 && said[0].starts_with("E[42501"), "{said:?}");
            assert_eq!(talk.ask(&[query("SELECT 1")])[1], "D[1]");
            stage.is_intact();
        },
        "X108" => settings_rolled_back,
        "X109" => client_gone,
        "X111" => |stage| {
            let mut first = stage.talk();
            first.ask(&[query("SET my.v = 'mine'; SELECT pg_advisory_lock(7); BEGIN")]);
            drop(first);
            let sql = "SELECT current_setting('my.v', true), pg_try_advisory_lock(8)";
            assert_eq!(stage.talk().ask(&[query(sql)])[1], "D[NULL|t]");
        },
        "G31" => |stage| {
            // Half-open connections hold up nobody.
            let address = stage.site.gateway.address();
            let idle: Vec<_> = (0..200).map(|_| Talk::silent(address)).collect();
            assert_eq!(stage.talk().ask(&[query("SELECT 1")])[1], "D[1]");
            drop(idle);
        },
        _ => return masked(id),
    };
    Some(Plan::Script(script))
}

/// Conversations in which something is masked.
fn masked(id: &str) -> Option<Plan> {
    let script: Script = match id {
        "X67" => |stage| {
            let mut talk = stage.talk();
            let said = talk.ask(&[run("SELECT email AS x FROM customers ORDER BY id"), sync()]);
            assert_eq!(said.iter().filter(|line| line.starts_with("D[")).count(), 4, "{said:?}");
            shows_nothing(&talk);
        },
        "X69" => |stage| {
            let mut talk = stage.talk();
            let said = talk.ask(&[
                parse("", "SELECT email, id FROM customers ORDER BY id"),
                describe(b'S', ""),
                bind_as("", "", &[], &[0, 1]),
                execute(""),
                sync(),
            ]);
            assert!(said.iter().any(|line| line.ends_with("|\0\0\0\u{1}]")), "{said:?}");
            shows_nothing(&talk);
        },
        "X77" => |stage| {
            let mut talk = stage.talk();
            let email = parse("s1", "SELECT email AS x FROM customers");
            talk.ask(&[email, sync()]);
            let said = talk.ask(&[parse("s1", "SELECT 1"), sync()]);
            assert!(said[0].starts_with("E[42P05"), "{said:?}");
            let said = talk.ask(&[bind("", "s1", &[]), execute(""), sync()]);
            assert!(said.contains(&"C[SELECT 4]".to_owned()), "{said:?}");
            shows_nothing(&talk);
        },
        "X79" => |stage| {
            let mut talk = stage.talk();
            talk.ask(&[parse("s2", "SELECT email AS x FROM customers"), sync()]);
            let said = talk.ask(&[query("EXECUTE s2")]);
            assert!(said.contains(&"C[SELECT 4]".to_owned()), "{said:?}");
            shows_nothing(&talk);
        },
        "X81" => |stage| {
            let mut talk = stage.talk();
            talk.ask(&[query("BEGIN")]);
            talk.ask(&[query("DECLARE cu CURSOR FOR SELECT email AS x FROM customers")]);
            talk.ask(&[execute("cu"), sync()]);
            shows_nothing(&talk);
        },
        "X106" => |stage| {
            let mut talk = stage.talk();
            talk.ask(&[query("LISTEN ch")]);
            let mut other = stage.direct(&stage.database);
            other.ask(&[query("SELECT pg_notify('ch', email) FROM customers WHERE id = 1")]);
            talk.ask(&[query("SELECT 1")]);
            shows_nothing(&talk);
        },
        "G16" => longer_rows,
        "G25" => return Some(Plan::StrictScript(many_candidates)),
        // The whole store is looked through once everything has run.
        "G26" => |_| {},
        _ => return None,
    };
    Some(Plan::Script(script))
}

/// What is masked may be longer than it was; what is too long to be masked is not passed.
fn longer_rows(stage: &Stage<'_>) {
    let row = "INSERT INTO customers VALUES (90, 'Ann', 'e', 's', 'c')";
    stage.direct(&stage.database).ask(&[query(row)]);
    let columns = vec!["email, ssn, card_number"; 500].join(", ");
    let sql = format!("SELECT {columns} FROM customers WHERE id = 90");
    let expected = format!("D[{}]", vec!["[masked]"; 1_500].join("|"));
    for formats in [&[0], &[1]] {
        let asked = [parse("", &sql), bind_as("", "", &[], formats), execute(""), sync()];
        assert!(stage.talk().ask(&asked).contains(&expected), "{formats:?}");
    }
    let said = stage.talk().ask(&[query("SELECT repeat('x', 70000000)")]);
    assert!(!said.iter().any(|line| line.starts_with("D[")), "a row of 70 MB passes");
    assert_eq!(stage.talk().ask(&[query("SELECT 1")])[1], "D[1]");
}

/// Values in which every byte could begin what a pattern looks for.
fn many_candidates(stage: &Stage<'_>) {
    let mut talk = stage.talk();
    for (text, count) in [("a@", 25_000_000), ("1", 1_000_000)] {
        let begun = Instant::now();
        let said = talk.ask(&[query(&format!("SELECT repeat('{text}', {count})"))]);
        let took = begun.elapsed();
        assert!(said.contains(&"C[SELECT 1]".to_owned()), "{text}: {took:?}");
        // A machine that does other work, and a build without optimisation.
        assert!(took < Duration::from_secs(120), "{text}: {took:?}");
        println!("{count} of {text}: {took:?}");
    }
}

fn shows_nothing(talk: &Talk) {
    let told = String::from_utf8_lossy(talk.received()).into_owned();
    for sentinel in super::judge::SENTINELS {
        assert!(!told.contains(sentinel), "{sentinel}: {told}");
    }
}

fn refused_at_start(stage: &Stage<'_>, more: &[(&str, &str)]) {
    let said = stage.start(more).until_end();
    assert!(said.iter().any(|line| line.starts_with("E[")), "{said:?}");
    assert!(!said.iter().any(|line| line.starts_with('Z')), "{said:?}");
}

/// Sends bytes that end the session with an error, and nothing else.
fn ends(stage: &Stage<'_>, bytes: &[u8]) {
    let mut talk = stage.talk();
    talk.send(bytes);
    let said = talk.until_end();
    assert!(said.len() == 1 && said[0].starts_with("E[08P01"), "{said:?}");
    stage.is_intact();
}

fn bad_length(stage: &Stage<'_>, length: u32, body: &[u8]) {
    ends(stage, &[&b"Q"[..], &length.to_be_bytes(), body].concat());
}

fn read_only_undone(stage: &Stage<'_>) {
    // The rule names the setting, so it is refused at the start as well.
    refused_at_start(stage, &[("options", "-c default_transaction_read_only=on")]);
    let mut talk = stage.talk();
    let said = talk.ask(&[query("SET default_transaction_read_only=off")]);
    assert!(said[0].starts_with("E[42501"), "{said:?}");
    stage.is_intact();
}

fn newer_protocol(stage: &Stage<'_>) {
    let mut talk = Talk::silent(stage.site.gateway.address());
    let database = format!("{}/{}", stage.row.role, stage.database);
    let parameters = strings(&["user", "agent", "database", &database, "_pq_.foo", "1", ""]);
    talk.startup(0x0003_270f, &parameters);
    talk.send(&message(b'p', &strings(&[&stage.site.token])));
    let said = talk.until_ready(1);
    assert!(said.contains(&"v".to_owned()) && said.last().unwrap() == "ZI", "{said:?}");
    assert!(talk.received().windows(8).any(|bytes| bytes == b"_pq_.foo"));
}

fn declared_too_long(stage: &Stage<'_>) {
    for length in [10_001_u32, 0x7fff_ffff] {
        let mut talk = Talk::silent(stage.site.gateway.address());
        let begun = Instant::now();
        talk.send(&[length.to_be_bytes(), 196_608_u32.to_be_bytes()].concat());
        assert!(!talk.until_end().iter().any(|line| line.starts_with('Z')));
        assert!(begun.elapsed() < Duration::from_secs(10), "it is waited for");
    }
}

fn late_cancel(stage: &Stage<'_>) {
    let mut talk = stage.talk();
    let key = crate::support::wire::messages(talk.received())
        .find(|message| message[0] == b'K')
        .map(|message| message[5..].to_vec())
        .unwrap();
    let length = u32::try_from(key.len() + 8).unwrap().to_be_bytes();
    let request = [&length[..], &80_877_102_u32.to_be_bytes(), &key].concat();
    let mut cancel = Talk::silent(stage.site.gateway.address());
    cancel.send(&request);
    cancel.until_end();
    for _ in 0..3 {
        assert_eq!(talk.ask(&[query("SELECT 1")])[1], "D[1]");
    }
}

fn segments(stage: &Stage<'_>) {
    let mut talk = stage.talk();
    let three = [query("SELECT 1"), query("SELECT 2"), query("SELECT 3")].concat();
    let (first, second) = three.split_at(three.len() - 5);
    talk.send(first);
    let said = talk.until_ready(2);
    assert_eq!(said.iter().filter(|line| line.starts_with("D[")).count(), 2, "{said:?}");
    talk.send(second);
    assert_eq!(talk.until_ready(1)[1], "D[3]");
}

fn nested(stage: &Stage<'_>) {
    let repeated = |count: usize, open: &str, middle: &str, close: &str| {
        format!("SELECT {}{middle}{}", open.repeat(count), close.repeat(count))
    };
    let sql = match stage.row.id {
        "X35" => repeated(10_000, "(", "1", ")"),
        "X37" => repeated(10_000, "NOT ", "true", ""),
        "X39" => repeated(100_000, "true AND ", "true", ""),
        "X41" => repeated(2_000, "(SELECT ", "1", ")"),
        "X43" => repeated(5_000, "ARRAY[", "1", "]"),
        "X45" => repeated(20_000, "/*", "", "*/") + " 1",
        _ => format!("SELECT 1 WHERE 1 IN ({}1)", "1,".repeat(200_000)),
    };
    let mut talk = stage.talk();
    let begun = Instant::now();
    let said = talk.ask(&[query(&sql)]);
    let took = begun.elapsed();
    assert_eq!(said.last().unwrap(), "ZI", "{said:?}");
    // A machine that does other work, and a build without optimisation.
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_eq!(talk.ask(&[query("SELECT 1")])[1], "D[1]");
}

fn columns(stage: &Stage<'_>) {
    let mut talk = stage.talk();
    let of = |count: usize| format!("SELECT {}", vec!["1"; count].join(","));
    let said = talk.ask(&[query(&of(1_664))]);
    assert_eq!(said[0], "T(1664)");
    let said = talk.ask(&[query(&of(1_665))]);
    assert!(said[0].starts_with("E[54011") && said[1] == "ZI", "{said:?}");
}

/// The encoding stays UTF-8: the session ends before another statement is read.
fn other_encoding(stage: &Stage<'_>, encoding: &str) {
    let mut talk = stage.talk();
    talk.send(&query(&format!("SET client_encoding={encoding}")));
    talk.send(&message(b'Q', b"SELECT E'\x95\x5c'; DROP TABLE orders; --'\0"));
    let said = talk.until_end();
    assert!(said.last().unwrap().starts_with("E["), "{said:?}");
    assert!(!said.iter().any(|line| line.starts_with("C[DROP")), "{said:?}");
    stage.is_intact();
}

fn local_setting(stage: &Stage<'_>) {
    let sql = "CREATE FUNCTION g() RETURNS int LANGUAGE sql \
               SET standard_conforming_strings=off AS 'select 1'";
    let mut talk = stage.talk();
    let said = talk.ask(&[query(sql)]);
    assert!(said.iter().any(|line| line.starts_with("E[42501")), "{said:?}");
    stage.direct(&stage.database).ask(&[query(sql)]);
    assert_eq!(talk.ask(&[query("SELECT g()")])[1], "D[1]");
    let said = talk.ask(&[query(r"SELECT '\''; DROP TABLE orders; --'")]);
    assert_eq!(said[1], r"D[\'; DROP TABLE orders; --]");
    assert_eq!(stage.sees("select count(*) from orders"), "10");
}

fn values(stage: &Stage<'_>) {
    let mut messages = vec![parse("s1", "UPDATE orders SET total=0 WHERE id=$1")];
    for id in ["1", "2", "3"] {
        messages.extend([bind("", "s1", &[id]), execute("")]);
    }
    messages.push(sync());
    let said = stage.talk().ask(&messages);
    assert_eq!(said.iter().filter(|line| *line == "C[UPDATE 1]").count(), 3, "{said:?}");
}

fn many_values(stage: &Stage<'_>) {
    let numbers: Vec<String> = (1..=65_535).map(|n| (n + 100).to_string()).collect();
    let places: Vec<String> = (1..=65_535).map(|n| format!("${n}")).collect();
    let sql = format!("SELECT id FROM orders WHERE id IN ({})", places.join(","));
    let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
    let mut talk = stage.talk();
    let said = talk.ask(&[parse("", &sql), bind("", "", &numbers), execute(""), sync()]);
    assert_eq!(said, ["1", "2", "C[SELECT 0]", "ZI"]);
}

fn settings_rolled_back(stage: &Stage<'_>) {
    let mut talk = stage.talk();
    let said = talk.ask(&[query("BEGIN; SET standard_conforming_strings=off")]);
    assert!(said.contains(&"S[standard_conforming_strings=off]".to_owned()), "{said:?}");
    let said = talk.ask(&[query(r"SELECT '\'; SELECT 1; --'; DROP TABLE orders; --'")]);
    assert!(said[0].starts_with("E[42501"), "{said:?}");
    assert!(said.contains(&"S[standard_conforming_strings=on]".to_owned()), "{said:?}");
    talk.ask(&[query("ROLLBACK")]);
    let said = talk.ask(&[query(r"SELECT '\'; DROP TABLE orders; --'")]);
    assert!(said[0].starts_with("E[42501"), "{said:?}");
    stage.is_intact();
}

/// A statement does not outlive the client that asked for it.
fn client_gone(stage: &Stage<'_>) {
    let mut talk = stage.talk();
    let slow = "SELECT count(*) FROM generate_series(1, 2000000000) /* abandoned */";
    talk.send(&query(slow));
    let running = "select count(*) from pg_stat_activity \
                   where state = 'active' and query like '%2000000000)%' and pid <> pg_backend_pid()";
    crate::support::postgres::wait("the statement", || stage.sees(running) == "1");
    drop(talk);
    crate::support::postgres::wait("its end", || stage.sees(running) == "0");
}
