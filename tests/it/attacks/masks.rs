//! Masked columns that were reached by other ways: the value is not in the query any more.

mod ddl;
mod decoys;
mod names;
mod path;

use crate::masking::{MASKS, Masked, SENTINELS, contains};
use crate::support::postgres::PostgresServer;
use crate::support::talk::{Talk, bind, execute, parse, query, sync};

impl Masked {
    fn talk(&self) -> Talk {
        let token = self.gateway.issuer().token("agent");
        Talk::opened(self.gateway.address(), "agent", "orders", &token)
    }

    /// What a session hears of messages, one after the other; nothing masked.
    #[track_caller]
    fn hears(&self, texts: &[&str]) -> Vec<String> {
        let mut talk = self.talk();
        let said: Vec<String> = texts.iter().flat_map(|sql| talk.ask(&[query(sql)])).collect();
        for sentinel in SENTINELS {
            assert!(!contains(talk.received(), sentinel), "{texts:?}\n{said:?}");
        }
        said
    }
}

fn refused(said: &[String]) -> bool {
    said.iter().any(|line| line.starts_with("E[42501"))
}

#[test]
fn m01_functions_with_effects_get_masked_values_however_they_come() {
    let masked = Masked::new(MASKS);
    for moving in [
        "select set_config('my.v', string_agg(z, ' | '), false) from (select ssn||' '||card_number z from customers limit 3) q",
        "with q as (select ssn||email z from customers) select set_config('my.v', max(z), false) from q",
        "select set_config('my.v', (select max(ssn) from customers), false)",
        "select set_config('my.v', v.z, false) from customers c, lateral (values (c.ssn)) v (z)",
        "with recursive r (v, i) as (select ssn, 1 from customers union all select v, i + 1 from r where i < 2) select set_config('my.v', v, false) from r",
        "select set_config('my.v', f, false) from customers, unnest(array[ssn, email]) f",
        "select set_config('my.v', (c).ssn, false) from (select c from customers c) q",
        "select set_config('my.v', to_jsonb(c)::text, false) from customers c",
        "select 1 from (select ssn z from customers) q where set_config('my.v', z, false) is null",
        "select 1 from (select ssn z from customers) q order by set_config('my.v', z, false)",
        "select set_config('my.v', contact, false) from (select contact from v_customers) q",
        "select set_config('my.v', most_common_vals::text, false) from (select * from pg_stats where tablename = 'customers') s",
        "select set_config('my.v', get_contact(1), false)",
        "select set_config('my.v', x, false) from get_contact(1) x",
        "select set_config('my.v', query_to_xml('select ssn from customers', true, false, '')::text, false)",
    ] {
        let said = masked.hears(&[moving, "show my.v", "select current_setting('my.v', true)"]);
        assert!(
            said.iter().any(|line| line.starts_with("C[") || line.starts_with("E[42501")),
            "{said:?}"
        );
    }
    masked.finish(SENTINELS);
}

#[test]
fn m04_a_table_made_of_a_prepared_statement_has_masked_values() {
    let masked = Masked::new(MASKS);
    let said = masked.hears(&[
        "prepare p as select email, ssn from customers",
        "create temp table loot as execute p",
        "select * from loot order by 1",
    ]);
    assert!(said.contains(&"D[a***@example.com|[masked]]".to_owned()), "{said:?}");
    // The same by the protocol's own Parse, whose names SQL shares.
    let mut talk = masked.talk();
    let prepared = [parse("s", "select ssn||'' as x from customers"), sync()];
    talk.ask(&prepared);
    let said = talk.ask(&[query("create temp table more as execute s; select x from more")]);
    assert!(said.contains(&"D[[masked]]".to_owned()), "{said:?}");
    // And of a function whose code nobody looks into.
    let said = masked.hears(&[
        "prepare f as select get_contact(1) as x",
        "create temp table of_function as execute f",
        "select x from of_function",
    ]);
    assert!(refused(&said), "{said:?}");
    masked.finish(SENTINELS);
}

