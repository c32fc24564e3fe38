//! Cancel requests: which session a key belongs to, and the way to that session's server.
//!
//! The client is told the server's own process id, which it may compare with `pg_backend_pid()`
//! or with the sender of a notification, but a key of the gateway's: the target's never leaves
//! the gateway. A cancel request is not answered, whatever becomes of it. Clients older than libpq 17 send it without
//! TLS, so it is taken without; the key can do nothing but cancel.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::{constant_time, rand};
use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::decode::postgres::startup::CancelRequest;
use crate::gate::Gate;

use super::upstream::CancelHandle;

/// The key's length for clients of protocol 3.0, which allows no other.
const KEY_3_0: usize = 4;
/// The key's length for clients of protocol 3.2.
const KEY_3_2: usize = 32;

/// The open sessions by the process id that their clients were told. Two targets may have
/// processes of the same id; the key tells them apart.
#[derive(Debug, Default)]
pub(super) struct Cancels {
    sessions: Mutex<HashMap<u32, Vec<Arc<Cancellable>>>>,
}

#[derive(Debug)]
struct Cancellable {
    key: Zeroizing<Vec<u8>>,
    upstream: CancelHandle,
    gate: Arc<Gate>,
    /// One cancel at a time: each is a connection of its own to the target.
    busy: AtomicBool,
}

/// A session's entry; it goes when this is dropped.
#[derive(Debug)]
pub(super) struct CancelKey {
    cancels: Arc<Cancels>,
    /// What the client is told as the server's process.
    pub(super) process_id: u32,
    session: Arc<Cancellable>,
}

/// The operating system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("no randomness for a cancel key")]
pub(super) struct NoRandomness;

impl CancelKey {
    /// Enters a session under a new id and key.
    pub(super) fn enter(
        cancels: &Arc<Cancels>,
        minor: u16,
        upstream: CancelHandle,
        gate: Arc<Gate>,
    ) -> Result<Self, NoRandomness> {
        let mut key = Zeroizing::new(vec![0; if minor >= 2 { KEY_3_2 } else { KEY_3_0 }]);
        rand::fill(&mut key).map_err(|_| NoRandomness)?;
        let session = Arc::new(Cancellable { key, upstream, gate, busy: AtomicBool::new(false) });
        let process_id = session.upstream.process_id().unwrap_or(0);
        cancels.sessions.lock().entry(process_id).or_default().push(Arc::clone(&session));
        Ok(Self { cancels: Arc::clone(cancels), process_id, session })
    }

    /// The key that the client is told.
    pub(super) fn key(&self) -> &[u8] {
        &self.session.key
    }
}

impl Drop for CancelKey {
    fn drop(&mut self) {
        let mut sessions = self.cancels.sessions.lock();
        if let Some(same_id) = sessions.get_mut(&self.process_id) {
            same_id.retain(|session| !Arc::ptr_eq(session, &self.session));
            if same_id.is_empty() {
                sessions.remove(&self.process_id);
            }
        }
    }
}

impl Cancels {
    /// Passes a cancel request on to the server of the session it names, if the key is right.
    pub(super) async fn pass_on(&self, request: &CancelRequest) {
        let same_id = self.sessions.lock().get(&request.process_id).cloned().unwrap_or_default();
        let right = |session: &&Arc<Cancellable>| {
            constant_time::verify_slices_are_equal(&session.key, &request.key).is_ok()
        };
        let Some(session) = same_id.iter().find(right) else {
            let process_id = request.process_id;
            return tracing::warn!(
                process_id,
                "cancel request for no session, or with a wrong key"
            );
        };
        if session.busy.swap(true, Ordering::AcqRel) {
            return;
        }
        session.gate.note("cancel", "the client asked to cancel what runs".to_owned());
        if session.gate.cancel_holds() {
            // What it waits for is not with the target.
            return session.busy.store(false, Ordering::Release);
        }
        if let Err(error) = session.upstream.cancel().await {
            tracing::warn!(%error, "cancel request not passed on");
        }
        session.busy.store(false, Ordering::Release);
    }
}
