//! Just-in-time access: asking for it, deciding, and taking it back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::Value;

use super::api::{Answer, Api, Named, named};
use super::approvals::{Shown, deciding, shown};
use super::caller::{Caller, Person};
use super::problem::Problem;
use super::query::{Body, Pages};
use crate::access::{self, Right};
use crate::database::{AccessGrant, Page, RequestKind};
use crate::names::{GrantId, TargetName};

/// The longest reason, in bytes.
const MAX_REASON: usize = 2000;

pub(super) fn routes() -> Router<Arc<Api>> {
    deciding("/api/v1/access-requests", RequestKind::Access)
        .route("/api/v1/access-requests", post(ask))
        .route("/api/v1/grants", get(grants))
        .route("/api/v1/grants/{id}", delete(revoke))
}

/// What access is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WantedAccess {
    pub(super) target: TargetName,
    /// The rule's duration when left out, and at most that.
    pub(super) duration_seconds: Option<u64>,
    pub(super) reason: Option<String>,
}

async fn ask(
    State(api): State<Arc<Api>>,
    Person(caller): Person,
    Body(wanted): Body<WantedAccess>,
) -> Result<Response, Problem> {
    let (shown, new) = asked(&api, &caller, wanted).await?;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(shown)).into_response())
}

/// Asks people for access for the caller, or finds that they are asked; whether that is new.
pub(super) async fn asked(
    api: &Api,
    caller: &Caller,
    wanted: WantedAccess,
) -> Result<(Shown, bool), Problem> {
    let Some(identity) = caller.identity() else {
        let why = "access is asked for by whom it is for: use --server, with a login";
        return Err(Problem::forbidden(why));
    };
    if wanted.reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON) {
        return Err(Problem::bad(format!("reason: at most {MAX_REASON} bytes")));
    }
    if wanted.duration_seconds == Some(0) {
        return Err(Problem::bad("duration_seconds: 1 or more"));
    }
    let rules = api.catalog.current();
    let (target, whom) = match access::right(&rules, identity, &wanted.target) {
        Ok((target, Right::Asked { whom, .. })) => (target, whom),
        Ok((_, Right::Standing { .. })) => {
            return Err(Problem::conflict("you have this access already"));
        }
        Err(_) => {
            let target = wanted.target.to_string();
            api.tried(caller, "access.request", target, "no rule offers it").await;
            return Err(Problem::forbidden("no access rule offers you a target of this name"));
        }
    };
    let detail = BTreeMap::from([("reason".to_owned(), Value::from(wanted.reason.clone()))]);
    api.done(caller, "access.request", Some(wanted.target.to_string()), detail).await?;
    let duration = wanted.duration_seconds.map(Duration::from_secs);
    let desk = api.catalog.desk();
    let (asked, new) = desk.ask_for_access(identity, target, whom, duration, wanted.reason).await?;
    let request = api.database.request(asked.id).await?.ok_or_else(Problem::internal)?;
    Ok((shown(api, caller, request), new))
}

async fn grants(
    State(api): State<Arc<Api>>,
    Person(caller): Person,
    Pages(wanted): Pages,
) -> Answer<Page<AccessGrant>> {
    let all = caller.may_read(api.roles());
    let page = api.database.grants(caller.key().filter(|_| !all), &wanted).await?;
    api.shown(&caller, "grant.list", None, BTreeMap::new()).await?;
    Ok(Json(page))
}

async fn revoke(
    State(api): State<Arc<Api>>,
    Person(caller): Person,
    id: Named,
) -> Answer<AccessGrant> {
    let id: GrantId = named(id)?;
    let owner = caller.key().filter(|_| !caller.is_admin(api.roles()));
    let entry = api.entry(&caller, "grant.revoke", id.to_string(), BTreeMap::new());
    let Some(revoked) = api.database.revoke_grant(id, owner, &entry).await? else {
        api.tried(&caller, "grant.revoke", id.to_string(), "there is no such grant").await;
        return Err(Problem::not_found());
    };
    api.catalog.desk().wake();
    Ok(Json(revoked))
}
