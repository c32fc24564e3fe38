//! What waits for people: commands and access. Deciding is a form of the page, so a link that is
//! followed decides nothing.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;

use super::changes::mark_of_people;
use super::visitor::{Posted, Turned, Visitor};
use super::{Frame, page, sessions::now, text};
use crate::database::{RequestKind, RequestState, VoteVerdict, Wanted};
use crate::web::api::{Api, Named};
use crate::web::approvals::{Said, Shown, decide, list_of, show_one};
use crate::web::problem::Problem;
use crate::web::query::OfState;

/// Requests that wait, shown at once.
const WAITING: u32 = 100;
/// Requests of the last time, shown below.
const LATELY: u32 = 30;
/// Characters of a command in the list.
const IN_LIST: usize = 600;
/// Characters of a command that is decided: all that the request view keeps.
const WHOLE: usize = 200_000;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/approvals", get(list))
        .route("/approvals/{id}", get(show_command).post(decide_command))
        .route("/access-requests", get(async || Redirect::to("/approvals")))
        .route("/access-requests/{id}", get(show_access).post(decide_access))
}

#[derive(Template)]
#[template(path = "approvals.html")]
struct ApprovalsPage {
    frame: Frame,
    since: String,
    commands: Vec<Asking>,
    access: Vec<Asking>,
    decided: Vec<Asking>,
}

#[derive(Template)]
#[template(path = "approval.html")]
struct ApprovalPage {
    frame: Frame,
    since: String,
    asking: Asking,
}

/// A request as a page shows it.
struct Asking {
    link: String,
    is_access: bool,
    state: &'static str,
    pending: bool,
    yours: bool,
    user: String,
    target: String,
    protocol: &'static str,
    text: String,
    effects: Vec<(String, String)>,
    parameters: String,
    exact: String,
    cautions: Vec<String>,
    reason: String,
    comment: String,
    access_for: String,
    needs: Vec<String>,
    votes: Vec<String>,
    created: String,
    left: String,
    decided: String,
    note: String,
    workflow: String,
    run: String,
    command_link: Option<String>,
}

impl Asking {
    fn of(shown: &Shown, most: usize) -> Self {
        let request = &shown.request;
        let is_access = request.kind == RequestKind::Access;
        let folder = if is_access { "access-requests" } else { "approvals" };
        let pending = request.state == RequestState::Pending;
        let command = request.command.as_ref();
        let left = request.expires_at.0.saturating_sub(now().0);
        let session = request.session.map(|session| session.to_string());
        let optional = |text: &Option<String>| text::line(text.as_deref().unwrap_or_default());
        Self {
            link: format!("/{folder}/{}", request.id),
            is_access,
            state: match (request.state, is_access) {
                (RequestState::Pending, _) => "waits",
                (RequestState::Approved, _) => "approved",
                (RequestState::Denied, _) => "denied",
                (RequestState::Expired, _) => "expired",
                (RequestState::Consumed, true) => "granted",
                (RequestState::Consumed, false) => "approved, and ran",
            },
            pending,
            yours: shown.yours_to_decide,
            user: text::line(&request.username),
            target: text::line(&request.target),
            protocol: request.protocol.as_str(),
            text: text::block(shown.visible_text.as_deref().unwrap_or_default(), most),
            effects: command
                .map(|command| command.effects.as_slice())
                .unwrap_or_default()
                .iter()
                .take(100)
                .map(|effect| {
                    let object = effect.object.as_ref().map(ToString::to_string);
                    (text::line(&effect.action), text::line(&object.unwrap_or_default()))
                })
                .collect(),
            parameters: command
                .and_then(|command| command.attributes.get("parameters"))
                .map(|parameters| text::block(&parameters.to_string(), most))
                .unwrap_or_default(),
            exact: request.exact.clone().unwrap_or_default(),
            cautions: request.cautions.iter().map(|caution| text::line(caution)).collect(),
            reason: optional(&request.reason),
            comment: text::block(request.comment.as_deref().unwrap_or_default(), most),
            access_for: request
                .seconds
                .map(|seconds| text::duration(seconds.saturating_mul(1_000_000)))
                .unwrap_or_default(),
            needs: request
                .needs
                .iter()
                .map(|need| {
                    let groups = text::line(&need.approvers.join(", "));
                    let rule = text::line(&need.rule);
                    format!("{} of {groups} (rule {rule})", need.approvals)
                })
                .collect(),
            votes: request
                .votes
                .iter()
                .map(|vote| {
                    let said = match vote.verdict {
                        VoteVerdict::Approve => "approved",
                        VoteVerdict::Deny => "denied",
                    };
                    let why =
                        vote.comment.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
                    let at = text::time(vote.at);
                    text::line(&format!("{} {said} it at {at}{why}", vote.username))
                })
                .collect(),
            created: text::time(request.created_at),
            left: if pending && left > 0 { text::duration(left) } else { String::new() },
            decided: request.decided_at.map(text::time).unwrap_or_default(),
            note: optional(&request.note),
            workflow: optional(&request.workflow),
            run: optional(&request.run),
            command_link: session
                .as_ref()
                .zip(request.sequence)
                .map(|(session, sequence)| format!("/sessions/{session}?command={sequence}")),
        }
    }
}

