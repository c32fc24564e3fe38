//! What a client is told when the gateway answers itself: problem documents (RFC 9457).
//!
//! The texts are an allow-list: nothing of what the gateway knows of targets, tokens or itself
//! gets into them but what stands here.

use bytes::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use super::approval_wait;
use crate::decode::http::Refused;
use crate::decode::http::dialects::{self, Dialect};
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

/// The form in which a client is told.
#[derive(Debug)]
pub(super) struct Form {
    /// What it speaks, once its target is known.
    pub(super) dialect: &'static dyn Dialect,
    /// What its request has to be answered with, once that is read.
    pub(super) reply_to: Value,
}

impl Default for Form {
    fn default() -> Self {
        Self { dialect: dialects::plain(), reply_to: Value::Null }
    }
}

impl Refusal {
    fn status(&self) -> StatusCode {
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

    /// The gateway's own answer, in the form that the client understands.
    pub(super) fn answer(&self, form: &Form) -> Response<Bytes> {
        let written = self.in_dialect(form);
        let (status, body) = match &written {
            Some(answer) => {
                let status = StatusCode::from_u16(answer.status).unwrap_or_else(|_| self.status());
                (status, Bytes::copy_from_slice(&answer.body))
            }
            None => (self.status(), self.body()),
        };
        let mut headers = self.headers();
        if let Some(answer) = &written {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
        }
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }

    /// What waits is told to clients that asked for that, in every dialect alike.
    fn in_dialect(&self, form: &Form) -> Option<dialects::Answer> {
        if let Self::Waits(_) = self {
            return None;
        }
        let (rules, session) = match self {
            Self::Blocked { decision, session } => {
                (decision.rules().iter().map(|rule| &**rule).collect(), Some(*session))
            }
            Self::NotReleased { session, .. } | Self::TooMany { session, .. } => {
                (Vec::new(), Some(*session))
            }
            _ => (Vec::new(), None),
        };
        form.dialect.refusal(&dialects::Refusal {
            status: self.status().as_u16(),
            word: self.word(),
            detail: &self.detail(),
            rules,
            session,
            reply_to: &form.reply_to,
        })
    }

    /// The document.
    fn body(&self) -> Bytes {
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
    fn headers(&self) -> HeaderMap {
        if let Self::Waits(status) = self {
            let mut headers = status_headers(status);
            headers.insert("preference-applied", HeaderValue::from_static("respond-async"));
            if let Ok(place) = HeaderValue::try_from(approval_wait::place(status.id)) {
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

#[cfg(test)]
mod tests {
    use crate::config;
    use crate::config::TargetKind;
    use crate::decode::http::command::Request;
    use crate::decode::http::json;
    use crate::decode::http::path::Path;
    use crate::policy::{Caller, SessionFacts};

    use super::*;

    /// A target of a dialect that nothing but its own file knows.
    const POLICY: &str = "\
        [[issuer]]\nname = \"corp\"\nurl = \"https://login.example.com\"\naudiences = [\"gw\"]\n\
        [[target]]\nname = \"tools\"\nprotocol = \"http\"\nurl = \"http://127.0.0.1:1\"\n\
        kind = \"toy\"\n\
        [[rule]]\nname = \"no-erasing\"\nactions = [\"toy.call\"]\nobjects = [\"toy:erase\"]\n\
        verdict = \"block\"\nreason = \"nothing is erased here\"\n";

    #[test]
    fn a_dialect_is_configured_decided_and_refused_in_its_own_words() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("portcullis.toml");
        std::fs::write(&file, POLICY).unwrap();
        let config = config::load(&file).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let of_the_rule = |warning: &&config::Mistake| warning.message.contains("toy");
        assert_eq!(config.warnings.iter().find(of_the_rule), None);
        let target = &config.targets[&"tools".parse().unwrap()];
        let TargetKind::Http(http) = &target.kind else { panic!("{target:?}") };

        let body = br#"{"id": 7, "method": "erase"}"#;
        let (path, json) = (Path::parse("/rpc").unwrap(), Some(json::parse(body).unwrap()));
        let meaning = http.kind.read(&Request {
            method: "POST",
            path: &path,
            query: None,
            fields: &[],
            destination: None,
            json,
            overrides: Vec::new(),
        });
        let meaning = meaning.unwrap();
        let caller = Caller::default();
        let policy = config.policy.for_caller(&caller, &target.facts(), &SessionFacts::default());
        let decision = Box::new(policy.decide(&meaning.command));
        let written = target.read_command(r#"POST /rpc {"id": 7, "method": "erase"}"#).unwrap();
        assert_eq!(policy.decide(&written).verdict(), Verdict::Block);
        let harmless = target.read_command(r#"POST /rpc {"method": "list"}"#).unwrap();
        assert_eq!(policy.decide(&harmless).verdict(), Verdict::Allow);

        let form = Form { dialect: http.kind, reply_to: meaning.reply_to };
        let refusal = Refusal::Blocked { decision, session: SessionId::generate() };
        let answer = refusal.answer(&form);
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/json");
        let told: Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(told["id"], 7);
        assert_eq!(told["error"]["data"]["rules"], json!(["no-erasing"]));
        // A dialect that has no form of its own gets a problem document.
        let answer = refusal.answer(&Form::default());
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    }
}
