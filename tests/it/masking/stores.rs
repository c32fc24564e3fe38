//! What is stored of masked columns: nothing, whoever sees them.

use super::{MASKS, Masked, SENTINELS, run};
use crate::support::gateway::Setup;

/// Values that the client itself sends.
const SENT: &[&str] = &["carol.sent", "333-44-5555", "dave.sent", "eve.sent", "frank.sent"];

#[test]
fn what_a_client_writes_into_a_masked_column_is_in_no_store() {
    let masked = Masked::new(MASKS);
    for statement in [
        "insert into customers (id, email) values (11, 'carol.sent@x.com')",
        "insert into customers (id, email) values (12, 'carol.sent@x.com')",
        "insert into customers values (13, 'Dave', 'dave.sent@x.com', '333-44-5555')",
        "update customers set email = 'eve.sent@x.com' where ssn = '333-44-5555'",
        "select id from customers where email = 'eve.sent@x.com'",
        "explain select id from customers where email = 'eve.sent@x.com'",
        "prepare p (text) as update customers set email = $1 where id = 13; execute p('frank.sent@x.com')",
        "delete from customers where ssn = '333-44-5555'",
    ] {
        masked.says(statement);
    }
    let mut psql = masked.gateway.client("orders").psql();
    psql.args(["-c", r"\copy customers (id, email) from program 'echo 14,carol.sent@y.com' csv"]);
    let (succeeded, said) = crate::support::client::transcript(psql);
    assert!(succeeded, "{said}");
    assert_eq!(masked.says("select count(*) from customers where id = 14"), "1\n");
    masked.finish(SENT);
}

#[test]
fn a_lifted_mask_shows_to_the_client_alone() {
    let masks = MASKS.replace("pii-readers", "agents");
    let masked = Masked::new(&masks);
    let said = masked.says("select email, ssn from customers where id = 1");
    assert_eq!(said, "alice.secret@example.com|[masked]\n");
    assert_eq!(
        masked.says("select upper(email) from customers where id = 2"),
        "BOB.SECRET@EXAMPLE.COM\n"
    );
    masked.says("copy (select email from customers) to stdout");
    masked.says("select id from customers where email::int = 1");
    masked.says("insert into vendors select id, email from customers where id = 1 returning email");
    masked.finish(SENTINELS);
}

#[test]
fn patterns_are_masked_wherever_they_stand() {
    let masked = Masked::new(
        "[[mask]]\nname = \"everywhere\"\npatterns = [\"email\", \"credit-card\", \"us-ssn\"]\n",
    );
    for statement in [
        "select * from customers",
        "select get_contact(1), 'alice.secret@example.com'",
        "select to_jsonb(c) from customers c",
        "select array_agg(email) from customers",
        "select tells()",
        "listen ch; select pg_notify('ch', email) from customers",
        "select id from customers where email::int = 1",
        "copy customers to stdout",
        "select 4111111111111111::bigint",
        "set application_name = 'alice.secret@example.com'",
    ] {
        masked.shows_nothing(statement);
    }
    // However the bytes are cut on their way.
    for before in [8 << 10, 64 << 10, 200 << 10] {
        let said = masked.shows_nothing(&format!(
            "select repeat('-', {before} - n) || 'alice.secret@example.com' from generate_series(1, 40) n"
        ));
        assert_eq!(said.matches("[email]").count(), 40);
    }
    // However the bytes are cut on their way.
    for before in [8 << 10, 64 << 10, 200 << 10] {
        let said = masked.shows_nothing(&format!(
            "select repeat('-', {before} - n) || ' alice.secret@example.com' from generate_series(1, 40) n"
        ));
        assert_eq!(said.matches("[email]").count(), 40);
    }
    assert_eq!(
        masked.says("select '{\"a\": \"bob.secret@x.com\"}'::jsonb"),
        "{\"a\": \"[email]\"}\n"
    );
    masked.finish(SENTINELS);
}

#[test]
fn what_was_masked_is_counted_with_its_command() {
    let masked = Masked::new(MASKS);
    masked.says("select email, ssn, name from customers where id < 10");
    masked.gateway.stop();
    let stored = String::from_utf8_lossy(&masked.gateway.all_contents()).into_owned();
    assert!(stored.contains(r#""masked":{"contacts":2,"numbers":2}"#), "{stored}");
}

#[test]
fn a_catalog_that_cannot_be_read_lets_nothing_pass() {
    let masked = Masked::with(MASKS, Setup::default());
    // The role may open the session's connection, and no second one.
    let server = &crate::support::postgres::PostgresServer::shared().server;
    let role = &masked.database.role;
    server.superuser_psql(&format!("alter role {role} connection limit 1"));
    let (_, said) = run(&masked.gateway.client("orders"), "select 1");
    assert!(said.contains("the target's catalog cannot be read"), "{said}");
    server.superuser_psql(&format!("alter role {role} connection limit -1"));
    assert_eq!(masked.says("select 1"), "1\n");
    masked.finish(SENTINELS);
}
