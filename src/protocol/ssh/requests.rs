//! What clients want to run, or have connected: decided, recorded, and handed to a task of its own
//! or refused.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use russh::server::{ChannelOpenHandle, Handle, Msg};
use russh::{ChannelId, ChannelOpenFailure};

use crate::clock::Now;
use crate::decode::ssh::Forward;
use crate::decode::ssh::lines::TypedLines;
use crate::gate::{Gate, Permitted, Ruling};
use crate::policy::Command;
use crate::recording::{Outcome, Sequence};

use super::channel::{self, Channel, Start, What};
use super::forward;
use super::handler::{Answer, Connection, Open, Setup};
use super::inbox::Inbox;
use super::masking::{Carries, Masking, NO_FILES, NO_FORWARDS};
use super::messages::Refusal;
use super::session::{Running, Session};

/// A connection that the target may make.
struct Allowed {
    own: Arc<Session>,
    gate: Arc<Gate>,
    masking: Masking,
    of: Sequence,
    permitted: Permitted,
    running: Running,
}

impl Connection {
    /// Decides and records what should run on a channel, and lets it run or says why not.
    pub(super) async fn run(
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
        // What cannot be recorded ends the session, which says so.
        let Some((own, gate)) = self.gate() else { return Ok(()) };
        let number = id.number();
        channel::describe(&mut command, number, setup.terminal.as_ref(), &setup.variables);
        let carries = match &*exact {
            b"sftp" if what == What::Subsystem => Carries::Anything,
            _ => Carries::of(&command, setup.terminal.is_some()),
        };
        let masking = Masking::new(gate.masks(), carries);
        // Of sftp each operation is looked at by itself.
        let whole = carries == Carries::Anything && what == What::Exec;
        let against = if whole { masking.against(NO_FILES) } else { None };
        let admitted = gate
            .admit(exact.clone(), |plan| {
                let (of, ruling) = masking.decide(plan, 0..exact.len(), &command, against);
                if let Some(terminal) = &setup.terminal {
                    plan.data_as(0..0, Some(of), &terminal.recorded(number));
                }
                (of, ruling)
            })
            .await;
        let (permitted, (of, ruling)) = match admitted {
            Ok(admitted) => admitted,
            Err(not_admitted) => {
                own.fail(not_admitted.into());
                return Ok(());
            }
        };
        session.channel_success(id)?;
        let decided = match ruling {
            Ruling::Refused(decision) => Err(Refusal::policy(&decision, gate.session())),
            Ruling::Passes => Ok(None),
            Ruling::Pending(mut held) => {
                held.caution("what the client sends to it while it runs is not part of this");
                Ok(Some(held))
            }
        };
        let running = decided.and_then(|held| match own.begin() {
            Ok(running) => Ok((held, running)),
            Err(words) => Err(Refusal::Closing(words)),
        });
        let Setup { down, terminal, variables } = setup;
        let handle = session.handle();
        let lines = terminal.as_ref().map(|terminal| Mutex::new(TypedLines::new(terminal.size)));
        let session = Arc::clone(&own);
        let channel = Channel { session, gate, masking, lines, inbox, down, handle, of };
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
    pub(super) async fn forward(&self, forward: Forward<'_>) {
        let Some((session, gate)) = self.gate() else { return };
        let command = forward.command();
        let masking = Masking::new(gate.masks(), Carries::Anything);
        let decided = gate.record(|plan| {
            let (_, ruling) = masking.decide(plan, 0..0, &command, None);
            if matches!(ruling, Ruling::Passes) {
                let text = "it was refused: such a thing is never forwarded".to_owned();
                plan.note("forward", text);
            }
        });
        if let Err(failure) = decided.await {
            session.fail(failure.into());
        }
    }

    /// Opens a connection that the target makes, or says no.
    pub(super) async fn connect(
        &mut self,
        channel: russh::Channel<Msg>,
        (host, port): (&str, u32),
        reply: ChannelOpenHandle,
        handle: Handle,
    ) {
        let forward = Forward::Local { host, port };
        let Some(allowed) = self.decide_forward(forward, forward::exact(host, port)).await else {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return;
        };
        let inbox: Arc<Inbox> = Arc::default();
        let id = channel.id();
        self.channels.insert(id, Open { inbox: Arc::clone(&inbox), setup: None });
        let (_, down) = channel.split();
        let Allowed { own, gate, masking, of, permitted, running } = allowed;
        let (session, lines) = (Arc::clone(&own), None);
        let channel = Channel { session, gate, masking, lines, inbox, down, handle, of };
        own.tasks.spawn(channel.forward(permitted, reply, running));
    }

    /// Decides and records a connection that the target would make; none when it may not be.
    async fn decide_forward(&self, forward: Forward<'_>, exact: Bytes) -> Option<Allowed> {
        let (own, gate) = self.gate()?;
        let command = forward.command();
        let length = exact.len();
        let masking = Masking::new(gate.masks(), Carries::Anything);
        let against = masking.against(NO_FORWARDS);
        let admitted =
            gate.admit(exact, |plan| masking.decide(plan, 0..length, &command, against)).await;
        let (permitted, (of, ruling)) = match admitted {
            Ok(admitted) => admitted,
            Err(not_admitted) => {
                own.fail(not_admitted.into());
                return None;
            }
        };
        match ruling {
            Ruling::Passes => {}
            Ruling::Refused(_) => return None,
            Ruling::Pending(_) => {
                let outcome = Outcome { error: Some(forward::not_held()), ..Outcome::default() };
                let nothing = gate.mask(Bytes::new());
                let told =
                    gate.release(Now::read(), nothing, |release, _| release.outcome(of, &outcome));
                if let Err(failure) = told {
                    own.fail(failure.into());
                }
                return None;
            }
        }
        let running = own.begin().ok()?;
        Some(Allowed { own, gate, masking, of, permitted, running })
    }
}
