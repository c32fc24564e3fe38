//! Recordings in other formats, made while they are sent.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};

use super::api::{Api, Named, named};
use super::caller::Reader;
use super::pages;
use super::problem::Problem;
use super::recordings::place;
use crate::recording::{self, Keyring};
use crate::replay::ReplayError;
use crate::replay::export::{self, ExportError};

/// What is made before somebody reads it: pieces of so many bytes, and so many of them.
const PIECE: usize = 64 << 10;
const PIECES: usize = 4;
/// Exports at once: each is a thread that reads and compresses.
const AT_ONCE: usize = 4;

static MAKING: Semaphore = Semaphore::const_new(AT_ONCE);

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/api/v1/sessions/{id}/export", get(export))
}

/// What is made of a recording.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Jsonl,
    Asciicast,
    Sql,
    Csv,
    Har,
    Html,
}

impl Format {
    /// Its name, the end of a file's name, and its media type.
    fn about(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Jsonl => ("jsonl", "jsonl", "application/x-ndjson"),
            Self::Asciicast => ("asciicast", "cast", "application/x-asciicast"),
            Self::Sql => ("sql", "sql", "application/sql"),
            Self::Csv => ("csv", "csv", "text/csv; charset=utf-8"),
            Self::Har => ("har", "har", "application/json"),
            Self::Html => ("html", "html", "text/html; charset=utf-8"),
        }
    }

    fn write(self, path: &Path, keyring: &Keyring, out: &mut dyn Write) -> Result<(), ExportError> {
        if matches!(self, Self::Html) {
            // The page tells of a damage itself.
            return pages::html(path, keyring, out).map(|_damage| ());
        }
        let reader = recording::Reader::open_with(path, keyring)?;
        match self {
            Self::Jsonl => Ok(export::json_lines(reader, out)?),
            Self::Asciicast => export::asciicast(reader, None, out),
            Self::Sql => export::sql(reader, out),
            Self::Har => export::har(reader, out),
            Self::Csv | Self::Html => export::csv(reader, out),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    format: Format,
}

async fn export(
    State(api): State<Arc<Api>>,
    Reader(caller): Reader,
    id: Named,
    wanted: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(Wanted { format }) = wanted.map_err(|error| Problem::bad(error.body_text()))?;
    let session = named(id)?;
    let path = place(&api, session).await?;
    let (name, end, kind) = format.about();
    let Ok(turn) = MAKING.acquire().await else { return Err(Problem::internal()) };
    let detail = [("format".to_owned(), json!(name))];
    api.shown(&caller, "recording.export", Some(session), detail.into()).await?;
    let (pieces, mut made) = mpsc::channel(PIECES);
    let keyring = api.keyring();
    tokio::task::spawn_blocking(move || {
        let mut out = Pieces { pieces, piece: Vec::new() };
        let done = format.write(&path, &keyring, &mut out).and_then(|()| Ok(out.flush()?));
        if let Err(error) = done {
            // Nobody is told when nobody reads.
            let _gone = out.pieces.blocking_send(Err(error));
        }
        drop(turn);
    });
    // What fails at once is told; what fails later breaks the answer off.
    let first = match made.recv().await {
        Some(Err(error)) => return Err(problem(&error, session)),
        first => first,
    };
    let rest = stream::unfold((first, made), move |(first, mut made)| async move {
        let piece = match first {
            Some(first) => Some(first),
            None => made.recv().await,
        };
        piece.map(|piece| {
            let piece = piece.inspect_err(|error| {
                tracing::error!(%session, %error, "export broken off");
            });
            (piece, (None, made))
        })
    });
    let about = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{session}.{end}\"")),
    ];
    Ok((about, Body::from_stream(rest)).into_response())
}

fn problem(error: &ExportError, session: crate::names::SessionId) -> Problem {
    match error {
        ExportError::NoTerminal(_) | ExportError::OtherProtocol(_) | ExportError::NoSession => {
            Problem::has_none(error.to_string())
        }
        ExportError::Replay(ReplayError::Read(error)) => {
            tracing::error!(%session, %error, "recording cannot be read");
            error.into()
        }
        ExportError::Replay(ReplayError::Io(_)) => {
            tracing::error!(%session, %error, "export not made");
            Problem::internal()
        }
    }
}

/// Hands on what is written, in pieces, as fast as it is read.
struct Pieces {
    pieces: mpsc::Sender<Result<Bytes, ExportError>>,
    piece: Vec<u8>,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        let piece = Bytes::from(std::mem::take(&mut self.piece));
        self.pieces.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() { Ok(()) } else { self.send() }
    }
}
