//! One request, from its head to its answer.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap};
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode, Version};

use super::Connection;
use super::approval_wait;
use super::body::{self, Begun, Body, BodyError, UpState, View};
use super::exchange::Exchange;
use super::guarded::Guard;
use super::literal::Scanner;
use super::masking;
use super::refusal::{Form, Refusal};
use super::request::Ask;
use super::response;
use super::session::{self, Caller, InUse, NotOpen};
use super::upstream::SendError;
use super::websocket;
use crate::access::{self, Ends, NoAccess, Right};
use crate::admission::{Knock, told};
use crate::config::{ContentTypes, HttpTarget, TargetKind};
use crate::decode::http::command::WITHHELD;
use crate::decode::http::dialects::{Meaning, Run};
use crate::decode::http::fields::is_credential;
use crate::decode::http::overrides::Kind;
use crate::decode::http::path::{EncodedSlash, Path};
use crate::decode::http::{Refused, command, head, json, overrides};
use crate::gate::{Asked as Asks, NotAdmitted, Permitted, Ruling};
use crate::identity::Identity;
use crate::mask::MaskPlan;
use crate::names::{Protocol, TargetName};

/// Answers one request: with the target's answer, or with why there is none.
pub(super) async fn answer(
    connection: Arc<Connection>,
    mut request: Request<Incoming>,
) -> Response<Body> {
    connection.requests.fetch_add(1, Ordering::AcqRel);
    let client = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let mut upgrade = Upgrade::of(&parts, &connection.guard);
    let mut form = Form::default();
    match connection.answer(parts, body, client, &mut form).await {
        Ok(response) => {
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                upgrade.accept();
            }
            response
        }
        Err(refusal) => refusal.answer(&form).map(body::full),
    }
}

/// What stands behind a request for WebSocket waits for this: it is none unless somebody says so.
struct Upgrade<'g>(Option<&'g Guard>);

impl<'g> Upgrade<'g> {
    fn of(parts: &Parts, guard: &'g Guard) -> Self {
        let asked = parts.headers.get_all(header::UPGRADE).iter().any(|value| {
            let mut words = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            words.any(|word| word.eq_ignore_ascii_case(b"websocket"))
        });
        Self((parts.version == Version::HTTP_11 && asked).then_some(guard))
    }

    fn accept(&mut self) {
        if let Some(guard) = self.0.take() {
            guard.answer_upgrade(true);
        }
    }
}

impl Drop for Upgrade<'_> {
    fn drop(&mut self) {
        if let Some(guard) = self.0 {
            guard.answer_upgrade(false);
        }
    }
}

