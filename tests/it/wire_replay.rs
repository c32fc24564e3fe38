//! `replay --serve`: ordinary clients are answered from a recording, and no target is there.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::client::{Client, Database, transcript};
use crate::support::daemon::{PORTCULLIS, wait_until};
use crate::support::gateway::{Gateway, Setup, portcullis, told};
use crate::support::http::{self, App, Caller, curl};
use crate::support::postgres::{Options, PostgresServer};
use crate::support::ssh::{Site, Sshd};

/// A replay that answers, until this is dropped.
pub struct Replay {
    child: Child,
    told: Value,
}

impl Replay {
    fn of_file(recording: &Path) -> Self {
        Self::of(&["replay", recording.to_str().unwrap()])
    }

    /// What a command of replay shows.
    pub fn of(arguments: &[&str]) -> Self {
        let mut child = Command::new(PORTCULLIS)
            .args(arguments)
            .args(["--serve", "127.0.0.1:0", "--json"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut text = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            text += &line.unwrap();
            if text.ends_with('}') {
                break;
            }
        }
        let told = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text:?}"));
        Self { child, told }
    }

    fn address(&self) -> &str {
        self.told["address"].as_str().unwrap()
    }

    pub fn client(&self) -> Client {
        let port = self.address().rsplit(':').next().unwrap().parse().unwrap();
        // A name and a password count for nothing.
        Client::new(port, "orders", "whoever", "none")
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// The only recording of a session, once the gateway has stopped.
fn recording(gateway: &Gateway) -> std::path::PathBuf {
    assert!(gateway.stop().success());
    gateway.verify_all();
    let all = gateway.recordings().into_iter();
    let mut sessions = all.filter(|path| {
        String::from_utf8_lossy(&gateway.contents(path)).contains("\"kind\":\"opened\"")
    });
    let found = sessions.next().expect("a recording");
    assert!(sessions.next().is_none(), "more than one session");
    found
}

fn psql(client: &Client, statements: &[&str]) -> String {
    let mut psql = client.postgres_program("psql");
    psql.args(["-X", "-v", "ON_ERROR_STOP=0"]);
    for statement in statements {
        psql.args(["-c", statement]);
    }
    transcript(psql).1
}

const STATEMENTS: &[&str] = &[
    "create table t (id int primary key, note text)",
    "insert into t values (1, 'a'), (2, null), (3, E'\\\\x41 \\u00e4')",
    "select * from t order by id",
    "select count(*) from t",
    "insert into t values (4, 'd')",
    "select count(*) from t",
    "select 1 as one; select 2 as two",
    "select nothing from t",
    "drop table t",
    "do $$ begin raise notice 'noted'; end $$",
    "copy t to stdout",
    "begin",
    "select now() - now() as none",
    "rollback",
    "",
];

#[test]
fn psql_gets_the_recorded_rows_and_errors_in_their_order_and_nothing_reaches_a_target() {
    let server = PostgresServer::start(&Options::default());
    let database = Database::on(&server);
    let rule = "[[rule]]\nname = \"no-drops\"\nactions = [\"sql.drop\"]\nverdict = \"block\"\n";
    let gateway = Gateway::start(&Setup {
        policy: rule.to_owned(),
        ..Setup::for_targets([database.target("orders")])
    });
    let seen = psql(&gateway.client("orders"), STATEMENTS);
    let recording = recording(&gateway);
    server.kill();

    let replay = Replay::of_file(&recording);
    assert_eq!(replay.told["protocol"], "postgres");
    assert_eq!(psql(&replay.client(), STATEMENTS), seen);
    // Again for the next client; a statement asked for more often stays as it was the last time.
    let count = STATEMENTS[3];
    let counts = psql(&replay.client(), &[count, count, count]);
    let counts: Vec<&str> = counts.lines().map(str::trim).filter(|l| l.len() == 1).collect();
    assert_eq!(counts, ["3", "4", "4"]);
    // The line to paste works as it is.
    let mut pasted = Command::new("sh");
    let line = replay.told["line"].as_str().unwrap();
    pasted.args(["-c", &format!("{line} -X -A -t -c 'select 1 as one; select 2 as two'")]);
    assert_eq!(transcript(pasted), (true, "1\n2\n".to_owned()));
    for unknown in ["select 3", "select count(*) from t where id = 1", "delete from t"] {
        let refused = psql(&replay.client(), &[unknown]);
        assert!(refused.contains("is not in the recording"), "{unknown}: {refused}");
        assert!(refused.contains("nothing reaches orders"), "{unknown}: {refused}");
    }
    // What psql does not send, a semicolon and blanks, is no difference.
    assert!(psql(&replay.client(), &[" select count(*) from t ; "]).contains("3"));
}

const VALUES: &str = r#"
import os, sys
import psycopg
with psycopg.connect(autocommit=True) as c:
    def show(*args, **more):
        try:
            print(c.execute(*args, **more).fetchall())
        except psycopg.Error as e:
            print(type(e).__name__, e.diag.sqlstate, e.diag.message_primary)
    for n in sys.argv[1].split(","):
        show("select id, note from t where id = %s", (int(n),))
    show("select id, note from t where id = %s", (1,), binary=True)
    for n in range(3):
        show("select %s::int + 1 as more", (n,), prepare=True)
    show("select broken from t")
    show("select id from t where note = %s", ("b",), prepare=True)
    with c.transaction():
        show("select 'within' as place")
        with c.cursor("by_name") as cursor:
            cursor.execute("select id from t order by id")
            print(cursor.fetchmany(1), cursor.fetchall())
    with c.pipeline():
        a = c.execute("select 1 as a")
        b = c.execute("select id from t order by id desc")
        print(a.fetchall(), b.fetchall())
"#;

const ASYNCPG: &str = r#"
import asyncio, sys
import asyncpg
async def main():
    c = await asyncpg.connect()
    for n in sys.argv[1].split(","):
        try:
            print(await c.fetch("select id, note, now() - now() as none from t where id = $1", int(n)))
        except asyncpg.PostgresError as e:
            print(e)
    async with c.transaction():
        print([dict(row) async for row in c.cursor("select id from t order by id", prefetch=1)])
        print(await c.execute("insert into t values (9, 'x')"))
    await c.close()
asyncio.run(main())
"#;

/// Runs a program of these lines with a client's environment.
fn python(client: &Client, lines: &str, values: &str) -> (bool, String) {
    let folder = tempfile::TempDir::new().unwrap();
    let script = folder.path().join("client.py");
    std::fs::write(&script, lines).unwrap();
    let like = client.python("none");
    let mut python = Command::new(like.get_program());
    python.args(["-B", script.to_str().unwrap(), values]).env_clear();
    python.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
    transcript(python)
}

#[test]
fn a_driver_is_answered_by_statement_and_values_in_both_formats() {
    let database = Database::fresh();
    psql(
        &database.client(),
        &[
            "create table t (id int primary key, note text)",
            "insert into t values (1, 'a'), (2, 'b')",
        ],
    );
    let gateway = Gateway::start(&Setup::for_targets([database.target("orders")]));
    let run = |client: &Client, values: &str| python(client, VALUES, values);
    let (done, seen) = run(&gateway.client("orders"), "1,2");
    assert!(done, "{seen}");
    let recording = recording(&gateway);
    psql(&database.client(), &["drop table t"]);
    let replay = Replay::of_file(&recording);
    assert_eq!(run(&replay.client(), "1,2"), (true, seen.clone()));
    // By value, in whatever order; what was never bound is not made up.
    let (_, other) = run(&replay.client(), "2,1,7");
    let lines: Vec<&str> = other.lines().collect();
    assert_eq!(lines[..2], ["[(2, 'b')]", "[(1, 'a')]"], "{other}");
    assert!(lines[2].contains("not with these values"), "{other}");
    // psql asks for a driver's statement by its text.
    let shown = psql(&replay.client(), &["select id, note from t where id = $1"]);
    assert!(shown.contains("1 | a"), "{shown}");
}

#[test]
fn a_driver_that_speaks_binary_alone_is_answered_as_its_own_session_was() {
    let database = Database::fresh();
    psql(
        &database.client(),
        &[
            "create table t (id int primary key, note text)",
            "insert into t values (1, 'a'), (2, 'b')",
        ],
    );
    let gateway = Gateway::start(&Setup::for_targets([database.target("orders")]));
    let (done, seen) = python(&gateway.client("orders"), ASYNCPG, "2,1");
    assert!(done && seen.contains("INSERT 0 1"), "{seen}");
    let recording = recording(&gateway);
    let replay = Replay::of_file(&recording);
    assert_eq!(python(&replay.client(), ASYNCPG, "2,1"), (true, seen));
    let (_, other) = python(&replay.client(), ASYNCPG, "3");
    assert!(other.contains("not with these values"), "{other}");
    // What is binary in the recording is text for who asks for text.
    let shown = psql(&replay.client(), &["select id from t order by id"]);
    assert!(shown.contains("(2 rows)") || shown.contains(" 2"), "{shown}");
}

#[test]
fn masked_values_stay_masked_and_withheld_literals_fit_any() {
    let database = Database::fresh();
    psql(
        &database.client(),
        &[
            "create table people (id int, ssn text)",
            "insert into people values (1, '111-22-3333'), (2, '444-55-6666')",
        ],
    );
    let masks = "[[mask]]\nname = \"numbers\"\ntargets = [\"orders\"]\ncolumns = [\"*.ssn\"]\n\
                 with = \"redact\"\nunless_groups = [\"agents\"]\n";
    let gateway = Gateway::start(&Setup {
        policy: masks.to_owned(),
        ..Setup::for_targets([database.target("orders")])
    });
    let statement = "select id, ssn from people where ssn = '111-22-3333'";
    // The client may see them; what is stored may not be seen by anybody.
    let seen = psql(&gateway.client("orders"), &[statement]);
    let recording = recording(&gateway);
    let replay = Replay::of_file(&recording);
    let shown = psql(&replay.client(), &[statement]);
    assert!(shown.contains("[masked]") && !shown.contains("111-22"), "{shown}, seen {seen}");
    assert!(shown.contains("withholds literals"), "{shown}");
    let other = psql(&replay.client(), &["select id, ssn from people where ssn = 'x'"]);
    assert!(other.contains("[masked]") && other.contains("withholds literals"), "{other}");
}

#[test]
fn curl_gets_the_recorded_answers_and_pages_of_browsers_get_none() {
    let app = App::start();
    let gateway = Gateway::start(&http::setup(&app.target("crew", "")));
    let caller = Caller::of(&gateway);
    // What it answers tells of all headers.
    let nth = |n: &str| caller.curl("/crew/echo?x=1", &["-H", &format!("X-Nth: {n}")]);
    let (first, second) = (nth("1"), nth("2"));
    assert_ne!(first.body, second.body);
    let posted = caller.post("/crew/digest", r#"{"a": 1, "b": [true]}"#);
    let large = caller.get("/crew/bytes/3000000");
    let failed = caller.get("/crew/status/503");
    let recording = recording(&gateway);
    let asked = app.told().len();

    let replay = Replay::of_file(&recording);
    let url = |path: &str| format!("http://{}{path}", replay.address());
    let get = |path: &str| curl(&[&url(path)]);
    for (path, recorded) in [
        ("/echo?x=1", &first),
        ("/crew/echo?x=1", &second),
        ("/echo?x=1", &second),
        ("/bytes/3000000", &large),
        ("/status/503", &failed),
    ] {
        let told = get(path);
        assert_eq!((told.status, &told.body), (recorded.status, &recorded.body), "{path}");
        assert_eq!(told.header("content-type"), recorded.header("content-type"), "{path}");
        assert!(told.header("x-portcullis-replay").unwrap().contains('#'), "{path}");
    }
    let post = |body: &str| {
        let json = "Content-Type: application/json";
        curl(&["-H", json, "--data-binary", body, &url("/digest")])
    };
    // The same document, otherwise written.
    assert_eq!(post("{\"b\":[true],\n\"a\":1}").body, posted.body);
    for (told, what) in [
        (get("/echo?x=2"), "is not in the recording"),
        (post("{}"), "not with this body"),
        (curl(&["-X", "DELETE", &url("/echo?x=1")]), "is not in the recording"),
    ] {
        assert_eq!(told.status, 404, "{told:?}");
        assert!(told.json()["title"].as_str().unwrap().contains(what), "{told:?}");
        assert_eq!(told.header("content-type").unwrap(), "application/problem+json");
    }
    let of_pages = curl(&["-H", "Origin: https://evil.example", &url("/echo?x=1")]);
    let rebound = curl(&["-H", "Host: evil.example", &url("/echo?x=1")]);
    assert_eq!((of_pages.status, rebound.status), (403, 403));
    assert_eq!(app.told().len(), asked, "something reached the target");
}

#[test]
fn what_cannot_be_served_is_refused_with_what_to_do() {
    let site = Site::around(Gateway::start(&Setup {
        listen: "ssh = \"127.0.0.1:0\"\nweb = \"127.0.0.1:0\"".to_owned(),
        policy: Sshd::shared().target("web-1", ""),
        ..Setup::default()
    }));
    let mut ssh = site.ssh();
    ssh.arg("true");
    assert!(transcript(ssh).0);
    wait_until("the recording", || !site.gateway.recordings().is_empty());
    let recording = recording(&site.gateway);
    let path = recording.to_str().unwrap();
    for (arguments, wanted) in [
        (["replay", path, "--serve", "127.0.0.1:0"], "played in the terminal"),
        (["replay", path, "--serve", "0.0.0.0:0"], "give a loopback address"),
        (["replay", "/nowhere.rec", "--serve", "127.0.0.1:0"], "cannot answer from /nowhere.rec"),
    ] {
        let refused = portcullis(&arguments);
        assert_eq!(refused.status.code(), Some(1));
        assert!(told(&refused).contains(wanted), "{}", told(&refused));
    }
}
