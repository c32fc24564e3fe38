//! The queue of replies between the loops of a session.
//!
//! All of them run in one task, so one of them alone works with the queue at a time. It takes the
//! queue out and puts it back: no lock is held while policy or masks run.

use parking_lot::Mutex;

use super::replies::Replies;

/// A place for the queue.
#[derive(Debug)]
pub(super) struct Queue(Mutex<Option<Box<Replies>>>);

impl Queue {
    pub(super) fn new(replies: Replies) -> Self {
        Self(Mutex::new(Some(Box::new(replies))))
    }

    /// Works with the queue. Who finds that somebody else does, which one task cannot come to, gets
    /// a queue that expects nothing: whatever comes does not fit it, and ends the session.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Replies) -> T) -> T {
        let taken = self.0.lock().take();
        let mut replies = taken.unwrap_or_else(|| Box::new(Replies::new(&[])));
        let done = work(&mut replies);
        self.0.lock().get_or_insert(replies);
        done
    }
}
