//! `[recording] archive` and `witness`: where recordings and checkpoints go.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::reader::{Field, Table};
use super::value;

/// `[recording] archive` and `witness`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// Where sealed recordings are moved to; they stay where they are when there is none.
    pub place: Option<Location>,
    /// Where signed checkpoints of the ledger are kept.
    pub witness: Option<Witness>,
    /// How long a `[[retention]]` that was shortened waits before recordings go by it.
    pub retention_grace: Duration,
}

impl Default for Archive {
    fn default() -> Self {
        let retention_grace = Duration::from_secs(24 * 60 * 60);
        Self { place: None, witness: None, retention_grace }
    }
}

/// Somewhere to keep files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// `file://`: a folder.
    Folder(PathBuf),
    /// `s3://`: a bucket, and what keys begin with.
    Bucket {
        /// Its name.
        bucket: String,
        /// Without slashes at its ends; may be empty.
        prefix: String,
    },
}

/// Who keeps checkpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Witness {
    /// Somebody who is sent each.
    Webhook(String),
    /// A store of objects.
    Place(Location),
}

/// Its keys of `[recording]`.
pub(super) fn archive(table: &Table<'_>, data_dir: &Path) -> Archive {
    let elsewhere = |place: &Location| *place != Location::Folder(data_dir.into());
    let mut archive = Archive {
        place: table.read("archive", place).filter(elsewhere),
        witness: table.read("witness", witness),
        ..Archive::default()
    };
    table.set(&mut archive.retention_grace, "retention_grace", value::duration);
    archive
}

/// `file:///path` or `s3://bucket/prefix`.
fn place(field: Field<'_>) -> Option<Location> {
    place_of(field.text()?).or_else(|| {
        let hint = r#"for example "s3://recordings/prod" or "file:///mnt/recordings""#;
        field.wrong_with("is no place for recordings", hint)
    })
}

fn place_of(text: &str) -> Option<Location> {
    if let Some(path) = text.strip_prefix("file://").filter(|path| path.starts_with('/')) {
        return Some(Location::Folder(path.into()));
    }
    let rest = text.strip_prefix("s3://")?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_end_matches('/');
    let plain = |part: &str| {
        let of_keys = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        !part.is_empty() && part != "." && part != ".." && part.chars().all(of_keys)
    };
    let good = plain(bucket) && (prefix.is_empty() || prefix.split('/').all(plain));
    good.then(|| Location::Bucket { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

/// A webhook's address, or a place.
fn witness(field: Field<'_>) -> Option<Witness> {
    let text = field.text()?;
    if text.starts_with("http://") && witness_of(text).is_none() {
        return field.wrong_with("is not private", "use https://");
    }
    match witness_of(text) {
        Some(Witness::Webhook(url)) => Some(Witness::Webhook(url)),
        _ => place(field).map(Witness::Place),
    }
}

/// The witness that a text names: `https://…`, `http://` on this machine, `s3://…`, `file:///…`.
pub fn witness_of(text: &str) -> Option<Witness> {
    let local = ["http://127.0.0.1:", "http://[::1]:", "http://localhost:"];
    if text.starts_with("https://") || local.iter().any(|start| text.starts_with(start)) {
        return text.parse::<hyper::Uri>().ok().map(|_| Witness::Webhook(text.to_owned()));
    }
    place_of(text).map(Witness::Place)
}