impl Connection {
    async fn answer(
        self: &Arc<Self>,
        parts: Parts,
        body: Incoming,
        client: OnUpgrade,
        form: &mut Form,
    ) -> Result<Response<Body>, Refusal> {
        let settings = &self.context.settings;
        let read = match self.guard.refused(parts.method.as_str()) {
            Some(refused) => Err(refused),
            None => Ask::read(&parts, settings.base_domain.as_deref()),
        };
        let malformed = |identity: Option<&Identity>, named: &str, refused: Refused| {
            self.note_refused(named, identity, refused.what);
            Refusal::Malformed(refused)
        };
        let mut ask = read.map_err(|refused| malformed(None, "", refused))?;
        if let Some(path) = ask.own_path() {
            return self.status(&ask, path).await;
        }
        let Known { identity, target, http, ends, once, masked } = self.know(&ask).await?;
        form.dialect = http.kind;
        let who = Arc::clone(&identity);
        ask.settle(&http).map_err(|refused| malformed(Some(&who), target.as_str(), refused))?;
        let goal = Goal { target: &http, masked, max_json: settings.max_json };
        let prepared = Prepared::new(&ask, &parts.headers, goal, body).await;
        let prepared =
            prepared.map_err(|refused| malformed(Some(&who), target.as_str(), refused))?;
        form.reply_to = prepared.meaning.reply_to.clone();
        let its_own = http.kind.is_workflow().then(|| target.to_string());
        let run = match &prepared.meaning.run {
            Run::Of(run) => Some(run.as_str()),
            Run::Begins | Run::None => None,
        };
        let begins = prepared.meaning.run == Run::Begins;
        let caller = Caller {
            client: self.client,
            workflow: told(identity.workflow(), ask.workflow.as_deref().or(its_own.as_deref())),
            run: told(identity.run(), ask.run.as_deref().or(run)),
            begins_run: begins && identity.run().is_none() && ask.run.is_none(),
            user_agent: text(&parts.headers, "user-agent").map(str::to_owned),
            identity,
            target,
            ends,
            once,
        };
        let session = match session::enter(&self.context, &caller).await {
            Ok(session) => session,
            Err(NotOpen::Refused(refusal)) => return Err(refusal),
            Err(NotOpen::NoAccess(no_access)) => {
                return Err(self.no_access(caller.target.as_str(), &caller.identity, no_access));
            }
        };
        let due =
            caller.ends.token.and_then(|end| end.checked_add(self.context.gateway.expiry_grace));
        let Decided { exchange, permitted, ruling, view } =
            prepared.decide(session, due, &parts.headers).await?;
        let begins_run = caller.begins_run;
        let asked = Asked { exchange: &exchange, ask: &ask, target: &http, begins_run };
        let body = (prepared.begun, prepared.overrides, view);
        match asked.answer(permitted, ruling, body, client, &parts.headers).await {
            Ok(response) => Ok(response),
            Err(refusal) => {
                if let Refusal::BadAnswer { target, what } = &refusal {
                    let session = exchange.session().gate().session();
                    tracing::warn!(%session, %target, reason = what, "answer not passed on");
                }
                let answer = refusal.answer(form);
                exchange.failed(answer.status(), refusal.word(), refusal.detail(), answer.body());
                Ok(answer.map(body::full))
            }
        }
    }

    /// The token. Whatever is wrong, the client is told one thing; what it was stands in the log
    /// and in the gateway's own recording.
    pub(super) async fn prove(&self, ask: &Ask) -> Result<Arc<Identity>, Refusal> {
        if !self.private {
            return Err(Refusal::TlsRequired);
        }
        let denied = |reason: &str| self.denied(ask, None, reason);
        let Some(token) = &ask.token else { return Err(denied("there is no token")) };
        let proved = self.context.gateway.verifier.verify(token).await;
        let identity = proved.map_err(|refused| denied(&refused.to_string()))?;
        drop(self.unproved.lock().take());
        Ok(identity)
    }

    /// A caller that did not prove who it is gets another token; one that did would get the same.
    fn denied(&self, ask: &Ask, identity: Option<&Identity>, reason: &str) -> Refusal {
        self.context.gateway.denied(&self.knock(&ask.named), identity, reason);
        if identity.is_some() { Refusal::Forbidden } else { Refusal::Denied }
    }

    /// Token, target and access.
    async fn know(&self, ask: &Ask) -> Result<Known, Refusal> {
        let identity = self.prove(ask).await?;
        let denied = |reason: &str| self.denied(ask, Some(&identity), reason);
        let rules = self.context.gateway.catalog.current();
        let Ok(name) = ask.named.parse::<TargetName>() else {
            return Err(denied("no such target"));
        };
        let (target, right) = access::right(&rules, &identity, &name)
            .map_err(|no_access| self.no_access(ask.named.as_str(), &identity, no_access))?;
        let TargetKind::Http(http) = &target.kind else {
            return Err(denied("the target is no HTTP service"));
        };
        let (ends, once) = match right {
            Right::Standing { ends, once } | Right::Asked { ends, once, .. } => (ends, once),
        };
        let masked = rules.masks().look_into_bodies(name.as_str());
        Ok(Known { identity, target: name, http: http.clone(), ends, once, masked })
    }

    /// Why a proved caller gets in nowhere. A status of 401 tells it to get another token, so it gets
    /// that only where another would help.
    fn no_access(&self, named: &str, identity: &Identity, no_access: NoAccess) -> Refusal {
        let (knock, why) = (self.knock(named), no_access.to_string());
        self.context.gateway.denied(&knock, Some(identity), &why);
        match no_access {
            NoAccess::Asked(asked) => Refusal::AccessAsked(asked.link),
            NoAccess::Withdrawn(_) | NoAccess::Killed(_) | NoAccess::Over | NoAccess::Used => {
                Refusal::Denied
            }
            NoAccess::Unknown(_) => Refusal::Unknown,
            NoAccess::UnknownTarget
            | NoAccess::OtherProtocol(_)
            | NoAccess::Forbidden
            | NoAccess::OtherTarget => Refusal::Forbidden,
        }
    }

