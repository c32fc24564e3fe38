//! The role of `policy harden`, held against the server.

use std::fs;
use std::path::Path;

use crate::masking::{MASKS, SENTINELS};
use crate::quickstart::Quickstart;
use crate::support::client::{Client, transcript};
use crate::support::gateway::{Gateway, Setup, Target, portcullis, told};
use crate::support::postgres::{Options, PostgresServer};

const ROLE: &str = "portcullis_app";

/// A server of its own, because roles and foreign servers are the whole server's, and a gateway.
struct Wall {
    server: PostgresServer,
    gateway: Gateway,
}

impl Wall {
    fn new(schema: &str, policy: &str) -> Self {
        let server = PostgresServer::start(&Options {
            hba: vec!["host all all 127.0.0.1/32 trust".to_owned()],
            setup: "create role app login superuser".to_owned(),
            ..Options::default()
        });
        server.superuser_psql("create database hard owner app");
        server.psql("hard", schema);
        let target = |name: &str, user: &str| Target {
            name: name.to_owned(),
            port: server.port(),
            database: "hard".to_owned(),
            user: user.to_owned(),
            password: "unused".to_owned(),
            lines: "tls = \"disable\"\n".to_owned(),
        };
        let gateway = Gateway::start(&Setup {
            policy: policy.to_owned(),
            ..Setup::for_targets([target("app", "app"), target("hard", ROLE)])
        });
        Self { server, gateway }
    }

    fn script(&self) -> String {
        let file = self.gateway.configuration();
        let printed = portcullis(&["policy", "harden", "app", "--config", file.to_str().unwrap()]);
        assert!(printed.status.success(), "{}", told(&printed));
        String::from_utf8(printed.stdout).unwrap()
    }

    /// Applies it, and gives it.
    fn harden(&self) -> String {
        let script = self.script();
        self.server.psql("hard", &script);
        script
    }

    /// What the server says to the role without a gateway.
    fn says(&self, sql: &str) -> String {
        says(&Client::new(self.server.port(), "hard", ROLE, ""), sql)
    }

    #[track_caller]
    fn shows_nothing(&self, sql: &str) -> String {
        let through = says(&self.gateway.client("hard"), sql);
        let said = self.says(sql);
        for sentinel in SENTINELS {
            assert!(!said.contains(sentinel), "{sql}\n{said}");
            assert!(!through.contains(sentinel), "{sql}\n{through}");
        }
        said
    }
}

fn says(client: &Client, sql: &str) -> String {
    let mut psql = client.psql();
    psql.args(["-v", "ON_ERROR_STOP=0", "-c", sql]);
    transcript(psql).1
}

const CUSTOMERS: &str = "
create table customers (id int primary key, name text, email text, ssn text);
insert into customers values (1, 'Alice', 'alice.secret@example.com', '078-05-1120');
create table notes (id int, note text);
insert into notes values (1, '');
";

/// Rows M25: rules give rows with the rights of a table's owner.
pub fn tables_whose_rules_give_rows_are_not_written() {
    let wall = Wall::new(
        &format!(
            "{CUSTOMERS}
            create table et (note text);
            create rule ri as on insert to et do also select ssn, email from customers;
            create rule harmless as on update to et do also update notes set note = note;
            create rule ru as on update to notes do instead select ssn as note from customers;
            create rule rd as on delete to notes do instead
                delete from et returning 1, (select ssn from customers limit 1);
            create function keeps() returns trigger language plpgsql security definer as
                'begin new.note := (select ssn from public.customers limit 1); return new; end';
            create table kept (note text);
            create trigger keeps before insert on kept for each row execute function keeps();"
        ),
        MASKS,
    );
    let script = wall.harden();
    for statement in [
        "insert into et values ('q')",
        "update notes set note = 'x'",
        "delete from notes",
        "insert into public.et values ('q')",
    ] {
        let said = wall.shows_nothing(statement);
        assert!(said.contains("permission denied"), "{statement}\n{said}");
    }
    // What has no such rule goes on.
    assert_eq!(wall.says("select count(*) from et; insert into notes values (2, '')"), "0\n");
    for remark in [
        "No INSERT on \"public\".\"et\": its rule \"ri\" gives rows",
        "No UPDATE on \"public\".\"notes\": its rule \"ru\"",
        "No DELETE on \"public\".\"notes\": its rule \"rd\"",
        "The trigger \"keeps\" on \"public\".\"kept\" runs public.keeps()",
    ] {
        assert!(script.contains(remark), "{remark}\n{script}");
    }
    assert!(!script.contains("harmless"), "{script}");
}

