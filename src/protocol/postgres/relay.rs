//! The running session: two loops over one queue of expected replies.
//!
//! One loop carries the client's messages up, the other the server's down, each reading only when
//! what it read before is written. So neither side's silence stops the other: a client that
//! pipelines without reading waits for its own replies, as it would without a gateway.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;

use crate::decode::postgres::frame::{Piece, Side, Walker};
use crate::decode::postgres::frontend::{self, Message};
use crate::decode::postgres::{Malformed, backend};
use crate::gate::{Gate, Permitted, Released};

use super::answers::{Answer, Answers};
use super::down::Down;
use super::end::End;
use super::entering::{Entering, Placed};
use super::masking::{Masking, MasksNow};
use super::reader::Reader;
use super::refusal::Words;
use super::replies::Replies;
use super::stream::Stream;

/// What an idle direction keeps for reading, in bytes: an idle session costs kilobytes.
const READ_MIN: usize = 8 << 10;
/// What a busy direction reads at once, in bytes: enough that a system call carries its weight.
const READ_MAX: usize = 128 << 10;

/// How long what runs may go on when the client closed its side without a word.
const ABANDONED: Duration = Duration::from_secs(5);
/// Words of the gateway's own that wait for the client to take them.
const MAX_NOTICES: usize = 4;

/// A session that is relayed.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) gate: Arc<Gate>,
    reader: Arc<Reader>,
    pub(super) masking: Masking,
    pub(super) replies: Mutex<Replies>,
    /// Told when the queue of replies got shorter.
    progress: Notify,
    /// No new command may start.
    closing: AtomicBool,
    /// Nothing waits for people any more.
    pub(super) no_holds: watch::Sender<bool>,
    /// Words of the gateway's own, for the client.
    notices: (mpsc::Sender<Words>, Mutex<Option<mpsc::Receiver<Words>>>),
    /// The client said that it leaves, or closed its side.
    client_left: AtomicBool,
}

impl Relay {
    /// `parameters` are what the target told of itself when it let the gateway in.
    pub(super) fn new(
        gate: Arc<Gate>,
        reader: Arc<Reader>,
        masking: Masking,
        parameters: &[(String, String)],
    ) -> Self {
        let (sender, receiver) = mpsc::channel(MAX_NOTICES);
        Self {
            gate,
            reader,
            masking,
            replies: Mutex::new(Replies::new(parameters)),
            progress: Notify::new(),
            closing: AtomicBool::new(false),
            no_holds: watch::Sender::new(false),
            notices: (sender, Mutex::new(Some(receiver))),
            client_left: AtomicBool::new(false),
        }
    }

    /// From now on no new command starts; what runs goes on.
    pub(super) fn begin_closing(&self) {
        self.closing.store(true, Ordering::Release);
        self.end_holds();
    }

    /// What waits for people is refused, now and from now on.
    pub(super) fn end_holds(&self) {
        self.no_holds.send_replace(true);
    }

    /// Tells the client something, as soon as a message may follow. When too much waits to be
    /// told, it is not.
    pub(super) fn tell(&self, words: Words) {
        if self.notices.0.try_send(words).is_err() {
            tracing::debug!(session = %self.gate.session(), "a notice is left out");
        }
    }