    /// Logs and records somebody who got no session, or no answer.
    pub(super) fn note_refused(&self, named: &str, identity: Option<&Identity>, reason: &str) {
        self.context.gateway.turned_away(&self.knock(named), identity, reason);
    }

    fn knock<'a>(&self, named: &'a str) -> Knock<'a> {
        Knock { protocol: Protocol::Http, client: self.client, named }
    }
}

/// Who asks for what, proved.
struct Known {
    identity: Arc<Identity>,
    target: TargetName,
    http: HttpTarget,
    ends: Ends,
    once: bool,
    /// Masks look into its answers.
    masked: bool,
}

/// A request that was decided, and where it goes.
struct Asked<'a> {
    exchange: &'a Arc<Exchange>,
    ask: &'a Ask,
    target: &'a HttpTarget,
    begins_run: bool,
}

impl Asked<'_> {
    async fn answer(
        &self,
        permitted: Permitted,
        ruling: Ruling,
        (mut begun, overrides, view): (Begun, Option<overrides::Scanner>, View),
        client: OnUpgrade,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Refusal> {
        let session = self.exchange.session();
        let id = session.gate().session();
        let permitted = match ruling {
            Ruling::Passes => permitted,
            Ruling::Refused(decision) => {
                return Err(Refusal::Blocked { decision: Box::new(decision), session: id });
            }
            Ruling::Pending(held) => {
                let (exchange, ask, target) = (self.exchange, self.ask, self.target);
                approval_wait::released(exchange, ask, target, *held, &mut begun, headers).await?
            }
        };
        let answer = send(self.exchange, self.ask, permitted, (begun, overrides, view)).await?;
        let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| self.ask.websocket);
        if let Some(key) = key
            && answer.status() == StatusCode::SWITCHING_PROTOCOLS
        {
            let opening = websocket::Opening {
                client,
                key: key.clone(),
                protocols: headers.get(header::SEC_WEBSOCKET_PROTOCOL).cloned(),
                token: self.ask.token_literal(),
            };
            let (response, carrying) = websocket::open(self.exchange, answer, opening)?;
            session.spawn(carrying);
            return Ok(response);
        }
        response::pass(self.exchange, self.ask, self.target, answer, self.begins_run).await
    }
}

/// A request as it would go up, and as policy and recording see it.
struct Prepared {
    meaning: Meaning,
    /// The head that goes up, and the beginning of the body.
    bytes: Bytes,
    /// Method, and path with query.
    line: (String, String),
    /// The fields without what is not stored.
    fields: Vec<(String, Vec<u8>)>,
    withheld: bool,
    begun: Begun,
    /// Content types that need not be masked.
    unmasked_types: Vec<ContentTypes>,
    /// Looks for what asks for another method in the rest of the body.
    overrides: Option<overrides::Scanner>,
}

/// Where a request goes, and what is known of it.
#[derive(Clone, Copy)]
struct Goal<'t> {
    target: &'t HttpTarget,
    masked: bool,
    max_json: usize,
}

