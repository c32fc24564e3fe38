//! The API: what was recorded, who looked at it, and how the gateway is. `openapi.json` beside
//! this file describes it, and a test holds the two together.
//!
//! Whatever is shown is in the audit log before it is shown; while that cannot be written, nothing
//! is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::Value;

use super::caller::{Caller, Reader, Roles};
use super::login_cookies::Entrance;
use super::policy::ReadCatalogs;
use super::problem::Problem;
use super::query::Ask;
use super::starting::{self, Starting};
use super::{
    approvals, exports, grants, holds, kills, policy, recordings, targets, tickets, users,
};
use crate::catalog::{Catalog, HeldModes};
use crate::database::{AuditEntry, AuditRecord, Command, Database, LagWatch, Page, Session};
use crate::identity::ticket::Tickets;
use crate::identity::{Identity, Verifier};
use crate::metrics::Archiving;
use crate::names::SessionId;
use crate::notify::DeadLetter;
use crate::recording::Keyring;
use crate::shutdown::Shutdown;

const DESCRIPTION: &str = include_str!("openapi.json");
/// Above this the index counts as behind: usually it is by half a second.
const BEHIND: Duration = Duration::from_secs(60);

/// What answers are made of.
#[derive(Debug)]
pub struct Api {
    pub(super) database: Database,
    pub(super) catalog: Arc<Catalog>,
    pub(super) held: Arc<dyn HeldModes>,
    pub(super) read_catalogs: ReadCatalogs,
    pub(super) tickets: Tickets,
    pub(super) shutdown: Shutdown,
    pub(super) starting: Arc<Starting>,
    data_dir: PathBuf,
    keyring: Keyring,
    lag: LagWatch,
    roles: Roles,
    verifier: Arc<Verifier>,
    entrance: Entrance,
}

impl Api {
    /// The API of one gateway, which writes its recordings in a `data_dir` and may read what a keyring
    /// opens. Of targets it tells what sessions made the gateway read of them; `read_catalogs` asks them.
    pub fn new(
        (data_dir, keyring): (PathBuf, Keyring),
        (catalog, held, read_catalogs): (Arc<Catalog>, Arc<dyn HeldModes>, ReadCatalogs),
        lag: LagWatch,
        roles: Roles,
        verifier: Arc<Verifier>,
        entrance: Entrance,
        shutdown: Shutdown,
    ) -> Arc<Self> {
        let database = catalog.desk().database().clone();
        let tickets = Tickets::new(database.clone());
        let starting = Arc::new(Starting::new(database.clone()));
        Arc::new(Self {
            database,
            catalog,
            held,
            read_catalogs,
            tickets,
            shutdown,
            starting,
            data_dir,
            keyring,
            lag,
            roles,
            verifier,
            entrance,
        })
    }

    /// Its paths, for connections that say how they came ([`super::server`], [`super::admin`]).
    pub fn router(self: Arc<Self>) -> Router {
        let routes = Router::new()
            .route("/api/v1/sessions", get(sessions))
            .route("/api/v1/sessions/{id}", get(session))
            .route("/api/v1/sessions/{id}/commands", get(session_commands))
            .route("/api/v1/commands", get(commands))
            .route("/api/v1/audit", get(audit))
            .route("/api/v1/notifications", get(undelivered))
            .merge(kills::routes())
            .merge(recordings::routes())
            .merge(exports::routes())
            .merge(policy::routes())
            .merge(targets::routes())
            .merge(tickets::routes())
            .merge(approvals::routes())
            .merge(grants::routes())
            .merge(users::routes())
            .merge(holds::routes());
        starting::waiting(routes, &self.starting, starting::problem)
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/api/openapi.json", get(description))
            .fallback(async || Problem::not_found())
            .method_not_allowed_fallback(async || Problem::wrong_method())
            .with_state(self)
    }

    pub(super) fn data_dir(&self) -> &std::path::Path {
        &self.data_dir
    }

    pub(super) fn keyring(&self) -> Keyring {
        self.keyring.clone()
    }

    pub(super) fn roles(&self) -> &Roles {
        &self.roles
    }

    pub(super) fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    pub(super) fn entrance(&self) -> &Entrance {
        &self.entrance
    }

    /// How the index is, in a word, and how far it is behind at most.
    pub(super) fn index_state(&self) -> (&'static str, Option<Duration>) {
        let lag = self.lag.get();
        let word = match (&lag.error, lag.behind) {
            (Some(_), _) => "unreachable",
            (None, Some(behind)) if behind < BEHIND => "current",
            (None, _) => "behind",
        };
        (word, lag.behind)
    }

