//! The way into a session, the same for every protocol.
//!
//! Who connects proves who they are ([`Verifier`]) and names a target ([`Gateway::target`]). Then a
//! [`Place`] for the session is taken, and only with it a right is looked for
//! ([`Gateway::admit`]), because that may use up what opens one session only. [`Admitted`] holds
//! both for as long as the session lives; [`Admitted::record`] opens its recording, and with it the
//! [`Gate`], without which no target is reached. Who gets no session is noted in one place, too
//! ([`Gateway::denied`]).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use crate::access::{Access, Grant, NoAccess};
use crate::catalog::Catalog;
use crate::config::Target;
use crate::gate::{Gate, SessionEnd, recorded_identity, still_granted};
use crate::identity::{Identity, Verifier};
use crate::listener::Limits;
use crate::names::{Protocol, SessionId, TargetName};
use crate::recording::{Opened, RecordingFailure, RefusedCaller, Store, Told};
use crate::shutdown::Shutdown;

/// As much of a target's name as is kept of those who got no session, in characters.
const NAME_KEPT: usize = 63;

/// What the listeners of all protocols share.
#[derive(Debug)]
pub struct Gateway {
    /// Targets, access and policy as of now.
    pub catalog: Arc<Catalog>,
    /// Proves tokens.
    pub verifier: Arc<Verifier>,
    /// Where sessions are recorded.
    pub store: Store,
    /// How many sessions may be open.
    pub limits: Arc<Limits>,
    /// How long what runs may go on when its session's time is over.
    pub expiry_grace: Duration,
    /// The stop.
    pub shutdown: Shutdown,
}

/// Who wants a session, as far as they say.
#[derive(Debug, Clone, Copy)]
pub struct Knock<'a> {
    /// What is spoken.
    pub protocol: Protocol,
    /// The client's address.
    pub client: SocketAddr,
    /// The target as the client named it.
    pub named: &'a str,
}

/// Whether a session ends with the proof that opened it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proofs {
    /// It does.
    One,
    /// Each of its requests brings a proof of its own.
    Many,
}

/// The place of one session among those that may be open.
#[derive(Debug)]
pub struct Place {
    _held: OwnedSemaphorePermit,
}

/// The right to one session, and its place.
#[derive(Debug)]
pub struct Admitted {
    session: SessionId,
    grant: Arc<Grant>,
    _place: Place,
}

/// What a client says of its session; nothing of it is proved but what is [`Told`] so.
#[derive(Debug, Default)]
pub struct Said {
    /// The database, where there is one.
    pub database: Option<String>,
    /// What the session is part of.
    pub workflow: Option<Told>,
    /// Which run of it.
    pub run: Option<Told>,
    /// What else is worth recording.
    pub parameters: BTreeMap<String, String>,
}

/// A name that a claim proves, or else that the client says.
pub fn told(proved: Option<&str>, said: Option<&str>) -> Option<Told> {
    let name = proved.or(said)?;
    Some(Told { name: name.to_owned(), proved: proved.is_some() })
}

impl Gateway {
    /// The target of this name, where it speaks this protocol.
    pub fn target(
        &self,
        protocol: Protocol,
        name: Option<&TargetName>,
    ) -> Result<Arc<Target>, NoAccess> {
        let rules = self.catalog.current();
        let target = name.and_then(|name| rules.target(name)).ok_or(NoAccess::UnknownTarget)?;
        match target.protocol() {
            spoken if spoken == protocol => Ok(Arc::clone(target)),
            other => Err(NoAccess::OtherProtocol(other)),
        }
    }

    /// A place for one more session, if there is one.
    pub fn place(&self) -> Option<Place> {
        self.limits.session().map(|held| Place { _held: held })
    }

