//! What Postgres clients are told, and what they may ask.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::masking::{Masked, contains};
use crate::support::client::{Client, Database, clients_folder, transcript};
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup};
use crate::support::postgres::{Options, PostgresServer, private_file};
use crate::support::talk::{Talk, bind, execute, parse, query, run, sync};
use crate::support::wire::{message, strings};

/// A rule that none of the tests here should meet: with it, what is not understood is blocked.
const ANY_RULE: &str = r#"
[[rule]]
name = "no-drop"
actions = ["sql.drop"]
verdict = "block"
"#;

/// A database, and a gateway before it.
struct Site {
    database: Database,
    gateway: Gateway,
}

impl Site {
    fn with(policy: &str) -> Self {
        Self::target_with(policy, "")
    }

    fn target_with(policy: &str, lines: &str) -> Self {
        let database = Database::fresh();
        let mut target = database.target("orders");
        if !lines.is_empty() {
            target.lines = format!("tls = \"disable\"\n{lines}");
        }
        let policy = policy.to_owned();
        let gateway = Gateway::start(&Setup { policy, ..Setup::for_targets([target]) });
        Self { database, gateway }
    }

    fn client(&self) -> Client {
        self.gateway.client("orders")
    }

    fn talk(&self) -> Talk {
        let token = self.gateway.issuer().token("agent");
        Talk::opened(self.gateway.address(), "agent", "orders", &token)
    }

    /// What is said when a session opens, or does not, with startup parameters.
    fn opening(&self, parameters: &[(&str, &str)]) -> (Talk, Vec<String>) {
        self.opening_on("orders", parameters)
    }

    fn opening_on(&self, target: &str, parameters: &[(&str, &str)]) -> (Talk, Vec<String>) {
        let token = self.gateway.issuer().token("agent");
        let mut talk = Talk::open(self.gateway.address(), "agent", target, &token, parameters);
        let said = talk.until_ready(1);
        (talk, said)
    }

    /// Stops the gateway; everything that it recorded.
    fn recorded(&self) -> Vec<u8> {
        assert!(self.gateway.stop().success());
        self.gateway.verify_all();
        self.gateway.all_contents()
    }
}

fn says(client: &Client, sql: &[&str]) -> (bool, String) {
    let mut psql = client.psql();
    psql.args(["-v", "ON_ERROR_STOP=0"]);
    sql.iter().for_each(|sql| _ = psql.args(["-c", sql]));
    transcript(psql)
}

fn is_open(said: &[String]) -> bool {
    said.last().is_some_and(|line| line == "ZI")
}

// Encodings.

#[test]
fn p10_a_session_in_utf8_stands_for_other_encodings() {
    let site = Site::with(ANY_RULE);
    // As psql at a terminal without a locale: libpq asks for SQL_ASCII.
    let client = site.client().with("LC_ALL", "C").with("PGCLIENTENCODING", "auto");
    assert_eq!(says(&client, &["show client_encoding"]), (true, "UTF8\n".to_owned()));
    assert_eq!(says(&client, &["select 'é漢'"]), (true, "é漢\n".to_owned()));
    for asked in ["SQL_ASCII", "LATIN1", "WIN1252", "iso-8859-1", "KOI8R", "EUC_JP", "Unicode"] {
        let (mut talk, said) = site.opening(&[("client_encoding", asked)]);
        assert!(is_open(&said), "{asked}: {said:?}");
        assert!(said.contains(&"S[client_encoding=UTF8]".to_owned()), "{asked}: {said:?}");
        let notice = said.iter().any(|line| line.starts_with("N[00000: client_encoding "));
        assert_eq!(notice, !["SQL_ASCII", "Unicode"].contains(&asked), "{asked}: {said:?}");
        assert_eq!(talk.ask(&[query("select 'é'")])[1], "D[é]");
    }
    // Where a second byte may look like a quote, nothing stands for it; the hint says what to do.
    for asked in ["SJIS", "BIG5", "GB18030", "no-such-thing"] {
        let (_, said) = site.opening(&[("client_encoding", asked)]);
        let refused = said.last().unwrap();
        assert!(
            refused.starts_with("E[22023: ") && refused.contains("PGCLIENTENCODING"),
            "{said:?}"
        );
    }
    // Bytes of another encoding end the session, and say what to send instead.
    let mut talk = site.talk();
    talk.send(&message(b'Q', b"select '\xe9'\0"));
    let said = talk.until_end();
    assert!(said[0].starts_with("E[22021: ") && said[0].contains("UTF-8"), "{said:?}");
}

