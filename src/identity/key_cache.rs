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

use super::fetch::FetchError;
use super::keys::{Checked, KeySet, Signed};
use super::token::{Unverified, refuse, shown};
use super::{Identity, Refused};

/// How often keys are fetched unasked: the longest that a removed key goes on working.
const REFRESH: Duration = Duration::from_secs(5 * 60);

/// How soon a failed fetch is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// How close two refreshes may begin, whatever tokens arrive.
const MIN_INTERVAL: Duration = Duration::from_secs(5);

/// How long a token waits for keys that its issuer may just have published: one interval and an
/// ordinary fetch.
const WAIT: Duration = Duration::from_secs(8);

/// How long keys serve when their issuer cannot be reached. An issuer that is down makes no new
/// tokens, and those already out mostly live for an hour; but who can cut us off from the issuer
/// must not keep a withdrawn key alive for long.
const MAX_STALE: Duration = Duration::from_secs(4 * 60 * 60);

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

impl Known {
    fn is_stale(&self) -> bool {
        self.fetched.elapsed() > MAX_STALE
    }
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
                Some(known) if known.is_stale() => {
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

    /// Whom the token of this hash proved before, by keys that are still the issuer's.
    pub(super) fn known(&self, hash: &[u8; 32]) -> Option<Arc<Identity>> {
        let known = self.known.load();
        known.as_ref().filter(|known| !known.is_stale())?.keys.known(hash)
    }

    /// Notes whom a token proves, where the keys that signed it are still the issuer's.
    pub(super) fn note(&self, hash: &[u8; 32], identity: &Arc<Identity>) {
        if let Some(known) = self.known.load().as_deref() {
            known.keys.note(hash, identity);
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

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use serde_json::{Value, json};

    use super::super::test_key::TestKey;
    use super::super::token::parse;
    use super::*;

    /// An issuer whose answers the test sets, and which counts how often it is asked.
    #[derive(Debug, Clone)]
    struct Scripted(Arc<Mutex<Script>>);

    #[derive(Debug)]
    struct Script {
        keys: Option<Vec<Value>>,
        takes: Duration,
        asked: usize,
    }

    impl Scripted {
        fn new(keys: &[&TestKey]) -> (Self, Arc<KeyCache>) {
            let keys = Some(keys.iter().map(|key| key.jwk()).collect());
            let script = Script { keys, takes: Duration::ZERO, asked: 0 };
            let source = Self(Arc::new(Mutex::new(script)));
            let cache = Arc::new(KeyCache::new("test", Box::new(source.clone())));
            (source, cache)
        }

        fn publishes(&self, keys: &[&TestKey]) {
            self.0.lock().keys = Some(keys.iter().map(|key| key.jwk()).collect());
        }

        fn is_down(&self) {
            self.0.lock().keys = None;
        }

        fn asked(&self) -> usize {
            self.0.lock().asked
        }
    }

    impl KeySource for Scripted {
        fn fetch(&self) -> BoxFuture<'_, Result<KeySet, FetchError>> {
            Box::pin(async {
                let (keys, takes) = {
                    let mut script = self.0.lock();
                    script.asked += 1;
                    (script.keys.clone(), script.takes)
                };
                sleep(takes).await;
                match keys {
                    Some(keys) => KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
                        .map_err(FetchError::Wrong),
                    None => Err(FetchError::Unreachable("down".to_owned())),
                }
            })
        }
    }

    /// Runs the cache's task beside a test.
    async fn beside<T>(cache: &KeyCache, test: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            outcome = test => outcome,
            never = cache.refresh_forever() => match never {},
        }
    }

    async fn accepts(cache: &KeyCache, key: &TestKey) -> bool {
        let token = key.sign(&json!({}));
        cache.check(parse(&token).unwrap()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_of_a_key_that_was_just_published_is_accepted() {
        let (old, new) = (TestKey::new("old"), TestKey::new("new"));
        let (source, cache) = Scripted::new(&[&old]);
        cache.refresh().await.unwrap();
        beside(&cache, async {
            assert!(accepts(&cache, &old).await);
            source.publishes(&[&old, &new]);
            assert!(accepts(&cache, &new).await);
            assert_eq!(source.asked(), 2);
            // Rotated once more, inside the interval: the token waits for the next refresh.
            let newer = TestKey::new("newer");
            source.publishes(&[&newer]);
            assert!(accepts(&cache, &newer).await);
            assert!(!accepts(&cache, &old).await);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_that_began_before_the_rotation_is_not_enough() {
        let (old, new) = (TestKey::new("old"), TestKey::new("new"));
        let (source, cache) = Scripted::new(&[&old]);
        cache.refresh().await.unwrap();
        source.0.lock().takes = Duration::from_secs(1);
        beside(&cache, async {
            let stranger = TestKey::new("stranger");
            let late = async {
                sleep(Duration::from_millis(500)).await;
                assert_eq!(source.asked(), 2, "the stranger's refresh is under way");
                source.publishes(&[&new]);
                accepts(&cache, &new).await
            };
            let (stranger, new) = tokio::join!(accepts(&cache, &stranger), late);
            assert!(!stranger && new);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_kids_cause_one_refresh_an_interval() {
        let (source, cache) = Scripted::new(&[&TestKey::new("k")]);
        cache.refresh().await.unwrap();
        let stranger = TestKey::new("stranger");
        let began = Instant::now();
        beside(&cache, async {
            for _ in 0..20 {
                let burst = (0..10).map(|_| accepts(&cache, &stranger));
                assert!(!futures_util::future::join_all(burst).await.contains(&true));
            }
        })
        .await;
        let intervals = began.elapsed().as_secs() / MIN_INTERVAL.as_secs();
        assert!(source.asked() as u64 <= intervals + 2, "{} in {intervals}", source.asked());
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_key_dies_with_the_next_refresh() {
        let (kept, removed) = (TestKey::new("kept"), TestKey::new("removed"));
        let (source, cache) = Scripted::new(&[&kept, &removed]);
        cache.refresh().await.unwrap();
        beside(&cache, async {
            source.publishes(&[&kept]);
            assert!(accepts(&cache, &removed).await, "nobody has looked yet");
            sleep(REFRESH + Duration::from_secs(1)).await;
            assert!(!accepts(&cache, &removed).await);
            assert!(accepts(&cache, &kept).await);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn keys_outlive_an_outage_for_a_bounded_time() {
        let key = TestKey::new("k");
        let (source, cache) = Scripted::new(&[&key]);
        cache.refresh().await.unwrap();
        source.is_down();
        beside(&cache, async {
            sleep(MAX_STALE - Duration::from_secs(60)).await;
            assert!(accepts(&cache, &key).await);
            sleep(Duration::from_secs(120)).await;
            assert!(!accepts(&cache, &key).await);
            source.publishes(&[&key]);
            assert!(accepts(&cache, &key).await, "the first token after the outage asks again");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_issuer_that_was_down_at_the_start_is_found_later() {
        let key = TestKey::new("k");
        let (source, cache) = Scripted::new(&[&key]);
        source.is_down();
        assert!(cache.refresh().await.is_err());
        beside(&cache, async {
            assert!(!accepts(&cache, &key).await);
            source.publishes(&[&key]);
            sleep(RETRY * 2).await;
            let asked = source.asked();
            assert!(accepts(&cache, &key).await);
            assert_eq!(source.asked(), asked, "no token had to ask");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn no_token_waits_longer_than_it_should() {
        let (source, cache) = Scripted::new(&[]);
        source.0.lock().takes = Duration::from_secs(3600);
        let stranger = TestKey::new("stranger");
        let began = Instant::now();
        assert!(!beside(&cache, accepts(&cache, &stranger)).await);
        assert_eq!(began.elapsed(), WAIT);
    }
}
