//! WebSocket: both sides agree on it through the gateway, then each message is taken as a whole,
//! recorded, and sent on. Extensions are not agreed on, so nothing is compressed.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::{Buf as _, Bytes, BytesMut};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::body::{self, Body, BodyError};
use super::exchange::{Exchange, Seen};
use super::literal::{Literals, Pieces};
use super::refusal::Refusal;
use super::response::written;
use crate::decode::http::websocket::{self as frames, FrameKind, Violation};
use crate::mask::{Counts, Masked, document};

/// The largest message, in bytes: it is held as a whole.
const MAX_MESSAGE: usize = 1 << 20;
/// The longest words of a farewell, in bytes: what a control frame takes, less the code.
const MAX_FAREWELL: usize = MAX_CONTROL - 2;
/// The longest payload of a control frame (RFC 6455 section 5.5), in bytes.
const MAX_CONTROL: usize = 125;
/// How long the other side may take to close once one has.
const CLOSE_TIME: Duration = Duration::from_secs(5);
/// How long both sides may take to let go of HTTP.
const UPGRADE_TIME: Duration = Duration::from_secs(10);

/// What a client's opening handshake holds.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) client: OnUpgrade,
    pub(super) key: HeaderValue,
    pub(super) protocols: Option<HeaderValue>,
    /// The caller's token.
    pub(super) token: Literals,
}