#[test]
fn p11_only_what_is_not_utf8_is_refused_and_the_session_lives() {
    for policy in ["", ANY_RULE] {
        let site = Site::with(policy);
        let mut talk = site.talk();
        for utf8 in ["'UNICODE'", "'utf-8'", "UTF8", "'u.t.f--8'", "default"] {
            let said = talk.ask(&[query(&format!("set client_encoding = {utf8}"))]);
            assert!(said.contains(&"C[SET]".to_owned()), "{utf8}: {said:?}");
            assert_eq!(talk.ask(&[query("select 'é'")])[1], "D[é]");
        }
        for sql in [
            "set client_encoding = 'LATIN1'",
            "set client_encoding to sql_ascii",
            "set session client_encoding = 'SJIS'",
            "set names 'WIN1252'",
            "select 1; set local client_encoding = big5",
            "select set_config('Client_Encoding', 'latin1', false)",
            "prepare p as select set_config('client_encoding', 'gbk', false)",
        ] {
            for sent in [query(sql), [parse("", sql), sync()].concat()] {
                let said = talk.ask(&[sent]);
                let refused = said[0].starts_with("E[22023: client_encoding can only be UTF8");
                let several = sql.contains(';') && said[0].starts_with("E[42601");
                assert!((refused || several) && said.last().unwrap() == "ZI", "{sql}: {said:?}");
            }
        }
        assert_eq!(talk.ask(&[query("show client_encoding")])[1], "D[UTF8]");
        // What the text does not tell ends the session when the server tells it.
        let sql = "select set_config('client_' || 'encoding', 'LATIN1', false)";
        talk.send(&query(sql));
        let said = talk.until_end();
        let last = said.last().unwrap();
        assert!(last.starts_with("E[22023: ") && last.contains("PGCLIENTENCODING"), "{said:?}");
        assert!(contains(&site.recorded(), "\"verdict\":\"block\""));
    }
}

// Errors.

#[test]
fn p12_a_syntax_error_is_told_in_the_parsers_words_with_its_place() {
    let masks = "[[mask]]\nname = \"ssn\"\ncolumns = [\"public.people.ssn\"]\n";
    for policy in [ANY_RULE, masks] {
        let site = Site::with(policy);
        let (_, said) = says(&site.client(), &["select * from orders whre id=1"]);
        let place =
            "ERROR:  syntax error at or near \"id\"\nLINE 1: select * from orders whre id=1";
        assert!(said.starts_with(place), "{said}");
        assert!(said.contains("DETAIL:  It could not be understood"), "{said}");
        // The same words at the same place as the server's own, whatever stands in the text twice.
        let mut direct = Talk::trusted(server_address(), "postgres", "postgres");
        let mut talk = site.talk();
        for sql in [
            "selec 1",
            "select a, b, from a",
            "select 'é漢' from from t",
            "select (1 + (2 * 3) from t where (1",
            "insert into t values (1,, 2)",
            "update t set a = where a = 1",
            "select 1 +",
            "create table t (a int,)",
            "alter role x password secret 'hunter2'",
            "alter role x password 'one' 'hunter2'",
            "select 'unterminated hunter2",
            "select \"\" from t",
            "select $1 $1",
            "drop tabel orders",
        ] {
            let expected = reports(&mut direct, sql);
            let found = reports(&mut talk, sql);
            assert_eq!(found.1, expected.1, "{sql}");
            if expected.0 == "42601" {
                assert_eq!(found.0, "42601", "{sql}");
            }
            if !expected.1.starts_with("unterminated") && !expected.1.starts_with("zero-length") {
                assert_eq!(found.2, expected.2, "{sql}: {expected:?}");
            }
            assert_eq!(talk.ask(&[query("select 1")])[1], "D[1]");
        }
        let recorded = site.recorded();
        assert!(contains(&recorded, "\"reason\":\"syntax\"") && contains(&recorded, "42601"));
        assert!(contains(&recorded, "syntax error at or near \"tabel\""));
        assert!(!contains(&recorded, "hunter2"), "a literal is stored");
    }
}

