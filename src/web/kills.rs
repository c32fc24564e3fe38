//! Ending sessions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::api::{Answer, Api, Named, named};
use super::caller::{Admin, Caller};
use super::problem::Problem;
use crate::database::{Timestamp, WithdrawnKind};
use crate::names::SessionId;

/// How long the gateway that has the session is waited for. It looks every second.
const ANSWER_TIME: Duration = Duration::from_secs(4);
/// How often it is looked for.
const POLL: Duration = Duration::from_millis(50);
/// How long a gateway that was out of reach still ends the session when it is back.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/api/v1/sessions/{id}/kill", post(kill))
}

/// A session that was ended.
#[derive(Debug, Serialize)]
pub(super) struct Killed {
    session: SessionId,
    /// When its gateway had ended it.
    ended_at: Timestamp,
}

async fn kill(State(api): State<Arc<Api>>, Admin(caller): Admin, id: Named) -> Answer<Killed> {
    killed(&api, &caller, id, None).await.map(Json)
}

/// Ends a session for an admin, and says why in the audit log.
pub(super) async fn killed(
    api: &Api,
    caller: &Caller,
    id: Named,
    reason: Option<&str>,
) -> Result<Killed, Problem> {
    let session: SessionId = named(id)?;
    let key = session.to_string();
    // What ended is left as it is; what the index does not know yet may be open.
    if let Some(row) = api.database.session(session).await?
        && row.closed_at.is_some()
    {
        api.tried(caller, "session.kill", key, "it is over").await;
        return Err(Problem::conflict("the session is over"));
    }
    let reason = reason.map(|reason| ("reason".to_owned(), Value::from(reason)));
    let detail = reason.into_iter().collect::<BTreeMap<_, _>>();
    api.done(caller, "session.kill", Some(key.clone()), detail).await?;
    let until = Timestamp::from(std::time::SystemTime::now() + REMEMBERED);
    api.database.withdraw(WithdrawnKind::Session, &key, until, &caller.username()).await?;
    api.catalog.desk().wake();
    let asked = Instant::now();
    while asked.elapsed() < ANSWER_TIME {
        let withdrawal = api.database.session_withdrawal(&key).await?;
        if let Some(ended_at) = withdrawal.and_then(|withdrawal| withdrawal.ended_at) {
            return Ok(Killed { session, ended_at });
        }
        tokio::time::sleep(POLL).await;
    }
    Err(Problem::not_ended())
}
