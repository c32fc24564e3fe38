//! Carrying one channel both ways: recorded before it passes, and no faster than whoever takes it.

use std::time::Instant;

use bytes::Bytes;
use russh::client;
use russh::{ChannelMsg, ChannelWriteHalf, Sig};
use tokio::sync::Mutex;

use crate::decode::ssh::message;
use crate::gate::{Permitted, Released};
use crate::mask::Masked;
use crate::recording::{CommandError, Outcome, Sequence};

use super::channel::{Broken, Channel, Start, What, micros};
use super::inbox::Item;
use super::messages::Refusal;
use super::outbox::Outbox;
use super::sftp::{Answers, Sftp};

/// The longest message that a target's exit signal may carry.
const MAX_MESSAGE: usize = 1_024;

/// A client's channel and the target's.
pub(super) struct Relay<'c> {
    pub(super) channel: &'c Channel,
    /// The client's number of the channel.
    pub(super) number: u32,
    up: ChannelWriteHalf<client::Msg>,
    from: Mutex<Outbox>,
    /// Of what is typed only its length is recorded.
    withhold: bool,
    began: Instant,
}

impl<'c> Relay<'c> {
    pub(super) fn new(
        channel: &'c Channel,
        upstream: russh::Channel<client::Msg>,
        withhold: bool,
        began: Instant,
    ) -> Self {
        let (from, up) = upstream.split();
        let number = channel.down.id().number();
        Self { channel, number, up, from: Mutex::new(Outbox::new(from)), withhold, began }
    }

    /// Starts the command and carries it to its end. What is left is to close the channel.
    pub(super) async fn carry(&self, start: Start) -> Result<(), Broken> {
        let is_sftp = self.start(start).await?;
        let (sftp, answers) = is_sftp.then(|| Sftp::new(self)).unzip();
        tokio::select! {
            Err(broken) = self.upwards(sftp.as_ref()) => Err(broken),
            carried = self.downwards(sftp.as_ref(), answers) => carried,
        }
    }

    /// Carries what stands already and speaks no protocol of ours. What is left is to close the
    /// channel.
    pub(super) async fn carry_bytes(&self) -> Result<(), Broken> {
        tokio::select! {
            Err(broken) = self.upwards(None) => Err(broken),
            carried = self.downwards(None, None) => carried,
        }
    }

    /// Asks the target for what was decided. Says whether it speaks sftp.
    async fn start(&self, start: Start) -> Result<bool, Broken> {
        let mut sftp = false;
        let asked = async {
            for (name, value) in &start.variables {
                self.up.set_env(false, name, value).await?;
            }
            if let Some(terminal) = &start.terminal {
                let (size, pixels) = (terminal.size, terminal.pixels);
                let (columns, rows) = (size.columns, size.rows);
                let modes = &terminal.modes;
                self.up
                    .request_pty(false, &terminal.term, columns, rows, pixels.0, pixels.1, modes)
                    .await?;
            }
            let permitted = start.permitted.into_bytes();
            match start.what {
                What::Exec => self.up.exec(true, permitted).await,
                What::Shell => self.up.request_shell(true).await,
                What::Subsystem => {
                    sftp = permitted == "sftp";
                    let name = String::from_utf8_lossy(&permitted).into_owned();
                    self.up.request_subsystem(true, name).await
                }
            }
        };
        asked.await.map_err(|_| self.lost())?;
        Ok(sftp)
    }

    /// What the client sends.
    ///
    /// A target that is gone is noticed where its last words are read, not here.
    async fn upwards(&self, sftp: Option<&Sftp<'_>>) -> Result<(), Broken> {
        loop {
            let mut recorded = Vec::new();
            let Some(item) = self.channel.inbox.next().await else {
                or_wait(self.up.eof().await).await;
                or_wait(self.up.close().await).await;
                return std::future::pending().await;
            };
            match item {
                Item::Data(data) => match sftp {
                    Some(sftp) => sftp.up(&data).await?,
                    None => {
                        let permitted = self.input(data, self.channel.of).await?;
                        self.send(permitted).await;
                    }
                },
                Item::Eof => {
                    self.channel.rest_of_input().await?;
                    message::put_eof(&mut recorded, self.number);
                    self.note(&recorded).await?;
                    or_wait(self.up.eof().await).await;
                }
                Item::Resize(size, pixels) => {
                    if let Some(lines) = &self.channel.lines {
                        lines.lock().resize(size);
                    }
                    message::put_window_change(&mut recorded, self.number, size);
                    self.note(&recorded).await?;
                    let (width, height) = pixels;
                    let told = self.up.window_change(size.columns, size.rows, width, height);
                    or_wait(told.await).await;
                }
                Item::Signal(signal) => {
                    message::put_signal(&mut recorded, self.number, &name_of(&signal));
                    self.note(&recorded).await?;
                    or_wait(self.up.signal(signal).await).await;
                }
            }
        }
    }