    /// Whether the server owes nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.replies.lock().is_idle()
    }

    /// Waits until the server owes nothing. Cancel safe.
    pub(super) async fn idle(&self) {
        self.until(Replies::is_idle).await;
    }

    /// Waits until the server owes nothing and no transaction is open. Cancel safe.
    pub(super) async fn at_rest(&self) {
        self.until(Replies::is_at_rest).await;
    }

    async fn until(&self, condition: impl Fn(&Replies) -> bool) {
        loop {
            let progress = self.progress.notified();
            if condition(&self.replies.lock()) {
                return;
            }
            progress.await;
        }
    }

    /// Carries the client's messages up until the client ends or something goes wrong. When the
    /// client ends, the target is told and this never returns: the target's end ends the session,
    /// so that what it still runs is recorded to its end.
    ///
    /// Cancel safe but for the target's connection: a message may be half written.
    pub(super) async fn up(
        &self,
        client: &mut ReadHalf<Stream>,
        target: &mut Outgoing,
    ) -> Result<std::convert::Infallible, End> {
        let mut incoming = Incoming::new(Side::Frontend, BytesMut::new());
        let mut said_so = false;
        loop {
            self.until(Replies::has_room).await;
            let (bytes, pieces) = incoming.take().map_err(End::ClientMalformed)?;
            if bytes.is_empty() {
                if incoming.read(client).await.map_err(End::ClientBroken)? == 0 {
                    break;
                }
                continue;
            }
            said_so = self.forward(bytes, &pieces, &mut incoming, client, target).await?;
            if said_so {
                break;
            }
        }
        self.client_left.store(true, Ordering::Release);
        // A client that only closed its side may still read; one that is gone waits for nothing.
        if !said_so && timeout(ABANDONED, self.idle()).await.is_err() {
            return Err(End::Client);
        }
        target.shutdown().await.map_err(End::TargetBroken)?;
        std::future::pending().await
    }

    /// Decides, records and forwards whole messages and pieces of COPY data. Gives whether the
    /// client said that it leaves.
    async fn forward(
        &self,
        bytes: Bytes,
        pieces: &[Piece],
        incoming: &mut Incoming,
        client: &mut ReadHalf<Stream>,
        target: &mut Outgoing,
    ) -> Result<bool, End> {
        let mut messages = Vec::with_capacity(pieces.len());
        let mut at = 0;
        for piece in pieces {
            let range = at..at + piece.length;
            at = range.end;
            let message = match (piece.is_whole(), bytes.get(range.clone())) {
                (true, Some(whole)) => frontend::message(whole).map_err(End::ClientMalformed)?,
                _ => Message::CopyData,
            };
            let read = match &message {
                Message::Query { sql } | Message::Parse { sql, .. } => {
                    let settings = self.replies.lock().lexing().settings;
                    Some(self.reader.read(sql, settings).await)
                }
                _ => None,
            };
            messages.push((range, message, read));
        }
        let starts = |message: &Message<'_>| {
            use Message::{Bind, Execute, FunctionCall, Parse, Query};
            matches!(message, Query { .. } | Parse { .. } | Bind(_) | Execute { .. } | FunctionCall)
        };
        if self.closing.load(Ordering::Acquire) && messages.iter().any(|(_, m, _)| starts(m)) {
            return std::future::pending().await;
        }
        let leaves = messages.iter().any(|(_, m, _)| matches!(m, Message::Terminate));
        let mut rest = messages.as_slice();
        loop {
            let start = rest.first().map_or(0, |(range, ..)| range.start);
            let masks = if rest.iter().any(|(_, m, _)| starts(m)) {
                self.masks_of(rest).await
            } else {
                None
            };
            let admitted = self.gate.admit(bytes.clone(), |admission| {
                let mut replies = self.replies.lock();
                Entering {
                    admission,
                    replies: &mut replies,
                    gate: &self.gate,
                    analyzer: self.reader.analyzer(),
                    masking: &self.masking,
                    masks: masks.as_ref(),
                    now: Instant::now(),
                    plain: start..start,
                    secret: start..start,
                    acts: false,
                }
                .enter(rest)
            });
            let (permitted, entered) = admitted.await?;
            let stop = entered.map_err(End::ClientMalformed)?;
            target.permit(permitted).await.map_err(End::TargetBroken)?;
            let Some(stop) = stop else { return Ok(leaves) };
            let Some(((_, message, _), behind)) = rest.get(stop.at..).and_then(<[_]>::split_first)
            else {
                return Ok(leaves);
            };
            if self.until_decided(stop, message, incoming, client, target).await? {
                return Ok(true);
            }
            rest = behind;
        }
    }

    /// The masks for some commands; the catalog is looked up again when they name what it did not
    /// have.
    async fn masks_of(&self, messages: &[Placed<'_>]) -> Option<MasksNow> {
        let masks = self.masking.now().await?;
        let mut readings = messages.iter().filter_map(|(_, _, reading)| reading.as_ref());
        let unknown = !masks.are_blind() && readings.any(|reading| masks.name_unknown(reading));
        if unknown { Some(self.masking.newer_than(masks).await) } else { Some(masks) }
    }

    /// Carries the server's messages down until the server ends or something goes wrong.
    /// `buffered` was read behind the server's first `ReadyForQuery`.
    ///
    /// Cancel safe: what is recorded but not yet written stays in `client`.
    pub(super) async fn down(
        &self,
        target: &mut ReadHalf<Stream>,
        client: &mut Outgoing,
        buffered: BytesMut,
    ) -> Result<std::convert::Infallible, End> {
        let mut incoming = Incoming::new(Side::Backend, buffered);
        let mut notices = self.notices.1.lock().take();
        loop {
            // Rows can be masked only when they are whole.
            incoming.walker.keep_whole(self.masking.is_on());
            let (bytes, pieces) = incoming.take().map_err(End::TargetMalformed)?;
            if bytes.is_empty() {
                let at_boundary = incoming.walker.at_boundary();
                let read = tokio::select! {
                    read = incoming.read(target) => read.map_err(End::TargetBroken)?,
                    words = next(&mut notices), if at_boundary => {
                        self.gate.announce(words.as_bytes())?;
                        client.say(&words).await.map_err(End::ClientBroken)?;
                        continue;
                    }
                };
                if read == 0 {
                    let left = self.client_left.load(Ordering::Acquire);
                    return Err(if left { End::Client } else { End::Target });
                }
                continue;
            }
            let masks = self.masks_for(&bytes, &pieces).await?;
            let released = self.record_answers(&bytes, &pieces, masks.as_ref())?;
            self.progress.notify_waiters();
            client.at_boundary = incoming.walker.at_boundary();
            client.release(released).await.map_err(End::ClientBroken)?;
        }
    }

    /// The masks for some messages; the catalog is looked up again when columns of tables come
    /// that it did not have.
    async fn masks_for(&self, bytes: &Bytes, pieces: &[Piece]) -> Result<Option<MasksNow>, End> {
        let Some(mut masks) = self.masking.now().await else { return Ok(None) };
        let mut at = 0;
        for piece in pieces.iter().filter(|_| !masks.are_blind()) {
            let message = bytes.get(at..at + piece.length).unwrap_or_default();
            at += piece.length;
            if piece.tag == b'T' {
                let columns = backend::row_description(message).map_err(End::TargetMalformed)?;
                if masks.lack(&columns) {
                    masks = self.masking.newer_than(masks).await;
                    break;
                }
            }
        }
        Ok(Some(masks))
    }

    /// Holds the server's messages against the queue, masks and records them.
    fn record_answers(
        &self,
        bytes: &Bytes,
        pieces: &[Piece],
        masks: Option<&MasksNow>,
    ) -> Result<Released, End> {
        let mut answers = Answers::new(bytes.clone());
        let mut at = 0;
        {
            let (now, mut replies) = (Instant::now(), self.replies.lock());
            let mut down = Down { replies: &mut replies, answers: &mut answers, masks, now };
            for piece in pieces {
                let range = at..at + piece.length;
                at = range.end;
                down.piece(piece, range.clone(), bytes.get(range).unwrap_or_default())?;
            }
            if masks.is_some() && replies.is_at_rest() {
                self.masking.at_rest();
            }
        }
        let (masked, events) = answers.finish();
        let released = self.gate.release(masked, |release, bytes| {
            for event in &events {
                match event {
                    Answer::Data(range, of) => {
                        release.data(bytes.get(range.clone()).unwrap_or_default(), *of);
                    }
                    Answer::Ended(of, outcome) => release.outcome(*of, outcome),
                }
            }
        })?;
        Ok(released)
    }
}

