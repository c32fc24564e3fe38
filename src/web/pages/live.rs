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
use super::{Frame, page, reader};
use crate::names::SessionId;
use crate::web::api::{Api, Named, named};
use crate::web::kills::killed;
use crate::web::problem::Problem;

/// Open sessions on one page.
const MOST: u32 = 500;
/// The longest reason, in bytes.
const MAX_REASON: usize = 2000;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/live", get(live)).route("/sessions/{id}/end", post(end))
}

#[derive(Template)]
#[template(path = "live.html")]
struct LivePage {
    frame: Frame,
    since: String,
    rows: Vec<Row>,
}

async fn live(State(api): State<Arc<Api>>, visitor: Visitor) -> Result<Response, Turned> {
    reader(&api, &visitor.caller, "/live").await?;
    let open = api.database.open_sessions(MOST).await.map_err(Problem::from)?;
    let what = [("open".to_owned(), true.into())];
    api.shown(&visitor.caller, "session.list", None, what.into()).await?;
    let frame = Frame::of(&api, &visitor, "live", "Live");
    let since = mark_of(&open);
    page(&LivePage { frame, since, rows: open.iter().map(Row::of).collect() }).map_err(Into::into)
}

async fn end(State(api): State<Arc<Api>>, id: Named, posted: Posted) -> Result<Response, Turned> {
    let caller = &posted.visitor.caller;
    let id: SessionId = named(id)?;
    if !caller.is_admin(api.roles()) {
        api.refused(caller, &format!("/sessions/{id}/end")).await;
        return Err(Problem::no_right().into());
    }
    let reason = posted.field("reason").ok_or_else(|| Problem::bad("reason: say why"))?;
    if reason.len() > MAX_REASON {
        return Err(Problem::bad(format!("reason: at most {MAX_REASON} bytes")).into());
    }
    killed(&api, caller, Ok(axum::extract::Path(id.to_string())), Some(reason)).await?;
    Ok(Redirect::to(&format!("/sessions/{id}")).into_response())
}
