//! Postgres: the gateway's belief of the conversation against the server's.

mod proxy;
mod streams;
mod unknown;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use proxy::Proxy;

use crate::approval::ask_with;
use crate::support::client::{Database, transcript};
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup, Target};
use crate::support::postgres::PostgresServer;
use crate::support::talk::{Talk, bind, close, describe, execute, parse, query, run, sync};
use crate::support::wire::{message, strings};

const WEB: &str =
    "web = \"127.0.0.1:0\"\n[web]\nauditors = [\"security\"]\nadmins = [\"platform\"]";

/// Updates of orders wait, and two columns of customers are masked.
const POLICY: &str = r#"
[[rule]]
name = "updates-wait"
actions = ["sql.update"]
verdict = "approve"
approvers = ["dba"]
timeout = "60s"

[[mask]]
name = "people"
columns = ["public.customers.email", "public.customers.ssn"]
"#;

const SCHEMA: &str = "create table orders (id int primary key, status text);
    insert into orders values (1, 'new'), (2, 'new');
    create table customers (id int, email text, ssn text, note text);
    insert into customers values (1, 'alice.secret', '078-05-1120', 'n1'), (2, 'bob.secret', '219-09-9999', 'n2');
    create table empty_t (t int);
    create view shown as select 1 as a";

const UPDATE: &str = "update orders set status = 'paid' where id = 1";

/// A shop, and a gateway before it.
struct Shop {
    database: Database,
    gateway: Gateway,
}

impl Shop {
    fn open() -> Self {
        let database = Database::fresh();
        let mut psql = database.client().psql();
        let (made, said) = transcript({
            psql.args(["-c", SCHEMA]);
            psql
        });
        assert!(made, "{said}");
        let gateway = Gateway::start(&Setup {
            listen: WEB.to_owned(),
            policy: POLICY.to_owned(),
            ..Setup::for_targets([database.target("orders")])
        });
        gateway.daemon().wait_for_log("state is read");
        Self { database, gateway }
    }

    fn talk(&self) -> Talk {
        let token = self.gateway.issuer().token("agent");
        Talk::opened(self.gateway.address(), "agent", "orders", &token)
    }

    /// Its database, by somebody between.
    fn target(&self, port: u16) -> Target {
        Target { port, ..self.database.target("orders") }
    }

    /// How the order stands, asked past the gateway.
    fn status(&self) -> String {
        let server = &PostgresServer::shared().server;
        server.psql(&self.database.name, "select string_agg(status, ' ' order by id) from orders")
    }

    /// Requests that people were asked.
    fn requests(&self, state: &str) -> usize {
        let token = self.gateway.issuer().token("anna");
        let (status, page) =
            ask_with(&self.gateway, &token, "GET", &format!("/approvals{state}"), "");
        assert_eq!(status, 200, "{page}");
        page["items"].as_array().unwrap().len()
    }

