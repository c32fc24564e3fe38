//! One session: its commands in order, and one of them with what was answered.
//!
//! The list comes from the index, the command that is looked at from the recording, around its
//! place alone. Each look is in the audit log.

use std::io;
use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::asked::Asked;
use super::audit::Line;
use super::changes::mark_of;
use super::detail::{Answer, Detail};
use super::proof::Proof;
use super::sessions::Row;
use super::visitor::{Turned, Visitor};
use super::{Frame, page, reader, text};
use crate::database::{Command, Hold, HoldFilter, OneSession, Session};
use crate::names::{Protocol, SessionId};
use crate::percent::encoded;
use crate::recording::{self, NoKey, ReadError};
use crate::replay;
use crate::replay::export::{ExportError, asciicast};
use crate::web::api::{Api, Named, named};
use crate::web::caller::Caller;
use crate::web::problem::Problem;
use crate::web::recordings;

/// Lines of the audit log about the session.
const LOOKS: u32 = 50;
/// The largest recording that is verified for a page without being asked, in bytes.
const VERIFIED_AT_ONCE: u64 = 64 << 20;
/// The longest terminal that is sent to a browser, in bytes.
const MAX_CAST: usize = 32 << 20;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/sessions/{id}", get(session))
        .route("/sessions/{id}/commands/{sequence}", get(command))
        .route("/sessions/{id}/verification", get(verification))
        .route("/sessions/{id}/terminal.cast", get(terminal))
}

#[derive(Template)]
#[template(path = "session.html")]
struct SessionPage {
    frame: Frame,
    since: String,
    asked: Asked,
    facts: Facts,
    steps: Vec<Step>,
    next: Option<String>,
    detail: Option<Detail>,
    /// Why the recording cannot be opened, if it cannot.
    locked: Option<String>,
    looks: Vec<Line>,
    holds: Vec<Kept>,
    /// Whether the recording stands with this gateway.
    is_here: bool,
    verifies: bool,
}

/// What stands over the commands.
struct Facts {
    row: Row,
    issuer: String,
    subject: String,
    client: String,
    groups: String,
    gateway: String,
    policy: String,
    parameters: Vec<(String, String)>,
    ended_text: String,
    workflow_proved: &'static str,
    run_proved: &'static str,
    missing: i64,
    bytes_up: String,
    bytes_down: String,
}

/// A hold that keeps the recording.
struct Kept {
    id: String,
    reason: String,
    by: String,
    since: String,
    /// Whether it is of this session alone, so that it can be lifted here.
    own: bool,
}

impl Kept {
    fn of(hold: &Hold) -> Self {
        Self {
            id: hold.id.to_string(),
            reason: text::line(&hold.reason),
            by: text::line(&hold.set_by),
            since: text::time(hold.set_at),
            own: matches!(hold.filter, HoldFilter::Session(_)),
        }
    }
}

/// The holds that keep a session: its own, and those of filters that found it.
async fn holds_of(api: &Api, session: SessionId) -> Result<Vec<Kept>, Problem> {
    let mut beside = api.database.holds_beside(&[session]).await?;
    let mut holds = beside.remove(&session).unwrap_or_default();
    let own = HoldFilter::Session(OneSession { session });
    // One that was just set has no file yet.
    for hold in api.database.holds(false).await? {
        if hold.filter == own && holds.iter().all(|known| known.id != hold.id) {
            holds.push(hold);
        }
    }
    Ok(holds.iter().map(Kept::of).collect())
}

/// A command in the list.
struct Step {
    sequence: i64,
    /// Whether it is the one that is looked at.
    chosen: bool,
    link: String,
    offset: String,
    form: String,
    text: String,
    verdict: &'static str,
    overridden: String,
    rows: String,
    duration: String,
    masked: i64,
    error: String,
    /// How a program ended that did not end well.
    status: String,
    running: bool,
}

