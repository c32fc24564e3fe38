//! Legal holds, and deleting what is over: for admins.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::Value;

use super::api::{Answer, Api, Named, named};
use super::caller::{Admin, Caller};
use super::problem::Problem;
use super::query::Body;
use super::starting;
use crate::archive::{By, PruneError, Pruned, Retention};
use crate::database::{
    DatabaseError, Filter, Hold, HoldFilter, HoldSet, OneSession, Page, Timestamp,
};
use crate::names::{HoldId, SessionId};

/// The longest reason, in bytes.
const MAX_REASON: usize = 2000;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/api/v1/holds", get(list).post(set))
        .route("/api/v1/holds/{id}", delete(lift))
}

/// What is to be held, and why.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    pub(super) reason: String,
    pub(super) session: Option<SessionId>,
    #[serde(default)]
    pub(super) filter: Filter,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Those that were lifted, too.
    #[serde(default)]
    all: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Why {
    reason: Option<String>,
}

async fn list(State(api): State<Arc<Api>>, Admin(caller): Admin, uri: Uri) -> Answer<Page<Hold>> {
    let Query(Which { all }) =
        Query::try_from_uri(&uri).map_err(|error| Problem::bad(error.body_text()))?;
    let items = api.database.holds(all).await?;
    api.shown(&caller, "hold.list", None, BTreeMap::new()).await?;
    Ok(Json(Page { items, next: None }))
}

async fn set(
    State(api): State<Arc<Api>>,
    Admin(caller): Admin,
    Body(wanted): Body<Wanted>,
) -> Result<Response, Problem> {
    let hold = held(&api, &caller, wanted).await?;
    Ok((StatusCode::CREATED, Json(hold)).into_response())
}

/// Sets a hold, for an admin.
pub(super) async fn held(api: &Api, caller: &Caller, wanted: Wanted) -> Result<Hold, Problem> {
    let reason = reason(Some(wanted.reason))?.ok_or_else(|| Problem::bad("reason: say why"))?;
    wanted.filter.checked()?;
    let filter = match (wanted.session, wanted.filter.is_empty()) {
        (Some(session), true) => {
            api.database.session(session).await?.ok_or_else(Problem::not_found)?;
            HoldFilter::Session(OneSession { session })
        }
        (None, false) => HoldFilter::Query(Box::new(wanted.filter)),
        _ => return Err(Problem::bad("give a session, or a filter that names something")),
    };
    if let HoldFilter::Query(filter) = &filter
        && filter.looks_into_text()
        && !api.catalog.current().indexes_text()
    {
        return Err(Problem::bad("texts are not in the index: hold by user, target, run or time"));
    }
    let hold = Hold {
        id: HoldId::generate(),
        reason,
        filter,
        set_at: Timestamp::from(std::time::SystemTime::now()),
        set_by: caller.username(),
        lifted_at: None,
        lifted_by: None,
        lift_reason: None,
    };
    let detail = BTreeMap::from([
        ("reason".to_owned(), Value::from(hold.reason.as_str())),
        ("filter".to_owned(), serde_json::to_value(&hold.filter).unwrap_or_default()),
    ]);
    let object = hold.id.to_string();
    let entry = api.entry(caller, "hold.set", object.clone(), detail);
    let why = match api.database.set_hold_for(&hold, &entry).await {
        Ok(HoldSet::Set) => return Ok(hold),
        Ok(HoldSet::Deleted) => "the session's recording has been deleted; nothing is held",
        Err(DatabaseError::TooSlow) => {
            "recordings are being deleted and this takes long; nothing is held yet, ask again"
        }
        Err(error) => return Err(error.into()),
    };
    api.tried(caller, "hold.set", object, why).await;
    Err(Problem::conflict(why))
}

async fn lift(
    State(api): State<Arc<Api>>,
    Admin(caller): Admin,
    id: Named,
    Body(why): Body<Why>,
) -> Answer<Hold> {
    lifted(&api, &caller, named(id)?, why.reason).await.map(Json)
}

/// Lifts a hold, for an admin.
pub(super) async fn lifted(
    api: &Api,
    caller: &Caller,
    id: HoldId,
    why: Option<String>,
) -> Result<Hold, Problem> {
    let reason = reason(why)?;
    let known = api.database.hold(id).await?.ok_or_else(Problem::not_found)?;
    if known.lifted_at.is_some() {
        return Err(Problem::conflict("the hold is lifted already"));
    }
    let said = reason.as_deref().map(|reason| ("reason".to_owned(), Value::from(reason)));
    let detail = said.into_iter().collect();
    let entry = api.entry(caller, "hold.lift", id.to_string(), detail);
    let lifted = api.database.lift_hold_for(id, reason.as_deref(), &entry).await?;
    lifted.ok_or_else(|| Problem::conflict("the hold is lifted already"))
}

fn reason(given: Option<String>) -> Result<Option<String>, Problem> {
    let reason = given.map(|reason| reason.trim().to_owned()).filter(|reason| !reason.is_empty());
    match &reason {
        Some(reason) if reason.len() > MAX_REASON || reason.contains('\0') => {
            Err(Problem::bad(format!("reason: at most {MAX_REASON} bytes")))
        }
        _ => Ok(reason),
    }
}

struct Pruner {
    api: Arc<Api>,
    retention: Arc<Retention>,
}

/// Where deleting is asked for.
pub fn pruning(api: &Arc<Api>, retention: Arc<Retention>) -> Router {
    let pruner = Arc::new(Pruner { api: Arc::clone(api), retention });
    let routes = Router::new().route("/api/v1/prune", post(prune)).with_state(pruner);
    starting::waiting(routes, &api.starting, starting::problem)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedRun {
    #[serde(default)]
    dry_run: bool,
}

async fn prune(
    State(pruner): State<Arc<Pruner>>,
    request: axum::extract::Request,
) -> Answer<Pruned> {
    use axum::extract::{FromRequest as _, FromRequestParts as _};
    let Pruner { api, retention } = &*pruner;
    let (mut parts, body) = request.into_parts();
    let Admin(caller) = Admin::from_request_parts(&mut parts, api).await?;
    let request = axum::extract::Request::from_parts(parts, body);
    let Body(WantedRun { dry_run }) = Body::from_request(request, &()).await?;
    let action = if dry_run { "recording.prune-dry-run" } else { "recording.prune" };
    let detail = BTreeMap::from([("asked".to_owned(), Value::from(true))]);
    api.asked(&caller, action, None, detail).await?;
    let pruned = if dry_run {
        retention.look().await
    } else {
        let entry = api.entry(&caller, action, String::new(), BTreeMap::new());
        let entry = crate::database::AuditEntry { object: None, ..entry };
        retention.prune(&By(entry)).await
    };
    pruned.map(Json).map_err(|error| match error {
        PruneError::Database(error) => error.into(),
        PruneError::Io(error) => {
            tracing::error!(%error, "recordings cannot be deleted");
            Problem::internal()
        }
        PruneError::Archive(error) => {
            tracing::warn!(%error, "retention waits for the archive");
            Problem::conflict("the archive cannot be asked; the gateway's log says more")
        }
        PruneError::Clocks => Problem::conflict(PruneError::Clocks.to_string()),
    })
}
