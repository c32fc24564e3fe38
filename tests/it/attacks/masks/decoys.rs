//! Tables of the name of a masked one, in a schema that is searched first: whatever becomes of them
//! between the gateway's decision and the server's, nothing masked is found in their place.

use super::refused;
use crate::masking::{MASKS, Masked, SENTINELS, run as psql};
use crate::support::daemon::wait_until;
use crate::support::postgres::PostgresServer;
use crate::support::talk::{Talk, bind, execute, parse, query, sync};

/// True for the masked table's values alone.
const ORACLE: &str = "select count(*) from customers where ssn like '078%'";

/// A masked table, and an empty one of its name that a new session finds.
struct Decoy(Masked);

impl Decoy {
    fn new() -> Self {
        let decoy = Self(Masked::new(MASKS));
        decoy.as_owner(
            "create schema decoy; alter role current_user set search_path = decoy, public",
        );
        decoy.made();
        decoy
    }

    fn as_owner(&self, sql: &str) {
        let (succeeded, said) = psql(&self.0.database.client(), sql);
        assert!(succeeded, "{said}");
    }

    fn made(&self) {
        self.as_owner("create table if not exists decoy.customers (ssn text, email text)");
    }

    /// A session for which the gateway has looked at the catalog.
    fn talk(&self) -> Talk {
        let mut talk = self.0.talk();
        let said = talk.ask(&[query(ORACLE)]);
        assert!(said.contains(&"D[0]".to_owned()), "{said:?}");
        talk
    }
}

#[track_caller]
fn tells_nothing(said: &[String]) {
    assert!(!said.iter().any(|line| line == "D[1]"), "{said:?}");
    let told = said.join(" ");
    assert!(!SENTINELS.iter().any(|sentinel| told.contains(sentinel)), "{said:?}");
}

#[test]
fn a_decoy_that_goes_within_a_message_or_a_pipeline_uncovers_nothing() {
    let decoy = Decoy::new();
    let drop_it = "drop table decoy.customers";
    for before in ["", "begin; ", "set search_path = decoy, public; "] {
        decoy.made();
        let mut talk = decoy.talk();
        tells_nothing(&talk.ask(&[query(&format!("{before}{drop_it}; {ORACLE}"))]));
        talk.ask(&[query("rollback")]);
    }
    for statement in [
        ORACLE,
        "select id from customers order by ssn limit 1",
        "delete from customers where ssn = '078-05-1120' returning 1",
        "update customers set ssn = 'x' where ssn = '078-05-1120' returning 1",
        "insert into decoy.found select count(*) from customers where ssn like '078%' returning 1",
        "merge into customers c using (values (1)) v (x) on c.ssn = '078-05-1120' when matched then delete",
        "with c as (table customers) select count(*) from c where ssn like '078%'",
        "select count(*) from only customers where ssn like '078%'",
        "select count(*) from customers tablesample system (100) where ssn like '078%'",
        "explain select 1 from customers where ssn like '078%'",
    ] {
        decoy.made();
        let mut talk = decoy.talk();
        let said = talk.ask(&[
            parse("u", statement),
            parse("", drop_it),
            bind("", "", &[]),
            execute(""),
            bind("", "u", &[]),
            execute(""),
            sync(),
        ]);
        tells_nothing(&said);
    }
    let left = psql(
        &decoy.0.database.client(),
        "select count(*) from public.customers where ssn = '078-05-1120'",
    )
    .1;
    assert_eq!(left.trim(), "1");
}

#[test]
fn a_decoy_that_goes_while_a_statement_waits_for_it_uncovers_nothing() {
    let decoy = Decoy::new();
    let (mut waiting, mut dropping) = (decoy.talk(), decoy.talk());
    dropping.ask(&[query("begin; drop table decoy.customers")]);
    waiting.send(&query(ORACLE));
    let server = &PostgresServer::shared().server;
    let waits = format!(
        "select count(*) from pg_locks l join pg_database d on d.oid = l.database \
         where not granted and d.datname = '{}'",
        decoy.0.database.name
    );
    wait_until("the statement to wait", || server.superuser_psql(&waits) == "1");
    dropping.ask(&[query("commit")]);
    tells_nothing(&waiting.until_ready(1));
}