/// Code, message and position of the error that a statement gives.
fn reports(talk: &mut Talk, sql: &str) -> (String, String, Option<String>) {
    let before = talk.received().len();
    talk.ask(&[query(sql)]);
    let message = &talk.received()[before..];
    let at = message.iter().position(|byte| *byte == b'E').unwrap_or(0);
    let fields: Vec<&[u8]> = message[at + 5..].split(|byte| *byte == 0).collect();
    let field = |kind: u8| {
        let found = fields.iter().find(|field| field.first() == Some(&kind));
        found.map(|field| String::from_utf8_lossy(&field[1..]).into_owned())
    };
    (field(b'C').unwrap_or_default(), field(b'M').unwrap_or_default(), field(b'P'))
}

fn server_address() -> std::net::SocketAddr {
    ([127, 0, 0, 1], PostgresServer::shared().server.port()).into()
}

#[test]
fn p13_the_servers_refusal_is_told_where_it_concerns_the_client() {
    let server = PostgresServer::start(&Options::default());
    let database = Database::on(&server);
    let target = |name: &str, change: fn(&mut crate::support::gateway::Target)| {
        let mut target = database.target(name);
        change(&mut target);
        target
    };
    let gateway = Gateway::start(&Setup::for_targets([
        target("orders", |_| ()),
        target("gone", |target| target.database = "no_such_internal_name".to_owned()),
        target("closed", |target| target.database = "postgres".to_owned()),
        target("wrong", |target| target.password = "not-it".to_owned()),
    ]));
    server.superuser_psql("revoke connect on database postgres from public");
    let site = Site { database, gateway };
    let (role, name) = (site.database.role.clone(), site.database.name.clone());
    let refused = |target: &str, parameters: &[(&str, &str)], expected: &str| {
        let (_, said) = site.opening_on(target, parameters);
        let last = said.last().unwrap();
        assert!(last.starts_with(expected), "{last}");
        for internal in [role.as_str(), name.as_str(), "no_such_internal_name", "127.0.0.1"] {
            assert!(!last.contains(internal), "{last} tells of {internal}");
        }
    };
    let zone = "E[22023: invalid value for parameter \"TimeZone\": \"Mars/Phobos\"";
    refused("orders", &[("timezone", "Mars/Phobos")], zone);
    refused("orders", &[("options", "-c TimeZone=Mars/Phobos")], zone);
    refused(
        "orders",
        &[("work_mem", "plenty")],
        "E[22023: invalid value for parameter \"work_mem\"",
    );
    refused("orders", &[("no_such_one", "1")], "E[42704: unrecognized configuration parameter");
    refused("orders", &[("max_connections", "1")], "E[55P02: parameter \"max_connections\"");
    refused("gone", &[], "E[3D000: the database of target \"gone\" does not exist");
    refused("closed", &[], "E[08001: target \"closed\" cannot be reached");
    refused("wrong", &[], "E[08001: target \"wrong\" cannot be reached");
    server.superuser_psql(&format!("alter role {role} connection limit 0"));
    refused("orders", &[], "E[53300: target \"orders\" has no room for another connection");
    // PGTZ is how people meet it.
    server.superuser_psql(&format!("alter role {role} connection limit -1"));
    let (_, said) = says(&site.client().with("PGTZ", "Mars/Phobos"), &["select 1"]);
    assert!(said.contains("invalid value for parameter \"TimeZone\": \"Mars/Phobos\""), "{said}");
}

#[test]
fn p14_errors_made_of_names_are_told_where_columns_are_masked() {
    let policy = "[policy]\nunparsed = \"allow\"\n".to_owned();
    let masked = Masked::with(crate::masking::MASKS, Setup { policy, ..Setup::default() });
    let token = masked.gateway.issuer().token("agent");
    let mut talk = Talk::opened(masked.gateway.address(), "agent", "orders", &token);
    for (sql, words) in [
        ("execute not_there", "E[26000: prepared statement \"not_there\" does not exist]"),
        ("deallocate not_there", "E[26000: prepared statement \"not_there\" does not exist]"),
        ("fetch not_there", "E[34000: cursor \"not_there\" does not exist]"),
        ("close not_there", "E[34000: cursor \"not_there\" does not exist]"),
        ("commit", "N[25P01: there is no transaction in progress]"),
        ("rollback to s", "E[25P01: ROLLBACK TO SAVEPOINT can only be used in transaction blocks]"),
        ("begin; rollback to s", "E[3B001: savepoint \"s\" does not exist]"),
        (
            "select 1",
            "E[25P02: current transaction is aborted, commands ignored until end of transaction block]",
        ),
        (
            "rollback; prepare p as select 1; prepare p as select 2",
            "E[42P05: prepared statement \"p\" already exists]",
        ),
        (
            "set statement_timeout = 1; select pg_sleep(9), email from customers",
            "E[57014: canceling statement due to statement timeout]",
        ),
    ] {
        let said = talk.ask(&[query(sql)]);
        assert!(said.iter().any(|line| line == words), "{sql}: {said:?}");
    }
    talk.ask(&[query("set statement_timeout = 0")]);
    let said = talk.ask(&[bind("", "gone", &[]), execute(""), sync()]);
    assert_eq!(said[0], "E[26000: prepared statement \"gone\" does not exist]");
    // A function that chooses the code does not choose what may be told.
    for sql in [
        "do $$ begin raise exception '%', (select email from customers limit 1) using errcode = '26000'; end $$",
        "do $$ begin execute format('execute %I', (select email from customers limit 1)); end $$",
        "do $$ begin execute format('fetch %I', (select email from customers limit 1)); end $$",
    ] {
        masked.shows_nothing(sql);
        let said = talk.ask(&[query(sql)]);
        // Opaque code does not run where columns are masked.
        assert!(said[0].starts_with("E[42501"), "{said:?}");
    }
    drop(talk);
    masked.finish(crate::masking::SENTINELS);
}

