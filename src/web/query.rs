//! What a question says behind its `?`.

use std::collections::BTreeMap;

use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::header;
use axum::http::request::Parts;
use serde_json::Value;

use super::problem::Problem;
use crate::database::{Filter, RequestState, Wanted};

/// A filter and which page of what it finds.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) filter: Filter,
    pub(super) wanted: Wanted,
    /// As it was put, for the audit log.
    pub(super) said: BTreeMap<String, Value>,
}

impl<S: Send + Sync> FromRequestParts<S> for Ask {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let pairs: Query<Vec<(String, String)>> =
            Query::try_from_uri(&parts.uri).map_err(|error| Problem::bad(error.body_text()))?;
        Self::of(pairs.0)
    }
}

impl Ask {
    pub(super) fn of(pairs: Vec<(String, String)>) -> Result<Self, Problem> {
        let mut said = BTreeMap::new();
        for (key, value) in pairs {
            if said.insert(key.clone(), Value::String(value)).is_some() {
                return Err(Problem::bad(format!("{key:?} is given twice")));
            }
        }
        let mut rest = said.clone();
        let mut text = |key| match rest.remove(key) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let (limit, cursor) = (text("limit"), text("cursor"));
        let limit = limit.map(|text| text.parse()).transpose();
        let limit = limit.map_err(|_| Problem::bad("limit: 1 to 1000 rows"))?;
        let filter = serde_json::from_value(rest.into_iter().collect::<Value>())
            .map_err(|error| Problem::bad(error.to_string()))?;
        Ok(Self { filter, wanted: Wanted { limit, cursor }, said })
    }
}

/// Which page, and nothing else.
#[derive(Debug)]
pub(super) struct Pages(pub(super) Wanted);

impl<S: Send + Sync> FromRequestParts<S> for Pages {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let asked = OfState::from_request_parts(parts, state).await?;
        match asked.state {
            Some(_) => Err(Problem::bad("unknown field `state`")),
            None => Ok(Self(asked.wanted)),
        }
    }
}

/// Which page of requests in which state.
#[derive(Debug)]
pub(super) struct OfState {
    pub(super) state: Option<RequestState>,
    pub(super) wanted: Wanted,
}

impl<S: Send + Sync> FromRequestParts<S> for OfState {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Asked {
            state: Option<RequestState>,
            limit: Option<u32>,
            cursor: Option<String>,
        }
        let asked: Query<Asked> =
            Query::try_from_uri(&parts.uri).map_err(|error| Problem::bad(error.body_text()))?;
        let Asked { state, limit, cursor } = asked.0;
        Ok(Self { state, wanted: Wanted { limit, cursor } })
    }
}

/// The largest body of a request, in bytes: some fields and a comment.
const MAX_BODY: usize = 16 << 10;

/// A request's body: a JSON object; an empty one is one without fields.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<S, T> FromRequest<S> for Body<T>
where
    S: Send + Sync,
    T: serde::de::DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let json = request.headers().get(header::CONTENT_TYPE).is_none_or(|kind| {
            let kind = kind.to_str().unwrap_or_default();
            kind.split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .eq_ignore_ascii_case("application/json")
        });
        // A form on another site's page can send texts, but not this type.
        if !json {
            return Err(Problem::bad("the body is application/json"));
        }
        let body = axum::body::to_bytes(request.into_body(), MAX_BODY).await;
        let body = body.map_err(|_| Problem::bad("the body is too large, or broke off"))?;
        let body: &[u8] = if body.is_empty() { b"{}" } else { &body };
        let read = serde_json::from_slice(body);
        read.map(Self).map_err(|error| Problem::bad(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Verdict;

    fn ask(pairs: &[(&str, &str)]) -> Result<Ask, Problem> {
        Ask::of(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn a_question_is_taken_whole_or_refused_with_the_reason() {
        let asked = ask(&[
            ("user", "crew-7"),
            ("verdict", "block"),
            ("from", "2026-11-20T10:00:00Z"),
            ("limit", "5"),
            ("cursor", "x"),
        ])
        .unwrap();
        assert_eq!(asked.filter.user.as_deref(), Some("crew-7"));
        assert_eq!(asked.filter.verdict, Some(Verdict::Block));
        assert_eq!(asked.wanted, Wanted { limit: Some(5), cursor: Some("x".to_owned()) });
        for (pairs, reason) in [
            (&[("limit", "-1")][..], "limit"),
            (&[("limit", "99999999999999999999")], "limit"),
            (&[("from", "yesterday")], "2026-11-20T10:00:00Z"),
            (&[("verdict", "maybe")], "maybe"),
            (&[("protocol", "gopher")], "gopher"),
            (&[("usr", "a")], "usr"),
            (&[("user", "a"), ("user", "b")], "twice"),
        ] {
            let problem = serde_json::to_string(&ask(pairs).unwrap_err()).unwrap();
            assert!(problem.contains(reason), "{problem}");
        }
    }
}
