//! The running session: two loops over one queue of expected replies.
//!
//! One loop carries the client's messages up, the other the server's down, each reading only when
//! what it read before is written. So neither side's silence stops the other: a client that
//! pipelines without reading waits for its own replies, as it would without a gateway.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{sleep_until, timeout};

use crate::clock::{Moment, Now};
use crate::decode::postgres::frame::{self, Piece, Side, Walker};
use crate::decode::postgres::frontend::{self, Message};
use crate::decode::postgres::{Malformed, backend};
use crate::gate::{Gate, Permitted, Released, Renumber};

use super::approval_wait::MOST_AHEAD;
use super::backend_reader::{Answer, Answers};
use super::down::Down;
use super::end::End;
use super::masking::{Masking, MasksNow};
use super::messages::to_target;
use super::planner::{Placed, Planner, Stopped};
use super::queue::Queue;
use super::reader::Reader;
use super::refusal::Words;
use super::rehearsal::Unit;
use super::replies::{Course, Entered, Replies};
use super::stream::Stream;

/// What an idle direction keeps for reading, in bytes: an idle session costs kilobytes.
const READ_MIN: usize = 8 << 10;
/// What a busy direction reads at once, in bytes: enough that a system call carries its weight.
const READ_MAX: usize = 128 << 10;

/// How long what runs may go on when the client closed its side without a word.
const ABANDONED: Duration = Duration::from_secs(5);
/// How long a target that takes no more bytes gets to say why, and to close the connection.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Words of the gateway's own that wait for the client to take them.
const MAX_NOTICES: usize = 4;

