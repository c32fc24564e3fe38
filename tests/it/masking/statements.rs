//! One masked database, and every way to ask for what it hides.

use super::{MASKS, Masked, SENTINELS};

/// Statements that ask for masked values; nothing of them may come.
const ASKING: &str = "\
select email from customers where id = 1
table customers
select email as contact from customers
select contact from v_customers
select * from v_same
select * from v_upper
select * from v_over
select * from v_row
select * from v_union
select * from v_function
select * from mv_customers
select get_contact(1)
select through(1)
select dynamic('omers')
select * from list_contacts()
select email from cust_child
select * from only cust_child
select email from people
select * from people_p1
select * from made
with x(e) as (select email from customers) select e from x
select name from vendors v join lateral (select email as name from customers) z on true
select email || '' as x from customers
select upper(email) x from customers
select left(card_number, 8), right(card_number, 8) from customers
select encode(ssn::bytea, 'hex') x from customers
select string_to_table(card_number, null) x from customers where id = 1
select case when id = 1 then email else 'n/a' end x from customers
select c from customers c
select c::text from customers c
select c.to_jsonb from customers c
select email(c) from customers c
select (x).email from (select c as x from customers c) s
select row(c.*) from customers c
select v from customers c, jsonb_each_text(to_jsonb(c)) as t(k, v)
select json_agg(c) from customers c
select array_agg(email) from customers
select max(ssn) from customers
select mode() within group (order by email) from customers
select most_common_vals, histogram_bounds from pg_stats where tablename = 'customers'
select email from customers union select null order by 1
select distinct on (id) unnest(array[email, ssn]) x from customers
with recursive r(v, i) as (select email, 1 from customers union all select v, i + 1 from r where i < 2) select v from r
select * from customers c natural join (select 1 as id) x
select (select ssn from customers where id = 1)
select coalesce(null, email) from customers
select email collate \"C\" from customers
begin; declare c cursor for select email as x, upper(ssn) as y from customers; fetch all from c; commit
begin; declare c binary cursor for select id, email from customers; fetch all from c; commit
prepare p as select email as x, upper(ssn) from customers; execute p
update customers set note = '' where id = 1 returning *
explain (analyze, verbose, costs off) select * from customers where email = (select max(email) from customers)
select ssn::numrange from customers
select id from customers where email::int = 1
update customers set email = (select email from customers where id = 1) where id = 2
update customers set name = null, id = 1 where id = 2
insert into customers (id, email) select 9, email from customers
select tells()
do $$ begin raise exception using message = (select email from customers where id = 1), detail = 'x'; end $$
copy customers to stdout
copy (select id, email as x from customers) to stdout
copy customers (ssn) to stdout (format csv)";

#[test]
fn no_statement_brings_a_masked_value() {
    let masked = Masked::new(MASKS);
    for statement in ASKING.lines() {
        masked.shows_nothing(statement);
    }
    masked.finish(SENTINELS);
}

/// Statements with what must come of them: masks do not hide what is nothing of theirs.
const HARMLESS: &[(&str, &str)] = &[
    ("select id, name from customers order by id", "1|Alice\n2|Bob\n50|Kid\n"),
    ("select upper(name) from customers where id = 1", "ALICE\n"),
    ("select count(*) from customers", "3\n"),
    ("select count(*) from customers where email like 'a%'", "1\n"),
    ("select count(*) from customers where email like 'alice%'", "0\n"),
    ("select id from customers order by ssn limit 1", "1\n"),
    ("select exists (select from customers where email = 'x')", "f\n"),
    (
        "select c.name, o.total from orders o join customers c on c.id = o.customer_id where o.id = 1",
        "Bob|10\n",
    ),
    ("select email from vendors", "sales@vendor.example\n"),
    ("select * from v_harmless where id = 1", "1|ALICE|1\n"),
    ("select id, loud from v_upper where id = 1", "1|ALICE\n"),
    ("update customers set note = 'x' where id = 77", ""),
    ("select upper(email), length(ssn) from customers where id = 1", "A***@EXAMPLE.COM|8\n"),
    ("select count(*) from customers where ssn = '[masked]'", "3\n"),
    ("select c.id, c.name, count(*) from customers c group by c.id order by 1", "1|Alice|1\n"),
    ("select public.customers.name from public.customers where id = 1", "Alice\n"),
    ("select tableoid::regclass from customers where id = 50", "cust_child\n"),
    ("begin; select name from customers where id = 1 for update; commit", "Alice\n"),
    (
        "with u as (update customers set note = '' where id = 50 returning *) select email from u",
        "k***@example.com\n",
    ),
    ("insert into customers (id, email, ssn) values (7, 'new@x.com', '1')", ""),
    (
        "insert into customers (id, email) values (7, 'x') on conflict (id) do update set note = excluded.note",
        "",
    ),
    ("delete from customers where id = 7 returning id, name", "7|\n"),
    ("select id, email from customers where id = 1", "1|a***@example.com\n"),
    ("select ssn, birth_year, name from customers where id = 1", "[masked]||Alice\n"),
    (
        "begin; create temp table t (a int); insert into t values (1); select a, a + 1 from t; commit",
        "1|2\n",
    ),
    (
        "create table fresh (a text); insert into fresh values ('x'); select upper(a) from fresh",
        "X\n",
    ),
    ("select relname from pg_class where relname = 'customers'", "customers\n"),
    ("explain (costs off) select name from customers where id = 1", "Append\n"),
    ("copy (select id, name from customers where id = 1) to stdout", "1\tAlice\n"),
    (
        "copy (select id, email, name from customers where id = 1) to stdout",
        "1\ta***@example.com\tAlice\n",
    ),
    (
        "copy customers (id, email, ssn, birth_year) to stdout",
        "1\ta***@example.com\t[masked]\t\\N\n",
    ),
    ("copy customers (name, ssn, id) to stdout with csv header", "name,ssn,id\nAlice,[masked],1\n"),
    ("copy customers to stdout (format 'binary')", "PGCOPY\n"),
    ("copy vendors to stdout (delimiter ';')", "1;sales@vendor.example\n"),
    ("select total(1) > 0, upper('x')", "t|X\n"),
    ("update customers set email = 'new@example.com' where id = 9 returning email", ""),
    ("show search_path", "\"$user\", public\n"),
];

