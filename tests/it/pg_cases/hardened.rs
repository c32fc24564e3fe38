//! The second wall: the same rows without a gateway, as the role that `policy harden` makes. What
//! it stops there, it stops whatever passes the gateway.

use crate::support::client::{Client, transcript};
use crate::support::gateway::{Gateway, Setup, Target, portcullis, told};
use crate::support::postgres::{Options, PostgresServer};
use crate::support::talk::{Talk, query};

use super::{CASES, MASKS, POLICY, Plan, Row, SCHEMA, judge};

const ROLE: &str = "portcullis_app";

struct Wall {
    server: PostgresServer,
    gateway: Gateway,
    /// The role's search path, which is a setting of each database.
    path: String,
}

#[test]
fn the_role_of_policy_harden_stops_leaks_at_the_server_too() {
    let wall = Wall::build();
    wall.rows_stay_whole();

    let rows: Vec<Row> = CASES.lines().skip(1).map(Row::read).collect();
    let statements = rows.iter().filter(|row| {
        matches!(judge::plan(row), Plan::Refused | Plan::Masked { .. } | Plan::Limit | Plan::Strict)
    });
    let whole = wall.structure("c_hard");
    let (mut leaking, mut left, mut harmful, mut harm) = (0, Vec::new(), 0, Vec::new());
    for row in statements {
        // What only a superuser can do is not done here: that the role cannot is enough.
        let open = (row.role != "postgres").then(|| wall.says(row, row.role));
        let hard = wall.says(row, ROLE);
        let leaked = match &open {
            Some(open) => {
                let leaks =
                    |said: &Said| judge::leaks(row.class, &open.lines, &said.lines, &said.received);
                leaking += usize::from(row.channel != "-" && !leaks(open).is_empty());
                leaks(&hard)
            }
            None => {
                leaking += usize::from(row.channel != "-");
                let refused = hard.lines.iter().any(|line| line.starts_with("E["));
                if refused { Vec::new() } else { hard.lines.clone() }
            }
        };
        if row.channel != "-" && !leaked.is_empty() {
            left.push((row.id, leaked));
        }
        harmful += usize::from(open.is_some_and(|open| open.structure != whole));
        if hard.structure != whole {
            harm.push(row.id);
        }
    }
    println!("{leaking} leaks without a wall, {} with the role: {left:?}", left.len());
    println!("{harmful} rows change tables without a wall, {} with the role: {harm:?}", harm.len());
    assert!(leaking > 70 && harmful > 20, "{leaking}, {harmful}");
    assert!(left.is_empty() && harm.is_empty(), "{left:?} {harm:?}");
}

/// What came of a row.
struct Said {
    lines: Vec<String>,
    received: Vec<u8>,
    /// The tables afterwards.
    structure: String,
}

impl Wall {
    fn build() -> Self {
        let server = PostgresServer::start(&Options {
            hba: vec!["host all all 127.0.0.1/32 trust".to_owned()],
            setup: "create role app login".to_owned(),
            ..Options::default()
        });
        server.superuser_psql("create database schema_of_cases owner app");
        server.psql("schema_of_cases", SCHEMA);
        server.superuser_psql("create database c_hard template schema_of_cases owner app");
        let target = |name: &str, user: &str| Target {
            name: name.to_owned(),
            port: server.port(),
            database: "c_hard".to_owned(),
            user: user.to_owned(),
            password: "unused".to_owned(),
            lines: "tls = \"disable\"\n".to_owned(),
        };
        let gateway = Gateway::start(&Setup {
            policy: format!("{POLICY}{MASKS}"),
            ..Setup::for_targets([target("app", "app"), target("hard", ROLE)])
        });
        let file = gateway.configuration();
        let file = file.to_str().unwrap();
        let harden = || portcullis(&["policy", "harden", "app", "--config", file]);
        let first = harden();
        assert!(first.status.success(), "{}", told(&first));
        // Again, when it is there already.
        for _ in 0..2 {
            let script = String::from_utf8(harden().stdout).unwrap();
            assert_eq!(script, String::from_utf8_lossy(&first.stdout));
            server.psql("c_hard", &script);
        }

        let warned = told(&portcullis(&["check", "--online", "--config", file]));
        assert!(warned.contains("warning: target app: the role app owns "), "{warned}");
        assert!(!warned.contains("target hard: "), "{warned}");

        let path = server.psql(
            "c_hard",
            "select substr(s, 13) from pg_db_role_setting, unnest(setconfig) s \
             where s like 'search_path=%'",
        );
        Self { server, gateway, path: path.trim().to_owned() }
    }

    /// `SELECT *` answers through the gateway with the role for its own, and writes go on.
    fn rows_stay_whole(&self) {
        let client = self.gateway.client("hard");
        let rows = psql(&client, "select * from customers order by id limit 1");
        assert_eq!(rows.trim(), "1|Alice|[masked]|[masked]|[masked]|+15550001|");
        assert_eq!(psql(&client, "select count(*) from v_same").trim(), "4");
        assert_eq!(
            psql(&client, "select id, name from public.customers where id = 2").trim(),
            "2|Bob"
        );
        psql(
            &client,
            "update customers set note = 'seen' where id = 3; \
                       insert into orders values (99, 3, 5, 'new', ''); \
                       insert into public.customers (id, email) values (77, 'new@example.com'); \
                       delete from customers where id = 77",
        );
        let seen = self.server.psql("c_hard", "select note from customers where id = 3");
        assert_eq!(seen.trim(), "seen");
        self.server.psql(
            "c_hard",
            "update customers set note = '' where id = 3; \
                                    delete from orders where id = 99",
        );
    }

    /// Has a role say a row in a database of its own, where it is as in the one that it was made for.
    fn says(&self, row: &Row, role: &str) -> Said {
        let name = format!("{}_{role}", row.id.to_lowercase());
        self.server.superuser_psql(&format!("create database {name} template c_hard owner app"));
        self.server.superuser_psql(&format!(
            "alter role {ROLE} in database {name} set search_path = {}",
            self.path
        ));
        let mut talk = Talk::trusted(self.address(), role, &name);
        let lines = talk.ask(&[query(&row.sql)]);
        let received = talk.received().to_vec();
        drop(talk);
        let structure = self.structure(&name);
        self.server.superuser_psql(&format!("drop database {name} with (force)"));
        Said { lines, received, structure }
    }

    /// What tables there are and who owns them.
    fn structure(&self, database: &str) -> String {
        self.server.psql(
            database,
            "select string_agg(relnamespace::regnamespace::text || relname || relkind::text || relowner::text, ' ' \
             order by oid) from pg_class where relnamespace = to_regnamespace('public')",
        )
    }

    fn address(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.server.port()).into()
    }
}

fn psql(client: &Client, sql: &str) -> String {
    let mut psql = client.psql();
    psql.args(["-c", sql]);
    let (succeeded, said) = transcript(psql);
    assert!(succeeded, "{sql}: {said}");
    said
}
