//! `[server]`, `[listen]`, `[tls]`, `[recording]`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::model::{Durability, Listen, Recording, Server, Tls};
use super::reader::{Field, Table};
use super::secret_ref::SecretRef;
use super::value;

const DEFAULT_DATA_DIR: &str = "/var/lib/portcullis";
const DEFAULT_MAX_SESSIONS: usize = 10_000;
/// More than one machine has ports and memory for.
const MOST_SESSIONS: usize = 1_000_000;
const DEFAULT_DRAIN: Duration = Duration::from_secs(30);
const DEFAULT_EXPIRY_GRACE: Duration = Duration::from_secs(30);
const DEFAULT_MAX_SESSION: u64 = 10 << 30;
const DEFAULT_MAX_LOCAL: u64 = 50 << 30;

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
    listen.postgres_insecure = table.read("insecure", insecure).unwrap_or_default();
    listen.postgres = table.read("postgres", |field| {
        let address = value::listen_address(field)?;
        if address.ip().is_loopback() || tls || listen.postgres_insecure {
            return Some(address);
        }
        field.wrong_with(
            "beyond loopback tokens need TLS",
            "give [tls], or put \"postgres\" into `insecure` when TLS ends in front of the gateway",
        )
    });
    listen.trusted_proxies =
        table.read("trusted_proxies", |f| f.list(value::network)).unwrap_or_default();
    for key in ["ssh", "http", "web", "metrics"] {
        table.later(key, value::listen_address);
    }
    table.finish();
    listen
}

/// Whether `insecure` names Postgres.
fn insecure(field: Field<'_>) -> Option<bool> {
    let names = field.list(|item| {
        match item.word(&[("postgres", true), ("http", false), ("web", false)])? {
            true => Some(()),
            false => item.not_yet("this listener"),
        }
    })?;
    Some(!names.is_empty())
}

pub(super) fn tls(top: &Table<'_>) -> Option<Tls> {
    let table = top.table("tls")?;
    let certificate = table.require("certificate", Field::path);
    let private_key = table.require("private_key", Field::path);
    table.finish();
    Some(Tls { certificate: certificate?, private_key: private_key? })
}

pub(super) fn recording(top: &Table<'_>, data_dir: &Path) -> Recording {
    let mut recording = Recording {
        durability: Durability::Process,
        max_session: DEFAULT_MAX_SESSION,
        max_local: DEFAULT_MAX_LOCAL,
        mask_key: SecretRef::File(data_dir.join("mask_key")),
    };
    let Some(table) = top.table("recording") else { return recording };
    let durability =
        |f: Field<'_>| f.word(&[("process", Durability::Process), ("disk", Durability::Disk)]);
    table.set(&mut recording.durability, "durability", durability);
    table.set(&mut recording.max_session, "max_session", value::size);
    table.set(&mut recording.max_local, "max_local", value::size);
    table.set(&mut recording.mask_key, "mask_key", value::secret);
    table.read("archive", |field| match field.text()?.strip_prefix("file://") {
        Some(path) if Path::new(path) == data_dir => Some(()),
        _ => field.not_yet("an archive beyond data_dir"),
    });
    table.later("recipients", Field::texts);
    table.later("signing_key", Field::path);
    table.later("witness", Field::text);
    table.finish();
    recording
}
