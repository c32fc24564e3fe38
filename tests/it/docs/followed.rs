//! README.md and docs/, typed line by line as they stand: what is shown works.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::reader::Reader;
use super::root;
use crate::quickstart::Quickstart;
use crate::support::daemon::{Daemon, PORTCULLIS, wait_until};
use crate::support::gateway::told;
use crate::support::postgres::{Options, PostgresServer};

/// A quickstart, and who reads about it.
struct Demo {
    quickstart: Quickstart,
    home: TempDir,
    state: Value,
}

impl Demo {
    fn start() -> Self {
        let quickstart = Quickstart::start();
        let state = quickstart.state();
        let home = TempDir::with_prefix("portcullis-reader-").unwrap();
        // The pages write the folder without quotation marks.
        std::os::unix::fs::symlink(quickstart.folder(), home.path().join("quickstart")).unwrap();
        Self { quickstart, home, state }
    }

    fn folder(&self) -> String {
        self.home.path().join("quickstart").to_str().unwrap().to_owned()
    }

    fn token(&self, user: &str) -> &str {
        self.state["tokens"][user].as_str().unwrap()
    }

    fn web(&self) -> &str {
        self.state["web"].as_str().unwrap()
    }

    fn http(&self) -> &str {
        self.state["http"]["url"].as_str().unwrap().trim_end_matches("/crew")
    }

    /// Somebody with a token, who puts this demo's addresses where the pages have the usual ones.
    fn reader(&self, page: &'static str, user: &str) -> Reader {
        let url = self.state["postgres"]["url"].as_str().unwrap();
        let (_, address) = url.rsplit_once('@').unwrap();
        let port = address.split(['/', ':']).nth(1).unwrap();
        let ssh = &self.state["ssh"]["port"];
        let folder = self.folder();
        let known = format!("ssh -o UserKnownHostsFile={folder}/known_hosts -i");
        Reader::of(page, self.home.path())
            .sets("PORTCULLIS_TOKEN", self.token(user))
            .sets("PORTCULLIS_CONFIG", &format!("{folder}/portcullis.toml"))
            .puts("…/", format!("{folder}/"))
            .puts("--server …", format!("--server {}", self.web()))
            .puts("{web}", self.web())
            .puts("{tokens.auditor}", self.token("auditor"))
            .puts("https://portcullis.example.com", self.web())
            .puts("http://127.0.0.1:8443", self.web())
            .puts("http://127.0.0.1:8080", self.http())
            .puts("port=6432", format!("port={port}"))
            .puts("-h gateway orders", format!("-h 127.0.0.1 -p {port} -c 'select 7' shop"))
            .puts("ssh -i", known)
            .puts("-p 2222", format!("-p {ssh}"))
    }

