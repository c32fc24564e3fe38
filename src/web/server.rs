//! HTTP connections over TCP: TLS first where there is any, then requests until the client leaves
//! or the gateway drains.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::caller::Arrival;
use crate::listener::connections::{Answering, Connections, Place};
use crate::listener::{Accepted, HANDSHAKE_DEADLINE};
use crate::shutdown::Shutdown;

/// The one protocol that is spoken, as TLS names it (RFC 7301).
pub const ALPN: &[u8] = b"http/1.1";

/// The part of all connections that is for [`HEALTH`] alone, when requests run on the others: each asks
/// once. An orchestrator restarts what does not answer, which would end every session.
const HEALTH_PART: usize = 9;
/// What tells how the gateway is.
const HEALTH: &[&str] = &["/healthz", "/readyz", "/metrics"];
/// How long a connection gets that gives way to another.
const CLOSE_TIME: Duration = Duration::from_secs(1);
/// From one request to the next one's headers.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// The largest head of a request: tokens are up to 32 KiB.
const MAX_HEAD: usize = 64 << 10;

/// What every connection of one listener needs.
#[derive(Debug)]
pub struct Context {
    /// What answers.
    pub router: Router,
    /// TLS towards clients, with [`ALPN`] as its only protocol.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Whether a token may come without TLS from beyond loopback.
    pub insecure: bool,
    /// The stop.
    pub shutdown: Shutdown,
    open: Arc<Connections>,
    health: Arc<Connections>,
}

impl Context {
    /// For the listener of the API, with at most so many connections at once, half of them of one
    /// address: for more, idle ones are closed.
    pub fn new(
        router: Router,
        tls: Option<Arc<rustls::ServerConfig>>,
        insecure: bool,
        shutdown: Shutdown,
        connections: usize,
    ) -> Arc<Self> {
        let of = |most: usize| Connections::new(most, (most / 2).max(1));
        let health = (connections / HEALTH_PART).max(1);
        let (open, health) = (of(connections.saturating_sub(health).max(1)), of(health));
        Arc::new(Self { router, tls, insecure, shutdown, open, health })
    }
}

/// Serves one connection from its first byte to its last.
pub async fn serve(accepted: Accepted, context: Arc<Context>) {
    let Accepted { stream, client, handshake } = accepted;
    let room = context.open.enter(client.ip()).map(|place| (place, false));
    let health = || context.health.enter(client.ip()).map(|place| (place, true));
    let Some((place, health)) = room.or_else(health) else {
        tracing::debug!(%client, "connection dropped: too many");
        return;
    };
    let place = Arc::new(place);
    let private = context.tls.is_some() || context.insecure || client.ip().is_loopback();
    let arrival = Arrival::Network { client, private };
    let served = match &context.tls {
        None => {
            drop(handshake);
            requests(stream, arrival, &context, (&place, health)).await
        }
        Some(tls) => {
            let accepting = TlsAcceptor::from(Arc::clone(tls)).accept(stream);
            let accepted = tokio::select! {
                accepted = timeout(HANDSHAKE_DEADLINE, accepting) => accepted,
                () = place.closed() => return,
            };
            drop(handshake);
            match accepted {
                Ok(Ok(stream)) => requests(stream, arrival, &context, (&place, health)).await,
                Ok(Err(error)) => return tracing::debug!(%client, %error, "no TLS"),
                Err(_) => return tracing::debug!(%client, "no TLS within the deadline"),
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%client, %error, "connection ended early");
    }
}

async fn requests(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    arrival: Arrival,
    context: &Context,
    (place, health): (&Arc<Place>, bool),
) -> hyper::Result<()> {
    let router = context.router.clone().layer(Extension(ConnectInfo(arrival)));
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (router, running) = (router.clone(), place.request());
        async move {
            if health && !HEALTH.contains(&request.uri().path()) {
                let mut busy = axum::response::Response::new(axum::body::Body::empty());
                *busy.status_mut() = hyper::StatusCode::SERVICE_UNAVAILABLE;
                return Ok(busy.map(|body| Answering::new(body, running)));
            }
            let answered = router.call(request).await;
            answered.map(|answer| answer.map(|body| Answering::new(body, running)))
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(MAX_HEAD)
        .keep_alive(!health)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        served = &mut serving => return served,
        () = context.shutdown.draining() => {}
        () = place.closed() => {}
    }
    serving.as_mut().graceful_shutdown();
    let given_way = async {
        place.closed().await;
        tokio::time::sleep(CLOSE_TIME).await;
    };
    tokio::select! {
        served = &mut serving => served,
        () = context.shutdown.cutting() => Ok(()),
        () = given_way => Ok(()),
    }
}
