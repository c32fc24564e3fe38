//! Row filters on tables with masked columns, with the role that `policy harden` makes: it finds a view
//! under the table's name.

use std::fs;
use std::sync::Arc;

use crate::support::gateway::{Gateway, Setup, Target, portcullis, told};
use crate::support::issuer::Issuer;
use crate::support::postgres::{Options, PostgresServer};
use crate::support::talk::{Talk, query};

const ROLE: &str = "portcullis_app";

const CLIENTS: &str = r#"
[[client]]
id = "acme-bot"
secret = "acme-bot-secret"
grants = ["client_credentials"]
groups = ["agents"]
claims = { tenant = "acme" }
"#;

const SCHEMA: &str = "
create table invoices (id int primary key, tenant_id text, email text, total int);
insert into invoices values (1, 'acme', 'alice.secret@example.com', 5), (2, 'globex', 'bob.secret@example.com', 7);
create table orders (id int primary key, tenant_id text, note text);
insert into orders values (1, 'acme', 'kept'), (2, 'globex', 'kept');
create view mails as select id, tenant_id, email from invoices;
create view addresses as select id, email from invoices;
create view sums as select sum(total) from invoices;
create schema old;
create table old.orders (id int);
";

const POLICY: &str = r#"
[[mask]]
name = "mails"
columns = ["public.invoices.email"]
with = "partial"

[[mask]]
name = "notes"
columns = ["public.orders.note"]

[[rows]]
name = "own-invoices"
table = "public.invoices"
where = "tenant_id = {claim.tenant}"

[[rows]]
name = "own-orders"
table = "public.orders"
where = "tenant_id = {claim.tenant}"
"#;

struct Hardened {
    gateway: Gateway,
    _server: PostgresServer,
}

impl Hardened {
    fn new() -> Self {
        let server = PostgresServer::start(&Options {
            hba: vec!["host all all 127.0.0.1/32 trust".to_owned()],
            setup: "create role app login superuser".to_owned(),
            ..Options::default()
        });
        server.superuser_psql("create database shop owner app");
        server.psql("shop", SCHEMA);
        let target = |name: &str, user: &str| Target {
            name: name.to_owned(),
            port: server.port(),
            database: "shop".to_owned(),
            user: user.to_owned(),
            password: "unused".to_owned(),
            lines: "tls = \"disable\"\n".to_owned(),
        };
        let gateway = Gateway::start(&Setup {
            policy: POLICY.to_owned(),
            issuer: Some(Arc::new(Issuer::start_with(3600, CLIENTS))),
            ..Setup::for_targets([target("app", "app"), target("hard", ROLE)])
        });
        let file = gateway.configuration();
        let printed = portcullis(&["policy", "harden", "app", "--config", file.to_str().unwrap()]);
        assert!(printed.status.success(), "{}", told(&printed));
        server.psql("shop", &String::from_utf8(printed.stdout).unwrap());
        Self { gateway, _server: server }
    }

    fn talk(&self) -> Talk {
        let token = self.gateway.issuer().token("acme-bot");
        Talk::opened(self.gateway.address(), "acme-bot", "hard", &token)
    }

    /// What `check --online` says of the target with that role.
    fn warned(&self) -> Vec<String> {
        let file = self.gateway.configuration();
        let said = told(&portcullis(&["check", "--online", "--config", file.to_str().unwrap()]));
        let of_views = said.lines().filter(|line| line.contains("on hard: it does not name"));
        of_views.map(str::to_owned).collect()
    }

    /// Puts other row filters in force.
    fn write(&self, there: &str, instead: &str) {
        let file = self.gateway.configuration();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(there), "{text}");
        fs::write(&file, text.replace(there, instead)).unwrap();
        let reloaded = portcullis(&["reload", "--config", file.to_str().unwrap()]);
        assert!(reloaded.status.success(), "{}", told(&reloaded));
    }
}

