//! Checkpoints of the ledger, signed, kept where the owner of this disk and this database cannot
//! change them: what shows them that its end was cut, or that it was written anew.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, Response, Uri, header};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::client;
use super::store::{Archive, ArchiveError};
use crate::config::{Location, Witness};
use crate::metrics::Metrics;
use crate::recording::{Head, Store};

/// How often a checkpoint is sent while anything is added to the ledger: as often as one is noted
/// in the database.
const EVERY: Duration = Duration::from_secs(30);
/// How soon again after a failure.
const RETRY: Duration = Duration::from_secs(5);
/// How long one may take to be sent.
const SENDING: Duration = Duration::from_secs(30);
/// How long the last may take when the gateway stops.
const LAST: Duration = Duration::from_secs(5);
/// A webhook that gives back a year of checkpoints.
const MAX_ANSWER: usize = 512 << 20;
/// Checkpoints that are held against a ledger.
const MOST: usize = 4_000_000;

/// What a witness is given, and gives back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Testimony {
    /// Whose ledger.
    pub gateway: String,
    /// How many lines it had.
    pub lines: u64,
    /// The hash of the last.
    pub hash: String,
    /// That line: a signed checkpoint.
    pub line: String,
}

/// Why a witness could not be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// The store of objects failed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The webhook failed.
    #[error("the witness: {0}")]
    Webhook(String),
}

/// Whoever keeps checkpoints.
#[derive(Debug, Clone)]
pub enum Kept {
    /// A webhook.
    Webhook(Uri),
    /// A store of objects.
    Archive(Archive),
}

impl Kept {
    /// Opens it; nothing is asked yet.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn open(witness: &Witness) -> Result<Self, WitnessError> {
        match witness {
            Witness::Webhook(url) => {
                let url = url.parse().map_err(|error| WitnessError::Webhook(format!("{error}")))?;
                Ok(Self::Webhook(url))
            }
            Witness::Place(place) => Ok(Self::at(place)?),
        }
    }

    fn at(place: &Location) -> Result<Self, ArchiveError> {
        Ok(Self::Archive(Archive::open(place)?))
    }

    /// Whether it can be asked.
    ///
    /// # Errors
    /// Why not.
    pub async fn probe(&self) -> Result<(), WitnessError> {
        match self {
            Self::Archive(archive) => Ok(archive.probe().await?),
            Self::Webhook(url) => get(url.clone()).await.map(drop),
        }
    }

    async fn tell(&self, testimony: &Testimony) -> Result<(), WitnessError> {
        let json = serde_json::to_vec(testimony)
            .map_err(|error| WitnessError::Webhook(error.to_string()))?;
        match self {
            Self::Archive(archive) => {
                let Testimony { gateway, lines, hash, .. } = testimony;
                let name = format!("{lines:012}-{hash}.json");
                let key = archive.checkpoints(gateway).join(name);
                Ok(archive.put(&key, json).await?)
            }
            Self::Webhook(url) => {
                let request = Request::post(url.clone())
                    .header(header::CONTENT_TYPE, "application/json")
                    .body(Full::new(Bytes::from(json)));
                send(request.map_err(|error| WitnessError::Webhook(error.to_string()))?)
                    .await
                    .map(drop)
            }
        }
    }

    /// The heads of a gateway's ledger that it was told of.
    ///
    /// # Errors
    /// When it cannot be asked, or gives back what was never told to it.
    pub async fn heads(&self, gateway: &str) -> Result<Vec<Head>, WitnessError> {
        let mut heads = match self {
            Self::Archive(archive) => {
                let names = archive.list(&archive.checkpoints(gateway)).await?;
                names.iter().filter_map(|key| head_of(key.filename()?)).collect()
            }
            Self::Webhook(url) => {
                let told = get(url.clone()).await?;
                heads_in(&told, gateway)?
            }
        };
        heads.sort_unstable_by_key(|head| head.lines);
        if heads.len() > MOST {
            heads = heads.split_off(heads.len() - MOST);
        }
        Ok(heads)
    }
}

