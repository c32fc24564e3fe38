//! Targets: what a caller may reach or ask for, and what is masked and filtered there.
//!
//! Everybody sees their own; who may read what was recorded sees all of them. What a target's catalog
//! says is told as far as the gateway holds it in memory: a look opens no connection.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use super::api::{Answer, Api};
use super::caller::{Caller, Person};
use crate::access::{self, Right};
use crate::catalog::{Protection, Rules};
use crate::config::Target;
use crate::names::TargetName;
use crate::policy;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/api/v1/targets", get(list))
}

#[derive(Debug, Serialize)]
struct Targets {
    items: Vec<Shown>,
}

#[derive(Debug, Serialize)]
struct Shown {
    name: TargetName,
    protocol: &'static str,
    labels: BTreeMap<String, String>,
    /// How the caller comes to it; null for who only reads what was recorded.
    access: Option<&'static str>,
    #[serde(flatten)]
    protection: Protection,
}

async fn list(State(api): State<Arc<Api>>, Person(caller): Person) -> Answer<Targets> {
    api.shown(&caller, "target.list", None, BTreeMap::new()).await?;
    let (rules, reads) = (api.catalog.current(), caller.may_read(api.roles()));
    let items = rules.targets().filter_map(|target| {
        let right = caller.identity().map(|own| access::right(&rules, own, &target.name));
        let access = match right {
            Some(Ok((_, Right::Standing { .. }))) => Some("standing"),
            Some(Ok((_, Right::Asked { .. }))) => Some("approval"),
            Some(Err(_)) | None => None,
        };
        (reads || access.is_some()).then(|| Shown {
            name: target.name.clone(),
            protocol: target.protocol().as_str(),
            labels: target.labels.clone(),
            access,
            protection: protection(&api, &caller, &rules, target),
        })
    });
    Ok(Json(Targets { items: items.collect() }))
}

/// What masks and row filters of a target do to a caller.
pub(super) fn protection(
    api: &Api,
    caller: &Caller,
    rules: &Rules,
    target: &Arc<Target>,
) -> Protection {
    let whose = caller.identity().map(policy::Caller::from).unwrap_or_default();
    rules.protection(target, &whose, &*api.held)
}
