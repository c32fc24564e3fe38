//! What Prometheus gets: the counters, and how the index and the recordings are.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

use crate::approval::Desk;
use crate::database::LagWatch;
use crate::metrics::Exposition;
use crate::recording::Store;

type Figures = (LagWatch, Store, Arc<Desk>);

/// The path for the listener of metrics.
pub fn router(lag: LagWatch, store: Store, desk: Arc<Desk>) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(Arc::new((lag, store, desk)))
}

async fn metrics(State(state): State<Arc<Figures>>) -> impl IntoResponse {
    let (lag, store, desk) = &*state;
    let mut page = Exposition::default();
    let metrics = desk.metrics();
    page.counted(metrics);
    let mut gauge = |name: &str, help: &str, value: f64| {
        page.metric(name, "gauge", help);
        page.value(name, "", value);
    };
    let waiting = store.waiting() as f64;
    gauge("portcullis_recordings_waiting", "Recordings with events not in a block yet.", waiting);
    gauge("portcullis_commands_held", "Commands that wait for people.", desk.waiting() as f64);
    let reachable = f64::from(u8::from(desk.is_reachable()));
    gauge("portcullis_state_up", "1 while tickets, approvals and grants count.", reachable);
    let (local, most) = store.local_bytes();
    gauge("portcullis_recordings_bytes", "Bytes of the recordings here.", local as f64);
    gauge("portcullis_recordings_max_bytes", "[recording] max_local.", most as f64);
    let archiving = metrics.archiving();
    let up = f64::from(u8::from(archiving.is_none_or(|how| how.reachable)));
    gauge("portcullis_archive_up", "0 while recordings cannot be moved to the archive.", up);
    let (waiting, failures) = archiving.map_or((0, 0), |how| (how.waiting, how.failures));
    let help = "Sealed recordings that are not in the archive yet.";
    gauge("portcullis_archive_waiting", help, waiting as f64);
    let help = "Tries to move one that failed since the start.";
    gauge("portcullis_archive_failures", help, failures as f64);
    let up = f64::from(u8::from(metrics.witnessing().unwrap_or(true)));
    gauge("portcullis_witness_up", "0 while checkpoints do not get to the witness.", up);
    let lag = lag.get();
    let behind = lag.behind.map_or(f64::NAN, |behind| behind.as_secs_f64());
    gauge("portcullis_index_behind_seconds", "How far the index is behind, at most.", behind);
    let recordings = lag.recordings as f64;
    gauge("portcullis_index_recordings", "Recordings that hold more than the index.", recordings);
    let up = f64::from(u8::from(lag.error.is_none()));
    gauge("portcullis_index_up", "1 while the index is kept, 0 while its database fails.", up);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], page.finish())
}