    /// Denies what waits, once something does.
    fn deny(&self) {
        let token = self.gateway.issuer().token("anna");
        let mut id = None;
        wait_until("a request", || {
            let (_, page) = ask_with(&self.gateway, &token, "GET", "/approvals?state=pending", "");
            id = page["items"][0]["id"].as_str().map(str::to_owned);
            id.is_some()
        });
        let path = format!("/approvals/{}/deny", id.unwrap());
        assert_eq!(ask_with(&self.gateway, &token, "POST", &path, r#"{"comment": "no"}"#).0, 200);
    }

    /// Asks for what must wait, and denies it; what the client is told.
    fn ask_and_deny(&self, talk: &mut Talk, sent: &[Vec<u8>]) -> Vec<String> {
        thread::scope(|scope| {
            let said = scope.spawn(|| talk.ask(sent));
            self.deny();
            said.join().unwrap()
        })
    }
}

fn copy_data(text: &str) -> Vec<u8> {
    message(b'd', text.as_bytes())
}

fn has(said: &[String], part: &str) -> bool {
    said.iter().any(|line| line.contains(part))
}

#[test]
fn p01_names_are_cut_where_the_server_cuts_them() {
    let shop = Shop::open();
    let long = |prefix: &str, end: &str| format!("{prefix}{end}");
    let multibyte = "é".repeat(31) + "n";
    for (prefix, one, other) in [
        ("n".repeat(63), "a", "b"),
        // The cut falls within a character: both names have its first byte.
        ("é".repeat(31), "é", "è"),
        (multibyte.clone(), "a", "ü"),
    ] {
        let (a, b) = (long(&prefix, one), long(&prefix, other));
        let mut talk = shop.talk();
        let said = talk.ask(&[parse(&a, "select 1"), close(b'S', &b), parse(&b, UPDATE), sync()]);
        assert_eq!(said, ["1", "3", "1", "ZI"], "the server takes both for one");
        let sent = [bind("", &a, &[]), execute(""), sync()];
        let said = shop.ask_and_deny(&mut talk, &sent);
        assert!(has(&said, "denied by anna"), "{said:?}");
        // SQL's own names are cut between characters, by the server's lexer.
        let said = talk.ask(&[query(&format!("deallocate \"{a}\""))]);
        let cut_between = prefix.is_ascii() || prefix == multibyte;
        assert_eq!(has(&said, "DEALLOCATE"), cut_between, "{said:?}");
    }
    // Portals have names of the same kind.
    let (a, b) = ("p".repeat(64), "p".repeat(63));
    let mut talk = shop.talk();
    talk.ask(&[query("begin")]);
    let said = talk.ask(&[
        parse("one", "select 1"),
        parse("two", UPDATE),
        bind(&a, "one", &[]),
        close(b'P', &b),
        bind(&b, "two", &[]),
        sync(),
    ]);
    assert_eq!(said, ["1", "1", "2", "3", "2", "ZT"]);
    let said = shop.ask_and_deny(&mut talk, &[execute(&a), sync()]);
    assert!(has(&said, "denied by anna"), "{said:?}");
    assert_eq!(shop.status(), "new new");
}

#[test]
fn p02_masks_follow_names_as_the_server_cuts_them() {
    let shop = Shop::open();
    let (a, b) = ("n".repeat(63) + "a", "n".repeat(63) + "b");
    let sql = "select email || ' ' || ssn from customers";
    let mut talk = shop.talk();
    talk.ask(&[parse(&a, "select 1"), close(b'S', &b), parse(&b, sql), sync()]);
    let said = talk.ask(&[bind("", &a, &[]), execute(""), sync()]);
    let row = "D[[masked] [masked]]";
    assert_eq!(said, ["2", row, row, "C[SELECT 2]", "ZI"]);
    // A cursor of SQL's own and a portal share their names, too.
    talk.ask(&[query(&format!("begin; declare \"{a}\" cursor for {sql}"))]);
    let said = talk.ask(&[execute(&b), sync()]);
    assert!(!has(&said, "secret") && has(&said, row), "{said:?}");
    let received = String::from_utf8_lossy(talk.received()).into_owned();
    assert!(!received.contains("secret") && !received.contains("078-05"), "{received}");
}

#[test]
fn a_portal_is_of_the_statement_that_was_bound() {
    let shop = Shop::open();
    for (statement, other) in [("", "select 1"), ("x", "select 1")] {
        let mut talk = shop.talk();
        assert_eq!(talk.ask(&[parse(statement, UPDATE), sync()]), ["1", "ZI"]);
        let sent = [
            bind("p", statement, &[]),
            close(b'S', statement),
            parse(statement, other),
            execute("p"),
            sync(),
        ];
        let said = shop.ask_and_deny(&mut talk, &sent);
        assert!(has(&said, "denied by anna"), "{said:?}");
        let email = "select email from customers";
        assert_eq!(talk.ask(&[close(b'S', statement), parse(statement, email), sync()])[2], "ZI");
        let said = talk.ask(&sent);
        assert!(has(&said, "D[[masked]]") && !has(&said, "secret"), "{said:?}");
    }
    assert_eq!(shop.status(), "new new");
}

#[test]
fn names_that_the_server_converts_are_not_guessed() {
    let server = &PostgresServer::shared().server;
    let database = Database::fresh();
    let latin = format!("{}_latin", database.name);
    server.superuser_psql(&format!(
        "create database {latin} owner {} encoding 'LATIN1' template template0",
        database.role
    ));
    let target = Target { database: latin, ..database.target("orders") };
    let rule = "[[rule]]\nname = \"no-updates\"\nactions = [\"sql.update\"]\nverdict = \"block\"\n";
    let policy = rule.to_owned();
    let gateway = Gateway::start(&Setup { policy, ..Setup::for_targets([target]) });
    let token = gateway.issuer().token("agent");
    let mut talk = Talk::opened(gateway.address(), "agent", "orders", &token);
    // This server folds more letters than ASCII's: É is é there.
    let said = talk.ask(&[query("prepare É as select 1"), query("execute é")]);
    assert!(said.contains(&"C[PREPARE]".to_owned()) && has(&said, "E[42501"), "{said:?}");
    assert_eq!(talk.ask(&[query("prepare e as select 1; execute e")]).len(), 5);
    talk.send(&[parse("é", "select 1"), sync()].concat());
    let said = talk.until_end();
    assert!(
        said[0].starts_with("E[08P01: names of statements and portals must be ASCII"),
        "{said:?}"
    );
}

#[test]
fn p03_a_copy_that_fails_leaves_the_gateway_in_step() {
    let shop = Shop::open();
    let returned = "update orders set status = 'returned' where id = 2";
    let begin = [parse("", "copy orders(id) from stdin"), bind("", "", &[]), execute(""), sync()];
    let attack = [
        copy_data("x\ty\n"),
        sync(),
        close(b'S', "x"),
        parse("x", returned),
        sync(),
        bind("", "x", &[]),
        execute(""),
        sync(),
    ];
    for pieces in [1, 2, attack.len()] {
        let mut talk = shop.talk();
        assert_eq!(talk.ask(&[parse("x", "select 1"), sync()]), ["1", "ZI"]);
        talk.send(&begin.concat());
        assert_eq!(talk.until(b'G'), ["1", "2", "G"]);
        let said = thread::scope(|scope| {
            let said = scope.spawn(|| {
                for piece in attack.chunks(attack.len().div_ceil(pieces)) {
                    talk.send(&piece.concat());
                }
                talk.until_ready(3)
            });
            shop.deny();
            said.join().unwrap()
        });
        assert!(said[0].starts_with("E[22P0"), "{said:?}");
        assert_eq!(said[1..5], ["ZI", "3", "1", "ZI"], "{said:?}");
        assert!(has(&said, "denied by anna"), "{said:?}");
    }
    // Data that were sent before the server could ask for them, behind a Sync.
    let mut talk = shop.talk();
    talk.send(&[begin.concat(), attack.concat()].concat());
    assert!(has(&talk.until_end(), "E[08P01: a Sync came among COPY data"));
    assert_eq!(shop.status(), "new new");
}

#[test]
fn p04_a_sync_in_copy_data_shifts_no_masks() {
    let shop = Shop::open();
    let queries = [
        query("select upper(email) from customers limit 2"),
        query("select note from customers limit 1"),
    ]
    .concat();
    let bad = [copy_data("x\ty\n"), sync()].concat();
    for together in [true, false] {
        let mut talk = shop.talk();
        talk.send(&query("copy empty_t from stdin"));
        if together {
            talk.send(&[bad.clone(), queries.clone()].concat());
        } else {
            talk.send(&bad);
            talk.send(&queries);
        }
        let said = talk.until_ready(4);
        let read = |at: usize| said.get(at).map_or("", String::as_str);
        assert_eq!(read(0), "G");
        assert!(read(1).starts_with("E[22P0"), "{said:?}");
        assert_eq!(said[2..4], ["ZI", "ZI"], "{said:?}");
        assert_eq!(
            said[4..],
            [
                "T(1)",
                "D[[MASKED]]",
                "D[[MASKED]]",
                "C[SELECT 2]",
                "ZI",
                "T(1)",
                "D[n1]",
                "C[SELECT 1]",
                "ZI"
            ]
        );
    }
}

#[test]
fn what_is_no_copy_data_ends_the_copy_and_the_session() {
    let shop = Shop::open();
    for sent in [query(UPDATE), run(UPDATE), close(b'S', "x")] {
        for begin in [query("copy empty_t from stdin"), run("copy empty_t from stdin")] {
            let mut talk = shop.talk();
            talk.send(&[begin, copy_data("1\n"), sent.clone(), sync()].concat());
            let said = talk.until_end();
            assert!(has(&said, "E[08P01: a message that is no COPY data"), "{said:?}");
        }
    }
    // A Sync among data counts when the COPY failed before it: nobody knows, and nothing is guessed.
    let mut talk = shop.talk();
    let among = [query("copy empty_t from stdin"), copy_data("1\n"), sync(), copy_data("x\n")];
    talk.send(&[among.concat(), message(b'c', b""), query("select 1")].concat());
    let said = talk.until_end();
    assert!(has(&said, "E[08P01: a Sync came among COPY data"), "{said:?}");
    // When the COPY goes well, the server has ignored it.
    let mut talk = shop.talk();
    talk.send(&[among[..3].concat(), copy_data("2\n"), message(b'c', b"")].concat());
    assert_eq!(talk.until_ready(1), ["G", "C[COPY 2]", "ZI"]);
    assert_eq!(talk.ask(&[query("select 1")]), ["T(1)", "D[1]", "C[SELECT 1]", "ZI"]);
    // One that fails before it reads leaves the Sync behind it to count.
    talk.send(&[run("copy shown from stdin"), sync()].concat());
    let said = talk.until_ready(1);
    assert!(said.len() == 5 && said[4] == "ZI" && said[3].starts_with("E[42809"), "{said:?}");
    assert_eq!(talk.ask(&[query("select 1")])[1], "D[1]");
    assert_eq!(shop.status(), "new new");
}

#[test]
fn p05_nobody_is_asked_about_what_the_server_will_skip() {
    let shop = Shop::open();
    let no_table = "select * from no_such_table";
    let skipped: [&[Vec<u8>]; 5] = [
        &[parse("", no_table), query(UPDATE), sync()],
        &[parse("", no_table), run(UPDATE), sync()],
        &[execute("no portal"), run(UPDATE), sync()],
        &[run("select 1 / 0"), query(UPDATE), sync()],
        &[parse("y", no_table), bind("", "x", &[]), execute(""), sync()],
    ];
    for sent in skipped {
        let mut talk = shop.talk();
        assert_eq!(talk.ask(&[parse("x", UPDATE), sync()]), ["1", "ZI"]);
        talk.send(&sent.concat());
        let said = talk.until_ready(1);
        assert!(said.iter().filter(|line| line.starts_with('E')).count() == 1, "{said:?}");
        assert_eq!(talk.ask(&[query("select 1")])[1], "D[1]", "{said:?}");
    }
    // What prepares the command itself may fail, in a transaction and outside.
    let sql = "update orders set status = $1 where id = $2";
    let unprepared: [&[Vec<u8>]; 3] = [
        &[parse("", "update no_such_table set a = 1"), bind("", "", &[]), execute(""), sync()],
        &[parse("", sql), bind("", "", &["paid", "not a number"]), execute(""), sync()],
        &[parse("", sql), bind("", "", &["paid"]), describe(b'P', ""), execute(""), sync()],
    ];
    for begin in [None, Some(query("begin"))] {
        for sent in unprepared {
            let mut talk = shop.talk();
            talk.ask(begin.as_slice());
            let said = talk.ask(sent);
            let errors: Vec<_> = said.iter().filter(|line| line.starts_with('E')).collect();
            assert!(errors.len() == 1 && !has(&said, "42501"), "{said:?}");
        }
    }
    // A transaction that failed runs nothing but its end.
    let mut talk = shop.talk();
    talk.ask(&[query("begin"), query("select 1 / 0")]);
    for sent in [vec![query(UPDATE)], vec![run(UPDATE), sync()]] {
        let said = talk.ask(&sent);
        assert!(
            said.len() <= 3 && has(&said, "E[25P02") && said.last().unwrap() == "ZE",
            "{said:?}"
        );
    }
    assert_eq!(shop.requests(""), 0, "people were asked");
    assert_eq!(shop.status(), "new new");
}

#[test]
fn what_is_rehearsed_leaves_nothing_and_what_is_held_locks_nothing() {
    let shop = Shop::open();
    let server = &PostgresServer::shared().server;
    let locks = format!(
        "select count(*) from pg_locks l join pg_database d on d.oid = l.database \
         where d.datname = '{}' and relation = (select 'orders'::regclass)",
        shop.database.name
    );
    let sent = [
        parse("u", "update orders set status = $1 where id = 1"),
        bind("p", "u", &["paid"]),
        describe(b'P', "p"),
        execute("p"),
        sync(),
    ];
    for begin in [None, Some(query("begin"))] {
        let mut talk = shop.talk();
        talk.ask(begin.as_slice());
        let said = thread::scope(|scope| {
            let said = scope.spawn(|| talk.ask(&sent));
            wait_until("a request", || shop.requests("?state=pending") == 1);
            assert_eq!(server.psql(&shop.database.name, &locks), "0");
            shop.deny();
            said.join().unwrap()
        });
        let told: Vec<_> = said.iter().filter(|line| !line.starts_with("N[")).collect();
        assert_eq!(told[..3], ["1", "2", "n"], "{said:?}");
        assert!(told[3].starts_with("E[42501") && told.len() == 5, "{said:?}");
        talk.ask(&[query("rollback")]);
        let named = "select count(*) from pg_prepared_statements where name <> 'u'";
        assert_eq!(talk.ask(&[query(named)])[1], "D[0]");
    }
}

#[test]
fn p06_the_servers_last_word_is_the_only_one() {
    let shop = Shop::open();
    let server = &PostgresServer::shared().server;
    let mut talk = shop.talk();
    talk.send(&query("select pg_sleep(60)"));
    let mine = format!("from pg_stat_activity where usename = '{}'", shop.database.role);
    wait_until("the statement to run", || {
        let running =
            format!("select count(*) {mine} and query like '%pg_sleep%' and state = 'active'");
        server.superuser_psql(&running) == "1"
    });
    server.superuser_psql(&format!(
        "select pg_terminate_backend(pid) {mine} and query like '%pg_sleep%'"
    ));
    let said = talk.until_end();
    let errors: Vec<_> = said.iter().filter(|line| line.starts_with('E')).collect();
    assert!(errors.len() == 1 && errors[0].starts_with("E[57P01: terminating"), "{said:?}");

    // One that takes no more bytes has said why.
    let (port, _) = scripted(|socket| {
        let mut first = [0; 1];
        socket.read_exact(&mut first).unwrap();
        let fatal = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0";
        socket.write_all(&message(b'E', fatal)).unwrap();
        // What is left unread makes the connection end with a reset.
    });
    let gateway = Gateway::start(&Setup::for_targets([lone(port)]));
    let token = gateway.issuer().token("agent");
    for _ in 0..20 {
        let mut talk = Talk::opened(gateway.address(), "agent", "orders", &token);
        let long = query(&format!("select '{}'", "x".repeat(200_000)));
        for _ in 0..10 {
            talk.send(&long);
        }
        let said = talk.until_end();
        assert!(said.len() == 1 && said[0].starts_with("E[57P01"), "{said:?}");
    }
}

/// A server that lets everybody in and then does as it likes.
fn scripted(
    script: impl Fn(&mut std::net::TcpStream) + Send + 'static,
) -> (u16, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut length = [0; 4];
            socket.read_exact(&mut length).unwrap();
            let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
            socket.read_exact(&mut startup).unwrap();
            let told = [("server_encoding", "UTF8"), ("standard_conforming_strings", "on")];
            let told: Vec<u8> = told
                .iter()
                .flat_map(|(name, value)| message(b'S', &strings(&[name, value])))
                .collect();
            let greeting =
                [message(b'R', &[0; 4]), told, message(b'K', &[1; 8]), message(b'Z', b"I")];
            socket.write_all(&greeting.concat()).unwrap();
            script(&mut socket);
        }
    });
    (port, thread)
}

