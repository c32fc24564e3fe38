//! Rules at work in real sessions: what is blocked does not reach the server, the session goes on,
//! and no detour through names, settings or pipelines leads around a rule.

use crate::support::client::{Database, clients_folder, transcript};
use crate::support::gateway::{Gateway, Setup, told};
use crate::support::postgres::PostgresServer;
use crate::support::talk::{Talk, bind, execute, parse, query, run, sync};

const POLICY: &str = r#"
[[rule]]
name = "no-drop"
actions = ["sql.drop", "sql.truncate"]
verdict = "block"
reason = "Not by an agent."

[[rule]]
name = "no-whole-table"
actions = ["sql.update", "sql.delete"]
when = "effect.where_names_column == false"
verdict = "block"
reason = "Say which rows."

[[rule]]
name = "no-secrets"
objects = ["table:public.secrets", "column:public.people.ssn"]
verdict = "block"
"#;

/// A database with three rows in `t`, before it a gateway with these rules.
struct Site {
    database: Database,
    gateway: Gateway,
}

impl Site {
    fn with(policy: &str) -> Self {
        let database = Database::fresh();
        let server = &PostgresServer::shared().server;
        server.psql(
            &database.name,
            &format!(
                "set role {}; create table public.t (i int primary key, note text); \
                 insert into t values (1, ''), (2, ''), (3, ''); \
                 create table secrets (value text); create table people (name text, ssn text)",
                server_role(&database)
            ),
        );
        let policy = policy.to_owned();
        let gateway =
            Gateway::start(&Setup { policy, ..Setup::for_targets([database.target("orders")]) });
        Self { database, gateway }
    }

    fn talk(&self) -> Talk {
        let token = self.gateway.issuer().token("agent");
        Talk::opened(self.gateway.address(), "agent", "orders", &token)
    }

    fn rows(&self) -> String {
        PostgresServer::shared().server.psql(&self.database.name, "select count(*) from t")
    }

    fn finish(&self) {
        assert!(self.gateway.stop().success());
        self.gateway.verify_all();
    }
}

fn server_role(database: &Database) -> &str {
    &database.role
}

/// The refusal, with what follows it; whatever the session's id is.
fn refused(said: &[String], reason: &str) -> bool {
    let start = format!("E[42501: {reason} (Session ");
    said.iter().filter(|line| line.starts_with("E[")).count() == 1
        && said.iter().any(|line| line.starts_with(&start))
}

#[test]
fn a_blocked_statement_never_reaches_the_server_and_the_session_goes_on() {
    let site = Site::with(POLICY);
    let mut talk = site.talk();
    let said = talk.ask(&[query("select 1; drop table t")]);
    assert!(refused(&said, "Not by an agent.") && said.last().unwrap() == "ZI", "{said:?}");
    assert_eq!(talk.ask(&[query("select 1")]), ["T(1)", "D[1]", "C[SELECT 1]", "ZI"]);

    // In a transaction it fails as any statement does.
    assert_eq!(talk.ask(&[query("begin")]), ["C[BEGIN]", "ZT"]);
    let said = talk.ask(&[query("with x as (delete from t returning i) select * from x")]);
    assert!(refused(&said, "Say which rows.") && said.last().unwrap() == "ZE", "{said:?}");
    let said = talk.ask(&[query("select 1")]);
    assert!(said[0].starts_with("E[25P02") && said[1] == "ZE", "{said:?}");
    assert_eq!(talk.ask(&[query("rollback")]), ["C[ROLLBACK]", "ZI"]);

    // In the extended protocol the server skips to the Sync, and no further.
    let said = talk.ask(&[
        run("delete from t where i = 1"),
        run("truncate t"),
        run("delete from t where i = 2"),
        sync(),
        run("select count(*) from t"),
        sync(),
    ]);
    assert!(refused(&said, "Not by an agent."), "{said:?}");
    assert_eq!(said[3..][1..], ["ZI", "1", "2", "D[3]", "C[SELECT 1]", "ZI"], "{said:?}");
    let log = PostgresServer::shared().server.log_text();
    let of_this = |line: &&str| line.contains(&site.database.role);
    assert!(!log.lines().filter(of_this).any(|line| line.contains("truncate t")), "it came");
    assert_eq!(site.rows(), "3");
    site.finish();
}

