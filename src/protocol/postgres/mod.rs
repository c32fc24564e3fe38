//! PostgreSQL: a session from its first byte to its last.
//!
//! [`serve()`] tells a connection's life. Everything that the server can do in a session passes,
//! but for replication and encodings other than UTF-8.

mod approval_wait;
mod backend_reader;
mod cancel;
mod down;
mod end;
mod handshake;
pub mod hardening;
mod mask_check;
mod masking;
mod messages;
mod parameters;
mod planner;
mod prepared;
mod queue;
mod reader;
mod refusal;
mod rehearsal;
mod relay;
mod replies;
pub mod serve;
mod session;
mod settings;
pub mod stream;
pub mod upstream;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::access::NoAccess;
use crate::admission::{Admitted, Gateway, Knock, Proofs, Said, told};
use crate::catalog::HeldModes;
use crate::config::{PostgresTarget, SecretError, Target, TargetKind};
use crate::gate::{Fault, Gate};
use crate::identity::Identity;
use crate::listener::{Accepted, HANDSHAKE_DEADLINE};
use crate::names::{Protocol, SessionId, TargetName};
use crate::secret::Secret;

use cancel::{CancelKey, Cancels};
pub use handshake::ALPN;
use handshake::{Purpose, Turned, ask_password, greet, say_goodbye, startup_message};
use masking::{Catalogs, TargetCatalog};
use parameters::Wanted;
use reader::Reader;
use refusal::Refusal;
use session::Session;
use stream::Stream;
use upstream::{Connector, ProtocolVersion, Upstream, UpstreamError};

/// How long a client may take to read the gateway's last words.
const GOODBYE: Duration = Duration::from_secs(2);

/// What every Postgres session needs of the gateway.
#[derive(Debug)]
pub struct Context {
    /// What all protocols share.
    pub gateway: Arc<Gateway>,
    /// TLS towards clients, with [`ALPN`] as its only protocol.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Whether a token may come without TLS from beyond loopback.
    pub insecure: bool,
    sessions: Open,
}

/// What the open sessions share.
#[derive(Debug)]
struct Open {
    reader: Arc<Reader>,
    cancels: Arc<Cancels>,
    /// A connector is kept while its target is the catalog's.
    connectors: Mutex<HashMap<TargetName, (Arc<Target>, Connector)>>,
    catalogs: Arc<Catalogs>,
}

impl Context {
    /// What a gateway's Postgres listener needs. Starts a thread.
    pub fn new(gateway: Arc<Gateway>) -> io::Result<Self> {
        let sessions = Open {
            reader: Arc::new(Reader::start()?),
            cancels: Arc::default(),
            connectors: Mutex::default(),
            catalogs: Arc::default(),
        };
        Ok(Self { gateway, tls: None, insecure: false, sessions })
    }

    /// What sessions made the gateway read of targets' catalogs.
    pub fn held(&self) -> Arc<dyn HeldModes> {
        Arc::<Catalogs>::clone(&self.sessions.catalogs)
    }
}

/// Serves one connection from its first byte to its last.
pub async fn serve(accepted: Accepted, context: Arc<Context>) {
    let Accepted { stream, client, handshake } = accepted;
    let (stream, purpose) =
        match timeout(HANDSHAKE_DEADLINE, greet(stream, context.tls.as_ref())).await {
            Ok(greeted) => greeted,
            Err(_) => (None, Err(Turned::Dropped("no startup message within the deadline"))),
        };
    let Some(mut stream) = stream else {
        if let Err(turned) = purpose {
            tracing::debug!(%client, reason = %turned, "connection dropped");
        }
        return;
    };
    let opened = match purpose {
        Ok(Purpose::Cancel(request)) => {
            context.sessions.cancels.pass_on(&request).await;
            // The client waits for the end, and takes one without TLS' own for a failure.
            let _closed = timeout(GOODBYE, stream.shutdown()).await;
            return;
        }
        Ok(Purpose::Session(packet)) => {
            let opening = open(&mut stream, &packet, client, &context);
            match timeout(HANDSHAKE_DEADLINE, opening).await {
                Ok(opened) => opened,
                Err(_) => Err(Turned::Dropped("no session within the deadline")),
            }
        }
        Err(turned) => Err(turned),
    };
    drop(handshake);
    match opened {
        Ok(opened) => Session::new(stream, opened, context).run().await,
        Err(Turned::Away(refusal)) => say_goodbye(&mut stream, &refusal).await,
        Err(turned) => tracing::debug!(%client, reason = %turned, "connection dropped"),
    }
}

/// A session whose target has let the gateway in.
struct OpenSession {
    gate: Arc<Gate>,
    upstream: Upstream,
    /// What masks ask about the database.
    tables: Arc<TargetCatalog>,
    /// The search path that it was opened with; asked for where masks need it.
    search_path: Option<Arc<str>>,
    cancel_key: CancelKey,
    admitted: Admitted,
}