#[test]
fn what_is_not_masked_comes_as_it_is() {
    let masked = Masked::new(MASKS);
    for (statement, expected) in HARMLESS {
        let said = masked.shows_nothing(statement);
        assert!(said.starts_with(expected) && !said.contains("ERROR"), "{statement}\n{said}");
    }
    masked.finish(SENTINELS);
}

/// Statements that would move masked values to where no mask is, and move what masks leave.
const MOVING: &str = "\
insert into vendors select id, email from customers returning email
insert into vendors select * from (select id, ssn from customers) s
with s as (select id, email from customers) insert into vendors select * from s
with s as (select email from customers), i as (insert into vendors select 1, email from s) select 1
update customers set name = email
update vendors v set email = c.email from customers c where c.id = v.id
merge into vendors v using customers c on c.id = v.id when matched then update set email = c.email
create table copy1 as select * from customers
select email as e into copy2 from customers
create table copy3 as select * from v_function
select setval('sq', replace(ssn, '-', '')::bigint) from customers where id = 1
select set_config('my.v', email, false) is null from customers where id = 1
select pg_notify('ch', email) is null from customers where id = 1
select id from customers where set_config('my.v', email, false) is null
copy (select email from customers) to program 'cat'
copy customers to stdout (delimiter '-')
copy (select email from customers) to stdout (format csv, force_quote *)
copy customers (card_number) to stdout (format csv, quote '1', escape '0')
copy customers to stdout (header match)
select pg_advisory_lock(birth_year) from customers";

#[test]
fn masked_values_go_nowhere_else() {
    let masked = Masked::new(MASKS);
    for statement in MOVING.lines() {
        masked.shows_nothing(statement);
    }
    // As the database has it, without a gateway.
    let sinks = "select to_jsonb(v) from vendors v; select name from customers; table copy1; \
                 table copy2; table copy3; select last_value from sq";
    let (succeeded, found) = super::run(&masked.database.client(), sinks);
    assert!(succeeded, "{found}");
    for sentinel in SENTINELS {
        assert!(!found.contains(sentinel), "{found}");
    }
    assert!(found.contains("a***@example.com"), "{found}");
    masked.finish(SENTINELS);
}

#[test]
fn masks_at_the_output_refuse_what_moves_values() {
    let masked = Masked::new(&format!("[policy]\nenforce = \"output\"\n{MASKS}"));
    for statement in MOVING.lines() {
        let said = masked.shows_nothing(statement);
        assert!(
            said.contains("42501") || said.contains("ERROR:  masked columns"),
            "{statement}\n{said}"
        );
    }
    assert_eq!(
        masked.shows_nothing("select upper(email) from customers where id = 1"),
        "[masked]\n"
    );
    masked.finish(SENTINELS);
}

#[test]
fn what_a_session_changes_is_masked_as_it_then_is() {
    let masked = Masked::new(MASKS);
    for statements in [
        "create view fresh as select email as x, upper(ssn) as y from customers; select * from fresh",
        "begin; create view v1 as select email as x from customers; select x from v1; commit",
        "begin; create or replace view v_harmless as select id, email as loud, 1 as one from customers; select loud from v_harmless; commit",
        "select loud from v_harmless",
        "create function f() returns text language sql as 'select email from customers limit 1'; select f()",
        "begin; create function g() returns text language sql as 'select email from customers limit 1'; select g(); commit",
        "alter table vendors inherit people",
    ] {
        masked.shows_nothing(statements);
    }
    masked.finish(SENTINELS);
}

#[test]
fn a_strict_policy_refuses_what_it_cannot_prove() {
    let masked = Masked::new(&format!("[policy]\nunprovable = \"block\"\n{MASKS}"));
    for statement in [
        "select id from customers where email like 'a%'",
        "select count(*) from customers where ssn >= '078'",
        "select upper(email) from customers",
        "select 1 / (case when email like 'a%' then 0 else 1 end) from customers",
        "select get_contact(1)",
    ] {
        let said = masked.shows_nothing(statement);
        assert!(said.contains("ERROR:  masked columns may be selected"), "{statement}\n{said}");
    }
    assert_eq!(masked.says("select email from customers where id = 1"), "a***@example.com\n");
    masked.finish(SENTINELS);
}
