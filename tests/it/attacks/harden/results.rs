//! Rows, errors and texts that come without having been asked for.

use crate::masking::{MASKS, Masked, SENTINELS, contains, run};
use crate::support::talk::{
    Talk, bind, describe, execute, parse, query, run as run_statement, sync,
};

/// Rules at the target that give rows, made past the gateway.
const RULES: &str = "
create table et (note text);
create rule ri as on insert to et do also select ssn, email from customers;
create rule rd as on delete to et do instead select string_agg(ssn, ',') as note from customers;
create table gives (note text);
create rule ru as on insert to gives do instead
    update orders set note = note where id = 1
    returning (select string_agg(ssn, ',') from customers);
insert into orders values (0, 1, 0, '')";

fn talk(masked: &Masked) -> Talk {
    let token = masked.gateway.issuer().token("agent");
    Talk::opened(masked.gateway.address(), "agent", "orders", &token)
}

fn shows_nothing(talk: &Talk) {
    let told = String::from_utf8_lossy(talk.received()).into_owned();
    for sentinel in SENTINELS {
        assert!(!told.contains(sentinel), "{sentinel}: {told}");
    }
}

pub fn rows_of_a_statement_without_returning_are_masked_whole() {
    let masked = Masked::new(MASKS);
    let (made, said) = run(&masked.database.client(), RULES);
    assert!(made, "{said}");
    for statement in [
        "insert into et values ('q')",
        "delete from et",
        "insert into gives values ('q') returning note",
    ] {
        masked.shows_nothing(statement);
        let mut talk = talk(&masked);
        talk.ask(&[query(statement)]);
        shows_nothing(&talk);
    }
    // The extended protocol describes nothing, and rows come.
    let mut talk = talk(&masked);
    talk.ask(&[run_statement("insert into et values ('q')"), sync()]);
    let described = describe(b'P', "");
    talk.ask(&[
        parse("", "insert into et values ('q')"),
        bind("", "", &[]),
        described,
        execute(""),
        sync(),
    ]);
    shows_nothing(&talk);
    // What no rule makes is as ever.
    let said = masked.says("insert into vendors values (7, 'x') returning id, email");
    assert_eq!(said, "7|x\n");
    masked.finish(SENTINELS);
}

pub fn rules_at_the_target_show_no_masked_values() {
    let masked = Masked::new(MASKS);
    let rules = "create table eu (id int, note text); insert into eu values (1, '');
                 create rule r1 as on update to eu do instead select id, ssn, email from customers;
                 create view ev as select id, note from eu;
                 create rule r2 as on insert to ev do instead select ssn from customers";
    let (made, said) = run(&masked.database.client(), rules);
    assert!(made, "{said}");
    for statement in ["update eu set note = 'x'", "insert into ev values (1, 'x')"] {
        masked.shows_nothing(statement);
    }
    masked.finish(SENTINELS);
}

pub fn what_a_deferred_constraint_says_is_withheld() {
    let masked = Masked::new(MASKS);
    let deferred = "create table defcust (id int, ssn text unique deferrable initially deferred);
                    insert into defcust values (1, '078-05-1120'), (2, '219-09-9999');
                    create table keys (ssn text primary key);
                    create table needs (ssn text references keys deferrable initially deferred)";
    let (made, said) = run(&masked.database.client(), deferred);
    assert!(made, "{said}");
    let unique = "insert into defcust values (3, '078-05-1120')";
    let key = "insert into needs values ('219-09-9999')";
    let ends = ["commit", "set constraints all immediate", "prepare transaction 'x'"];
    for (breaks, end) in ends.iter().flat_map(|end| [(unique, *end), (key, *end)]) {
        let mut talk = talk(&masked);
        talk.ask(&[query("begin"), query(breaks)]);
        let said = talk.ask(&[query(end)]);
        assert!(said.iter().any(|line| line.starts_with("E[")), "{end}: {said:?}");
        shows_nothing(&talk);
        let mut talk = self::talk(&masked);
        talk.ask(&[run_statement("begin"), run_statement(breaks), run_statement(end), sync()]);
        shows_nothing(&talk);
        // Without BEGIN the Sync commits.
        let mut talk = self::talk(&masked);
        talk.ask(&[run_statement(breaks), sync()]);
        talk.ask(&[query(&format!("{breaks}; select 1"))]);
        shows_nothing(&talk);
    }
    masked.finish(SENTINELS);
}

pub fn what_a_change_of_a_table_says_of_its_rows_is_withheld() {
    let masked = Masked::new(MASKS);
    let more = "create table ref (email text primary key); insert into customers (id, email, ssn)
                values (9, 'alice.secret@example.net', '078-05-1120');
                create materialized view mv_ssn as select ssn from customers where id in (1, 2);
                create unique index on mv_ssn (ssn)";
    let (made, said) = run(&masked.database.client(), more);
    assert!(made, "{said}");
    for statement in [
        "alter table customers add foreign key (email) references ref (email)",
        "alter table customers add unique (ssn)",
        "create unique index on customers (ssn)",
        "alter table customers add check (ssn <> '078-05-1120')",
        "alter table customers alter ssn type int using 1",
        "alter table customers alter email type int",
        "alter table customers add exclude (ssn with =)",
        "alter table people attach partition cust_child for values from (100) to (200)",
        "cluster customers using customers_pkey",
    ] {
        masked.shows_nothing(statement);
    }
    masked.finish(SENTINELS);
}

pub fn texts_of_statements_and_definitions_are_stored_without_values() {
    let masked = Masked::new(MASKS);
    let made = "create view quoting as select id from customers where ssn = 'literal-0815';
                create table checked (ssn text check (ssn <> 'literal-4711'))";
    let (succeeded, said) = run(&masked.database.client(), made);
    assert!(succeeded, "{said}");
    for statement in [
        "select current_query() from customers where ssn = 'literal-2342'",
        "select pg_get_viewdef('quoting'::regclass)",
        "select definition from pg_views where viewname = 'quoting'",
        "select view_definition from information_schema.views where table_name = 'quoting'",
        "select pg_get_constraintdef(oid) from pg_constraint where conrelid = 'checked'::regclass",
        "select pg_get_ruledef(oid) from pg_rewrite where ev_class = 'quoting'::regclass",
        "prepare p as select 1 from customers where ssn = 'literal-2342'; \
         select statement from pg_prepared_statements",
        "prepare p as select 1 from customers where ssn = 'literal-2342'; \
         select statement from pg_prepared_statement()",
    ] {
        masked.says(statement);
    }
    // The client may look at definitions.
    assert!(masked.says("select pg_get_viewdef('quoting'::regclass)").contains("literal-0815"));
    assert!(!contains(&masked.gateway.all_contents(), "literal-"), "a literal is stored");
    masked.finish(&["literal-0815", "literal-4711", "literal-2342"]);
}