// Startup parameters.

#[test]
fn p15_startup_parameters_are_decided_like_the_set_that_they_are() {
    let policy = r#"
[[rule]]
name = "no-other-role"
actions = ["sql.set-role"]
objects = ["role:boss"]
verdict = "block"
reason = "Not as boss."

[[rule]]
name = "no-timeout"
actions = ["sql.set"]
objects = ["setting:statement_timeout"]
verdict = "block"
reason = "The timeout stays."

[[rule]]
name = "ask"
actions = ["sql.set"]
objects = ["setting:row_security"]
verdict = "approve"
approvers = ["dba"]
timeout = "60s"
"#;
    let site = Site::with(policy);
    for (name, value) in [
        ("app.tenant_id", "42"),
        ("plan_cache_mode", "force_custom_plan"),
        ("synchronous_commit", "off"),
        ("standard_conforming_strings", "off"),
        ("work_mem", "5MB"),
        ("role", "none"),
    ] {
        let (mut talk, said) = site.opening(&[(name, value)]);
        assert!(is_open(&said), "{name}: {said:?}");
        assert_eq!(talk.ask(&[query(&format!("show {name}"))])[1], format!("D[{value}]"));
        let options = format!("-c {name}={value}");
        assert!(is_open(&site.opening(&[("options", &options)]).1), "{name}");
    }
    // Texts are read as the server reads them from the first on.
    let (mut talk, _) = site.opening(&[("standard_conforming_strings", "off")]);
    let said = talk.ask(&[query(r"select '\''; select 'b'")]);
    assert!(said.contains(&"D[']".to_owned()) && said.contains(&"D[b]".to_owned()), "{said:?}");
    for (name, value, words) in [
        ("role", "boss", "E[42501: Not as boss."),
        ("statement_timeout", "0", "E[42501: The timeout stays."),
        ("Statement_Timeout", "0", "E[42501: The timeout stays."),
        ("options", "--statement-timeout=0", "E[42501: The timeout stays."),
        ("row_security", "off", "E[42501: a startup parameter needs an approval (SET it in"),
        ("local_preload_libraries", "x", "E[0A000: startup parameter"),
        ("options", "-c user=boss", "E[0A000: startup parameter"),
    ] {
        let (_, said) = site.opening(&[(name, value)]);
        assert!(said.last().unwrap().starts_with(words), "{name}: {said:?}");
    }
    let (_, said) = site.opening(&[("myapp.jwt", "hunter2"), ("search_path", "public")]);
    assert!(is_open(&said), "{said:?}");
    let recorded = site.recorded();
    assert!(contains(&recorded, "\"form\":\"startup\"") && contains(&recorded, "setting"));
    assert!(contains(&recorded, "\\\"role\\\" = 'boss'"), "the refused command is recorded");
    assert!(!contains(&recorded, "hunter2"), "a secret setting is stored");

    // Where rules must allow, they must allow what is not harmless.
    let allow = "[[rule]]\nname = \"tenant\"\nactions = [\"sql.set\"]\n\
                 objects = [\"setting:app.tenant_id\"]\nverdict = \"allow\"\n";
    let site = Site::target_with(allow, "default = \"block\"\n");
    assert!(is_open(&site.opening(&[("app.tenant_id", "1"), ("datestyle", "ISO")]).1));
    let (_, said) = site.opening(&[("app.other", "1")]);
    let refused = "E[42501: a startup parameter is refused by policy";
    assert!(said.last().unwrap().starts_with(refused), "{said:?}");
}