#[test]
fn columns_and_tables_are_found_wherever_they_stand() {
    let site = Site::with(POLICY);
    let mut talk = site.talk();
    for sql in [
        "select ssn from people",
        "select * from people",
        "select name from people order by ssn",
        "select (select value from public.secrets limit 1)",
        "explain analyze table secrets",
        "copy (table secrets) to stdout",
    ] {
        let said = talk.ask(&[query(sql)]);
        assert!(said[0].starts_with("E[42501"), "{sql}: {said:?}");
        let said = talk.ask(&[run(sql), sync()]);
        assert!(said[0].starts_with("E[42501"), "{sql}: {said:?}");
    }
    let said = talk.ask(&[query("select name, count(*) from people group by name")]);
    assert_eq!(said, ["T(2)", "C[SELECT 0]", "ZI"]);
    let said = talk.ask(&[query("select 'drop table t' as \"drop\" -- truncate t")]);
    assert_eq!(said, ["T(1)", "D[drop table t]", "C[SELECT 1]", "ZI"]);
    site.finish();
}

#[test]
fn a_statement_is_decided_by_the_rules_in_force_when_it_runs() {
    let site = Site::with("");
    let mut talk = site.talk();
    let prepared = "delete from t where i = $1";
    assert_eq!(talk.ask(&[parse("s", prepared), sync()]), ["1", "ZI"]);
    assert_eq!(talk.ask(&[query("prepare q as delete from t where i = 2")]), ["C[PREPARE]", "ZI"]);
    let run = [bind("", "s", &["1"]), execute(""), sync()];
    assert_eq!(talk.ask(&run), ["2", "C[DELETE 1]", "ZI"]);

    let rule =
        "\n[[rule]]\nname = \"no-delete\"\nactions = [\"sql.delete\"]\nverdict = \"block\"\n";
    let reloaded = site.gateway.reload(|text| text + rule);
    assert!(reloaded.status.success(), "{}", told(&reloaded));
    let said = talk.ask(&run);
    assert!(said.contains(&"2".to_owned()) && said[1].starts_with("E[42501"), "{said:?}");
    let said = talk.ask(&[query("execute q")]);
    assert!(said[0].starts_with("E[42501"), "{said:?}");
    assert_eq!(site.rows(), "2");

    let reloaded = site.gateway.reload(|text| text.replace(rule, ""));
    assert!(reloaded.status.success(), "{}", told(&reloaded));
    assert_eq!(talk.ask(&[query("execute q")]), ["C[DELETE 1]", "ZI"]);
    assert_eq!(talk.ask(&run), ["2", "C[DELETE 0]", "ZI"]);
    site.finish();
}

#[test]
fn what_is_run_by_name_is_what_was_prepared_under_it() {
    let site = Site::with(POLICY);
    let mut talk = site.talk();
    // PREPARE and DECLARE say what they are for.
    let said = talk.ask(&[query("prepare p as delete from t")]);
    assert!(refused(&said, "Say which rows."), "{said:?}");
    let said = talk.ask(&[query("execute p")]);
    assert!(said[0].contains("could not be understood"), "{said:?}");
    // A prepared statement of the protocol is SQL's, too, and the other way round.
    assert_eq!(talk.ask(&[parse("p", "select 1 as a"), sync()]), ["1", "ZI"]);
    assert_eq!(talk.ask(&[query("execute p")])[..2], ["T(1)", "D[1]"]);
    assert_eq!(talk.ask(&[query("deallocate p; prepare p as select 2")])[1], "C[PREPARE]");
    assert_eq!(talk.ask(&[bind("", "p", &[]), execute(""), sync()])[1], "D[2]");
    assert_eq!(
        talk.ask(&[query("begin; declare c cursor for select 3"), execute("c"), sync()])[3..],
        ["D[3]", "C[SELECT 1]", "ZT"]
    );
    // Names that nobody made are the server's to refuse.
    let said = talk.ask(&[query("rollback"), execute("gone"), sync()]);
    assert!(said[2].starts_with("E[34000"), "{said:?}");
    let said = talk.ask(&[bind("", "gone", &[]), execute(""), sync()]);
    assert!(said[0].starts_with("E[26000"), "{said:?}");
    // What a function opened out of sight may be anything.
    let opens = "create function opens() returns refcursor language plpgsql as \
                 $$declare c refcursor := 'unseen'; begin open c for table t; return c; end$$";
    PostgresServer::shared().server.psql(&site.database.name, opens);
    assert_eq!(talk.ask(&[query("begin; select opens()")]).last().unwrap(), "ZT");
    let said = talk.ask(&[execute("unseen"), sync()]);
    assert!(said[0].contains("could not be understood") && said[1] == "ZE", "{said:?}");
    site.finish();
}