/// A checkpoint is some 200 bytes; this is years of them.
const MAX_WITNESSED: usize = 1 << 30;

/// The heads of a gateway's ledger in a file of what a webhook got, one checkpoint a line.
///
/// # Errors
/// When it cannot be read, or something else stands in it.
pub fn testimonies(file: &Path, gateway: &str) -> Result<Vec<Head>, WitnessError> {
    let told = crate::files::read(file, MAX_WITNESSED)
        .map_err(|error| WitnessError::Webhook(format!("{}: {error}", file.display())))?;
    heads_in(&told, gateway)
}

fn heads_in(told: &[u8], gateway: &str) -> Result<Vec<Head>, WitnessError> {
    let mut heads = Vec::new();
    for line in told.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        let Testimony { gateway: whose, lines, hash, .. } = serde_json::from_slice(line)
            .map_err(|error| WitnessError::Webhook(format!("a line is no checkpoint: {error}")))?;
        if whose == gateway {
            heads.push(Head { lines, hash });
        }
    }
    Ok(heads)
}

fn head_of(name: &str) -> Option<Head> {
    let (lines, hash) = name.strip_suffix(".json")?.split_once('-')?;
    Some(Head { lines: lines.parse().ok()?, hash: hash.to_owned() })
}

async fn get(url: Uri) -> Result<Bytes, WitnessError> {
    let request = Request::get(url).body(Full::default());
    send(request.map_err(|error| WitnessError::Webhook(error.to_string()))?).await
}

async fn send(request: Request<Full<Bytes>>) -> Result<Bytes, WitnessError> {
    let failed = |error: &dyn std::fmt::Display| WitnessError::Webhook(error.to_string());
    let client = client::hyper_client(true).map_err(|error| failed(&error))?;
    let exchange = async {
        let response: Response<_> =
            client.request(request).await.map_err(|error| failed(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| failed(&error))?.to_bytes();
        if status.is_success() { Ok(body) } else { Err(failed(&format!("it answered {status}"))) }
    };
    tokio::time::timeout(SENDING, exchange).await.map_err(|error| failed(&error))?
}

/// Signs a checkpoint now and then and gives it to the witness, until cancelled; then once more.
/// Cancel it after the store has sealed its last recordings.
pub async fn keep_witness(
    kept: Kept,
    store: Store,
    metrics: Arc<Metrics>,
    cancel: CancellationToken,
) {
    let mut teller = Teller { kept, store, metrics, told: 0, away: false };
    let mut pause = EVERY;
    while cancel.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        pause = if teller.tell().await { EVERY } else { RETRY };
    }
    if !matches!(tokio::time::timeout(LAST, teller.tell()).await, Ok(true)) {
        tracing::warn!("the ledger's last checkpoint did not get to the witness");
    }
}

struct Teller {
    kept: Kept,
    store: Store,
    metrics: Arc<Metrics>,
    /// How long the ledger was at the last checkpoint that it has.
    told: u64,
    /// Whether it could not be reached, which was said.
    away: bool,
}

impl Teller {
    /// Whether the witness has the last checkpoint.
    async fn tell(&mut self) -> bool {
        let store = self.store.clone();
        let (head, line) = match spawn_blocking(move || store.signed_checkpoint()).await {
            Ok(Ok(checkpoint)) => checkpoint,
            Ok(Err(error)) => {
                tracing::error!(%error, "cannot sign a checkpoint into the ledger");
                return false;
            }
            // The runtime is going down.
            Err(_) => return true,
        };
        if head.lines == self.told {
            return true;
        }
        let gateway = self.store.gateway().to_owned();
        let Head { lines, hash } = head;
        let done = self.kept.tell(&Testimony { gateway, lines, hash, line }).await;
        self.metrics.witness(done.is_ok());
        match done {
            Ok(()) => {
                self.told = lines;
                self.away = false;
                true
            }
            Err(error) => {
                if !std::mem::replace(&mut self.away, true) {
                    tracing::warn!(%error, "checkpoints wait for the witness");
                }
                false
            }
        }
    }
}
