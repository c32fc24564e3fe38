//! What names mean in sessions that were opened with different search paths.

use super::refused;
use crate::masking::{MASKS, Masked, SENTINELS, run as psql};
use crate::support::talk::{Talk, query};

const QUESTIONS: &[&str] = &[
    "select id from customers where ssn like '078%'",
    "select id from customers order by ssn desc",
    "table customers",
    "copy customers to stdout",
    "with c as (select * from customers) select count(*) from c where email like 'alice%'",
];

/// The path of new sessions changes while the gateway's own connection, which reads the catalog, is
/// kept open by a session of before.
#[test]
fn a_search_path_that_was_changed_for_new_sessions_uncovers_nothing() {
    let masked = Masked::new(MASKS);
    let as_owner = |sql: &str| {
        let (succeeded, said) = psql(&masked.database.client(), sql);
        assert!(succeeded, "{said}");
    };
    let token = masked.gateway.issuer().token("agent");
    let open = || Talk::opened(masked.gateway.address(), "agent", "orders", &token);
    as_owner("create schema decoy; create table decoy.customers (other text, x int)");
    for (before, after) in [("decoy, public", "public"), ("public", "decoy, public")] {
        as_owner(&format!("alter role current_user set search_path = {before}"));
        let mut first = open();
        let said = first.ask(&[query("select count(*) from customers")]);
        assert_eq!(said.last().unwrap(), "ZI", "{said:?}");
        as_owner(&format!("alter role current_user set search_path = {after}"));
        let mut second = open();
        for question in QUESTIONS {
            for talk in [&mut first, &mut second] {
                let said = talk.ask(&[query(question)]).join(" ");
                for sentinel in SENTINELS {
                    assert!(!said.contains(sentinel), "{question}: {said}");
                }
            }
            // The catalog was read with the path of the first.
            let said = second.ask(&[query(question)]);
            assert!(refused(&said), "{before}: {question}: {said:?}");
        }
        // One that is opened when nobody holds the old path any more finds what it names.
        drop((first, second));
    }
    as_owner("alter role current_user reset search_path");
    masked.finish(SENTINELS);
}

#[test]
fn a_role_that_changes_what_user_stands_for_in_the_path_uncovers_nothing() {
    let masked = Masked::new(MASKS);
    let owner = masked.says("select current_user").trim().to_owned();
    let server = &crate::support::postgres::PostgresServer::shared().server;
    let name = &masked.database.name;
    server.psql(
        name,
        &format!(
            "create role {owner}_other; grant {owner}_other to {owner}; \
             create schema {owner}_other; grant usage on schema {owner}_other to public; \
             create table {owner}_other.customers (id int, ssn text, email text); \
             grant select on {owner}_other.customers to public; \
             grant select on public.customers to {owner}_other"
        ),
    );
    // With the role's own schema in the path, the name means another table after SET ROLE.
    let said = masked.says(&format!("set role {owner}_other; table customers; reset role"));
    for sentinel in SENTINELS {
        assert!(!said.contains(sentinel), "{said}");
    }
    let said = masked.says(&format!(
        "begin; set local role {owner}_other; select id from customers where ssn like '078%'; rollback"
    ));
    assert!(said.contains("name its schema"), "{said}");
    server.psql(name, &format!("drop schema {owner}_other cascade; drop owned by {owner}_other; drop role {owner}_other"));
    masked.finish(SENTINELS);
}