#[test]
fn settings_do_not_change_under_the_gateways_feet() {
    let site = Site::with(POLICY);
    let mut talk = site.talk();
    let trick = r"delete from t where note = '\'' or i > 0 --'";
    let off = "select set_config('standard_conforming_strings', 'off', false)";
    // With the setting on it is no statement at all; with it off, it deletes rows by their column.
    let said = talk.ask(&[run(off), run(r"select '\'' from t --'"), sync()]);
    assert!(said.iter().any(|line| line.starts_with("E[42501")), "{said:?}");
    assert!(said.contains(&"ZI".to_owned()));
    // The change was rolled back with the pipeline. Now it stays, and is followed.
    assert!(talk.ask(&[query(off)]).contains(&"S[standard_conforming_strings=off]".to_owned()));
    let said = talk.ask(&[query(r"select '\'; drop table t; --' as x")]);
    assert_eq!(said.last().unwrap(), "ZI");
    assert!(said[0] != "E" && said.contains(&"C[SELECT 1]".to_owned()), "{said:?}");
    let said = talk.ask(&[query(r"select '\'; drop table t; --'; drop table t; --'")]);
    assert!(refused(&said, "Not by an agent."), "{said:?}");
    let said = talk.ask(&[query(trick)]);
    assert!(said.contains(&"C[DELETE 3]".to_owned()), "a condition names a column: {said:?}");
    // Behind a change of encoding that is not answered, foreign letters may be anything.
    let said = talk.ask(&[run("set client_encoding = 'UTF8'"), run("select 'é'"), sync()]);
    assert!(said.iter().any(|line| line.starts_with("E[42501")), "{said:?}");
    let said = talk.ask(&[run("select 'ü'"), run("select 'é'"), sync()]);
    assert!(said.contains(&"D[é]".to_owned()), "{said:?}");
    site.finish();
}

#[test]
fn secrets_in_statements_are_not_recorded() {
    let site = Site::with("");
    let mut talk = site.talk();
    talk.ask(&[query("alter role nobody_here password 'hunter2pass'")]);
    talk.ask(&[query("select 1 /* token=ghp_abcdEFGH1234567890 */")]);
    talk.ask(&[
        parse("", "select set_config($1, $2, true)"),
        bind("", "", &["my.jwt", "eyJx-tok"]),
    ]);
    talk.ask(&[execute(""), sync()]);
    drop(talk);
    site.finish();
    let stored = String::from_utf8_lossy(&site.gateway.all_contents()).into_owned();
    assert!(stored.contains("alter role nobody_here password ?"), "the view is there");
    for secret in ["hunter2pass", "ghp_abcd"] {
        assert!(!stored.contains(secret), "{secret}");
    }
    assert!(!stored.contains(r#"parameters":["my.jwt","eyJx-tok"]"#));
}

#[test]
fn ordinary_clients_go_on_in_the_same_session_after_a_block() {
    let site = Site::with(POLICY);
    let database = &site.database;
    PostgresServer::shared().server.psql(
        &database.name,
        &format!("set role {}; create table public.kept (i int primary key)", database.role),
    );
    let client = site.gateway.client("orders");
    let (succeeded, said) = transcript(client.python("after_a_block.py"));
    assert!(succeeded, "{said}");
    let blocked = "('42501', 'Not by an agent.', True)";
    let expected = format!(
        "== psycopg
blocked: {blocked}
goes on: (1,)
blocked: {blocked}
goes on: (1,)
a cursor: [(1,), (2,)]
in a transaction: {blocked}
the cursor: [(3,), (4,), (5,)]
the transaction fails: {blocked}
in a pipeline: True
the pipeline goes on: ('last',)
status: 'IDLE'
kept: [(1,), (2,), (10,)]
== asyncpg
blocked: {blocked}
goes on: 2
blocked: {blocked}
goes on: 2
in a transaction: {blocked}
a prepared statement: 2
is not prepared: {blocked}
the prepared statement: 2
== SQLAlchemy
blocked: ('ProgrammingError', {blocked}, False)
nested: {blocked}
the same session: True
kept: [31, 32]
asynchronously: 'ProgrammingError'
goes on: 3
"
    );
    assert_eq!(said, expected, "{said}");

    let mut psql = client.postgres_program("psql");
    psql.args(["-X", "-A", "-t", "-q", "-f"]).arg(clients_folder().join("after_a_block.sql"));
    let (_, said) = transcript(psql);
    let said: Vec<&str> =
        said.lines().map(|l| l.rsplit_once("ERROR:  ").map_or(l, |e| e.1)).collect();
    let expected = "42501|goes on|1|42501|42501|42501|25P02|42501|42|43";
    assert_eq!(said.join("|"), expected);
    site.finish();
}