    /// Notes in the audit log what is about to be shown.
    pub(super) async fn shown(
        &self,
        caller: &Caller,
        action: &str,
        object: Option<SessionId>,
        detail: BTreeMap<String, Value>,
    ) -> Result<(), Problem> {
        let object = object.map(|id| id.to_string());
        self.done(caller, action, object, detail).await
    }

    /// Notes in the audit log what was done, or is about to be shown.
    pub(super) async fn done(
        &self,
        caller: &Caller,
        action: &str,
        object: Option<String>,
        detail: BTreeMap<String, Value>,
    ) -> Result<(), Problem> {
        Ok(self.database.audit(&entry(caller, action, object, "done", detail)).await?)
    }

    /// Notes in the audit log what somebody asks for that takes its time.
    pub(super) async fn asked(
        &self,
        caller: &Caller,
        action: &str,
        object: Option<String>,
        detail: BTreeMap<String, Value>,
    ) -> Result<(), Problem> {
        Ok(self.database.audit(&entry(caller, action, object, "asked", detail)).await?)
    }

    /// A line of the audit log for what is asked for and takes its time.
    pub(super) fn asked_entry(
        &self,
        caller: &Caller,
        action: &str,
        object: String,
        detail: BTreeMap<String, Value>,
    ) -> AuditEntry {
        entry(caller, action, Some(object), "asked", detail)
    }

    /// A line of the audit log for what was done; it is written together with what it tells.
    pub(super) fn entry(
        &self,
        caller: &Caller,
        action: &str,
        object: String,
        detail: BTreeMap<String, Value>,
    ) -> AuditEntry {
        entry(caller, action, Some(object), "done", detail)
    }

    /// Notes in the audit log what was tried and refused, and why.
    pub(super) async fn tried(&self, caller: &Caller, action: &str, object: String, why: &str) {
        tracing::warn!(username = caller.username(), action, object, why, "refused by the API");
        let detail = BTreeMap::from([("why".to_owned(), Value::from(why))]);
        let refused = entry(caller, action, Some(object), "refused", detail);
        if let Err(error) = self.database.audit(&refused).await {
            tracing::warn!(%error, "a refusal is not in the audit log");
        }
    }

    /// Notes in the audit log, and in the log, what somebody was not allowed.
    pub(super) async fn refused(&self, caller: &Caller, path: &str) {
        tracing::warn!(username = caller.username(), path, "refused by the API: no such right");
        let refused = entry(caller, "api.read", Some(path.to_owned()), "refused", BTreeMap::new());
        if let Err(error) = self.database.audit(&refused).await {
            tracing::warn!(%error, "a refusal is not in the audit log");
        }
    }
}

fn entry(
    caller: &Caller,
    action: &str,
    object: Option<String>,
    outcome: &str,
    detail: BTreeMap<String, Value>,
) -> AuditEntry {
    let identity = caller.identity();
    AuditEntry {
        issuer: identity.map(|identity| identity.issuer().to_owned()),
        subject: identity.map(|identity: &Identity| identity.subject().to_owned()),
        username: caller.username(),
        client: caller.client().map(|client| client.to_string()),
        action: action.to_owned(),
        object,
        outcome: outcome.to_owned(),
        detail,
    }
}

pub(super) type Answer<T> = Result<Json<T>, Problem>;

/// What is looked up: for programs and for pages alike, and in the audit log either way.
impl Api {
    pub(super) async fn sessions(
        &self,
        caller: &Caller,
        ask: Ask,
    ) -> Result<Page<Session>, Problem> {
        let page = self.database.sessions(&ask.filter, &ask.wanted).await?;
        self.shown(caller, "session.list", None, ask.said).await?;
        Ok(page)
    }

    /// The session of that id; one that cannot be is as one that is not.
    pub(super) async fn session(&self, caller: &Caller, id: Named) -> Result<Session, Problem> {
        let session = find(self, id).await?;
        self.shown(caller, "session.show", Some(session.id), BTreeMap::new()).await?;
        Ok(session)
    }

    pub(super) async fn session_commands(
        &self,
        caller: &Caller,
        session: SessionId,
        ask: Ask,
    ) -> Result<Page<Command>, Problem> {
        let page = self.database.session_commands(session, &ask.filter, &ask.wanted).await?;
        self.shown(caller, "session.commands", Some(session), ask.said).await?;
        Ok(page)
    }

    pub(super) async fn commands(
        &self,
        caller: &Caller,
        ask: Ask,
    ) -> Result<Page<Command>, Problem> {
        let page = self.database.commands(&ask.filter, &ask.wanted).await?;
        self.shown(caller, "command.list", None, ask.said).await?;
        Ok(page)
    }

