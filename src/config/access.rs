//! `[[access]]`: who may open sessions on what.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use globset::GlobMatcher;
use serde_json::Value as Json;

use super::document::{Node, Value};
use super::issuer::Issuers;
use super::model::{AccessRule, AskedAccess, Target, TargetSelector, UserKey};
use super::reader::{Field, Table, quoted};
use super::value;
use crate::names::TargetName;

/// How long access that was granted lasts unless the rule says otherwise.
const DEFAULT_DURATION: Duration = Duration::from_secs(60 * 60);

type Targets = BTreeMap<TargetName, Arc<Target>>;

pub(super) fn rules(top: &Table<'_>, issuers: &Issuers, targets: &Targets) -> Vec<AccessRule> {
    top.tables("access").into_iter().filter_map(|table| rule(table, issuers, targets)).collect()
}

fn rule(table: Table<'_>, issuers: &Issuers, targets: &Targets) -> Option<AccessRule> {
    let groups = table.read("groups", Field::texts);
    let users = table.read("users", |f| f.some(|user| user_key(user, issuers)));
    let claims = table.read("claims", claims);
    if !["groups", "users", "claims"].iter().any(|key| table.has(key)) {
        table.wrong(
            "[[access]] says nothing of who",
            Some("give groups, users or claims; groups = [\"*\"] means everyone in any group"),
        );
    }
    let names = table.read("targets", |f| f.some(|glob| target_glob(glob, targets)));
    let labels = table.read("labels", |field| labels(field, targets));
    if table.has("targets") == table.has("labels") {
        table.wrong(
            "[[access]] takes either targets or labels",
            Some("give targets = [\"orders\", \"web-*\"] or labels = { env = \"prod\" }"),
        );
    }
    let max_session = table.read("max_session", value::span);
    let outlive_token = table.read("outlive_token", Field::flag).unwrap_or_default();
    let by_approval =
        table.read("grant", |field| field.word(&[("standing", false), ("approval", true)]));
    let single_session = table.read("single_session", Field::flag).unwrap_or_default();
    let asked = asked(&table, by_approval.unwrap_or_default());
    table.finish();
    let targets = match names {
        Some(names) => TargetSelector::Names(names),
        None => TargetSelector::Labels(labels?),
    };
    Some(AccessRule {
        groups: groups.unwrap_or_default(),
        users: users.unwrap_or_default(),
        claims: claims.unwrap_or_default(),
        targets,
        max_session,
        outlive_token,
        single_session,
        asked: asked?,
    })
}

/// Whom to ask, with `grant = "approval"`. None is a mistake.
fn asked(table: &Table<'_>, by_approval: bool) -> Option<Option<AskedAccess>> {
    const KEYS: [&str; 3] = ["approvers", "approvals", "duration"];
    let approvers = table.read("approvers", Field::texts);
    let approvals = table.read("approvals", |f| f.count(value::MOST_APPROVALS));
    let duration = table.read("duration", value::span);
    if !by_approval {
        for key in KEYS.into_iter().filter(|key| table.has(key)) {
            let hint = "say grant = \"approval\", or leave it out";
            table.wrong_at(key, "nobody is asked by a standing grant", hint);
        }
        return Some(None);
    }
    if !table.has("approvers") {
        table.wrong(
            "[[access]] with grant = \"approval\" says nothing of who approves",
            Some("name groups, for example approvers = [\"platform\"]"),
        );
    }
    Some(Some(AskedAccess {
        approvers: approvers?,
        approvals: approvals.and_then(|count| u32::try_from(count).ok()).unwrap_or(1),
        duration: duration.unwrap_or(DEFAULT_DURATION),
    }))
}

fn user_key(field: Field<'_>, issuers: &Issuers) -> Option<UserKey> {
    let table = field.table()?;
    let issuer = table.require("issuer", |field| {
        let name = field.text()?;
        if !issuers.names.iter().any(|known| known == name) {
            return field.not_one_of(name, issuers.names.iter().map(String::as_str));
        }
        issuers.known.iter().find(|issuer| issuer.name == name).map(|issuer| issuer.url.clone())
    });
    let subject = table.require("subject", |f| f.text().map(str::to_owned));
    table.finish();
    Some(UserKey { issuer: issuer?, subject: subject? })
}

pub(super) fn claims(field: Field<'_>) -> Option<BTreeMap<String, Json>> {
    let claims: Vec<_> = field
        .table()?
        .free()
        .map(|claim| match json(claim.node()) {
            Some(value) => Some((claim.key().to_owned(), value)),
            None => claim.wrong(
                "a claim is a text, a whole number, true, false, or a list or table of these",
            ),
        })
        .collect();
    match claims.into_iter().collect() {
        Some(claims) if BTreeMap::is_empty(&claims) => field.wrong("must name at least one"),
        claims => claims,
    }
}

fn json(node: &Node) -> Option<Json> {
    Some(match &node.value {
        Value::Text(text) => Json::from(text.as_str()),
        Value::Integer(number) => Json::from((*number)?),
        Value::Flag(flag) => Json::from(*flag),
        Value::List(items) => Json::Array(items.iter().map(json).collect::<Option<_>>()?),
        Value::Table(entries) => Json::Object(
            entries
                .iter()
                .map(|(key, (_, node))| Some((key.clone(), json(node)?)))
                .collect::<Option<_>>()?,
        ),
        Value::Float(_) | Value::Time(_) => return None,
    })
}

pub(super) fn target_glob(field: Field<'_>, targets: &Targets) -> Option<GlobMatcher> {
    let glob = value::target_glob(field)?;
    if !targets.keys().any(|name| glob.is_match(name.as_str())) {
        field.warn(format!("{} matches no target", quoted(glob.glob().glob())));
    }
    Some(glob)
}

pub(super) fn labels(field: Field<'_>, targets: &Targets) -> Option<BTreeMap<String, String>> {
    let labels = value::labels(field)?;
    if labels.is_empty() {
        return field.wrong("must name at least one");
    }
    let selected =
        |target: &Arc<Target>| labels.iter().all(|(k, v)| target.labels.get(k) == Some(v));
    if !targets.values().any(selected) {
        field.warn("no target has these labels");
    }
    Some(labels)
}
