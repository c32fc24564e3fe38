//! Wire replay: a recording of HTTP answers an ordinary client, and no target is there.
//!
//! A request is answered as the recording has it: by method, path and query, and where it has a
//! body, by that. One that was made several times is answered in that order, and from then on as it was
//! the last time. What is not recorded gets a problem document that says so. Masked values are not
//! in the recording, so they stay masked.
//!
//! Limits: a WebSocket is not played back, and answers come as fast as they are read.

mod tape;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::block_in_place;

pub use tape::Tape;

use crate::decode::http::head::Head;
use crate::protocol::taped::Taped;
use crate::recording::{CommandError, Direction, Kind, Outcome, ReadError, Reader, Sequence};
use tape::{Body, Missing};

/// The largest body of a request that is looked at; one like it is never recorded whole.
const MAX_BODY: usize = 64 << 20;
/// The longest head of an answer.
const MAX_HEAD: usize = 256 << 10;
/// Different requests that are counted.
const MOST_ASKED: usize = 100_000;
/// Says of every answer which command of which session it is.
const SAYS: HeaderName = HeaderName::from_static("x-portcullis-replay");

type Played = UnsyncBoxBody<Bytes, Broken>;

/// Why an answer breaks off.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("it broke off when it was recorded")]
    Recorded,
}

/// A recording that answers requests; what was asked how often is one for all its connections.
#[derive(Debug)]
pub struct Player {
    tape: Tape,
    asked: Mutex<HashMap<(Box<str>, blake3::Hash), usize>>,
}

impl Player {
    /// Plays a tape.
    pub fn new(tape: Tape) -> Self {
        Self { tape, asked: Mutex::default() }
    }

    /// What it plays.
    pub fn tape(&self) -> &Tape {
        &self.tape
    }
}

