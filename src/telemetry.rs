//! Spans of sessions and commands, sent to an OpenTelemetry collector by OTLP over HTTP.
//!
//! Off unless `[telemetry] otlp` names a collector. A span tells who did what kind of thing, where,
//! how it was decided and how long it took; never a command's text or its values.
//!
//! Limits: spans wait in a bounded queue, and those that find it full are lost, as are those of a
//! collector that stays away: telemetry never delays or fails a session.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::trace::{
    Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::policy::{CommandParts, Verdict};
use crate::recording::{Opened, Outcome, Sequence};

/// How long one batch of spans may take to be sent, and the last one at the end.
const EXPORT_TIME: Duration = Duration::from_secs(5);

/// What a collector's answer may have, in bytes; a good one has next to nothing.
const MAX_ANSWER: usize = 64 << 10;

/// Commands of one session whose end is waited for; the pipelines of ordinary clients are shorter.
const MAX_OPEN: usize = 1_024;

/// The collector's address is of no use.
#[derive(Debug, thiserror::Error)]
#[error("[telemetry] otlp: {0}")]
pub struct TelemetryError(String);

/// The sending of spans; it ends with [`Telemetry::end`].
#[derive(Debug)]
pub struct Telemetry(SdkTracerProvider);

impl Telemetry {
    /// Begins to send the spans of this process to a collector's base URL, or to its full address
    /// for traces. Must run inside of the runtime that will carry the requests.
    pub fn start(collector: &str) -> Result<Self, TelemetryError> {
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::aws_lc_rs::default_provider())
            .map_err(|error| TelemetryError(error.to_string()))?
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Sender { client, runtime: Handle::current() })
            .with_endpoint(traces_address(collector))
            .with_timeout(EXPORT_TIME)
            .build()
            .map_err(|error| TelemetryError(error.to_string()))?;
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource =
            Resource::builder().with_service_name("portcullis").with_attribute(version).build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build();
        Ok(Self(provider))
    }

    /// What makes the spans that are sent.
    pub fn tracer(&self) -> Tracer {
        Tracer(Some(self.0.tracer("portcullis")))
    }

    /// Sends what is left, for a few seconds at most.
    pub async fn end(self) {
        let ended =
            tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(EXPORT_TIME)).await;
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last spans were not sent"),
            Err(error) => tracing::warn!(%error, "the last spans were not sent"),
        }
    }
}

/// A base URL's place for traces, as the OTLP specification has it; a longer address as it is.
fn traces_address(collector: &str) -> String {
    let after_scheme = collector.split_once("://").map_or(collector, |(_, rest)| rest);
    match after_scheme.trim_end_matches('/').contains('/') {
        true => collector.to_owned(),
        false => format!("{}/v1/traces", collector.trim_end_matches('/')),
    }
}

/// Carries the exporter's requests, which come from a thread outside of the runtime.
#[derive(Debug)]
struct Sender {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
}

#[async_trait::async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.client.request(request.map(Full::new));
        let exchange = async {
            let (head, body) = answer.await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(head, body))
        };
        self.runtime.spawn(async { tokio::time::timeout(EXPORT_TIME, exchange).await }).await??
    }
}

/// Makes the spans of sessions; none where no collector is configured.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<SdkTracer>);

/// The spans of one session; nothing at all when no collector is configured.
#[derive(Debug)]
pub struct SessionSpans(Option<Arc<Spans>>);

#[derive(Debug)]
struct Spans {
    tracer: SdkTracer,
    session: Context,
    open: Mutex<BTreeMap<Sequence, Span>>,
}

/// What the span of a decided command says.
#[derive(Debug)]
pub struct CommandSpan {
    form: String,
    actions: Vec<String>,
    verdict: Verdict,
}

/// What it says when the command has ended.
#[derive(Debug)]
pub struct CommandSpanEnd {
    of: Sequence,
    rows: Option<u64>,
    error: Option<String>,
}

