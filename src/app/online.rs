//! What a configuration names and this machine cannot get at: `portcullis check --online`.

use std::fs::File;

use futures_util::future::join_all;

use crate::archive::{Archive, Kept};
use crate::config::{Config, Target, TargetKind};
use crate::database::{Database, DatabaseError, SchemaError};
use crate::identity::Verifier;
use crate::protocol::postgres::hardening;
use crate::protocol::{http, postgres, ssh};

/// What the roles of Postgres targets could do past rules and masks. Targets that cannot be asked
/// are left out: [`problems`] tells of them.
pub async fn warnings(config: &Config) -> Vec<String> {
    let asked = config.targets.values().map(|target| async move {
        let TargetKind::Postgres(postgres) = &target.kind else { return Vec::new() };
        let powers = hardening::powers(postgres, &postgres.database).await.unwrap_or_default();
        powers.into_iter().map(|power| format!("target {}: {power}", target.name)).collect()
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// Tries files, secrets, issuers, targets and the database, and tells what of them cannot be used
/// now. Nothing is changed anywhere; each target gets a connection with its credential.
pub async fn problems(config: &Config) -> Vec<String> {
    let mut problems = unreadable_files(config);
    for issuer in &config.issuers {
        if let Some(secret) = &issuer.client_secret
            && let Err(error) = secret.read().await
        {
            problems.push(format!("issuer {}: {error}", issuer.name));
        }
    }
    if let Some(identity) = &config.recording.identity
        && let Err(error) = identity.identities().await
    {
        problems.push(format!("[recording] identity: {error}"));
    }
    for notify in &config.notify {
        for secret in std::iter::once(&notify.url).chain(&notify.secret) {
            if let Err(error) = secret.read().await {
                problems.push(format!("notify {}: {error}", notify.name));
            }
        }
    }
    problems.extend(Verifier::probe(&config.issuers).await.iter().map(ToString::to_string));
    let targets = join_all(config.targets.values().map(|target| probe(target))).await;
    problems.extend(targets.into_iter().flatten());
    problems.extend(unusable_database(config).await);
    problems.extend(unusable_archive(config).await);
    problems.extend(unusable_witness(config).await);
    problems
}

async fn unusable_witness(config: &Config) -> Option<String> {
    let probed = match Kept::open(config.archive.witness.as_ref()?) {
        Ok(kept) => kept.probe().await,
        Err(error) => Err(error),
    };
    probed.err().map(|error| format!("[recording] witness: {error}"))
}

/// Of a bucket one name is asked for; a folder is made when it is not there.
async fn unusable_archive(config: &Config) -> Option<String> {
    let place = config.archive.place.as_ref()?;
    let probed = match Archive::open(place) {
        Ok(archive) => archive.probe().await,
        Err(error) => Err(error),
    };
    probed.err().map(|error| format!("[recording] archive: {error}"))
}

fn unreadable_files(config: &Config) -> Vec<String> {
    let authorities = config.issuers.iter().filter_map(|issuer| issuer.ca.as_ref());
    let files = config.tls.iter().flat_map(|tls| [&tls.certificate, &tls.private_key]);
    let unreadable = files.chain(authorities).filter_map(|path| {
        let error = File::open(path).err()?;
        Some(format!("{} cannot be read: {error}", path.display()))
    });
    unreadable.collect()
}

async fn probe(target: &Target) -> Vec<String> {
    let problems = match &target.kind {
        TargetKind::Postgres(postgres) => postgres::probe(postgres).await,
        TargetKind::Http(http) => http::probe(&target.name, http).await,
        TargetKind::Ssh(host) => ssh::probe(host).await,
    };
    problems.into_iter().map(|problem| format!("target {}: {problem}", target.name)).collect()
}

/// Of the private server nothing is asked: the gateway makes it when it starts, as it makes the
/// tables of an empty database.
async fn unusable_database(config: &Config) -> Option<String> {
    let opened = Database::from_url(config.database.url.as_deref()?);
    let usable = match opened {
        Ok(database) => {
            let usable = database.check_version().await;
            database.close().await;
            usable
        }
        Err(error) => Err(error),
    };
    match usable {
        Ok(()) | Err(DatabaseError::Schema(SchemaError::Empty)) => None,
        Err(error) => Some(format!("[database] {error}")),
    }
}
