//! What is counted while the gateway runs, for Prometheus.
//!
//! Counters are atomics that a session takes hold of once, when it opens; the page is written when
//! somebody asks. Labels are the catalog's targets and words of the gateway's own, never what a
//! client said, so their number is bounded.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::{
    EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet, prometheus_text,
};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

use crate::names::{Protocol, TargetName};
use crate::policy::Verdict;

/// All that is counted in one gateway.
#[derive(Debug, Default)]
pub struct Metrics {
    sessions: Sessions,
    denied: Family<Denied, Counter>,
    recording_failures: Counter,
    notifications: Family<Notified, Counter>,
    archive: Mutex<Option<Archiving>>,
    witness: Mutex<Option<bool>>,
}

/// What is counted of sessions.
#[derive(Debug, Clone, Default)]
struct Sessions {
    open: Family<Of, Gauge>,
    opened: Family<Of, Counter>,
    ended: Family<Ended, Counter>,
    connect_errors: Family<Of, Counter>,
    commands: Family<Decided, Counter>,
    bytes: Family<Passed, Counter>,
    masked: Family<Of, Counter>,
    latency: Family<Of, Latency>,
    refusals: Family<Refused, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    protocol: &'static str,
    target: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    #[prometheus(flatten)]
    of: Of,
    how: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decided {
    #[prometheus(flatten)]
    of: Of,
    verdict: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Passed {
    #[prometheus(flatten)]
    of: Of,
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    #[prometheus(flatten)]
    of: Of,
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Denied {
    protocol: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Notified {
    name: String,
    outcome: &'static str,
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
    /// Has everything counted here on the page of a registry, which adds `_total` to the names of
    /// counters and a full stop to help texts.
    pub fn register(&self, registry: &mut Registry) {
        let all = &self.sessions;
        add(registry, "portcullis_sessions_open", "Sessions that are open", &all.open);
        add(registry, "portcullis_sessions_opened", "Sessions that were opened", &all.opened);
        add(registry, "portcullis_sessions_ended", "Sessions that ended, by how", &all.ended);
        let help = "Targets that were not reached";
        add(registry, "portcullis_upstream_connect_errors", help, &all.connect_errors);
        add(
            registry,
            "portcullis_commands",
            "Commands that were decided, by verdict",
            &all.commands,
        );
        let help = "Bytes that passed, up to the target and down";
        add(registry, "portcullis_bytes", help, &all.bytes);
        let help = "Values that were masked in what answered commands";
        add(registry, "portcullis_masked_values", help, &all.masked);
        let help = "How long deciding and recording took before bytes went up";
        add(registry, "portcullis_added_latency_seconds", help, &all.latency);
        let help = "SSH targets that were not reached, by cause";
        add(registry, "portcullis_upstream_refusals", help, &all.refusals);
        add(registry, "portcullis_access_denied", "Callers who got no session", &self.denied);
        let help = "Messages to those who are told of things, by outcome";
        add(registry, "portcullis_notifications", help, &self.notifications);
        let help = "Writes that could not be recorded";
        add(registry, "portcullis_recording_failures", help, &self.recording_failures);
    }

    /// Counts a session that opens.
    pub fn session(&self, protocol: Protocol, target: &TargetName) -> SessionMetrics {
        SessionMetrics::new(&self.sessions, protocol, target)
    }

    /// Counts a caller who got no session.
    pub fn denied(&self, protocol: Protocol) {
        self.denied.get_or_create(&Denied { protocol: protocol.as_str() }).inc();
    }

    /// Counts a write that could not be recorded.
    pub fn recording_failed(&self) {
        self.recording_failures.inc();
    }

    /// Counts a message to somebody who is told of things: `sent`, `failed` or `dropped`. The name is
    /// the operator's, of letters, digits, `-` and `_`.
    pub fn notified(&self, name: &str, outcome: &'static str) {
        self.notifications.get_or_create(&Notified { name: name.to_owned(), outcome }).inc();
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

/// One open session, as counted; it is no longer open when this is dropped.
#[derive(Debug)]
pub struct SessionMetrics {
    of: Of,
    open: Gauge,
    allowed: Counter,
    approved: Counter,
    blocked: Counter,
    up: Counter,
    down: Counter,
    masked: Counter,
    connect_errors: Counter,
    latency: Latency,
    ended: Family<Ended, Counter>,
    refusals: Family<Refused, Counter>,
}

impl SessionMetrics {
    fn new(all: &Sessions, protocol: Protocol, target: &TargetName) -> Self {
        let of = Of { protocol: protocol.as_str(), target: target.to_string() };
        let decided =
            |verdict| all.commands.get_or_create_owned(&Decided { of: of.clone(), verdict });
        let passed =
            |direction| all.bytes.get_or_create_owned(&Passed { of: of.clone(), direction });
        all.opened.get_or_create(&of).inc();
        let open = all.open.get_or_create_owned(&of);
        open.inc();
        Self {
            open,
            allowed: decided("allow"),
            approved: decided("approve"),
            blocked: decided("block"),
            up: passed("up"),
            down: passed("down"),
            masked: all.masked.get_or_create_owned(&of),
            connect_errors: all.connect_errors.get_or_create_owned(&of),
            latency: all.latency.get_or_create_owned(&of),
            ended: all.ended.clone(),
            refusals: all.refusals.clone(),
            of,
        }
    }

    /// Counts how it ended.
    pub fn ended(&self, how: &'static str) {
        self.ended.get_or_create(&Ended { of: self.of.clone(), how }).inc();
    }

    /// Counts a decided command.
    pub fn decided(&self, verdict: Verdict, commands: u64) {
        let counter = match verdict {
            Verdict::Allow => &self.allowed,
            Verdict::Approve => &self.approved,
            Verdict::Block => &self.blocked,
        };
        counter.inc_by(commands);
    }

    /// Counts what passed up, and how long deciding and recording it took.
    pub fn passed_up(&self, bytes: usize, took: Duration) {
        self.up.inc_by(bytes as u64);
        self.latency.observe(took);
    }

    /// Counts what passed down.
    pub fn passed_down(&self, bytes: usize) {
        self.down.inc_by(bytes as u64);
    }

    /// Counts values that were masked in what answered a command.
    pub fn masked(&self, values: u64) {
        self.masked.inc_by(values);
    }

    /// Counts a target that was not reached.
    pub fn not_connected(&self) {
        self.connect_errors.inc();
    }

    /// Counts why a target was not reached, where that is told apart.
    pub fn upstream_refused(&self, cause: &'static str) {
        self.refusals.get_or_create(&Refused { of: self.of.clone(), cause }).inc();
    }
}

impl Drop for SessionMetrics {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// The upper ends of the latency histogram's buckets, in microseconds.
const BUCKETS_US: [u64; 10] = [25, 50, 100, 250, 500, 1_000, 5_000, 25_000, 100_000, 1_000_000];

/// How long commands were held up. Atomics: the library's histogram has a lock, for which the
/// sessions of one target would wait at every command.
#[derive(Debug, Clone, Default)]
struct Latency(Arc<Observed>);

#[derive(Debug, Default)]
struct Observed {
    buckets: [AtomicU64; BUCKETS_US.len()],
    count: AtomicU64,
    sum_us: AtomicU64,
}

impl Latency {
    fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.iter().zip(&self.0.buckets).find(|(most, _)| us <= **most);
        if let Some((_, counter)) = bucket {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        self.0.count.fetch_add(1, Ordering::Relaxed);
        self.0.sum_us.fetch_add(us, Ordering::Relaxed);
    }
}

impl TypedMetric for Latency {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Latency {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a sum of seconds; more microseconds than 2^53 are 285 years"
    )]
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let seconds = |us: u64| us as f64 / 1e6;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let count = read(&self.0.count);
        let buckets = BUCKETS_US.iter().zip(&self.0.buckets);
        let buckets: Vec<_> =
            buckets.map(|(most, counter)| (seconds(*most), read(counter))).collect();
        // Observed meanwhile: no bucket has more than all have.
        let below = buckets.iter().map(|(_, count)| count).sum();
        let sum = seconds(read(&self.0.sum_us));
        encoder.encode_histogram::<NoLabelSet>(sum, count.max(below), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

fn add(
    registry: &mut Registry,
    name: &str,
    help: &str,
    metric: &(impl EncodeMetric + fmt::Debug + Clone + Send + Sync + 'static),
) {
    registry.register(name, help, Always(metric.clone()));
}

/// A family that is on the page before it has a value: scrapers and tests know what there is.
#[derive(Debug)]
struct Always<M>(M);

impl<M: EncodeMetric> EncodeMetric for Always<M> {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        self.0.metric_type()
    }
}

/// Bounds of buckets as the library writes them, in Go's notation, and as they were released: a
/// label is a part of a series' name.
const BOUNDS: [(&str, &str); 2] =
    [(r#"le="2.5e-05""#, r#"le="0.000025""#), (r#"le="5e-05""#, r#"le="0.00005""#)];

/// The page for Prometheus, in its text format of version 0.0.4.
pub fn page(registry: &Registry) -> String {
    let mut page = String::new();
    // Writing to a String does not fail.
    let _ok = prometheus_text::encode(&mut page, registry);
    BOUNDS.iter().fold(page, |page, (written, released)| page.replace(written, released))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dashboards and alerts name these: a name, a label or a type that changes breaks them. The
    /// lines of one metric are in no order.
    const RELEASED: &str = r#"
# HELP portcullis_sessions_open Sessions that are open.
# TYPE portcullis_sessions_open gauge
portcullis_sessions_open{protocol="postgres",target="orders"} 1
# HELP portcullis_sessions_opened_total Sessions that were opened.
# TYPE portcullis_sessions_opened_total counter
portcullis_sessions_opened_total{protocol="postgres",target="orders"} 2
# HELP portcullis_sessions_ended_total Sessions that ended, by how.
# TYPE portcullis_sessions_ended_total counter
portcullis_sessions_ended_total{protocol="postgres",target="orders",how="client"} 1
# HELP portcullis_upstream_connect_errors_total Targets that were not reached.
# TYPE portcullis_upstream_connect_errors_total counter
portcullis_upstream_connect_errors_total{protocol="postgres",target="orders"} 1
# HELP portcullis_commands_total Commands that were decided, by verdict.
# TYPE portcullis_commands_total counter
portcullis_commands_total{protocol="postgres",target="orders",verdict="allow"} 3
portcullis_commands_total{protocol="postgres",target="orders",verdict="approve"} 0
portcullis_commands_total{protocol="postgres",target="orders",verdict="block"} 1
# HELP portcullis_bytes_total Bytes that passed, up to the target and down.
# TYPE portcullis_bytes_total counter
portcullis_bytes_total{protocol="postgres",target="orders",direction="up"} 30
portcullis_bytes_total{protocol="postgres",target="orders",direction="down"} 7
# HELP portcullis_masked_values_total Values that were masked in what answered commands.
# TYPE portcullis_masked_values_total counter
portcullis_masked_values_total{protocol="postgres",target="orders"} 4
# HELP portcullis_added_latency_seconds How long deciding and recording took before bytes went up.
# TYPE portcullis_added_latency_seconds histogram
portcullis_added_latency_seconds_bucket{protocol="postgres",target="orders",le="0.000025"} 1
portcullis_added_latency_seconds_bucket{protocol="postgres",target="orders",le="0.00005"} 1
portcullis_added_latency_seconds_bucket{protocol="postgres",target="orders",le="0.0001"} 1
portcullis_added_latency_seconds_bucket{protocol="postgres",target="orders",le="0.00025"} 2
portcullis_added_latency_seconds_bucket{protocol="postgres",target="orders",le="0.0005"} 2
portcullis_added_latency_seconds_bucket{protocol="postgres",target="orders",le="0.001"} 2
portcullis_added_latency_seconds_bucket{protocol="postgres",target="orders",le="0.005"} 2
portcullis_added_latency_seconds_bucket{protocol="postgres",target="orders",le="0.025"} 2
portcullis_added_latency_seconds_bucket{protocol="postgres",target="orders",le="0.1"} 2
portcullis_added_latency_seconds_bucket{protocol="postgres",target="orders",le="1"} 2
portcullis_added_latency_seconds_bucket{protocol="postgres",target="orders",le="+Inf"} 3
portcullis_added_latency_seconds_sum{protocol="postgres",target="orders"} 2.000225
portcullis_added_latency_seconds_count{protocol="postgres",target="orders"} 3
# HELP portcullis_upstream_refusals_total SSH targets that were not reached, by cause.
# TYPE portcullis_upstream_refusals_total counter
# HELP portcullis_access_denied_total Callers who got no session.
# TYPE portcullis_access_denied_total counter
portcullis_access_denied_total{protocol="ssh"} 1
# HELP portcullis_notifications_total Messages to those who are told of things, by outcome.
# TYPE portcullis_notifications_total counter
portcullis_notifications_total{name="on-call",outcome="sent"} 1
# HELP portcullis_recording_failures_total Writes that could not be recorded.
# TYPE portcullis_recording_failures_total counter
portcullis_recording_failures_total 0
"#;

    #[test]
    fn released_names_labels_types_and_help_texts_stay() {
        let metrics = Metrics::default();
        let orders: TargetName = "orders".parse().unwrap();
        let session = metrics.session(Protocol::Postgres, &orders);
        let other = metrics.session(Protocol::Postgres, &orders);
        session.decided(Verdict::Allow, 3);
        session.decided(Verdict::Block, 1);
        for us in [25, 200, 2_000_000] {
            session.passed_up(10, Duration::from_micros(us));
        }
        session.passed_down(7);
        session.masked(4);
        other.not_connected();
        other.ended("client");
        drop(other);
        metrics.denied(Protocol::Ssh);
        metrics.notified("on-call", "sent");
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let page = page(&registry);
        // By metric, and within one by line.
        let sorted = |page: &str| {
            let blocks = page.split("# HELP ").map(|block| {
                let mut lines: Vec<_> = block.trim().lines().map(str::to_owned).collect();
                lines.sort_unstable();
                lines
            });
            blocks.collect::<Vec<_>>()
        };
        assert_eq!(sorted(&page), sorted(RELEASED), "{page}");
    }
}