/// A session that is relayed.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) gate: Arc<Gate>,
    reader: Arc<Reader>,
    pub(super) masking: Masking,
    pub(super) replies: Queue,
    /// Told when the queue of replies got shorter.
    progress: Notify,
    /// Told when Syncs that were kept back are to be forwarded.
    owed: Notify,
    /// No new command may start.
    closing: AtomicBool,
    /// Nothing waits for people any more.
    pub(super) no_holds: watch::Sender<bool>,
    /// Words of the gateway's own, for the client.
    notices: (mpsc::Sender<Words>, Mutex<Option<mpsc::Receiver<Words>>>),
    /// The client said that it leaves, or closed its side.
    client_left: AtomicBool,
    /// Bytes that the client still sends of a message that was refused for its size.
    refused_rest: AtomicUsize,
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
            replies: Queue::new(Replies::new(parameters)),
            progress: Notify::new(),
            owed: Notify::new(),
            closing: AtomicBool::new(false),
            no_holds: watch::Sender::new(false),
            notices: (sender, Mutex::new(Some(receiver))),
            client_left: AtomicBool::new(false),
            refused_rest: AtomicUsize::new(0),
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

    /// Bytes that the client still sends of a message that was refused for its size.
    pub(super) fn client_owes(&self) -> usize {
        self.refused_rest.load(Ordering::Acquire)
    }

    /// Whether the target itself told the client that the session ends.
    pub(super) fn target_said_its_last(&self) -> bool {
        self.replies.with(|replies| replies.is_over())
    }

    /// Whether the server owes nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.replies.with(|replies| replies.is_idle())
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
            if self.replies.with(|replies| condition(replies)) {
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
        let carried = self.carry_up(client, target).await;
        if let Err(End::TargetBroken(_)) = carried {
            // Why it broke stands in what it sent before: `down` reads that to its end.
            let _read: Result<(), _> = timeout(LAST_WORDS, std::future::pending()).await;
        }
        carried
    }

    async fn carry_up(
        &self,
        client: &mut ReadHalf<Stream>,
        target: &mut Outgoing,
    ) -> Result<std::convert::Infallible, End> {
        let mut incoming = Incoming::new(Side::Frontend, BytesMut::new());
        let mut said_so = false;
        loop {
            self.until(Replies::has_room).await;
            self.forward_owed(target).await?;
            let taken = incoming.take().inspect_err(|_| {
                self.refused_rest.store(incoming.owed, Ordering::Release);
            });
            let (bytes, pieces) = taken.map_err(End::ClientMalformed)?;
            if bytes.is_empty() {
                tokio::select! {
                    read = incoming.read(client) => {
                        if read.map_err(End::ClientBroken)? == 0 {
                            break;
                        }
                    }
                    () = self.owed.notified() => {}
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

    /// The messages in some bytes, with their texts read.
    async fn read<'b>(&self, bytes: &'b Bytes, pieces: &[Piece]) -> Result<Vec<Placed<'b>>, End> {
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
                    let settings = self.replies.with(|replies| replies.lexing().settings);
                    Some(self.reader.read(sql, settings).await)
                }
                _ => None,
            };
            messages.push((range, message, read));
        }
        Ok(messages)
    }

    /// Plans, records and lets pass what may of some messages, and says why that stopped before the
    /// last. Ahead of them is what an earlier plan gave back.
    async fn admit(
        &self,
        messages: &[Placed<'_>],
        bytes: &Bytes,
        ahead: Option<(Option<Unit>, Bytes)>,
    ) -> Result<(Permitted, Option<Stopped>), End> {
        let start = messages.first().map_or(0, |(range, ..)| range.start);
        let masks = match messages.iter().any(starts) {
            true => self.masks_of(messages).await,
            false => None,
        };
        let (unit, given_back) = ahead.unwrap_or_default();
        let mut plan = self.gate.plan(bytes.clone()).await?;
        if !given_back.is_empty() {
            plan.resume(&given_back);
        }
        let planned = self.replies.with(|replies| {
            Planner {
                plan: &mut plan,
                replies,
                gate: &self.gate,
                analyzer: self.reader.analyzer(),
                masking: &self.masking,
                masks: masks.as_ref(),
                plain: start..start,
                secret: start..start,
                unit,
            }
            .messages(messages)
        });
        let appended = plan.append()?;
        let mut stopped = planned.map_err(End::ClientMalformed)?;
        if appended.renumbered.any() {
            self.replies.with(|replies| replies.renumber(appended.renumbered));
            stopped.renumber(appended.renumbered);
        }
        Ok((appended.pass().await?, stopped))
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
        let messages = self.read(&bytes, pieces).await?;
        // At the session's end nothing new starts; whoever watches for it ends the session.
        let closes = self.closing.load(Ordering::Acquire) || self.gate.is_over();
        if closes && messages.iter().any(starts) {
            return std::future::pending().await;
        }
        let leaves = messages.iter().any(|(_, m, _)| matches!(m, Message::Terminate));
        let mut rest = messages.as_slice();
        let mut waits = None;
        loop {
            let (permitted, stopped) = self.admit(rest, &bytes, waits.take()).await?;
            target.permit(permitted).await.map_err(End::TargetBroken)?;
            match stopped {
                None => return Ok(leaves),
                Some(Stopped::Waits(at)) => {
                    rest = rest.get(at..).unwrap_or_default();
                    let Some((_, message, _)) = rest.first() else { return Ok(leaves) };
                    let waits = |replies: &Replies| replies.course(message) == Course::Wait;
                    self.settled(|replies| !waits(replies), incoming, client).await?;
                    if rest.len() > 1 || !incoming.buffer.is_empty() {
                        self.replies.with(Replies::sent_early);
                    }
                    self.forward_owed(target).await?;
                }
                Some(Stopped::Unsettled(at, unit, taken_back)) => {
                    rest = rest.get(at..).unwrap_or_default();
                    let replies_of =
                        |unit: &Unit| self.replies.with(|replies| unit.replies(replies));
                    let last = unit.as_ref().map_or(0, replies_of);
                    let settled = |replies: &Replies| replies.is_settled_but_for(last);
                    self.settled(settled, incoming, client).await?;
                    if !self.replies.with(|replies| replies.skips()) {
                        waits = Some((unit, taken_back));
                    }
                }
                Some(Stopped::Pending(stop)) => {
                    let held = rest.get(stop.at..).and_then(<[_]>::split_first);
                    let Some(((_, message, _), behind)) = held else { return Ok(leaves) };
                    let message = (message, &bytes);
                    if self.until_decided(stop, message, incoming, client, target).await? {
                        return Ok(true);
                    }
                    rest = behind;
                }
            }
        }
    }

    /// Waits for what the server answers; reads ahead what the client sends meanwhile, to notice that
    /// it leaves. Cancel safe.
    pub(super) async fn settled(
        &self,
        condition: impl Fn(&Replies) -> bool,
        incoming: &mut Incoming,
        client: &mut ReadHalf<Stream>,
    ) -> Result<(), End> {
        let mut settled = pin!(self.until(condition));
        let mut abandoned = None;
        loop {
            let room = abandoned.is_none() && incoming.buffer.len() < MOST_AHEAD;
            let too_long = async {
                match abandoned {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = &mut settled => return Ok(()),
                read = incoming.read(client), if room => {
                    if read.map_err(End::ClientBroken)? == 0 {
                        abandoned = Some(tokio::time::Instant::now() + ABANDONED);
                    }
                }
                () = too_long => return Err(End::Client),
            }
        }
    }

    /// Forwards a message of the gateway's own that does nothing.
    pub(super) async fn send_own(&self, bytes: &[u8], target: &mut Outgoing) -> Result<(), End> {
        let own = self.gate.admit(Bytes::new(), |plan| plan.beside(bytes));
        let (permitted, ()) = own.await?;
        target.permit(permitted).await.map_err(End::TargetBroken)
    }

    /// Forwards Syncs that were kept back and count.
    async fn forward_owed(&self, target: &mut Outgoing) -> Result<(), End> {
        let owed = self.replies.with(Replies::take_owed_syncs);
        if owed == 0 {
            return Ok(());
        }
        let bytes = to_target::syncs(owed);
        let sent = self.gate.admit(bytes.clone(), |plan| plan.data(0..bytes.len(), None));
        let (permitted, ()) = sent.await?;
        let now = Moment::now();
        let entered = self.replies.with(|replies| {
            (0..owed).try_for_each(|_| replies.expect(&Message::Sync, now, Entered::default()))
        });
        entered.map_err(End::ClientMalformed)?;
        target.permit(permitted).await.map_err(End::TargetBroken)
    }

    /// The masks for some commands; the catalog is looked up again when they name what it did not
    /// have.
    async fn masks_of(&self, messages: &[Placed<'_>]) -> Option<MasksNow> {
        let masks = self.masking.now().await?;
        let mut readings = messages.iter().filter_map(|(_, _, reading)| reading.as_ref());
        let unknown = !masks.are_blind()
            && readings.any(|reading| self.masking.names_unknown(&masks, reading));
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
            let (released, end) = self.record_answers(&bytes, &pieces, masks.as_ref())?;
            self.progress.notify_waiters();
            client.at_boundary = match &end {
                Some((_, at_boundary)) => *at_boundary,
                None => incoming.walker.at_boundary(),
            };
            client.release(released).await.map_err(End::ClientBroken)?;
            if let Some((end, _)) = end {
                return Err(end);
            }
        }
    }

    /// The masks for some messages; the catalog is looked up again when columns of tables come
    /// that it did not have, or of types.
    async fn masks_for(&self, bytes: &Bytes, pieces: &[Piece]) -> Result<Option<MasksNow>, End> {
        let Some(mut masks) = self.masking.now().await else { return Ok(None) };
        let (mut at, mut types, mut lacks, mut nested) = (0, Vec::new(), false, false);
        for piece in pieces.iter().filter(|_| !masks.are_blind()) {
            let message = bytes.get(at..at + piece.length).unwrap_or_default();
            at += piece.length;
            nested |= matches!(piece.tag, b'H' | b'T');
            if piece.tag == b'T' {
                let columns = backend::row_description(message).map_err(End::TargetMalformed)?;
                lacks |= masks.lack(&columns);
                types.extend(masks.unknown_types(&columns));
            }
        }
        if lacks {
            masks = self.masking.newer_than(masks).await;
        }
        if !types.is_empty() || (nested && masks.lack_types()) {
            masks = self.masking.with_types(masks, &types).await;
        }
        Ok(Some(masks))
    }

    /// Holds the server's messages against the queue, masks and records them, up to one that ends the
    /// session: with the end comes whether it is a message's beginning.
    fn record_answers(
        &self,
        bytes: &Bytes,
        pieces: &[Piece],
        masks: Option<&MasksNow>,
    ) -> Result<(Released, Option<(End, bool)>), End> {
        let mut answers = Answers::new(bytes.clone());
        let mut at = 0;
        let mut end = None;
        let now = Now::read();
        self.replies.with(|replies| {
            let mut down = Down {
                replies: &mut *replies,
                answers: &mut answers,
                masking: &self.masking,
                masks,
                now: now.moment,
            };
            for piece in pieces {
                let range = at..at + piece.length;
                at = range.end;
                let message = bytes.get(range.clone()).unwrap_or_default();
                if let Err(unfit) = down.piece(piece, range, message) {
                    end = Some((unfit, piece.first));
                    break;
                }
            }
            if replies.owes_syncs() {
                self.owed.notify_one();
            }
            if masks.is_some() && replies.is_at_rest() {
                self.masking.at_rest();
            }
        });
        let (masked, events) = answers.finish();
        let released = self.gate.release(now, masked, |release, bytes| {
            for event in &events {
                match event {
                    Answer::Data(range, of) => {
                        release.data(bytes.get(range.clone()).unwrap_or_default(), *of);
                    }
                    Answer::Ended(of, outcome) => release.outcome(*of, outcome),
                }
            }
        })?;
        Ok((released, end))
    }
}

/// Whether a message starts something.
fn starts((_, message, _): &Placed<'_>) -> bool {
    use Message::{Bind, Execute, FunctionCall, Parse, Query};
    matches!(message, Query { .. } | Parse { .. } | Bind(_) | Execute { .. } | FunctionCall)
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
    /// What is to come of a message that is refused.
    owed: usize,
}

impl Incoming {
    fn new(side: Side, buffer: BytesMut) -> Self {
        Self { buffer, walker: Walker::new(side), last_read: 0, owed: 0 }
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
        loop {
            let rest = self.buffer.get(end..).unwrap_or_default();
            let next = self.walker.next(rest).inspect_err(|_| {
                self.owed = frame::announced(rest).saturating_sub(rest.len());
            });
            let Some(piece) = next? else { break };
            end += piece.length;
            pieces.push(piece);
        }
        if end == 0 {
            // A piece of the buffer, and be it empty, would have the next read copy all of it.
            return Ok((Bytes::new(), pieces));
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
        // The buffer that they came in is read into again.
        self.pending = Bytes::new();
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

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::ReadBuf;

    use super::*;

    /// Gives 8 KiB at a time.
    struct Slowly(Bytes);

    impl AsyncRead for Slowly {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let length = self.0.len().min(buf.remaining()).min(8 << 10);
            buf.put_slice(&self.0.split_to(length));
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_large_message_is_copied_seldom_while_it_comes() {
        let row = frame::message(b'D', &vec![0; 8 << 20]);
        let mut from = Slowly(Bytes::from(row.clone()));
        let mut incoming = Incoming::new(Side::Backend, BytesMut::new());
        incoming.walker.keep_whole(true);
        let (mut moves, mut place) = (0, incoming.buffer.as_ptr());
        let taken = loop {
            let (taken, _) = incoming.take().unwrap();
            if !taken.is_empty() {
                break taken;
            }
            assert!(incoming.read(&mut from).await.unwrap() > 0);
            moves += usize::from(incoming.buffer.as_ptr() != place);
            place = incoming.buffer.as_ptr();
        };
        assert_eq!(taken, row);
        assert!(moves < 20, "it was moved {moves} times in {} reads", row.len() / (8 << 10));
    }
}
