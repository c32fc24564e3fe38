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
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Response, VerifiedPublicKey,
};
use russh::{
    Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Disconnect, MethodKind, MethodSet,
    Pty, Sig,
};
use tokio::sync::oneshot;

use crate::decode::shell;
use crate::decode::ssh::{Forward, may_pass, message::Size, shell, subsystem};
use crate::gate::Gate;
use crate::names::SessionId;
use crate::secret::Secret;

use super::Context;
use super::channel::{Terminal, What};
use super::deadline::Deadline;
use super::device::DeviceLogin;
use super::flow_control::Windows;
use super::inbox::{Inbox, Item};
use super::login::{Caller, Login};
use super::session::Session;

pub(super) type Answer = Result<(), russh::Error>;

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
    pub(super) context: Arc<Context>,
    /// The session's, once there is one.
    id: SessionId,
    pub(super) client: SocketAddr,
    state: State,
    pub(super) channels: HashMap<ChannelId, Open>,
    /// How much had passed when a stalled channel trickled last.
    trickled: u64,
    windows: Windows,
    /// The last user name that came with a key and no certificate.
    bare_key: Option<String>,
    /// Whether the client has presented something that was refused: a key, a certificate, a token.
    /// It is no client for a browser then.
    pub(super) presented: bool,
    pub(super) device: DeviceLogin,
    pub(super) deadline: Arc<Deadline>,
}

enum State {
    /// Nobody has proved anything; whoever waits for it is told of the session.
    Unproved(Option<oneshot::Sender<Arc<Session>>>),
    /// Proved, and about to be told so.
    Proved(Login, Option<oneshot::Sender<Arc<Session>>>),
    Open(Arc<Session>),
    /// There is no room for it.
    Refused,
}

/// An open channel.
pub(super) struct Open {
    pub(super) inbox: Arc<Inbox>,
    /// Taken by what runs on it; nothing else may run then.
    pub(super) setup: Option<Setup>,
}

/// What is known of a channel before anything runs on it.
pub(super) struct Setup {
    pub(super) down: ChannelWriteHalf<Msg>,
    pub(super) terminal: Option<Terminal>,
    pub(super) variables: Vec<(String, String)>,
}

impl Connection {
    pub(super) fn new(
        context: Arc<Context>,
        client: SocketAddr,
        open: oneshot::Sender<Arc<Session>>,
        deadline: Arc<Deadline>,
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
            presented: false,
            device: DeviceLogin::default(),
            deadline,
        }
    }

    pub(super) fn caller<'a>(&'a self, user: &'a str) -> Caller<'a> {
        Caller { context: &self.context, client: self.client, user, session: self.id }
    }

    pub(super) fn proved(&mut self, login: Option<Login>) -> Auth {
        self.bare_key = None;
        let (Some(login), State::Unproved(open)) = (login, &mut self.state) else {
            return self.refused();
        };
        self.state = State::Proved(login, open.take());
        Auth::Accept
    }

    /// Refuses what was presented. A login with a browser is not offered after it: a program whose
    /// certificate or token is over would wait for somebody who is not there. An expired
    /// certificate is not shown to this handler, only its key before it, so a key counts too.
    pub(super) fn refused(&mut self) -> Auth {
        self.presented = true;
        let methods = [MethodKind::PublicKey, MethodKind::Password];
        Auth::Reject {
            proceed_with_methods: Some(MethodSet::from(methods.as_slice())),
            partial_success: false,
        }
    }

    /// The session, and its gate; ends the session when it cannot be recorded.
    pub(super) fn gate(&self) -> Option<(Arc<Session>, Arc<Gate>)> {
        let State::Open(session) = &self.state else { return None };
        match session.gate() {
            Ok(gate) => Some((Arc::clone(session), gate)),
            Err(failure) => {
                tracing::error!(%failure, "session refused: it cannot be recorded");
                session.fail(failure.into());
                None
            }
        }
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
            let reason = "a key without a certificate, or with one that is out of date";
            self.caller(user).denied(None, reason);
        }
        for open in self.channels.values() {
            open.inbox.close();
        }
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        let token = Secret::new(password.to_owned());
        let login = self.caller(user).with_token(token).await;
        if login.is_none() {
            // The same token is not tried again, and asking a program for another is of no use.
            self.presented = true;
            return Ok(Auth::Reject {
                proceed_with_methods: Some(MethodSet::from([MethodKind::PublicKey].as_slice())),
                partial_success: false,
            });
        }
        Ok(self.proved(login))
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        Ok(self.with_browser(user, response).await)
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
        Ok(self.refused())
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, russh::Error> {
        let login = self.caller(user).with_certificate(certificate).await;
        Ok(self.proved(login))
    }

    async fn auth_succeeded(&mut self, session: &mut russh::server::Session) -> Answer {
        let State::Proved(login, open) = std::mem::replace(&mut self.state, State::Refused) else {
            return Err(russh::Error::Inconsistent);
        };
        let Login::Admitted(admitted) = login else {
            let words = "the gateway has no room for another session";
            return session.disconnect(Disconnect::TooManyConnections, words, "");
        };
        let version = String::from_utf8_lossy(session.remote_sshid()).into_owned();
        let client = (self.client, version);
        let own = Session::new(Arc::clone(&self.context), *admitted, client);
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
        self.connect(channel, (host, port), reply, session.handle()).await;
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
