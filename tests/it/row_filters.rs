//! Row filters from outside: no way leads to rows of another tenant, and one's own are there.

use std::sync::Arc;

use crate::masking::{contains, run};
use crate::support::client::Database;
use crate::support::gateway::{Gateway, Setup, portcullis, told};
use crate::support::issuer::Issuer;
use crate::support::postgres::PostgresServer;
use crate::support::talk::{Talk, bind, execute, parse, query, sync};

/// Tables, views, partitions and functions with rows of two tenants.
const SCHEMA: &str = include_str!("../cases/row_filters.sql");

/// What only rows of the other tenant have, in whatever case.
const SENTINELS: &[&str] = &["entinel", "ENTINEL", "77770"];

const CLIENTS: &str = r#"
[[client]]
id = "acme-bot"
secret = "acme-bot-secret"
grants = ["client_credentials"]
groups = ["agents"]
claims = { tenant = "acme", org = 42 }

[[client]]
id = "list-bot"
secret = "list-bot-secret"
grants = ["client_credentials"]
groups = ["agents"]
claims = { tenant = ["acme", "globex"], org = true }

[[client]]
id = "evil-bot"
secret = "evil-bot-secret"
grants = ["client_credentials"]
groups = ["agents"]
claims = { tenant = "x' OR '1'='1' -- \\' OR true", org = "0 OR true" }

[[client]]
id = "free-bot"
secret = "free-bot-secret"
grants = ["client_credentials"]
groups = ["agents", "staff"]
"#;

const FILTERS: &str = r#"
[[rows]]
name = "tenants"
table = "public.customers"
where = "tenant_id = {claim.tenant}"
unless_groups = ["staff"]

[[rows]]
table = "public.orders"
where = "tenant_id = {claim.tenant}"
unless_groups = ["staff"]

[[rows]]
table = "public.events"
where = "tenant_id = {claim.tenant}"
unless_groups = ["staff"]

[[rows]]
name = "kept"
table = "public.mv_own"
where = "tenant_id IN ({claim.tenant}) AND id BETWEEN 0 AND 1000 AND NOT (id IS NULL OR lower(name) = 'x')"
unless_groups = ["staff"]

[[rows]]
table = "public.seats"
where = "org = {claim.org}"
unless_groups = ["staff"]

[[rows]]
table = "public.rooms"
where = "org = {claim.org} AND seat IS NOT NULL"
unless_groups = ["staff"]

[[rows]]
table = "public.odd"
where = '"Tenant ""x""" = {claim.tenant}'
unless_groups = ["staff"]
"#;

struct Filtered {
    database: Database,
    gateway: Gateway,
}

impl Filtered {
    fn new() -> Self {
        Self::with(FILTERS)
    }

    fn with(policy: &str) -> Self {
        let database = Database::fresh();
        let server = &PostgresServer::shared().server;
        server.psql(&database.name, "create extension if not exists btree_gist");
        let (succeeded, said) = run(&database.client(), SCHEMA);
        assert!(succeeded, "{said}");
        let gateway = Gateway::start(&Setup {
            targets: vec![database.target("orders")],
            policy: policy.to_owned(),
            issuer: Some(Arc::new(Issuer::start_with(3600, CLIENTS))),
            ..Setup::default()
        });
        Self { database, gateway }
    }

    fn talk(&self, client: &str) -> Talk {
        let token = self.gateway.issuer().token(client);
        Talk::opened(self.gateway.address(), client, "orders", &token)
    }

    /// The other tenant's rows, as their owner sees them.
    fn of_others(&self) -> String {
        let look = "select c.*, tableoid::regclass from customers c where tenant_id <> 'acme' order by id; \
                    select * from orders where tenant_id <> 'acme'; \
                    select * from events where tenant_id <> 'acme' order by id; \
                    select * from odd where odd like 'sent%'; select * from seats where org <> 42; select * from rooms where org <> 42; \
                    select * from mv_customers order by id; \
                    select conname from pg_constraint where conrelid = 'customers'::regclass order by 1";
        run(&self.database.client(), look).1
    }
}

/// What a way must come to, beside showing and changing nothing of the other tenant.
enum Comes<'a> {
    /// These lines are among what is said, and nothing is refused.
    To(&'a [&'a str]),
    /// SQLSTATE 42501 by the gateway, with this in its reason.
    Refused(&'a str),
    /// The server or the gateway says no, or nothing comes.
    ToNothing,
}
use Comes::{Refused, To, ToNothing};

const FILTERED: &str = "row filter";