/// Makes the client's answer of the target's, and the task that carries what follows.
pub(super) fn open(
    exchange: &Arc<Exchange>,
    mut answer: Response<Incoming>,
    opening: Opening,
) -> Result<(Response<Body>, impl Future<Output = ()> + Send + 'static + use<>), Refusal> {
    let bad = |what| {
        let target = exchange.session().gate().grant().target().name.clone();
        Refusal::BadAnswer { target, what }
    };
    let theirs = answer.headers();
    let one = |name: HeaderName| theirs.get(name).map(HeaderValue::as_bytes);
    if one(header::SEC_WEBSOCKET_ACCEPT) != Some(accept(opening.key.as_bytes()).as_bytes()) {
        return Err(bad("its handshake is not an answer to this one"));
    }
    if theirs.contains_key(header::SEC_WEBSOCKET_EXTENSIONS) {
        return Err(bad("it uses an extension that was not asked for"));
    }
    let mut headers = HeaderMap::new();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    for name in [header::SEC_WEBSOCKET_ACCEPT, header::SEC_WEBSOCKET_PROTOCOL] {
        if let Some(value) = theirs.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    if let Some(chosen) = headers.get(header::SEC_WEBSOCKET_PROTOCOL) {
        let offered = opening.protocols.as_ref().and_then(|offered| offered.to_str().ok());
        let known = offered.is_some_and(|offered| {
            offered.split(',').any(|one| one.trim().as_bytes() == chosen.as_bytes())
        });
        if !known {
            return Err(bad("it chose a protocol that was not offered"));
        }
    }
    let status = StatusCode::SWITCHING_PROTOCOLS;
    if exchange.answered(status, written(status, &headers), &Counts::new(), false).is_err() {
        return Err(Refusal::NotRecorded);
    }
    let target = hyper::upgrade::on(&mut answer);
    let mut response = Response::new(body::empty());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    let (exchange, token) = (Arc::clone(exchange), opening.token);
    let carrying = async move {
        let upgraded = async { tokio::try_join!(opening.client, target) };
        match timeout(UPGRADE_TIME, upgraded).await {
            Ok(Ok((client, target))) => carry(&exchange, client, target, token).await,
            Ok(Err(_)) | Err(_) => exchange.over(Some("the handshake did not end".to_owned())),
        }
    };
    Ok((response, carrying))
}

/// Carries messages both ways until one side closes.
async fn carry(exchange: &Arc<Exchange>, client: Upgraded, target: Upgraded, token: Literals) {
    let (from_client, to_client) = tokio::io::split(TokioIo::new(client));
    let (from_target, to_target) = tokio::io::split(TokioIo::new(target));
    let mut up = std::pin::pin!(Way::new(exchange, true, token, from_client, to_target).run());
    let literals = Arc::clone(&exchange.session().upstream().literals);
    let down = Way::new(exchange, false, literals, from_target, to_client).run();
    let mut down = std::pin::pin!(down);
    // Who closed first waits a moment for the other's farewell.
    let ended = tokio::select! {
        ended = &mut up => {
            let _late = timeout(CLOSE_TIME, down).await;
            ended
        }
        ended = &mut down => {
            let _late = timeout(CLOSE_TIME, up).await;
            ended
        }
        why = exchange.cut() => Err(BodyError::Ended(why)),
    };
    exchange.over(ended.err().map(|error| error.to_string()));
}

/// One direction.
struct Way<L> {
    exchange: Arc<Exchange>,
    up: bool,
    literals: L,
    from: ReadHalf<TokioIo<Upgraded>>,
    to: WriteHalf<TokioIo<Upgraded>>,
    buffer: BytesMut,
    /// The message so far, and its kind.
    message: Option<(FrameKind, BytesMut)>,
    /// Finds secrets that are cut over messages.
    pieces: Pieces,
}

impl<L: AsRef<Literals>> Way<L> {
    fn new(
        exchange: &Arc<Exchange>,
        up: bool,
        literals: L,
        from: ReadHalf<TokioIo<Upgraded>>,
        to: WriteHalf<TokioIo<Upgraded>>,
    ) -> Self {
        let (exchange, buffer) = (Arc::clone(exchange), BytesMut::new());
        let pieces = Pieces::default();
        Self { exchange, up, literals, from, to, buffer, message: None, pieces }
    }

    async fn run(mut self) -> Result<(), BodyError> {
        loop {
            match self.next().await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(Ended::Violation(violation)) => {
                    // The other side is told; the one that broke the rules is cut off.
                    let _gone = self.send(FrameKind::Close, &violation.code.to_be_bytes()).await;
                    return Err(self.lost(violation.to_string()));
                }
                Err(Ended::Body(error)) => {
                    let _gone = self.send(FrameKind::Close, &1011u16.to_be_bytes()).await;
                    return Err(error);
                }
                Err(Ended::Lost) => {
                    let _gone = self.to.shutdown().await;
                    return Err(self.lost("the connection broke".to_owned()));
                }
            }
        }
    }

    fn lost(&self, why: String) -> BodyError {
        if self.up { BodyError::Client(why) } else { BodyError::Target(why) }
    }

    /// Takes one frame; false when it was the last.
    async fn next(&mut self) -> Result<bool, Ended> {
        let so_far = self.message.as_ref().map_or(0, |(_, message)| message.len());
        let frame = loop {
            let most = MAX_MESSAGE - so_far.min(MAX_MESSAGE);
            match frames::head(&self.buffer, self.up, most).map_err(Ended::Violation)? {
                Some(frame) if self.buffer.len() >= frame.head + frame.payload => break frame,
                _ => {}
            }
            if self.from.read_buf(&mut self.buffer).await.map_err(|_| Ended::Lost)? == 0 {
                return Err(Ended::Lost);
            }
        };
        self.buffer.advance(frame.head);
        let mut payload = self.buffer.split_to(frame.payload);
        if let Some(mask) = frame.mask {
            frames::apply_mask(&mut payload, mask);
        }
        if frame.kind.is_control() {
            let payload = if frame.kind == FrameKind::Close {
                self.farewell(&payload)
            } else {
                self.echoed(payload)?
            };
            self.send(frame.kind, &payload).await?;
            return Ok(frame.kind != FrameKind::Close);
        }
        self.add(frame.kind, payload)?;
        if frame.last
            && let Some((kind, message)) = self.message.take()
        {
            let message = self.recorded(kind, message).await?;
            self.send(kind, &message).await?;
        }
        Ok(true)
    }

    fn add(&mut self, kind: FrameKind, payload: BytesMut) -> Result<(), Ended> {
        match (&mut self.message, kind) {
            (Some((_, message)), FrameKind::Continuation) => message.unsplit(payload),
            (message @ None, FrameKind::Text | FrameKind::Binary) => {
                *message = Some((kind, payload));
            }
            _ => {
                let what = "a message begins within another, or goes on that did not begin";
                return Err(Ended::Violation(Violation { code: 1002, what }));
            }
        }
        Ok(())
    }

    /// Records a whole message; what comes back goes on.
    async fn recorded(&mut self, kind: FrameKind, mut message: BytesMut) -> Result<Bytes, Ended> {
        if kind == FrameKind::Text && std::str::from_utf8(&message).is_err() {
            let what = "a message of text is not UTF-8";
            return Err(Ended::Violation(Violation { code: 1007, what }));
        }
        let literals = self.literals.as_ref();
        if self.up {
            if self.pieces.mask(literals, &mut message.clone()) {
                return Err(Ended::Body(BodyError::Token));
            }
            let message = message.freeze();
            let view = self.exchange.masks().map(|plan| document(&plan, &message));
            let seen = view.as_ref().map_or(Seen::Whole, |view| Seen::As(view.stored()));
            return self.exchange.up(message, seen).await.map_err(Ended::Body);
        }
        self.pieces.mask(literals, &mut message);
        let message = message.freeze();
        let masked = match self.exchange.masks() {
            Some(plan) => document(&plan, &message),
            None => Masked::by_value(message.clone(), message),
        };
        self.exchange.down(masked, false).map_err(Ended::Body)
    }

    /// What a ping asks to be sent back, or a pong sends back: text of the other side's like any other.
    fn echoed(&self, mut payload: BytesMut) -> Result<Vec<u8>, Ended> {
        let literals = self.literals.as_ref();
        if self.up {
            return match literals.stand_in(&payload) {
                true => Err(Ended::Body(BodyError::Token)),
                false => Ok(payload.to_vec()),
            };
        }
        literals.mask(&mut payload);
        let payload = payload.freeze();
        Ok(match self.exchange.masks() {
            Some(plan) => {
                let shown = document(&plan, &payload).into_shown();
                shown.get(..shown.len().min(MAX_CONTROL)).unwrap_or_default().to_vec()
            }
            None => payload.to_vec(),
        })
    }

    /// The status code of a farewell; its words are free text and stay here.
    fn farewell(&self, payload: &[u8]) -> Vec<u8> {
        let code = payload.get(..2).unwrap_or_default().to_vec();
        let words = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
        let number = code.first_chunk::<2>().map(|code| u16::from_be_bytes(*code));
        let side = if self.up { "client" } else { "target" };
        let mut text = words.into_bytes();
        self.literals.as_ref().mask(&mut text);
        let own = Bytes::from(text);
        let masked = match self.exchange.masks() {
            Some(plan) => document(&plan, &own),
            None => Masked::by_value(own.clone(), own.clone()),
        };
        let shown = String::from_utf8_lossy(masked.stored());
        let told = number.map_or_else(|| "no code".to_owned(), |number| number.to_string());
        let note = format!("the {side} closed: {told} {shown}");
        self.exchange.session().gate().note("websocket-close", note);
        // The client's own words go up as they are; a farewell has 125 bytes at most.
        let words = if self.up { own } else { masked.into_shown() };
        let most = words.len().min(MAX_FAREWELL);
        [&*code, words.get(..most).unwrap_or_default()].concat()
    }

    async fn send(&mut self, kind: FrameKind, payload: &[u8]) -> Result<(), Ended> {
        let mask = if self.up {
            let mut mask = [0; 4];
            aws_lc_rs::rand::fill(&mut mask).map_err(|_| Ended::Lost)?;
            Some(mask)
        } else {
            None
        };
        let mut frame = Vec::with_capacity(payload.len() + 14);
        frames::write(kind, mask, payload, &mut frame);
        self.to.write_all(&frame).await.map_err(|_| Ended::Lost)?;
        self.to.flush().await.map_err(|_| Ended::Lost)
    }
}

/// How a direction ended.
enum Ended {
    Violation(Violation),
    Body(BodyError),
    Lost,
}

/// `Sec-WebSocket-Accept` for a key (RFC 6455 section 4.2.2).
fn accept(key: &[u8]) -> String {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(GUID);
    base64::engine::general_purpose::STANDARD.encode(context.finish().as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification_holds() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
