//! Keys of the process: where it listens, what it keeps, whom it tells.

use super::{Form, SECRET, Section, TEXTS, key, required, section};
use crate::config::server::{MOST_SESSIONS, MOST_TICKETS, MOST_WAITING};

pub(super) const SERVER: Section = section(&[
    key("data_dir", Form::Path, "The folder of recordings, ledger, keys and `admin.sock`."),
    key("max_sessions", Form::Count(MOST_SESSIONS), "How many sessions may be open at once."),
    key(
        "drain_timeout",
        Form::Duration,
        "How long a stop waits for sessions to end by themselves.",
    ),
    key(
        "expiry_grace",
        Form::Duration,
        "How long a running command may go on when its token ends.",
    ),
]);

pub(super) const LISTEN: Section = section(&[
    key(
        "insecure",
        Form::List(&Form::Word(&["postgres", "http", "web"]), 0),
        "Listeners that may do without TLS beyond loopback, because TLS ends in front of the gateway.",
    ),
    key(
        "postgres",
        Form::Text,
        "Address and port for Postgres clients; beyond loopback it needs [tls].",
    ),
    key("http", Form::Text, "Address and port for HTTP clients; beyond loopback it needs [tls]."),
    key("web", Form::Text, "Address and port of pages and API; beyond loopback it needs [tls]."),
    key("ssh", Form::Text, "Address and port for SSH clients."),
    key(
        "metrics",
        Form::Text,
        "Address and port for Prometheus; no TLS and no token, so keep it inside.",
    ),
    key(
        "trusted_proxies",
        Form::List(&Form::Text, 0),
        "Networks whose PROXY protocol headers are believed.",
    ),
]);

pub(super) const TLS: Section = section(&[
    required("certificate", Form::Path, "PEM file with the chain, leaf first."),
    required("private_key", Form::Path, "PEM file with the leaf's key."),
]);

pub(super) const SSH: Section = section(&[
    key(
        "host_key",
        Form::Path,
        "The private key that the gateway shows to clients; made if missing.",
    ),
    key("user_ca", Form::Path, "The private key that signs user certificates; made if missing."),
]);

pub(super) const WEB: Section = section(&[
    key(
        "public_url",
        Form::Text,
        "Where browsers reach the gateway; links in messages begin with it.",
    ),
    key("auditors", TEXTS, "Groups that may read what was recorded."),
    key("admins", TEXTS, "Groups that may read what was recorded, and end sessions."),
]);

pub(super) const TELEMETRY: Section = section(&[key(
    "otlp",
    Form::Text,
    "An OpenTelemetry collector that gets a span of each session and command, by OTLP over HTTP.",
)]);

pub(super) const RECORDING: Section = section(&[
    key(
        "durability",
        Form::Word(&["process", "disk"]),
        "When a command counts as recorded: when the operating system has it, or when the disk has it.",
    ),
    key(
        "max_session",
        Form::Size,
        "One recording's size before compression; reaching it ends the session.",
    ),
    key("max_local", Form::Size, "All recordings here; reaching it is a recording failure."),
    key("signing_key", Form::Path, "The Ed25519 key that signs seals and ledger; made if missing."),
    key("mask_key", SECRET, "Key for hashes of what is not stored; made if missing."),
    key("recipients", TEXTS, "Public keys of age, `age1…`, to which recordings are encrypted."),
    key("identity", SECRET, "Private keys of recipients, for the gateway's own pages and index."),
    key(
        "archive",
        Form::Text,
        "Where sealed recordings go: `s3://bucket/prefix` or `file:///path`.",
    ),
    key(
        "witness",
        Form::Text,
        "Who keeps signed checkpoints: `https://…`, `s3://…` or `file:///…`.",
    ),
    key(
        "retention_grace",
        Form::Duration,
        "How long a [[retention]] that was shortened waits before recordings go by it.",
    ),
]);

pub(super) const DATABASE: Section = section(&[
    key(
        "url",
        Form::Text,
        "A PostgreSQL database for this alone; without a password, which has PGPASSWORD.",
    ),
    key("index_text", Form::Flag, "Whether texts and values of commands go into the index."),
]);

pub(super) const TICKETS: Section = section(&[
    key("max_lifetime", Form::Duration, "The longest that a ticket lives."),
    key("max_live", Form::Count(MOST_TICKETS), "Tickets that one identity may have at a time."),
    key(
        "max_per_hour",
        Form::Count(MOST_TICKETS),
        "Tickets that one identity may make in an hour.",
    ),
]);

pub(super) const APPROVALS: Section = section(&[
    key(
        "per_identity",
        Form::Count(MOST_WAITING),
        "Commands of one identity that may wait, over all gateways.",
    ),
    key("per_session", Form::Count(MOST_WAITING), "Commands of one session that may wait."),
    key("per_target", Form::Count(MOST_WAITING), "Commands for one target that may wait."),
    key(
        "per_minute",
        Form::Count(MOST_WAITING),
        "Commands of one identity that may ask within a minute.",
    ),
]);

pub(super) const NOTIFY: Section = section(&[
    required("name", Form::Text, "What logs and figures call it: letters, digits, - and _."),
    required("kind", Form::Word(&["webhook", "slack"]), "Who gets the messages."),
    required("url", SECRET, "Where the messages go."),
    key("secret", SECRET, "What the messages of a webhook are signed with."),
    required(
        "events",
        Form::List(
            &Form::Word(&["approval", "block", "session-start", "session-end", "recording"]),
            1,
        ),
        "What it is told of.",
    ),
]);

pub(super) const HTTP: Section = section(&[
    key(
        "base_domain",
        Form::Text,
        "Targets may be named by host: orders.DOMAIN is the target orders.",
    ),
    key("session_idle", Form::Duration, "How long a session stays open without a request."),
    key("max_json", Form::Size, "The largest JSON body that rules look into, at most 4 MiB."),
]);
