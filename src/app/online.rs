//! What a configuration names and this machine cannot get at: `portcullis check --online`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tokio::time::timeout;

use crate::archive::{Archive, Kept};
use crate::config::{self, Config, Target, TargetKind};
use crate::database::{Cutoff, Database, DatabaseError, PrivateServer, SchemaError, Timestamp};
use crate::files;
use crate::identity::Verifier;
use crate::mask::{ColumnPattern, HashKey, RowFilter, Viewer};
use crate::names::TargetName;
use crate::policy::Pattern;
use crate::protocol::postgres::hardening::{self, Mode};
use crate::protocol::{http, postgres, ssh};
use crate::recording::{LedgerFollower, LedgerNews};

/// How long the database may take to count.
const DATABASE_TIME: Duration = Duration::from_secs(10);

/// What the roles of Postgres targets could do past rules and masks. Targets that cannot be asked
/// are left out: [`problems`] tells of them.
pub async fn warnings(config: &Config) -> Vec<String> {
    let asked = config.targets.values().map(|target| async move {
        let TargetKind::Postgres(postgres) = &target.kind else { return Vec::new() };
        let powers = hardening::powers(postgres, &postgres.database).await.unwrap_or_default();
        powers.into_iter().map(|power| format!("target {}: {power}", target.name)).collect()
    });
    let mut warnings: Vec<String> = join_all(asked).await.into_iter().flatten().collect();
    warnings.extend(named_nothing(config).await);
    warnings.extend(unnamed_views(config).await);
    warnings.extend(due_recordings(config).await);
    warnings
}

/// Where the columns that masks name are masked, target by target; of targets that cannot be asked
/// nothing is said.
pub async fn notes(config: &Config) -> Vec<String> {
    let asked = config.targets.values().map(|target| async move {
        let TargetKind::Postgres(postgres) = &target.kind else { return Vec::new() };
        let masks = config.masks.for_session(target.name.as_str(), &[], &HashKey::new([0; 32]));
        let modes = hardening::modes(postgres, &masks).await.unwrap_or_default();
        modes.into_iter().map(|mode| mode_in_words(&target.name, &mode)).collect()
    });
    join_all(asked).await.into_iter().flatten().collect()
}

fn mode_in_words(target: &TargetName, mode: &Mode) -> String {
    let place = match mode.because {
        None => "at the source".to_owned(),
        Some(because) => format!("at the output only ({because})"),
    };
    let role = if mode.role { ", and the target's role may not read them" } else { "" };
    format!("mask {} on {target}: its columns are masked {place}{role}", mode.mask)
}

