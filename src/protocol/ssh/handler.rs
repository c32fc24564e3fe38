//! What a client asks for, in the order in which it asks: every request is answered before the
//! next one is looked at, so that of pipelined requests each gets its own answer.
//!
//! The calls here run on the connection's own loop. They decide and record, and hand the rest to
//! the channel's task; none waits for the target.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use russh::keys::{Algorithm, Certificate};
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Disconnect, Pty, Sig};
use tokio::sync::oneshot;

use crate::access::Grant;
use crate::decode::shell;
use crate::decode::ssh::{Forward, may_pass, message::Size, shell, subsystem};
use crate::gate::{Gate, Permitted, Ruling};
use crate::names::SessionId;
use crate::policy::Command;
use crate::recording::{Outcome, Sequence};

use super::Context;
use super::channel::{self, Channel as Running, Start, Terminal, What};
use super::end::End;
use super::forward;
use super::inbox::{Inbox, Item};
use super::login::Caller;
use super::session::{Running as RunningChannel, Session};
use super::window::Windows;
use super::words::Refusal;

type Answer = Result<(), russh::Error>;

/// Channels of one connection at a time; clients need a handful.
const MAX_CHANNELS: usize = 64;
/// Variables of one channel that pass.
const MAX_VARIABLES: usize = 32;
/// The longest name of a terminal's kind.
const MAX_TERM: usize = 64;
/// How long a stalled channel that trickles waits while nothing else happens.
const TRICKLE_PAUSE: Duration = Duration::from_millis(10);
const TRICKLE: usize = 2;

/// One client's connection, as russh calls it.
pub(super) struct Connection {
    context: Arc<Context>,
    /// The session's, once there is one.
    id: SessionId,
    client: SocketAddr,
    state: State,
    channels: HashMap<ChannelId, Open>,
    /// How much had passed when a stalled channel trickled last.
    trickled: u64,
    windows: Windows,
    /// The last user name that came with a key and no certificate.
    bare_key: Option<String>,
}

enum State {
    /// Nobody has proved anything; whoever waits for it is told of the session.
    Unproved(Option<oneshot::Sender<Arc<Session>>>),
    /// Proved, and about to be told so.
    Proved(Box<Grant>, Option<oneshot::Sender<Arc<Session>>>),
    Open(Arc<Session>),
    /// There is no room for it.
    Refused,
}

/// An open channel.
struct Open {
    inbox: Arc<Inbox>,
    /// Taken by what runs on it; nothing else may run then.
    setup: Option<Setup>,
}

/// What is known of a channel before anything runs on it.
struct Setup {
    down: ChannelWriteHalf<Msg>,
    terminal: Option<Terminal>,
    variables: Vec<(String, String)>,
}

/// A connection that the target may make.
struct Allowed {
    own: Arc<Session>,
    gate: Arc<Gate>,
    of: Sequence,
    permitted: Permitted,
    running: RunningChannel,
}

impl Connection {
    pub(super) fn new(
        context: Arc<Context>,
        client: SocketAddr,
        open: oneshot::Sender<Arc<Session>>,
    ) -> Self {
        let state = State::Unproved(Some(open));
        Self {
            context,
            id: SessionId::generate(),
            client,
            state,
            channels: HashMap::new(),
            trickled: 0,
            windows: Windows::default(),
            bare_key: None,
        }
    }

    fn caller<'a>(&'a self, user: &'a str) -> Caller<'a> {
        Caller { context: &self.context, client: self.client, user, session: self.id }
    }

    fn proved(&mut self, grant: Option<Grant>) -> Auth {
        self.bare_key = None;
        let (Some(grant), State::Unproved(open)) = (grant, &mut self.state) else {
            return Auth::reject();
        };
        self.state = State::Proved(Box::new(grant), open.take());
        Auth::Accept
    }

    /// The session, and its gate; ends the session when it cannot be recorded.
    fn gate(&self) -> Option<(Arc<Session>, Arc<Gate>)> {
        let State::Open(session) = &self.state else { return None };
        match session.gate() {
            Ok(gate) => Some((Arc::clone(session), gate)),
            Err(failure) => {
                tracing::error!(%failure, "session refused: it cannot be recorded");
                session.fail(End::NotRecorded(failure));
                None
            }
        }
    }

