//! The target `crew`: the API of a small deployed crew, with made-up people in its answers.
//!
//! It speaks as CrewAI's deployments do: `GET /inputs`, `POST /kickoff`, `GET /status/{id}`,
//! `POST /resume`. Nothing thinks behind it: a run looks a customer up and is done when it is asked
//! for. It wants a token that only the gateway has.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::secret::Secret;

/// Runs that are remembered; older ones are forgotten.
const MAX_RUNS: usize = 1_000;

/// Customers: name, e-mail, card number, social security number. Nobody's.
const CUSTOMERS: &[(&str, &str, &str, &str)] = &[
    ("Ada Abbott", "ada.abbott@example.com", "4111111111111111", "536-22-8726"),
    ("Ben Baker", "ben.baker@example.com", "5555555555554444", "213-46-9104"),
    ("Cleo Castro", "cleo.castro@example.com", "4012888888881881", "402-31-7755"),
];

#[derive(Debug)]
struct Crew {
    token: Secret,
    runs: Mutex<VecDeque<Run>>,
}

#[derive(Debug, Clone)]
struct Run {
    id: String,
    inputs: Value,
    feedback: Option<String>,
}

/// Serves until cancelled.
pub(super) async fn serve(listener: TcpListener, token: Secret, cancel: CancellationToken) {
    let crew = Arc::new(Crew { token, runs: Mutex::default() });
    let serving = axum::serve(listener, router(crew));
    let stopped: io::Result<()> =
        serving.with_graceful_shutdown(async move { cancel.cancelled().await }).await;
    if let Err(error) = stopped {
        tracing::error!(%error, "the crew is lost");
    }
}

fn router(crew: Arc<Crew>) -> Router {
    Router::new()
        .route("/", get(|| async { Json(json!({ "crew": "support", "status": "online" })) }))
        .route("/inputs", get(|| async { Json(json!({ "inputs": ["customer", "question"] })) }))
        .route("/kickoff", post(kickoff))
        .route("/status/{id}", get(status))
        .route("/resume", post(resume))
        .layer(middleware::from_fn_with_state(Arc::clone(&crew), only_the_gateway))
        .with_state(crew)
}

async fn only_the_gateway(State(crew): State<Arc<Crew>>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if shown.and_then(|value| value.strip_prefix("Bearer ")) == Some(crew.token.expose()) {
        next.run(request).await
    } else {
        let wrong = json!({ "detail": "the crew's own token is needed" });
        (StatusCode::UNAUTHORIZED, Json(wrong)).into_response()
    }
}

async fn kickoff(State(crew): State<Arc<Crew>>, Json(asked): Json<Value>) -> Json<Value> {
    let id = Uuid::now_v7().to_string();
    let inputs = asked.get("inputs").cloned().unwrap_or_default();
    let mut runs = crew.runs.lock();
    if runs.len() >= MAX_RUNS {
        runs.pop_front();
    }
    runs.push_back(Run { id: id.clone(), inputs, feedback: None });
    Json(json!({ "kickoff_id": id }))
}

async fn status(State(crew): State<Arc<Crew>>, Path(id): Path<String>) -> Response {
    let run = crew.runs.lock().iter().find(|run| run.id == id).cloned();
    match run {
        Some(run) => Json(run.told()).into_response(),
        None => unknown(),
    }
}

async fn resume(State(crew): State<Arc<Crew>>, Json(asked): Json<Value>) -> Response {
    let text = |name: &str| asked.get(name).and_then(Value::as_str);
    let id = text("execution_id").unwrap_or_default();
    let mut runs = crew.runs.lock();
    match runs.iter_mut().find(|run| run.id == id) {
        Some(run) => {
            run.feedback = Some(text("human_feedback").unwrap_or_default().to_owned());
            Json(json!({ "status": "resumed", "execution_id": id })).into_response()
        }
        None => unknown(),
    }
}

fn unknown() -> Response {
    (StatusCode::NOT_FOUND, Json(json!({ "detail": "there is no such run" }))).into_response()
}

impl Run {
    fn told(&self) -> Value {
        // One of the few, always the same for the same input.
        let wanted = self.inputs.get("customer").map(Value::to_string).unwrap_or_default();
        let sum: usize = wanted.bytes().map(usize::from).sum();
        let customer = CUSTOMERS.iter().cycle().nth(sum % CUSTOMERS.len());
        let (name, email, card, ssn) = customer.copied().unwrap_or_default();
        json!({
            "state": "SUCCESS",
            "kickoff_id": self.id,
            "result": format!("I looked {name} up: write to {email}; the card on file is {card}."),
            "customer": { "name": name, "email": email, "card_number": card, "ssn": ssn },
            "human_feedback": self.feedback,
        })
    }
}