    /// Records input.
    pub(super) async fn input(&self, data: Bytes, of: Sequence) -> Result<Permitted, Broken> {
        let masking = &self.channel.masking;
        if let Some(lines) = &self.channel.lines {
            lines.lock().typed(&data, |line| masking.line(line));
        }
        let withheld = self.withhold || masking.keeps_lengths();
        // The end of it may be recorded with what follows.
        let seen = if withheld { Bytes::new() } else { masking.input(&data) };
        let (number, length, of) = (self.number, data.len(), Some(of));
        let admitted = self.channel.gate.admit(data, |plan| {
            let mut recorded = Vec::new();
            if withheld {
                message::put_withheld(&mut recorded, number, length);
            }
            message::each_data(number, None, &seen, |data| plan.data_as(0..0, of, data));
            plan.data_as(0..length, of, &recorded);
        });
        let admitted = admitted.await;
        self.channel.session.active();
        Ok(admitted?.0)
    }

    /// Records what goes up and is no input.
    async fn note(&self, recorded: &[u8]) -> Result<(), Broken> {
        let of = Some(self.channel.of);
        let gate = &self.channel.gate;
        let noted = gate.record(|plan| plan.data_as(0..0, of, recorded)).await;
        self.channel.session.active();
        Ok(noted?)
    }

    /// Sends up what may; waits while the target takes no more.
    pub(super) async fn send(&self, permitted: Permitted) {
        or_wait(self.up.data_bytes(permitted.into_bytes()).await).await;
    }

    /// What the target sends.
    async fn downwards(
        &self,
        sftp: Option<&Sftp<'_>>,
        mut answers: Option<Answers>,
    ) -> Result<(), Broken> {
        let down = &self.channel.down;
        let masking = &self.channel.masking;
        let mut from = self.from.lock().await;
        let (mut ending, mut held, mut drained) = (Ending::Unknown, false, false);
        loop {
            let message = tokio::select! {
                message = from.next() => message,
                Some(answer) = next(&mut answers) => {
                    self.give(None, answer).await?;
                    continue;
                }
                () = masking.patience() => {
                    self.put_all(masking.give_up()).await?;
                    continue;
                }
            };
            let Some(message) = message else { break };
            self.channel.session.active();
            match message {
                ChannelMsg::Data { data } => match sftp {
                    Some(sftp) => sftp.down(&data).await?,
                    None => self.output(None, data).await?,
                },
                ChannelMsg::ExtendedData { data, ext } => self.output(Some(ext), data).await?,
                ChannelMsg::Failure => return Err(self.refused()),
                ChannelMsg::Eof => {
                    self.put_rest().await?;
                    drained = true;
                    self.tell(&mut ending).await?;
                    // A client that has nothing more to say closes the channel when it hears this,
                    // and would not hear the exit status that comes next.
                    match self.channel.inbox.is_finished() && !ending.is_told() {
                        true => held = true,
                        false => down.eof().await.map_err(|_| Broken::Client)?,
                    }
                }
                ChannelMsg::ExitStatus { exit_status } => ending = Ending::Status(exit_status),
                ChannelMsg::ExitSignal { signal_name, core_dumped, error_message, .. } => {
                    ending = Ending::Signal(signal_name, core_dumped, error_message);
                }
                ChannelMsg::Close => {
                    self.put_rest().await?;
                    self.tell(&mut ending).await?;
                    if !ending.is_told() {
                        self.ended("closed".to_owned()).await?;
                    }
                    if held {
                        down.eof().await.map_err(|_| Broken::Client)?;
                    }
                    return Ok(());
                }
                _ => {}
            }
            // Output may follow the end, and what is masked in it counts.
            if drained || !masking.masks_text() {
                self.tell(&mut ending).await?;
            }
        }
        self.put_rest().await?;
        self.tell(&mut ending).await?;
        if ending.is_told() { Ok(()) } else { Err(self.lost()) }
    }

    async fn output(&self, code: Option<u32>, data: Bytes) -> Result<(), Broken> {
        self.put(code, self.channel.masking.output(code, data)).await
    }

    async fn put_all(&self, all: [(Option<u32>, Masked); 2]) -> Result<(), Broken> {
        for (code, masked) in all {
            self.put(code, masked).await?;
        }
        Ok(())
    }

