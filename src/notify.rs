//! Telling people elsewhere what happens: signed webhooks, and messages to Slack.
//!
//! Nothing waits for it: what is told goes into a bounded queue, and when that is full it is
//! dropped and counted. Each message is tried some times, further and further apart, and then kept
//! among the last that could not be delivered. What is told is the request view, shortened: no
//! secret, no value, no comment of a person's.
//!
//! Limits: queues and undelivered messages are in memory, so a restart forgets them; messages may
//! come out of order, and one may come twice when an answer is lost (its id is the same).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http_body_util::Full;
use hyper::{Request, Uri, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::{Notify, NotifyEvent, NotifyKind};
use crate::metrics::Metrics;
use crate::names::{RequestId, SessionId};

/// Messages that wait for one receiver.
const QUEUE: usize = 1024;
/// Messages that are on their way to one receiver at a time.
const IN_FLIGHT: usize = 8;
/// When a message is tried again: what comes later is of no use to those who are to decide.
const RETRIES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(15),
    Duration::from_secs(60),
];
/// How long one try may take.
const TRY_TIME: Duration = Duration::from_secs(10);
/// Undelivered messages that are kept to be looked at.
const DEAD_LETTERS: usize = 100;
/// How much of a command is told, in characters.
const MAX_TEXT: usize = 1000;

/// What happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct News {
    /// Who.
    pub username: String,
    /// Where.
    pub target: String,
    /// In which session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// What waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestId>,
    /// Where people decide it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// The rules that were met.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// Their reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The command in its request view, or what happened.
    pub text: String,
}

/// One message, as a webhook gets it.
#[derive(Debug, Clone, Serialize)]
struct Message {
    /// The same at each try.
    id: Uuid,
    event: &'static str,
    /// Seconds since 1970.
    at: u64,
    gateway: String,
    #[serde(flatten)]
    news: News,
}

/// A message that could not be delivered.
#[derive(Debug, Clone, Serialize)]
pub struct DeadLetter {
    /// Whom it was for.
    pub name: String,
    /// The message's id.
    pub id: Uuid,
    /// What it told of.
    pub event: &'static str,
    /// When that happened, in seconds since 1970.
    pub at: u64,
    /// Why it was not delivered.
    pub why: String,
}

/// Tells those who are configured.
#[derive(Debug)]
pub struct Notifier {
    gateway: String,
    metrics: Arc<Metrics>,
    receivers: Vec<Receiver>,
    dead: Mutex<VecDeque<DeadLetter>>,
}

#[derive(Debug)]
struct Receiver {
    settings: Notify,
    sender: mpsc::Sender<Arc<Message>>,
    waiting: Mutex<Option<mpsc::Receiver<Arc<Message>>>>,
}

