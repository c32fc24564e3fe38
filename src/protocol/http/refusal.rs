//! What a client is told when the gateway answers itself: problem documents (RFC 9457).
//!
//! The texts are an allow-list: nothing of what the gateway knows of targets, tokens or itself
//! gets into them but what stands here.

use bytes::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use serde_json::json;

use super::held;
use crate::decode::http::Refused;
use crate::gate::Status;
use crate::names::{SessionId, TargetName};
use crate::policy::{Decision, Verdict};

/// When a client that does not wait looks again, in seconds.
const RETRY_AFTER: &str = "5";

/// Why a request is not passed on, or its answer not passed back.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The request is malformed, or could be read in two ways.
    Malformed(Refused),
    /// No token that counts: another one would help.
    Denied,
    /// The token counts, and there is no such target or no access: both the same to the client.
    Forbidden,
    /// A token came without TLS from beyond loopback.
    TlsRequired,
    /// There is no room.
    Busy,
    /// It cannot be recorded.
    NotRecorded,
    /// Policy says no.
    Blocked { decision: Box<Decision>, session: SessionId },
    /// It waited for people, and does not run.
    NotReleased { why: String, session: SessionId },
    /// People are not asked, because too many requests wait for them.
    TooMany { why: String, session: SessionId },
    /// It waits for people, and its client does not: it asks again.
    Waits(Box<Status>),
    /// Nobody asked for that, or somebody else did.
    NoRequest,
    /// What only the database knows cannot be told.
    Unknown,
    /// People have to grant the access first; this is where.
    AccessAsked(String),
    /// The target was not reached.
    Unreachable(TargetName),
    /// The target's answer cannot be passed on.
    BadAnswer { target: TargetName, what: &'static str },
    /// The session's or the token's time is over, or the access is gone.
    Ended,
}

impl Refusal {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(refused) => {
                StatusCode::from_u16(refused.status).unwrap_or(StatusCode::BAD_REQUEST)
            }
            Self::Denied => StatusCode::UNAUTHORIZED,
            Self::Waits(_) => StatusCode::ACCEPTED,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::NoRequest => StatusCode::NOT_FOUND,
            Self::TlsRequired
            | Self::Forbidden
            | Self::Blocked { .. }
            | Self::NotReleased { .. }
            | Self::AccessAsked(_) => StatusCode::FORBIDDEN,
            Self::Busy | Self::NotRecorded | Self::Unknown | Self::Ended => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Unreachable(_) | Self::BadAnswer { .. } => StatusCode::BAD_GATEWAY,
        }
    }

    /// A word for it, for the recording.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Denied | Self::Forbidden | Self::TlsRequired => "denied",
            Self::Busy => "busy",
            Self::NotRecorded => "not-recorded",
            Self::Blocked { .. } => "blocked",
            Self::NotReleased { .. } => "not-approved",
            Self::TooMany { .. } => "too-many",
            Self::Waits(_) => "waits",
            Self::NoRequest => "no-request",
            Self::Unknown => "unknown",
            Self::AccessAsked(_) => "access-asked",
            Self::Unreachable(_) => "unreachable",
            Self::BadAnswer { .. } => "bad-answer",
            Self::Ended => "ended",
        }
    }

    /// What is wrong, in one line.
    pub(super) fn detail(&self) -> String {
        match self {
            Self::Malformed(refused) => refused.to_string(),
            Self::Denied => "a token is needed that gives access to the target; it goes into \
                             Authorization: Bearer, or into X-Portcullis-Token"
                .to_owned(),
            Self::Forbidden => "the token gives no access to such a target".to_owned(),
            Self::TlsRequired => "tokens are taken over TLS only".to_owned(),
            Self::Busy => "there is no room for another session now; try again later".to_owned(),
            Self::NotRecorded => "the request cannot be recorded, so it does not run".to_owned(),
            Self::Blocked { decision, .. } => {
                let what = match decision.verdict() {
                    Verdict::Approve => "the request needs an approval that it does not have",
                    Verdict::Allow | Verdict::Block => "the request is blocked",
                };
                let reason = decision.reason().map(|reason| format!(": {reason}"));
                format!("{what}{}", reason.unwrap_or_default())
            }
            Self::NotReleased { why, .. } | Self::TooMany { why, .. } => {
                format!("the request does not run: {why}")
            }
            Self::Waits(status) => {
                format!(
                    "the request waits for approval and runs when it is sent again: {}",
                    status.link
                )
            }
            Self::NoRequest => "there is no such request of yours".to_owned(),
            Self::Unknown => {
                "the gateway's database is needed for this and not reached now; try again later"
                    .to_owned()
            }
            Self::AccessAsked(link) => {
                format!("access needs an approval, which was asked for: {link}")
            }
            Self::Unreachable(target) => format!(
                "the target {target} was not reached; the gateway's operator finds why in its log"
            ),
            Self::BadAnswer { target, what } => {
                format!("the answer of the target {target} cannot be passed on: {what}")
            }
            Self::Ended => "the session ended".to_owned(),
        }
    }

    /// The document.
    pub(super) fn body(&self) -> Bytes {
        if let Self::Waits(status) = self {
            return document(status);
        }
        let status = self.status();
        let mut problem = json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or_default(),
            "status": status.as_u16(),
            "detail": self.detail(),
        });
        if let (Self::Blocked { decision, session }, Some(problem)) =
            (self, problem.as_object_mut())
        {
            let rules = decision.rules();
            problem.insert("verdict".to_owned(), decision.verdict().to_string().into());
            problem.insert("rule".to_owned(), json!(rules.first()));
            problem.insert("rules".to_owned(), json!(rules));
            problem.insert("reason".to_owned(), json!(decision.reason()));
            problem.insert("session".to_owned(), session.to_string().into());
        }
        if let (Self::NotReleased { session, .. } | Self::TooMany { session, .. }, Some(problem)) =
            (self, problem.as_object_mut())
        {
            problem.insert("session".to_owned(), session.to_string().into());
        }
        let mut text = problem.to_string();
        text.push('\n');
        Bytes::from(text)
    }

    /// The head's fields, but for the length.
    pub(super) fn headers(&self) -> HeaderMap {
        if let Self::Waits(status) = self {
            let mut headers = status_headers(status);
            headers.insert("preference-applied", HeaderValue::from_static("respond-async"));
            if let Ok(place) = HeaderValue::try_from(held::place(status.id)) {
                headers.insert(header::LOCATION, place);
            }
            return headers;
        }
        let mut headers = HeaderMap::new();
        let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
        set(header::CONTENT_TYPE, "application/problem+json");
        set(header::CACHE_CONTROL, "no-store");
        set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        match self.status() {
            StatusCode::UNAUTHORIZED => {
                set(header::WWW_AUTHENTICATE, "Bearer realm=\"portcullis\"");
            }
            StatusCode::TOO_MANY_REQUESTS => {
                set(header::RETRY_AFTER, RETRY_AFTER);
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                set(header::ALLOW, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
            }
            _ => {}
        }
        headers
    }
}

/// How a request stands, for its client.
pub(super) fn document(status: &Status) -> Bytes {
    let mut text = serde_json::to_string(status).unwrap_or_default();
    text.push('\n');
    Bytes::from(text)
}

/// The head's fields with that.
pub(super) fn status_headers(status: &Status) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_TYPE, "application/json");
    set(header::CACHE_CONTROL, "no-store");
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    if status.is_pending() {
        set(header::RETRY_AFTER, RETRY_AFTER);
    }
    headers
}