#[test]
fn m04b_what_was_prepared_before_its_mask_is_not_run() {
    let masked = Masked::new(MASKS);
    let mut talk = masked.talk();
    // A name that means something else later is looked at again.
    let said = talk
        .ask(&[query("create table later (id int, ssn text); insert into later values (1, '')")]);
    assert_eq!(said.last().unwrap(), "ZI", "{said:?}");
    talk.ask(&[parse("s", "select email from vendors"), sync()]);
    let rename = "alter table vendors rename to vendors_before; \
                  create view vendors as select id, email from customers";
    let (succeeded, told) = crate::masking::run(&masked.database.client(), rename);
    assert!(succeeded, "{told}");
    // The catalog is read again once something changed it through the gateway.
    talk.ask(&[query("create table noticed (a int)")]);
    let said = talk.ask(&[bind("", "s", &[]), execute(""), sync()]);
    assert!(refused(&said), "{said:?}");
    for sentinel in SENTINELS {
        assert!(!contains(talk.received(), sentinel), "{said:?}");
    }
    masked.finish(SENTINELS);
}

#[test]
fn m05_a_transactions_own_view_shows_nothing() {
    let masked = Masked::new(MASKS);
    for making in [
        "create temp view orders as select email||ssn as note from public.customers",
        "create or replace view v_harmless as select id, email as loud, 1 as one from customers",
        "create rule shows as on update to orders do also select ssn from customers",
        "alter table customers rename to vendors2",
        "alter table customers rename column ssn to plain",
        "create table parent (ssn text); alter table customers inherit parent",
        "create schema s create view w as select ssn from public.customers",
    ] {
        let said = masked.hears(&["begin", making, "rollback"]);
        assert!(refused(&said), "{making}\n{said:?}");
        masked.hears(&["begin", making, "select note from orders", "rollback"]);
        masked.hears(&["begin", making, "select loud from v_harmless", "rollback"]);
        masked.hears(&["begin", making, "select * from parent", "rollback"]);
    }
    masked.finish(SENTINELS);
}

#[test]
fn m06_a_table_that_is_there_already_is_not_a_new_one() {
    let masked = Masked::new(MASKS);
    let said = masked.hears(&[
        "begin; create view mm as select ssn a from customers; create table if not exists mm(a text); select a from mm",
        "rollback",
    ]);
    assert!(refused(&said), "{said:?}");
    let said = masked.hears(&[
        "begin",
        "create table if not exists v_customers (contact text)",
        "select contact||'' from v_customers",
        "rollback",
    ]);
    assert!(
        !said.iter().any(|line| line.contains("@example.com") && !line.contains("***")),
        "{said:?}"
    );
    masked.finish(SENTINELS);
}

#[test]
fn m08_a_condition_sees_masked_values_through_a_subquery() {
    for policy in ["", "[policy]\nunprovable = \"block\"\n"] {
        let masked = Masked::new(&format!("{policy}{MASKS}"));
        let guesses = ["078%", "777%"].map(|guess| {
            masked.hears(&[&format!(
                "select q.id from (select id, ssn z from customers) q where z like '{guess}'"
            )])
        });
        let rows = |said: &[String]| said.iter().filter(|line| line.starts_with("D[")).count();
        assert_eq!(rows(&guesses[0]), rows(&guesses[1]), "{guesses:?}");
        masked.finish(SENTINELS);
    }
}

#[test]
fn m09_set_operations_orders_and_joins_see_masked_values() {
    for policy in ["", "[policy]\nunprovable = \"block\"\n"] {
        let masked = Masked::new(&format!("{policy}{MASKS}"));
        for template in [
            "select ssn from customers intersect select '?'",
            "select id from (select id, ssn z from customers) q order by z = '?', id",
            "select id from (select id, ssn z from customers) q join (values ('?')) v (x) on z = x",
        ] {
            let [right, wrong] = ["078-05-1120", "777-88-1001"]
                .map(|guess| masked.talk().ask(&[query(&template.replace('?', guess))]));
            let rows = |said: Vec<String>| -> Vec<String> {
                said.into_iter().filter(|line| line.starts_with("D[")).collect()
            };
            assert_eq!(rows(right), rows(wrong), "{template}");
        }
        masked.finish(&["alice.secret"]);
    }
}

#[test]
fn m12_a_definition_does_not_read_masked_columns() {
    let masked = Masked::new(MASKS);
    for altering in [
        "alter table customers alter column note type text using ssn",
        "alter table customers add column g text generated always as (ssn || '') stored",
        "alter table customers add check (ssn like '7%')",
        "update customers set note = ssn",
        "update customers c set note = c::text",
    ] {
        let said = masked.hears(&["begin", altering, "select note from customers", "rollback"]);
        assert!(refused(&said), "{altering}\n{said:?}");
    }
    masked.finish(SENTINELS);
}

