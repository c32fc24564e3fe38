//! People who may nothing: revoked and let in again by admins.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{Query, State};
use axum::http::Uri;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::api::{Answer, Api};
use super::caller::{Admin, Reader};
use super::problem::Problem;
use super::query::Body;
use crate::database::{Page, RevokedUser, Timestamp};

/// How long a user is revoked when nothing else is said: until somebody lets them in again.
const FOR_GOOD: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// The longest subject, in bytes, as in tokens.
const MAX_SUBJECT: usize = 255;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/api/v1/revoked-users", get(list).post(revoke).delete(restore))
}

/// Who.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    /// The name of a configured issuer, or its URL.
    issuer: String,
    subject: String,
}

/// Who, and for how long.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    issuer: String,
    subject: String,
    /// Until somebody lets them in again when left out.
    duration_seconds: Option<u64>,
}

/// A user who was let in again.
#[derive(Debug, Serialize)]
struct Restored {
    issuer: String,
    subject: String,
}

async fn list(State(api): State<Arc<Api>>, Reader(caller): Reader) -> Answer<Page<RevokedUser>> {
    let items = api.database.revoked_users().await?;
    api.shown(&caller, "user.list", None, BTreeMap::new()).await?;
    Ok(Json(Page { items, next: None }))
}

async fn revoke(
    State(api): State<Arc<Api>>,
    Admin(caller): Admin,
    Body(wanted): Body<Wanted>,
) -> Answer<RevokedUser> {
    let (issuer, object) = whom(&api, &wanted.issuer, &wanted.subject)?;
    let lasts = wanted.duration_seconds.map_or(FOR_GOOD, Duration::from_secs);
    if lasts.is_zero() || lasts > FOR_GOOD {
        let most = FOR_GOOD.as_secs();
        return Err(Problem::bad(format!("duration_seconds: 1 to {most}")));
    }
    let now = SystemTime::now();
    let until = Timestamp::from(now + lasts).storable();
    let detail = BTreeMap::from([("until".to_owned(), Value::from(until.to_string()))]);
    let entry = api.entry(&caller, "user.revoke", object, detail);
    api.database.revoke_user(&issuer, &wanted.subject, until, &entry).await?;
    let by = entry.username;
    api.catalog.desk().wake();
    let revoked_at = Timestamp::from(now).storable();
    let subject = wanted.subject;
    Ok(Json(RevokedUser { issuer, subject, revoked_at, revoked_by: by, until }))
}

async fn restore(State(api): State<Arc<Api>>, Admin(caller): Admin, uri: Uri) -> Answer<Restored> {
    let named: Query<Named> =
        Query::try_from_uri(&uri).map_err(|error| Problem::bad(error.body_text()))?;
    let (issuer, object) = whom(&api, &named.issuer, &named.subject)?;
    let entry = api.entry(&caller, "user.restore", object.clone(), BTreeMap::new());
    if !api.database.restore_user(&issuer, &named.subject, &entry).await? {
        api.tried(&caller, "user.restore", object, "they are not revoked").await;
        return Err(Problem::not_found());
    }
    api.catalog.desk().wake();
    let Query(Named { subject, .. }) = named;
    Ok(Json(Restored { issuer, subject }))
}

/// The issuer's URL, and what the audit log calls the user.
fn whom(api: &Api, issuer: &str, subject: &str) -> Result<(String, String), Problem> {
    let Some(url) = api.verifier().issuer_url(issuer) else {
        return Err(Problem::bad("issuer: the name or the URL of a configured issuer"));
    };
    let bad = subject.is_empty() || subject.len() > MAX_SUBJECT || subject.contains('\0');
    if bad {
        return Err(Problem::bad(format!("subject: 1 to {MAX_SUBJECT} bytes")));
    }
    Ok((url.to_owned(), format!("{url} {subject}")))
}