#[test]
fn a_decoy_that_goes_past_the_gateway_or_cannot_be_reached_uncovers_nothing() {
    let decoy = Decoy::new();
    let mut talk = decoy.talk();
    decoy.as_owner("drop table decoy.customers");
    tells_nothing(&talk.ask(&[query(ORACLE)]));

    // The server skips a schema that the role may not use.
    decoy.made();
    let server = &PostgresServer::shared().server;
    let name = &decoy.0.database.name;
    server.psql(name, "alter schema decoy owner to postgres");
    let mut talk = decoy.0.talk();
    tells_nothing(&talk.ask(&[query(ORACLE)]));
    tells_nothing(&decoy.0.talk().ask(&[query(ORACLE)]));
}

#[test]
fn a_session_of_another_role_uncovers_nothing() {
    let decoy = Decoy::new();
    let owner = decoy.0.says("select current_user").trim().to_owned();
    let server = &PostgresServer::shared().server;
    server.psql(
        &decoy.0.database.name,
        &format!(
            "create role {owner}_else; grant {owner}_else to {owner}; \
             alter role {owner} set search_path = \"$user\", public; \
             create schema {owner} authorization {owner}; \
             create table {owner}.customers (ssn text); alter table {owner}.customers owner to {owner}; \
             grant select on public.customers to {owner}_else"
        ),
    );
    let token = decoy.0.gateway.issuer().token("agent");
    let role = format!("-c role={owner}_else");
    let mut talk =
        Talk::open(decoy.0.gateway.address(), "agent", "orders", &token, &[("options", &role)]);
    talk.until_ready(1);
    tells_nothing(&talk.ask(&[query(ORACLE)]));
    drop(talk);
    server.psql(
        &decoy.0.database.name,
        &format!("drop schema {owner} cascade; drop owned by {owner}_else; drop role {owner}_else"),
    );
}

#[test]
fn nobody_makes_a_decoy_through_the_gateway() {
    let masked = Masked::new(MASKS);
    let owner = |sql: &str| assert!(psql(&masked.database.client(), sql).0);
    owner("create schema decoy");
    let mut talk = masked.talk();
    for statement in [
        "create table decoy.customers (id int)",
        "create table if not exists decoy.customers (id int)",
        "create view decoy.customers as select 1 as id",
        "create materialized view decoy.customers as select 1 as id",
        "create table decoy.customers as select 1 as id",
        "select 1 as id into decoy.customers",
        "create schema other create table customers (id int)",
        "create sequence decoy.customers",
        "create foreign table decoy.customers (id int) server nowhere",
    ] {
        let said = talk.ask(&[query(statement)]);
        assert!(refused(&said), "{statement}: {said:?}");
    }
    // What only the session finds, and other names.
    for statement in ["create table decoy.other (id int)", "create temp table customers (id int)"] {
        let said = talk.ask(&[query(statement)]);
        assert!(!refused(&said), "{statement}: {said:?}");
    }
}

#[test]
fn nobody_changes_who_may_get_at_masked_data() {
    let masked = Masked::new(MASKS);
    let mut talk = masked.talk();
    for statement in [
        "alter role current_user password 'x'",
        "alter user current_user set local_preload_libraries = 'nope'",
        "alter role all set search_path = decoy",
        "create role evil login password 'x'",
        "create user evil",
        "create group evil",
        "grant select on customers to public",
        "grant pg_read_all_data to current_user",
        "alter default privileges grant select on tables to public",
        "alter database current set search_path = decoy",
        "create database copied template postgres",
        "alter system set archive_command = 'x'",
        "create publication p for table customers",
        "reassign owned by current_user to public",
    ] {
        let said = talk.ask(&[query(statement)]);
        assert!(refused(&said), "{statement}: {said:?}");
    }
}