/// Ways to read, each with the messages of one session.
const READS: &[(&[&str], Comes<'_>)] = &[
    (&["select name from customers order by id"], To(&["D[Ann]", "D[Abe]", "D[Kid]"])),
    (&["table customers"], To(&["D[1|acme|Ann|ann@acme.example|10|a]"])),
    (&["select * from only customers c"], To(&["C[SELECT 2]"])),
    (&["select * from only (public.customers)"], To(&["C[SELECT 2]"])),
    (&["select count(*) from customers"], To(&["D[3]"])),
    (&["select count(*) from customers * c"], To(&["D[3]"])),
    (&["select sum(amount), max(name) from public.customers"], To(&["D[60|Kid]"])),
    (&["select name from customers where tenant_id = 'globex'"], To(&["C[SELECT 0]"])),
    (&["select name from customers where tenant_id = 'globex' or true"], To(&["C[SELECT 3]"])),
    (&["select name from customers where id = 101"], To(&["C[SELECT 0]"])),
    (
        &["select c from customers c order by id limit 1"],
        To(&["D[(1,acme,Ann,ann@acme.example,10,a)]"]),
    ),
    (&["select to_jsonb(c)->>'name' from customers c order by id"], To(&["D[Ann]"])),
    (
        &["select (select string_agg(name, ',' order by id) from customers)"],
        To(&["D[Ann,Abe,Kid]"]),
    ),
    (
        &["select 1 where exists (select from customers where name like 'Sentinel%')"],
        To(&["C[SELECT 0]"]),
    ),
    (&["with c as (select * from customers) select count(*) from c"], To(&["D[3]"])),
    (
        &["with customers as (select * from customers) select count(*) from customers"],
        To(&["D[3]"]),
    ),
    (
        &[
            "with recursive r (n) as (select max(id) from customers union all select n - 1 from r where n > 2) select max(n) from r",
        ],
        To(&["D[3]"]),
    ),
    (
        &[
            "select o.id, c.name from orders o left join customers c on true where c.id = 1 order by 1",
        ],
        To(&["D[1|Ann]", "C[SELECT 2]"]),
    ),
    (
        &[
            "select n.id, l.name from notes n, lateral (select name from customers c where c.id >= n.id order by id limit 1) l order by 1",
        ],
        To(&["D[1|Ann]", "D[2|Abe]"]),
    ),
    (
        &["select id from notes where tenant_id in (select tenant_id from customers)"],
        To(&["D[1]", "C[SELECT 1]"]),
    ),
    (
        &["select name from customers union all select name from only customers order by 1"],
        To(&["C[SELECT 5]"]),
    ),
    (&["select id from notes except select id from customers"], To(&["C[SELECT 0]"])),
    (&["select tenant_id, count(*) from customers group by 1"], To(&["D[acme|3]", "C[SELECT 1]"])),
    (&["select id, name from customers group by id order by id"], To(&["D[1|Ann]"])),
    (&["select name, row_number() over (order by amount desc) from customers"], To(&["D[Kid|1]"])),
    (&["select distinct tenant_id from customers"], To(&["C[SELECT 1]"])),
    (
        &["select ctid, tableoid::regclass from only customers order by 1"],
        To(&["D[(0,1)|customers]", "C[SELECT 2]"]),
    ),
    (&["select name from customers where ctid = '(0,3)'"], To(&["C[SELECT 0]"])),
    (&["select name from customers for update"], To(&["C[SELECT 3]"])),
    (&["select name from customers tablesample system (100)"], Refused("sample")),
    (&["select name from cust_child"], To(&["D[Kid]", "C[SELECT 1]"])),
    (&["select what from events"], To(&["D[in]", "C[SELECT 1]"])),
    (&["select what from events_p1"], To(&["D[in]", "C[SELECT 1]"])),
    (&["select what from events_p2"], To(&["C[SELECT 0]"])),
    (&["select who from seats"], To(&["D[ours]", "C[SELECT 1]"])),
    (&["select odd from odd"], To(&["D[ours]", "C[SELECT 1]"])),
    (&["select name from other.customers"], To(&["D[not filtered]"])),
    (&["set search_path = other", "select name from customers"], Refused("several tables")),
    (
        &["set search_path = other", "select name from public.customers order by 1"],
        To(&["D[Abe]", "C[SELECT 3]"]),
    ),
    // Conditions that tell by an error what they see.
    (&["select id from customers where note::int > 0 or true"], ToNothing),
    (&["select id from customers where 1 / (id - 101) > -1"], To(&["C[SELECT 3]"])),
    (
        &[
            "select id from customers where 1 / (case when name like 'Sentinel%' then 0 else 1 end) = 1",
        ],
        To(&["C[SELECT 3]"]),
    ),
    (
        &[
            "select id from notes n where exists (select from customers c where c.id >= n.id and 1 / (case when c.amount > 100 then 0 else 1 end) = 1)",
        ],
        To(&["C[SELECT 2]"]),
    ),
    // Views.
    (
        &["select * from v_customers order by id"],
        To(&["D[1|acme|Ann|ann@acme.example|10|a]", "C[SELECT 3]"]),
    ),
    (&["select name from v_names order by id"], To(&["D[Ann]", "C[SELECT 3]"])),
    (&["select n, s from v_count"], To(&["D[3|60]"])),
    (&["select * from v_any"], To(&["D[f]"])),
    (&["select name, total from v_join order by id"], To(&["D[Ann|5]", "C[SELECT 2]"])),
    (&["select loud from v_nested order by 1"], To(&["D[ABE]", "C[SELECT 3]"])),
    (&["table v_names"], To(&["C[SELECT 3]"])),
    (&["select text from v_open"], To(&["C[SELECT 2]"])),
    (&["select * from v_function"], Refused("function")),
    (&["select * from mv_customers"], Refused("materialized view")),
    (&["select name from mv_own order by id"], To(&["D[Ann]", "C[SELECT 3]"])),
    (&["create temp view w as select * from customers"], Refused("stored")),
    (
        &["create or replace view v_open as select id, name as text from customers"],
        Refused("stored"),
    ),
    (&["create materialized view mw as select * from customers"], Refused("stored")),
    (&["create table copy as select * from customers", "select count(*) from copy"], To(&["D[3]"])),
    (&["select * into temp copied from customers", "select count(*) from copied"], To(&["D[3]"])),
    (&["create temp table customers (id int)", "select name from customers"], ToNothing),
    // COPY, cursors, prepared statements, EXPLAIN.
    (&["copy customers to stdout"], To(&["d[1\tacme\tAnn\tann@acme.example\t10\ta]", "C[COPY 2]"])),
    (&["copy customers (name) to stdout (format csv)"], To(&["d[Ann]"])),
    (&["copy customers to stdout (format binary)"], To(&["C[COPY 2]"])),
    (&["copy (select name from customers order by 1) to stdout"], To(&["d[Abe]", "C[COPY 3]"])),
    (&["copy (delete from customers where id = 101 returning name) to stdout"], To(&["C[COPY 0]"])),
    (&["copy v_names to stdout"], Refused("view")),
    (
        &[
            "begin",
            "declare c cursor for select name from customers order by id",
            "fetch all from c",
            "rollback",
        ],
        To(&["D[Kid]", "C[FETCH 3]"]),
    ),
    (
        &[
            "begin",
            "declare c scroll cursor with hold for table customers",
            "commit",
            "fetch last from c",
        ],
        To(&["C[FETCH 1]"]),
    ),
    (
        &[
            "prepare p (text) as select count(*) from customers where tenant_id = $1",
            "execute p ('globex')",
            "execute p ('acme')",
        ],
        To(&["D[0]", "D[3]"]),
    ),
    (&["explain select * from customers where name = 'x'"], Refused("EXPLAIN")),
    (&["explain analyze select * from customers"], Refused("EXPLAIN")),
    (&["explain (analyze, costs off) update customers set note = 'z'"], Refused("EXPLAIN")),
    (&["prepare p as select * from customers", "explain analyze execute p"], Refused("EXPLAIN")),
    (&["explain (verbose, analyze false) select * from v_count"], Refused("EXPLAIN")),
    // Code.
    (&["select name from list_customers()"], Refused("function")),
    (&["select count_customers()"], Refused("function")),
    (&["select dynamic('omers')"], Refused("function")),
    (
        &["do $$ begin raise notice '%', (select string_agg(name, ',') from customers); end $$"],
        Refused(""),
    ),
    (&["select query_to_xml('select name from customers', true, false, '')"], Refused("")),
    (&["select table_to_xml('customers', true, false, '')"], Refused("")),
    (
        &["create function f() returns bigint language sql as 'select count(*) from customers'"],
        Refused(""),
    ),
    // Statistics.
    (
        &[
            "select most_common_vals, histogram_bounds from pg_stats where tablename = 'customers' and attname = 'tenant_id'",
        ],
        To(&["D[NULL|NULL]"]),
    ),
    (
        &["select stavalues1::text from pg_statistic where starelid = 'customers'::regclass"],
        ToNothing,
    ),
];

/// Ways to write, each in a transaction that commits.
const WRITES: &[(&[&str], Comes<'_>)] = &[
    (&["update customers set note = 'new'"], To(&["C[UPDATE 3]"])),
    (&["update customers set note = 'new' where id = 101"], To(&["C[UPDATE 0]"])),
    (
        &["update customers set note = 'new' where tenant_id = 'globex' or true returning name"],
        To(&["C[UPDATE 3]"]),
    ),
    (
        &[
            "update only customers c set note = (select max(name) from customers) where c.id < 1000 returning note",
        ],
        To(&["D[Kid]", "C[UPDATE 2]"]),
    ),
    (
        &[
            "update customers c set note = o.total::text from orders o where o.customer_id = c.id returning c.note",
        ],
        To(&["D[5]", "C[UPDATE 2]"]),
    ),
    (
        &[
            "update customers set note = 'new' where 1 / (case when name like 'Sentinel%' then 0 else 1 end) = 1",
        ],
        To(&["C[UPDATE 3]"]),
    ),
    (
        &[
            "update customers set note = (1 / (case when name like 'Sentinel%' then 0 else 1 end))::text",
        ],
        To(&["C[UPDATE 3]"]),
    ),
    (&["update customers set tenant_id = 'globex' where id = 1"], Refused("outside")),
    (
        &["update customers set tenant_id = 'acme', note = 'same' where id = 1"],
        To(&["C[UPDATE 1]"]),
    ),
    (&["update customers set tenant_id = 'acme'::text where id = 101"], To(&["C[UPDATE 0]"])),
    (&["update customers set tenant_id = lower('ACME')"], Refused("not certain")),
    (
        &["update customers set tenant_id = (select tenant_id from notes where id = 2)"],
        Refused("not certain"),
    ),
    (&["update customers set (tenant_id, note) = ('globex', 'x')"], Refused("not certain")),
    (&["update customers set tenant_id = default"], Refused("not certain")),
    (&["update rooms set org = 42"], Refused("more than columns")),
    (&["update cust_child set extra = 'y'"], To(&["C[UPDATE 1]"])),
    (&["update events_p1 set what = 'y'"], To(&["C[UPDATE 1]"])),
    (&["update events set what = 'in' where id > 100"], To(&["C[UPDATE 0]"])),
    (&["update v_customers set note = 'z'"], Refused("write public.customers itself")),
    (
        &[
            "update notes set text = c.name from customers c where c.tenant_id = notes.tenant_id returning notes.id",
        ],
        To(&["C[UPDATE 1]"]),
    ),
    (
        &["with u as (update customers set note = 'w' returning id) select count(*) from u"],
        To(&["D[3]"]),
    ),
    (
        &[
            "begin",
            "declare c cursor for select * from customers",
            "fetch from c",
            "update customers set note = 'c' where current of c",
        ],
        Refused("CURRENT OF"),
    ),
    (
        &["prepare w (text) as update customers set note = $1 where id > 0", "execute w ('v')"],
        To(&["C[UPDATE 3]"]),
    ),
    (&["delete from customers where id = 101"], To(&["C[DELETE 0]"])),
    (
        &[
            "delete from customers using notes where customers.tenant_id = notes.tenant_id and notes.id = 2",
        ],
        To(&["C[DELETE 0]"]),
    ),
    (
        &["delete from cust_child where extra = 'none' or id = 103 returning name"],
        To(&["C[DELETE 0]"]),
    ),
    (
        &["with d as (delete from customers where id > 100 returning *) select * from d"],
        To(&["C[SELECT 0]"]),
    ),
    (&["delete from v_names"], Refused("write public.customers itself")),
    (
        &["insert into customers values (11, 'acme', 'New', 'new@acme.example', 1, '')"],
        To(&["C[INSERT 0 1]"]),
    ),
    (
        &[
            "insert into customers (name, tenant_id, id) values ('New', 'acme', 12), ('Now', 'acme'::varchar, 13) returning name",
        ],
        To(&["D[Now]", "C[INSERT 0 2]"]),
    ),
    (
        &[
            "insert into customers (id, tenant_id, name) select 14, 'acme', name from customers where id = 1",
        ],
        To(&["C[INSERT 0 1]"]),
    ),
    (&["insert into customers values (201, 'globex', 'Bad')"], Refused("outside")),
    (
        &["insert into customers values (15, 'acme', 'a'), (202, 'globex', 'Bad')"],
        Refused("outside"),
    ),
    (
        &["insert into customers (id, tenant_id) values (203, 'acme'::char(2))"],
        Refused("not certain"),
    ),
    (&["insert into customers (id, name) values (204, 'Bad')"], Refused("not certain")),
    (&["insert into customers (id, tenant_id) values (205, default)"], Refused("not certain")),
    (&["insert into customers default values"], Refused("not certain")),
    (&["insert into customers select id, tenant_id, text from notes"], Refused("not certain")),
    (
        &["insert into customers select * from (select 206, 'globex', 'Bad') s"],
        Refused("not certain"),
    ),
    (
        &["insert into customers (id, tenant_id) select 16, 'acme' union select 207, 'globex'"],
        Refused("not certain"),
    ),
    (
        &["insert into customers values (1, 'acme') on conflict (id) do update set note = 'x'"],
        Refused("ON CONFLICT"),
    ),
    (
        &["insert into customers values (101, 'acme') on conflict do nothing"],
        Refused("ON CONFLICT"),
    ),
    (
        &["insert into v_customers values (208, 'globex', 'Bad')"],
        Refused("write public.customers itself"),
    ),
    (&["insert into events_p1 values (50, 'globex', 'bad')"], Refused("outside")),
    (&["insert into events values (51, 'acme', 'good')"], To(&["C[INSERT 0 1]"])),
    (
        &["insert into seats values (42, '[10,12)', 'ours'), (42, '[20,22)', 'ours')"],
        To(&["C[INSERT 0 2]"]),
    ),
    (&["insert into seats values ('7', '[1,2)', 'bad')"], Refused("outside")),
    (&["insert into rooms values (42, '[7777000,7777006)', 'ours')"], Refused("more than columns")),
    (&["insert into cust_child values (209, 'globex', 'Bad')"], Refused("outside")),
    (&["insert into odd values (3, 'acme', 'more')"], To(&["C[INSERT 0 1]"])),
    (
        &["update odd set odd = 'y' where odd = 'sentinel-odd' or id > 0 returning id"],
        To(&["D[1]"]),
    ),
    (
        &["merge into customers c using notes n on n.id = c.id when matched then delete"],
        Refused("MERGE"),
    ),
    (
        &[
            "merge into notes n using customers c on c.tenant_id = n.tenant_id and c.id = n.id when matched then update set text = c.name",
        ],
        To(&["C[MERGE 1]"]),
    ),
    (&["copy customers from stdin"], Refused(FILTERED)),
    (&["copy customers (id, tenant_id) from stdin (format csv)"], Refused(FILTERED)),
    (&["truncate customers cascade"], Refused(FILTERED)),
    (
        &[
            "update customers set note = 'm' where id = 1; delete from customers where id > 100; table v_count",
        ],
        To(&["C[UPDATE 1]", "C[DELETE 0]", "C[SELECT 1]"]),
    ),
    (
        &["with x as (insert into customers values (210, 'globex') returning 1) select 1"],
        Refused("outside"),
    ),
    (
        &[
            "prepare i (int, text) as insert into customers values ($1, $2)",
            "execute i (211, 'globex')",
            "execute i (31, 'acme')",
        ],
        To(&["C[INSERT 0 1]"]),
    ),
    (&["explain insert into customers values (32, 'acme')"], Refused("EXPLAIN")),
    (
        &["copy (insert into customers values (212, 'globex') returning id) to stdout"],
        Refused("outside"),
    ),
    (
        &[
            "create type mood as enum ('acme', 'globex')",
            "alter type mood rename value 'globex' to 'x'",
        ],
        Refused(FILTERED),
    ),
    (&["truncate notes cascade"], Refused(FILTERED)),
    (&["delete from nowhere"], Refused("not known")),
    (&["alter type mood rename value 'a' to 'b'"], Refused(FILTERED)),
    (
        &["begin", "create table made (id int)", "delete from made", "rollback"],
        To(&["C[DELETE 0]"]),
    ),
    (&["truncate notes, orders"], Refused(FILTERED)),
    (&["drop table customers"], Refused(FILTERED)),
    (&["drop table orders cascade"], Refused(FILTERED)),
    (&["drop schema public cascade"], Refused(FILTERED)),
    (&["drop owned by current_user"], Refused(FILTERED)),
    (&["alter table customers rename column tenant_id to t"], Refused("")),
    (&["alter table customers rename to moved"], Refused("")),
    (&["alter table customers set schema other"], Refused("")),
    (&["alter schema public rename to moved"], Refused(FILTERED)),
    (&["alter table customers drop column tenant_id"], Refused(FILTERED)),
    (&["alter table customers add check (name not like 'Sentinel%')"], Refused(FILTERED)),
    (&["alter table customers add column x text default 'y'"], Refused(FILTERED)),
    (&["alter table customers alter note type int using note::int"], Refused("")),
    (&["alter table events detach partition events_p2"], Refused("")),
    (
        &["create table parent (id int, tenant_id text)", "alter table customers inherit parent"],
        Refused(""),
    ),
    (&["create table heir () inherits (customers)"], Refused(FILTERED)),
    (&["create table like_it (like customers including all)"], Refused(FILTERED)),
    (&["create table refers (id int references customers (id))"], Refused(FILTERED)),
    (&["alter table notes add foreign key (id) references customers (id)"], Refused(FILTERED)),
    (&["create unique index on customers (note)"], Refused(FILTERED)),
    (&["create index on customers ((1 / (amount - 7777001)))"], Refused(FILTERED)),
    (&["create rule r as on select to notes do instead select * from customers"], Refused("")),
    (
        &[
            "create trigger t before update on customers for each row execute function suppress_redundant_updates_trigger()",
        ],
        Refused(""),
    ),
    (&["create policy p on customers"], Refused("")),
    (&["lock table customers"], ToNothing),
    (&["analyze customers"], ToNothing),
];

impl Filtered {
    #[track_caller]
    fn holds(&self, ways: &[(&[&str], Comes<'_>)]) {
        let before = self.of_others();
        assert!(SENTINELS.iter().any(|sentinel| before.contains(sentinel)), "{before}");
        let mut wrong = String::new();
        for (messages, comes) in ways {
            let mut talk = self.talk("acme-bot");
            let said: Vec<String> =
                messages.iter().flat_map(|sql| talk.ask(&[query(sql)])).collect();
            let refused = said.iter().find(|line| line.starts_with("E[42501"));
            let right = match comes {
                To(lines) => lines.iter().all(|line| said.iter().any(|said| said == line)),
                Refused(reason) => refused.is_some_and(|line| line.contains(reason)),
                ToNothing => true,
            };
            let known = messages.concat();
            let shown: Vec<_> = SENTINELS
                .iter()
                .filter(|sentinel| {
                    !known.contains(**sentinel) && contains(talk.received(), sentinel)
                })
                .collect();
            let after = self.of_others();
            if !right || !shown.is_empty() || after != before {
                let changed = if after == before { "" } else { "  CHANGED" };
                wrong += &format!("{messages:?}\n  {said:?} {shown:?}{changed}\n");
            }
        }
        assert!(wrong.is_empty(), "{wrong}");
    }
}

#[test]
fn no_read_shows_rows_outside_of_the_filter() {
    Filtered::new().holds(READS);
}

#[test]
fn no_write_reaches_or_makes_rows_outside_of_the_filter() {
    Filtered::new().holds(WRITES);
    assert!(READS.len() + WRITES.len() >= 150);
}

#[test]
fn parameters_are_checked_by_the_server() {
    let filtered = Filtered::new();
    let before = filtered.of_others();
    let mut talk = filtered.talk("acme-bot");
    let mut ask = |sql: &str, values: &[&str]| {
        talk.ask(&[parse("", sql), bind("", "", values), execute(""), sync()]).join(" ")
    };
    let insert =
        "insert into customers (id, tenant_id, name) values ($1, $2, $3), ($1 + 1, $2::text, $3)";
    assert!(ask(insert, &["21", "acme", "New"]).contains("C[INSERT 0 2]"));
    let said = ask(insert, &["301", "globex", "Bad"]);
    assert!(said.contains("E[22P02") && said.contains("outside of the row filter"), "{said}");
    let said = ask("insert into seats (org, who) values ($1, $2)", &["43", "Bad"]);
    assert!(said.contains("E[22P02"), "{said}");
    assert!(ask("insert into seats (org, who) values ($1, $2)", &["42", "x"]).contains("C[INSERT"));
    let update = "update customers set tenant_id = $2, note = 'z' where id = $1 returning name";
    assert!(ask(update, &["1", "acme"]).contains("D[Ann]"));
    assert!(ask(update, &["1", "globex"]).contains("E[22P02"));
    assert!(ask(update, &["101", "acme"]).contains("C[UPDATE 0]"));
    let said = ask("insert into customers (id, tenant_id) values ($1, $2 || '')", &["302", "acme"]);
    assert!(said.contains("E[42501"), "{said}");
    let said =
        ask("insert into customers (id, tenant_id) values ($1, $2::varchar(4))", &["303", "acmex"]);
    assert!(said.contains("E[42501"), "{said}");
    let said = ask("select name from customers where tenant_id = $1", &["globex"]);
    assert!(said.contains("C[SELECT 0]"), "{said}");
    assert_eq!(filtered.of_others(), before);
}

#[test]
fn a_claim_is_a_constant_or_nothing_is_there() {
    let filtered = Filtered::new();
    let before = filtered.of_others();
    let asks = |client: &str, sql: &str| filtered.talk(client).ask(&[query(sql)]).join(" ");
    for sql in [
        "select 1 from customers",
        "select 1 from v_count",
        "select 1 from events_p1",
        "delete from customers",
        "insert into customers values (1, 'acme')",
        "explain select 1 from orders",
        "copy customers to stdout",
    ] {
        for client in ["agent", "list-bot"] {
            let said = asks(client, sql);
            let named = said.contains("E[42501") && said.contains("the claim \"tenant\"");
            assert!(named, "{client} {sql}\n{said}");
        }
    }
    filtered.gateway.daemon().wait_for_log("the claim \\\"tenant\\\"");
    assert!(asks("agent", "select count(*) from notes").contains("D[2]"));
    // A value of another kind than the column's: the server says so.
    assert!(asks("list-bot", "select who from seats").contains("E[22P02"));
    assert!(asks("evil-bot", "select who from seats").contains("E[22P02"));
    for (setting, sql) in [("on", "table customers"), ("off", "table v_names")] {
        let mut talk = filtered.talk("evil-bot");
        let said = talk.ask(&[query(&format!("set standard_conforming_strings = {setting}"))]);
        assert!(said.contains(&"C[SET]".to_owned()), "{said:?}");
        let said = talk.ask(&[query(sql)]);
        assert!(said.contains(&"C[SELECT 0]".to_owned()), "{said:?}");
        let said = talk.ask(&[query("delete from customers where true")]);
        assert!(said.contains(&"C[DELETE 0]".to_owned()), "{said:?}");
    }
    assert!(asks("free-bot", "select count(*) from customers").contains("D[6]"));
    assert!(asks("free-bot", "select n from v_count").contains("D[6]"));
    assert!(asks("free-bot", "explain analyze select * from customers").contains("C[EXPLAIN]"));
    assert_eq!(filtered.of_others(), before);
}

#[test]
fn an_in_list_takes_each_value_of_a_claim_and_each_group() {
    let filtered = Filtered::with(
        r#"
[[rows]]
name = "tenants"
table = "public.customers"
where = "tenant_id IN ('public', {claim.tenant})"

[[rows]]
name = "of-groups"
table = "public.notes"
where = "text IN ({groups})"
"#,
    );
    let client = filtered.database.client();
    let more =
        "insert into customers values (201, 'initech', 'Sentinel-Third'), (202, 'public', 'Pat');
                insert into notes values (3, 'acme', 'agents'), (4, 'acme', 'staff')";
    assert!(run(&client, more).0);
    let others = "select * from customers where tenant_id = 'initech' order by id";
    let before = run(&client, others).1;
    let asks = |client: &str, sql: &str| filtered.talk(client).ask(&[query(sql)]).join(" ");
    assert!(asks("list-bot", "select count(*) from customers").contains("D[7]"));
    assert!(asks("acme-bot", "select count(*) from customers").contains("D[4]"));
    assert!(asks("list-bot", "select n from v_count").contains("D[7]"));
    assert!(asks("acme-bot", "select id from notes").contains("D[3] C[SELECT 1]"));
    assert!(asks("free-bot", "select count(*) from notes").contains("D[2]"));
    assert!(asks("agent", "select count(*) from customers").contains("the claim \"tenant\""));
    // New rows have one of the values, as a constant or a parameter.
    assert!(
        asks("list-bot", "insert into customers values (51, 'globex'), (52, 'public')")
            .contains("C[INSERT 0 2]")
    );
    assert!(asks("list-bot", "insert into customers values (53, 'initech')").contains("E[42501"));
    assert!(asks("acme-bot", "insert into customers values (54, 'globex')").contains("E[42501"));
    assert!(
        asks("list-bot", "update customers set tenant_id = 'acme' where id = 51")
            .contains("C[UPDATE 1]")
    );
    assert!(
        asks("list-bot", "update customers set note = 'z' where id = 201").contains("C[UPDATE 0]")
    );
    let mut talk = filtered.talk("list-bot");
    let mut insert = |id: &str, tenant: &str| {
        let sql = "insert into customers (id, tenant_id) values ($1, $2)";
        talk.ask(&[parse("", sql), bind("", "", &[id, tenant]), execute(""), sync()]).join(" ")
    };
    for (id, tenant) in [("61", "globex"), ("62", "public")] {
        let said = insert(id, tenant);
        assert!(said.contains("C[INSERT 0 1]"), "{said}");
    }
    let said = insert("63", "initech");
    assert!(said.contains("E[22P02") && said.contains("outside of the row filter"), "{said}");
    assert_eq!(run(&client, others).1, before);
}

const MASKED_TOO: &str = r#"
[[mask]]
name = "mails"
columns = ["public.customers.email"]
with = "partial"

[[mask]]
name = "at-output"
columns = ["public.orders.total"]
enforce = "output"

[[mask]]
name = "perhaps"
columns = ["public.customers.amount", "public.customers.tenant_id"]
on_unprovable = "output"
"#;

#[test]
fn masks_and_filters_hold_together() {
    let masks = MASKED_TOO.replace(
        "[[mask]]\nname = \"mails\"",
        "[[mask]]\nname = \"mails\"\non_unprovable = \"output\"",
    );
    for masks in [MASKED_TOO, &masks] {
        let filtered = Filtered::with(&format!("{FILTERS}{masks}"));
        let before = filtered.of_others();
        for (sql, expected) in [
            (
                "select id, tenant_id, name, email, amount, note from customers order by id limit 1",
                "D[1|[masked]|Ann|a***@acme.example|NULL|a]",
            ),
            (
                "select id, tenant_id, name, email, amount, note from v_customers order by id limit 1",
                "D[1|[masked]|Ann|a***@acme.example|NULL|a]",
            ),
            ("select name, email from customers where tenant_id = 'globex'", "C[SELECT 0]"),
            ("select s is null, n from v_count", "D[t|3]"),
            (
                "update customers set name = 'Ann' where id in (1, 101) returning tenant_id",
                "C[UPDATE 1]",
            ),
            ("delete from customers where id = 101", "C[DELETE 0]"),
            ("select total from orders where id in (1, 101)", "D[NULL]"),
            ("select total from v_join", "C[SELECT 2]"),
            ("copy customers (email) to stdout", "d[a***@acme.example]"),
        ] {
            let said = filtered.talk("acme-bot").ask(&[query(sql)]);
            assert!(said.iter().any(|line| line == expected), "{sql}\n{said:?}\n{masks}");
        }
        for sql in [
            "update customers set name = 'x' where amount > 5",
            "delete from customers where email like '%'",
            "select name from customers tablesample system (100)",
            "select * from list_customers()",
            "select max(email) from list_customers()",
        ] {
            let mut talk = filtered.talk("acme-bot");
            let said = talk.ask(&[query(sql)]);
            assert!(!contains(talk.received(), "entinel"), "{sql} {said:?}");
            talk.ask(&[query("rollback")]);
        }
        assert_eq!(filtered.of_others(), before);
    }
}

#[test]
fn what_shows_rows_of_a_filtered_child_is_filtered_too() {
    let rows = r#"
[[rows]]
table = "public.events_p2"
where = "tenant_id = {claim.tenant}"

[[rows]]
table = "cust_child"
where = "tenant_id = {claim.tenant} AND extra = 'x'"
groups = ["agents"]

[[rows]]
table = "public.rooms"
where = "org = {claim.org}"
"#;
    let filtered = Filtered::with(rows);
    let asks = |sql: &str| filtered.talk("acme-bot").ask(&[query(sql)]).join(" ");
    assert!(asks("select what from events").contains("D[in] C[SELECT 1]"));
    assert!(asks("select name from cust_child").contains("D[Kid] C[SELECT 1]"));
    // The parent lacks a column of the condition.
    assert!(asks("select name from customers").contains("E[42501"));
    let said = asks("insert into customers values (1, 'acme')");
    assert!(said.contains("E[42501"), "{said}");
    // What a constraint says of another row is withheld; what it says of one's own is not.
    let said = asks("insert into rooms values (42, '[7777000,7777006)', 'ours')");
    assert!(said.contains("E[23P01") && !said.contains("7777005"), "{said}");
    let said = asks("insert into rooms values (42, null, 'ours'), (42, 'x', 'ours')");
    assert!(said.contains("malformed range literal"), "{said}");
}

#[test]
fn a_filter_that_comes_later_counts_for_what_was_prepared() {
    let filtered = Filtered::with("");
    let mut talk = filtered.talk("acme-bot");
    talk.ask(&[
        parse("s", "select name from customers"),
        sync(),
        query("prepare p as table v_names"),
    ]);
    let said = talk.ask(&[bind("", "s", &[]), execute(""), sync()]);
    assert!(said.iter().any(|line| line.contains("Sentinel")), "{said:?}");
    let seen = talk.received().len();
    let reloaded = filtered.gateway.reload(|text| format!("{text}{FILTERS}"));
    assert!(reloaded.status.success(), "{}", told(&reloaded));
    let said = talk.ask(&[bind("", "s", &[]), execute(""), sync()]);
    assert!(said.iter().any(|line| line.starts_with("E[42501")), "{said:?}");
    let said = talk.ask(&[query("execute p")]);
    assert!(said.iter().any(|line| line.starts_with("E[42501")), "{said:?}");
    assert!(!contains(&talk.received()[seen..], "entinel"));
}

#[test]
fn tools_look_at_a_filtered_table() {
    let filtered = Filtered::new();
    let token = filtered.gateway.issuer().token("acme-bot");
    let mut psql = filtered.gateway.client("orders").psql();
    psql.env("PGPASSWORD", token).args([
        "-c",
        "\\d+ customers",
        "-c",
        "\\dv",
        "-c",
        "select count(*) from customers",
    ]);
    let (succeeded, said) = crate::support::client::transcript(psql);
    assert!(succeeded && said.contains("tenant_id") && said.contains('3'), "{said}");
}

#[test]
fn a_wrong_filter_is_a_mistake_with_its_place() {
    let filtered = Filtered::new();
    let file = filtered.gateway.configuration();
    let text = std::fs::read_to_string(&file).unwrap();
    let wrong = file.with_file_name("wrong.toml");
    for (rows, said) in [
        ("table = \"customers\"", "missing key \"where\""),
        ("where = \"a = 1\"", "missing key \"table\""),
        ("table = \"a.b.c\"\nwhere = \"a = 1\"", "does not name a table"),
        (
            "table = \"t\"\nwhere = \"a = now()\"",
            "at character 5: of functions it knows lower and upper",
        ),
        ("table = \"t\"\nwhere = \"a = '{claim.b}'\"", "without quotes"),
        ("table = \"t\"\nwhere = \"a = 1; select 1\"", "at character 6: it is one expression"),
        ("name = \"tenants\"\ntable = \"t\"\nwhere = \"a = 1\"", "has this name"),
        ("table = \"t\"\nwhere = \"a = 1\"\nwith = \"null\"", "unknown key \"with\""),
    ] {
        std::fs::write(&wrong, format!("{text}\n[[rows]]\n{rows}\n")).unwrap();
        let checked = portcullis(&["check", "--config", wrong.to_str().unwrap()]);
        let told = told(&checked);
        assert!(!checked.status.success() && told.contains(said), "{rows}\n{told}");
        assert!(told.contains("wrong.toml:"), "{told}");
    }
    let explained = |more: &[&str]| {
        let config = file.to_str().unwrap();
        let start = ["policy", "explain", "--config", config, "--target", "orders"];
        told(&portcullis(&[&start, more, &["select * from customers"]].concat()))
    };
    let said = explained(&["--claim", "tenant=acme"]);
    assert!(said.starts_with("by the rules: allow by no rule"), "{said}");
    assert!(
        said.contains("masks or row filters may refuse it; only the target's catalog"),
        "{said}"
    );
    let sent = "(\"t\".\"tenant_id\" OPERATOR(pg_catalog.=) 'acme')";
    assert!(
        said.contains("rows tenants: of public.customers only where") && said.contains(sent),
        "{said}"
    );
    let lacking = explained(&[]);
    let refused = "refused by tenants: the row filter tenants on public.customers needs the claim tenant, which \
                   the identity lacks\n  by the rules: allow by no rule";
    assert!(lacking.starts_with(refused), "{lacking}");
    assert!(lacking.contains("are refused: the caller lacks the claim \"tenant\""), "{lacking}");
    assert!(explained(&["--group", "staff"]).contains("not for this caller"));
}

#[test]
fn a_column_that_is_not_there_is_named_to_client_and_operator() {
    let rows = "[[rows]]\nname = \"typo\"\ntable = \"public.notes\"\nwhere = \"tennant_id = {user}\"\n\
                [[rows]]\nname = \"nowhere\"\ntable = \"public.nothing\"\nwhere = \"x = {user}\"\n";
    let filtered = Filtered::with(rows);
    let said = filtered.talk("acme-bot").ask(&[query("select text from notes")]).join(" ");
    assert!(said.contains("E[42501") && said.contains("the column \"tennant_id\""), "{said}");
    for named in ["\"typo\"", "public.notes", "tennant_id"] {
        filtered.gateway.daemon().wait_for_log(named);
    }
    let file = filtered.gateway.configuration();
    let checked = told(&portcullis(&["check", "--online", "--config", file.to_str().unwrap()]));
    let warned = "row filter typo: there is no column:public.notes.\"tennant_id\" on orders; \
                  every statement on the table is refused";
    assert!(checked.contains(warned), "{checked}");
    assert!(checked.contains("row filter nowhere: there is no table:public.nothing"), "{checked}");
    assert!(!checked.contains("public.nothing.\"x\""), "{checked}");
}

#[test]
fn comparisons_that_cannot_fail_use_their_indexes() {
    let filtered = Filtered::new();
    let mut talk = filtered.talk("acme-bot");
    // The server's own record of what it was asked last, explained by the owner.
    let server = &PostgresServer::shared().server;
    let mut plan = |sql: &str| {
        talk.ask(&[query("begin")]);
        let said = talk.ask(&[query(&format!("/* planned */ {sql}"))]).join("\n");
        let asked = server.superuser_psql(&format!(
            "select query from pg_stat_activity where datname = '{}' and query like '/* planned */%'",
            filtered.database.name
        ));
        talk.ask(&[query("rollback")]);
        let explain = format!(
            "set enable_seqscan = off; set enable_bitmapscan = off; explain (costs off) {asked}"
        );
        match said.contains("E[42") {
            true => said,
            false => run(&filtered.database.client(), &explain).1,
        }
    };
    for sql in [
        "select name from customers where id = 1",
        "select c.name from only customers c join notes n on true where n.id > 0 and 1 = c.id",
        "select name from public.customers where (id = '1' and note is null) and 1 / amount > 0",
        "select name from customers c where c.id = 1::bigint and exists (select from orders where id = 1)",
        "select n.id from notes n left join customers c on c.id > 0 where c.id in (1)",
        "update customers set note = 'x' where id = 1 and note::int > 0",
        "delete from only customers c using notes n where c.id = 1 and n.id = c.id",
    ] {
        let said = plan(sql);
        assert!(said.contains("Index Cond: (id = "), "{sql}\n{said}");
    }
    for sql in [
        "select name from customers where id + 0 = 1",
        "select name from customers c (a, b) where id = 1",
        "select x.id from (notes n join customers c on true) x (id, b) where x.id = 1",
        "select n.id, (select max(c.name) from customers c where n.id = 1) from notes n",
        "select name from customers where id = 1 or true",
        "select name from customers where amount = 1.5",
    ] {
        let said = plan(sql);
        assert!(said.contains("Scan") || said.contains("E[4270"), "{sql}\n{said}");
        assert!(!said.contains("Index Cond: (id = "), "{sql}\n{said}");
    }
    // The same rows come as without the comparisons in the filter's query.
    let mut talk = filtered.talk("acme-bot");
    let mut ask = |sql: &str, values: &[&str]| {
        talk.ask(&[parse("", sql), bind("", "", values), execute(""), sync()]).join(" ")
    };
    for (sql, values, expected) in [
        ("select name from customers where id = $1", &["1"][..], "D[Ann]"),
        ("select name from customers where id = $1", &["101"], "C[SELECT 0]"),
        (
            "select name from customers where id = any($1) order by id",
            &["{1,2,101}"],
            "D[Ann] D[Abe] C",
        ),
        (
            "select name from customers where id in ($1, $2) and tenant_id <> $3",
            &["1", "2", "x"],
            "C[SELECT 2]",
        ),
        (
            "select n.id, c.name from notes n left join customers c on c.id = n.id where c.name = $1",
            &["Abe"],
            "D[2|Abe] C",
        ),
        ("select $1::text, name from customers where id = $1", &["1"], "E[42883"),
        (
            "update customers set note = $2 where id = $1 and 1 / (id - 101) < 1",
            &["1", "y"],
            "C[UPDATE 1]",
        ),
        (
            "update customers set note = $1 where name = $1 or id = $2::int8",
            &["Ann", "2"],
            "C[UPDATE 2]",
        ),
    ] {
        let said = ask(sql, values);
        let fails = expected.starts_with('E') && said.contains("D[1|Ann]");
        assert!(said.contains(expected) || fails, "{sql}\n{said}");
    }
}

/// Tables of the name of a filtered one, in a schema that is searched first.
#[test]
fn decoys_that_go_let_nobody_write_rows_of_others() {
    let filtered = Filtered::new();
    let as_owner = |sql: &str| {
        let (succeeded, said) = run(&filtered.database.client(), sql);
        assert!(succeeded, "{said}");
    };
    as_owner("create schema decoy; alter role current_user set search_path = decoy, public");
    let look = "select * from public.customers where tenant_id <> 'acme' order by id; \
                select * from orders where tenant_id <> 'acme'";
    let of_others = || run(&filtered.database.client(), look).1;
    let before = of_others();
    let drop_it = "drop table decoy.customers";
    for write in [
        "update customers set tenant_id = 'acme'",
        "delete from customers",
        "insert into customers (id, tenant_id, name) values (99, 'globex', 'x')",
        "truncate customers cascade",
        "table customers",
        "select * from customers for update",
    ] {
        for pipelined in [false, true] {
            as_owner(
                "create table if not exists decoy.customers (id int, tenant_id text, name text)",
            );
            let mut talk = filtered.talk("acme-bot");
            talk.ask(&[query("select count(*) from customers")]);
            let sent = match pipelined {
                false => vec![query(&format!("{drop_it}; {write}"))],
                true => vec![
                    parse("u", write),
                    parse("", drop_it),
                    bind("", "", &[]),
                    execute(""),
                    bind("", "u", &[]),
                    execute(""),
                    sync(),
                ],
            };
            let said = talk.ask(&sent).join("\n");
            assert!(!SENTINELS.iter().any(|sentinel| said.contains(sentinel)), "{write}: {said}");
            assert_eq!(of_others(), before, "{write}: {said}");
        }
    }
    // A table of that name takes no rows of others either.
    let said = filtered.talk("acme-bot").ask(&[query("create table decoy.orders (id int)")]);
    assert!(said.iter().any(|line| line.starts_with("E[42501")), "{said:?}");
}

#[test]
fn a_table_with_a_filter_is_not_locked_or_rebuilt() {
    let filtered = Filtered::new();
    let mut talk = filtered.talk("acme-bot");
    for statement in [
        "lock table customers in access exclusive mode",
        "lock customers",
        "vacuum full customers",
        "vacuum customers",
        "reindex table customers",
        "cluster customers",
        "grant select on customers to public",
    ] {
        let said = talk.ask(&[query(statement)]);
        assert!(said.iter().any(|line| line.starts_with("E[42501")), "{statement}: {said:?}");
    }
    let said = talk.ask(&[query("select id from customers where id = 1 for update")]);
    assert!(said.iter().any(|line| line.starts_with("D[")), "{said:?}");
}

/// A comparison that uses an index fetches rows of others before the filter leaves them out.
#[test]
fn counters_and_locks_tell_nothing_of_rows_of_others() {
    let filtered = Filtered::new();
    let client = filtered.database.client();
    let more = "create index on customers (name); analyze customers;
                create view v_counts as select relname, n_live_tup, seq_scan from pg_stat_user_tables;
                create view v_locks as select mode from pg_locks";
    assert!(run(&client, more).0);
    let mut talk = filtered.talk("acme-bot");
    let mut ask = |sql: &str| talk.ask(&[query(sql)]).join(" ");
    ask(
        "begin isolation level serializable; set local enable_seqscan = off; set local enable_bitmapscan = off",
    );
    for name in ["Sentinel-Gus", "nobody"] {
        assert!(
            ask(&format!("select id from customers where name = '{name}'")).contains("C[SELECT 0]")
        );
        for counted in [
            "select relname, idx_tup_fetch from pg_stat_xact_user_tables where relname = 'customers'",
            "select relname, n_live_tup from pg_catalog.pg_stat_all_tables where relname = 'customers'",
            "select relname, heap_blks_hit from pg_statio_user_tables where relname = 'customers'",
            "select indexrelname, idx_tup_read from pg_stat_user_indexes where indexrelname = 'customers_name_idx'",
            "select datname, tup_fetched from pg_stat_database where datname = current_database()",
            "select tablename, most_common_freqs from pg_stats where (tablename, attname) = ('customers', 'tenant_id')",
            "select relname, n_live_tup from v_counts where relname = 'customers'",
        ] {
            let said = ask(counted);
            let rows: Vec<&str> = said.split("D[").skip(1).collect();
            let hidden = |row: &&str| row.contains("|NULL]");
            assert!(!rows.is_empty() && rows.iter().all(hidden), "{counted}: {said}");
        }
        for locks in ["pg_locks", "pg_catalog.pg_locks", "v_locks"] {
            let said = ask(&format!("select count(*) from {locks} where mode = 'SIReadLock'"));
            assert!(said.contains("D[0]"), "{locks}: {said}");
        }
    }
    assert!(ask("select count(*) > 0 from pg_locks").contains("D[t]"));
    assert!(
        ask("select state from pg_stat_activity where pid = pg_backend_pid()")
            .contains("D[active]")
    );
    ask("rollback");
    for refused in [
        "select pg_stat_get_xact_tuples_returned('customers'::regclass)",
        "select pg_catalog.pg_stat_get_live_tuples('customers'::regclass)",
        "select currtid2('customers', format('(0,%s)', 1)::tid)",
        "select pg_catalog.currtid2('public.customers', '(0,1)')",
        "select * from pg_lock_status()",
        "select pg_stat_get_db_tuples_fetched(oid) from pg_database",
    ] {
        let said = ask(refused);
        assert!(said.contains("E[42501") && said.contains("counters"), "{refused}: {said}");
    }
}

/// What the server says of its workings, at any level that a client may ask for.
#[test]
fn plans_in_notices_tell_nothing_of_rows_of_others() {
    let filtered = Filtered::new();
    let mut talk = filtered.talk("acme-bot");
    let mut ask = |sql: &str| talk.ask(&[query(sql)]).join("\n");
    for setting in [
        "client_min_messages = log",
        "client_min_messages = debug5",
        "debug_print_plan = on",
        "debug_print_rewritten = on",
        "trace_sort = on",
    ] {
        assert!(ask(&format!("set {setting}")).contains("C[SET]"), "{setting}");
    }
    let said = ask("select name from customers where name > 'Sentinel' order by name");
    assert!(said.contains("N[") && said.contains("withheld"), "{said}");
    for told in ["plan_rows", "PLANNEDSTMT", "tenant_id", "acme", "internal sort"] {
        assert!(!said.contains(told), "{told}: {said}");
    }
    let said = ask("analyze verbose customers");
    assert!(said.contains("C[ANALYZE]") && !said.contains("rows in sample"), "{said}");
    assert!(ask("do $$ begin raise notice 'hello'; end $$").contains("E[42501"));
}