#[test]
fn a_filter_that_does_not_name_the_views_of_the_hardened_role_is_told_of_with_the_cure() {
    let hardened = Hardened::new();
    let mut talk = hardened.talk();
    let mut says = |sql: &str| {
        let said = talk.ask(&[query(sql)]).join("\n");
        assert!(!said.contains(".secret@") && !said.contains("globex"), "{sql}\n{said}");
        said
    };

    // The view shows what a mask makes of a column that the role may not read.
    let read = "invoices means a view of `policy harden` here: the view portcullis_app.invoices shows rows of \
                public.invoices, which has a row filter, and the gateway's role may not read the column \
                email of public.invoices: the gateway's operator writes table = \"*.invoices\" in the row \
                filter";
    for sql in ["select id, email from invoices", "select count(*) from invoices"] {
        let said = says(sql);
        assert!(said.contains("E[42501") && said.contains(read), "{sql}\n{said}");
    }
    // Views of the database's own that show the column have one in their place, too.
    for (name, cure) in [
        ("mails", "writes the row filter again with table = \"*.mails\""),
        ("addresses", "with table = \"*.addresses\", once the view shows tenant_id"),
    ] {
        let said = says(&format!("select * from {name}"));
        let shows = format!("the view portcullis_app.{name} shows rows of public.invoices, which");
        assert!(said.contains(&shows) && said.contains(cure), "{said}");
    }
    assert!(says("select * from sums").contains("D[5]"));
    // What reads no column that is closed can be read, and not written. There is another table of the
    // name, which `*.orders` would name, too.
    assert!(says("select id, note from orders").contains("D[1|[masked]]"));
    let written = "orders means a view of `policy harden` here: the view portcullis_app.orders over \
                   public.orders, which has a row filter, is written: write public.orders itself, or the \
                   gateway's operator writes the row filter again with table = \"portcullis_app.orders\"";
    let said = says("update orders set tenant_id = 'acme' where id = 1");
    assert!(said.contains("E[42501") && said.contains(written), "{said}");
    assert!(says("delete from public.orders where id = 2").contains("C[DELETE 0]"));
    // Beside the view: what does not name the column that the role may not read.
    for sql in ["select total from public.invoices", "select sum(total) from public.invoices"] {
        let said = says(sql);
        assert!(said.contains("D[5]"), "{sql}\n{said}");
    }
    for sql in ["select email from public.invoices", "select * from public.invoices"] {
        let said = says(sql);
        assert!(said.contains("E[42501"), "{sql}\n{said}");
    }

    let warned = hardened.warned();
    let [addresses, invoices, mails, orders] = &warned[..] else { panic!("{warned:?}") };
    for (warned, words) in [
        (
            invoices,
            "row filter own-invoices on hard: it does not name the view portcullis_app.invoices of \
             `policy harden`, which shows rows of public.invoices: statements that read or write \
             invoices are refused; write table = \"*.invoices\" in the row filter",
        ),
        (orders, "row filter own-orders on hard: it does not name the view portcullis_app.orders"),
        (orders, "statements that write orders are refused"),
        (orders, "write the row filter again with table = \"portcullis_app.orders\""),
        (mails, "write the row filter again with table = \"*.mails\""),
        (addresses, "once the view shows tenant_id"),
    ] {
        assert!(warned.contains(words), "{words} in {warned}");
    }

    // What it says to write is the cure.
    hardened.write("table = \"public.invoices\"", "table = \"*.invoices\"");
    hardened.write(
        "[[rows]]\nname = \"own-orders\"",
        "[[rows]]\nname = \"own-mails\"\ntable = \"*.mails\"\nwhere = \"tenant_id = {claim.tenant}\"\n\n\
         [[rows]]\nname = \"own-orders-by-view\"\ntable = \"portcullis_app.orders\"\n\
         where = \"tenant_id = {claim.tenant}\"\n\n[[rows]]\nname = \"own-orders\"",
    );
    let warned = hardened.warned();
    assert!(warned.len() == 1 && warned[0].contains("view portcullis_app.addresses"), "{warned:?}");
    let mut talk = hardened.talk();
    let mut says = |sql: &str| talk.ask(&[query(sql)]).join("\n");
    let said = says("select id, email from invoices");
    assert!(said.contains("D[1|a***@example.com]") && said.contains("C[SELECT 1]"), "{said}");
    assert!(says("select count(*) from invoices").contains("D[1]"));
    assert!(says("select id from mails").contains("C[SELECT 1]"));
    assert!(says("update invoices set total = 6 where id > 0").contains("C[UPDATE 1]"));
    assert!(says("update orders set tenant_id = 'acme' where id > 0").contains("C[UPDATE 1]"));
}