#[test]
fn m15_a_function_fetches_masked_values_from_a_cursor() {
    let masked = Masked::new(MASKS);
    let function = "create function fc(refcursor) returns text language plpgsql as \
        $$ declare x text; begin fetch $1 into x; return x::text; end $$";
    let (succeeded, said) = crate::masking::run(&masked.database.client(), function);
    assert!(succeeded, "{said}");
    let said = masked.hears(&[
        "begin; declare cc cursor for select ssn||email||card_number from customers",
        "select fc('cc')",
        "rollback",
    ]);
    assert!(said.contains(&"D[[masked]a***@example.com[masked]]".to_owned()), "{said:?}");
    masked.finish(SENTINELS);
}

#[test]
fn m24_copy_of_a_table_whose_name_another_schema_has_is_masked_like_a_select() {
    let masked = Masked::new(MASKS);
    let other = "create schema other; create table other.customers (a int, b text); \
        create table other.people (id int, email text)";
    let (succeeded, said) = crate::masking::run(&masked.database.client(), other);
    assert!(succeeded, "{said}");
    let copied = masked.shows_nothing("copy customers (id, name, email, ssn) to stdout");
    assert!(copied.starts_with("1\tAlice\ta***@example.com\t[masked]\n"), "{copied}");
    let copied = masked.shows_nothing("copy other.customers to stdout; copy people to stdout");
    assert!(!copied.contains("ERROR"), "{copied}");
    // With another path it is not certain which is meant.
    let said = masked.hears(&["set search_path = other, public", "copy customers to stdout"]);
    assert!(refused(&said), "{said:?}");
    let said =
        masked.hears(&["set search_path = other, public", "copy public.customers to stdout"]);
    assert!(!refused(&said), "{said:?}");
    masked.finish(SENTINELS);
}

#[test]
fn p21_what_is_proven_comes_as_it_is() {
    let masked = Masked::new(MASKS);
    for (sql, expected) in [
        (
            "with u as (update customers set note = 'x' where id = 1 returning id, email) select * from u",
            "1|a***@example.com\n",
        ),
        ("select count(*) from (select email, ssn from customers) q", "3\n"),
        (
            "with d as (delete from customers where id = 77 returning *) select count(*) from d",
            "0\n",
        ),
        (
            "insert into vendors select 5, email from customers where id = 1 returning id, email",
            "5|a***@example.com\n",
        ),
        (
            "copy (select id, email, ssn from customers where id = 1) to stdout",
            "1\ta***@example.com\t[masked]\n",
        ),
        ("select row_to_json(c)->>'name' from customers c where id = 2", "Bob\n"),
    ] {
        assert_eq!(masked.shows_nothing(sql), expected, "{sql}");
    }
    let binary = masked
        .shows_nothing("copy (select email, ssn, name from customers) to stdout (format binary)");
    assert!(binary.contains("a***@example.com") && binary.contains("Alice"), "{binary}");
    masked.finish(SENTINELS);
}

#[test]
fn a_statement_without_masked_columns_goes_up_byte_for_byte() {
    let masked = Masked::new(MASKS);
    let sql = "select /* as it is */ 'unchanged-7f3a', id  from orders where id=1";
    assert_eq!(masked.says(sql), "unchanged-7f3a|1\n");
    let log = PostgresServer::shared().server.log_text();
    assert!(log.contains(sql), "the server got another text");
}

#[test]
fn errors_point_into_the_clients_text() {
    let masked = Masked::new(MASKS);
    let said = masked.says("select missing_column from customers where id = 1");
    assert!(said.contains("missing_column"), "{said}");
    assert!(said.contains("LINE 1: select missing_column from"), "{said}");
    masked.finish(SENTINELS);
}

#[test]
fn m14_masks_do_not_depend_on_what_rules_say_of_texts_that_are_not_understood() {
    let masked = Masked::new(&format!("[policy]\nunparsed = \"allow\"\n{MASKS}"));
    // Deeper than the grammar's stack.
    let deep = format!("{}email{}", "(".repeat(20_000), ")".repeat(20_000));
    let said = masked.hears(&[
        &format!("begin; create temp table loot as select {deep} as x from customers"),
        "select x from loot",
        "rollback",
    ]);
    assert!(said[0].starts_with("E[54001: the text is not understood"), "{said:?}");
    masked.finish(SENTINELS);
}
