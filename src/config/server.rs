//! `[server]`, `[listen]`, `[tls]`, `[web]`, `[telemetry]`, `[database]`, `[recording]`, `[tickets]`,
//! `[approvals]`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::archive::{self, Archive};
use super::model::{
    Approvals, Database, Durability, Listen, Recording, Server, Telemetry, Tickets, Tls, Web,
};
use super::reader::{Field, Table, quoted};
use super::secret_ref::SecretRef;
use super::value;
use crate::age::Recipient;

const DEFAULT_DATA_DIR: &str = "/var/lib/portcullis";
const DEFAULT_MAX_SESSIONS: usize = 10_000;
/// More than one machine has ports and memory for.
pub(super) const MOST_SESSIONS: usize = 1_000_000;
const DEFAULT_DRAIN: Duration = Duration::from_secs(30);
const DEFAULT_EXPIRY_GRACE: Duration = Duration::from_secs(30);
const DEFAULT_TICKET: Duration = Duration::from_secs(12 * 60 * 60);
/// Enough for a crew that takes one for every job; a loop that asks is stopped.
const DEFAULT_TICKETS: usize = 1000;
/// Every gateway holds what is revoked in memory until its time is over.
pub(super) const MOST_TICKETS: usize = 100_000;
/// As many as people can still look through; each one rings.
const DEFAULT_APPROVALS: Approvals =
    Approvals { per_identity: 50, per_session: 20, per_target: 500, per_minute: 120 };
/// What one gateway can hold.
pub(super) const MOST_WAITING: usize = 20_000;
const DEFAULT_MAX_SESSION: u64 = 10 << 30;
const DEFAULT_MAX_LOCAL: u64 = 50 << 30;
/// Each recording's first block names them all, and is bounded.
const MOST_RECIPIENTS: usize = 64;

pub(super) fn server(top: &Table<'_>) -> Server {
    let mut server = Server {
        data_dir: PathBuf::from(DEFAULT_DATA_DIR),
        max_sessions: DEFAULT_MAX_SESSIONS,
        drain_timeout: DEFAULT_DRAIN,
        expiry_grace: DEFAULT_EXPIRY_GRACE,
    };
    if let Some(table) = top.table("server") {
        let count = |field: Field<'_>| field.count(MOST_SESSIONS);
        table.set(&mut server.data_dir, "data_dir", Field::path);
        table.set(&mut server.max_sessions, "max_sessions", count);
        table.set(&mut server.drain_timeout, "drain_timeout", value::duration);
        table.set(&mut server.expiry_grace, "expiry_grace", value::duration);
        table.finish();
    }
    server
}

/// `tls` says whether there is a `[tls]`, right or not.
pub(super) fn listen(top: &Table<'_>, tls: bool) -> Listen {
    let mut listen = Listen::default();
    let Some(table) = top.table("listen") else { return listen };
    let insecure = table.read("insecure", insecure).unwrap_or_default();
    let open = |name: &str| insecure.contains(&name);
    (listen.postgres_insecure, listen.web_insecure) = (open("postgres"), open("web"));
    listen.http_insecure = open("http");
    let guarded = |key: &'static str| {
        table.read(key, |field| {
            let address = value::listen_address(field)?;
            if address.ip().is_loopback() || tls || open(key) {
                return Some(address);
            }
            field.wrong_with(
                "beyond loopback tokens need TLS",
                format!(
                    "give [tls], or put \"{key}\" into `insecure` when TLS ends in front of the \
                     gateway"
                ),
            )
        })
    };
    (listen.postgres, listen.http) = (guarded("postgres"), guarded("http"));
    listen.web = guarded("web");
    // SSH brings its own encryption.
    listen.ssh = table.read("ssh", value::listen_address);
    listen.metrics = table.read("metrics", value::listen_address);
    listen.trusted_proxies =
        table.read("trusted_proxies", |f| f.list(value::network)).unwrap_or_default();
    table.finish();
    listen
}

/// The listeners that may do without TLS.
fn insecure(field: Field<'_>) -> Option<Vec<&'static str>> {
    field.list(|item| item.word(&[("postgres", "postgres"), ("http", "http"), ("web", "web")]))
}

/// `listens` says whether pages and API are served.
pub(super) fn web(top: &Table<'_>, listens: bool) -> Web {
    let Some(table) = top.table("web") else {
        if listens {
            unread(top);
        }
        return Web::default();
    };
    let web = Web {
        public_url: table.read("public_url", public_url),
        auditors: table.read("auditors", Field::texts).unwrap_or_default(),
        admins: table.read("admins", Field::texts).unwrap_or_default(),
    };
    if listens && web.auditors.is_empty() && web.admins.is_empty() {
        unread(&table);
    }
    table.finish();
    web
}

/// Warns that nobody may read over the API.
fn unread(table: &Table<'_>) {
    table.findings().warning(
        table.place(),
        "[web] names no auditors and no admins: nobody may read what is recorded on pages or API, or \
         end sessions there; approvals, tickets and certificates for SSH work",
        Some("auditors = [\"GROUP\"]".to_owned()),
    );
}

pub(super) fn telemetry(top: &Table<'_>) -> Telemetry {
    let Some(table) = top.table("telemetry") else { return Telemetry::default() };
    let otlp = table.read("otlp", |field| {
        let text = field.text()?;
        let uri = text.parse::<hyper::Uri>().ok();
        let uri = uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
        match uri.and_then(|uri| uri.authority().cloned()) {
            Some(authority) if !authority.as_str().contains('@') => Some(text.to_owned()),
            Some(_) => field.wrong_with(
                "a password is never written in the configuration",
                "give headers for the collector in OTEL_EXPORTER_OTLP_HEADERS",
            ),
            None => field.wrong_with(
                "is not the address of a collector",
                "OTLP goes over HTTP, for example to \"http://127.0.0.1:4318\"",
            ),
        }
    });
    table.finish();
    Telemetry { otlp }
}

/// An address for browsers, in links.
fn public_url(field: Field<'_>) -> Option<String> {
    let text = field.text()?.trim_end_matches('/');
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() && !text.contains(['@', '?', '#', ' ', '"']) => {
            Some(text.to_owned())
        }
        _ => field.wrong_with(
            "is not an address for browsers",
            "for example \"https://portcullis.example.com\"",
        ),
    }
}