    /// Decides and records what should run on a channel, and lets it run or says why not.
    async fn run(
        &mut self,
        id: ChannelId,
        what: What,
        mut command: Command,
        exact: Bytes,
        session: &mut russh::server::Session,
    ) -> Answer {
        let Some(open) = self.channels.get_mut(&id) else { return Ok(()) };
        let inbox = Arc::clone(&open.inbox);
        // A second command on a channel is not one (RFC 4254 section 6.5).
        let Some(setup) = open.setup.take() else { return session.channel_failure(id) };
        let Some((own, gate)) = self.gate() else { return session.channel_failure(id) };
        let number = id.number();
        channel::describe(&mut command, number, setup.terminal.as_ref(), &setup.variables);
        let admitted = gate
            .admit(exact.clone(), |admission| {
                let (of, ruling) = admission.command(0..exact.len(), &command, None, false);
                if let Some(terminal) = &setup.terminal {
                    admission.data_as(0..0, Some(of), &terminal.recorded(number));
                }
                (of, ruling)
            })
            .await;
        let (permitted, (of, ruling)) = match admitted {
            Ok(admitted) => admitted,
            Err(failure) => {
                own.fail(End::NotRecorded(failure));
                return session.channel_failure(id);
            }
        };
        session.channel_success(id)?;
        let decided = match ruling {
            Ruling::Refused(decision) => Err(Refusal::policy(&decision, gate.session())),
            Ruling::Passes => Ok(None),
            Ruling::Held(mut held) => {
                held.caution("what the client sends to it while it runs is not part of this");
                Ok(Some(held))
            }
        };
        let running = decided.and_then(|held| match own.begin() {
            Ok(running) => Ok((held, running)),
            Err(words) => Err(Refusal::Closing(words)),
        });
        let Setup { down, terminal, variables } = setup;
        let channel =
            Running { session: Arc::clone(&own), gate, inbox, down, handle: session.handle(), of };
        match running {
            Ok((held, running)) => {
                let start = Start { what, permitted, terminal, variables };
                own.tasks.spawn(async move {
                    match held {
                        None => channel.run(start, running).await,
                        Some(held) => channel.run_once_approved(*held, start, running).await,
                    }
                });
            }
            Err(refusal) => {
                own.tasks.spawn(async move { channel.refuse(&refusal).await });
            }
        }
        Ok(())
    }

    /// Decides and records what is never relayed.
    async fn forward(&self, forward: Forward<'_>) {
        let Some((session, gate)) = self.gate() else { return };
        let command = forward.command();
        let decided = gate.admit(Bytes::new(), |admission| {
            let (_, ruling) = admission.command(0..0, &command, None, false);
            if matches!(ruling, Ruling::Passes) {
                let text = format!("{} was refused: it is never forwarded", command.text);
                admission.note("forward", text);
            }
        });
        if let Err(failure) = decided.await {
            session.fail(End::NotRecorded(failure));
        }
    }

    /// Decides and records a connection that the target would make; none when it may not be.
    async fn decide_forward(&self, forward: Forward<'_>, exact: Bytes) -> Option<Allowed> {
        let (own, gate) = self.gate()?;
        let command = forward.command();
        let length = exact.len();
        let admitted = gate
            .admit(exact, |admission| admission.command(0..length, &command, None, false))
            .await;
        let (permitted, (of, ruling)) = match admitted {
            Ok(admitted) => admitted,
            Err(failure) => {
                own.fail(End::NotRecorded(failure));
                return None;
            }
        };
        match ruling {
            Ruling::Passes => {}
            Ruling::Refused(_) => return None,
            Ruling::Held(_) => {
                let outcome = Outcome { error: Some(forward::not_held()), ..Outcome::default() };
                let nothing = gate.mask(Bytes::new());
                let told = gate.release(nothing, |release, _| release.outcome(of, &outcome));
                if let Err(failure) = told {
                    own.fail(End::NotRecorded(failure));
                }
                return None;
            }
        }
        let running = own.begin().ok()?;
        Some(Allowed { own, gate, of, permitted, running })
    }

    /// Whether there is no room for another channel. One that the gateway closed first is not
    /// told of again.
    fn is_full(&mut self) -> bool {
        self.channels.retain(|_, open| open.setup.is_some() || !open.inbox.is_closed());
        self.channels.len() >= MAX_CHANNELS
    }

