//! Requests that wait for people: seeing them and deciding them. Deciding is a POST with the
//! token of who decides, so a link that is followed, or fetched ahead by a mail program, decides
//! nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::api::{Answer, Api, Named, named};
use super::caller::{Caller, Person};
use super::problem::Problem;
use super::query::{Body, OfState};
use crate::approval::visible;
use crate::database::{
    Answer as Word, DecideError, Page, Request, RequestKind, VoteVerdict, Voter,
};
use crate::identity::Identity;
use crate::names::RequestId;

/// The longest comment, in bytes.
const MAX_COMMENT: usize = 2000;

pub(super) fn routes() -> Router<Arc<Api>> {
    deciding("/api/v1/approvals", RequestKind::Command)
}

/// Requests of a kind, below a path: list, show, approve, deny.
pub(super) fn deciding(path: &str, kind: RequestKind) -> Router<Arc<Api>> {
    let list = async move |State(api): State<Arc<Api>>, Person(caller): Person, asked: OfState| {
        list_of(&api, &caller, kind, asked).await
    };
    let show = async move |State(api): State<Arc<Api>>, Person(caller): Person, id: Named| {
        show_one(&api, &caller, kind, id).await
    };
    let say = |verdict| {
        post(
            async move |State(api): State<Arc<Api>>,
                        Person(caller): Person,
                        id: Named,
                        Body(said): Body<Said>| {
                decide(&api, &caller, kind, id, verdict, said).await
            },
        )
    };
    Router::new()
        .route(path, get(list))
        .route(&format!("{path}/{{id}}"), get(show))
        .route(&format!("{path}/{{id}}/approve"), say(VoteVerdict::Approve))
        .route(&format!("{path}/{{id}}/deny"), say(VoteVerdict::Deny))
}

/// A request as its reader must see it.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    #[serde(flatten)]
    pub(super) request: Request,
    /// The command's text with everything written out that would be hidden or mislead.
    pub(super) visible_text: Option<String>,
    /// Whether the caller may decide it now.
    pub(super) yours_to_decide: bool,
    /// Where people decide it.
    link: String,
}

/// What is said with a decision.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Said {
    pub(super) comment: Option<String>,
    /// The request's `exact`, as who decides saw it: it counts for those bytes alone.
    pub(super) exact: Option<String>,
}

/// Those that the caller made or may decide; all for those who may read everything.
pub(super) async fn list_of(
    api: &Api,
    caller: &Caller,
    kind: RequestKind,
    asked: OfState,
) -> Answer<Page<Shown>> {
    let voter = voter(caller);
    let person = voter.as_ref().filter(|_| !caller.may_read(api.roles()));
    let page = api.database.requests(kind, asked.state, person, &asked.wanted).await?;
    api.shown(caller, action(kind, "list"), None, BTreeMap::new()).await?;
    let items = page.items.into_iter().map(|request| shown(api, caller, request)).collect();
    Ok(Json(Page { items, next: page.next }))
}

pub(super) async fn show_one(
    api: &Api,
    caller: &Caller,
    kind: RequestKind,
    id: Named,
) -> Answer<Shown> {
    let id: RequestId = named(id)?;
    let request = api.database.request(id).await?.filter(|request| request.kind == kind);
    let request = request.filter(|request| concerns(api, caller, request));
    let request = request.ok_or_else(Problem::not_found)?;
    api.done(caller, action(kind, "show"), Some(id.to_string()), BTreeMap::new()).await?;
    Ok(Json(shown(api, caller, request)))
}

