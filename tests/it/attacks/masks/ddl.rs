//! Definitions that would make the server compute with masked values, or look at them all: an
//! index, statistics, a constraint, a type. What comes of it tells of them.

use std::fmt::Write as _;

use crate::masking::SENTINELS;
use crate::masking::source::{OTHERS, Twins, answers};

/// What the owner made beside the tables of all tests.
const MORE: &str = "
    create domain dssn as text;
    create table holders (id int primary key, ssn dssn, plain text);
    insert into holders values (1, '078-05-1120', 'a'), (2, '219-09-9999', 'b');
    alter domain dssn add constraint long check (length(value) > 3) not valid;
    create type person as (ssn varchar(40), name text);
    create table persons of person;
    insert into persons values ('078-05-1120', 'x');
    create table listed (ssn text, part int) partition by list (ssn);
    create table listed_rest partition of listed default;
    insert into listed values ('078-05-1120', 1), ('219-09-9999', 2);
    create table keyed (id int, ssn text);
    insert into keyed values (1, '078-05-1120'), (2, '219-09-9999');
    create unique index keyed_ssn on keyed (ssn);
    alter table keyed add constraint starts check (ssn like '0%') not valid;
    create index keyed_computed on keyed (id, (id + 1))";

/// Refused whatever the values are, each a message of its own.
const REFUSED: &[&str] = &[
    // Domains and types.
    "create domain d2 as text check (set_config('a.b', value, false) is not null); \
     alter table customers alter ssn type d2; select current_setting('a.b')",
    "create domain d2 as text check (set_config('a.b', value, false) is not null)",
    "create domain d2 as text default set_config('a.b', 'x', false)",
    "alter domain dssn add check (value::int > 0)",
    "alter domain dssn add constraint c check (value like '0%') not valid",
    "alter domain dssn set not null",
    "alter domain dssn validate constraint long",
    "alter domain dssn set default set_config('a.b', 'x', false)",
    "alter type person alter attribute ssn type varchar(10) cascade",
    "begin; alter domain dssn add check (value like '0%'); rollback; select 1",
    // Statistics.
    "create statistics s9 on (lo_from_bytea(0, ssn::bytea)), name from customers; \
     analyze customers; select lo_get(1)",
    "create statistics s9 on ssn, name from customers",
    "create statistics s9 on (customers::text), name from public.customers",
    "create statistics if not exists s9 (mcv) on name, (id + length(ssn)) from cust_child",
    // Indexes.
    "create index on customers ((1/(case when ssn like '0%' then 0 else 1 end)))",
    "create index i on customers (id) where ssn like '%1120'",
    "create unique index on customers (ssn)",
    "create index on customers (ssn)",
    "create index on customers (ssn text_pattern_ops)",
    "create index on customers (name, ssn)",
    "create index on customers (id) include (ssn)",
    "create index concurrently on customers (lower(ssn))",
    "create index on customers ((customers::text))",
    "create index on only customers ((public.customers.ssn::int))",
    "create unique index on mv_customers (contact)",
    "create unique index on people (id, email)",
    "begin; create index on customers ((ssn::int)); commit",
    // Columns.
    "alter table customers alter column ssn type varchar(10)",
    "alter table customers add column n int, alter column ssn type varchar(10)",
    "alter table customers alter column ssn set not null",
    "alter table customers add column g text generated always as (ssn) stored",
    "alter table customers add column g int generated always as (length(ssn)) stored",
    "alter table customers add column if not exists ssn text unique",
    "alter table customers add column v text default get_contact(1)",
    "alter table customers add column v text default pg_read_file('x')",
    "alter table customers alter birth_year add generated always as identity",
    // Constraints.
    "alter table customers add check (ssn like '0%')",
    "alter table customers add check (ssn like '0%') not valid",
    "alter table customers add unique (ssn)",
    "alter table keyed add primary key (ssn)",
    "alter table keyed add constraint u unique using index keyed_ssn",
    "alter table keyed add primary key using index keyed_ssn",
    "alter table keyed validate constraint starts",
    "alter table customers add exclude (ssn with =)",
    "alter table customers add exclude using btree (id with =) where (ssn like '0%')",
    "alter table customers add foreign key (ssn) references vendors (email)",
    "alter table vendors add foreign key (email) references customers (email)",
    "create table copied (email text references customers (email))",
    "create table copied (email text, foreign key (email) references public.customers (email))",
    "create schema s create table t (email text references public.customers (email))",
    // Partitions: those of the default one are looked through.
    "create table listed_1 partition of listed for values in ('0')",
    "create table listed_1 (ssn text, part int, check (ssn like '0%')); \
     alter table listed attach partition listed_1 for values in ('0')",
    "create table people_p2 partition of people (check (email like 'a%')) \
     for values from (100) to (200)",
    // The order of rows.
    "cluster keyed using keyed_ssn",
    "alter table keyed cluster on keyed_ssn",
    // Policies and triggers.
    "create policy p on customers using (ssn like '0%')",
    "create trigger t before update on customers for each row when (old.ssn like '0%') \
     execute function suppress_redundant_updates_trigger()",
    // Files, of tables too.
    "select lo_import('/etc/hostname')",
    "select lo_import('/etc/hostname', 77), lo_get(77)",
    "select lo_export(1, '/nowhere/x')",
    "select id from vendors where lo_import('/etc/hostname') > 0",
    "create table loot (t text); copy loot from '/etc/hostname'",
];