// Limits.

#[test]
fn p16_nesting_is_understood_as_deep_as_postgresql_takes_it() {
    let site = Site::with(ANY_RULE);
    let mut talk = site.talk();
    let of = |before: &str, middle: &str, after: &str, times: usize| {
        format!("select {}{middle}{}", before.repeat(times), after.repeat(times))
    };
    for (before, middle, after, times) in [
        // Half as deep as a parser without optimisation has stack for, with any compiler.
        ("", "'a'", "||'a'", 250),
        ("(select ", "1", ")", 40),
        ("", "1", " union all select 1", 200),
        ("", "'{}'::jsonb", "->'a'", 250),
        ("abs(", "1", ")", 250),
        ("case when true then ", "1", " end", 120),
        ("", "1", "::int", 250),
        ("not ", "true", "", 250),
    ] {
        let said = talk.ask(&[query(&of(before, middle, after, times))]);
        assert!(said.iter().any(|line| line.starts_with("C[SELECT")), "{before}{after}: {said:?}");
    }
    let joins: String = (0..100).map(|n| format!(" cross join (select 1) as j{n}")).collect();
    let said = talk.ask(&[query(&format!(
        "set join_collapse_limit = 1; select 1 from (select 1) as j{joins}"
    ))]);
    assert!(said.iter().any(|line| line == "C[SELECT 1]"), "{said:?}");
    // What is within is decided.
    let deep = of("(select ", "1", ")", 40);
    let said = talk.ask(&[query(&format!("{deep}; drop table orders"))]);
    assert!(said[0].starts_with("E[42501: "), "{said:?}");
    // Beyond it the limit is named, and the session lives.
    for (before, middle, after, times) in
        [("", "1", "+1", 40_000), ("(select ", "1", ")", 9_000), ("abs(", "1", ")", 20_000)]
    {
        let said = talk.ask(&[query(&of(before, middle, after, times))]);
        assert!(said[0].starts_with("E[54001: ") && said[0].contains("levels"), "{said:?}");
        assert_eq!(talk.ask(&[query("select 1")])[1], "D[1]");
    }
    let said = talk.ask(&[query(&of("", "1", ",1", 200_000))]);
    assert!(said[0].starts_with("E[54001: ") && said[0].contains("150,000 tokens"), "{said:?}");
    let said = talk.ask(&[query(&format!("select '{}'", "x".repeat(17 << 20)))]);
    assert!(said[0].starts_with("E[54000: ") && said[0].contains("16 MiB"), "{said:?}");
}

#[test]
fn p19_a_message_that_is_too_large_is_refused_in_words_that_arrive() {
    let site = Site::with("");
    let script = "import psycopg, sys\n\
                  with psycopg.connect(autocommit=True) as connection:\n\
                  \x20   value = 'x' * (70 << 20)\n\
                  \x20   try:\n\
                  \x20       connection.execute('select length(%s)', [value])\n\
                  \x20   except psycopg.Error as error:\n\
                  \x20       print(error)\n";
    let mut python = site.client().python("psycopg_sync.py");
    python = plain(&python, &["-c", script]);
    let (_, said) = transcript(python);
    assert!(said.contains("a message is larger than 64 MiB"), "{said}");
    assert!(said.contains("COPY"), "{said}");
    let mut talk = site.talk();
    talk.send(&message(b'Q', &strings(&[&format!("select '{}'", "x".repeat(66 << 20))])));
    let said = talk.until_end();
    assert!(said[0].starts_with("E[08P01: a message is larger than 64 MiB"), "{said:?}");
}

/// The same program and environment with other arguments.
fn plain(command: &Command, arguments: &[&str]) -> Command {
    let mut other = Command::new(command.get_program());
    other.args(arguments).env_clear();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            other.env(name, value);
        }
    }
    other
}

// Tools.