    /// What the command says as JSON, over the admin socket.
    fn asks(&self, arguments: &[&str]) -> Value {
        let output = Command::new(PORTCULLIS)
            .args(arguments)
            .args(["--json", "--config", &format!("{}/portcullis.toml", self.folder())])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", told(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The id of the first that such a command lists, once it lists one with this in it.
    fn first(&self, arguments: &[&str], with: &str) -> String {
        let mut found = None;
        wait_until(with, || {
            let all = self.asks(arguments);
            let item = all.as_array().unwrap().iter().find(|item| item.to_string().contains(with));
            found = item.map(|item| item["id"].as_str().unwrap().to_owned());
            found.is_some()
        });
        found.unwrap()
    }

    /// psql as the agent, which runs a statement and stays.
    fn psql(&self, statement: &str) -> Open {
        let url = self.state["postgres"]["url"].as_str().unwrap();
        let mut psql = Command::new("psql")
            .args(["-XAt", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = psql.stdin.as_mut().unwrap();
        std::io::Write::write_all(stdin, format!("{statement};\n").as_bytes()).unwrap();
        Open(Some(psql))
    }
}

/// A psql at work.
struct Open(Option<Child>);

impl Open {
    /// What it said, after its input has ended.
    fn said(mut self) -> String {
        told(&self.0.take().unwrap().wait_with_output().unwrap())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(mut psql) = self.0.take() {
            psql.kill().unwrap();
            psql.wait().unwrap();
        }
    }
}

#[test]
fn getting_started() {
    let demo = Demo::start();
    let reader = demo
        .reader("docs/getting-started.md", "auditor")
        .leaves("scripts/quickstart", "the command that it runs is this demo's")
        .says("PGPASSFILE=", "shop_agent")
        .gets_refused("PGPASSWORD=", "access denied")
        .says("portcullis ssh-cert", "agent_ssh")
        .says("ssh -i", "");
    let session = demo.first(&["session", "list"], "shop");
    reader
        .puts("SESSION", session)
        .comes_to_say("portcullis recording verify", "whole")
        .comes_to_say("curl", "drop table customers")
        .says("portcullis reload", "")
        .goes_through();
}

#[test]
fn clients() {
    let demo = Demo::start();
    demo.reader("docs/clients.md", "agent")
        .puts("--token-file FILE", format!("--token-file {}/agent.token", demo.folder()))
        .puts("user=agent\"", "user=agent\" -c 'select 7'")
        .says("export TOKEN=", demo.token("agent"))
        .leaves("export TOKEN=", "own_pieces")
        .says("PGPASSWORD=$TOKEN psql", "7")
        .says("portcullis ssh-cert", "agent_ssh")
        .says("ssh -i", "load average")
        .says("printf", "")
        .says("curl", "customer")
        .goes_through();
    let reader = demo
        .reader("docs/http.md", "agent")
        .puts("https://gateway:8080/billing/v1/invoices/7", format!("{}/crew/inputs", demo.http()))
        .says("curl", "customer")
        .says("curl", "kickoff_id")
        .comes_to_say("portcullis session list", "crew");
    reader.goes_through();
    let mut session = Value::Null;
    wait_until("the run that the kickoff began", || {
        let sessions = demo.asks(&["session", "list", "--workflow", "crew"]);
        let begun = sessions.as_array().unwrap().iter().find(|session| session["run"].is_string());
        session = begun.cloned().unwrap_or_default();
        !session.is_null()
    });
    demo.reader("docs/crewai.md", "agent")
        .puts("RUN", session["run"].as_str().unwrap())
        .puts("SESSION", session["id"].as_str().unwrap())
        .comes_to_say("portcullis session list", "crew")
        .comes_to_say("portcullis session show", "/kickoff")
        .says("portcullis replay", "/kickoff")
        .goes_through();
    fs::create_dir(demo.home.path().join(".ssh")).unwrap();
    demo.reader("docs/ssh.md", "agent")
        .puts("web-1@portcullis.example.com", "host@127.0.0.1")
        .leaves("portcullis login", "identity::login")
        .says("portcullis ssh-cert", "portcullis")
        .says("ssh -i", "")
        .leaves("ssh -p 2222", "ssh::device")
        .goes_through();
}

#[test]
fn approvals() {
    let demo = Demo::start();
    let config = demo.quickstart.folder().join("portcullis.toml");
    let more = "[[access]]\ngroups = [\"approvers\"]\ntargets = [\"shop\"]\ngrant = \"approval\"\n\
                approvers = [\"admins\"]\nduration = \"1h\"\n";
    fs::write(&config, fs::read_to_string(&config).unwrap() + more).unwrap();
    let reloaded = Command::new(PORTCULLIS).arg("reload").arg("--config").arg(&config).output();
    assert!(reloaded.as_ref().unwrap().status.success(), "{}", told(&reloaded.unwrap()));

    let held = demo.psql("update orders set status = 'paid' where id = 7");
    let request = demo.first(&["approval", "list"], "pending");
    let (reader, watching) = demo
        .reader("docs/approvals.md", "approver")
        .puts("019aa0c2-7f11-7d9e-a3c1-2b6f0e5d4c3b", request.as_str())
        .starts("portcullis approval list --watch", &request);
    let reader = reader
        .says("portcullis approval show", "update orders")
        .says("portcullis approval approve", "approved");
    drop(watching);
    assert!(held.said().contains("UPDATE 1"));

    let reader = reader
        .leaves("curl -i -H @agent.header -H 'Prefer: respond-async'", "approval::again")
        .leaves("curl -H @agent.header", "approval::again")
        .puts(" orders ", " shop ")
        .says("portcullis access request", "");
    let asked = demo.first(&["access", "requests"], "refund 4711");
    let reader = reader
        .sets("PORTCULLIS_TOKEN", demo.token("admin"))
        .puts("019aa0d0-…", asked)
        .says("portcullis access requests", "refund 4711")
        .says("portcullis access approve", "");
    let grant = demo.first(&["access", "list"], "approver");
    let reader = reader
        .sets("PORTCULLIS_SERVER", demo.web())
        .puts("019aa0d3-…", grant)
        .says("portcullis access list", "approver")
        .says("portcullis access revoke", "")
        .sets("PORTCULLIS_TOKEN", demo.token("agent"))
        .says("PGPASSWORD=$(portcullis ticket create", "7")
        .says("portcullis ticket list", "shop");
    let ticket = demo.first(&["ticket", "list"], "shop");
    let reader = reader.puts("019aa0e1-…", ticket).says("portcullis ticket revoke", "");

    let open = demo.psql("select 'somebody is here'");
    let session = demo.first(&["session", "list", "--text", "somebody"], "shop");
    let (reader, watching) = reader
        .sets("PORTCULLIS_TOKEN", demo.token("admin"))
        .puts("SESSION", session)
        .starts("portcullis session watch", "somebody is here");
    let reader = reader.says("portcullis session kill", "");
    drop(watching);
    assert!(open.said().contains("somebody is here"));
    reader
        .puts("crew-7", "agent")
        .puts("corp", "quickstart")
        .says("portcullis user revoke", "")
        .says("portcullis user list", "agent")
        .says("portcullis user restore", "")
        .goes_through();
}

#[test]
fn own_pieces() {
    let server = PostgresServer::start(&Options::default());
    let home = TempDir::with_prefix("portcullis-reader-").unwrap();
    fs::create_dir(home.path().join("config")).unwrap();
    let own = |page| {
        Reader::of(page, home.path())
            .sets("PGHOST", "127.0.0.1")
            .sets("PGPORT", &server.port().to_string())
            .sets("PGUSER", "postgres")
    };
    let (reader, issuer) = own("README.md")
        .puts("portcullis issuer", "portcullis issuer --listen 127.0.0.1:0")
        .leaves("scripts/quickstart", "the command that it runs: getting_started")
        .leaves("PGPASSFILE", "getting_started")
        .leaves("cargo build", "it made this program")
        // This server lets postgres in by name, whoever asks.
        .puts("sudo -u postgres ", "")
        .says("sudo -u postgres psql", "CREATE ROLE")
        .says("sudo -u postgres psql", "CREATE DATABASE")
        .starts("portcullis issuer", "DEVELOPMENT ISSUER at");
    let issuer_address = address(&issuer);
    let config = fs::read_to_string(root().join("config/portcullis.toml")).unwrap();
    let config = config
        .replace("127.0.0.1:6432", "127.0.0.1:0")
        .replace("127.0.0.1:5432", &format!("127.0.0.1:{}", server.port()))
        .replace("127.0.0.1:9100", &issuer_address);
    fs::write(home.path().join("config/portcullis.toml"), config).unwrap();
    let (reader, gateway) = reader.starts("ORDERS_PASSWORD=secret", "\"protocol\":\"postgres\"");
    let reader = reader
        .puts("127.0.0.1:9100", issuer_address)
        .puts("port=6432", format!("port={}", gateway.address().port()))
        .says("export PGPASSWORD", "ey")
        .says("psql", "orders");
    let file = only_recording(home.path());
    let session = file.file_stem().unwrap().to_str().unwrap().to_owned();
    reader
        .puts("SESSION", session)
        .says("portcullis replay", "select current_user, now()")
        .comes_to_say("portcullis recording verify", "whole")
        .leaves("scripts/test", "it runs this")
        .goes_through();

    fs::write(home.path().join("secret"), "agent-secret").unwrap();
    let config = home.path().join("config/portcullis.toml");
    let config = config.to_str().unwrap();
    // The page's other lines are of the quickstart: clients.
    let _token = own("docs/clients.md")
        .puts("portcullis.toml", config)
        .puts("crew-7", "agent")
        .puts("FILE", "secret")
        .leaves("export TOKEN", "clients")
        .says("export TOKEN", "ey");
    own("docs/masks.md")
        .puts("portcullis.toml", config)
        .sets("ORDERS_PASSWORD", "secret")
        .sets("PGHOST", "127.0.0.1")
        .says("portcullis policy harden", "")
        .leaves("less", "a person reads")
        .says("psql --file", "")
        .leaves("psql --command", "it asks a person for the password")
        .goes_through();
    own("docs/policy.md")
        .sets("PORTCULLIS_CONFIG", config)
        .sets("ORDERS_PASSWORD", "secret")
        .puts("new.toml", config)
        .comes_to_say("portcullis policy backtest --config", "commands of")
        .comes_to_say("portcullis policy backtest --online", "masks and row filters: ")
        .goes_through();
}

/// Where the issuer says that it listens.
fn address(issuer: &Daemon) -> String {
    let log = issuer.log();
    let (_, behind) = log.split_once("127.0.0.1:").unwrap();
    let port: String = behind.chars().take_while(char::is_ascii_digit).collect();
    format!("127.0.0.1:{port}")
}

fn only_recording(home: &Path) -> std::path::PathBuf {
    let days = fs::read_dir(home.join("data/recordings")).unwrap();
    let files = days.flat_map(|day| fs::read_dir(day.unwrap().path()).unwrap());
    let mut files = files.map(|file| file.unwrap().path());
    files.find(|file| file.extension().is_some_and(|ending| ending == "rec")).unwrap()
}

#[test]
fn the_other_pages() {
    let demo = Demo::start();
    let socket = format!("{}/data/postgres/socket", demo.folder());
    demo.reader("docs/operations.md", "admin")
        .puts("/var/lib/portcullis/postgres/socket", socket)
        .says("pg_dump", "")
        .goes_through();
    demo.psql("select 'to be replayed'").said();
    let session = demo.first(&["session", "list", "--text", "replayed"], "shop");
    let (reader, replay) = demo
        .reader("docs/replay.md", "auditor")
        .puts("019aa0c2-7f11-7d9e-a3c1-2b6f0e5d4c3b", session)
        .starts("portcullis replay", "answers from the recording");
    drop(replay);
    reader.goes_through();
    demo.reader("docs/configuration.md", "agent").says("portcullis schema", "").goes_through();
    demo.reader("docs/contributing.md", "agent")
        .leaves("scripts/prepare", "scripts/test begins with it")
        .leaves("cargo build", "it made this program")
        .leaves("cargo test", "it runs this")
        .leaves("scripts/check", "it runs part of this")
        .leaves("scripts/test", "it runs this")
        .goes_through();
    demo.reader("docs/deployment.md", "agent")
        .leaves("docker compose up", "scripts/compose-test")
        .leaves("docker build", "scripts/compose-test")
        .leaves("docker run", "scripts/compose-test")
        .says("ssh-keygen", "")
        .says("ssh-keygen", "")
        .leaves("kubectl", "deploy::")
        .leaves("kubectl", "deploy::")
        .leaves("kubectl", "deploy::")
        .goes_through();
}

/// Whoever adds a page with commands reads it here.
#[test]
fn every_page_with_commands_has_a_reader() {
    let read = fs::read_to_string(root().join("tests/it/docs/followed.rs")).unwrap();
    for (file, text) in super::pages() {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        let shows = text.contains("```console\n$ ");
        assert!(!shows || read.contains(&format!("\"{name}\"")), "nobody reads {name}");
    }
}
