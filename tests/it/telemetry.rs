//! Spans as a collector gets them.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::support::client::Database;
use crate::support::gateway::{Gateway, Setup};

type Spans = Arc<Mutex<Vec<Span>>>;

/// A collector on loopback that keeps what it gets, until the test's runtime ends.
async fn collector() -> (String, Spans) {
    async fn take(State(spans): State<Spans>, body: Bytes) {
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        for resource in request.resource_spans {
            spans.lock().extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
    let spans = Spans::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/v1/traces", post(take)).with_state(spans.clone());
    TaskTracker::new().spawn(async move { axum::serve(listener, router).await });
    (url, spans)
}

fn attribute(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_and_commands_are_spans_without_texts_or_values() {
    let (url, spans) = collector().await;
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup {
        listen: format!("[telemetry]\notlp = \"{url}\"\n"),
        ..Setup::for_targets([database.target("orders")])
    });
    let client = gateway.client("orders");
    let stopped = tokio::task::spawn_blocking(move || {
        let psql = |sql| client.psql().args(["-c", sql]).output().unwrap();
        assert!(psql("select 'hunter2' from generate_series(1, 3)").status.success());
        assert!(!psql("select 1/0").status.success());
        assert!(gateway.stop().success());
    });
    stopped.await.unwrap();

    let spans = spans.lock();
    let sessions: Vec<_> = spans.iter().filter(|span| span.name == "session orders").collect();
    assert_eq!(sessions.len(), 2);
    for session in &sessions {
        assert_eq!(attribute(session, "portcullis.target").unwrap(), "orders");
        assert!(attribute(session, "portcullis.ended").is_some(), "it did not end");
    }
    let commands: Vec<_> = spans.iter().filter(|span| span.name == "query").collect();
    assert_eq!(commands.len(), 2);
    for command in &commands {
        assert_eq!(attribute(command, "portcullis.verdict").unwrap(), "allow");
        assert!(sessions.iter().any(|session| session.span_id == command.parent_span_id));
    }
    let told = |name: &str| commands.iter().find_map(|span| attribute(span, name));
    assert_eq!(told("portcullis.rows").unwrap(), "3");
    assert_eq!(told("error.type").unwrap(), "22012");
    assert!(!format!("{spans:?}").contains("hunter2"));
}

#[test]
fn a_collector_that_is_away_changes_nothing() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup {
        // Port 9 of loopback: nobody is there.
        listen: "[telemetry]\notlp = \"http://127.0.0.1:9\"\n".to_owned(),
        ..Setup::for_targets([database.target("orders")])
    });
    let answered = gateway.client("orders").psql().args(["-c", "select 1"]).output().unwrap();
    assert!(answered.status.success());
    assert!(gateway.stop().success());
    gateway.verify_all();
}
