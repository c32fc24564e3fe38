//! What is counted while the gateway runs, for Prometheus.
//!
//! Counters are atomics that a session takes hold of once, when it opens; the names and labels are
//! put together when somebody asks. Labels are the catalog's targets and words of the gateway's
//! own, never what a client said, so their number is bounded.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::names::{Protocol, TargetName};
use crate::policy::Verdict;

/// All that is counted in one gateway.
#[derive(Debug, Default)]
pub struct Metrics {
    targets: Mutex<BTreeMap<(&'static str, TargetName), Arc<Target>>>,
    denied: Mutex<BTreeMap<&'static str, u64>>,
    recording_failures: Counter,
    notifications: Mutex<BTreeMap<(String, &'static str), u64>>,
    archive: Mutex<Option<Archiving>>,
    witness: Mutex<Option<bool>>,
}

/// How moving recordings to the archive goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archiving {
    /// Recordings that are not there yet.
    pub waiting: u64,
    /// Recordings that were moved since the gateway started.
    pub moved: u64,
    /// Tries that failed since the gateway started.
    pub failures: u64,
    /// Whether the last tries did not all fail.
    pub reachable: bool,
    /// How full the directory of recordings is, in per cent of `max_local`.
    pub local_percent: u64,
}

impl Metrics {
    /// Counts a session that opens.
    pub fn session(&self, protocol: Protocol, target: &TargetName) -> SessionMetrics {
        let key = (protocol.as_str(), target.clone());
        let target = Arc::clone(self.targets.lock().entry(key).or_default());
        target.opened.add(1);
        SessionMetrics(target)
    }

    /// Counts a caller who got no session.
    pub fn denied(&self, protocol: Protocol) {
        *self.denied.lock().entry(protocol.as_str()).or_default() += 1;
    }

    /// Counts a write that could not be recorded.
    pub fn recording_failed(&self) {
        self.recording_failures.add(1);
    }

    /// Counts a message to somebody who is told of things: `sent`, `failed` or `dropped`. The name is
    /// the operator's, of letters, digits, `-` and `_`.
    pub fn notified(&self, name: &str, outcome: &'static str) {
        *self.notifications.lock().entry((name.to_owned(), outcome)).or_default() += 1;
    }

    /// Tells how moving recordings goes.
    pub fn archive(&self, how: Archiving) {
        *self.archive.lock() = Some(how);
    }

    /// How moving recordings goes; none without an archive.
    pub fn archiving(&self) -> Option<Archiving> {
        *self.archive.lock()
    }

    /// Tells whether the witness took the last checkpoint.
    pub fn witness(&self, took_it: bool) {
        *self.witness.lock() = Some(took_it);
    }

    /// Whether the witness took the last checkpoint; none without one, and before the first.
    pub fn witnessing(&self) -> Option<bool> {
        *self.witness.lock()
    }
}

#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The upper ends of the latency histogram's buckets, in microseconds.
const BUCKETS_US: [u64; 10] = [25, 50, 100, 250, 500, 1_000, 5_000, 25_000, 100_000, 1_000_000];

/// What is counted of one target.
#[derive(Debug, Default)]
struct Target {
    opened: Counter,
    ended: Mutex<BTreeMap<&'static str, u64>>,
    gone: Counter,
    allowed: Counter,
    approved: Counter,
    blocked: Counter,
    bytes_up: Counter,
    bytes_down: Counter,
    masked: Counter,
    connect_errors: Counter,
    refusals: Mutex<BTreeMap<&'static str, u64>>,
    latency: [Counter; BUCKETS_US.len()],
    latency_count: Counter,
    latency_sum_us: Counter,
}

/// One open session, as counted; it is no longer open when this is dropped.
#[derive(Debug)]
pub struct SessionMetrics(Arc<Target>);

impl SessionMetrics {
    /// Counts how it ended.
    pub fn ended(&self, how: &'static str) {
        *self.0.ended.lock().entry(how).or_default() += 1;
    }

    /// Counts a decided command.
    pub fn decided(&self, verdict: Verdict, commands: u64) {
        let counter = match verdict {
            Verdict::Allow => &self.0.allowed,
            Verdict::Approve => &self.0.approved,
            Verdict::Block => &self.0.blocked,
        };
        counter.add(commands);
    }

    /// Counts what passed up, and how long deciding and recording it took.
    pub fn passed_up(&self, bytes: usize, took: Duration) {
        self.0.bytes_up.add(bytes as u64);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.iter().zip(&self.0.latency).find(|(most, _)| us <= **most);
        if let Some((_, counter)) = bucket {
            counter.add(1);
        }
        self.0.latency_count.add(1);
        self.0.latency_sum_us.add(us);
    }

    /// Counts what passed down.
    pub fn passed_down(&self, bytes: usize) {
        self.0.bytes_down.add(bytes as u64);
    }

    /// Counts values that were masked in what answered a command.
    pub fn masked(&self, values: u64) {
        self.0.masked.add(values);
    }

    /// Counts a target that was not reached.
    pub fn not_connected(&self) {
        self.0.connect_errors.add(1);
    }

