//! sftp, request by request: what names a file is a command of its own, what goes on with a file
//! that was opened belongs to the command that opened it, and what is not allowed is answered
//! here.
//!
//! Only whole packets pass, each recorded first. Nothing passes before the target said that it
//! speaks version 3, because other versions mean other things by the same bytes.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::decode::sftp::{
    self, Body, Packets, Request, Response, Status, permission_denied, status, texts,
};
use crate::gate::{Permitted, Released, Ruling};
use crate::policy::{Command, Effect};
use crate::recording::{CommandError, Outcome, Sequence};

use super::channel::{Broken, micros};
use super::masking::NO_FILES;
use super::relay::Relay;

/// Requests that were not answered yet; clients have some 64 on the way.
const MAX_PENDING: usize = 4_096;
/// Files that are open; servers allow some hundreds.
const MAX_HANDLES: usize = 4_096;
/// The longest handle. Source: draft-ietf-secsh-filexfer-02, section 6.2.
const MAX_HANDLE: usize = 256;
/// Answers of the gateway's own that wait for the client.
const ANSWERS: usize = 64;
/// Source: draft-ietf-secsh-filexfer-02, section 7.
const FAILURE: u32 = 4;
const UNSUPPORTED: u32 = 8;

/// One sftp channel.
pub(super) struct Sftp<'r> {
    relay: &'r Relay<'r>,
    state: Mutex<State>,
    answer: mpsc::Sender<Released>,
}

/// Answers of the gateway's own, for whoever writes to the client.
pub(super) type Answers = mpsc::Receiver<Released>;

#[derive(Default)]
struct State {
    requests: Packets,
    responses: Packets,
    asked: bool,
    ready: bool,
    /// What relative paths are relative to.
    home: Option<String>,
    pending: HashMap<u32, Pending>,
    handles: HashMap<Vec<u8>, Opened>,
}

/// A request that the target has not answered.
struct Pending {
    of: Sequence,
    kind: Kind,
    since: Instant,
}

enum Kind {
    /// It opens this path.
    Open(Vec<u8>),
    /// It asks where it is.
    Home,
    /// Any other command.
    Command,
    /// It belongs to another command.
    Part,
}

#[derive(Clone)]
struct Opened {
    of: Sequence,
    path: Vec<u8>,
}

/// What becomes of a request.
enum Next {
    /// It passes.
    Pass(Permitted),
    /// The gateway answers.
    Answer(Released),
}

impl<'r> Sftp<'r> {
    pub(super) fn new(relay: &'r Relay<'r>) -> (Self, Answers) {
        let (answer, answers) = mpsc::channel(ANSWERS);
        (Self { relay, state: Mutex::default(), answer }, answers)
    }

    /// Takes in what the client sent.
    pub(super) async fn up(&self, data: &[u8]) -> Result<(), Broken> {
        self.state.lock().requests.push(data);
        loop {
            let packet = self.state.lock().requests.next_packet();
            let Some(packet) = packet.map_err(|wrong| self.relay.malformed(wrong.0))? else {
                return Ok(());
            };
            match self.request(packet).await? {
                Next::Pass(permitted) => self.relay.send(permitted).await,
                // Nobody writes to the client any more when this fails.
                Next::Answer(released) => {
                    self.answer.send(released).await.map_err(|_| Broken::Client)?;
                }
            }
        }
    }