impl Step {
    fn of(command: &Command, session: &Session, asked: &Asked, chosen: Option<u64>) -> Self {
        let verdict = super::word(command.verdict);
        let ran = command.verdict != crate::policy::Verdict::Block;
        let text = command.text.as_deref().unwrap_or_default();
        let sequence = command.sequence.to_string();
        let mut link = asked.with(&[("command", Some(&sequence))]);
        if let Some(cursor) = asked.said.get("cursor") {
            link.push_str(&format!("&cursor={}", encoded(cursor)));
        }
        Self {
            sequence: command.sequence,
            chosen: chosen.is_some() && u64::try_from(command.sequence).ok() == chosen,
            link,
            offset: text::duration(command.at.0.saturating_sub(session.opened_at.0).max(0)),
            form: text::line(&command.form),
            text: text::line(text),
            verdict,
            overridden: text::line(command.overridden.as_deref().unwrap_or_default()),
            rows: command.rows.map(|rows| text::count(rows, "row")).unwrap_or_default(),
            duration: match ran {
                true => command.duration_us.map(text::duration).unwrap_or_default(),
                false => "never ran".to_owned(),
            },
            masked: command.masked.values().sum(),
            // What never ran did not fail at the target.
            error: text::line(command.error_code.as_deref().filter(|_| ran).unwrap_or_default()),
            status: command
                .status
                .as_deref()
                .filter(|status| command.protocol == Protocol::Ssh && *status != "exit 0")
                .map(text::line)
                .unwrap_or_default(),
            running: ran && command.duration_us.is_none() && session.closed_at.is_none(),
        }
    }
}

impl Facts {
    fn of(session: &Session) -> Self {
        let proved = |proved: Option<bool>| match proved {
            Some(true) => ", by a claim",
            Some(false) => ", as the client says",
            None => "",
        };
        Self {
            row: Row::of(session),
            issuer: text::line(&session.issuer),
            subject: text::line(&session.subject),
            client: text::line(&session.client),
            groups: text::line(&session.groups.join(", ")),
            gateway: text::line(&session.gateway),
            policy: text::line(session.policy.get(..16).unwrap_or(&session.policy)),
            parameters: session
                .client_parameters
                .iter()
                .map(|(name, value)| (text::line(name), text::line(value)))
                .collect(),
            ended_text: text::line(session.ended_text.as_deref().unwrap_or_default()),
            workflow_proved: proved(session.workflow_proved),
            run_proved: proved(session.run_proved),
            missing: session.missing_events,
            bytes_up: text::size(session.bytes_up),
            bytes_down: text::size(session.bytes_down),
        }
    }
}

async fn session(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    uri: Uri,
    id: Named,
    asked: Asked,
) -> Result<Response, Turned> {
    let caller = &visitor.caller;
    reader(&api, caller, uri.path()).await?;
    let session = api.session(caller, id).await?;
    let commands = api.session_commands(caller, session.id, asked.ask.clone()).await?;
    let first = commands.items.first().and_then(|command| u64::try_from(command.sequence).ok());
    let chosen = asked.command.or(first);
    let looked = match chosen {
        Some(sequence) => looked_at(&api, caller, session.id, sequence).await?,
        None => Ok(None),
    };
    let (mut detail, locked) = match looked {
        Ok(detail) => (detail, None),
        Err(locked) => (None, Some(text::line(&locked.to_string()))),
    };
    if let Some(detail) = &mut detail {
        detail.is_open = session.closed_at.is_none();
    }
    let looks =
        api.database.audit_of(&session.id.to_string(), LOOKS).await.map_err(Problem::from)?;
    let found = recordings::open(&api, session.id).await.ok();
    let length = found.and_then(|source| source.length().ok());
    let title = format!("{} on {}", session.username, session.target);
    page(&SessionPage {
        frame: Frame::of(&api, &visitor, "sessions", text::line(&title)),
        since: mark_of(std::slice::from_ref(&session)),
        facts: Facts::of(&session),
        steps: commands
            .items
            .iter()
            .map(|command| Step::of(command, &session, &asked, chosen))
            .collect(),
        next: commands.next.as_deref().map(|cursor| asked.with(&[("cursor", Some(cursor))])),
        detail,
        locked,
        looks: looks.iter().map(Line::of).collect(),
        holds: holds_of(&api, session.id).await?,
        is_here: length.is_some(),
        verifies: length.is_some_and(|length| length <= VERIFIED_AT_ONCE),
        asked,
    })
    .map_err(Into::into)
}

