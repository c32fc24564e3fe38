//! Ending sessions, and what became of the tokens that opened them.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use super::api::{Answer, Api, Named, named};
use super::caller::{Admin, Caller, Reader};
use super::problem::Problem;
use super::query::{Body, Pages};
use crate::database::{Page, Timestamp, WithdrawnToken};
use crate::names::SessionId;

/// How long the gateway that has the session is waited for. It looks every second.
const ANSWER_TIME: Duration = Duration::from_secs(4);
/// The longest reason, in bytes.
const MAX_REASON: usize = 2000;
/// How often it is looked for.
const POLL: Duration = Duration::from_millis(50);
/// How long a gateway that was out of reach still ends the session when it is back.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/api/v1/sessions/{id}/kill", post(kill))
        .route("/api/v1/withdrawn-tokens", get(tokens))
        .route("/api/v1/withdrawn-tokens/{id}", delete(lift))
}

/// How a session is ended.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct How {
    /// What opened it goes on to count.
    #[serde(default)]
    pub(super) only_session: bool,
    pub(super) reason: Option<String>,
}

/// A session that was ended.
#[derive(Debug, Serialize)]
pub(super) struct Killed {
    session: SessionId,
    /// When its gateway had ended it.
    ended_at: Timestamp,
    /// What opened it and is refused now, everywhere; none when it goes on to count.
    withdrawn_token: Option<WithdrawnToken>,
}

/// A token that counts again.
#[derive(Debug, Serialize)]
struct Lifted {
    id: String,
}

async fn kill(
    State(api): State<Arc<Api>>,
    Admin(caller): Admin,
    id: Named,
    Body(how): Body<How>,
) -> Answer<Killed> {
    killed(&api, &caller, id, how).await.map(Json)
}

async fn tokens(
    State(api): State<Arc<Api>>,
    Reader(caller): Reader,
    Pages(wanted): Pages,
) -> Answer<Page<WithdrawnToken>> {
    let page = api.database.withdrawn_tokens(&wanted).await?;
    api.shown(&caller, "token.list", None, BTreeMap::new()).await?;
    Ok(Json(page))
}

async fn lift(State(api): State<Arc<Api>>, Admin(caller): Admin, id: Named) -> Answer<Lifted> {
    let id: TokenId = named(id)?;
    let entry = api.entry(&caller, "token.lift", id.0.clone(), BTreeMap::new());
    if !api.database.lift_token(&id.0, &entry).await? {
        api.tried(&caller, "token.lift", id.0, "no such token is withdrawn with a session").await;
        return Err(Problem::not_found());
    }
    api.catalog.desk().wake();
    Ok(Json(Lifted { id: id.0 }))
}

/// What revocation knows a token by: 64 hexadecimal digits.
struct TokenId(String);

impl FromStr for TokenId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_hash = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hash { Ok(Self(text.to_ascii_lowercase())) } else { Err("64 hexadecimal digits") }
    }
}

/// Ends a session for an admin, and says why in the audit log.
pub(super) async fn killed(
    api: &Api,
    caller: &Caller,
    id: Named,
    How { only_session, reason }: How,
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
    if reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON) {
        return Err(Problem::bad(format!("reason: at most {MAX_REASON} bytes")));
    }
    let reason = reason.map(|reason| ("reason".to_owned(), Value::from(reason)));
    let mut detail = reason.into_iter().collect::<BTreeMap<_, _>>();
    detail.insert("only_session".to_owned(), Value::from(only_session));
    let until = Timestamp::from(std::time::SystemTime::now() + REMEMBERED);
    let entry = api.asked_entry(caller, "session.kill", key.clone(), detail.clone());
    api.database.end_session(session, until, only_session, &entry).await?;
    api.catalog.desk().wake();
    let asked = Instant::now();
    while asked.elapsed() < ANSWER_TIME {
        let withdrawal = api.database.session_withdrawal(&key).await?;
        if let Some(ended_at) = withdrawal.and_then(|withdrawal| withdrawal.ended_at) {
            let withdrawn_token = api.database.token_of_session(session).await?;
            if let Some(token) = &withdrawn_token {
                detail.insert("withdrawn_token".to_owned(), Value::from(token.id.as_str()));
            }
            api.done(caller, "session.kill", Some(key), detail).await?;
            return Ok(Killed { session, ended_at, withdrawn_token });
        }
        tokio::time::sleep(POLL).await;
    }
    Err(Problem::not_ended())
}