impl Prepared {
    async fn new(
        ask: &Ask,
        headers: &HeaderMap,
        goal: Goal<'_>,
        body: Incoming,
    ) -> Result<Self, Refused> {
        let Goal { target, masked, max_json } = goal;
        let content_type = text(headers, "content-type");
        let plain = !headers.contains_key(header::CONTENT_ENCODING);
        let json = plain && content_type.is_some_and(json::is_json);
        let kind = Kind::of(content_type).filter(|_| plain);
        // A body without a type is taken for a form by some; nobody waits for it.
        let form = kind.filter(|kind| *kind != Kind::Json && content_type.is_some());
        let begun = match json || form.is_some() {
            true => Begun::read(body, max_json).await.map_err(|error| malformed(&error))?,
            false => Begun::unread(body),
        };
        if ask.token_stands_in(&begun.first) {
            return Err(malformed(&BodyError::Token));
        }
        let whole = json && begun.rest.is_none() && begun.first.len() <= max_json;
        let json = whole.then(|| json::parse(&begun.first).ok()).flatten();
        let asked = match form {
            Some(Kind::Multipart) => overrides::of_multipart(&begun.first),
            Some(_) => Some(overrides::of_form(&begun.first)),
            // Nobody here reads what is compressed, and some frameworks do.
            None if !plain && content_type.is_some_and(|kind| Kind::of(Some(kind)).is_some()) => {
                Some(overrides::ANY.iter().map(|method| (*method).to_owned()).collect())
            }
            None => Some(Vec::new()),
        };
        let mut scanner = plain.then(|| overrides::Scanner::new(kind));
        if let Some(scanner) = &mut scanner {
            let asks = match form.is_some() || json.is_some() {
                true => scanner.finds_disguised(&begun.first),
                false => scanner.finds(&begun.first, begun.rest.is_none()),
            };
            if asks {
                return Err(malformed(&BodyError::Method));
            }
        }
        let asked = asked.ok_or_else(|| malformed(&BodyError::Method))?;

        let mut fields = ask.fields(headers, target, masked);
        let destination = ask.destination(headers, target)?;
        if let Some(destination) = &destination {
            let scheme = if target.https { "https" } else { "http" };
            let place = format!("{scheme}://{}{destination}", target.authority);
            for (_, value) in fields.iter_mut().filter(|(name, _)| *name == "destination") {
                *value = Cow::Owned(place.clone().into_bytes());
            }
        }
        let chunked = begun.rest.is_some() && !headers.contains_key(header::CONTENT_LENGTH);
        if chunked && matches!(ask.method.as_str(), "GET" | "HEAD") {
            // Nobody expects a body here unless it is said.
            fields.push(("transfer-encoding", Cow::Borrowed(b"chunked")));
        }
        let path = ask.path()?;
        let parse = |path| Path::parse_with(path, EncodedSlash::Data);
        let destination = destination.as_deref().map(parse).transpose()?;
        let fields: Vec<(&str, &[u8])> =
            fields.iter().map(|(name, value)| (*name, &**value)).collect();
        let meaning = target.kind.read(&command::Request {
            method: &ask.method,
            path: &path,
            query: ask.query(),
            fields: &fields,
            destination: destination.as_ref(),
            json,
            overrides: asked,
        })?;
        let first = format!("{} {} HTTP/1.1", ask.method, ask.target());
        let shown = fields.iter().map(|(name, value)| {
            let shown = if is_credential(name) { WITHHELD.as_bytes() } else { *value };
            ((*name).to_owned(), shown.to_vec())
        });
        let shown = shown.collect();
        let mut bytes = Vec::new();
        head::write(&first, fields.iter().copied(), &mut bytes);
        bytes.extend_from_slice(&begun.first);
        let withheld = fields.iter().any(|(name, _)| is_credential(name));
        Ok(Self {
            meaning,
            bytes: bytes.into(),
            line: (ask.method.clone(), ask.target()),
            fields: shown,
            withheld,
            begun,
            unmasked_types: target.unmasked_types.clone(),
            overrides: scanner,
        })
    }

    /// What is stored of the head, and of the beginning of the body.
    fn view(&self, plan: &Arc<MaskPlan>, first: Option<&[u8]>) -> Vec<u8> {
        let (method, target) = &self.line;
        let mut view = Vec::new();
        if !masking::acts(plan) {
            let fields = self.fields.iter().map(|(name, value)| (&**name, &**value));
            head::write(&format!("{method} {target} HTTP/1.1"), fields, &mut view);
        } else {
            let target = masking::target(plan, target);
            let target = String::from_utf8_lossy(target.stored()).into_owned();
            let masked = |(name, value): &(String, Vec<u8>)| {
                (name.clone(), masking::field(plan, name, value).stored().clone())
            };
            let named = self.fields.iter().filter(|(name, _)| !masking::hidden_name(plan, name).1);
            let fields: Vec<_> = named.map(masked).collect();
            let fields = fields.iter().map(|(name, value)| (&**name, &**value));
            head::write(&format!("{method} {target} HTTP/1.1"), fields, &mut view);
        }
        view.extend_from_slice(first.unwrap_or(b"[withheld]"));
        view
    }