    pub(super) async fn audit(
        &self,
        caller: &Caller,
        ask: Ask,
    ) -> Result<Page<AuditRecord>, Problem> {
        if let Some(key) = ask.said.keys().find(|key| !AUDIT_KEYS.contains(&key.as_str())) {
            return Err(Problem::bad(format!("the audit log knows no {key:?}")));
        }
        let page = self.database.audit_log(&ask.filter, &ask.wanted).await?;
        self.shown(caller, "audit.list", None, ask.said).await?;
        Ok(page)
    }
}

async fn sessions(
    State(api): State<Arc<Api>>,
    Reader(caller): Reader,
    ask: Ask,
) -> Answer<Page<Session>> {
    api.sessions(&caller, ask).await.map(Json)
}

async fn session(
    State(api): State<Arc<Api>>,
    Reader(caller): Reader,
    id: Named,
) -> Answer<Session> {
    api.session(&caller, id).await.map(Json)
}

async fn session_commands(
    State(api): State<Arc<Api>>,
    Reader(caller): Reader,
    id: Named,
    ask: Ask,
) -> Answer<Page<Command>> {
    let session = find(&api, id).await?.id;
    api.session_commands(&caller, session, ask).await.map(Json)
}

async fn commands(
    State(api): State<Arc<Api>>,
    Reader(caller): Reader,
    ask: Ask,
) -> Answer<Page<Command>> {
    api.commands(&caller, ask).await.map(Json)
}

async fn audit(
    State(api): State<Arc<Api>>,
    Reader(caller): Reader,
    ask: Ask,
) -> Answer<Page<AuditRecord>> {
    api.audit(&caller, ask).await.map(Json)
}

/// Messages that could not be delivered.
#[derive(Debug, Serialize)]
struct Undelivered {
    items: Vec<DeadLetter>,
}

async fn undelivered(State(api): State<Arc<Api>>, Reader(_): Reader) -> Json<Undelivered> {
    Json(Undelivered { items: api.catalog.desk().notifier().dead_letters() })
}

/// What the audit log can be asked for.
const AUDIT_KEYS: [&str; 6] = ["user", "from", "to", "text", "limit", "cursor"];

/// What stands for an id in a path.
pub(super) type Named = Result<Path<String>, PathRejection>;

/// The id that stands in a path; what cannot be one is as one that is not.
pub(super) fn named<T: std::str::FromStr>(named: Named) -> Result<T, Problem> {
    named.ok().and_then(|Path(id)| id.parse().ok()).ok_or_else(Problem::not_found)
}

/// The session of that id; one that cannot be is as one that is not.
async fn find(api: &Api, named: Named) -> Result<Session, Problem> {
    let id = self::named(named)?;
    api.database.session(id).await?.ok_or_else(Problem::not_found)
}

/// How the gateway is. Sessions go on without the index, so it is ready without it.
#[derive(Debug, Serialize)]
struct Readiness {
    /// Whether new sessions are taken.
    ready: bool,
    /// `current`, `behind` (catching up), or `unreachable`: then nothing can be looked up, and the
    /// recordings keep what is to be indexed.
    index: &'static str,
    /// How far the index is behind, at most; none before it caught up for the first time.
    index_behind_seconds: Option<u64>,
    /// Recordings that may hold more than the index.
    index_recordings: u64,
    /// `current`, or `unreachable`: then tickets, approvals and grants are refused, and
    /// revocation is late.
    state: &'static str,
    /// Of recordings on their way to the archive; none without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    archive: Option<ArchiveState>,
}

/// How moving recordings to the archive goes.
#[derive(Debug, Serialize)]
struct ArchiveState {
    /// `current`, or `unreachable`: then recordings wait here.
    state: &'static str,
    /// Recordings that wait.
    recordings: u64,
    /// How full the directory of recordings is; at 100 new sessions are refused.
    local_percent: u64,
}

impl ArchiveState {
    fn of(archiving: Archiving) -> Self {
        Self {
            state: if archiving.reachable { "current" } else { "unreachable" },
            recordings: archiving.waiting,
            local_percent: archiving.local_percent,
        }
    }
}

async fn ready(State(api): State<Arc<Api>>) -> impl IntoResponse {
    let (lag, ready) = (api.lag.get(), !api.shutdown.is_draining());
    let (index, _) = api.index_state();
    let readiness = Readiness {
        ready,
        index,
        index_behind_seconds: lag.behind.map(|behind| behind.as_secs()),
        index_recordings: lag.recordings,
        state: if api.catalog.desk().is_reachable() { "current" } else { "unreachable" },
        archive: api.catalog.desk().metrics().archiving().map(ArchiveState::of),
    };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness))
}

async fn description() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DESCRIPTION)
}