impl Tracer {
    /// Begins a session's span.
    pub fn session(&self, opened: &Opened) -> SessionSpans {
        let Some(tracer) = &self.0 else { return SessionSpans(None) };
        let mut attributes = vec![
            KeyValue::new("portcullis.session", opened.session.to_string()),
            KeyValue::new("portcullis.target", opened.target.to_string()),
            KeyValue::new("portcullis.policy", opened.policy.clone()),
            KeyValue::new("network.protocol.name", opened.protocol.as_str()),
            KeyValue::new("client.address", opened.client.clone()),
            KeyValue::new("enduser.id", opened.identity.subject.clone()),
            KeyValue::new("enduser.issuer", opened.identity.issuer.clone()),
        ];
        for (name, told) in
            [("portcullis.workflow", &opened.workflow), ("portcullis.run", &opened.run)]
        {
            attributes.extend(told.as_ref().map(|told| KeyValue::new(name, told.name.clone())));
        }
        let span = tracer
            .span_builder(format!("session {}", opened.target))
            .with_kind(SpanKind::Server)
            .with_attributes(attributes)
            .start_with_context(tracer, &Context::new());
        let session = Context::new().with_span(span);
        let tracer = tracer.clone();
        SessionSpans(Some(Arc::new(Spans { tracer, session, open: Mutex::default() })))
    }
}

impl SessionSpans {
    /// The span of a command that was decided; none where no collector is configured.
    pub fn command(&self, command: &CommandParts<'_>, verdict: Verdict) -> Option<CommandSpan> {
        self.0.as_ref()?;
        let mut actions: Vec<_> = command.effects().map(|e| e.action.to_string()).collect();
        actions.sort();
        actions.dedup();
        Some(CommandSpan { form: command.form.to_owned(), actions, verdict })
    }

    /// Begins a command's span; a blocked one's ends here.
    pub fn begin(&self, sequence: Sequence, command: CommandSpan) {
        let Some(spans) = &self.0 else { return };
        let CommandSpan { form, actions, verdict } = command;
        let attributes = vec![
            KeyValue::new("portcullis.sequence", i64::try_from(sequence).unwrap_or(i64::MAX)),
            KeyValue::new("portcullis.verdict", verdict.to_string()),
            KeyValue::new("portcullis.actions", actions.join(" ")),
        ];
        let mut span = spans
            .tracer
            .span_builder(form)
            .with_kind(SpanKind::Client)
            .with_attributes(attributes)
            .start_with_context(&spans.tracer, &spans.session);
        if verdict == Verdict::Block {
            span.set_status(Status::error("blocked"));
            span.end();
            return;
        }
        let mut open = spans.open.lock();
        if open.len() < MAX_OPEN {
            open.insert(sequence, span);
        }
    }

    /// How a command's span ends; none where no collector is configured.
    pub fn outcome(&self, of: Sequence, outcome: &Outcome) -> Option<CommandSpanEnd> {
        self.0.as_ref()?;
        // The error's message may hold values.
        let error = outcome.error.as_ref().map(|error| error.code.clone());
        Some(CommandSpanEnd { of, rows: outcome.rows, error })
    }

    /// Ends a command's span.
    pub fn end(&self, end: CommandSpanEnd) {
        let CommandSpanEnd { of, rows, error } = end;
        let Some(mut span) = self.0.as_ref().and_then(|spans| spans.open.lock().remove(&of)) else {
            return;
        };
        if let Some(rows) = rows {
            let rows = i64::try_from(rows).unwrap_or(i64::MAX);
            span.set_attribute(KeyValue::new("portcullis.rows", rows));
        }
        if let Some(code) = error {
            span.set_attribute(KeyValue::new("error.type", code.clone()));
            span.set_status(Status::error(code));
        }
        span.end();
    }

    /// Ends the session's span, and those of commands that had no end.
    pub fn close(&self, how: &'static str) {
        let Some(spans) = &self.0 else { return };
        spans.open.lock().clear();
        let span = spans.session.span();
        span.set_attribute(KeyValue::new("portcullis.ended", how));
        span.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_gets_the_path_of_traces() {
        for base in ["http://collector:4318", "http://collector:4318/"] {
            assert_eq!(traces_address(base), "http://collector:4318/v1/traces");
        }
        let full = "https://otel.example.com/otlp/v1/traces";
        assert_eq!(traces_address(full), full);
    }
}
