//! Short-lived OpenSSH user certificates: a proof of identity that stands in for a token, for
//! clients that cannot send one as a password.
//!
//! The gateway signs with a key of its own and takes certificates of that key alone, so a
//! certificate carries the identity as the token proved it, in an extension; it ends when the
//! token does, or before. What a certificate may open is what access rules give the identity when
//! it is used; its principals (names of targets) only narrow that. No critical option is
//! understood, so one that has any is refused (OpenSSH, PROTOCOL.certkeys).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use russh::keys::ssh_key::certificate::{Builder, CertType, Certificate};
use russh::keys::ssh_key::{Fingerprint, HashAlg};
use russh::keys::{Algorithm, PrivateKey, PublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Identity, Refused, Verifier, likeness};
use crate::names::TargetName;

/// The extension that the identity stands in. Source of the form: PROTOCOL.certkeys, names of
/// extensions of one's own are `name@domain`.
const IDENTITY: &str = "identity@portcullis";
/// The longest that a certificate is good for, however long its token is.
const MAX_LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);
/// Clocks of clients that are behind by this much still find the certificate good.
const BACKDATED: Duration = Duration::from_secs(60);
/// What OpenSSH takes of principals in one certificate.
const MAX_PRINCIPALS: usize = 256;
/// An identity with more claims than this does not fit where clients send a key.
const MAX_IDENTITY: usize = 16 * 1024;
const RANDOM: usize = 16;

/// The gateway's own authority for user certificates.
#[derive(Debug)]
pub struct Authority {
    key: PrivateKey,
    fingerprint: Fingerprint,
}

/// Why there is no certificate, for whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotIssued {
    /// The key is of a kind that is not signed.
    #[error("the key must be Ed25519, ECDSA or RSA")]
    Key,
    /// There is nothing to open with it.
    #[error("no SSH target can be reached by this identity")]
    Nothing,
    /// The identity does not fit.
    #[error("the token's claims do not fit into a certificate")]
    TooLarge,
    /// It was not signed.
    #[error("the certificate could not be signed")]
    NotSigned,
}

/// An identity as it stands in a certificate.
#[derive(Serialize, Deserialize)]
struct Carried {
    issuer: String,
    subject: String,
    username: String,
    groups: Vec<String>,
    claims: Map<String, Value>,
    workflow: Option<String>,
    run: Option<String>,
    /// Seconds since 1970.
    expires: u64,
    token_id: String,
}

impl Authority {
    /// The authority of a key.
    pub fn new(key: PrivateKey) -> Self {
        let fingerprint = key.public_key().fingerprint(HashAlg::Sha256);
        Self { key, fingerprint }
    }

    /// The public half of the key.
    pub fn public_key(&self) -> &PublicKey {
        self.key.public_key()
    }

    /// Signs a certificate that lets who holds `key` in as `identity`, to these targets.
    ///
    /// # Errors
    /// When the certificate could not be used.
    pub fn issue(
        &self,
        identity: &Identity,
        key: &PublicKey,
        targets: &[TargetName],
    ) -> Result<Certificate, NotIssued> {
        if !matches!(
            key.algorithm(),
            Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { .. }
        ) {
            return Err(NotIssued::Key);
        }
        if targets.is_empty() {
            return Err(NotIssued::Nothing);
        }
        let carried = serde_json::to_vec(&Carried::of(identity)).unwrap_or_default();
        if carried.is_empty() || carried.len() > MAX_IDENTITY {
            return Err(NotIssued::TooLarge);
        }
        let carried = String::from_utf8(carried).map_err(|_| NotIssued::TooLarge)?;
        let now = SystemTime::now();
        let until = identity.expires().min(now + MAX_LIFETIME);
        self.signed(key, carried, targets, identity, (now - BACKDATED, until))
            .map_err(|_| NotIssued::NotSigned)
    }

    fn signed(
        &self,
        key: &PublicKey,
        carried: String,
        targets: &[TargetName],
        identity: &Identity,
        (from, until): (SystemTime, SystemTime),
    ) -> Result<Certificate, russh::keys::ssh_key::Error> {
        let mut nonce = vec![0; RANDOM];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| russh::keys::ssh_key::Error::Crypto)?;
        let serial = nonce.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let key = key.key_data().clone();
        let mut builder = Builder::new(nonce, key, seconds(from), seconds(until))?;
        builder.serial(serial)?;
        builder.cert_type(CertType::User)?;
        builder.key_id(identity.username())?;
        for target in targets.iter().take(MAX_PRINCIPALS) {
            builder.valid_principal(target.as_str())?;
        }
        builder.extension(IDENTITY, carried)?;
        builder.extension("permit-pty", "")?;
        builder.sign(&self.key)
    }

    /// The identity that a certificate proves, for a login that names `target`. That the client
    /// holds the certificate's key is proved by whoever calls this.
    ///
    /// # Errors
    /// Why not, for the log alone.
    pub async fn verify(
        &self,
        certificate: &Certificate,
        target: &str,
        verifier: &Verifier,
    ) -> Result<Arc<Identity>, Refused> {
        let refuse = |why: &str| Err(Refused(format!("the certificate {why}")));
        if certificate.cert_type() != CertType::User {
            return refuse("is not a user's");
        }
        if certificate.critical_options().iter().next().is_some() {
            return refuse("has critical options, of which none is understood");
        }
        let now = seconds(SystemTime::now());
        if certificate.validate_at(now, [&self.fingerprint]).is_err() {
            return refuse("is not of this gateway's authority, not valid yet or no longer");
        }
        let principals = certificate.valid_principals();
        if !principals.iter().any(|principal| principal == target) {
            return refuse("does not name the target");
        }
        let carried = certificate.extensions().get(IDENTITY);
        let Some(carried) = carried.and_then(|json| serde_json::from_str::<Carried>(json).ok())
        else {
            return refuse("carries no identity");
        };
        let Some(issuer) = verifier.issuer(&carried.issuer) else {
            return refuse("is of an issuer that is not configured");
        };
        // It stands in for its token, and goes with it.
        let identity = carried.into_identity(issuer, certificate.valid_before());
        verifier.unless_withdrawn(Arc::new(identity)).await
    }
}

impl Carried {
    fn of(identity: &Identity) -> Self {
        Self {
            issuer: identity.issuer.to_string(),
            subject: identity.subject.clone(),
            username: identity.username.clone(),
            groups: identity.groups.clone(),
            claims: identity.claims.clone(),
            workflow: identity.workflow.clone(),
            run: identity.run.clone(),
            expires: seconds(identity.expires),
            token_id: identity.token_id.clone(),
        }
    }

    fn into_identity(self, issuer: Arc<str>, valid_before: u64) -> Identity {
        Identity {
            likeness: likeness(&self.claims, &self.username, &self.groups),
            issuer,
            subject: self.subject,
            username: self.username,
            groups: self.groups,
            claims: self.claims,
            workflow: self.workflow,
            run: self.run,
            expires: UNIX_EPOCH + Duration::from_secs(self.expires.min(valid_before)),
            token_id: self.token_id,
            bound: None,
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
