//! Futures of one task that are polled only when they were woken themselves.
//!
//! A task that waits for several things polls all of them whenever one is ready. In a relay that
//! is twice for each command, and most of what a session waits for (its end, a reload, the
//! gateway's stop) happens once.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// A future with a waker of its own.
pub(super) struct WithOwnWaker<F> {
    future: F,
    own: Arc<Own>,
    waker: Waker,
}

/// What the future's waker does.
struct Own {
    woken: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Own {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.task.wake();
    }
}

/// The same future, which does not notice when others in its task are woken. Cancel safe if it is.
pub(super) fn with_own_waker<F: Future + Unpin>(future: F) -> WithOwnWaker<F> {
    // It has to be polled once to wait for anything.
    let own = Arc::new(Own { woken: AtomicBool::new(true), task: AtomicWaker::new() });
    let waker = Waker::from(Arc::clone(&own));
    WithOwnWaker { future, own, waker }
}

impl<F: Future + Unpin> Future for WithOwnWaker<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        // Registered before the look, so that who wakes it meanwhile is seen here or wakes the task.
        this.own.task.register(context.waker());
        if !this.own.woken.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        Pin::new(&mut this.future).poll(&mut Context::from_waker(&this.waker))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::time::Duration;

    use tokio::sync::Notify;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_future_is_polled_when_it_was_woken_and_not_when_others_were() {
        let (polls, notify) = (Cell::new(0), Notify::new());
        let mut waits = pin!(notify.notified());
        let counted = poll_fn(|context| {
            polls.set(polls.get() + 1);
            waits.as_mut().poll(context)
        });
        let mut counted = with_own_waker(counted);
        for _ in 0..10 {
            tokio::select! {
                biased;
                () = &mut counted => panic!("nobody notified"),
                () = sleep(Duration::from_secs(1)) => {}
            }
        }
        assert_eq!(polls.get(), 1);
        notify.notify_one();
        counted.await;
        assert_eq!(polls.get(), 2);
    }

    #[tokio::test]
    async fn who_moves_to_another_task_is_woken_there() {
        let notify = Arc::new(Notify::new());
        let waiting = Arc::clone(&notify);
        let mut future = with_own_waker(Box::pin(async move { waiting.notified().await }));
        let first = poll_fn(|context| Poll::Ready(Pin::new(&mut future).poll(context))).await;
        assert!(first.is_pending());
        let moved = tokio_util::task::TaskTracker::new().spawn(future);
        tokio::task::yield_now().await;
        notify.notify_one();
        moved.await.unwrap();
    }
}