/// From a startup message to a target that is ready: identity, access, recording, upstream.
async fn open(
    stream: &mut Stream,
    packet: &[u8],
    client: std::net::SocketAddr,
    context: &Arc<Context>,
) -> Result<OpenSession, Turned> {
    let startup = startup_message(packet)?;
    let wanted = Wanted::read(&startup).map_err(|refusal| {
        tracing::warn!(%client, reason = refusal.message(), "startup parameters refused");
        Turned::Away(refusal)
    })?;
    if !stream.is_tls() && !client.ip().is_loopback() && !context.insecure {
        return Err(Turned::Away(Refusal::TlsRequired));
    }
    let minor = if startup.minor >= 2 { 2 } else { 0 };
    let unknown: Vec<&str> = wanted.unknown_options.iter().map(String::as_str).collect();
    let negotiation = (startup.minor != minor || !unknown.is_empty())
        .then(|| refusal::negotiate_version(minor, &unknown));
    let token = ask_password(stream, negotiation).await?;

    let caller = Caller { gateway: &context.gateway, client, wanted: &wanted };
    let identity = caller.prove(&token).await?;
    drop(token);
    let (admitted, gate) = caller.admit(&identity).await?;
    let gate = Arc::new(gate);
    settings::decide(&gate, &wanted).await?;
    let (mut upstream, tables, search_path) = match connect(context, &gate, &wanted).await {
        Ok(connected) => connected,
        Err(error) => {
            gate.not_reached(error.fault(), &error).await;
            let target = gate.grant().target().name.clone();
            return Err(Turned::Away(error.refusal(target, &wanted)));
        }
    };
    let notice = wanted.other_encoding.as_deref().map(refusal::other_encoding);
    upstream.notices.extend(notice.map(|words| words.as_bytes().clone()));
    let entered = CancelKey::enter(
        &context.sessions.cancels,
        minor,
        upstream.cancel.clone(),
        Arc::clone(&gate),
    );
    match entered {
        Ok(cancel_key) => {
            gate.grant().opens();
            Ok(OpenSession { gate, upstream, tables, search_path, cancel_key, admitted })
        }
        Err(_) => Err(Turned::Dropped("no randomness for a cancel key")),
    }
}

/// Who knocks, and for what.
struct Caller<'a> {
    gateway: &'a Gateway,
    client: std::net::SocketAddr,
    wanted: &'a Wanted,
}

impl Caller<'_> {
    /// Who it is.
    async fn prove(&self, token: &Secret) -> Result<Arc<Identity>, Turned> {
        let proved = self.gateway.verifier.verify(token).await;
        proved.map_err(|refused| self.denied(None, &refused))
    }

    /// Place, right and recording. Whatever is wrong, the client is told one thing; what it was
    /// stands in the log and in the gateway's own recording.
    async fn admit(&self, identity: &Arc<Identity>) -> Result<(Admitted, Gate), Turned> {
        let (gateway, wanted) = (self.gateway, self.wanted);
        let Some(place) = gateway.place() else {
            gateway.turned_away(&self.knock(), Some(identity), "no room for another session");
            return Err(Turned::Away(Refusal::TooManySessions));
        };
        let target = gateway.target(Protocol::Postgres, wanted.target.as_ref());
        let target = target.map_err(|why| self.denied(Some(identity), &why))?;
        let TargetKind::Postgres(postgres) = &target.kind else {
            return Err(self.denied(Some(identity), &NotConnected::OtherProtocol));
        };
        let Some(database) = wanted.database_of(postgres) else {
            return Err(self.denied(Some(identity), &"the target has no such database"));
        };
        let (name, session) = (&target.name, SessionId::generate());
        let admitted = match gateway.admit(identity, name, session, place, Proofs::One).await {
            Ok(admitted) => admitted,
            Err(NoAccess::Asked(asked)) => {
                let (target, link, denied) = (name.clone(), asked.link.clone(), asked.denied);
                self.denied(Some(identity), &NoAccess::Asked(asked));
                return Err(Turned::Away(Refusal::AccessAsked { target, link, denied }));
            }
            Err(no_access) => return Err(self.denied(Some(identity), &no_access)),
        };
        let said = Said {
            database: Some(database.to_owned()),
            workflow: told(identity.workflow(), wanted.workflow.as_deref()),
            run: told(identity.run(), wanted.run.as_deref()),
            parameters: wanted.stored().collect(),
        };
        match admitted.record(gateway, self.client, said) {
            Ok(gate) => Ok((admitted, gate)),
            Err(_) => Err(Turned::Away(Refusal::NotRecorded)),
        }
    }

    fn denied(&self, identity: Option<&Identity>, why: &impl std::fmt::Display) -> Turned {
        self.gateway.denied(&self.knock(), identity, &why.to_string());
        Turned::Away(Refusal::AccessDenied)
    }

    fn knock(&self) -> Knock<'_> {
        Knock { protocol: Protocol::Postgres, client: self.client, named: &self.wanted.named }
    }
}

