//! Where sealed recordings go: a bucket, or a folder of another file system.
//!
//! A recording is the object `<prefix>/<gateway>/<day>/<session>.rec`, byte for byte the file that
//! it was. Buckets are reached as `AWS_…` in the environment says.

use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{BackoffConfig, ObjectStore, ObjectStoreExt as _, PutPayload, RetryConfig};
use tokio::task::spawn_blocking;

use super::client::Connector;
use crate::config::Location;
use crate::names::SessionId;
use crate::recording;

/// Bytes of one part of an upload; the smallest that S3 takes are 5 MiB.
pub(super) const PART: u64 = 8 << 20;

/// Why the archive did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The store failed, or cannot be reached.
    #[error("the archive: {0}")]
    Store(#[from] object_store::Error),
    /// A file here cannot be read.
    #[error("the recording cannot be read: {0}")]
    Io(#[from] io::Error),
    /// What the store gives back is not what it was given.
    #[error("the archive has something else than what was sent to it")]
    Different,
}

/// An object store that recordings of gateways, or checkpoints of their ledgers, are in.
#[derive(Debug, Clone)]
pub struct Archive {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// The folder, when it is one.
    folder: Option<std::path::PathBuf>,
}

impl Archive {
    /// Opens it. Nothing is asked of a bucket yet.
    ///
    /// # Errors
    /// When a folder cannot be made, or the environment's settings cannot be used.
    pub fn open(place: &Location) -> Result<Self, ArchiveError> {
        match place {
            Location::Folder(folder) => {
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
                let store = LocalFileSystem::new_with_prefix(folder)?.with_fsync(true);
                let folder = Some(folder.clone());
                Ok(Self { store: Arc::new(store), prefix: Path::default(), folder })
            }
            Location::Bucket { bucket, prefix } => {
                let retry = RetryConfig {
                    backoff: BackoffConfig {
                        init_backoff: Duration::from_millis(100),
                        max_backoff: Duration::from_secs(2),
                        base: 2.0,
                    },
                    max_retries: 3,
                    retry_timeout: Duration::from_secs(30),
                };
                let store = AmazonS3Builder::from_env()
                    .with_bucket_name(bucket)
                    .with_http_connector(Connector)
                    .with_retry(retry)
                    .with_checksum_algorithm(Checksum::SHA256)
                    .build()?;
                let prefix = Path::from(prefix.as_str());
                Ok(Self { store: Arc::new(store), prefix, folder: None })
            }
        }
    }

    /// Where a recording is.
    pub fn key(&self, gateway: &str, session: SessionId) -> Path {
        let day = recording::day_of(&session);
        let prefix = self.prefix.clone();
        prefix.join(gateway).join(day).join(format!("{session}.rec"))
    }

    /// Where the checkpoints of a gateway's ledger are.
    pub(super) fn checkpoints(&self, gateway: &str) -> Path {
        self.prefix.clone().join(gateway)
    }

    /// Refuses what is no regular file in a folder: opening a pipe would wait for its writer for
    /// ever.
    fn is_regular(&self, key: &Path) -> Result<(), ArchiveError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        match folder.join(key.as_ref()).metadata() {
            Ok(of) if !of.is_file() => {
                Err(io::Error::other(format!("{key} is not a regular file")).into())
            }
            _ => Ok(()),
        }
    }

    /// How large an object is; none when there is none.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn length(&self, key: &Path) -> Result<Option<u64>, ArchiveError> {
        self.is_regular(key)?;
        match self.store.head(key).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Some bytes of an object.
    ///
    /// # Errors
    /// When the store cannot give them.
    pub async fn range(&self, key: &Path, from: u64, to: u64) -> Result<Bytes, ArchiveError> {
        self.is_regular(key)?;
        Ok(self.store.get_range(key, from..to).await?)
    }

    /// Puts a small object there.
    pub(super) async fn put(&self, key: &Path, bytes: Vec<u8>) -> Result<(), ArchiveError> {
        self.store.put(key, PutPayload::from(bytes)).await?;
        Ok(())
    }

    /// The names under a path, and one object.
    pub(super) async fn list(&self, under: &Path) -> Result<Vec<Path>, ArchiveError> {
        let objects = self.store.list(Some(under)).map_ok(|meta| meta.location);
        Ok(objects.try_collect().await?)
    }

    /// Takes an object away; it is no error when there is none.
    ///
    /// # Errors
    /// When the store does not take it away.
    pub async fn delete(&self, key: &Path) -> Result<(), ArchiveError> {
        match self.store.delete(key).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it can be asked at all.
    ///
    /// # Errors
    /// Why not.
    pub async fn probe(&self) -> Result<(), ArchiveError> {
        let prefix = Some(&self.prefix).filter(|prefix| prefix.as_ref() != "");
        self.store.list(prefix).next().await.transpose()?;
        Ok(())
    }

    /// Puts a file there and reads it back, unless it is there already; when this returns, the
    /// store has given back every byte of it.
    ///
    /// # Errors
    /// When it has not.
    pub(super) async fn keep(&self, key: &Path, file: File) -> Result<(), ArchiveError> {
        let file = Arc::new(file);
        let (length, hash) = hash_of(&file).await?;
        // What a kill left between two steps.
        if self.length(key).await? == Some(length) && self.is(key, length, hash).await? {
            return Ok(());
        }
        if length <= PART {
            let bytes = part(&file, 0, length).await?;
            self.store.put(key, PutPayload::from(bytes)).await?;
        } else {
            self.upload(key, &file, length).await?;
        }
        if self.is(key, length, hash).await? { Ok(()) } else { Err(ArchiveError::Different) }
    }

    async fn upload(&self, key: &Path, file: &Arc<File>, length: u64) -> Result<(), ArchiveError> {
        let mut upload = self.store.put_multipart(key).await?;
        let sent = async {
            let mut at = 0;
            while at < length {
                let next = (at + PART).min(length);
                let bytes = part(file, at, next - at).await?;
                upload.put_part(PutPayload::from(bytes)).await?;
                at = next;
            }
            upload.complete().await?;
            Ok(())
        };
        let sent = sent.await;
        if sent.is_err() {
            // Its parts would be paid for; a bucket's own rule takes those of a kill.
            let _abandoned = upload.abort().await;
        }
        sent
    }

    /// Whether an object is what has this length and hash.
    async fn is(&self, key: &Path, length: u64, hash: blake3::Hash) -> Result<bool, ArchiveError> {
        self.is_regular(key)?;
        let mut stream = self.store.get(key).await?.into_stream();
        let (mut hasher, mut seen) = (blake3::Hasher::new(), 0);
        while let Some(bytes) = stream.try_next().await? {
            hasher.update(&bytes);
            seen += bytes.len() as u64;
        }
        Ok(seen == length && hasher.finalize() == hash)
    }
}

async fn hash_of(file: &Arc<File>) -> io::Result<(u64, blake3::Hash)> {
    let file = Arc::clone(file);
    let hashed = spawn_blocking(move || {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&*file)?;
        Ok((hasher.count(), hasher.finalize()))
    });
    hashed.await.map_err(io::Error::other)?
}

async fn part(file: &Arc<File>, at: u64, length: u64) -> io::Result<Vec<u8>> {
    let file = Arc::clone(file);
    let read = spawn_blocking(move || {
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    });
    read.await.map_err(io::Error::other)?
}
