//! HTTP: a reverse proxy that knows who asks, decides each request, and records what passes.
//!
//! [`serve()`] tells a connection's life, `service` a request's, `session` a session's: a session is
//! not a connection but what one caller asks of one target in one run. HTTP/1.1 and HTTP/2 are
//! spoken on both sides, whatever the other side speaks.
//!
//! Limits: no tunnels (CONNECT), no HTTP/3, and of 1xx answers only `100 Continue` and the one
//! that opens a WebSocket: the others are dropped.

mod addresses;
mod approval_wait;
mod body;
mod exchange;
mod guarded;
mod literal;
mod masking;
mod media;
mod refusal;
mod request;
mod response;
pub mod serve;
mod service;
mod session;
mod upstream;
mod websocket;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use hyper::StatusCode;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::admission::Gateway;
use crate::config;
use crate::listener::connections::{Answering, Connections, Place};
use crate::listener::{Accepted, HANDSHAKE_DEADLINE, Handshake};
use crate::names::TargetName;

use guarded::{Guard, Guarded};
use session::Sessions;
use upstream::{TlsCache, Tracked, Upstream};

/// The protocols that are spoken, as TLS names them (RFC 7301), the better first.
pub const ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];

/// How long a connection gets for its last answers when it gives way to another or is cut.
const CLOSE_TIME: Duration = Duration::from_secs(1);
/// How long a connection stays open without a request.
const IDLE_TIME: Duration = Duration::from_secs(75);
/// Requests on one HTTP/2 connection at once.
const MAX_STREAMS: u32 = 128;
/// What may be on its way up on one HTTP/2 stream, and on all of a connection, in bytes.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// What one HTTP/2 stream keeps for a client that does not read, in bytes.
const SEND_BUFFER: usize = 256 << 10;
/// What is read or written at once over HTTP/1, in bytes, on either side; a head is as much at
/// most. Larger reads are no faster, and each is memory that the next one cannot use yet.
const HTTP1_BUFFER: usize = 128 << 10;
/// The largest list of header fields over HTTP/2, in bytes: tokens are up to 32 KiB.
const MAX_HEAD: u32 = 64 << 10;
/// Streams that a client may cancel before they are looked at (CVE-2023-44487).
const MAX_RESETS: usize = 32;
/// How an HTTP/2 client that vanished is noticed.
const PING_EVERY: Duration = Duration::from_secs(30);

/// How HTTP/2 connections begin (RFC 9113 section 3.4), and the length and the kind of the frame of
/// SETTINGS that follows; hyper would take any.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 4;
const SETTINGS: u8 = 4;

/// What every HTTP connection needs of the gateway.
#[derive(Debug)]
pub struct Context {
    /// What all protocols share.
    pub gateway: Arc<Gateway>,
    /// TLS towards clients, with [`ALPN`] as its protocols.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Whether a token may come without TLS from beyond loopback.
    pub insecure: bool,
    settings: config::Http,
    sessions: Arc<Sessions>,
    tls_upstream: TlsCache,
    connections: Arc<Connections>,
}

impl Context {
    /// What a gateway's HTTP listener needs. Of `connections` at once half may be of one address: for more,
    /// idle ones are closed.
    pub fn new(gateway: Arc<Gateway>, settings: config::Http, connections: usize) -> Self {
        let tasks = gateway.shutdown.sessions().clone();
        Self {
            gateway,
            tls: None,
            insecure: false,
            settings,
            sessions: Arc::new(Sessions::new(tasks)),
            tls_upstream: TlsCache::default(),
            connections: Connections::new(connections, (connections / 2).max(1)),
        }
    }
}