pub fn neither_foreign_servers_nor_old_rights_go_around_the_wall() {
    let wall = Wall::new(CUSTOMERS, MASKS);
    wall.server.psql(
        "hard",
        &format!(
            "create extension postgres_fdw; create extension dblink;
             create server loop foreign data wrapper postgres_fdw
                 options (host '127.0.0.1', port '{}', dbname 'hard');
             create user mapping for public server loop options (user 'app', password 'x');
             create foreign table far (ssn text) server loop options (table_name 'customers');
             grant usage on foreign server loop to public;
             create role {ROLE} login;
             create function tells() returns text language sql security definer
                 as 'select ssn from public.customers limit 1';
             revoke execute on function tells() from public;
             grant execute on function tells() to {ROLE};
             create schema other; create table other.t (ssn text); insert into other.t values ('x');
             grant all on schema other to {ROLE}; grant select on other.t to {ROLE};
             grant select (ssn) on customers to {ROLE}; grant create on database hard to {ROLE};
             grant usage on foreign server loop to {ROLE};
             alter default privileges grant select on tables to {ROLE};
             alter role {ROLE} set session_replication_role = replica",
            wall.server.port()
        ),
    );
    let refused = wall.apply_and_say();
    assert!(refused.contains("default privileges"), "{refused}");
    wall.server
        .psql("hard", &format!("alter default privileges revoke select on tables from {ROLE}"));
    let said = wall.apply_and_say();
    assert!(said.contains("keeps its setting session_replication_role"), "{said}");
    assert!(!said.contains("ERROR"), "{said}");
    for (statement, why) in [
        ("select * from far", "permission denied for foreign table"),
        ("select tells()", "permission denied for function"),
        ("select ssn from public.customers", "permission denied for table"),
        ("create schema mine", "permission denied for database"),
        ("create table other.u ()", "permission denied for schema"),
    ] {
        let said = wall.shows_nothing(statement);
        assert!(said.contains(why), "{statement}\n{said}");
    }
    let script = wall.script();
    for remark in [
        "Nothing of \"public\".\"far\": its rows come from the server \"loop\"",
        "DROP USER MAPPING FOR PUBLIC SERVER \"loop\";",
        "REVOKE USAGE ON FOREIGN SERVER \"loop\" FROM PUBLIC;",
        "REVOKE EXECUTE ON ROUTINE public.dblink(text,text) FROM PUBLIC;",
    ] {
        assert!(script.contains(remark), "{remark}\n{script}");
    }
    // As it says there.
    wall.server.psql(
        "hard",
        "drop user mapping for public server loop; revoke usage on foreign server loop from public",
    );
    wall.shows_nothing("select * from dblink('loop', 'select ssn from customers') as t (ssn text)");
}

impl Wall {
    /// Applies the script, and gives what psql says of it, errors too.
    fn apply_and_say(&self) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), self.script()).unwrap();
        let mut psql = Client::new(self.server.port(), "hard", "app", "").psql();
        psql.arg("-f").arg(file.path());
        transcript(psql).1
    }
}

pub fn names_alone_and_domains_work_as_rules_allow() {
    let wall = Wall::new(
        "create domain address as text check (value like '%@%');
         create domain work_address as address check (value like '%@%.%');
         create domain short as varchar(12);
         create domain shorter as short check (value <> 'never');
         create table customers (id int primary key, name text, email work_address, ssn text,
             card_number shorter);
         insert into customers values (1, 'Alice', 'alice.secret@example.com', '078-05-1120', '4111');",
        MASKS,
    );
    let script = wall.harden();
    let rows = wall.says("select email, ssn, card_number from customers");
    assert_eq!(rows, "a***@example.com|[masked]|[masked]\n");
    for (statement, said) in [
        ("insert into customers values (2, 'Bob')", ""),
        ("insert into customers (id, name) values (3, 'Eve') returning id, email", "3|\n"),
        ("update customers set name = 'Ada' where id = 2 returning id", "2\n"),
        ("delete from customers where id = 2 returning name", "Ada\n"),
        ("copy public.customers (id, name) from program 'true'", "ERROR"),
        ("truncate public.customers", ""),
    ] {
        assert!(wall.says(statement).starts_with(said), "{statement}\n{}", wall.says(statement));
    }
    assert!(script.contains("COPY … FROM, MERGE and TRUNCATE need the schema"), "{script}");
    let mut psql = Client::new(wall.server.port(), "hard", ROLE, "").psql();
    psql.args([
        "-c",
        "merge into public.customers c using (values (9)) v (id) on c.id = v.id \
                      when not matched then insert (id, name) values (v.id, 'Kim')",
    ]);
    let (merged, said) = transcript(psql);
    assert!(merged, "{said}");
    assert_eq!(wall.says("select id, name from customers"), "9|Kim\n");
    // The owner's view gives no right that the role has not on the table.
    for statement in [
        "update customers set email = 'x@y.zz'",
        "select email from public.customers",
        "insert into customers (ssn) values ('1')",
    ] {
        let said = wall.says(statement);
        assert!(said.contains("ERROR"), "{statement}\n{said}");
    }
}

