//! What Prometheus gets: the counters, and how the index and the recordings are.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::approval::Desk;
use crate::database::LagWatch;
use crate::metrics;
use crate::recording::Store;

/// The path for the listener of metrics.
pub fn router(lag: LagWatch, store: Store, desk: Arc<Desk>) -> Router {
    let mut registry = Registry::default();
    desk.metrics().register(&mut registry);
    registry.register_collector(Box::new(Figures { lag, store, desk }));
    Router::new().route("/metrics", get(page)).with_state(Arc::new(registry))
}

async fn page(State(registry): State<Arc<Registry>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics::page(&registry))
}

/// What is not counted but looked at when somebody asks.
#[derive(Debug)]
struct Figures {
    lag: LagWatch,
    store: Store,
    desk: Arc<Desk>,
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut gauges = Gauges(encoder);
        let help = "Recordings with events not in a block yet.";
        gauges.add("portcullis_recordings_waiting", help, self.store.waiting())?;
        let help = "Commands that wait for people.";
        gauges.add("portcullis_commands_held", help, self.desk.waiting())?;
        let help = "1 while tickets, approvals and grants count.";
        gauges.add("portcullis_state_up", help, u64::from(self.desk.is_reachable()))?;
        let (local, most) = self.store.local_bytes();
        gauges.add("portcullis_recordings_bytes", "Bytes of the recordings here.", local)?;
        gauges.add("portcullis_recordings_max_bytes", "[recording] max_local.", most)?;
        let metrics = self.desk.metrics();
        let archiving = metrics.archiving();
        let up = archiving.is_none_or(|how| how.reachable);
        let help = "0 while recordings cannot be moved to the archive.";
        gauges.add("portcullis_archive_up", help, u64::from(up))?;
        let (waiting, failures) = archiving.map_or((0, 0), |how| (how.waiting, how.failures));
        let help = "Sealed recordings that are not in the archive yet.";
        gauges.add("portcullis_archive_waiting", help, waiting)?;
        let help = "Tries to move one that failed since the start.";
        gauges.add("portcullis_archive_failures", help, failures)?;
        let help = "0 while checkpoints do not get to the witness.";
        let up = metrics.witnessing().unwrap_or(true);
        gauges.add("portcullis_witness_up", help, u64::from(up))?;
        let lag = self.lag.get();
        let behind = lag.behind.map_or(f64::NAN, |behind| behind.as_secs_f64());
        let help = "How far the index is behind, at most.";
        gauges.add("portcullis_index_behind_seconds", help, behind)?;
        let help = "Recordings that hold more than the index.";
        gauges.add("portcullis_index_recordings", help, lag.recordings)?;
        let help = "1 while the index is kept, 0 while its database fails.";
        gauges.add("portcullis_index_up", help, u64::from(lag.error.is_none()))
    }
}

struct Gauges<'a>(DescriptorEncoder<'a>);

impl Gauges<'_> {
    fn add(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(encoder)
    }
}
