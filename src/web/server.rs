//! HTTP connections over TCP: TLS first where there is any, then requests until the client leaves
//! or the gateway drains.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::caller::Arrival;
use crate::listener::{Accepted, HANDSHAKE_DEADLINE};
use crate::shutdown::Shutdown;

/// The one protocol that is spoken, as TLS names it (RFC 7301).
pub const ALPN: &[u8] = b"http/1.1";

/// Connections that are open at once; more are closed. People and dashboards need few.
const MAX_CONNECTIONS: usize = 512;
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
    slots: Semaphore,
}

impl Context {
    /// For the listener of the API.
    pub fn new(
        router: Router,
        tls: Option<Arc<rustls::ServerConfig>>,
        insecure: bool,
        shutdown: Shutdown,
    ) -> Arc<Self> {
        Arc::new(Self { router, tls, insecure, shutdown, slots: Semaphore::new(MAX_CONNECTIONS) })
    }
}

/// Serves one connection from its first byte to its last.
pub async fn serve(accepted: Accepted, context: Arc<Context>) {
    let Accepted { stream, client, handshake } = accepted;
    let Ok(_slot) = context.slots.try_acquire() else {
        tracing::debug!(%client, "connection dropped: too many");
        return;
    };
    let private = context.tls.is_some() || context.insecure || client.ip().is_loopback();
    let arrival = Arrival::Network { client, private };
    let served = match &context.tls {
        None => {
            drop(handshake);
            requests(stream, arrival, &context).await
        }
        Some(tls) => {
            let accepting = TlsAcceptor::from(Arc::clone(tls)).accept(stream);
            let accepted = timeout(HANDSHAKE_DEADLINE, accepting).await;
            drop(handshake);
            match accepted {
                Ok(Ok(stream)) => requests(stream, arrival, &context).await,
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
) -> hyper::Result<()> {
    let router = context.router.clone().layer(Extension(ConnectInfo(arrival)));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        served = &mut serving => return served,
        () = context.shutdown.draining() => serving.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        served = &mut serving => served,
        () = context.shutdown.cutting() => Ok(()),
    }
}