/// The view's SQL against the gateway's own masking, over random texts.
#[test]
fn a_view_shows_of_a_value_what_the_mask_shows() {
    let masks = "[[mask]]\nname = \"m\"\ncolumns = [\"public.values_of.v\"]\nwith = \"partial\"\nenforce = \"output\"\n";
    let wall = Wall::new("create table values_of (id int, v text)", masks);
    wall.harden();
    let fill = "select setseed(0.15); insert into values_of select n, (
            select coalesce(string_agg(substr('abZ09.-@ _é漢/:[{~', 1 + (random() * 16)::int, 1), ''), '')
            from generate_series(1, (n % 23)) as i where n > 0) from generate_series(1, 3000) n;
        insert into values_of values (0, 'alice@example.com'), (0, 'a@b.c'), (0, '078-05-1120'),
            (0, E'line\\nof 12345678'), (0, ''), (0, null), (0, 'é@x.y'), (0, 'éa@x.y'),
            (0, repeat('a', 300) || '@' || repeat('b', 30) || '.c'), (0, 'a@b@c.d'), (0, '@b.c')";
    wall.server.psql("hard", fill);
    let through = says(&wall.gateway.client("app"), "select id, v from values_of");
    // Ids tell rows apart but for the first, whose values are sorted as they are shown.
    let rows = |said: &str| {
        let mut rows: Vec<String> = said.lines().map(str::to_owned).collect();
        rows.sort();
        rows
    };
    let shown = wall.says("select id, v from values_of");
    let (through, shown) = (rows(&through), rows(&shown));
    assert!(through.len() > 3_000, "{}", through.len());
    let other: Vec<_> = through.iter().zip(&shown).filter(|(a, b)| a != b).take(5).collect();
    assert!(other.is_empty(), "{other:?}");
}

/// The quickstart has both walls, and Compose the same script.
#[test]
fn the_quickstart_has_a_second_wall_which_compose_has_too() {
    let quickstart = Quickstart::start();
    let folder = quickstart.folder();
    let config = folder.join("portcullis.toml");
    let config = config.to_str().unwrap();
    let printed =
        portcullis(&["policy", "harden", "shop", "--role", "shop_agent", "--config", config]);
    let script = String::from_utf8(printed.stdout.clone()).unwrap();
    assert!(printed.status.success(), "{}", told(&printed));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/compose/shop-harden.sql");
    let kept = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(kept, script, "write what `policy harden` prints to {}", file.display());

    // Past the gateway, as its role.
    let text = fs::read_to_string(config).unwrap();
    let address = text.lines().find_map(|line| line.strip_prefix("address = \"127.0.0.1:"));
    let port = address.unwrap().trim_end_matches('"').parse().unwrap();
    let password = fs::read_to_string(folder.join("shop_password")).unwrap();
    let role = Client::new(port, "shop", "shop_agent", password.trim());
    for (statement, said) in [
        (
            "select email, card_number, ssn from customers limit 1",
            "***@example.com|[masked]|[masked]",
        ),
        ("select ssn from public.customers limit 1", "permission denied"),
        (
            "do $$begin raise notice '%', (select ssn from public.customers limit 1); end$$",
            "permission denied",
        ),
        ("truncate public.orders", "permission denied"),
        ("create table public.mine ()", "permission denied"),
        ("drop table public.orders", "must be owner"),
        ("select spent(7) > 0", "t"),
    ] {
        let told = says(&role, statement);
        assert!(told.contains(said), "{statement}\n{told}");
    }
}