#[test]
fn p17_pg_dump_works_where_another_setting_is_blocked() {
    let policy = r#"
[[rule]]
name = "no-role"
actions = ["sql.set-role"]
verdict = "block"

[[rule]]
name = "no-replica"
actions = ["sql.set"]
objects = ["setting:session_replication_role"]
verdict = "block"
"#;
    let site = Site::with(policy);
    let sql = "create table t (i int); insert into t values (1); create view v as select * from t";
    assert!(says(&site.database.client(), &[sql]).0);
    let (succeeded, said) = transcript(site.client().postgres_program("pg_dump"));
    assert!(succeeded && said.contains("CREATE VIEW public.v"), "{said}");
    let mut talk = site.talk();
    let mut picked = |what: &str, condition: &str| {
        let sql = format!("select {what} from pg_settings where {condition}");
        let said = talk.ask(&[query(&sql)]);
        said.iter().any(|line| line.starts_with("C[SELECT"))
    };
    let sets = "set_config(name, 'off', false)";
    assert!(picked(sets, "name = 'jit'"));
    assert!(picked(sets, "'jit' = name and context = 'user'"));
    assert!(picked(sets, "pg_settings.name in ('jit', 'geqo')"));
    // Nothing else tells which setting it is.
    assert!(!picked(sets, "name = 'session_replication_role'"));
    assert!(!picked(sets, "name in ('jit', 'role')"));
    assert!(!picked(sets, "name = 'jit' or name = 'role'"));
    assert!(!picked(sets, "name <> 'jit'"));
    assert!(!picked(sets, "name like 'jit'"));
    assert!(!picked("set_config(setting, 'off', false)", "name = 'jit'"));
    assert!(!picked(
        "(select set_config(name, 'off', false) from (select 'role') s(name))",
        "name = 'jit'"
    ));
    assert!(!picked(
        "(select 1 from (select 'role') s(name) where set_config(name, 'x', false) = 'x')",
        "name = 'jit'"
    ));
}

#[test]
fn p18_large_objects_work_in_statements_and_the_refusal_says_so() {
    let policy = "[[rule]]\nname = \"no-unlink\"\nactions = [\"sql.large-object\"]\n\
                  objects = [\"function:*lo_unlink\"]\nverdict = \"block\"\n";
    let site = Site::with(policy);
    let (_, said) = says(
        &site.client(),
        &[
            "\\lo_import /etc/hostname",
            "select lo_from_bytea(424243, '\\xdeadbeef')",
            "select lo_get(424243)",
            "select lo_unlink(424243)",
        ],
    );
    assert!(said.contains("function call message is not relayed"), "{said}");
    assert!(said.contains("SELECT lo_get(…)") && said.contains("--no-blobs"), "{said}");
    assert!(said.contains("424243\n\\xdeadbeef\n"), "{said}");
    assert!(said.contains("refused by policy"), "{said}");
    let mut dump = site.client().postgres_program("pg_dump");
    dump.arg("--no-blobs");
    let (succeeded, said) = transcript(dump);
    assert!(succeeded, "{said}");
    let (succeeded, said) = transcript(site.client().postgres_program("pg_dump"));
    assert!(!succeeded && said.contains("--no-blobs"), "{said}");
    says(&site.database.client(), &["select lo_unlink(424243)"]);
}

#[test]
fn p20_what_a_client_must_not_require_is_documented() {
    let authority = &PostgresServer::shared().authority;
    let database = Database::fresh();
    let folder = TempDir::new().unwrap();
    let gateway = Gateway::start(&Setup {
        tls: Some(authority.issue(&["localhost"])),
        ..Setup::for_targets([database.target("orders")])
    });
    let root = crate::support::client::root_file(folder.path(), &authority.pem());
    let documented = include_str!("../../../docs/clients.md");
    let script = "import psycopg\n\
                  try:\n\
                  \x20   print(psycopg.connect().execute('select 1').fetchone())\n\
                  except psycopg.Error as error:\n\
                  \x20   print(error)\n";
    let connects = |name: &str, value: &str| {
        let client = gateway.client("orders").over_tls(&root).with(name, value);
        transcript(plain(&client.python("psycopg_sync.py"), &["-c", script])).1
    };
    for (name, refused, works, words) in [
        ("CHANNELBINDING", "require", "prefer", "channel binding required"),
        ("REQUIREAUTH", "scram-sha-256", "password", "authentication method requirement"),
    ] {
        let variable = format!("PG{name}");
        assert!(connects(&variable, refused).contains(words), "{}", connects(&variable, refused));
        assert!(connects(&variable, works).starts_with("(1,)"), "{}", connects(&variable, works));
        let setting = if name == "REQUIREAUTH" { "require_auth" } else { "channel_binding" };
        for told in [format!("`{setting}={refused}`"), format!("`{setting}={works}`")] {
            assert!(documented.contains(&told), "{told}");
        }
        assert!(documented.contains(words), "{words}");
    }
}

