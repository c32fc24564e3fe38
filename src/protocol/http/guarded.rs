//! A connection of HTTP/1 whose bytes are held against the grammar before hyper sees them.
//!
//! hyper takes more than it should for a gateway: a body with two lengths, bare line feeds, chunks
//! with extensions. What [`Framer`] refuses in a head is replaced by a head that [`Guard`] knows,
//! so that the answer comes in its turn; what it refuses in a body breaks the body off.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::decode::http::Refused;
use crate::decode::http::framing::Framer;
use crate::decode::http::http2::Meter;

/// How long a head may take from its first byte to its last.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// What is read at once while the grammar is looked at.
const READ: usize = 8 << 10;

/// The method of the head that stands for a refused one: no client's, because it is not known.
const REFUSED_METHOD: &str = "REFUSED";
const REFUSED_HEAD: &[u8] = b"REFUSED / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

/// What a connection and its service tell each other.
#[derive(Debug, Default)]
pub(super) struct Guard(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    refused: Option<Refused>,
    upgraded: Option<bool>,
    waker: Option<Waker>,
}

impl Guard {
    /// Why a request is answered that the client did not write like this.
    pub(super) fn refused(&self, method: &str) -> Option<Refused> {
        if method == REFUSED_METHOD { self.0.lock().refused } else { None }
    }

    /// Says how a request for WebSocket is answered; bytes behind it wait for this.
    pub(super) fn answer_upgrade(&self, yes: bool) {
        let mut told = self.0.lock();
        told.upgraded = Some(yes);
        if let Some(waker) = told.waker.take() {
            waker.wake();
        }
    }

    fn poll_upgraded(&self, cx: &Context<'_>) -> Poll<bool> {
        let mut told = self.0.lock();
        match told.upgraded.take() {
            Some(yes) => Poll::Ready(yes),
            None => {
                told.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The connection.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    /// None where the bytes are of another protocol.
    framer: Option<Framer>,
    /// Counts the frames of HTTP/2.
    meter: Option<Meter>,
    guard: Arc<Guard>,
    buffer: BytesMut,
    /// How much of the buffer may go on.
    ready: usize,
    /// Nothing more comes from the client.
    ended: bool,
    /// Nothing more is taken from it, but it gets an answer: an end would be taken for its leaving.
    refused: bool,
    head_due: Option<Pin<Box<Sleep>>>,
}

impl<S> Guarded<S> {
    /// HTTP/1, of which some was read.
    pub(super) fn http1(stream: S, read: BytesMut, guard: Arc<Guard>) -> Self {
        let framer = Some(Framer::default());
        Self {
            stream,
            framer,
            meter: None,
            guard,
            buffer: read,
            ready: 0,
            ended: false,
            refused: false,
            head_due: None,
        }
    }

    /// HTTP/2, of which some was read.
    pub(super) fn http2(stream: S, read: BytesMut) -> Self {
        let guard = Arc::default();
        let ready = read.len();
        Self {
            stream,
            framer: None,
            meter: Some(Meter::new(std::time::Instant::now())),
            guard,
            buffer: read,
            ready,
            ended: false,
            refused: false,
            head_due: None,
        }
    }

    /// Counts what the client sent.
    fn measure(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(meter) = &mut self.meter else { return Ok(()) };
        let counted = meter.received(bytes, std::time::Instant::now());
        counted.map_err(|too_many| io::Error::new(io::ErrorKind::InvalidData, too_many))
    }

    /// Counts what the client gets.
    fn sent(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let (Some(meter), Poll::Ready(Ok(length))) = (&mut self.meter, &written) {
            meter.sent(*length);
        }
        written
    }

    /// A refused head becomes one that the service answers; in a body it is an error.
    fn refuse(&mut self, refused: Refused) -> io::Result<()> {
        self.buffer.clear();
        self.refused = true;
        if self.framer.as_ref().is_some_and(Framer::in_head) {
            self.guard.0.lock().refused = Some(refused);
            self.buffer.extend_from_slice(REFUSED_HEAD);
            self.ready = REFUSED_HEAD.len();
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, refused))
    }

    /// Refuses a head that takes too long.
    fn check_time(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let begun = self.framer.as_ref().is_some_and(Framer::in_head) && !self.buffer.is_empty();
        if !begun {
            self.head_due = None;
            return Ok(());
        }
        let due =
            self.head_due.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + HEAD_TIME)));
        if due.as_mut().poll(cx).is_ready() {
            return self.refuse(Refused { status: 408, what: "the head took too long" });
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.ready > 0 {
                let length = this.ready.min(out.remaining());
                let bytes = this.buffer.split_to(length);
                this.measure(&bytes)?;
                out.put_slice(&bytes);
                this.ready -= length;
                return Poll::Ready(Ok(()));
            }
            if this.refused {
                return Poll::Pending;
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            let Some(framer) = &mut this.framer else {
                let before = out.filled().len();
                ready!(Pin::new(&mut this.stream).poll_read(cx, out))?;
                this.measure(out.filled().get(before..).unwrap_or_default())?;
                return Poll::Ready(Ok(()));
            };
            if framer.is_upgrading() {
                let yes = ready!(this.guard.poll_upgraded(cx));
                framer.upgraded(yes);
            }
            match framer.next(&this.buffer) {
                Ok(0) => {}
                Ok(length) => {
                    this.ready = length;
                    this.head_due = None;
                    continue;
                }
                Err(refused) => {
                    this.refuse(refused)?;
                    continue;
                }
            }
            let unlooked = usize::try_from(framer.unlooked()).unwrap_or(usize::MAX);
            if unlooked > 0 {
                // Bulk goes past the buffer, which is empty.
                let most = unlooked.min(out.remaining());
                let mut part = ReadBuf::new(out.initialize_unfilled_to(most));
                ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part))?;
                let length = part.filled().len();
                out.advance(length);
                framer.skip(length as u64);
                return Poll::Ready(Ok(()));
            }
            this.check_time(cx)?;
            if this.ready > 0 {
                continue;
            }
            let mut bytes = [0; READ];
            let mut part = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part))?;
            // What was begun and not ended does not go on.
            this.ended = part.filled().is_empty();
            this.buffer.extend_from_slice(part.filled());
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.sent(written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