    /// Decides and records it.
    async fn decide(
        &self,
        session: InUse,
        due: Option<std::time::SystemTime>,
        headers: &HeaderMap,
    ) -> Result<Decided, Refusal> {
        if session.gate().is_over() {
            return Err(Refusal::Ended);
        }
        let plan = session.gate().masks();
        let mut view = View::of(&plan, headers, &self.unmasked_types);
        let first = view.of_next(&self.begun.first, self.begun.rest.is_none());
        let seen = self.view(&plan, first.as_deref());
        let truth = &self.meaning.command;
        let shown = masking::command(&plan, truth);
        let masked = shown.is_some() || masking::acts(&plan);
        let length = self.bytes.len();
        let admitted = session.gate().admit(self.bytes.clone(), |plan| {
            let effects = [truth.effects.as_slice()];
            let view = shown.as_ref().unwrap_or(truth);
            let shown_effects = [view.effects.as_slice()];
            let asked = Asks {
                commands: &[truth.parts(&effects)],
                view: view.parts(&shown_effects),
                withheld: self.withheld || masked,
                prepares: false,
                of: None,
                against: None,
                sent: None,
            };
            let (of, ruling) = plan.ask(0..length, &asked);
            plan.view(&seen, of);
            (of, ruling)
        });
        match admitted.await {
            Ok((permitted, (of, ruling))) => {
                Ok(Decided { exchange: Exchange::new(session, of, due), permitted, ruling, view })
            }
            Err(NotAdmitted::NotRecorded(failure)) => {
                session.fail(&failure);
                Err(Refusal::NotRecorded)
            }
            Err(NotAdmitted::Lapsed(_)) => Err(Refusal::Ended),
        }
    }
}

struct Decided {
    exchange: Arc<Exchange>,
    permitted: Permitted,
    ruling: Ruling,
    /// What is stored of the rest of the body.
    view: View,
}

/// Sends what was permitted, the rest of the body behind it, and waits for the answer.
async fn send(
    exchange: &Arc<Exchange>,
    ask: &Ask,
    permitted: Permitted,
    (begun, overrides, view): (Begun, Option<overrides::Scanner>, View),
) -> Result<Response<Incoming>, Refusal> {
    let gate = exchange.session().gate();
    let target = &gate.grant().target().name;
    let state = UpState {
        exchange: Arc::clone(exchange),
        scanner: Scanner::new(&Arc::new(ask.token_literal())),
        overrides,
        view,
        trailers: None,
    };
    let Begun { trailers, rest, .. } = begun;
    let body = |first| body::up(first, trailers, rest, state);
    let sent = tokio::select! {
        sent = exchange.session().upstream().send(permitted, body, ask.websocket) => sent,
        why = exchange.cut() => {
            tracing::debug!(session = %gate.session(), why, "request cut off");
            return Err(Refusal::Ended);
        }
    };
    match &sent {
        Err(SendError::Connect(_)) => exchange.session().unreached(),
        _ => gate.grant().opens(),
    }
    sent.map_err(|error| {
        tracing::warn!(session = %gate.session(), %target, %error, "request failed");
        match error {
            SendError::Body(error) => Refusal::Malformed(malformed(&error)),
            SendError::Connect(_) => {
                gate.metrics().not_connected();
                Refusal::Unreachable(target.clone())
            }
            SendError::Answer(_) | SendError::Unwritable => {
                let what = "it did not keep to the protocol, or the connection broke";
                Refusal::BadAnswer { target: target.clone(), what }
            }
        }
    })
}

/// What a client is told of a body of its own that broke off.
pub(super) fn malformed(error: &BodyError) -> Refused {
    match error {
        BodyError::Slow => Refused { status: 408, what: "the body took too long" },
        BodyError::Token => Refused::bad("the token stands in the body"),
        BodyError::Method => Refused::bad("the body asks for another method where it is not read"),
        BodyError::NotRecorded => Refused { status: 503, what: "the body cannot be recorded" },
        _ => Refused::bad("the body is malformed, or ends early"),
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