impl Notifier {
    /// For a gateway, known by its id.
    pub fn new(settings: &[Notify], gateway: String, metrics: Arc<Metrics>) -> Arc<Self> {
        let receivers = settings.iter().map(|settings| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            let waiting = Mutex::new(Some(receiver));
            Receiver { settings: settings.clone(), sender, waiting }
        });
        Arc::new(Self { gateway, metrics, receivers: receivers.collect(), dead: Mutex::default() })
    }

    /// What is counted in the gateway.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The gateway's id.
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    /// Tells those who want to be told of this; never waits. `news` is asked for only then.
    pub fn tell(&self, event: NotifyEvent, news: impl FnOnce() -> News) {
        let wants = |receiver: &&Receiver| receiver.settings.events.contains(&event);
        if !self.receivers.iter().any(|receiver| wants(&receiver)) {
            return;
        }
        let mut news = news();
        news.text = shortened(&news.text);
        let message = Arc::new(Message {
            id: Uuid::now_v7(),
            event: event.as_str(),
            at: now(),
            gateway: self.gateway.clone(),
            news,
        });
        for receiver in self.receivers.iter().filter(wants) {
            if receiver.sender.try_send(Arc::clone(&message)).is_err() {
                self.metrics.notified(&receiver.settings.name, "dropped");
                self.bury(&receiver.settings.name, &message, "too many messages wait".to_owned());
            }
        }
    }

    /// The last messages that could not be delivered, the latest last.
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        self.dead.lock().iter().cloned().collect()
    }

    /// Delivers until cancelled; what waits then is forgotten.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        if self.receivers.is_empty() {
            return;
        }
        let client = match client() {
            Ok(client) => client,
            Err(error) => return tracing::error!(%error, "nobody can be notified"),
        };
        let all = futures_util::future::join_all(
            self.receivers.iter().map(|receiver| self.serve(receiver, &client)),
        );
        let _ended = cancel.run_until_cancelled(all).await;
    }

    async fn serve(&self, receiver: &Receiver, client: &HttpClient) {
        let Some(mut waiting) = receiver.waiting.lock().take() else { return };
        let mut in_flight = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(()) = in_flight.next(), if !in_flight.is_empty() => {}
                message = waiting.recv(), if in_flight.len() < IN_FLIGHT => match message {
                    Some(message) => in_flight.push(self.deliver(&receiver.settings, client, message)),
                    None => return,
                },
            }
        }
    }

    async fn deliver(&self, to: &Notify, client: &HttpClient, message: Arc<Message>) {
        let mut pauses = RETRIES.iter();
        let why = loop {
            match attempt(to, client, &message).await {
                Ok(()) => return self.metrics.notified(&to.name, "sent"),
                Err(Failed { why, again: true }) => match pauses.next() {
                    Some(pause) => {
                        tracing::debug!(name = to.name, why, "not notified; trying again");
                        tokio::time::sleep(*pause).await;
                    }
                    None => break why,
                },
                Err(Failed { why, again: false }) => break why,
            }
        };
        self.metrics.notified(&to.name, "failed");
        self.bury(&to.name, &message, why);
    }

    fn bury(&self, name: &str, message: &Message, why: String) {
        tracing::warn!(name, event = message.event, id = %message.id, why, "not notified");
        let letter = DeadLetter {
            name: name.to_owned(),
            id: message.id,
            event: message.event,
            at: message.at,
            why,
        };
        let mut dead = self.dead.lock();
        while dead.len() >= DEAD_LETTERS {
            dead.pop_front();
        }
        dead.push_back(letter);
    }
}

type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

fn client() -> Result<HttpClient, rustls::Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
    Ok(Client::builder(TokioExecutor::new()).build(connector.build()))
}

/// Why a try failed, and whether another may do better. Without the address, which is a secret.
#[derive(Debug)]
struct Failed {
    why: String,
    again: bool,
}

impl Failed {
    fn for_now(why: impl Into<String>) -> Self {
        Self { why: why.into(), again: true }
    }

    fn for_good(why: impl Into<String>) -> Self {
        Self { why: why.into(), again: false }
    }
}

async fn attempt(to: &Notify, client: &HttpClient, message: &Message) -> Result<(), Failed> {
    let url = to.url.read().await.map_err(|error| Failed::for_now(format!("url: {error}")))?;
    let uri = address(url.expose())?;
    let body = match to.kind {
        NotifyKind::Webhook => serde_json::to_vec(message),
        NotifyKind::Slack => serde_json::to_vec(&json!({ "text": slack(message) })),
    };
    let body = body.map_err(|error| Failed::for_good(error.to_string()))?;
    let mut request = Request::post(uri)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("portcullis/", env!("CARGO_PKG_VERSION")));
    if let Some(secret) = &to.secret {
        let secret = secret.read().await;
        let secret = secret.map_err(|error| Failed::for_now(format!("secret: {error}")))?;
        let timestamp = now();
        request = request
            .header("portcullis-id", message.id.to_string())
            .header("portcullis-timestamp", timestamp)
            .header("portcullis-signature", signature(secret.expose(), timestamp, &body));
    }
    let request = request.body(Full::new(Bytes::from(body)));
    let request = request.map_err(|error| Failed::for_good(error.to_string()))?;
    let answer = tokio::time::timeout(TRY_TIME, client.request(request)).await;
    let status = match answer {
        Err(_) => return Err(Failed::for_now("no answer in time")),
        Ok(Err(_)) => return Err(Failed::for_now("it cannot be reached")),
        Ok(Ok(response)) => response.status(),
    };
    match status.as_u16() {
        200..=299 => Ok(()),
        408 | 425 | 429 | 500..=599 => Err(Failed::for_now(format!("it answered {status}"))),
        _ => Err(Failed::for_good(format!("it answered {status}"))),
    }
}