#[test]
fn o06_psql_says_the_same_in_every_minor_version() {
    // Since 15.20 psql takes what follows a refused COPY … FROM STDIN as its data: each such statement
    // of the script is followed by the end of data.
    let script = std::fs::read_to_string(clients_folder().join("psql.sql")).unwrap();
    let mut copies = 0;
    let mut open = None;
    for line in script.lines() {
        if line.starts_with("copy ") && line.contains(" from stdin") {
            assert_eq!(open, None, "no end of data before {line}");
            (open, copies) = (Some(line), copies + 1);
        } else if line == "\\." {
            open = None;
        }
    }
    assert_eq!(open, None, "no end of data");
    assert!(copies >= 5, "{copies}");
}

// Masks and secrets in what is stored of requests.

#[test]
fn m20_only_what_belongs_to_masked_columns_is_withheld() {
    let masked = Masked::new(crate::masking::MASKS);
    let token = masked.gateway.issuer().token("agent");
    let mut talk = Talk::opened(masked.gateway.address(), "agent", "orders", &token);
    let mut ask = |sql: &str| _ = talk.ask(&[query(sql)]);
    ask("select name, ssn from customers where id = 770042 limit 770010 offset 770011");
    ask("select email from customers c where c.id in (770001, 770002) and name like '%770003%'");
    ask(
        "select ssn from customers where id between 770004 and -770005 or not (id = '770006'::int)",
    );
    ask("update customers set name = 'shown-770007' where id = 770008 and ssn = 'hidden-1'");
    ask("insert into customers (id, name, ssn) values (770009, 'shown-770012', 'hidden-2')");
    ask("delete from customers where ssn = 'hidden-3' and id = 770013");
    ask(
        "select c.ssn from customers c join customers d on d.id = 770014 where c.email = 'hidden-4'",
    );
    // Where nothing proves it, it is withheld.
    ask("select ssn from customers where lower(name) = 'hidden-5'");
    ask("select ssn from customers order by name || 'hidden-6'");
    ask("select ssn from customers where no_such_column = 'hidden-7'");
    ask("select ssn from customers where id = (select 1 where 'hidden-8' = 'x')");
    ask(
        "with orders as (select ssn as id from customers) select id from orders where id = 'hidden-9'",
    );
    ask(
        "select ssn from (select ssn as name from customers) c, customers d where name = 'hidden-10'",
    );
    ask("select ssn from customers c (ssn, id) where id = 'hidden-11'");
    ask("select ssn from customers where customers.to_json = 'hidden-12'");
    ask("insert into customers values (1, 'hidden-13')");
    let said = talk.ask(&[
        parse("", "select ssn from customers where id = $1 and ssn = $2 limit $3"),
        bind("", "", &["770015", "hidden-14", "770016"]),
        execute(""),
        sync(),
    ]);
    assert!(said.iter().any(|line| line.starts_with("C[SELECT")), "{said:?}");
    talk.ask(&[
        parse("", "select ssn from customers where name = $1 and ssn = $1"),
        bind("", "", &["hidden-15"]),
        execute(""),
        sync(),
    ]);
    drop(talk);
    assert!(masked.gateway.stop().success());
    let recorded = masked.gateway.all_contents();
    for shown in (770_001..=770_016).chain([770_042]) {
        assert!(contains(&recorded, &shown.to_string()), "{shown} is withheld");
    }
    for hidden in 1..=15 {
        assert!(!contains(&recorded, &format!("hidden-{hidden}")), "hidden-{hidden} is stored");
    }
}