    fn inbox(&self, id: ChannelId) -> Option<Arc<Inbox>> {
        self.channels.get(&id).map(|open| Arc::clone(&open.inbox))
    }

    fn setup(&mut self, id: ChannelId) -> Option<&mut Setup> {
        self.channels.get_mut(&id)?.setup.as_mut()
    }
}

impl Drop for Connection {
    /// The connection is over, and so are its channels.
    fn drop(&mut self) {
        if let Some(user) = &self.bare_key {
            self.caller(user).denied(None, "a key without a certificate");
        }
        for open in self.channels.values() {
            open.inbox.close();
        }
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        let grant = self.caller(user).with_token(password).await;
        Ok(self.proved(grant))
    }

    /// A certificate cannot be told from a plain key here, so every key that is not used with
    /// SHA-1 is let through to its proof.
    async fn auth_publickey_offered(
        &mut self,
        _user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, russh::Error> {
        let sound = match offer.algorithm {
            Algorithm::Ed25519 | Algorithm::Ecdsa { .. } => true,
            Algorithm::Rsa { hash } => hash.is_some(),
            _ => false,
        };
        Ok(if sound { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        _key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        // Clients try such keys on the way to the right one; it is told of when nothing follows.
        self.bare_key = Some(user.chars().take(MAX_TERM).collect());
        Ok(Auth::reject())
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, russh::Error> {
        let grant = self.caller(user).with_certificate(certificate).await;
        Ok(self.proved(grant))
    }

    async fn auth_succeeded(&mut self, session: &mut russh::server::Session) -> Answer {
        let State::Proved(grant, open) = std::mem::replace(&mut self.state, State::Refused) else {
            return Err(russh::Error::Inconsistent);
        };
        let Some(slot) = self.context.limits.session() else {
            let words = "the gateway has no room for another session";
            return session.disconnect(Disconnect::TooManyConnections, words, "");
        };
        let version = String::from_utf8_lossy(session.remote_sshid()).into_owned();
        let client = (self.client, version);
        let own = Session::new(Arc::clone(&self.context), self.id, *grant, client, slot);
        let own = Arc::new(own);
        // Without anybody who waits for it, its time to log in is over.
        if open.is_none_or(|open| open.send(Arc::clone(&own)).is_err()) {
            return Err(russh::Error::Disconnect);
        }
        self.state = State::Open(own);
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut russh::server::Session,
    ) -> Answer {
        if self.is_full() {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        // What the client sends comes through the calls below: they alone can tell a channel
        // whose target does not read from the others.
        let id = channel.id();
        let (_, down) = channel.split();
        let setup = Setup { down, terminal: None, variables: Vec::new() };
        self.channels.insert(id, Open { inbox: Arc::default(), setup: Some(setup) });
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _from: &str,
        _from_port: u32,
        reply: ChannelOpenHandle,
        session: &mut russh::server::Session,
    ) -> Answer {
        if self.is_full() {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        let forward = Forward::Local { host, port };
        let Some(allowed) = self.decide_forward(forward, forward::exact(host, port)).await else {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        };
        let inbox: Arc<Inbox> = Arc::default();
        let id = channel.id();
        self.channels.insert(id, Open { inbox: Arc::clone(&inbox), setup: None });
        let (_, down) = channel.split();
        let Allowed { own, gate, of, permitted, running } = allowed;
        let session_of_it = Arc::clone(&own);
        let channel =
            Running { session: session_of_it, gate, inbox, down, handle: session.handle(), of };
        own.tasks.spawn(channel.forward(permitted, reply, running));
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _session: &mut russh::server::Session,
    ) -> Answer {
        self.forward(Forward::LocalSocket(path)).await;
        reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        _session: &mut russh::server::Session,
    ) -> Result<bool, russh::Error> {
        self.forward(Forward::Remote { host: address, port: *port }).await;
        Ok(false)
    }

    async fn streamlocal_forward(
        &mut self,
        path: &str,
        _session: &mut russh::server::Session,
    ) -> Result<bool, russh::Error> {
        self.forward(Forward::RemoteSocket(path)).await;
        Ok(false)
    }

    async fn agent_request(
        &mut self,
        _id: ChannelId,
        _session: &mut russh::server::Session,
    ) -> Result<bool, russh::Error> {
        self.forward(Forward::Agent).await;
        Ok(false)
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut russh::server::Session,
    ) -> Answer {
        self.forward(Forward::X11).await;
        session.channel_failure(id)
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        pixel_width: u32,
        pixel_height: u32,
        modes: &[(Pty, u32)],
        session: &mut russh::server::Session,
    ) -> Answer {
        let plain = term.len() <= MAX_TERM && term.chars().all(|c| c.is_ascii_graphic());
        match self.setup(id) {
            Some(setup) if plain && setup.terminal.is_none() => {
                setup.terminal = Some(Terminal {
                    term: term.to_owned(),
                    size: Size { columns, rows },
                    pixels: (pixel_width, pixel_height),
                    modes: modes.to_vec(),
                });
                session.channel_success(id)
            }
            _ => session.channel_failure(id),
        }
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut russh::server::Session,
    ) -> Answer {
        if let ("PORTCULLIS_WORKFLOW" | "PORTCULLIS_RUN", State::Open(own)) = (name, &self.state) {
            own.tell(name, value);
            return session.channel_success(id);
        }
        match self.setup(id) {
            Some(setup) if setup.variables.len() < MAX_VARIABLES && may_pass(name, value) => {
                setup.variables.retain(|(other, _)| other != name);
                setup.variables.push((name.to_owned(), value.to_owned()));
                session.channel_success(id)
            }
            _ => session.channel_failure(id),
        }
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        line: &[u8],
        session: &mut russh::server::Session,
    ) -> Answer {
        let exact = Bytes::copy_from_slice(line);
        self.run(id, What::Exec, shell::exec(line), exact, session).await
    }

    async fn shell_request(
        &mut self,
        id: ChannelId,
        session: &mut russh::server::Session,
    ) -> Answer {
        self.run(id, What::Shell, shell(), Bytes::new(), session).await
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut russh::server::Session,
    ) -> Answer {
        let exact = Bytes::copy_from_slice(name.as_bytes());
        self.run(id, What::Subsystem, subsystem(name), exact, session).await
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        pixel_width: u32,
        pixel_height: u32,
        _session: &mut russh::server::Session,
    ) -> Answer {
        let size = Size { columns, rows };
        match self.channels.get_mut(&id) {
            Some(Open { setup: Some(setup), .. }) => {
                if let Some(terminal) = &mut setup.terminal {
                    terminal.size = size;
                    terminal.pixels = (pixel_width, pixel_height);
                }
            }
            Some(open) => {
                open.inbox.other(Item::Resize(size, (pixel_width, pixel_height))).await;
            }
            None => {}
        }
        Ok(())
    }

    async fn signal(
        &mut self,
        id: ChannelId,
        signal: Sig,
        _session: &mut russh::server::Session,
    ) -> Answer {
        if let Some(inbox) = self.inbox(id) {
            inbox.other(Item::Signal(signal)).await;
        }
        Ok(())
    }

    async fn data(
        &mut self,
        id: ChannelId,
        data: &[u8],
        _session: &mut russh::server::Session,
    ) -> Answer {
        let Some(inbox) = self.inbox(id) else { return Ok(()) };
        if let State::Open(session) = &self.state {
            if data.len() <= TRICKLE && inbox.is_stalled() {
                // It comes again as soon as it was let; while nothing else does, not so often.
                let passed = session.activity();
                if std::mem::replace(&mut self.trickled, passed) == passed {
                    tokio::time::sleep(TRICKLE_PAUSE).await;
                }
            } else {
                session.active();
            }
        }
        inbox.data(data).await;
        Ok(())
    }

    fn adjust_window(&mut self, id: ChannelId, current: u32) -> u32 {
        let stalled = |open: &Open| open.inbox.is_stalled();
        let this = self.channels.get(&id).is_some_and(stalled);
        let another = self.channels.iter().any(|(other, open)| *other != id && stalled(open));
        self.windows.next(this, another, current)
    }

    async fn channel_eof(
        &mut self,
        id: ChannelId,
        _session: &mut russh::server::Session,
    ) -> Answer {
        if let Some(inbox) = self.inbox(id) {
            inbox.other(Item::Eof).await;
        }
        Ok(())
    }

    async fn channel_close(
        &mut self,
        id: ChannelId,
        _session: &mut russh::server::Session,
    ) -> Answer {
        if let Some(open) = self.channels.remove(&id) {
            open.inbox.close();
        }
        Ok(())
    }
}