pub(super) fn tickets(top: &Table<'_>) -> Tickets {
    let mut tickets = Tickets {
        max_lifetime: DEFAULT_TICKET,
        max_live: DEFAULT_TICKETS,
        max_per_hour: DEFAULT_TICKETS,
    };
    if let Some(table) = top.table("tickets") {
        let count = |field: Field<'_>| field.count(MOST_TICKETS);
        table.set(&mut tickets.max_lifetime, "max_lifetime", value::span);
        table.set(&mut tickets.max_live, "max_live", count);
        table.set(&mut tickets.max_per_hour, "max_per_hour", count);
        table.finish();
    }
    tickets
}

pub(super) fn approvals(top: &Table<'_>) -> Approvals {
    let mut approvals = DEFAULT_APPROVALS;
    if let Some(table) = top.table("approvals") {
        let count = |field: Field<'_>| field.count(MOST_WAITING);
        table.set(&mut approvals.per_identity, "per_identity", count);
        table.set(&mut approvals.per_session, "per_session", count);
        table.set(&mut approvals.per_target, "per_target", count);
        table.set(&mut approvals.per_minute, "per_minute", count);
        table.finish();
    }
    approvals
}

/// `encrypted` says whether recordings are.
pub(super) fn database(top: &Table<'_>, encrypted: bool) -> Database {
    let mut database = Database { url: None, index_text: !encrypted };
    let Some(table) = top.table("database") else { return database };
    database.url = table.read("url", database_url);
    table.set(&mut database.index_text, "index_text", Field::flag);
    table.finish();
    database
}

/// The URL of a PostgreSQL database, in which no password stands.
fn database_url(field: Field<'_>) -> Option<String> {
    let text = field.text()?;
    let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
    let Some(rest) = rest else {
        return field.wrong_with(
            "is not the URL of a PostgreSQL database",
            "for example \"postgres://portcullis@db.example.com/portcullis\"",
        );
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let login = authority.rsplit_once('@').map_or("", |(login, _)| login);
    if login.contains(':') || rest.contains("password=") {
        return field.wrong_with(
            "a password is never written in the configuration",
            "leave it out of the URL, and give it in PGPASSWORD or in ~/.pgpass",
        );
    }
    Some(text.to_owned())
}

pub(super) fn tls(top: &Table<'_>) -> Option<Tls> {
    let table = top.table("tls")?;
    let certificate = table.require("certificate", Field::path);
    let private_key = table.require("private_key", Field::path);
    table.finish();
    Some(Tls { certificate: certificate?, private_key: private_key? })
}

pub(super) fn recording(top: &Table<'_>, data_dir: &Path) -> (Recording, Archive) {
    let mut recording = Recording {
        durability: Durability::Process,
        max_session: DEFAULT_MAX_SESSION,
        max_local: DEFAULT_MAX_LOCAL,
        signing_key: data_dir.join("seal_ed25519"),
        mask_key: SecretRef::File(data_dir.join("mask_key")),
        recipients: Vec::new(),
        identity: None,
    };
    let Some(table) = top.table("recording") else { return (recording, Archive::default()) };
    let durability =
        |f: Field<'_>| f.word(&[("process", Durability::Process), ("disk", Durability::Disk)]);
    table.set(&mut recording.durability, "durability", durability);
    table.set(&mut recording.max_session, "max_session", value::size);
    table.set(&mut recording.max_local, "max_local", value::size);
    table.set(&mut recording.signing_key, "signing_key", Field::path);
    table.set(&mut recording.mask_key, "mask_key", value::secret);
    table.set(&mut recording.recipients, "recipients", |field| {
        let recipients = field.some(recipient)?;
        match recipients.len() {
            0..=MOST_RECIPIENTS => Some(recipients),
            _ => field.wrong(format!("more than {MOST_RECIPIENTS} are too many")),
        }
    });
    recording.identity = table.read("identity", value::secret);
    let archive = archive::archive(&table, data_dir);
    table.finish();
    (recording, archive)
}

fn recipient(field: Field<'_>) -> Option<Recipient> {
    const HINT: &str = "a recipient begins with age1: what age-keygen prints as the public key";
    let text = field.text()?;
    match text.parse() {
        Ok(recipient) => Some(recipient),
        // What could be a private key is not shown.
        Err(_) if text.to_ascii_uppercase().starts_with("AGE-SECRET") => {
            field.wrong_with("a private key must not stand here", HINT)
        }
        Err(_) => field.wrong_with(format!("{} is no recipient", quoted(text)), HINT),
    }
}