    /// Counts why a target was not reached, where that is told apart.
    pub fn upstream_refused(&self, cause: &'static str) {
        *self.0.refusals.lock().entry(cause).or_default() += 1;
    }
}

impl Drop for SessionMetrics {
    fn drop(&mut self) {
        self.0.gone.add(1);
    }
}

/// A page in the text format of Prometheus, version 0.0.4.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// Begins a metric.
    pub fn metric(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String does not fail.
        let _ok = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One value; labels are without characters that would need escaping.
    pub fn value(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ok = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            _ => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    /// The page.
    pub fn finish(self) -> String {
        self.0
    }

    /// All that is counted.
    pub fn counted(&mut self, metrics: &Metrics) {
        let targets: Vec<_> = metrics
            .targets
            .lock()
            .iter()
            .map(|((protocol, name), target)| {
                (format!("protocol=\"{protocol}\",target=\"{name}\""), Arc::clone(target))
            })
            .collect();
        self.sessions(&targets);
        self.traffic(&targets);
        self.latency(&targets);
        let name = "portcullis_upstream_refusals_total";
        self.metric(name, "counter", "SSH targets that were not reached, by cause.");
        for (labels, target) in &targets {
            for (cause, count) in &*target.refusals.lock() {
                self.value(name, &format!("{labels},cause=\"{cause}\""), count);
            }
        }
        let name = "portcullis_access_denied_total";
        self.metric(name, "counter", "Callers who got no session.");
        for (protocol, count) in &*metrics.denied.lock() {
            self.value(name, &format!("protocol=\"{protocol}\""), count);
        }
        let name = "portcullis_notifications_total";
        self.metric(name, "counter", "Messages to those who are told of things, by outcome.");
        for ((to, outcome), count) in &*metrics.notifications.lock() {
            self.value(name, &format!("name=\"{to}\",outcome=\"{outcome}\""), count);
        }
        let name = "portcullis_recording_failures_total";
        self.metric(name, "counter", "Writes that could not be recorded.");
        self.value(name, "", metrics.recording_failures.get());
    }

    fn sessions(&mut self, targets: &[(String, Arc<Target>)]) {
        let name = "portcullis_sessions_open";
        self.metric(name, "gauge", "Sessions that are open.");
        for (labels, target) in targets {
            // In this order: what is gone had been opened.
            let gone = target.gone.get();
            self.value(name, labels, target.opened.get().saturating_sub(gone));
        }
        let name = "portcullis_sessions_opened_total";
        self.metric(name, "counter", "Sessions that were opened.");
        for (labels, target) in targets {
            self.value(name, labels, target.opened.get());
        }
        let name = "portcullis_sessions_ended_total";
        self.metric(name, "counter", "Sessions that ended, by how.");
        for (labels, target) in targets {
            for (how, count) in &*target.ended.lock() {
                self.value(name, &format!("{labels},how=\"{how}\""), count);
            }
        }
        let name = "portcullis_upstream_connect_errors_total";
        self.metric(name, "counter", "Targets that were not reached.");
        for (labels, target) in targets {
            self.value(name, labels, target.connect_errors.get());
        }
    }

    fn traffic(&mut self, targets: &[(String, Arc<Target>)]) {
        let name = "portcullis_commands_total";
        self.metric(name, "counter", "Commands that were decided, by verdict.");
        for (labels, target) in targets {
            for (verdict, counter) in [
                ("allow", &target.allowed),
                ("approve", &target.approved),
                ("block", &target.blocked),
            ] {
                self.value(name, &format!("{labels},verdict=\"{verdict}\""), counter.get());
            }
        }
        let name = "portcullis_bytes_total";
        self.metric(name, "counter", "Bytes that passed, up to the target and down.");
        for (labels, target) in targets {
            for (direction, counter) in [("up", &target.bytes_up), ("down", &target.bytes_down)] {
                self.value(name, &format!("{labels},direction=\"{direction}\""), counter.get());
            }
        }
        let name = "portcullis_masked_values_total";
        self.metric(name, "counter", "Values that were masked in what answered commands.");
        for (labels, target) in targets {
            self.value(name, labels, target.masked.get());
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a sum of seconds; more microseconds than 2^53 are 285 years"
    )]
    fn latency(&mut self, targets: &[(String, Arc<Target>)]) {
        let name = "portcullis_added_latency_seconds";
        let help = "How long deciding and recording took before bytes went up.";
        self.metric(name, "histogram", help);
        for (labels, target) in targets {
            let count = target.latency_count.get();
            let mut below = 0;
            for (most, counter) in BUCKETS_US.iter().zip(&target.latency) {
                below += counter.get();
                let most = *most as f64 / 1e6;
                let labels = format!("{labels},le=\"{most}\"");
                self.value(&format!("{name}_bucket"), &labels, below);
            }
            let labels_inf = format!("{labels},le=\"+Inf\"");
            self.value(&format!("{name}_bucket"), &labels_inf, count.max(below));
            self.value(&format!("{name}_count"), labels, count.max(below));
            let sum = target.latency_sum_us.get() as f64 / 1e6;
            self.value(&format!("{name}_sum"), labels, sum);
        }
    }
}