    async fn request(&self, packet: Bytes) -> Result<Next, Broken> {
        let malformed = |what: &str| self.relay.malformed(what);
        let request = Request::read(&packet).map_err(|wrong| malformed(wrong.0))?;
        let Some(id) = request.id else {
            if std::mem::replace(&mut self.state.lock().asked, true) {
                return Err(malformed("it begins twice"));
            }
            return self.part(packet.clone(), self.relay.channel.of).await;
        };
        let known = self.known(id, &request.body).map_err(malformed)?;
        match (request.body, known) {
            (Body::Named { operation, first, .. }, _) => {
                let kind = match operation {
                    "open" | "opendir" => Kind::Open(first.to_vec()),
                    _ => Kind::Command,
                };
                let home = self.state.lock().home.clone();
                let Some(command) = request.command(home.as_deref()) else {
                    return Err(malformed("a request that is no command"));
                };
                self.command(id, packet.clone(), command, kind).await
            }
            (Body::Open { operation: "fsetstat", .. }, Some(opened)) => {
                let first = &opened.path;
                let operation = "fsetstat";
                let body = Body::Named { operation, first, second: None, flags: 0 };
                let home = self.state.lock().home.clone();
                let Some(command) = (Request { id: Some(id), body }).command(home.as_deref())
                else {
                    return Err(malformed("a request that is no command"));
                };
                self.command(id, packet.clone(), command, Kind::Command).await
            }
            (Body::Open { operation, handle, .. }, Some(opened)) => {
                if operation == "close" {
                    self.state.lock().handles.remove(handle);
                }
                self.wait_for(id, opened.of, Kind::Part);
                self.part(packet.clone(), opened.of).await
            }
            (Body::Open { .. }, None) => self.answer(status(id, FAILURE, "no such handle")),
            (body @ (Body::Home | Body::Question(_)), _) => {
                let of = self.relay.channel.of;
                let kind = if matches!(body, Body::Home) { Kind::Home } else { Kind::Part };
                self.wait_for(id, of, kind);
                self.part(packet.clone(), of).await
            }
            (Body::Unknown | Body::Init, _) => {
                self.answer(status(id, UNSUPPORTED, "not relayed by the gateway"))
            }
        }
    }

