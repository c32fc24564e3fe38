//! Bodies that pass chunk by chunk, each recorded before it goes on, as fast as it is taken.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::HeaderMap;
use hyper::body::{Body as _, Frame, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use tokio::time::{Instant, timeout, timeout_at};

use super::addresses::{Addresses, Endpoints};
use super::exchange::{Exchange, Seen};
use super::literal::Scanner;
use super::masking::{self, BodyMask};
use crate::config::ContentTypes;
use crate::decode::http::dialects::Dialect;
use crate::decode::http::framing::may_trail;
use crate::decode::http::{fields, overrides};
use crate::mask::{MaskPlan, Masked, NotMasked};

/// How long a client may take for the next bytes of a body.
const BODY_TIME: Duration = Duration::from_secs(60);

/// A body on its way, up or down.
pub(super) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Why a body breaks off. The other side sees only that it does.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum BodyError {
    /// The client sent it wrong, or left.
    #[error("the client's body: {0}")]
    Client(String),
    /// The client took too long.
    #[error("the client took too long for its body")]
    Slow,
    /// The caller's token stands in it.
    #[error("the caller's token stands in the body")]
    Token,
    /// It asks for another method in what was not read before it was decided.
    #[error("the body asks for another method behind its beginning")]
    Method,
    /// The target sent it wrong, or left.
    #[error("the target's body: {0}")]
    Target(String),
    /// It cannot be masked.
    #[error("the target's body cannot be masked: {0}")]
    NotMasked(#[from] NotMasked),
    /// The session ended.
    #[error("the session ended: {0}")]
    Ended(&'static str),
    /// It cannot be recorded.
    #[error("it cannot be recorded")]
    NotRecorded,
}

/// No bytes at all.
pub(super) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Bytes that are all there.
pub(super) fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// The beginning of a client's body, looked at before it is decided.
#[derive(Debug)]
pub(super) struct Begun {
    /// What was read.
    pub(super) first: Bytes,
    /// What stood behind it, when that was all.
    pub(super) trailers: Option<HeaderMap>,
    /// What is still to go up.
    pub(super) rest: Option<Rest>,
}

/// What is left of a client's body.
#[derive(Debug)]
pub(super) enum Rest {
    /// It comes as the client sends it.
    Coming(Incoming),
    /// It was kept while people decided: bytes, and what stood behind them.
    Kept(Option<Bytes>, Option<HeaderMap>),
}

impl Rest {
    async fn frame(&mut self) -> Option<Result<Frame<Bytes>, hyper::Error>> {
        match self {
            Self::Coming(body) => body.frame().await,
            Self::Kept(bytes, trailers) => {
                let data = bytes.take().map(Frame::data);
                data.or_else(|| trailers.take().map(Frame::trailers)).map(Ok)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Coming(body) => body.is_end_stream(),
            Self::Kept(bytes, trailers) => bytes.is_none() && trailers.is_none(),
        }
    }
}

impl Begun {
    /// Nothing was read yet.
    pub(super) fn unread(body: Incoming) -> Self {
        let rest = (!body.is_end_stream()).then_some(Rest::Coming(body));
        Self { first: Bytes::new(), trailers: None, rest }
    }

    /// Reads a body to its end, or until it is larger than `most`. Not cancel safe.
    pub(super) async fn read(body: Incoming, most: usize) -> Result<Self, BodyError> {
        Self::unread(body).read_on(most).await
    }

    /// Keeps what is left while people decide; says whether it is at most so many bytes. Not
    /// cancel safe.
    pub(super) async fn keep(&mut self, most: usize) -> Result<bool, BodyError> {
        let Some(rest) = self.rest.take() else { return Ok(true) };
        let left = Self { first: Bytes::new(), trailers: None, rest: Some(rest) };
        let left = left.read_on(most).await?;
        if left.rest.is_some() || left.first.len() > most {
            return Ok(false);
        }
        let bytes = Some(left.first).filter(|bytes| !bytes.is_empty());
        self.rest = Some(Rest::Kept(bytes, left.trailers));
        Ok(true)
    }

    /// All of the body, once it was kept.
    pub(super) fn kept(&self) -> Bytes {
        match &self.rest {
            Some(Rest::Kept(Some(bytes), _)) => joined(self.first.clone(), bytes.clone()),
            _ => self.first.clone(),
        }
    }

    /// What stood behind it, once it was kept.
    pub(super) fn kept_trailers(&self) -> Option<&HeaderMap> {
        let kept = match &self.rest {
            Some(Rest::Kept(_, trailers)) => trailers.as_ref(),
            _ => None,
        };
        self.trailers.as_ref().or(kept).filter(|trailers| !trailers.is_empty())
    }

    async fn read_on(self, most: usize) -> Result<Self, BodyError> {
        let mut begun = self;
        let mut first = BytesMut::new();
        while let Some(mut body) = begun.rest.take() {
            let frame = timeout(BODY_TIME, body.frame()).await.map_err(|_| BodyError::Slow)?;
            let Some(frame) = frame else { break };
            match frame.map_err(|error| BodyError::Client(chain(&error)))?.into_data() {
                Ok(bytes) => first.extend_from_slice(&bytes),
                Err(frame) => begun.trailers = frame.into_trailers().ok(),
            }
            if begun.trailers.is_none() && !body.is_end_stream() {
                begun.rest = Some(body);
            }
            if first.len() > most {
                break;
            }
        }
        begun.first = first.freeze();
        Ok(begun)
    }
}

/// The client's body on its way up: `first` was permitted with the head.
pub(super) fn up(
    first: Bytes,
    trailers: Option<HeaderMap>,
    rest: Option<Rest>,
    state: UpState,
) -> Body {
    if rest.is_none() && trailers.is_none() {
        return if first.is_empty() { empty() } else { full(first) };
    }
    let begin = (!first.is_empty()).then_some(first);
    let state = Some((begin, trailers, rest, state));
    let frames = stream::unfold(state, |state| async move {
        let (begin, trailers, mut rest, mut state) = state?;
        if let Some(first) = begin {
            return Some((Ok(Frame::data(first)), Some((None, trailers, rest, state))));
        }
        if let Some(trailers) = trailers {
            return Some((Ok(state.trailing(&trailers)), None));
        }
        match state.next(rest.as_mut()?).await {
            Ok(Some(frame)) => Some((Ok(frame), Some((None, None, rest, state)))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

/// What a body on its way up needs.
#[derive(Debug)]
pub(super) struct UpState {
    pub(super) exchange: Arc<Exchange>,
    /// Looks for the caller's token.
    pub(super) scanner: Scanner,
    /// Looks for what asks for another method.
    pub(super) overrides: Option<overrides::Scanner>,
    /// What is stored of it.
    pub(super) view: View,
    /// What comes behind the last bytes.
    pub(super) trailers: Option<HeaderMap>,
}

/// How a request's body is seen by whoever reads what is stored.
#[derive(Debug)]
pub(super) enum View {
    /// As it is: there are no masks.
    Whole,
    Masked(BodyMask),
    /// Not at all: it cannot be masked.
    Nothing,
}

impl View {
    /// For a body with these header fields. `listed` are content types that need not be masked.
    pub(super) fn of(plan: &Arc<MaskPlan>, headers: &HeaderMap, listed: &[ContentTypes]) -> Self {
        if !masking::acts(plan) {
            return Self::Whole;
        }
        BodyMask::of(plan, headers, listed).map_or(Self::Nothing, Self::Masked)
    }

    /// What is stored of the next bytes; `None` for nothing of them. With `ended` they are the
    /// last.
    pub(super) fn of_next(&mut self, bytes: &Bytes, ended: bool) -> Option<Bytes> {
        let seen = match self {
            Self::Whole => return Some(bytes.clone()),
            Self::Nothing => return None,
            Self::Masked(mask) => mask.push(bytes),
        };
        let rest = |first: Masked| {
            let Self::Masked(mask) = std::mem::replace(self, Self::Nothing) else {
                return Ok(first);
            };
            mask.finish().map(|rest| first.joined(&rest))
        };
        match if ended { seen.and_then(rest) } else { seen } {
            Ok(masked) => Some(masked.stored().clone()),
            Err(_) => {
                *self = Self::Nothing;
                None
            }
        }
    }
}

impl UpState {
    async fn next(&mut self, incoming: &mut Rest) -> Result<Option<Frame<Bytes>>, BodyError> {
        loop {
            if let Some(trailers) = self.trailers.take() {
                return Ok(Some(self.trailing(&trailers)));
            }
            let frame = tokio::select! {
                frame = timeout(BODY_TIME, incoming.frame()) => match frame {
                    Ok(frame) => frame,
                    Err(_) => return Err(BodyError::Slow),
                },
                why = self.exchange.cut() => return Err(BodyError::Ended(why)),
            };
            let frame = frame.transpose().map_err(|e| BodyError::Client(chain(&e)))?;
            let (bytes, ended) = match frame.map(Frame::into_data) {
                None => (self.scanner.finish(), true),
                // A length that was reached is the end: nobody asks for another frame then.
                Some(Ok(bytes)) => {
                    let bytes = self.scanner.push(bytes);
                    let ended = incoming.is_end_stream();
                    (if ended { joined(bytes, self.scanner.finish()) } else { bytes }, ended)
                }
                Some(Err(frame)) => match frame.into_trailers() {
                    Ok(trailers) => {
                        self.trailers = Some(trailers);
                        (self.scanner.finish(), true)
                    }
                    Err(_) => continue,
                },
            };
            if self.scanner.found() {
                return Err(BodyError::Token);
            }
            if self.overrides.as_mut().is_some_and(|overrides| overrides.finds(&bytes, ended)) {
                return Err(BodyError::Method);
            }
            let view = self.view.of_next(&bytes, ended);
            if !bytes.is_empty() {
                let seen = view.as_ref().map_or(Seen::Nothing, |view| Seen::As(view));
                return Ok(Some(Frame::data(self.exchange.up(bytes, seen).await?)));
            }
            if let Some(view) = view.filter(|view| !view.is_empty()) {
                self.exchange.up(bytes, Seen::As(&view)).await?;
            }
            if ended && self.trailers.is_none() {
                return Ok(None);
            }
        }
    }

    fn trailing(&self, trailers: &HeaderMap) -> Frame<Bytes> {
        let mut trailers =
            only_trailing(trailers, |value| !self.scanner.literals().stand_in(value));
        // Some servers take trailers for headers, which were decided without them.
        let claims: Vec<HeaderName> =
            trailers.keys().filter(|name| claims(name)).cloned().collect();
        for name in claims {
            trailers.remove(name);
        }
        self.exchange.note_trailers("request-trailers", &trailers);
        Frame::trailers(trailers)
    }
}

/// The largest answer in which the name of a run is looked for, in bytes.
const MAX_KICKOFF: usize = 16 << 10;

/// How long the head of an event stream waits for its first bytes: the next event may be hours away,
/// and clients wait for the head.
const EVENTS_TIME: Duration = Duration::from_millis(500);
/// An answer of at most so many bytes is masked as a whole before its head goes down.
const MAX_WHOLE: u64 = 64 << 10;

/// The target's body on its way down.
#[derive(Debug)]
pub(super) struct Down {
    pub(super) incoming: Incoming,
    pub(super) exchange: Arc<Exchange>,
    /// Looks for the target's credential.
    pub(super) scanner: Scanner,
    pub(super) mask: BodyMask,
    /// Where addresses of the target become the gateway's.
    pub(super) addresses: Addresses,
    /// The same in an event stream.
    pub(super) endpoints: Option<Endpoints>,
    /// What comes behind the last bytes.
    pub(super) trailers: Option<HeaderMap>,
    pub(super) dialect: &'static dyn Dialect,
    /// The answer so far, where it tells the name of the run that the request began.
    pub(super) kickoff: Option<Vec<u8>>,
    /// What was masked before the head went down, and whether that is all.
    pub(super) begun: Option<(Masked, bool)>,
}

impl Down {
    /// Masks the beginning of the body: while nothing of the answer went down, one that cannot be
    /// masked is answered with another.
    pub(super) async fn begin(&mut self) -> Result<(), BodyError> {
        let whole = self.incoming.size_hint().exact().is_some_and(|length| length <= MAX_WHOLE);
        let due = self.mask.is_of_events().then(|| Instant::now() + EVENTS_TIME);
        loop {
            let read = match due {
                Some(due) => match timeout_at(due, self.read()).await {
                    Ok(read) => read,
                    Err(_) => return Ok(()),
                },
                None => self.read().await,
            };
            let (masked, ended) = read?;
            let something = !masked.shown().is_empty();
            let (so_far, _) = self.begun.take().unwrap_or_default();
            self.begun = Some((so_far.joined(&masked), ended));
            if ended || (something && !whole) {
                return Ok(());
            }
        }
    }

    /// The rest of it, for the client.
    pub(super) fn stream(self) -> Body {
        let frames = stream::unfold(Some(self), |down| async move {
            let mut down = down?;
            match down.next().await {
                Ok(Some(frame)) => Some((Ok(frame), Some(down))),
                Ok(None) => None,
                Err(error) => {
                    down.exchange.broke(&error);
                    // What went before is written out first: the client shall have the head at least.
                    tokio::task::yield_now().await;
                    Some((Err(error), None))
                }
            }
        });
        StreamBody::new(frames).boxed_unsync()
    }

    /// Looks for the run's name before the client can.
    fn look_for_run(&mut self, bytes: &Bytes, ended: bool) {
        let Some(answer) = &mut self.kickoff else { return };
        if answer.len() + bytes.len() > MAX_KICKOFF {
            self.kickoff = None;
            return;
        }
        answer.extend_from_slice(bytes);
        if let Some(run) = self.dialect.run_of_answer(answer) {
            self.exchange.session().begins(&run);
            self.kickoff = None;
        } else if ended {
            self.kickoff = None;
        }
    }

    async fn next(&mut self) -> Result<Option<Frame<Bytes>>, BodyError> {
        loop {
            let (masked, ended) = match self.begun.take() {
                Some(begun) => begun,
                None => match self.trailers.take() {
                    Some(trailers) => return self.trailing(&trailers).map(Some),
                    None => self.read().await?,
                },
            };
            let last = ended && self.trailers.is_none();
            if masked.stored().is_empty() && masked.shown().is_empty() && !last {
                continue;
            }
            let released = self.exchange.down(masked, last)?;
            if !released.is_empty() || last {
                return Ok((!released.is_empty()).then(|| Frame::data(released)));
            }
        }
    }

    /// The next bytes, masked, and whether they are the last. Cancel safe.
    async fn read(&mut self) -> Result<(Masked, bool), BodyError> {
        loop {
            let frame = tokio::select! {
                frame = self.incoming.frame() => frame,
                why = self.exchange.cut() => return Err(BodyError::Ended(why)),
            };
            let frame = frame.transpose().map_err(|e| BodyError::Target(chain(&e)))?;
            let (bytes, ended) = match frame.map(Frame::into_data) {
                None => (self.last(Bytes::new()), true),
                Some(Ok(bytes)) if self.incoming.is_end_stream() => (self.last(bytes), true),
                Some(Ok(bytes)) => {
                    let bytes = match &mut self.endpoints {
                        Some(endpoints) => endpoints.push(&bytes),
                        None => bytes,
                    };
                    (self.scanner.push(bytes), false)
                }
                Some(Err(frame)) => match frame.into_trailers() {
                    Ok(trailers) => {
                        self.trailers = Some(trailers);
                        (self.last(Bytes::new()), true)
                    }
                    Err(_) => continue,
                },
            };
            if bytes.is_empty() && !ended {
                continue;
            }
            self.look_for_run(&bytes, ended);
            let mut masked = self.mask.push(&bytes)?;
            if ended {
                masked = masked.joined(&self.mask_rest()?);
            }
            return Ok((masked, ended));
        }
    }

    /// The last bytes, with all that was held back.
    fn last(&mut self, bytes: Bytes) -> Bytes {
        let bytes = match &mut self.endpoints {
            Some(endpoints) => joined(endpoints.push(&bytes), endpoints.finish()),
            None => bytes,
        };
        joined(self.scanner.push(bytes), self.scanner.finish())
    }

    /// What masks held back: nothing comes behind it.
    fn mask_rest(&mut self) -> Result<Masked, BodyError> {
        Ok(std::mem::replace(&mut self.mask, BodyMask::Open).finish()?)
    }

    fn trailing(&mut self, trailers: &HeaderMap) -> Result<Frame<Bytes>, BodyError> {
        let trailers = only_trailing(trailers, |value| !self.scanner.literals().stand_in(value));
        let mut trailers = self.addresses.trailers(&trailers);
        self.exchange.note_trailers("response-trailers", &trailers);
        if let Some(plan) = self.exchange.masks() {
            trailers = masking::fields(&plan, &trailers);
        }
        self.exchange.down(Masked::default(), true)?;
        Ok(Frame::trailers(trailers))
    }
}

/// Whether a field behind a body says what only a header may: who asks, with what, or another method.
fn claims(name: &HeaderName) -> bool {
    let name = fields::canonical(name.as_str());
    fields::is_claim(&name)
        || fields::is_credential(&name)
        || overrides::is_header(&name)
        || overrides::could_be_header(&name)
}

/// The trailer fields that may pass.
fn only_trailing(trailers: &HeaderMap, fine: impl Fn(&[u8]) -> bool) -> HeaderMap {
    let mut passing = HeaderMap::new();
    let fields = trailers.iter().filter(|(name, value)| {
        may_trail(name.as_str().as_bytes())
            && *name != hyper::header::SET_COOKIE
            && fine(value.as_bytes())
    });
    for (name, value) in fields {
        passing.append(HeaderName::clone(name), HeaderValue::clone(value));
    }
    passing
}

fn joined(bytes: Bytes, rest: Bytes) -> Bytes {
    if rest.is_empty() { bytes } else { [bytes, rest].concat().into() }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