/// Row filters that do not name the views of `policy harden`, which have their tables' names. Targets that
/// cannot be asked are left out.
async fn unnamed_views(config: &Config) -> Vec<String> {
    let asked = config.targets.values().map(|target| async move {
        let TargetKind::Postgres(postgres) = &target.kind else { return Vec::new() };
        let (name, nobody) = (target.name.as_str(), serde_json::Map::new());
        let viewer = Viewer { username: "", groups: &[], claims: &nobody };
        let plan = config.masks.for_session(name, &[], &HashKey::new([0; 32]));
        let plan = plan.with_rows(config.masks.rows_of(name, &viewer));
        let views = hardening::unnamed_views(postgres, &plan).await.unwrap_or_default();
        let said = |(filter, said)| format!("row filter {filter} on {}: {said}", target.name);
        views.into_iter().map(said).collect()
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// Masks and rules that name tables, columns or functions that no target of theirs has. Of one of
/// whose targets some cannot be asked nothing is said.
async fn named_nothing(config: &Config) -> Vec<String> {
    let asked = config.targets.values().map(|target| async move {
        let TargetKind::Postgres(postgres) = &target.kind else { return Vec::new() };
        let facts = target.facts();
        let masks = config.masks.of(target.name.as_str(), &[]);
        let of_masks = masks.iter().flat_map(|applied| {
            let name = &applied.mask.name;
            let columns = applied.mask.columns.iter().map(ColumnPattern::as_object);
            columns.map(move |column| (format!("mask {name}"), column))
        });
        let of_rules = config.policy.objects(&facts);
        let of_rules = of_rules.map(|(rule, object)| (format!("rule {rule}"), object));
        let filters = config.masks.rows().iter().map(|filter| &**filter);
        let of_filters =
            filters.filter(|filter: &&RowFilter| filter.names_target(target.name.as_str()));
        let of_filters: Vec<&RowFilter> = of_filters.collect();
        let columns: Vec<(String, Pattern)> = of_filters.iter().flat_map(columns_of).collect();
        let columns = columns.iter().map(|(by, column)| (by.clone(), column, REFUSED));
        let of_filters = of_filters
            .iter()
            .map(|filter| (format!("row filter {}", filter.name), &filter.named, NO_EFFECT));
        let without_effect = |(by, object)| (by, object, NO_EFFECT);
        let named: Vec<(String, &Pattern, &str)> = (of_masks.map(without_effect))
            .chain(of_filters)
            .chain(columns)
            .chain(of_rules.map(without_effect))
            .collect();
        let patterns: Vec<&Pattern> = named.iter().map(|(_, pattern, _)| *pattern).collect();
        // Of what cannot be asked nothing is known to be missing.
        let known = hardening::have(postgres, &patterns).await;
        let there = known.unwrap_or_else(|_| vec![true; patterns.len()]);
        let told = named.into_iter().zip(there).map(|((by, pattern, then), there)| {
            let what = (by, pattern.as_str().to_owned(), then);
            (what, target.name.to_string(), there)
        });
        told.collect()
    });
    let mut found: BTreeMap<(String, String, &str), (Vec<String>, bool)> = BTreeMap::new();
    for (what, target, there) in join_all(asked).await.into_iter().flatten() {
        let (targets, somewhere) = found.entry(what).or_default();
        targets.push(target);
        *somewhere |= there;
    }
    found.retain(|_, (_, somewhere)| !*somewhere);
    // A table that is not there has no columns either.
    let no_table: Vec<String> =
        found.keys().filter(|(.., then)| *then == NO_EFFECT).map(|(by, ..)| by.clone()).collect();
    found.retain(|(by, _, then), _| *then == NO_EFFECT || !no_table.contains(by));
    found
        .into_iter()
        .map(|((by, object, then), (targets, _))| {
            format!("{by}: there is no {object} on {}; {then}", targets.join(", "))
        })
        .collect()
}

/// What comes of a rule, a mask or a row filter that names nothing.
const NO_EFFECT: &str = "it has no effect there";
/// What comes of a row filter that names a column that is not there.
const REFUSED: &str = "every statement on the table is refused";

/// The columns that the condition of a row filter names.
fn columns_of(filter: &&RowFilter) -> Vec<(String, Pattern)> {
    let by = format!("row filter {}", filter.name);
    let pattern = |column: &&str| {
        let column = column.replace('"', "\"\"");
        format!("column:{}.\"{column}\"", filter.table).parse().ok()
    };
    let columns = filter.condition.columns();
    columns.iter().filter_map(pattern).map(|pattern| (by.clone(), pattern)).collect()
}

/// How many recordings of this `data_dir` are over by `[[retention]]` as it is written. Without a
/// database that can be asked, or before the first start, nothing is known of that.
async fn due_recordings(config: &Config) -> Option<String> {
    if config.retention.is_empty() {
        return None;
    }
    let first =
        LedgerFollower::open(&config.server.data_dir, 0).and_then(|mut ledger| ledger.next_line());
    let Ok(Some(LedgerNews::Gateway(gateway))) = first else { return None };
    let database = match &config.database.url {
        Some(url) => Database::from_url(url).ok()?,
        None => Database::new(PrivateServer::check(&config.server.data_dir).await.ok()?),
    };
    let counted = async {
        let classes = database.retention_classes().await?;
        let now = SystemTime::now();
        let cutoffs = classes.iter().filter_map(|class| {
            let keep =
                config::keep(&config.retention, &config.targets, &class.target, &class.groups)?;
            Some(Cutoff { class: class.id, before: Timestamp::from(now.checked_sub(keep)?) })
        });
        database.count_due(&gateway, &cutoffs.collect::<Vec<_>>()).await
    };
    let counted = timeout(DATABASE_TIME, counted).await;
    database.close().await;
    match counted {
        Ok(Ok((due @ 1.., _))) => Some(format!(
            "{due} recordings are over by [[retention]] as it is written, and are deleted by a \
             gateway that runs with it: at once, or {:?} after it was shortened",
            config.archive.retention_grace
        )),
        _ => None,
    }
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
        let error = files::open(path).err()?;
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
