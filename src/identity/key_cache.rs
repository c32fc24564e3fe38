//! The keys of one issuer as last fetched, and when they are fetched again.
//!
//! One task a cache does all fetching, so at most one fetch runs at a time and no caller that
//! hangs up can abort it. A token whose key is not there asks for a refresh and waits for one that
//! began after it came; however many ask, refreshes begin no closer than [`MIN_INTERVAL`]. A key
//! that its issuer removed is gone with the next refresh.

use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Refused;
use super::fetch::FetchError;
use super::keys::{Checked, KeySet, Signed};
use super::token::{Unverified, refuse, shown};

/// How often keys are fetched unasked: the longest that a removed key goes on working.
pub(super) const REFRESH: Duration = Duration::from_secs(5 * 60);

/// How soon a failed fetch is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// How close two refreshes may begin, whatever tokens arrive.
pub(super) const MIN_INTERVAL: Duration = Duration::from_secs(5);

/// How long a token waits for keys that its issuer may just have published: one interval and an
/// ordinary fetch.
const WAIT: Duration = Duration::from_secs(8);

/// How long keys serve when their issuer cannot be reached. An issuer that is down makes no new
/// tokens, and those already out mostly live for an hour; but who can cut us off from the issuer
/// must not keep a withdrawn key alive for long.
pub(super) const MAX_STALE: Duration = Duration::from_secs(4 * 60 * 60);

/// Where keys come from.
pub(super) trait KeySource: Debug + Send + Sync {
    /// Fetches the keys that are valid now.
    fn fetch(&self) -> BoxFuture<'_, Result<KeySet, FetchError>>;
}

/// See the module.
#[derive(Debug)]
pub(super) struct KeyCache {
    issuer: String,
    source: Box<dyn KeySource>,
    known: ArcSwapOption<Known>,
    wanted: Notify,
    attempts: watch::Sender<Attempts>,
}

#[derive(Debug)]
struct Known {
    keys: KeySet,
    fetched: Instant,
}

#[derive(Debug, Clone, Copy, Default)]
struct Attempts {
    started: u64,
    finished: u64,
}

impl KeyCache {
    /// An empty cache; `issuer` is a name for logs.
    pub(super) fn new(issuer: &str, source: Box<dyn KeySource>) -> Self {
        Self {
            issuer: issuer.to_owned(),
            source,
            known: ArcSwapOption::empty(),
            wanted: Notify::new(),
            attempts: watch::Sender::default(),
        }
    }

    /// Fetches the keys once. What was known stays when that fails.
    pub(super) async fn refresh(&self) -> Result<(), FetchError> {
        self.attempts.send_modify(|attempts| attempts.started += 1);
        let asked = Instant::now();
        let outcome = self.source.fetch().await.map(|keys| {
            if keys.is_empty() {
                tracing::warn!(issuer = %self.issuer, "issuer publishes no usable signature key");
            }
            self.known.store(Some(Arc::new(Known { keys, fetched: asked })));
        });
        self.attempts.send_modify(|attempts| attempts.finished += 1);
        outcome
    }

    /// Refreshes on time and on demand until cancelled.
    pub(super) async fn keep_fresh(&self, cancel: &CancellationToken) {
        let _cancelled = cancel.run_until_cancelled(self.refresh_forever()).await;
    }

    /// Whether one of the issuer's keys signed this token. May wait for a refresh, which
    /// [`Self::keep_fresh`] must be running for, but never longer than [`WAIT`]. Cancel safe.
    pub(super) async fn check<'a>(&self, mut token: Unverified<'a>) -> Result<Signed<'a>, Refused> {
        let deadline = Instant::now() + WAIT;
        let mut attempts = self.attempts.subscribe();
        let enough = attempts.borrow().started + 1;
        let mut asked = false;
        loop {
            // Read before the keys are: what finishes in between is seen by the next round.
            let finished = attempts.borrow_and_update().finished;
            let missing = match self.known.load().as_deref() {
                None => "the issuer's keys could not be fetched yet".to_owned(),
                Some(known) if known.fetched.elapsed() > MAX_STALE => {
                    "the issuer has been out of reach for too long to use its keys".to_owned()
                }
                Some(known) => match known.keys.check(token) {
                    Checked::Signed(signed) => return Ok(signed),
                    Checked::Forged(refused) => return Err(refused),
                    Checked::NoKey(back) => {
                        token = back;
                        match &token.kid {
                            Some(kid) => format!("the issuer has no key {}", shown(kid)),
                            None => "no key of the issuer signed it".to_owned(),
                        }
                    }
                },
            };
            if finished >= enough {
                return refuse(missing);
            }
            if !asked {
                asked = true;
                self.wanted.notify_one();
            }
            if timeout_at(deadline, attempts.changed()).await.is_err() {
                return refuse(missing);
            }
        }
    }

    async fn refresh_forever(&self) -> Infallible {
        let mut earliest = Instant::now();
        let mut failing = self.known.load().is_none();
        loop {
            tokio::select! {
                () = sleep(if failing { RETRY } else { REFRESH }) => {}
                () = self.wanted.notified() => sleep_until(earliest).await,
            }
            earliest = Instant::now() + MIN_INTERVAL;
            match self.refresh().await {
                Ok(()) if failing => {
                    failing = false;
                    tracing::info!(issuer = %self.issuer, "issuer's keys are fetched again");
                }
                Ok(()) => tracing::debug!(issuer = %self.issuer, "issuer's keys refreshed"),
                Err(error) if failing => {
                    tracing::debug!(issuer = %self.issuer, %error, "still no keys from issuer");
                }
                Err(error) => {
                    failing = true;
                    tracing::warn!(issuer = %self.issuer, %error, "keys could not be refreshed");
                }
            }
        }
    }
}
