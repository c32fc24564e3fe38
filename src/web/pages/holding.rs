//! Keeping a session's recording from its page.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::post;

use super::visitor::{Posted, Turned};
use crate::database::Filter;
use crate::names::SessionId;
use crate::web::api::{Api, Named, named};
use crate::web::holds::{Wanted, held, lifted};
use crate::web::problem::Problem;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/sessions/{id}/hold", post(hold)).route("/sessions/{id}/lift", post(lift))
}

async fn hold(State(api): State<Arc<Api>>, id: Named, posted: Posted) -> Result<Response, Turned> {
    let session = allowed(&api, id, &posted, "hold").await?;
    let reason = posted.field("reason").unwrap_or_default().to_owned();
    let wanted = Wanted { reason, session: Some(session), filter: Filter::default() };
    held(&api, &posted.visitor.caller, wanted).await?;
    Ok(Redirect::to(&format!("/sessions/{session}")).into_response())
}

async fn lift(State(api): State<Arc<Api>>, id: Named, posted: Posted) -> Result<Response, Turned> {
    let session = allowed(&api, id, &posted, "lift").await?;
    let hold = posted.field("hold").and_then(|id| id.parse().ok());
    let reason = posted.field("reason").map(str::to_owned);
    lifted(&api, &posted.visitor.caller, hold.ok_or_else(Problem::not_found)?, reason).await?;
    Ok(Redirect::to(&format!("/sessions/{session}")).into_response())
}

/// The session, for an admin; a refusal is in the audit log.
async fn allowed(api: &Api, id: Named, posted: &Posted, what: &str) -> Result<SessionId, Problem> {
    let id: SessionId = named(id)?;
    let caller = &posted.visitor.caller;
    if caller.is_admin(api.roles()) {
        return Ok(id);
    }
    api.refused(caller, &format!("/sessions/{id}/{what}")).await;
    Err(Problem::no_right())
}