    /// Gives what masks held back of the output, and says that they changed bytes that are no text.
    async fn put_rest(&self) -> Result<(), Broken> {
        let masking = &self.channel.masking;
        self.put_all(masking.rest()).await?;
        match masking.notice() {
            Some(notice) => self.channel.say(&notice).await,
            None => Ok(()),
        }
    }

    /// Records and gives what is masked, if there is anything.
    async fn put(&self, code: Option<u32>, masked: Masked) -> Result<(), Broken> {
        if masked.shown().is_empty() && masked.stored().is_empty() {
            return Ok(());
        }
        let released = self.channel.release(code, masked, self.channel.of)?;
        self.give(code, released).await
    }

    /// Records what is whole and no text.
    pub(super) fn record(&self, whole: Bytes, of: Sequence) -> Result<Released, Broken> {
        Ok(self.channel.release(None, self.channel.masking.whole(whole), of)?)
    }

    /// Records and tells how the command ended, once that is known.
    async fn tell(&self, ending: &mut Ending) -> Result<(), Broken> {
        match ending {
            Ending::Unknown | Ending::Told => return Ok(()),
            Ending::Status(status) => {
                self.ended(format!("exit {status}")).await?;
                let told = self.channel.down.exit_status(*status).await;
                told.map_err(|_| Broken::Client)?;
            }
            Ending::Signal(signal, core_dumped, message) => {
                self.ended(format!("signal {}", name_of(signal))).await?;
                self.killed(signal.clone(), *core_dumped, std::mem::take(message)).await?;
            }
        }
        *ending = Ending::Told;
        Ok(())
    }

    /// Gives to the client what may go there; waits while it takes no more.
    pub(super) async fn give(&self, code: Option<u32>, released: Released) -> Result<(), Broken> {
        let (down, bytes) = (&self.channel.down, released.into_bytes());
        if bytes.is_empty() {
            return Ok(());
        }
        let given = async {
            match code {
                None => down.data_bytes(bytes).await,
                Some(code) => down.extended_data_bytes(code, bytes).await,
            }
        };
        tokio::select! {
            given = given => given.map_err(|_| Broken::Client),
            // A channel that its client closed has no room any more.
            () = self.channel.inbox.closed() => Ok(()),
        }
    }

    async fn killed(
        &self,
        signal: Sig,
        core_dumped: bool,
        mut message: String,
    ) -> Result<(), Broken> {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        let id = self.channel.down.id();
        let told = self.channel.handle.exit_signal_request(
            id,
            signal,
            core_dumped,
            message,
            String::new(),
        );
        told.await.map_err(|()| Broken::Client)
    }

    async fn ended(&self, status: String) -> Result<(), Broken> {
        self.channel.rest_of_input().await?;
        let duration_us = micros(self.began);
        let outcome = Outcome { status: Some(status), duration_us, ..Outcome::default() };
        Ok(self.channel.outcome(outcome)?)
    }

    fn lost(&self) -> Broken {
        let name = self.channel.session.grant().target().name.clone();
        let message = "the connection to the target was lost".to_owned();
        Broken::Refused {
            refusal: Refusal::TargetLost(name),
            error: CommandError { code: "target-lost".to_owned(), message },
        }
    }

    fn refused(&self) -> Broken {
        let name = self.channel.session.grant().target().name.clone();
        let message = "the target refused the request".to_owned();
        Broken::Refused {
            refusal: Refusal::TargetRefused(name),
            error: CommandError { code: "target-refused".to_owned(), message },
        }
    }

    pub(super) fn malformed(&self, what: &str) -> Broken {
        Broken::Refused {
            refusal: Refusal::Malformed,
            error: CommandError { code: "malformed".to_owned(), message: what.to_owned() },
        }
    }
}

/// How a command ended.
enum Ending {
    Unknown,
    Status(u32),
    /// By a signal: its name, whether it left a core, and the target's words.
    Signal(Sig, bool, String),
    Told,
}

impl Ending {
    fn is_told(&self) -> bool {
        matches!(self, Self::Told)
    }
}

/// Waits for ever when the target is gone.
async fn or_wait(sent: Result<(), russh::Error>) {
    if sent.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The next answer of the gateway's own; none where there are never any.
async fn next(answers: &mut Option<Answers>) -> Option<Released> {
    answers.as_mut()?.recv().await
}

/// A signal's name, without SIG.
fn name_of(signal: &Sig) -> String {
    let name = match signal {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) => name,
    };
    name.to_owned()
}
