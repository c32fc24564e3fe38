//! A request that waits for people: on its connection, or, where the client prefers that (RFC 7240
//! section 4.1), as 202 with a place to look at and the same request again later.

use std::sync::Arc;

use hyper::{HeaderMap, Response};

use super::Connection;
use super::body::{self, Begun, Body, View};
use super::exchange::Exchange;
use super::refusal::{self, Refusal};
use super::request::Ask;
use super::service::malformed;
use crate::config::HttpTarget;
use crate::decode::http::Refused;
use crate::gate::{Again, NotReleased, Pending, Permitted};
use crate::names::RequestId;

/// The largest body of a request that waits for people, in bytes: it is kept until they decide.
const MAX_HELD_BODY: usize = 1 << 20;
/// Why a larger one does not wait.
const TOO_LARGE: &str = "its body is over 1 MiB, too large to wait for approval";

/// Where a client that does not wait sees how its request stands, on every host name of the
/// listener: no target's name begins with a dot.
pub(super) const OWN: &str = "/.portcullis";
const APPROVALS: &str = "/approvals/";

/// Fields by which one and the same request differs each time: the date, and the place in a trace
/// (W3C Trace Context).
const EACH_TIME: &[&str] = &["date", "traceparent", "tracestate"];

/// Waits for people, or asks them and does not wait. Gives what goes up; the body was kept.
pub(super) async fn released(
    exchange: &Arc<Exchange>,
    ask: &Ask,
    target: &HttpTarget,
    mut held: Pending,
    begun: &mut Begun,
    headers: &HeaderMap,
) -> Result<Permitted, Refusal> {
    let gate = exchange.session().gate();
    let not_released = |why: String| Refusal::NotReleased { why, session: gate.session() };
    let refused = |why: NotReleased| match why {
        NotReleased::TooMany(why) => Refusal::TooMany { why, session: gate.session() },
        why => not_released(why.to_string()),
    };
    let kept = begun.keep(MAX_HELD_BODY).await;
    if !kept.map_err(|error| Refusal::Malformed(malformed(&error)))? {
        return Err(not_released(TOO_LARGE.to_owned()));
    }
    show_body(exchange, target, &mut held, begun, headers);
    if asks_again(headers) && !ask.websocket {
        held.bind(&counted(ask, target, headers));
        held.caution("its client does not wait: it asks again, and the next one runs");
        return match gate.ask_again(held).await {
            Again::Released(permitted) => Ok(permitted),
            Again::Waits(status) => Err(Refusal::Waits(Box::new(status))),
            Again::Refused(why) => Err(refused(why)),
        };
    }
    let settled = match gate.ask_people(held, None, b"").await {
        Ok(hold) => {
            let closing = async {
                let _why = exchange.cut().await;
                NotReleased::Closing
            };
            hold.wait(closing, b"").await
        }
        Err(settled) => settled,
    };
    match settled {
        (permitted, None) => Ok(permitted),
        (_, Some(why)) => Err(refused(why)),
    }
}

/// Shows people the body, and has what they say count for it alone.
fn show_body(
    exchange: &Exchange,
    target: &HttpTarget,
    held: &mut Pending,
    begun: &Begun,
    headers: &HeaderMap,
) {
    let body = begun.kept();
    if let Some(trailers) = begun.kept_trailers() {
        held.bind(&digest(trailers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))));
        held.caution("its trailers are not shown; the hash covers them");
    }
    if body.is_empty() {
        return;
    }
    // What is not shown is bound all the same.
    held.bind(&blake3::hash(&body).to_hex());
    let masks = exchange.session().gate().masks();
    let seen = View::of(&masks, headers, &target.unmasked_types).of_next(&body, true);
    match seen.map(|seen| String::from_utf8(seen.into())) {
        Some(Ok(text)) => held.view_mut().text += &format!("\n\n{text}"),
        Some(Err(_)) => {
            let length = body.len();
            held.caution(format!("its body of {length} bytes is no text; the hash covers it"));
        }
        None => held.caution("its body cannot be shown masked; the hash covers it"),
    }
}

/// Whether the client would rather be told where to look than wait.
fn asks_again(headers: &HeaderMap) -> bool {
    let lines = headers.get_all("prefer").iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|preference| {
        let name = preference.split([';', '=']).next().unwrap_or_default();
        name.trim().eq_ignore_ascii_case("respond-async")
    })
}

/// What makes a request the same as an earlier one, beside who asks, the target and the body.
fn counted(ask: &Ask, target: &HttpTarget, headers: &HeaderMap) -> String {
    let (line, fields) = (ask.target(), ask.fields(headers, target, false));
    let line = [(ask.method.as_str(), line.as_bytes())];
    let counts = fields.iter().filter(|(name, _)| !EACH_TIME.contains(name));
    digest(line.into_iter().chain(counts.map(|(name, value)| (*name, &**value))))
}

/// A hash of names and values from which neither can be moved into the other.
fn digest<'a>(pairs: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in pairs.flat_map(|(name, value)| [name.as_bytes(), value]) {
        hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_hex().to_string()
}

impl Connection {
    /// Tells who asked how the request stands. Nothing of it goes to a target.
    pub(super) async fn status(&self, ask: &Ask, path: &str) -> Result<Response<Body>, Refusal> {
        let identity = self.prove(ask).await?;
        if ask.method != "GET" {
            let refused = Refused::bad("how a request stands is asked for with GET");
            return Err(Refusal::Malformed(refused));
        }
        let desk = self.context.gateway.catalog.desk();
        let denied = identity.withdrawn_by(desk.withdrawn().current().await);
        if let Some(by) = denied {
            self.note_refused(OWN, Some(&identity), &format!("it was withdrawn by {by}"));
            return Err(Refusal::Denied);
        }
        let id = path.strip_prefix(APPROVALS).and_then(|id| id.parse::<RequestId>().ok());
        let Some(id) = id else { return Err(Refusal::NoRequest) };
        let status = desk.status(&identity, id).await.map_err(|error| {
            tracing::warn!(%error, "how a request stands cannot be told");
            Refusal::Unknown
        })?;
        let status = status.ok_or(Refusal::NoRequest)?;
        let mut response = Response::new(body::full(refusal::document(&status)));
        *response.headers_mut() = refusal::status_headers(&status);
        Ok(response)
    }
}

/// Where a client asks how its request stands.
pub(super) fn place(id: RequestId) -> String {
    format!("{OWN}{APPROVALS}{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preference_is_found_among_others() {
        let prefers = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("prefer", hyper::header::HeaderValue::from_static(line));
            }
            asks_again(&headers)
        };
        assert!(prefers(&["respond-async"]));
        assert!(prefers(&["return=minimal", "wait=10, Respond-Async; foo=1"]));
        assert!(!prefers(&["respond-asynchronously", "wait=respond-async"]));
        assert!(!prefers(&[]));
    }

    #[test]
    fn names_and_values_stay_apart() {
        let one = |pairs: &[(&'static str, &'static str)]| {
            digest(pairs.iter().map(|(name, value)| (*name, value.as_bytes())))
        };
        assert_ne!(one(&[("a", "bc")]), one(&[("ab", "c")]));
        assert_ne!(one(&[("a", "b"), ("c", "d")]), one(&[("a", "bc"), ("", "d")]));
    }
}
