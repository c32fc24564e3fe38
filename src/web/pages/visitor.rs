//! Who opened a page or sent a form.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Form;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::Method;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Redirect, Response};

use super::Failed;
use crate::identity::browser::{form_token, is_form_token};
use crate::percent::encoded;
use crate::secret::Secret;
use crate::web::api::Api;
use crate::web::caller::Caller;
use crate::web::problem::Problem;

/// The largest form: some fields and a comment, percent-encoded.
const MAX_FORM: usize = 64 << 10;
/// The field that every form carries.
const PROOF: &str = "proof";

/// Somebody who is logged in.
#[derive(Debug)]
pub(super) struct Visitor {
    pub(super) caller: Caller,
    secret: Secret,
}

impl Visitor {
    /// What the forms of this login's pages carry.
    pub(super) fn proof(&self) -> String {
        form_token(&self.secret)
    }

    /// The login's secret, to end it.
    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Who is logged in; none when nobody is.
    pub(super) async fn of(parts: &Parts, api: &Api) -> Result<Option<Self>, Problem> {
        let found = Caller::logged_in(parts, api).await?;
        Ok(found.map(|(caller, secret)| Self { caller, secret }))
    }
}

/// Why somebody does not see what was asked for.
#[derive(Debug)]
pub(super) enum Turned {
    /// A login comes first, then this place.
    ToLogin(String),
    /// It failed.
    Failed(Failed),
}

impl From<Failed> for Turned {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

impl From<Problem> for Turned {
    fn from(problem: Problem) -> Self {
        Self::Failed(problem.into())
    }
}

impl IntoResponse for Turned {
    fn into_response(self) -> Response {
        match self {
            Self::ToLogin(to) => {
                Redirect::to(&format!("/login?to={}", encoded(&to))).into_response()
            }
            Self::Failed(failed) => failed.into_response(),
        }
    }
}

impl FromRequestParts<Arc<Api>> for Visitor {
    type Rejection = Turned;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Turned> {
        let to = match parts.method {
            Method::GET => parts.uri.path_and_query().map_or("/", |place| place.as_str()),
            _ => "/",
        };
        Self::of(parts, api).await?.ok_or_else(|| Turned::ToLogin(to.to_owned()))
    }
}

/// A form that one of this login's own pages sent.
#[derive(Debug)]
pub(super) struct Posted {
    pub(super) visitor: Visitor,
    fields: BTreeMap<String, String>,
}

impl Posted {
    /// A field that is there and not empty.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl FromRequest<Arc<Api>> for Posted {
    type Rejection = Turned;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Turned> {
        let (mut parts, body) = request.into_parts();
        let visitor = Visitor::from_request_parts(&mut parts, api).await?;
        // Browsers say where a form came from; those that do not have the proof alone.
        let site = parts.headers.get("sec-fetch-site").map(|value| value.as_bytes().to_vec());
        let body = axum::body::to_bytes(body, MAX_FORM).await;
        let body = body.map_err(|_| Problem::bad("the form is too large, or broke off"))?;
        let request = Request::from_parts(parts, axum::body::Body::from(body));
        let form = Form::<Vec<(String, String)>>::from_request(request, api).await;
        let Form(pairs) = form.map_err(|error| Problem::bad(error.body_text()))?;
        let fields: BTreeMap<_, _> = pairs.into_iter().collect();
        let proved = fields.get(PROOF).is_some_and(|given| is_form_token(&visitor.secret, given));
        if !proved || site.is_some_and(|site| site != b"same-origin") {
            tracing::warn!(username = visitor.caller.username(), "form of another page refused");
            return Err(Problem::forbidden("the form is not of this login; go back, reload").into());
        }
        Ok(Self { visitor, fields })
    }
}