    /// Whether a request can be one now, and the file that it goes on with.
    fn known(&self, id: u32, body: &Body<'_>) -> Result<Option<Opened>, &'static str> {
        let state = self.state.lock();
        if !state.ready {
            return Err("a request before the version is known");
        }
        if state.pending.contains_key(&id) {
            return Err("a number that is used already");
        }
        if state.pending.len() >= MAX_PENDING || state.handles.len() >= MAX_HANDLES {
            return Err("too much at once");
        }
        let Body::Open { handle, second, .. } = body else { return Ok(None) };
        if second.is_some_and(|second| !state.handles.contains_key(second)) {
            return Ok(None);
        }
        Ok(state.handles.get(*handle).cloned())
    }

    fn wait_for(&self, id: u32, of: Sequence, kind: Kind) {
        self.state.lock().pending.insert(id, Pending { of, kind, since: Instant::now() });
    }

    /// Decides a command, and records it.
    async fn command(
        &self,
        id: u32,
        packet: Bytes,
        mut command: Command,
        kind: Kind,
    ) -> Result<Next, Broken> {
        let gate = &self.relay.channel.gate;
        command.attributes.insert("channel".into(), self.relay.number.into());
        let length = packet.len();
        let masking = &self.relay.channel.masking;
        let opens = |effect: &Effect| {
            effect.action == "sftp.read"
                && effect.attributes.get("operation").is_some_and(|o| o == "open")
        };
        let reads = command.effects.iter().any(opens);
        let against = if reads { masking.against(NO_FILES) } else { None };
        let admitted =
            gate.admit(packet, |plan| masking.decide(plan, 0..length, &command, against)).await;
        self.relay.channel.session.active();
        let (permitted, (of, ruling)) = admitted?;
        match ruling {
            Ruling::Passes => {
                self.wait_for(id, of, kind);
                Ok(Next::Pass(permitted))
            }
            // An operation in the middle of a transfer does not wait for people.
            Ruling::Refused(_) | Ruling::Pending(_) => {
                let reason = match &ruling {
                    Ruling::Refused(decision) => decision.reason(),
                    _ => Some("sftp operations do not wait for approval"),
                };
                let reason = reason.unwrap_or("refused by policy");
                let refusal = permission_denied(id, reason);
                Ok(Next::Answer(self.relay.record(refusal, of)?))
            }
        }
    }

    /// Records what belongs to a command.
    async fn part(&self, packet: Bytes, of: Sequence) -> Result<Next, Broken> {
        Ok(Next::Pass(self.relay.input(packet, of).await?))
    }

    fn answer(&self, packet: Bytes) -> Result<Next, Broken> {
        Ok(Next::Answer(self.relay.record(packet, self.relay.channel.of)?))
    }

    /// Takes in what the target sent, and gives on what is whole.
    pub(super) async fn down(&self, data: &[u8]) -> Result<(), Broken> {
        self.state.lock().responses.push(data);
        loop {
            let packet = self.state.lock().responses.next_packet();
            let Some(packet) = packet.map_err(|wrong| self.relay.malformed(wrong.0))? else {
                return Ok(());
            };
            let response = Response::read(&packet);
            let mut response = response.map_err(|wrong| self.relay.malformed(wrong.0))?;
            let mut packet = packet.clone();
            if let Some(id) = response.id().filter(|_| !self.may_be_seen(&response, &packet)) {
                packet = permission_denied(id, NO_FILES);
                response = Response::Status { id, status: Status::PERMISSION_DENIED };
            }
            let answered = self.answered(&response).map_err(|what| self.relay.malformed(what))?;
            let released = self.relay.record(packet, answered.of)?;
            if let Some(outcome) = answered.outcome {
                self.relay.channel.outcome_of(answered.of, &outcome)?;
            }
            self.relay.give(None, released).await?;
        }
    }

    /// Whether masks leave an answer as it is. A handle says nothing to anybody.
    fn may_be_seen(&self, response: &Response<'_>, packet: &[u8]) -> bool {
        let masking = &self.relay.channel.masking;
        match response {
            _ if !masking.hides_files() => true,
            Response::Version(_) | Response::Handle { .. } => true,
            _ => texts(packet).is_ok_and(|texts| texts.iter().all(|t| masking.may_be_seen(t))),
        }
    }

    /// Notes what an answer says of files, and which command it belongs to.
    fn answered(&self, response: &Response<'_>) -> Result<Answered, &'static str> {
        let mut state = self.state.lock();
        let Some(id) = response.id() else {
            if *response != Response::Version(3) || !state.asked || state.ready {
                return Err("the target speaks another version");
            }
            state.ready = true;
            return Ok(Answered { of: self.relay.channel.of, outcome: None });
        };
        let Pending { of, kind, since } =
            state.pending.remove(&id).ok_or("an answer that nobody asked for")?;
        match (&kind, response) {
            (Kind::Open(path), Response::Handle { handle, .. }) => {
                if handle.len() > MAX_HANDLE {
                    return Err("a handle is too long");
                }
                state.handles.insert(handle.to_vec(), Opened { of, path: path.clone() });
            }
            (Kind::Home, Response::Name { single: Some(name), .. }) => {
                state.home = sftp::path(name, None);
            }
            (Kind::Part | Kind::Home, Response::Handle { .. }) => {
                return Err("a handle that nobody asked for");
            }
            _ => {}
        }
        let part = matches!(kind, Kind::Part | Kind::Home);
        let outcome = (!part).then(|| outcome(response, since));
        Ok(Answered { of, outcome })
    }
}

/// The command that an answer belongs to, and how it ended.
struct Answered {
    of: Sequence,
    outcome: Option<Outcome>,
}

fn outcome(response: &Response<'_>, since: Instant) -> Outcome {
    let (status, error) = match response {
        Response::Status { status, .. } if !status.is_ok() => {
            let code = status.name().to_owned();
            (None, Some(CommandError { code, message: format!("status {}", status.0) }))
        }
        Response::Status { status, .. } => (Some(status.name()), None),
        _ => (Some("ok"), None),
    };
    let duration_us = micros(since);
    Outcome { status: status.map(str::to_owned), error, duration_us, ..Outcome::default() }
}
