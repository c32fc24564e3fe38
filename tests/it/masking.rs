//! Masks from outside: what clients see, and what is in no store.

mod clients;
mod keyed;
mod rewrite;
pub mod source;
mod statements;
mod stores;
mod wide;

use crate::support::client::{Client, Database, transcript};
use crate::support::gateway::{Gateway, Setup};
use crate::support::postgres::PostgresServer;

/// Tables, views, partitions and children with values that nobody may see.
pub const SCHEMA: &str = include_str!("../cases/masking.sql");

/// What no client and no store may have.
pub const SENTINELS: &[&str] = &[
    "alice.secret",
    "bob.secret",
    "kid.secret",
    "078-05-1120",
    "219-09-9999",
    "111-22-3333",
    "4111111111111111",
    "5500005555555559",
];

pub const MASKS: &str = r#"
[[mask]]
name = "contacts"
columns = ["public.customers.email", "public.people.email"]
with = "partial"
unless_groups = ["pii-readers"]

[[mask]]
name = "numbers"
columns = ["*.ssn", "public.customers.card_number", "public.customers.birth_year"]
"#;

/// A database with secrets, and a gateway before it that masks them.
pub struct Masked {
    pub database: Database,
    pub gateway: Gateway,
}

impl Masked {
    pub fn new(masks: &str) -> Self {
        Self::with(masks, Setup::default())
    }

    pub fn with(masks: &str, setup: Setup) -> Self {
        let database = Database::fresh();
        // Extensions are made by the superuser.
        let server = &PostgresServer::shared().server;
        server.psql(&database.name, "create extension if not exists citext");
        let (succeeded, said) = run(&database.client(), SCHEMA);
        assert!(succeeded, "{said}");
        let target = database.target("orders");
        let policy = setup.policy.clone() + masks;
        let gateway = Gateway::start(&Setup { targets: vec![target], policy, ..setup });
        Self { database, gateway }
    }

    /// What psql says of statements through the gateway.
    pub fn says(&self, sql: &str) -> String {
        run(&self.gateway.client("orders"), sql).1
    }

    /// What no client may see is not there.
    #[track_caller]
    pub fn shows_nothing(&self, sql: &str) -> String {
        let said = self.says(sql);
        for sentinel in SENTINELS {
            assert!(!said.contains(sentinel), "{sql}\n{said}");
        }
        said
    }

    /// Stops the gateway, and looks through everything that it stored.
    pub fn finish(self, secrets: &[&str]) {
        assert!(self.gateway.stop().success());
        self.gateway.verify_all();
        let stored = self.gateway.all_contents();
        let log = self.gateway.daemon().log();
        for secret in secrets {
            let at = stored.windows(secret.len()).position(|there| there == secret.as_bytes());
            if let Some(at) = at {
                let around = &stored[at.saturating_sub(1500)..stored.len().min(at + 300)];
                panic!("{secret} is in a recording: {}", String::from_utf8_lossy(around));
            }
            assert!(!log.contains(secret), "{secret} is in the log");
            for file in self.gateway.stored_files() {
                let bytes = std::fs::read(&file).unwrap();
                assert!(!contains(&bytes, secret), "{secret} is in {}", file.display());
            }
        }
    }
}

pub fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Runs statements with psql, each as a message of its own when they are on lines of their own.
pub fn run(client: &Client, sql: &str) -> (bool, String) {
    let mut psql = client.psql();
    psql.args(["-v", "ON_ERROR_STOP=0", "-c", sql]);
    transcript(psql)
}
