//! Who calls: identities, and the proofs that make them.
//!
//! An [`Identity`] has private fields and is made by this module alone, out of a token that
//! verified.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use crate::config;
use crate::secret::Secret;

/// A proved caller. The key is issuer and subject; everything else may change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Identity {
    issuer: Arc<str>,
    subject: String,
    username: String,
    groups: Vec<String>,
    claims: serde_json::Map<String, serde_json::Value>,
    workflow: Option<String>,
    run: Option<String>,
    #[serde(skip)]
    expires: SystemTime,
    /// What revocation lists key on: the token's `jti`, or a hash of its signed claims.
    token_id: String,
}

impl Identity {
    /// The issuer's URL, exactly as configured.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The token's `sub`.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The name shown to people; never a key.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The groups as the token states them, compared byte for byte.
    pub fn groups(&self) -> &[String] {
        &self.groups
    }

    /// All claims of the token.
    pub fn claims(&self) -> &serde_json::Map<String, serde_json::Value> {
        &self.claims
    }

    /// The workflow that a claim names.
    pub fn workflow(&self) -> Option<&str> {
        self.workflow.as_deref()
    }

    /// The run that a claim names.
    pub fn run(&self) -> Option<&str> {
        self.run.as_deref()
    }

    /// When the proof ends.
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// What revocation and replay lists key on: `jti`, else a hash of the signed claims.
    pub fn token_id(&self) -> &str {
        &self.token_id
    }
}

/// Why a token was not accepted, for the log and the recording; the client is told nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// Verifies tokens against the configured issuers' current keys.
#[derive(Debug)]
pub struct Verifier {}

impl Verifier {
    /// Fetches every issuer's discovery document and keys. Fails when a document is wrong (another
    /// issuer, keys elsewhere or without TLS); an issuer that is only out of reach is retried in
    /// the background and its tokens are refused until it answers.
    pub async fn start(_issuers: &[config::Issuer]) -> Result<Arc<Self>, DiscoveryError> {
        todo!()
    }

    /// Proves who holds this token, or says (for the log alone) why not. Cancel safe.
    pub async fn verify(&self, _token: &Secret) -> Result<Identity, Refused> {
        todo!()
    }

    /// Keeps the keys fresh until cancelled.
    pub async fn run(self: Arc<Self>, _cancel: tokio_util::sync::CancellationToken) {
        todo!()
    }
}

/// An issuer's discovery document or keys cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("issuer {issuer}: {problem}")]
pub struct DiscoveryError {
    /// The issuer's name in the configuration.
    pub issuer: String,
    /// What is wrong, and what to do.
    pub problem: String,
}