fn wanted(state: Option<RequestState>, limit: u32) -> OfState {
    OfState { state, wanted: Wanted { limit: Some(limit), cursor: None } }
}

async fn list(State(api): State<Arc<Api>>, visitor: Visitor) -> Result<Response, Turned> {
    let caller = &visitor.caller;
    let since = mark_of_people(&api);
    let pending = || wanted(Some(RequestState::Pending), WAITING);
    let mut waiting = Vec::new();
    let mut decided = Vec::new();
    for kind in [RequestKind::Command, RequestKind::Access] {
        let page = list_of(&api, caller, kind, pending()).await?;
        waiting.push(page.0.items.iter().map(|shown| Asking::of(shown, IN_LIST)).collect());
        let page = list_of(&api, caller, kind, wanted(None, LATELY)).await?;
        let over = page.0.items.iter().filter(|s| s.request.state != RequestState::Pending);
        decided.extend(over.map(|shown| Asking::of(shown, IN_LIST)));
    }
    decided.sort_by(|a, b| b.created.cmp(&a.created));
    let access = waiting.pop().unwrap_or_default();
    let commands = waiting.pop().unwrap_or_default();
    let frame = Frame::of(&api, &visitor, "approvals", "Approvals");
    page(&ApprovalsPage { frame, since, commands, access, decided }).map_err(Into::into)
}

async fn show_command(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    id: Named,
) -> Result<Response, Turned> {
    show(&api, &visitor, RequestKind::Command, id).await
}

async fn show_access(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    id: Named,
) -> Result<Response, Turned> {
    show(&api, &visitor, RequestKind::Access, id).await
}

async fn show(
    api: &Api,
    visitor: &Visitor,
    kind: RequestKind,
    id: Named,
) -> Result<Response, Turned> {
    let since = mark_of_people(api);
    let shown = show_one(api, &visitor.caller, kind, id).await?;
    let asking = Asking::of(&shown.0, WHOLE);
    let title = match asking.is_access {
        true => format!("{} asks for {}", asking.user, asking.target),
        false => format!("{} on {}", asking.user, asking.target),
    };
    let frame = Frame::of(api, visitor, "approvals", title);
    page(&ApprovalPage { frame, since, asking }).map_err(Into::into)
}

async fn decide_command(
    State(api): State<Arc<Api>>,
    id: Named,
    posted: Posted,
) -> Result<Response, Turned> {
    decided(&api, RequestKind::Command, id, posted).await
}

async fn decide_access(
    State(api): State<Arc<Api>>,
    id: Named,
    posted: Posted,
) -> Result<Response, Turned> {
    decided(&api, RequestKind::Access, id, posted).await
}

async fn decided(
    api: &Api,
    kind: RequestKind,
    id: Named,
    posted: Posted,
) -> Result<Response, Turned> {
    let verdict = match posted.field("decision") {
        Some("approve") => VoteVerdict::Approve,
        Some("deny") => VoteVerdict::Deny,
        _ => return Err(Problem::bad("decision: approve or deny").into()),
    };
    let field = |name| posted.field(name).map(str::to_owned);
    let said = Said { comment: field("comment"), exact: field("exact") };
    let shown = decide(api, &posted.visitor.caller, kind, id, verdict, said).await?;
    Ok(Redirect::to(&Asking::of(&shown.0, 0).link).into_response())
}