/// `v1=` and HMAC-SHA256 over the time, a full stop and the body, in hexadecimal.
fn signature(secret: &str, timestamp: u64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{timestamp}.").as_bytes());
    context.update(body);
    let hex: String = context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("v1={hex}")
}

/// TLS, or this machine: what is told is not for everybody on the way.
fn address(url: &str) -> Result<Uri, Failed> {
    let bad = || Failed::for_good("url: neither https:// nor http:// to this machine");
    let uri: Uri = url.trim().parse().map_err(|_| bad())?;
    let host = uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let here = host == "localhost"
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") if !host.is_empty() => Ok(uri),
        Some("http") if here => Ok(uri),
        _ => Err(bad()),
    }
}

/// A message in Slack's markup, in which nothing foreign means anything.
fn slack(message: &Message) -> String {
    let plain = |text: &str| {
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        // A fence in the text would end ours; other marks mean nothing within one.
        text.replace('`', "'")
    };
    let News { username, target, request, link, rules, reason, text, .. } = &message.news;
    let what = match message.event {
        "approval" => "waits for approval",
        "block" => "was blocked",
        "session-start" => "opened a session",
        "session-end" => "ended a session",
        _ => "could not be recorded",
    };
    let mut told = format!("`{}` on `{}` {what}", plain(username), plain(target));
    if !rules.is_empty() {
        told += &format!(" (rule `{}`)", plain(&rules.join(", ")));
    }
    if let Some(reason) = reason {
        told += &format!("\n{}", plain(reason));
    }
    if !text.is_empty() {
        told += &format!("\n```{}```", plain(text));
    }
    match (link, request) {
        (Some(link), Some(request)) if link.starts_with("http") => {
            told += &format!("\n<{}|Decide {request}>", plain(link).replace('|', "%7C"));
        }
        (Some(link), _) => told += &format!("\n`{}`", plain(link)),
        _ => {}
    }
    told
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_hmac_that_anybody_can_compute() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret
        assert_eq!(
            signature("secret", 1_700_000_000, br#"{"a":1}"#),
            "v1=49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686"
        );
    }

    #[test]
    fn nothing_foreign_means_anything_in_slack() {
        let message = Message {
            id: Uuid::nil(),
            event: "approval",
            at: 0,
            gateway: String::new(),
            news: News {
                username: "<!channel>".to_owned(),
                target: "orders".to_owned(),
                link: Some("https://gateway/approvals/1".to_owned()),
                request: Some(Uuid::nil().into()),
                text: "select '```' & <https://evil|click>".to_owned(),
                ..News::default()
            },
        };
        let told = slack(&message);
        assert!(!told.contains("<!") && !told.contains("<https://evil"), "{told}");
        assert!(told.contains("```select ''''' &amp; &lt;https://evil|click&gt;```"), "{told}");
        assert!(told.ends_with(&format!("<https://gateway/approvals/1|Decide {}>", Uuid::nil())));
    }

    #[test]
    fn messages_go_over_tls_or_stay_on_this_machine() {
        assert!(address("https://hooks.example.com/x").is_ok());
        assert!(address("http://127.0.0.1:8080/").is_ok());
        for bad in ["", "http://hooks.example.com/", "ftp://x", "https://"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
