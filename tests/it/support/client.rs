//! Real clients: how they are told where to go, and what they said.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::gateway::Target;
use super::postgres::{PostgresServer, binary};

/// What a client needs to know, in the words of libpq's environment.
#[derive(Clone)]
pub struct Client(Vec<(String, String)>);

impl Client {
    /// A client of a port on this machine, without TLS.
    pub fn new(port: u16, database: &str, user: &str, password: &str) -> Self {
        let port = port.to_string();
        let plain = [
            ("PGHOST", "127.0.0.1"),
            ("PGPORT", &port),
            ("PGDATABASE", database),
            ("PGUSER", user),
            ("PGPASSWORD", password),
            ("PGSSLMODE", "disable"),
            ("PGCONNECT_TIMEOUT", "30"),
        ];
        Self(plain.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }

    /// The same with one value set.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0.retain(|(other, _)| other != name);
        self.0.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same over TLS, with the server's certificate and name proved.
    pub fn over_tls(self, root: &Path) -> Self {
        self.with("PGHOST", "localhost")
            .with("PGSSLMODE", "verify-full")
            .with("PGSSLROOTCERT", root.to_str().unwrap())
    }

    /// One of PostgreSQL's own clients, ready to run.
    pub fn postgres_program(&self, name: &str) -> Command {
        self.environment(Command::new(binary(name)))
    }

    /// psql with the switches that scripts use.
    pub fn psql(&self) -> Command {
        let mut psql = self.postgres_program("psql");
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"]);
        psql
    }

    /// One of the programs in `tests/clients`, ready to run.
    pub fn python(&self, program: &str) -> Command {
        let mut command = self.environment(Command::new(venv().join("bin/python")));
        command.arg("-B").arg(clients_folder().join(program));
        command
    }

    /// For `tokio_postgres`, which reads no environment.
    pub fn tokio_postgres(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host(self.get("PGHOST"))
            .port(self.get("PGPORT").parse().unwrap())
            .dbname(self.get("PGDATABASE"))
            .user(self.get("PGUSER"))
            .password(self.get("PGPASSWORD"));
        config
    }

    fn get(&self, name: &str) -> &str {
        &self.0.iter().find(|(other, _)| other == name).unwrap().1
    }

    fn environment(&self, mut command: Command) -> Command {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LC_ALL", "C.UTF-8")
            .envs(self.0.iter().map(|(name, value)| (name, value)))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null());
        command
    }
}

/// All that a program writes, its complaints where they fall among its output.
pub fn transcript(mut command: Command) -> (bool, String) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut child =
        command.stdout(writer.try_clone().unwrap()).stderr(writer).spawn().unwrap_or_else(|e| {
            panic!("{command:?}: {e}; scripts/prepare installs what tests need")
        });
    // It holds the pipe's other end too.
    drop(command);
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut reader, &mut text).unwrap();
    let succeeded = child.wait().unwrap().success();
    (succeeded, String::from_utf8_lossy(&text).into_owned())
}

/// Where the client programs are.
pub fn clients_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// The Python that has the clients installed (`scripts/prepare`).
pub fn venv() -> PathBuf {
    let place = std::env::var_os("PORTCULLIS_VENV").map(PathBuf::from);
    place.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv"))
}

/// An empty database of one role's own, in a server that is shared.
pub struct Database {
    pub port: u16,
    pub name: String,
    pub role: String,
    pub password: String,
}

impl Database {
    /// One in the server that all tests share.
    pub fn fresh() -> Self {
        Self::on(&PostgresServer::shared().server)
    }

    /// One in a server.
    pub fn on(server: &PostgresServer) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("guest_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let password = format!("{name}-password");
        server.superuser_psql(&format!("create role {name} login password '{password}'"));
        server.superuser_psql(&format!("create database {name} owner {name}"));
        Self { port: server.port(), role: name.clone(), name, password }
    }

    /// It as a target of a gateway.
    pub fn target(&self, name: &str) -> Target {
        Target {
            name: name.to_owned(),
            port: self.port,
            database: self.name.clone(),
            user: self.role.clone(),
            password: self.password.clone(),
            lines: String::new(),
        }
    }

    /// How a client reaches it without a gateway.
    pub fn client(&self) -> Client {
        Client::new(self.port, &self.name, &self.role, &self.password)
    }
}

/// A file that holds a root certificate.
pub fn root_file(folder: &Path, pem: &str) -> PathBuf {
    let path = folder.join("root.crt");
    fs::write(&path, pem).unwrap();
    path
}