/// Asks the target for the head of `/` with its own credential: whether the gateway could, for
/// `portcullis check --online`.
pub async fn probe(name: &TargetName, target: &config::HttpTarget) -> Vec<String> {
    let upstream = Upstream::open(name, target, &TlsCache::default(), &TaskTracker::new()).await;
    let status = match upstream {
        Ok(upstream) => upstream.probe().await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match status {
        Ok(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) if target.credential.is_some() => {
            let at = &target.authority;
            vec![format!("{at} does not take the credential for /: is its value right?")]
        }
        Ok(_) => Vec::new(),
        Err(problem) => vec![format!("{}: {problem}", target.authority)],
    }
}

/// One downstream connection, as its requests see it.
#[derive(Debug)]
struct Connection {
    context: Arc<Context>,
    client: SocketAddr,
    /// Tokens may come here.
    private: bool,
    guard: Arc<Guard>,
    /// Until a request brings a token that counts, the connection makes way for others.
    unproved: Mutex<Option<Handshake>>,
    /// Requests since somebody looked.
    requests: AtomicUsize,
    place: Place,
}

/// Serves one connection from its first byte to its last.
pub async fn serve(accepted: Accepted, context: Arc<Context>) {
    let Accepted { mut stream, client, handshake } = accepted;
    let Some(place) = context.connections.enter(client.ip()) else {
        return tracing::debug!(%client, "connection dropped: too many");
    };
    let private = context.tls.is_some() || context.insecure || client.ip().is_loopback();
    let connection = Arc::new(Connection {
        context: Arc::clone(&context),
        client,
        private,
        guard: Arc::default(),
        unproved: Mutex::new(Some(handshake)),
        requests: AtomicUsize::new(0),
        place,
    });
    let served = match &context.tls {
        None => {
            let begun = tokio::select! {
                begun = timeout(HANDSHAKE_DEADLINE, first_bytes(&mut stream)) => begun,
                () = connection.place.closed() => return,
            };
            match begun {
                Ok(Ok(read)) => connection.converse(stream, read, None).await,
                Ok(Err(_)) | Err(_) => return tracing::debug!(%client, "no first bytes"),
            }
        }
        Some(tls) => {
            let greeting = async {
                let mut stream = TlsAcceptor::from(Arc::clone(tls)).accept(stream).await?;
                let chosen = stream.get_ref().1.alpn_protocol().map(|chosen| chosen == b"h2");
                let read = match chosen {
                    Some(false) => BytesMut::new(),
                    Some(true) | None => first_bytes(&mut stream).await?,
                };
                io::Result::Ok((stream, read, chosen))
            };
            let greeted = tokio::select! {
                greeted = timeout(HANDSHAKE_DEADLINE, greeting) => greeted,
                () = connection.place.closed() => return,
            };
            match greeted {
                Ok(Ok((stream, read, chosen))) => connection.converse(stream, read, chosen).await,
                Ok(Err(error)) => return tracing::debug!(%client, %error, "no TLS"),
                Err(_) => return tracing::debug!(%client, "no TLS within the deadline"),
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%client, %error, "connection ended early");
    }
}

/// Reads until it is clear whether this is HTTP/2, and begins as that does.
async fn first_bytes(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<BytesMut> {
    let most = PREFACE.len() + FRAME_HEAD;
    let mut read = BytesMut::with_capacity(most);
    while read.len() < most && (PREFACE.starts_with(&read) || read.starts_with(PREFACE)) {
        if stream.read_buf(&mut read).await? == 0 {
            break;
        }
    }
    if read.starts_with(PREFACE) && read.get(most - 1) != Some(&SETTINGS) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "HTTP/2 begins without SETTINGS"));
    }
    Ok(read)
}

impl Connection {
    /// Serves requests until the client leaves or the gateway drains. `http2` says what TLS chose.
    async fn converse(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        read: BytesMut,
        http2: Option<bool>,
    ) -> hyper::Result<()> {
        if http2.unwrap_or_else(|| read.starts_with(PREFACE)) {
            self.http2(Guarded::http2(stream, read)).await
        } else {
            let guarded = Guarded::http1(stream, read, Arc::clone(&self.guard));
            self.http1(guarded).await
        }
    }

    async fn http1(
        self: Arc<Self>,
        stream: Guarded<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>,
    ) -> hyper::Result<()> {
        let connection = Arc::clone(&self);
        let service = service_fn(move |request| {
            let connection = Arc::clone(&connection);
            async move {
                let running = connection.place.request();
                let answer = service::answer(connection, request).await;
                Ok::<_, Infallible>(answer.map(|body| Answering::new(body, running)))
            }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE_TIME)
            .max_buf_size(HTTP1_BUFFER)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut serving = std::pin::pin!(serving);
        let shutdown = &self.context.gateway.shutdown;
        tokio::select! {
            served = &mut serving => return served,
            () = shutdown.draining() => {}
            () = self.place.closed() => {}
        }
        serving.as_mut().graceful_shutdown();
        tokio::select! {
            served = &mut serving => served,
            () = self.cut() => Ok(()),
            () = self.given_way() => Ok(()),
        }
    }

    async fn http2(
        self: Arc<Self>,
        stream: Guarded<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>,
    ) -> hyper::Result<()> {
        let connection = Arc::clone(&self);
        let service = service_fn(move |request| {
            let connection = Arc::clone(&connection);
            async move {
                let running = connection.place.request();
                let answer = service::answer(connection, request).await;
                Ok::<_, Infallible>(answer.map(|body| Answering::new(body, running)))
            }
        });
        let shutdown = &self.context.gateway.shutdown;
        let serving = http2::Builder::new(Tracked(shutdown.sessions().clone()))
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_pending_accept_reset_streams(MAX_RESETS)
            .max_local_error_reset_streams(MAX_RESETS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(MAX_HEAD)
            .keep_alive_interval(PING_EVERY)
            .serve_connection(TokioIo::new(stream), service);
        let mut serving = std::pin::pin!(serving);
        tokio::select! {
            served = &mut serving => return served,
            () = shutdown.draining() => {}
            () = self.place.closed() => {}
            () = self.idle() => {}
        }
        serving.as_mut().graceful_shutdown();
        tokio::select! {
            served = &mut serving => served,
            () = self.cut() => Ok(()),
            () = self.given_way() => Ok(()),
        }
    }

    /// Waits until the connection gave way to another, and a moment more for its farewell.
    async fn given_way(&self) {
        self.place.closed().await;
        tokio::time::sleep(CLOSE_TIME).await;
    }

    /// Waits until the gateway cuts what still runs, and a moment more for the answers that say so.
    async fn cut(&self) {
        self.context.gateway.shutdown.cutting().await;
        tokio::time::sleep(CLOSE_TIME).await;
    }

    /// Waits until no request ran for a while.
    async fn idle(&self) {
        loop {
            tokio::time::sleep(IDLE_TIME).await;
            if self.requests.swap(0, Ordering::AcqRel) == 0 {
                return;
            }
        }
    }
}
