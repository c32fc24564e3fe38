//! Cancel requests: which session a key belongs to, and the way to that session's server.
//!
//! The client's key is the gateway's own, so the target's never leaves the gateway. A cancel
//! request is not answered, whatever becomes of it. Clients older than libpq 17 send it without
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

/// The open sessions by the process id that their clients were told.
#[derive(Debug, Default)]
pub(super) struct Cancels {
    sessions: Mutex<HashMap<u32, Arc<Cancellable>>>,
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
        let mut sessions = cancels.sessions.lock();
        let process_id = loop {
            let mut bytes = [0; 4];
            rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
            // Clients keep it in a signed integer, and 0 looks like none.
            let id = u32::from_be_bytes(bytes) >> 1;
            if id != 0 && !sessions.contains_key(&id) {
                break id;
            }
        };
        sessions.insert(process_id, Arc::clone(&session));
        Ok(Self { cancels: Arc::clone(cancels), process_id, session })
    }

    /// The key that the client is told.
    pub(super) fn key(&self) -> &[u8] {
        &self.session.key
    }
}

impl Drop for CancelKey {
    fn drop(&mut self) {
        self.cancels.sessions.lock().remove(&self.process_id);
    }
}

impl Cancels {
    /// Passes a cancel request on to the server of the session it names, if the key is right.
    pub(super) async fn pass_on(&self, request: &CancelRequest) {
        let session = self.sessions.lock().get(&request.process_id).cloned();
        let Some(session) = session else { return };
        if constant_time::verify_slices_are_equal(&session.key, &request.key).is_err() {
            tracing::warn!(process_id = request.process_id, "cancel request with a wrong key");
            return;
        }
        if session.busy.swap(true, Ordering::AcqRel) {
            return;
        }
        session.gate.note("cancel", "the client asked to cancel what runs".to_owned());
        if let Err(error) = session.upstream.cancel().await {
            tracing::warn!(%error, "cancel request not passed on");
        }
        session.busy.store(false, Ordering::Release);
    }
}
