//! The pages, for people: made here of what the API's own functions give, so that rights and the
//! audit log are the same. Everything in them is in the binary; nothing comes from elsewhere, and
//! no script or style stands within a page.
//!
//! What was recorded is foreign. It is written as text by the templates, which escape, after
//! `text` has made visible what would hide or mislead.

mod approvals;
mod asked;
mod assets;
mod audit;
mod changes;
mod detail;
mod drafts;
mod export;
mod holding;
mod live;
mod login;
mod overview;
mod policy;
mod proof;
mod run;
mod session;
mod sessions;
mod targets;
mod text;
mod visitor;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{Html, IntoResponse, Response};

use super::api::Api;
use super::caller::Caller;
use super::problem::Problem;
use super::starting;
pub use export::html;
pub use targets::Doors;
use visitor::Visitor;

/// What a page may load and where it may send: this gateway alone, and no frame shows it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The API with the pages over it, for browsers.
pub fn over(api: &Arc<Api>, router: Router) -> Router {
    let pages = Router::new()
        .merge(login::routes())
        .merge(sessions::routes())
        .merge(session::routes())
        .merge(run::routes())
        .merge(overview::routes())
        .merge(live::routes())
        .merge(approvals::routes())
        .merge(targets::routes())
        .merge(policy::routes())
        .merge(drafts::routes())
        .merge(holding::routes())
        .merge(audit::routes())
        .merge(changes::routes());
    let pages = starting::waiting(pages, &api.starting, |problem| Failed(problem).into_response());
    let pages = pages.merge(assets::routes()).with_state(Arc::clone(api));
    router.merge(pages).layer(from_fn(guard))
}

/// Says on every answer what a browser may do with it.
async fn guard(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // What was recorded stays in no cache.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// What stands around every page.
#[derive(Debug)]
struct Frame {
    /// The page's title.
    title: String,
    /// The section it is in, as the navigation knows it.
    section: &'static str,
    /// Who is logged in.
    user: Option<User>,
}

/// Who is logged in, as pages need it.
#[derive(Debug)]
struct User {
    name: String,
    reads: bool,
    admin: bool,
    /// What this login's forms carry.
    proof: String,
}

impl Frame {
    fn of(api: &Api, visitor: &Visitor, section: &'static str, title: impl Into<String>) -> Self {
        let caller = &visitor.caller;
        let user = User {
            name: text::line(&caller.username()),
            reads: caller.may_read(api.roles()),
            admin: caller.is_admin(api.roles()),
            proof: visitor.proof(),
        };
        Self { title: title.into(), section, user: Some(user) }
    }

    /// Of a page that everybody may see.
    fn for_nobody(title: impl Into<String>) -> Self {
        Self { title: title.into(), section: "", user: None }
    }

    fn reads(&self) -> bool {
        self.user.as_ref().is_some_and(|user| user.reads)
    }

    fn is_admin(&self) -> bool {
        self.user.as_ref().is_some_and(|user| user.admin)
    }

    fn proof(&self) -> &str {
        self.user.as_ref().map(|user| user.proof.as_str()).unwrap_or_default()
    }
}

/// A page, or why there is none.
type Shown = Result<Response, Failed>;

fn page(template: &impl Template) -> Shown {
    match template.render() {
        Ok(html) => Ok(Html(html).into_response()),
        Err(error) => {
            tracing::error!(%error, "page not made");
            Err(Problem::internal().into())
        }
    }
}

/// Why there is no page; a page of its own.
#[derive(Debug)]
struct Failed(Problem);

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

#[derive(Template)]
#[template(path = "failed.html")]
struct FailedPage {
    frame: Frame,
    detail: String,
    /// Whether there is no such thing, or not for who asked.
    missing: bool,
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let (status, title, detail) = self.0.told();
        let mut frame = Frame::for_nobody(title);
        frame.section = "failed";
        let missing = status == StatusCode::NOT_FOUND && detail.is_none();
        let detail = text::line(detail.unwrap_or_default());
        let shown = FailedPage { frame, detail, missing };
        match shown.render() {
            Ok(html) => (status, Html(html)).into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}

/// Whether somebody may read what was recorded; a refusal is in the audit log.
async fn reader(api: &Api, caller: &Caller, path: &str) -> Result<(), Failed> {
    if caller.may_read(api.roles()) {
        return Ok(());
    }
    api.refused(caller, path).await;
    Err(Problem::no_right().into())
}

/// A verdict as classes of the style sheet and people name it.
fn word(verdict: crate::policy::Verdict) -> &'static str {
    use crate::policy::Verdict::{Allow, Approve, Block};
    match verdict {
        Allow => "allow",
        Approve => "approve",
        Block => "block",
    }
}
