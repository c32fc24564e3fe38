//! `[[access]]`: who may open sessions on what.

use std::collections::BTreeMap;
use std::sync::Arc;

use globset::GlobMatcher;
use serde_json::Value as Json;

use super::document::{Node, Value};
use super::issuer::Issuers;
use super::later;
use super::model::{AccessRule, Target, TargetSelector, UserKey};
use super::reader::{Field, Table, quoted};
use super::value;
use crate::names::TargetName;

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
    table.read("grant", |field| match field.word(&[("standing", true), ("approval", false)])? {
        true => Some(()),
        false => field.not_yet("\"approval\""),
    });
    table.read("single_session", |field| match field.flag()? {
        false => Some(()),
        true => field.not_yet("true"),
    });
    table.later("approvers", Field::texts);
    table.later("approvals", |f| f.count(later::MOST_APPROVALS));
    table.later("duration", value::span);
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
    })
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

fn target_glob(field: Field<'_>, targets: &Targets) -> Option<GlobMatcher> {
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
