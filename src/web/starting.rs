//! The first seconds of a gateway, in which its database may not answer yet.
//!
//! Sessions do not wait for the database, so the gateway is ready before the private server is: that
//! one is started beside it, and on a first start it makes its files and tables. Nothing is shown
//! that is not in the audit log first, so the API and the pages cannot do without. What is asked of
//! them meanwhile waits, and after that is told to come again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use crate::database::Database;

/// How long a request waits. Clients wait longer than that for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long after its start the gateway counts as starting. A private server that was killed reads its
/// log first; a database that does not answer by then is one that cannot be asked.
const STARTING: Duration = Duration::from_secs(60);
/// When to come again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

/// What the database of a gateway is waited for by.
#[derive(Debug, Clone)]
pub(super) struct Starting {
    database: Database,
    since: Instant,
}

impl Starting {
    /// From now on.
    pub(super) fn new(database: Database) -> Self {
        Self { database, since: Instant::now() }
    }

    async fn is_over(&self) -> bool {
        self.database.found_within(Duration::ZERO).await
            || self.since.elapsed() > STARTING
            || self.database.found_within(PATIENCE).await
    }
}

/// The routes, each of which waits. `answer` makes the answer of a problem.
pub(super) fn waiting<S>(
    routes: Router<S>,
    starting: &Arc<Starting>,
    answer: fn(Problem) -> Response,
) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let state: Waiting = (Arc::clone(starting), answer);
    routes.route_layer(from_fn_with_state(state, wait))
}

/// What a request waits for, and the answer where that takes too long.
type Waiting = (Arc<Starting>, fn(Problem) -> Response);

async fn wait(State((starting, answer)): State<Waiting>, request: Request, next: Next) -> Response {
    if starting.is_over().await {
        return next.run(request).await;
    }
    let mut response = answer(Problem::starting());
    response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    response
}

/// The answer of the API.
pub(super) fn problem(problem: Problem) -> Response {
    problem.into_response()
}