impl Wanted {
    /// The database of the target that is meant, if it may be named.
    fn database_of<'a>(&self, target: &'a PostgresTarget) -> Option<&'a str> {
        match &self.database {
            None => Some(&target.database),
            Some(wanted) => std::iter::once(&target.database)
                .chain(&target.databases)
                .find(|listed| *listed == wanted)
                .map(String::as_str),
        }
    }
}

/// Opens the target with its own credential, once for each database that callers may name, and
/// closes it again: whether the gateway could, for `portcullis check --online`.
pub async fn probe(target: &PostgresTarget) -> Vec<String> {
    let password = match target.password.read().await {
        Ok(password) => password,
        Err(error) => return vec![error.to_string()],
    };
    let connector = match Connector::new(target) {
        Ok(connector) => connector,
        Err(error) => return vec![error.to_string()],
    };
    let mut problems = Vec::new();
    for database in std::iter::once(&target.database).chain(&target.databases) {
        let opened = connector.connect(database, ProtocolVersion::V3_0, &[], &password).await;
        problems.extend(opened.err().map(|error| format!("database {database}: {error}")));
    }
    problems
}

/// Opens the target with its own credential. An open gate is the proof that the caller may, and
/// that the session is being recorded.
async fn connect(
    context: &Context,
    gate: &Gate,
    wanted: &Wanted,
) -> Result<(Upstream, Arc<TargetCatalog>, Option<Arc<str>>), NotConnected> {
    let target = gate.grant().target();
    let TargetKind::Postgres(postgres) = &target.kind else {
        return Err(NotConnected::OtherProtocol);
    };
    let connector = context.sessions.connector(target, postgres)?;
    let password = postgres.password.read().await?;
    let database = wanted.database_of(postgres).unwrap_or(&postgres.database);
    let parameters = &wanted.settings;
    let tables = context.sessions.catalogs.of(target, &connector, database);
    let upstream =
        connector.connect(database, ProtocolVersion::V3_0, parameters, &password).await?;
    if !gate.masks().masks_columns() {
        return Ok((upstream, tables, None));
    }
    let (upstream, search_path) = upstream.with_setting("search_path").await?;
    Ok((upstream, tables, Some(search_path)))
}

/// Why a target was not reached; for operators alone.
#[derive(Debug, thiserror::Error)]
enum NotConnected {
    #[error("the target is no Postgres database")]
    OtherProtocol,
    #[error("the credential cannot be read: {0}")]
    Credential(#[from] SecretError),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

impl NotConnected {
    /// Whose fault it is: what only the operator can mend is the operator's.
    fn fault(&self) -> Fault {
        match self {
            Self::OtherProtocol | Self::Credential(_) => Fault::Operator,
            Self::Upstream(error) if error.is_of_configuration() => Fault::Operator,
            Self::Upstream(_) => Fault::Target,
        }
    }

    /// What the client is told: the server's own refusal where it concerns the client and names
    /// nothing else.
    fn refusal(&self, target: TargetName, wanted: &Wanted) -> Refusal {
        let Self::Upstream(UpstreamError::Server(error)) = self else {
            return Refusal::Unreachable(target);
        };
        let sent = |name: &str| {
            let same = |own: &str| own.eq_ignore_ascii_case(name);
            wanted.settings.iter().any(|(key, value)| same(key) || value == name)
        };
        let Some((code, own)) = error.for_client(sent) else {
            return Refusal::Unreachable(target);
        };
        let message = own.map(str::to_owned).unwrap_or_else(|| match code {
            "3D000" => match &wanted.database {
                Some(named) => format!("target \"{target}\" has no database \"{named}\""),
                None => format!("the database of target \"{target}\" does not exist"),
            },
            "53300" => format!("target \"{target}\" has no room for another connection"),
            _ => format!("target \"{target}\" does not take connections now"),
        });
        Refusal::Target { code, message }
    }
}

impl Open {
    fn connector(
        &self,
        target: &Arc<Target>,
        postgres: &PostgresTarget,
    ) -> Result<Connector, UpstreamError> {
        let mut connectors = self.connectors.lock();
        if let Some((of, connector)) = connectors.get(&target.name)
            && Arc::ptr_eq(of, target)
        {
            return Ok(connector.clone());
        }
        let connector = Connector::new(postgres)?;
        connectors.insert(target.name.clone(), (Arc::clone(target), connector.clone()));
        Ok(connector)
    }
}