async fn next(notices: &mut Option<mpsc::Receiver<Words>>) -> Words {
    let words = match notices {
        Some(notices) => notices.recv().await,
        None => None,
    };
    match words {
        Some(words) => words,
        None => std::future::pending().await,
    }
}

/// Bytes that came in and are not taken yet.
pub(super) struct Incoming {
    pub(super) buffer: BytesMut,
    walker: Walker,
    last_read: usize,
}

impl Incoming {
    fn new(side: Side, buffer: BytesMut) -> Self {
        Self { buffer, walker: Walker::new(side), last_read: 0 }
    }

    /// Reads once; 0 is the end. The room follows what came last, so idle sessions stay small
    /// and busy ones need few reads. Cancel safe.
    pub(super) async fn read(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        let wanted = (self.last_read * 2).clamp(READ_MIN, READ_MAX);
        if self.buffer.is_empty() && self.buffer.capacity() > 2 * wanted {
            self.buffer = BytesMut::new();
        }
        self.buffer.reserve(wanted);
        self.last_read = from.read_buf(&mut self.buffer).await?;
        Ok(self.last_read)
    }

    /// Everything that is whole or may pass in pieces.
    fn take(&mut self) -> Result<(Bytes, Vec<Piece>), Malformed> {
        let mut pieces = Vec::new();
        let mut end = 0;
        while let Some(piece) = self.walker.next(self.buffer.get(end..).unwrap_or_default())? {
            end += piece.length;
            pieces.push(piece);
        }
        Ok((self.buffer.split_to(end).freeze(), pieces))
    }
}

/// The writing side of a connection. What is being written stands outside of the futures that
/// write it, so that a session that ends can still finish it.
#[derive(Debug)]
pub(super) struct Outgoing {
    half: WriteHalf<Stream>,
    pending: Bytes,
    /// Whether a message may begin where `pending` ends.
    at_boundary: bool,
}

impl Outgoing {
    pub(super) fn new(half: WriteHalf<Stream>) -> Self {
        Self { half, pending: Bytes::new(), at_boundary: true }
    }

    /// Sends what the gate permitted. Cancel safe with [`Outgoing::finish`].
    pub(super) async fn permit(&mut self, permitted: Permitted) -> io::Result<()> {
        self.pending = permitted.into_bytes();
        self.finish().await
    }

    /// Sends what the gate released. Cancel safe with [`Outgoing::finish`].
    async fn release(&mut self, released: Released) -> io::Result<()> {
        self.pending = released.into_bytes();
        self.finish().await
    }

    /// Sends words of the gateway's own. Cancel safe with [`Outgoing::finish`].
    pub(super) async fn say(&mut self, words: &Words) -> io::Result<()> {
        self.pending = words.as_bytes().clone();
        self.finish().await
    }

    /// Sends what is left. Cancel safe: calling it again goes on.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        self.half.write_all_buf(&mut self.pending).await?;
        self.half.flush().await
    }

    /// Whether a message of the gateway's own may follow.
    pub(super) fn at_boundary(&self) -> bool {
        self.at_boundary && self.pending.is_empty()
    }

    /// Says that nothing more follows.
    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        self.half.shutdown().await
    }
}