/// Takes the caller's word.
pub(super) async fn decide(
    api: &Api,
    caller: &Caller,
    kind: RequestKind,
    id: Named,
    verdict: VoteVerdict,
    said: Said,
) -> Answer<Shown> {
    let id: RequestId = named(id)?;
    let did = match verdict {
        VoteVerdict::Approve => "approve",
        VoteVerdict::Deny => "deny",
    };
    let did = action(kind, did);
    let Some(voter) = voter(caller) else {
        let why = "nobody is proved to decide here: use --server, with a login";
        api.tried(caller, did, id.to_string(), why).await;
        return Err(Problem::forbidden(why));
    };
    let comment = said.comment.filter(|comment| !comment.is_empty());
    if comment.as_ref().is_some_and(|comment| comment.len() > MAX_COMMENT) {
        return Err(Problem::bad(format!("comment: at most {MAX_COMMENT} bytes")));
    }
    let detail = BTreeMap::from([("comment".to_owned(), Value::from(comment.clone()))]);
    let word = Word { verdict, comment, exact: said.exact };
    let decided = match api.database.decide(id, kind, &voter, &word).await {
        Ok(decided) => decided,
        Err(DecideError::Database(error)) => return Err(error.into()),
        Err(DecideError::NotFound) => return Err(Problem::not_found()),
        Err(refused) => {
            let why = refused.to_string();
            api.tried(caller, did, id.to_string(), &why).await;
            return Err(match refused {
                // Who may not even see it learns nothing of it.
                DecideError::NotAnApprover => match api.database.request(id).await? {
                    Some(request) if concerns(api, caller, &request) => Problem::forbidden(why),
                    _ => Problem::not_found(),
                },
                DecideError::Requester => Problem::forbidden(why),
                _ => Problem::conflict(why),
            });
        }
    };
    // The word counts once it is kept, with who said it; the audit log says it again.
    if let Err(error) = api.database.audit(&api.entry(caller, did, id.to_string(), detail)).await {
        tracing::warn!(request = %id, %error, "a decision is not in the audit log");
    }
    api.catalog.desk().wake();
    let (request, by) = (id.to_string(), &voter.username);
    tracing::info!(request, by, did, state = decided.request.state.as_str(), "request decided");
    Ok(Json(shown(api, caller, decided.request)))
}

fn action(kind: RequestKind, what: &str) -> &'static str {
    match (kind, what) {
        (RequestKind::Command, "list") => "approval.list",
        (RequestKind::Command, "show") => "approval.show",
        (RequestKind::Command, "approve") => "approval.approve",
        (RequestKind::Command, _) => "approval.deny",
        (RequestKind::Access, "list") => "access.list",
        (RequestKind::Access, "show") => "access.show",
        (RequestKind::Access, "approve") => "access.approve",
        (RequestKind::Access, _) => "access.deny",
    }
}

/// Whether a caller may see a request: who made it, who may decide it, who may read everything.
fn concerns(api: &Api, caller: &Caller, request: &Request) -> bool {
    caller.may_read(api.roles())
        || caller.key() == Some((request.issuer.as_str(), request.subject.as_str()))
        || names(caller, request)
}

fn names(caller: &Caller, request: &Request) -> bool {
    let groups = caller.identity().map(Identity::groups).unwrap_or_default();
    request.needs.iter().any(|need| need.names(groups))
}

pub(super) fn shown(api: &Api, caller: &Caller, request: Request) -> Shown {
    let pending = request.state == crate::database::RequestState::Pending;
    let own = caller.key() == Some((request.issuer.as_str(), request.subject.as_str()));
    let voted = request
        .votes
        .iter()
        .any(|vote| caller.key() == Some((vote.issuer.as_str(), vote.subject.as_str())));
    let desk = api.catalog.desk();
    Shown {
        visible_text: request.command.as_ref().map(|command| visible(&command.text).text),
        yours_to_decide: pending && !own && !voted && names(caller, &request),
        link: match request.kind {
            RequestKind::Command => desk.link(request.id),
            RequestKind::Access => desk.access_link(request.id),
        },
        request,
    }
}

fn voter(caller: &Caller) -> Option<Voter> {
    let identity = caller.identity()?;
    Some(Voter {
        issuer: identity.issuer().to_owned(),
        subject: identity.subject().to_owned(),
        username: identity.username().to_owned(),
        email: identity.email().map(str::to_owned),
        groups: identity.groups().to_vec(),
    })
}
