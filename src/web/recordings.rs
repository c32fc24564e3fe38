//! Recordings themselves: their bytes by range, their events by sequence.
//!
//! They are read where this gateway wrote them, or moved them to; what another gateway recorded is
//! not found here.
//! The bytes of an open session end with its last block, a second ago or so; its events are all that
//! there are.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::api::{Answer, Api, Named, named};
use super::caller::Reader;
use super::problem::Problem;
use crate::names::SessionId;
use crate::recording::{self, Keyring, ReadError, Sequence, Source, recording_path};

/// Events of one page, when nothing is said and at most.
const EVENTS: (usize, usize) = (200, 1000);
/// A page ends with the event that takes its payloads to this, in bytes.
const PAGE_BYTES: usize = 4 << 20;
/// Bytes that are read at once.
const PIECE: usize = 256 << 10;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/api/v1/sessions/{id}/recording", get(bytes))
        .route("/api/v1/sessions/{id}/recording/key", get(key))
        .route("/api/v1/sessions/{id}/events", get(events))
}

/// A session's recording, here or in the archive.
pub(super) async fn open(api: &Api, session: SessionId) -> Result<Source, Problem> {
    let (path, keyring) = (recording_path(api.data_dir(), &session), api.keyring());
    let opened = tokio::task::spawn_blocking(move || recording::source(&path, &keyring)).await;
    opened.map_err(|_| Problem::internal())?.map_err(|error| match error {
        ReadError::Io(error) => unreadable(&error),
        error => {
            tracing::error!(%session, %error, "recording is not this session's");
            (&error).into()
        }
    })
}

/// Where a session's recording stands or stood, if there is one.
pub(super) async fn place(api: &Api, session: SessionId) -> Result<PathBuf, Problem> {
    let path = recording_path(api.data_dir(), &session);
    let there = path.clone();
    // Whoever reads it holds its name against its content.
    let keyring = api.keyring();
    let opened = tokio::task::spawn_blocking(move || keyring.source(&there).map(drop)).await;
    opened.map_err(|_| Problem::internal())?.map_err(|error| unreadable(&error))?;
    Ok(path)
}

async fn bytes(
    State(api): State<Arc<Api>>,
    Reader(caller): Reader,
    id: Named,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let session = named(id)?;
    let source = open(&api, session).await?;
    let length = source.length().map_err(|error| unreadable(&error))?;
    // A recording only grows, so its length tells its states apart.
    let tag = format!("\"{length}\"");
    let asked = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let same =
        headers.get(header::IF_RANGE).is_none_or(|wanted| wanted.as_bytes() == tag.as_bytes());
    let range = match asked.filter(|_| same).map(|asked| Range::of(asked, length)) {
        None | Some(Asked::Nothing) => None,
        Some(Asked::Some(range)) => Some(range),
        Some(Asked::Outside) => return Ok(outside(length)),
    };
    let detail = range.map(|Range { first, last }| ("bytes".to_owned(), json!([first, last])));
    api.shown(&caller, "recording.read", Some(session), detail.into_iter().collect()).await?;

    let Range { first, last } = range.unwrap_or(Range { first: 0, last: length.saturating_sub(1) });
    let wanted = if length == 0 { 0 } else { last - first + 1 };
    let mut response = Body::from_stream(pieces(source, first, wanted)).into_response();
    let mut say = |name, text: String| {
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(name, value);
        }
    };
    say(header::CONTENT_TYPE, "application/zstd".to_owned());
    say(header::CONTENT_LENGTH, wanted.to_string());
    say(header::ACCEPT_RANGES, "bytes".to_owned());
    say(header::ETAG, tag);
    say(header::CONTENT_DISPOSITION, format!("attachment; filename=\"{session}.rec\""));
    if range.is_some() {
        say(header::CONTENT_RANGE, format!("bytes {first}-{last}/{length}"));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// An encrypted recording's key as it was wrapped for others later; it opens nothing without an
/// identity of theirs.
async fn key(
    State(api): State<Arc<Api>>,
    Reader(caller): Reader,
    id: Named,
) -> Result<Response, Problem> {
    let session = named(id)?;
    let path = place(&api, session).await?;
    let read = tokio::task::spawn_blocking(move || recording::rewrapped(&path)).await;
    let key = read.map_err(|_| Problem::internal())?.map_err(|error| unreadable(&error))?;
    let key = key.ok_or_else(Problem::not_found)?;
    api.shown(&caller, "recording.key", Some(session), BTreeMap::new()).await?;
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((kind, key).into_response())
}

/// Some bytes of a recording, piece by piece as they are sent.
fn pieces(
    source: Source,
    first: u64,
    length: u64,
) -> impl Stream<Item = std::io::Result<Vec<u8>>> + Send + 'static {
    let begin = (Arc::new(source), first, first.saturating_add(length));
    futures_util::stream::try_unfold(begin, |(source, at, end)| async move {
        let size = usize::try_from(end - at).unwrap_or(usize::MAX).min(PIECE);
        if size == 0 {
            return Ok(None);
        }
        let reading = Arc::clone(&source);
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; size];
            reading.read_at(&mut bytes, at).map(|()| bytes)
        });
        let bytes = read.await.map_err(std::io::Error::other)??;
        Ok(Some((bytes, (source, at + size as u64, end))))
    })
}

fn outside(length: u64) -> Response {
    let mut response = Problem::outside().into_response();
    if let Ok(value) = HeaderValue::from_str(&format!("bytes */{length}")) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    response
}

