//! What operators write, checked and resolved.
//!
//! [`load`] goes one way: files become one tree in which every value knows its place
//! (`document`), and one pass over the tree (`reader`, then a file per section) makes the checked
//! types of `model` and collects every mistake on the way. Which keys there are, and of what form, is
//! defined once, in `keys`; `schema` writes it for editors. There is no unchecked copy of the
//! configuration that someone could use by accident.

mod access;
mod archive;
mod digest;
mod document;
mod http;
mod issuer;
mod keys;
mod mask;
mod mistake;
mod model;
mod notify;
mod policy;
mod reader;
mod retention;
mod rows;
mod schema;
mod secret_ref;
mod server;
mod ssh;
mod target;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use document::Node;
use mistake::{Findings, Place};
use reader::Table;

use crate::names::TargetName;
use crate::policy::{Policy, Rule};

pub use archive::{Archive, Location, Witness, witness_of as witness};
pub use mistake::{Mistake, Mistakes, Position};
pub use model::{
    AccessRule, Approvals, AskedAccess, ClaimPath, Config, ContentTypes, Database, Durability,
    EncodedSlash, Http, HttpCredential, HttpTarget, Issuer, Listen, NamedTest, Notify, NotifyEvent,
    NotifyKind, OnRecordingFailure, PostgresTarget, Recording, Server, Ssh, SshCredential,
    SshTarget, Target, TargetKind, TargetSelector, Telemetry, Tickets, Tls, TokenKind, UpstreamTls,
    UserKey, Web,
};
pub use retention::{Retention, keep};
pub use schema::schema;
pub use secret_ref::{SecretError, SecretRef};

/// Reads and checks a configuration file with all that it includes. Reads files and nothing else:
/// no secret, no network. Blocks on the file system.
pub fn load(path: &Path) -> Result<Config, Mistakes> {
    let mut findings = Findings::default();
    let root = document::read(path, &mut findings);
    // What the rest means cannot be said of files that were not read in full.
    let config = if findings.any() { None } else { check(path, &root, &findings) };
    findings.into_result(config)
}

/// The `data_dir` of a configuration, whatever else may be wrong with it: where a command finds
/// the gateway that was started with an earlier state of the file.
pub fn data_dir(path: &Path) -> Result<PathBuf, Mistakes> {
    let mut findings = Findings::default();
    let root = document::read(path, &mut findings);
    let server = Table::root(&root, &keys::WHOLE, &findings).map(|top| server::server(&top));
    match server {
        Some(server) if !findings.any() => Ok(server.data_dir),
        _ => Err(findings.into_mistakes()),
    }
}

/// The policy with a draft laid over it: `[[rule]]`s, which stand in the place of those of the same
/// name or beside the others, and perhaps `[policy]`. Nothing of it comes into force.
pub fn draft(
    text: &str,
    targets: &BTreeMap<TargetName, Arc<Target>>,
    policy: &Policy,
) -> Result<Policy, Mistakes> {
    let mut findings = Findings::default();
    let root = document::read_text("the draft", text, &mut findings);
    let hash = digest::policy(&root);
    let Some(top) = Table::root(&root, &keys::DRAFT, &findings) else {
        return Err(findings.into_mistakes());
    };
    let has_settings = top.has("policy");
    let drafted = policy::policy(&top, targets, hash.clone());
    top.finish();
    if findings.any() {
        return Err(findings.into_mistakes());
    }
    let replaced = |rule: &&Rule| drafted.written().iter().any(|drafted| drafted.name == rule.name);
    let kept = policy.written().iter().filter(|rule| !replaced(rule));
    let rules: Vec<Rule> = kept.chain(drafted.written()).cloned().collect();
    let settings = if has_settings { drafted.settings() } else { policy.settings() };
    Policy::compile(hash, *settings, &rules).map_err(|mistakes| {
        let start = Place { file: 0, byte: 0 };
        for mistake in mistakes {
            findings.mistake(start, mistake.problem, Some(mistake.hint.to_owned()));
        }
        findings.into_mistakes()
    })
}

fn check(path: &Path, root: &Node, findings: &Findings) -> Option<Config> {
    let top = Table::root(root, &keys::WHOLE, findings)?;
    let server = server::server(&top);
    let tls = server::tls(&top);
    let listen = server::listen(&top, top.has("tls"));
    let ssh = ssh::ssh(&top, &server.data_dir);
    let web = server::web(&top, listen.web.is_some());
    let telemetry = server::telemetry(&top);
    let (recording, archive) = server::recording(&top, &server.data_dir);
    let database = server::database(&top, !recording.recipients.is_empty());
    let tickets = server::tickets(&top);
    let approvals = server::approvals(&top);
    let notify = notify::notify(&top);
    let http = http::http(&top);
    let issuers = issuer::issuers(&top);
    let targets = target::targets(&top);
    let access = access::rules(&top, &issuers, &targets);
    let policy = policy::policy(&top, &targets, digest::policy(root));
    let (masks, all_masks) = mask::masks(&top, &targets);
    let (filters, all_filters) = rows::filters(&top, &targets, &masks);
    let masks = masks.with_rows(filters);
    policy::warn_of_openings(&top, &policy, &masks, &targets);
    let known = policy::Known {
        targets: &targets,
        rules: (policy.written().len() == top.tables("rule").len()).then_some(&policy),
        masks: all_masks.then_some(&masks),
        filters: all_filters.then_some(&masks),
    };
    let tests = policy::tests(&top, &known);
    let retention = retention::retention(&top, &targets);
    top.finish();
    let start = Place { file: 0, byte: 0 };
    if listen.postgres.is_none() && listen.ssh.is_none() && listen.http.is_none() {
        findings.warning(start, "[listen] names no protocol: no caller can connect", None);
    }
    if access.is_empty() {
        findings.warning(start, "there is no [[access]]: no caller reaches any target", None);
    }
    Some(Config {
        path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
        server,
        listen,
        tls,
        issuers: issuers.known,
        ssh,
        web,
        telemetry,
        database,
        recording,
        archive,
        tickets,
        approvals,
        notify,
        http,
        targets,
        access,
        policy: Arc::new(policy),
        masks: Arc::new(masks),
        tests,
        retention,
        warnings: Vec::new(),
    })
}