/// What computes with nothing that is masked.
const HARMLESS: &[&str] = &[
    "create index on customers (name)",
    "create index on customers (lower(name)) where id > 1",
    "create unique index on customers (id, name)",
    "create index concurrently on customers (note)",
    "create index on mv_customers (id)",
    "create statistics s1 on name, phone from customers",
    "create statistics s2 on (lower(name)), note from customers",
    "analyze customers",
    "alter table customers add column more text",
    "alter table customers add column made_at timestamptz default now()",
    "alter table customers add column amount int check (amount > 0)",
    "alter table customers add column number int unique",
    "alter table customers alter note set default 'x', alter ssn set default 'y'",
    "alter table customers add constraint positive check (id > 0)",
    "alter table customers drop constraint positive",
    "alter table customers drop column more",
    "alter table customers set (fillfactor = 90)",
    "alter table customers alter ssn set statistics 10",
    "alter index keyed_computed alter column 2 set statistics 10",
    "alter table keyed alter id type bigint",
    "alter table keyed alter id set not null",
    "alter table keyed add primary key (id)",
    "alter table orders add foreign key (customer_id) references customers (id)",
    "alter table orders add check (total >= 0)",
    "create unique index on orders (id, note)",
    "comment on table customers is 'x'",
    "comment on column customers.ssn is 'y'",
    "create table copied (like customers including all)",
    "create table pointing (id int references customers)",
    "create domain plain_text as text default 'x'::text not null",
    "alter domain dssn set default 'x'",
    "alter domain dssn drop default",
    "create type pair as (a int, b text)",
    "create type mood as enum ('sad', 'glad')",
    "reindex table customers",
];

#[test]
fn a_definition_does_not_compute_with_masked_values() {
    let twins = Twins::new();
    twins.as_owner(MORE);
    let mut talks = twins.talks();
    let mut wrong = String::new();
    for (list, refused) in [(REFUSED, true), (HARMLESS, false)] {
        for sql in list {
            let [one, other] = answers(&mut talks, sql);
            let told = one.join(" ") + &other.join(" ");
            let shown = SENTINELS.iter().any(|sentinel| told.contains(sentinel));
            let fits = match refused {
                true => one.iter().any(|line| line.starts_with("E[42501")),
                false => !one.iter().any(|line| line.starts_with("E[")),
            };
            if shown || one != other || !fits {
                writeln!(wrong, "{sql}\n  {one:?}\n  {other:?}").unwrap();
            }
            answers(&mut talks, "rollback");
            answers(&mut talks, "select current_setting('a.b', true)");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(twins.gateway.stop().success());
    let stored = twins.gateway.all_contents();
    let log = twins.gateway.daemon().log();
    // The shortest are parts of other things.
    let others = OTHERS.iter().map(|(_, other)| *other).filter(|other| other.len() > 7);
    for secret in SENTINELS.iter().copied().chain(others) {
        assert!(!crate::masking::contains(&stored, secret), "{secret} is in a recording");
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}