/// Answers one client from a recording until it leaves.
pub async fn answer(tcp: TcpStream, player: Arc<Player>) {
    let service = service_fn(move |request| {
        let player = Arc::clone(&player);
        async move { Ok::<_, Infallible>(player.respond(request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(tcp), service)
        .await;
    if let Err(error) = serving {
        tracing::debug!(%error, "client of a replay gone");
    }
}

impl Player {
    async fn respond(&self, request: Request<Incoming>) -> Response<Played> {
        let (parts, body) = request.into_parts();
        // A page in a browser may reach this address by a name of its own (DNS rebinding).
        let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        if parts.headers.contains_key(header::ORIGIN) || !host.is_some_and(is_this_machine) {
            let told = "a replay answers programs on this machine, and no pages of browsers";
            return self.problem(StatusCode::FORBIDDEN, told);
        }
        let body = match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => {
                let told = "the body is too large, or broke off";
                return self.problem(StatusCode::PAYLOAD_TOO_LARGE, told);
            }
        };
        let whole = parts.uri.path_and_query().map_or("/", |place| place.as_str());
        let own = format!("/{}", self.tape.of.target);
        // As through the gateway, behind the target's name, or the target's own path.
        let short = whole.strip_prefix(&own).filter(|rest| rest.starts_with('/'));
        let hash = blake3::hash(&body);
        let wanted = Body::of(&body);
        let mut missing = Missing::Request;
        for place in [Some(whole), short].into_iter().flatten() {
            let line = format!("{} {place}", parts.method);
            let times = self.times(&line, hash);
            match self.tape.find(&line, &wanted, times) {
                Ok((asked, withheld)) => return self.play(asked, withheld),
                Err(why) if missing == Missing::Request => missing = why,
                Err(_) => {}
            }
        }
        let told = match missing {
            Missing::Request => "this request is not in the recording",
            Missing::Body => "this request is in the recording, but not with this body",
        };
        self.problem(StatusCode::NOT_FOUND, told)
    }

    /// How many times this was asked before.
    fn times(&self, line: &str, body: blake3::Hash) -> usize {
        let mut asked = self.asked.lock();
        if asked.len() >= MOST_ASKED {
            asked.clear();
        }
        let times = asked.entry((line.into(), body)).or_default();
        let before = *times;
        *times = times.saturating_add(1);
        before
    }

    fn play(&self, asked: &tape::Asked, withheld: bool) -> Response<Played> {
        let Some(first) = asked.answer else {
            return self.problem(StatusCode::BAD_GATEWAY, "the recording has no answer to this");
        };
        let opened = block_in_place(|| Answer::open(&self.tape.of, first, asked.sequence));
        let (head, answer) = match opened {
            Ok(opened) => opened,
            Err(why) => return self.problem(StatusCode::BAD_GATEWAY, &why),
        };
        let Some(parsed) = Head::parse(&head) else {
            return self.problem(StatusCode::BAD_GATEWAY, "the recorded answer has no head");
        };
        let status = parsed.status().and_then(|status| StatusCode::from_u16(status).ok());
        let status = status.filter(|status| !status.is_informational());
        let Some(status) = status else {
            let told = "the recorded answer goes over to another protocol, which is not played";
            return self.problem(StatusCode::BAD_GATEWAY, told);
        };
        let body = StreamBody::new(futures_util::stream::unfold(answer, |mut answer| async {
            let next = block_in_place(|| answer.next())?;
            Some((next.map(Frame::data), answer))
        }));
        let mut response = Response::new(UnsyncBoxBody::new(body));
        *response.status_mut() = status;
        for (name, value) in parsed.fields {
            let pair = (HeaderName::try_from(name), HeaderValue::from_bytes(value));
            // What tells of the connection, of the length before masks, or opens the answer to
            // other pages, is not of the answer itself.
            if let (Ok(name), Ok(value)) = pair
                && passes(name.as_str())
            {
                response.headers_mut().append(name, value);
            }
        }
        let says = match withheld {
            true => format!("{} #{}, which withholds values", self.tape.of.session, asked.sequence),
            false => format!("{} #{}", self.tape.of.session, asked.sequence),
        };
        if let Ok(value) = HeaderValue::try_from(says) {
            response.headers_mut().insert(SAYS, value);
        }
        response
    }

    fn problem(&self, status: StatusCode, told: &str) -> Response<Played> {
        let Taped { session, target, .. } = &self.tape.of;
        let document = json!({
            "status": status.as_u16(),
            "title": told,
            "detail": format!(
                "This is a replay of session {session}: requests are answered as they were \
                 recorded, and nothing reaches {target}."
            ),
        });
        let body = Full::new(Bytes::from(format!("{document}\n")));
        let body = UnsyncBoxBody::new(body.map_err(|never| match never {}));
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response.headers_mut().insert(SAYS, HeaderValue::from_static("not recorded"));
        response
    }
}

/// Whether a Host names this machine by its loopback address or as localhost.
fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let address = name.parse::<std::net::IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn passes(name: &str) -> bool {
    !super::request::is_hop_by_hop(name)
        && !name.starts_with("access-control-")
        && !matches!(name, "content-length" | "alt-svc" | "strict-transport-security")
}

/// The body of a recorded answer. Reads the file as far as it is asked to.
#[derive(Debug)]
struct Answer {
    reader: Reader,
    of: Sequence,
    /// What came with the head.
    first: Option<Bytes>,
    ended: bool,
}

impl Answer {
    /// The head, and what follows it.
    fn open(taped: &Taped, at: Sequence, of: Sequence) -> Result<(Bytes, Self), String> {
        let open = || {
            let mut reader = taped.reader()?;
            reader.seek_sequence(at)?;
            Ok::<_, ReadError>(reader)
        };
        let reader = open().map_err(|error| error.to_string())?;
        let mut answer = Self { reader, of, first: None, ended: false };
        let mut head = Vec::new();
        while let Some(bytes) = answer.next() {
            head.extend_from_slice(&bytes.map_err(|error| error.to_string())?);
            if let Some(parsed) = Head::parse(&head) {
                let rest = head.split_off(parsed.length);
                answer.first = Some(rest.into()).filter(|rest: &Bytes| !rest.is_empty());
                return Ok((head.into(), answer));
            }
            if head.len() > MAX_HEAD {
                break;
            }
        }
        Err("the recorded answer has no head".to_owned())
    }

    /// The next bytes. None at its end.
    fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        while !self.ended {
            let event = match self.reader.next() {
                // The recording ends within the answer.
                None => {
                    self.ended = true;
                    return Some(Err(Broken::Recorded));
                }
                Some(Ok(event)) => event,
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(Err(error.into()));
                }
            };
            match (event.kind, event.direction) {
                _ if event.of != Some(self.of) => {}
                (Kind::Data, Direction::Down) => return Some(Ok(event.payload)),
                (Kind::Outcome, _) => {
                    self.ended = true;
                    let outcome = serde_json::from_slice::<Outcome>(&event.payload).ok();
                    let error = outcome.and_then(|outcome| outcome.error);
                    if error.is_some_and(|CommandError { code, .. }| code == "aborted") {
                        return Some(Err(Broken::Recorded));
                    }
                }
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_answered() {
        for host in ["127.0.0.1:80", "localhost", "LOCALHOST:1", "[::1]:8080", "127.9.9.9"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in ["", "evil.example", "127.0.0.1.evil.example", "10.0.0.1:80", "[::2]"] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
