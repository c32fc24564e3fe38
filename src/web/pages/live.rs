//! What is open now, and ending it.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use super::changes::mark_of;
use super::sessions::Row;
use super::visitor::{Posted, Turned, Visitor};
use super::{Frame, page, reader, text, word};
use crate::database::Latest;
use crate::names::SessionId;
use crate::policy::Verdict;
use crate::web::api::{Api, Named, named};
use crate::web::kills::{How, killed};
use crate::web::problem::Problem;

/// Open sessions on one page.
const MOST: u32 = 500;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/live", get(live)).route("/sessions/{id}/end", post(end))
}

#[derive(Template)]
#[template(path = "live.html")]
struct LivePage {
    frame: Frame,
    since: String,
    rows: Vec<(Row, Option<Now>)>,
}

/// What a session does, or did last.
struct Now {
    link: String,
    verdict: &'static str,
    text: String,
    /// Whether it still does it, in a word.
    state: &'static str,
}

impl Now {
    fn of(latest: &Latest) -> Self {
        let shown = latest.text.as_deref().filter(|text| !text.is_empty());
        Self {
            link: format!("/sessions/{}?command={}", latest.session, latest.sequence),
            verdict: word(latest.verdict),
            text: text::line(shown.unwrap_or(&latest.form)),
            state: match (latest.ended, latest.verdict) {
                (true, _) | (_, Verdict::Block) => "",
                (false, Verdict::Approve) => "not ended",
                (false, Verdict::Allow) => "running",
            },
        }
    }
}

async fn live(State(api): State<Arc<Api>>, visitor: Visitor) -> Result<Response, Turned> {
    reader(&api, &visitor.caller, "/live").await?;
    let open = api.database.open_sessions(MOST).await.map_err(Problem::from)?;
    let ids: Vec<SessionId> = open.iter().map(|session| session.id).collect();
    let latest = api.database.latest_commands(&ids).await.map_err(Problem::from)?;
    let what = [("open".to_owned(), true.into()), ("latest_commands".to_owned(), true.into())];
    api.shown(&visitor.caller, "session.list", None, what.into()).await?;
    let frame = Frame::of(&api, &visitor, "live", "Live");
    let since = mark_of(&open);
    let now = |id| latest.iter().find(|latest| latest.session == id).map(Now::of);
    let rows = open.iter().map(|session| (Row::of(session), now(session.id))).collect();
    page(&LivePage { frame, since, rows }).map_err(Into::into)
}

async fn end(State(api): State<Arc<Api>>, id: Named, posted: Posted) -> Result<Response, Turned> {
    let caller = &posted.visitor.caller;
    let id: SessionId = named(id)?;
    if !caller.is_admin(api.roles()) {
        api.refused(caller, &format!("/sessions/{id}/end")).await;
        return Err(Problem::no_right().into());
    }
    let reason = posted.field("reason").ok_or_else(|| Problem::bad("reason: say why"))?;
    let only_session = posted.field("only_session").is_some();
    let how = How { only_session, reason: Some(reason.to_owned()) };
    killed(&api, caller, Ok(axum::extract::Path(id.to_string())), how).await?;
    Ok(Redirect::to(&format!("/sessions/{id}")).into_response())
}