    /// Looks for the right to a new session. What opens one session only is used when this
    /// returns, and given back when [`Admitted`] is dropped before the session is open.
    ///
    /// # Errors
    /// When there is no right. Where people could grant it they are asked.
    pub async fn admit(
        &self,
        identity: &Arc<Identity>,
        target: &TargetName,
        session: SessionId,
        place: Place,
        proofs: Proofs,
    ) -> Result<Admitted, NoAccess> {
        let rules = self.catalog.current();
        let access = Access::new(Arc::clone(self.catalog.desk()));
        let grant = access.admit(&rules, identity, target, session).await?;
        let grant = match proofs {
            Proofs::One => grant,
            Proofs::Many => grant.of_many_proofs(),
        };
        Ok(Admitted { session, grant: Arc::new(grant), _place: place })
    }

    /// Notes, and counts, somebody who gets no session.
    pub fn denied(&self, knock: &Knock<'_>, identity: Option<&Identity>, reason: &str) {
        self.turned_away(knock, identity, reason);
        self.catalog.desk().metrics().denied(knock.protocol);
    }

    /// Notes somebody who gets no session for a reason that lies with the gateway.
    pub fn turned_away(&self, knock: &Knock<'_>, identity: Option<&Identity>, reason: &str) {
        self.store.refused(&RefusedCaller {
            protocol: knock.protocol,
            client: knock.client.to_string(),
            target: knock.named.chars().take(NAME_KEPT).collect(),
            identity: identity.map(recorded_identity),
            reason: reason.to_owned(),
        });
    }
}

impl Admitted {
    /// The session's id.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The right.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// How the session must end because somebody ended it, or because its right holds no more.
    pub fn lost(&self, gateway: &Gateway) -> Option<SessionEnd> {
        let held = still_granted(&self.grant, self.session, &gateway.catalog);
        held.err().map(|why| SessionEnd::lost(&why))
    }

    /// Waits for whatever ends a session from outside: its time, a right that is gone, the
    /// gateway's stop, which lets it come to rest first. Cancel safe where `rest` is.
    pub async fn ended<F: Future<Output = ()>>(
        &self,
        gateway: &Gateway,
        opened: Instant,
        rest: impl Fn() -> F,
    ) -> SessionEnd {
        let mut changes = gateway.catalog.changes();
        loop {
            tokio::select! {
                () = self.grant.ends().over(opened) => return SessionEnd::expired(),
                changed = changes.changed() => {
                    if changed.is_err() {
                        return SessionEnd::shutdown();
                    }
                    if let Some(end) = self.lost(gateway) {
                        return end;
                    }
                }
                () = async {
                    gateway.shutdown.draining().await;
                    rest().await;
                } => return SessionEnd::shutdown(),
                () = gateway.shutdown.cutting() => return SessionEnd::shutdown(),
            }
        }
    }

    /// Opens the session's recording: only now may its target be reached.
    ///
    /// # Errors
    /// When it cannot be recorded; there is no session then.
    pub fn record(
        &self,
        gateway: &Gateway,
        client: SocketAddr,
        said: Said,
    ) -> Result<Gate, RecordingFailure> {
        let (identity, target) = (self.grant.identity(), self.grant.target());
        let opened = Opened {
            session: self.session,
            protocol: target.protocol(),
            target: target.name.clone(),
            database: said.database,
            client: client.to_string(),
            identity: recorded_identity(identity),
            workflow: said.workflow,
            run: said.run,
            client_parameters: said.parameters,
            policy: gateway.catalog.current().policy().hash().to_owned(),
            gateway_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let (grant, catalog) = (Arc::clone(&self.grant), Arc::clone(&gateway.catalog));
        let gate = Gate::open(grant, catalog, &gateway.store, &opened).inspect_err(|failure| {
            let target = &target.name;
            tracing::error!(%target, %failure, "session refused: it cannot be recorded");
        })?;
        let (session, username) = (self.session, identity.username());
        tracing::info!(%session, target = %target.name, username, "session opened");
        Ok(gate.with_grace(gateway.expiry_grace))
    }
}
