//! What a client sent on one channel and the target has not taken yet.
//!
//! russh gives a client room for more as soon as its bytes arrive, and hands them on one
//! connection's loop, so a channel whose target does not read would either fill the memory or hold
//! up all others. Here such a channel counts as stalled when [`STALLED`] bytes wait; while it is,
//! [`super::flow_control`] gives its client no more room than a few bytes at a time. [`FULL`] is the last
//! resort: there the connection's loop waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use russh::Sig;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::decode::ssh::message::Size;

/// From here on a channel is stalled. Less would take a client that is only a little faster than
/// its target for one whose target does not read, and stop it for nothing.
const STALLED: usize = 1 << 20;
/// Here the connection waits.
const FULL: usize = 16 << 20;
/// What a terminal sends for Ctrl-C.
const INTERRUPT: u8 = 3;
/// Pieces are joined up to this: a block of a recording.
const PIECE: usize = 256 << 10;
/// Bulk data come in messages no smaller than this.
const MUCH: usize = 16 << 10;
/// Signals and sizes that wait; more come from nobody.
const MAX_ITEMS: usize = 4_096;

/// One thing that a client sent.
#[derive(Debug)]
pub(super) enum Item {
    /// Input.
    Data(Bytes),
    /// No more input comes.
    Eof,
    /// The terminal's size: in characters, and in pixels.
    Resize(Size, (u32, u32)),
    /// A signal for the program.
    Signal(Sig),
}

#[derive(Debug)]
enum Waiting {
    Data(BytesMut),
    Other(Item),
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Waiting>,
    bytes: usize,
}

/// The queue of one channel.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    queue: Mutex<Queue>,
    arrived: Notify,
    taken: Notify,
    finished: AtomicBool,
    /// The signal came that asks a program to stop; what a terminal makes it of was typed.
    interrupted: AtomicBool,
    interrupt_typed: AtomicBool,
    closed: CancellationToken,
}

impl Inbox {
    /// Whether the target takes less than the client sends.
    pub(super) fn is_stalled(&self) -> bool {
        self.queue.lock().bytes >= STALLED
    }

    /// Takes in input; waits while far too much waits already. Cancel safe but for its bytes.
    pub(super) async fn data(&self, data: &[u8]) {
        self.room().await;
        if self.closed.is_cancelled() {
            return;
        }
        if data.contains(&INTERRUPT) {
            self.interrupt_typed.store(true, Ordering::Relaxed);
        }
        let mut queue = self.queue.lock();
        queue.bytes += data.len();
        match queue.items.back_mut() {
            Some(Waiting::Data(last)) if last.len() + data.len() <= PIECE => {
                // Where it is much, more of it will come.
                if data.len() >= MUCH {
                    last.reserve(PIECE - last.len());
                }
                last.extend_from_slice(data);
            }
            _ => queue.items.push_back(Waiting::Data(BytesMut::from(data))),
        }
        drop(queue);
        self.arrived.notify_one();
    }

    /// Takes in anything else.
    pub(super) async fn other(&self, item: Item) {
        match item {
            Item::Eof => self.finished.store(true, Ordering::Relaxed),
            Item::Signal(Sig::INT) => self.interrupted.store(true, Ordering::Relaxed),
            _ => {}
        }
        self.room().await;
        let mut queue = self.queue.lock();
        // Of several sizes only the last matters.
        if let (Some(Waiting::Other(Item::Resize(..))), Item::Resize(..)) =
            (queue.items.back(), &item)
        {
            queue.items.pop_back();
        }
        queue.items.push_back(Waiting::Other(item));
        drop(queue);
        self.arrived.notify_one();
    }

    async fn room(&self) {
        loop {
            let taken = self.taken.notified();
            {
                let queue = self.queue.lock();
                if (queue.bytes < FULL && queue.items.len() < MAX_ITEMS)
                    || self.closed.is_cancelled()
                {
                    return;
                }
            }
            tokio::select! {
                () = taken => {}
                () = self.closed.cancelled() => return,
            }
        }
    }

    /// The next item; waits until there is one, or gives none when the channel was closed. Cancel
    /// safe.
    pub(super) async fn next(&self) -> Option<Item> {
        loop {
            let arrived = self.arrived.notified();
            let closed = self.closed.is_cancelled();
            if let Some(item) = self.pop() {
                self.taken.notify_one();
                return Some(item);
            }
            if closed {
                return None;
            }
            tokio::select! {
                () = arrived => {}
                () = self.closed.cancelled() => {}
            }
        }
    }

    fn pop(&self) -> Option<Item> {
        let mut queue = self.queue.lock();
        match queue.items.pop_front()? {
            Waiting::Data(data) => {
                queue.bytes -= data.len();
                Some(Item::Data(data.freeze()))
            }
            Waiting::Other(item) => Some(item),
        }
    }

    /// Waits for an interrupt: the signal, and where there is a terminal Ctrl-C. Nothing is taken.
    /// Cancel safe.
    pub(super) async fn interrupted(&self, terminal: bool) {
        loop {
            let arrived = self.arrived.notified();
            let typed = terminal && self.interrupt_typed.load(Ordering::Relaxed);
            if typed || self.interrupted.load(Ordering::Relaxed) {
                return;
            }
            arrived.await;
        }
    }

    /// Whether the client said that no more input comes.
    pub(super) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Relaxed)
    }

    /// The client closed the channel, or is gone; nothing is taken in any more.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    /// Whether nothing more comes of the channel.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Waits until the client closed the channel. Cancel safe.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn small_pieces_are_joined_and_order_is_kept() {
        let inbox = Inbox::default();
        inbox.data(b"a").await;
        inbox.data(b"b").await;
        inbox.other(Item::Signal(Sig::INT)).await;
        inbox.data(&[b'c'; PIECE]).await;
        inbox.data(b"d").await;
        inbox.other(Item::Eof).await;
        assert!(matches!(inbox.next().await, Some(Item::Data(data)) if data == "ab"));
        assert!(matches!(inbox.next().await, Some(Item::Signal(Sig::INT))));
        assert!(matches!(inbox.next().await, Some(Item::Data(data)) if data.len() == PIECE));
        assert!(matches!(inbox.next().await, Some(Item::Data(data)) if data == "d"));
        assert!(matches!(inbox.next().await, Some(Item::Eof)));
        assert_eq!(inbox.queue.lock().bytes, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_interrupt_is_a_signal_or_typed_at_a_terminal_and_stays_where_it_is() {
        let second = std::time::Duration::from_secs(1);
        let inbox = Inbox::default();
        inbox.data(b"typed \x03").await;
        inbox.interrupted(true).await;
        assert!(tokio::time::timeout(second, inbox.interrupted(false)).await.is_err());
        inbox.other(Item::Signal(Sig::INT)).await;
        inbox.interrupted(false).await;
        assert!(matches!(inbox.next().await, Some(Item::Data(data)) if data == "typed \x03"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_one_waits_for_room_or_its_end() {
        let inbox = std::sync::Arc::new(Inbox::default());
        while inbox.queue.lock().bytes < FULL {
            inbox.data(&[0; PIECE]).await;
        }
        assert!(inbox.is_stalled());
        let second = std::time::Duration::from_secs(1);
        assert!(tokio::time::timeout(second, inbox.data(b"x")).await.is_err());
        let _taken = inbox.next().await;
        inbox.data(b"x").await;
        inbox.close();
        inbox.data(b"y").await;
    }
}
