//! Connections to the target that a session has used and keeps for its next command, so that of
//! many commands in turn only the first waits for a handshake. Each serves one channel at a time.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::session::Session;
use super::upstream::Connection;

/// How long one is kept: an agent's next command often comes within that.
const KEPT_FOR: Duration = Duration::from_secs(30);
/// How many a session keeps.
const MAX_KEPT: usize = 4;

/// What a session keeps.
#[derive(Default)]
pub(super) struct Kept(Mutex<State>);

#[derive(Default)]
struct State {
    /// With the time when each is given up, the last used at the end.
    connections: Vec<(Connection, Instant)>,
    /// Whether a task sees to it that they are given up.
    watched: bool,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kept({})", self.0.lock().connections.len())
    }
}

impl Kept {
    /// The one that was used last.
    pub(super) fn take(&self) -> Option<Connection> {
        let mut state = self.0.lock();
        while let Some((connection, _)) = state.connections.pop() {
            if connection.stands() {
                return Some(connection);
            }
        }
        None
    }

    /// Takes out what is over by now, and says when the next one is.
    fn over(&self, now: Instant) -> (Vec<Connection>, Option<Instant>) {
        let mut state = self.0.lock();
        let over = state.connections.iter().take_while(|(_, until)| *until <= now).count();
        let over = state.connections.drain(..over).map(|(connection, _)| connection).collect();
        let next = state.connections.first().map(|(_, until)| *until);
        state.watched = next.is_some();
        (over, next)
    }

    /// Takes one in, or gives it back where there is no room; says whether somebody has to watch
    /// then.
    fn put(
        &self,
        connection: Connection,
        until: Instant,
        ended: impl Fn() -> bool,
    ) -> Result<bool, Connection> {
        let mut state = self.0.lock();
        // Looked at under the lock: whoever takes all of them at the end misses none.
        if state.connections.len() >= MAX_KEPT || !connection.stands() || ended() {
            return Err(connection);
        }
        state.connections.push((connection, until));
        Ok(!std::mem::replace(&mut state.watched, true))
    }

    fn all(&self) -> Vec<Connection> {
        self.0.lock().connections.drain(..).map(|(connection, _)| connection).collect()
    }
}

impl Session {
    /// Keeps a connection on which nothing runs any more; gives it back where that is not to be.
    pub(super) fn keep(self: &Arc<Self>, connection: Connection) -> Option<Connection> {
        let until = Instant::now() + KEPT_FOR;
        match self.kept.put(connection, until, || self.has_ended()) {
            Ok(true) => drop(self.tasks.spawn(Arc::clone(self).give_up(until))),
            Ok(false) => {}
            Err(connection) => return Some(connection),
        }
        None
    }

    /// Ends what is kept when its time is over, and all of it when the session is.
    async fn give_up(self: Arc<Self>, mut until: Instant) {
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                () = self.ended() => break,
            }
            let (over, next) = self.kept.over(Instant::now());
            end(over).await;
            match next {
                Some(next) => until = next,
                None => return,
            }
        }
        end(self.kept.all()).await;
    }
}

async fn end(connections: Vec<Connection>) {
    futures_util::future::join_all(connections.into_iter().map(Connection::end)).await;
}
