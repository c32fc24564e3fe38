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
    page.counted();
    let mut gauge = |name: &str, help: &str, value: f64| {
        page.metric(name, "gauge", help);
        page.value(name, "", value);
    };
    let waiting = store.waiting() as f64;
    gauge("portcullis_recordings_waiting", "Recordings with events not in a block yet.", waiting);
    gauge("portcullis_commands_held", "Commands that wait for people.", desk.waiting() as f64);
    let reachable = f64::from(u8::from(desk.is_reachable()));
    gauge("portcullis_state_up", "1 while tickets, approvals and grants count.", reachable);
    let lag = lag.get();
    let behind = lag.behind.map_or(f64::NAN, |behind| behind.as_secs_f64());
    gauge("portcullis_index_behind_seconds", "How far the index is behind, at most.", behind);
    let recordings = lag.recordings as f64;
    gauge("portcullis_index_recordings", "Recordings that hold more than the index.", recordings);
    let up = f64::from(u8::from(lag.error.is_none()));
    gauge("portcullis_index_up", "1 while the index is kept, 0 while its database fails.", up);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], page.finish())
}