#[test]
fn m21_settings_of_applications_and_options_are_secrets() {
    let masks = "[[mask]]\nname = \"ssn\"\ncolumns = [\"public.people.ssn\"]\n";
    for policy in ["", masks] {
        let site = Site::with(policy);
        assert!(says(&site.database.client(), &["create table people (ssn text)"]).0);
        let mut talk = site.talk();
        let said = talk.ask(&[query("select set_config('myapp.jwt', 'hunter2', false)")]);
        assert_eq!(said[1], "D[hunter2]", "the client gets its own");
        for sql in [
            "select current_setting('myapp.jwt')",
            "show myapp.jwt",
            "set myapp.jwt = 'hunter2'",
            "set jwt = 'hunter2'",
            "select set_config('jwt', 'hunter2', false)",
            "select set_config(n, 'hunter2', false) from (select 'myapp.key') as x (n)",
            "prepare p as select current_setting('myapp.jwt')",
            "execute p",
            "copy (select current_setting('myapp.jwt')) to stdout",
            "begin",
            "declare c cursor for select current_setting('myapp.jwt')",
            "fetch all from c",
            "rollback",
            "import foreign schema a from server b into c options (password 'hunter2')",
            "import foreign schema a from server b into c options (api_key 'hunter2')",
            "create server s foreign data wrapper w options (password 'hunter2')",
            "alter user mapping for public server s options (set password 'hunter2')",
            "create foreign table f (i int options (secret_key 'hunter2')) server s",
            "alter foreign table f options (add token 'hunter2')",
            "alter role nobody password 'hunter2'",
        ] {
            talk.ask(&[query(sql)]);
        }
        for sql in ["select set_config('myapp.jwt', $1, false)", "select set_config($2, $1, false)"]
        {
            let values: &[&str] =
                if sql.contains("$2") { &["hunter2", "myapp.key"] } else { &["hunter2"] };
            talk.ask(&[parse("", sql), bind("", "", values), execute(""), sync()]);
        }
        // What is known to be harmless stays.
        talk.ask(&[query("select set_config('work_mem', '7777kB', false)")]);
        let said = talk.ask(&[run("select current_setting('myapp.jwt')"), sync()]);
        assert!(said.contains(&"D[hunter2]".to_owned()), "{said:?}");
        drop(talk);
        let recorded = site.recorded();
        assert!(!contains(&recorded, "hunter2"));
        assert!(contains(&recorded, "7777kB"));
    }
}

// Certificates of targets.

#[test]
fn o05_a_certificate_in_ca_is_trusted_byte_for_byte() {
    let folder = TempDir::new().unwrap();
    let openssl = |arguments: &[&str]| {
        let mut openssl = Command::new("openssl");
        openssl.args(arguments).current_dir(folder.path());
        let (succeeded, said) = transcript(openssl);
        assert!(succeeded, "{said}");
    };
    let subject = ["-subj", "/CN=dbhost.example.com"];
    // As PostgreSQL's manual makes one, and one of version 1.
    openssl(
        &[
            &[
                "req", "-new", "-x509", "-days", "365", "-nodes", "-text", "-out", "own.crt",
                "-keyout", "own.key",
            ][..],
            &subject,
        ]
        .concat(),
    );
    openssl(
        &[&["req", "-new", "-nodes", "-out", "v1.csr", "-keyout", "v1.key"][..], &subject].concat(),
    );
    openssl(&[
        "x509", "-req", "-in", "v1.csr", "-days", "365", "-signkey", "v1.key", "-out", "v1.crt",
    ]);
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    for (name, hint) in [("own", "marked as an authority"), ("v1", "of version 1")] {
        for versions in ["TLSv1.2", "TLSv1.3"] {
            let data = TempDir::new().unwrap();
            std::fs::set_permissions(data.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
            let file = |kind: &str| {
                let path = data.path().join(format!("server.{kind}"));
                private_file(&path, &read(&format!("{name}.{kind}")));
                path
            };
            let (certificate, key) = (file("crt"), file("key"));
            let server = PostgresServer::start(&Options {
                settings: tls_settings(&certificate, &key, versions),
                ..Options::default()
            });
            let other = crate::support::certificates::Authority::new();
            let root = folder.path().join("other.crt");
            std::fs::write(&root, other.pem()).unwrap();
            let database = Database::on(&server);
            let target = |target: &str, ca: &Path| {
                let lines = format!("tls = \"verify-full\"\nca = {:?}\n", ca.display().to_string());
                crate::support::gateway::Target { lines, ..database.target(target) }
            };
            let gateway = Gateway::start(&Setup::for_targets([
                target("pinned", &certificate),
                target("unknown", &root),
            ]));
            let (succeeded, said) = says(&gateway.client("pinned"), &["select 1"]);
            assert!(succeeded && said == "1\n", "{name} {versions}: {said}");
            let (succeeded, _) = says(&gateway.client("unknown"), &["select 1"]);
            assert!(!succeeded);
            wait_until("the hint in the log", || {
                let log = gateway.daemon().log();
                log.contains(hint) && log.contains("that very certificate")
            });
        }
    }
}

fn tls_settings(certificate: &Path, key: &Path, version: &str) -> Vec<(String, String)> {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    [
        ("ssl", "on".to_owned()),
        ("ssl_cert_file", text(certificate)),
        ("ssl_key_file", text(key)),
        ("ssl_min_protocol_version", version.to_owned()),
        ("ssl_max_protocol_version", version.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}
