//! Answers that say what is wrong: problem documents (RFC 9457).

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::database::{DatabaseError, QueryError};
use crate::recording::ReadError;

/// Why there is no answer. The texts are for whoever asked.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    #[serde(serialize_with = "code")]
    status: StatusCode,
    title: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

fn code<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    pub(super) fn bad(detail: impl Into<String>) -> Self {
        let title = "the question is wrong";
        Self { status: StatusCode::BAD_REQUEST, title, detail: Some(detail.into()) }
    }

    /// One and the same for every token that does not count, and for none.
    pub(super) fn unproved() -> Self {
        let title = "a token is needed that the gateway accepts";
        Self { status: StatusCode::UNAUTHORIZED, title, detail: None }
    }

    pub(super) fn needs_tls() -> Self {
        let title = "tokens are taken over TLS only";
        Self { status: StatusCode::FORBIDDEN, title, detail: None }
    }

    /// Given before anything is looked up: it tells nothing of what there is.
    pub(super) fn no_right() -> Self {
        let title = "none of the caller's groups has the right to this";
        Self { status: StatusCode::FORBIDDEN, title, detail: None }
    }

    /// Something that this caller may not do, and why.
    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        let title = "that is not for this caller to do";
        Self { status: StatusCode::FORBIDDEN, title, detail: Some(detail.into()) }
    }

    /// Something that cannot be done as things stand, and why.
    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        let title = "it cannot be done as things stand";
        Self { status: StatusCode::CONFLICT, title, detail: Some(detail.into()) }
    }

    /// Something that this caller did too often, and what the limit is.
    pub(super) fn too_often(detail: impl Into<String>) -> Self {
        let title = "that was asked for too often";
        Self { status: StatusCode::TOO_MANY_REQUESTS, title, detail: Some(detail.into()) }
    }

    /// Nobody could be logged in, and why, for who tried.
    pub(super) fn no_login(detail: impl Into<String>) -> Self {
        let title = "you are not logged in";
        Self { status: StatusCode::FORBIDDEN, title, detail: Some(detail.into()) }
    }

    /// Status, title and detail, for pages.
    pub(super) fn told(&self) -> (StatusCode, &'static str, Option<&str>) {
        (self.status, self.title, self.detail.as_deref())
    }

    pub(super) fn not_found() -> Self {
        Self { status: StatusCode::NOT_FOUND, title: "there is no such thing", detail: None }
    }

    pub(super) fn not_ended() -> Self {
        let title = "no gateway that answers has this session open";
        let detail = "one that is out of reach ends it when it is back".to_owned();
        Self { status: StatusCode::NOT_FOUND, title, detail: Some(detail) }
    }

    /// A recording that cannot be read on, and where.
    pub(super) fn damaged(detail: String) -> Self {
        let title = "the recording is damaged";
        Self { status: StatusCode::CONFLICT, title, detail: Some(detail) }
    }

    /// Something that a session has not, and why.
    pub(super) fn has_none(detail: String) -> Self {
        let title = "the session has no such thing";
        Self { status: StatusCode::CONFLICT, title, detail: Some(detail) }
    }

    /// As much as goes at once is being done already.
    pub(super) fn busy(detail: &str) -> Self {
        let title = "the gateway does this for somebody else now";
        Self { status: StatusCode::SERVICE_UNAVAILABLE, title, detail: Some(detail.to_owned()) }
    }

    /// The database was not found yet since the gateway started.
    pub(super) fn starting() -> Self {
        let title = "the gateway is starting";
        let detail = "its database does not answer yet: try again in a few seconds".to_owned();
        Self { status: StatusCode::SERVICE_UNAVAILABLE, title, detail: Some(detail) }
    }

    /// A target's catalog that could not be read.
    pub(super) fn no_catalog() -> Self {
        let title = "the target's catalog cannot be read now";
        let detail =
            "without `online` the rules alone are asked; the gateway's log says more".to_owned();
        Self { status: StatusCode::SERVICE_UNAVAILABLE, title, detail: Some(detail) }
    }

    /// A recording that this gateway has no key of.
    pub(super) fn locked(detail: String) -> Self {
        let title = "the recording is encrypted, and this gateway cannot open it";
        Self { status: StatusCode::CONFLICT, title, detail: Some(detail) }
    }

    /// Bytes that are not there; their length stands in a header.
    pub(super) fn outside() -> Self {
        let title = "there are no such bytes";
        Self { status: StatusCode::RANGE_NOT_SATISFIABLE, title, detail: None }
    }

    pub(super) fn wrong_method() -> Self {
        let title = "this cannot be done here";
        Self { status: StatusCode::METHOD_NOT_ALLOWED, title, detail: None }
    }

    pub(super) fn internal() -> Self {
        let title = "the gateway failed; its log says more";
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, title, detail: None }
    }
}

impl From<&ReadError> for Problem {
    /// Of a recording that cannot be read, or not to its end.
    fn from(error: &ReadError) -> Self {
        match error {
            ReadError::NoKey(locked) => Self::locked(locked.to_string()),
            error => Self::damaged(error.to_string()),
        }
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Bad(detail) => Self::bad(detail),
            QueryError::Database(error) => error.into(),
        }
    }
}

impl From<DatabaseError> for Problem {
    fn from(error: DatabaseError) -> Self {
        let (status, title) = match &error {
            DatabaseError::TooSlow => (
                StatusCode::SERVICE_UNAVAILABLE,
                "looking took too long; narrow it with from, to, target or user",
            ),
            DatabaseError::Refused(_) => {
                (StatusCode::BAD_REQUEST, "the database cannot look for one of the values")
            }
            _ => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the database cannot be asked now; sessions go on, and the gateway's log says more",
            ),
        };
        tracing::warn!(%error, "question not answered");
        Self { status, title, detail: None }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status;
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        let problem = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, problem);
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