/// The first and the last byte of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u64,
    last: u64,
}

/// What a Range header asks for (RFC 9110 section 14.2).
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// Nothing that is understood: the whole is sent, as the RFC wants it.
    Nothing,
    Some(Range),
    /// A part that there is not.
    Outside,
}

impl Range {
    /// Several parts at once are not given; the whole is an answer to them.
    fn of(asked: &str, length: u64) -> Asked {
        let Some((first, last)) =
            asked.strip_prefix("bytes=").and_then(|part| part.split_once('-'))
        else {
            return Asked::Nothing;
        };
        let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse::<u64>().ok(),
            false => None,
        };
        let range = match (first, last) {
            ("", suffix) => match number(suffix) {
                Some(0) => return Asked::Outside,
                Some(suffix) => (length.saturating_sub(suffix), length.saturating_sub(1)),
                None => return Asked::Nothing,
            },
            (first, "") => match number(first) {
                Some(first) => (first, length.saturating_sub(1)),
                None => return Asked::Nothing,
            },
            (first, last) => match (number(first), number(last)) {
                (Some(first), Some(last)) if first <= last => {
                    (first, last.min(length.saturating_sub(1)))
                }
                _ => return Asked::Nothing,
            },
        };
        match range {
            (first, _) if first >= length => Asked::Outside,
            (first, last) => Asked::Some(Self { first, last }),
        }
    }
}

/// Which events are wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// The first event's sequence.
    first: Option<Sequence>,
    limit: Option<usize>,
}

/// Events in their order.
#[derive(Debug, Serialize)]
struct Events {
    items: Vec<Value>,
    /// Where the next page begins; none when there is nothing more now.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Sequence>,
}

async fn events(
    State(api): State<Arc<Api>>,
    Reader(caller): Reader,
    id: Named,
    wanted: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
) -> Answer<Events> {
    let Query(wanted) = wanted.map_err(|error| Problem::bad(error.body_text()))?;
    let limit = wanted.limit.unwrap_or(EVENTS.0);
    if !(1..=EVENTS.1).contains(&limit) {
        return Err(Problem::bad(format!("limit: 1 to {} events", EVENTS.1)));
    }
    let first = wanted.first.unwrap_or_default();
    if i64::try_from(first).is_err() {
        return Err(Problem::bad(format!("first: at most {}", i64::MAX)));
    }
    let session = named(id)?;
    let path = place(&api, session).await?;
    let detail = BTreeMap::from([("first".to_owned(), json!(first))]);
    api.shown(&caller, "recording.events", Some(session), detail).await?;
    let keyring = api.keyring();
    let read = tokio::task::spawn_blocking(move || page((&path, &keyring), first, limit)).await;
    match read {
        Ok(Ok(events)) => Ok(Json(events)),
        Ok(Err(error)) => {
            tracing::error!(%session, %error, "recording cannot be read");
            Err((&error).into())
        }
        Err(_) => Err(Problem::internal()),
    }
}

/// What came before a damage is given; a page that begins with it tells of it.
fn page(
    (path, keyring): (&std::path::Path, &Keyring),
    from: Sequence,
    limit: usize,
) -> Result<Events, ReadError> {
    let mut reader = recording::Reader::open_with(path, keyring)?;
    reader.seek_sequence(from)?;
    let (mut items, mut bytes) = (Vec::new(), 0);
    for event in reader {
        let event = match event {
            Ok(event) => event,
            Err(error) if items.is_empty() => return Err(error),
            Err(_) => return Ok(Events { next: Some(next_of(from, &items)), items }),
        };
        if items.len() == limit || bytes >= PAGE_BYTES {
            return Ok(Events { items, next: Some(event.sequence) });
        }
        bytes += event.payload.len();
        items.push(event.to_json());
    }
    Ok(Events { items, next: None })
}

/// The sequence behind the last of these events.
fn next_of(from: Sequence, items: &[Value]) -> Sequence {
    let last = items.last().and_then(|event| event.get("sequence")?.as_u64());
    last.map_or(from, |last| last.saturating_add(1))
}

fn unreadable(error: &std::io::Error) -> Problem {
    match error.kind() {
        std::io::ErrorKind::NotFound => Problem::not_found(),
        _ => {
            tracing::error!(%error, "recording cannot be read");
            Problem::internal()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_one_part_within_what_there_is() {
        let part = |first, last| Asked::Some(Range { first, last });
        for (asked, expected) in [
            ("bytes=0-0", part(0, 0)),
            ("bytes=2-5", part(2, 5)),
            ("bytes=2-", part(2, 9)),
            ("bytes=2-99", part(2, 9)),
            ("bytes=-3", part(7, 9)),
            ("bytes=-99", part(0, 9)),
            ("bytes=-0", Asked::Outside),
            ("bytes=10-", Asked::Outside),
            ("bytes=10-11", Asked::Outside),
            ("bytes=5-2", Asked::Nothing),
            ("bytes=0-1,3-4", Asked::Nothing),
            ("bytes=+1-2", Asked::Nothing),
            ("bytes=99999999999999999999-", Asked::Nothing),
            ("bytes=-", Asked::Nothing),
            ("lines=1-2", Asked::Nothing),
            ("", Asked::Nothing),
        ] {
            assert_eq!(Range::of(asked, 10), expected, "{asked}");
        }
        assert_eq!(Range::of("bytes=0-", 0), Asked::Outside);
        assert_eq!(Range::of("bytes=-5", 0), Asked::Outside);
    }
}