/// Reads one command out of the recording; none where the recording is not here, or has no such
/// command, and why not where it is encrypted.
async fn looked_at(
    api: &Api,
    caller: &Caller,
    session: SessionId,
    sequence: u64,
) -> Result<Result<Option<Detail>, NoKey>, Problem> {
    let Ok(path) = recordings::place(api, session).await else { return Ok(Ok(None)) };
    let detail = [("command".to_owned(), serde_json::Value::from(sequence))];
    api.shown(caller, "recording.command", Some(session), detail.into()).await?;
    let keyring = api.keyring();
    let read = tokio::task::spawn_blocking(move || replay::moment(&path, &keyring, sequence)).await;
    match read {
        Ok(Ok(moment)) => Ok(Ok(moment.map(|moment| Detail::of(session, sequence, &moment)))),
        Ok(Err(ReadError::NoKey(locked))) => Ok(Err(locked)),
        Ok(Err(error)) => {
            tracing::error!(%session, %error, "recording cannot be read");
            Err((&error).into())
        }
        Err(_) => Err(Problem::internal()),
    }
}

#[derive(Template)]
#[template(path = "command.html")]
struct CommandPage {
    frame: Frame,
    id: String,
    whose: String,
    detail: Detail,
}

/// Only this command.
async fn command(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    uri: Uri,
    place: Result<Path<(String, String)>, axum::extract::rejection::PathRejection>,
) -> Result<Response, Turned> {
    let caller = &visitor.caller;
    reader(&api, caller, uri.path()).await?;
    let Path((id, sequence)) = place.map_err(|_| Problem::not_found())?;
    let session = api.session(caller, Ok(Path(id))).await?;
    let sequence = sequence.parse().map_err(|_| Problem::not_found())?;
    let looked = looked_at(&api, caller, session.id, sequence).await?;
    let detail = looked.map_err(|locked| Problem::from(&ReadError::from(locked)))?;
    let mut detail = detail.ok_or_else(Problem::not_found)?;
    detail.is_open = session.closed_at.is_none();
    let whose = text::line(&format!("{} on {}", session.username, session.target));
    page(&CommandPage {
        frame: Frame::of(&api, &visitor, "sessions", format!("#{sequence} · {whose}")),
        id: session.id.to_string(),
        whose,
        detail,
    })
    .map_err(Into::into)
}

#[derive(Template)]
#[template(path = "verification.html")]
struct VerificationPage {
    frame: Frame,
    id: String,
    proof: Proof,
}

/// Verifies the recording, all of it.
async fn verification(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    uri: Uri,
    id: Named,
) -> Result<Response, Turned> {
    reader(&api, &visitor.caller, uri.path()).await?;
    let id: SessionId = named(id)?;
    let path = recordings::place(&api, id).await?;
    api.shown(&visitor.caller, "recording.verify", Some(id), [].into()).await?;
    let against = recording::Against { keyring: api.keyring(), ..Default::default() };
    let report = tokio::task::spawn_blocking(move || recording::verify(&path, &against)).await;
    let Ok(Ok(report)) = report else { return Err(Problem::internal().into()) };
    let frame = Frame::of(&api, &visitor, "sessions", "Verification");
    let shown = VerificationPage { frame, id: id.to_string(), proof: Proof::of(&report) };
    page(&shown).map_err(Into::into)
}

/// The first terminal of an SSH session, as a player takes it.
async fn terminal(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    uri: Uri,
    id: Named,
) -> Result<Response, Turned> {
    reader(&api, &visitor.caller, uri.path()).await?;
    let id: SessionId = named(id)?;
    let path = recordings::place(&api, id).await?;
    api.shown(&visitor.caller, "recording.terminal", Some(id), [].into()).await?;
    let keyring = api.keyring();
    let made = tokio::task::spawn_blocking(move || {
        let reader =
            recording::Reader::open_with(&path, &keyring).map_err(replay::ReplayError::from)?;
        let mut out = Bounded(Vec::new());
        asciicast(reader, None, &mut out).map(|()| out.0)
    });
    let cast = match made.await {
        Ok(Ok(cast)) => cast,
        Ok(Err(ExportError::NoTerminal(_))) => return Err(Problem::not_found().into()),
        Ok(Err(error)) => {
            tracing::error!(session = %id, %error, "terminal cannot be shown");
            return Err(Problem::damaged(error.to_string()).into());
        }
        Err(_) => return Err(Problem::internal().into()),
    };
    let about = [
        (header::CONTENT_TYPE, "application/x-asciicast".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{id}.cast\"")),
    ];
    Ok((about, cast).into_response())
}

/// Takes so many bytes and refuses what follows.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len().saturating_add(bytes.len()) > MAX_CAST {
            return Err(io::Error::other("the terminal is too long for a page: export it"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
