//! `[[target]]`: the systems behind the gateway.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::http;
use super::mistake::Place;
use super::model::{OnRecordingFailure, PostgresTarget, Target, TargetKind, UpstreamTls};
use super::reader::{Field, Table, quoted};
use super::secret_ref::SecretRef;
use super::ssh;
use super::value;
use crate::names::{Protocol, TargetName};
use crate::policy::Verdict;

const PROTOCOLS: &[(&str, Protocol)] =
    &[("postgres", Protocol::Postgres), ("ssh", Protocol::Ssh), ("http", Protocol::Http)];

/// `NAMEDATALEN` of PostgreSQL, less its end.
const MAX_IDENTIFIER: usize = 63;

pub(super) fn targets(top: &Table<'_>) -> BTreeMap<TargetName, Arc<Target>> {
    let mut targets = BTreeMap::new();
    let mut seen: BTreeMap<TargetName, Place> = BTreeMap::new();
    for table in top.tables("target") {
        let name = table.require("name", |field| {
            let name = match field.text()?.parse::<TargetName>() {
                Ok(name) => name,
                Err(e) => return field.wrong(e),
            };
            if let Some(first) = seen.get(&name) {
                let first = table.findings().named(*first);
                return field.wrong(format!("{name} is the target at {first} already"));
            }
            seen.insert(name.clone(), field.place());
            Some(name)
        });
        if let Some(target) = target(table, name) {
            targets.insert(target.name.clone(), Arc::new(target));
        }
    }
    targets
}

fn target(table: Table<'_>, name: Option<TargetName>) -> Option<Target> {
    let labels = table.read("labels", value::labels).unwrap_or_default();
    let on_recording_failure = table
        .read("on_recording_failure", |field| {
            field.word(&[
                ("refuse", OnRecordingFailure::Refuse),
                ("continue", OnRecordingFailure::Continue),
            ])
        })
        .unwrap_or(OnRecordingFailure::Refuse);
    let default = table
        .read("default", |f| f.word(&[("allow", Verdict::Allow), ("block", Verdict::Block)]))
        .unwrap_or(Verdict::Allow);
    // Which other keys there are depends on it.
    let protocol = table.require("protocol", |field| field.word(PROTOCOLS))?;
    table.is_of(protocol.as_str());
    let kind = match protocol {
        Protocol::Postgres => postgres(&table).map(TargetKind::Postgres),
        Protocol::Ssh => ssh::target(&table).map(TargetKind::Ssh),
        Protocol::Http => http::target(&table).map(TargetKind::Http),
    };
    table.finish();
    Some(Target { name: name?, labels, on_recording_failure, default, kind: kind? })
}

fn postgres(table: &Table<'_>) -> Option<PostgresTarget> {
    let address = table.require("address", value::host_and_port);
    let database = table.require("database", identifier);
    let databases = table.read("databases", |f| f.list(identifier)).unwrap_or_default();
    let tls = table
        .read("tls", |field| {
            field.word(&[
                ("disable", UpstreamTls::Disable),
                ("require", UpstreamTls::Require),
                ("verify-full", UpstreamTls::VerifyFull),
            ])
        })
        .unwrap_or(UpstreamTls::VerifyFull);
    let ca = table.read("ca", |field| {
        if tls != UpstreamTls::VerifyFull {
            field.warn("has no effect unless tls = \"verify-full\"");
        }
        field.path()
    });
    let credential = table.require("credential", credential);
    let ((host, port), (user, password)) = (address?, credential?);
    Some(PostgresTarget { host, port, database: database?, databases, tls, ca, user, password })
}

fn credential(field: Field<'_>) -> Option<(String, SecretRef)> {
    let table = field.table()?;
    let user = table.require("user", identifier);
    let password = table.require("password", value::secret);
    table.finish();
    Some((user?, password?))
}

/// A database or user name as PostgreSQL takes one.
fn identifier(field: Field<'_>) -> Option<String> {
    let text = field.text()?;
    if text.len() <= MAX_IDENTIFIER && !text.contains(char::is_control) {
        Some(text.to_owned())
    } else {
        field.wrong(format!("{} is not a name of at most {MAX_IDENTIFIER} bytes", quoted(text)))
    }
}
