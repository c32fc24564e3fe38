//! `POST /api/v1/ssh/certificates`: a short-lived certificate for an SSH key, for whoever has a
//! token. The key's own half stays with its owner.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::routing::post;
use axum::{Json, Router};
use russh::keys::PublicKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::api::Api;
use super::caller::Caller;
use super::problem::Problem;
use super::starting;
use crate::access;
use crate::catalog::Catalog;
use crate::database::Timestamp;
use crate::identity::{Authority, Identity};
use crate::names::{Protocol, TargetName};

/// A key is some hundred bytes.
const MAX_REQUEST: usize = 16 * 1024;

struct Certificates {
    api: Arc<Api>,
    authority: Arc<Authority>,
    catalog: Arc<Catalog>,
}

/// The path, for the API's router.
pub fn routes(api: &Arc<Api>, authority: Arc<Authority>, catalog: Arc<Catalog>) -> Router {
    let state = Arc::new(Certificates { api: Arc::clone(api), authority, catalog });
    let routes = Router::new().route("/api/v1/ssh/certificates", post(issue)).with_state(state);
    starting::waiting(routes, &api.starting, starting::problem)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    public_key: String,
}

/// A certificate, and what it is good for.
#[derive(Debug, Serialize, Deserialize)]
pub struct Issued {
    /// The certificate, as the file `…-cert.pub` has it.
    pub certificate: String,
    /// The targets that it names.
    pub targets: Vec<String>,
    /// Until when it is good.
    pub expires: String,
}

async fn issue(
    State(state): State<Arc<Certificates>>,
    request: Request,
) -> Result<Json<Issued>, Problem> {
    let (parts, body) = request.into_parts();
    let caller = Caller::of(&parts, &state.api).await?;
    let Some(identity) = caller.identity() else {
        return Err(Problem::bad("a certificate is for an identity: ask with a token, over TCP"));
    };
    if identity.bound().is_some() {
        return Err(Problem::forbidden("a ticket opens a session; for a certificate use a token"));
    }
    let body = to_bytes(body, MAX_REQUEST).await.map_err(|_| Problem::bad("it is too long"))?;
    let wanted: Wanted = serde_json::from_slice(&body)
        .map_err(|_| Problem::bad("send {\"public_key\": \"ssh-ed25519 AAAA…\"}"))?;
    let key = PublicKey::from_openssh(&wanted.public_key)
        .map_err(|_| Problem::bad("public_key is no key of OpenSSH's"))?;
    let targets = state.reachable(identity);
    let certificate = state
        .authority
        .issue(identity, &key, &targets)
        .map_err(|problem| Problem::bad(problem.to_string()))?;
    let text = certificate.to_openssh().map_err(|_| Problem::internal())?;
    let expires = UNIX_EPOCH + Duration::from_secs(certificate.valid_before());
    let since = expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let expires = Timestamp(i64::try_from(since).unwrap_or(i64::MAX)).to_string();
    let detail = BTreeMap::from([
        ("serial".to_owned(), Value::from(certificate.serial())),
        ("expires".to_owned(), Value::from(expires.clone())),
    ]);
    state.api.shown(&caller, "ssh.certificate", None, detail).await?;
    let targets = targets.iter().map(ToString::to_string).collect();
    Ok(Json(Issued { certificate: text, targets, expires }))
}

impl Certificates {
    /// The SSH targets that access rules give the identity now.
    fn reachable(&self, identity: &Identity) -> Vec<TargetName> {
        let rules = self.catalog.current();
        let granted = |name: &TargetName| {
            access::right(&rules, identity, name)
                .is_ok_and(|(target, _)| target.protocol() == Protocol::Ssh)
        };
        rules.names().filter(|name| granted(name)).cloned().collect()
    }
}