fn lone(port: u16) -> Target {
    Target {
        name: "orders".to_owned(),
        port,
        database: "shop".to_owned(),
        user: "shop".to_owned(),
        password: "shop".to_owned(),
        lines: String::new(),
    }
}

#[test]
fn p07_an_answer_that_was_not_asked_for_ends_the_session() {
    let row = |value: &str| {
        let length = u32::try_from(value.len()).unwrap().to_be_bytes();
        message(b'D', &[&[0, 1][..], &length, value.as_bytes()].concat())
    };
    let stolen = row("stolen");
    let columns = message(b'T', b"\0\x01x\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0");
    let error = message(b'E', b"SERROR\0VERROR\0CXX000\0Mstolen\0\0");
    let (ready, copy_out) = (message(b'Z', b"I"), message(b'H', b"\0\0\x01\0\0"));
    let select = query("select 'inject'");
    let empty = [run("select 'inject' where false"), sync()].concat();
    let nothing = [
        parse("", "set application_name = 'inject'"),
        bind("", "", &[]),
        describe(b'P', ""),
        execute(""),
        sync(),
    ]
    .concat();
    // What the client asks, the answer that something is put before or behind, and what.
    type Case<'c> = (&'c str, &'c [u8], u8, Vec<u8>, Vec<u8>);
    let cases: [Case<'_>; 14] = [
        ("ReadyForQuery behind the last answer", &select, b'Z', vec![], ready.clone()),
        ("ReadyForQuery before the rows", &select, b'T', ready.clone(), vec![]),
        ("a second RowDescription", &select, b'T', vec![], columns.clone()),
        ("a row before its description", &select, b'T', stolen.clone(), vec![]),
        ("a row behind the last", &select, b'C', vec![], stolen.clone()),
        ("CopyDone", &select, b'C', message(b'c', b""), vec![]),
        ("COPY data", &select, b'C', message(b'd', b"stolen\n"), vec![]),
        ("a COPY", &select, b'T', [copy_out, message(b'd', b"stolen\n")].concat(), vec![]),
        ("a COPY that reads", &select, b'T', message(b'G', b"\0\0\0"), vec![]),
        ("ParseComplete", &select, b'C', message(b'1', b""), vec![]),
        ("a second CommandComplete", &select, b'C', vec![], message(b'C', b"SELECT 1\0")),
        ("an error behind the last answer", &select, b'Z', vec![], error),
        ("RowDescription of what nobody described", &empty, b'2', vec![], columns),
        ("a row of what gives none", &nothing, b'C', stolen, vec![]),
    ];
    let shop = Shop::open();
    for (what, asked, tag, before, behind) in cases {
        let proxy =
            Proxy::start(shop.database.port, "inject", move |message| match message[0] == tag {
                true => [&before, message, &behind].concat(),
                false => message.to_vec(),
            });
        for policy in ["", "[[mask]]\nname = \"m\"\npatterns = [\"email\"]\n", POLICY] {
            let gateway = Gateway::start(&Setup {
                policy: policy.to_owned(),
                ..Setup::for_targets([shop.target(proxy.port())])
            });
            let token = gateway.issuer().token("agent");
            let mut talk = Talk::opened(gateway.address(), "agent", "orders", &token);
            talk.send(asked);
            let said = talk.until_end();
            let last = said.last().unwrap();
            assert!(
                last.starts_with(
                    "E[08P01: target \"orders\" gave an answer that was not asked for"
                ),
                "{what}: {said:?}"
            );
            assert!(!has(&said, "stolen"), "{what}: {said:?}");
            if policy.is_empty() || what.contains("RowDescription") {
                break;
            }
        }
    }
}

