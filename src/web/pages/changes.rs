//! Tells open pages that they are out of date, as server-sent events: only that, so that what
//! they then show goes through rights and audit log as always.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::watch;

use super::reader;
use super::visitor::{Turned, Visitor};
use crate::database::Session;
use crate::identity::Identity;
use crate::names::SessionId;
use crate::web::api::Api;
use crate::web::problem::Problem;

/// How often sessions are looked at.
const POLL: Duration = Duration::from_secs(1);
/// How often something is said although nothing happened, so that a dead line is found.
const BEAT: Duration = Duration::from_secs(15);
/// Open sessions that are looked at.
const MOST: u32 = 500;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/changes", get(changes))
}

/// What is watched: one session, all that are open, or, with neither, what waits for people.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    session: Option<SessionId>,
    live: Option<String>,
    /// What the page was made from: what changed since is told at once.
    since: String,
}

/// One page that is open.
struct Watch {
    api: Arc<Api>,
    what: What,
    /// When the login ends, and with it this.
    until: SystemTime,
    seen: String,
}

enum What {
    Session(SessionId),
    Live,
    People(watch::Receiver<u64>),
}

async fn changes(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    wish: Result<Query<Wish>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Turned> {
    let Query(wish) = wish.map_err(|error| Problem::bad(error.body_text()))?;
    let what = match (wish.session, wish.live) {
        (Some(session), _) => What::Session(session),
        (None, Some(_)) => What::Live,
        (None, None) => What::People(api.catalog.desk().stirred()),
    };
    if !matches!(what, What::People(_)) {
        reader(&api, &visitor.caller, "/changes").await?;
    }
    let until = visitor.caller.identity().map_or_else(SystemTime::now, Identity::expires);
    let watch = Watch { api, what, until, seen: wish.since };
    let told = stream::unfold(watch, |mut watch| async move {
        let text = watch.next().await?;
        Some((Ok::<_, Infallible>(text), watch))
    });
    let about = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((about, Body::from_stream(told)).into_response())
}

impl Watch {
    /// What is to be sent next; none at the end of the login, or of the gateway.
    async fn next(&mut self) -> Option<&'static str> {
        let left = self.until.duration_since(SystemTime::now()).ok()?;
        let shutdown = self.api.shutdown.clone();
        tokio::select! {
            () = shutdown.draining() => None,
            () = tokio::time::sleep(left) => None,
            () = tokio::time::sleep(BEAT) => Some(":\n\n"),
            changed = self.changed() => changed.then_some("data: changed\n\n"),
        }
    }

    /// Waits until there is something new; false when there will be nothing more. Cancel safe.
    async fn changed(&mut self) -> bool {
        loop {
            if let Some(state) = self.state().await
                && state != self.seen
            {
                self.seen = state;
                return true;
            }
            match &mut self.what {
                What::People(stirred) => {
                    if stirred.changed().await.is_err() {
                        return false;
                    }
                }
                What::Session(_) | What::Live => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// What tells that something went on; none while the index cannot be asked.
    async fn state(&self) -> Option<String> {
        let database = &self.api.database;
        match &self.what {
            What::People(stirred) => Some(stirred.borrow().to_string()),
            What::Session(id) => Some(mark_of(&[database.session(*id).await.ok()??])),
            What::Live => Some(mark_of(&database.open_sessions(MOST).await.ok()?)),
        }
    }
}

/// What a page about people's decisions is made from; taken before they are looked up.
pub(super) fn mark_of_people(api: &Api) -> String {
    api.catalog.desk().stirred().borrow().to_string()
}

/// What a page about these sessions is made from.
pub(super) fn mark_of(sessions: &[Session]) -> String {
    let mut hasher = blake3::Hasher::new();
    for session in sessions {
        let Session { id, commands, bytes_down, closed_at, .. } = session;
        let told = format!("{id} {commands} {bytes_down} {}\n", closed_at.is_some());
        hasher.update(told.as_bytes());
    }
    hasher.finalize().to_hex().chars().take(16).collect()
}
