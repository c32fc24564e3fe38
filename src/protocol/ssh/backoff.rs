//! How often targets are tried that refused the gateway.
//!
//! An sshd counts refused logins against the address that they come from, which is the gateway's,
//! and then refuses everybody who comes from there (OpenSSH 9.8 and later, `PerSourcePenalties`:
//! five seconds for each, refused from fifteen on). One target with a wrong key would take away all
//! others on the same host. So a target that refused the credential is not tried again for a while,
//! a longer one each time, and of one that has not let the gateway in yet one try runs at a time.
//! A host that closes connections at once is left alone for some seconds, for all of its targets.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::upstream::UpstreamError;
use crate::names::TargetName;

/// Pauses after a refused credential. Two penalties of one refusal each are over after the first.
const REFUSED: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));
/// Pauses after a connection that was closed before any login.
const DROPPED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// What is remembered of targets and hosts that are not tried any more.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// Host and port.
type Address = (String, u16);

/// What is known of all hosts.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    targets: Mutex<HashMap<(Address, TargetName), Known>>,
    hosts: Mutex<HashMap<Address, Pause>>,
}

#[derive(Debug, Default)]
struct Known {
    /// It let the gateway in the last time.
    good: bool,
    refused: Option<Pause>,
    /// Of one that is not known to be good, one is tried at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Clone, Copy)]
struct Pause {
    until: Instant,
    length: Duration,
}

impl Pause {
    fn after(before: Option<Self>, (shortest, longest): (Duration, Duration)) -> Self {
        let length = before.map_or(shortest, |before| (before.length * 2).min(longest));
        Self { until: Instant::now() + length, length }
    }

    fn left(self) -> Option<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }
}

impl Backoff {
    /// Tries a target, unless it is too early. Cancel safe.
    pub(super) async fn attempt<T>(
        &self,
        target: &TargetName,
        address: (&str, u16),
        attempt: impl Future<Output = Result<T, UpstreamError>>,
    ) -> Result<T, UpstreamError> {
        let address = (address.0.to_owned(), address.1);
        let key = (address.clone(), target.clone());
        let turn = {
            let mut targets = self.targets.lock();
            forget(&mut targets, |known| known.refused.map(|pause| pause.until));
            let known = targets.entry(key.clone()).or_default();
            (!known.good).then(|| Arc::clone(&known.turn))
        };
        let _turn = match turn {
            Some(turn) => Some(turn.lock_owned().await),
            None => None,
        };
        self.may(&key)?;
        let done = attempt.await;
        self.learn(key, done.as_ref().err());
        done
    }

    /// Whether it is time.
    fn may(&self, key: &(Address, TargetName)) -> Result<(), UpstreamError> {
        if let Some(left) = self.hosts.lock().get(&key.0).and_then(|pause| pause.left()) {
            return Err(UpstreamError::Resting(
                left,
                "its host closed the last connection at once",
            ));
        }
        let refused = self.targets.lock().get(key).and_then(|known| known.refused);
        match refused.and_then(Pause::left) {
            Some(left) => Err(UpstreamError::Resting(left, "it did not let the gateway's user in")),
            None => Ok(()),
        }
    }

    fn learn(&self, key: (Address, TargetName), failed: Option<&UpstreamError>) {
        let mut hosts = self.hosts.lock();
        forget(&mut hosts, |pause| Some(pause.until));
        match failed {
            Some(UpstreamError::Dropped) => {
                let before = hosts.get(&key.0).copied();
                hosts.insert(key.0, Pause::after(before, DROPPED));
            }
            Some(UpstreamError::Denied(_)) => {
                hosts.remove(&key.0);
                let mut targets = self.targets.lock();
                let known = targets.entry(key).or_default();
                known.good = false;
                known.refused = Some(Pause::after(known.refused, REFUSED));
            }
            // What went wrong here or on the way says nothing of the credential.
            Some(_) => {}
            None => {
                hosts.remove(&key.0);
                let mut targets = self.targets.lock();
                let known = targets.entry(key).or_default();
                (known.good, known.refused) = (true, None);
            }
        }
    }
}

/// Forgets what is long over.
fn forget<K, V>(known: &mut HashMap<K, V>, until: impl Fn(&V) -> Option<Instant>) {
    let now = Instant::now();
    known.retain(|_, value| until(value).is_none_or(|until| now < until + FORGOTTEN));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> TargetName {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_refuses_waits_and_those_beside_it_do_not() {
        let backoff = Backoff::default();
        let try_it = |target: &'static str, done: Result<(), UpstreamError>| {
            let backoff = &backoff;
            async move { backoff.attempt(&name(target), ("host", 22), async { done }).await }
        };
        assert!(matches!(
            try_it("bad", Err(UpstreamError::Denied("root".to_owned()))).await,
            Err(UpstreamError::Denied(_))
        ));
        assert!(matches!(try_it("bad", Ok(())).await, Err(UpstreamError::Resting(..))));
        assert!(try_it("good", Ok(())).await.is_ok());
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert!(matches!(
            try_it("bad", Err(UpstreamError::Denied("root".to_owned()))).await,
            Err(UpstreamError::Denied(_))
        ));
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert!(matches!(try_it("bad", Ok(())).await, Err(UpstreamError::Resting(..))));
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert!(try_it("bad", Ok(())).await.is_ok());
        // A host that closes at once is left alone, for all.
        assert!(try_it("good", Err(UpstreamError::Dropped)).await.is_err());
        assert!(matches!(try_it("bad", Ok(())).await, Err(UpstreamError::Resting(..))));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(try_it("bad", Ok(())).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_at_once_one_tries_a_target_that_is_not_known() {
        let backoff = Arc::new(Backoff::default());
        let tried = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let all = (0..20).map(|_| {
            let (backoff, tried) = (Arc::clone(&backoff), Arc::clone(&tried));
            async move {
                let attempt = async {
                    tried.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Err::<(), _>(UpstreamError::Denied("root".to_owned()))
                };
                backoff.attempt(&name("bad"), ("host", 22), attempt).await
            }
        });
        futures_util::future::join_all(all).await;
        assert_eq!(tried.load(std::sync::atomic::Ordering::Relaxed), 1);
    }
}