#[test]
fn parameters_pass_through_masks_like_all_else() {
    let shop = Shop::open();
    let told = |name: &str, value: &str| message(b'S', &strings(&[name, value]));
    let injected = [
        told("application_name", "alice.secret"),
        told("made_up", "bob.secret"),
        told("TimeZone", "078-05-1120"),
        told("DateStyle", "alice.secret"),
        told("TimeZone", "Europe/Berlin"),
        told("DateStyle", "SQL, DMY"),
    ]
    .concat();
    let proxy =
        Proxy::start(shop.database.port, "inject", move |message| match message[0] == b'Z' {
            true => [&injected, message].concat(),
            false => message.to_vec(),
        });
    let policy = POLICY.to_owned();
    let target = shop.target(proxy.port());
    let gateway = Gateway::start(&Setup { policy, ..Setup::for_targets([target]) });
    let token = gateway.issuer().token("agent");
    let mut talk = Talk::opened(gateway.address(), "agent", "orders", &token);
    let said = talk.ask(&[query("select 'inject'")]);
    assert_eq!(
        said[3..],
        [
            "S[application_name=[masked]]",
            "S[made_up=[masked]]",
            "S[TimeZone=[masked]]",
            "S[DateStyle=[masked]]",
            "S[TimeZone=Europe/Berlin]",
            "S[DateStyle=SQL, DMY]",
            "ZI"
        ]
    );
    assert!(gateway.stop().success());
    let recorded = String::from_utf8_lossy(&gateway.all_contents()).into_owned();
    assert!(!recorded.contains("alice.secret") && !recorded.contains("078-05"));
}
