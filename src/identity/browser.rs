//! Logins in a browser: a cookie's secret that stands for an identity which a token proved.
//!
//! The secret is random, new with each login, and says nothing; only its hash is stored, so a copy
//! of the database logs nobody in. A login ends with the token that proved it, or when that is
//! withdrawn, or by logging out; it is never prolonged.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::random::random_secret;
use super::{Identity, Verifier, likeness};
use crate::database::{Database, DatabaseError, Login, Timestamp};
use crate::secret::Secret;

/// For what the hash is.
const STORED: &str = "portcullis login v1";
/// For what the token in forms is derived.
const FORMS: &str = "portcullis login forms v1";
/// Longer than any cookie of ours.
const MAX_COOKIE: usize = 128;

/// Opens logins and proves them.
#[derive(Debug, Clone)]
pub struct Browsers {
    database: Database,
}

/// Why nobody was logged in.
#[derive(Debug, thiserror::Error)]
pub enum NotOpened {
    /// There is no randomness to be had.
    #[error("no random numbers")]
    NoRandomness,
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl Browsers {
    /// Those of one database.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Opens a login for an identity. The secret is given once, here.
    ///
    /// # Errors
    /// When there is none; nothing is kept then.
    pub async fn open(&self, identity: &Identity) -> Result<Secret, NotOpened> {
        let secret = random_secret().ok_or(NotOpened::NoRandomness)?;
        let login = Login {
            hash: derived(STORED, &secret),
            issuer: identity.issuer().to_owned(),
            subject: identity.subject().to_owned(),
            username: identity.username().to_owned(),
            groups: identity.groups().to_vec(),
            claims: identity.claims().clone(),
            workflow: identity.workflow().map(str::to_owned),
            run: identity.run().map(str::to_owned),
            credential: identity.token_id().to_owned(),
            expires_at: Timestamp::from(identity.expires()),
        };
        self.database.add_login(&login).await?;
        Ok(secret)
    }

    /// Who is logged in with this secret; none when nobody is any more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn identify(
        &self,
        secret: &Secret,
        verifier: &Verifier,
    ) -> Result<Option<Arc<Identity>>, DatabaseError> {
        if secret.expose().len() > MAX_COOKIE {
            return Ok(None);
        }
        let Some(login) = self.database.login(&derived(STORED, secret)).await? else {
            return Ok(None);
        };
        // The issuer may have left the configuration, the token may be withdrawn since.
        if !verifier.trusts(&login.issuer) {
            return Ok(None);
        }
        Ok(verifier.unless_withdrawn(Arc::new(proved(login))).await.ok())
    }

    /// Ends a login.
    ///
    /// # Errors
    /// When the database fails; then it goes on.
    pub async fn close(&self, secret: &Secret) -> Result<(), DatabaseError> {
        self.database.remove_login(&derived(STORED, secret)).await
    }
}

/// What a form of this login's pages carries to show that it is one: another site's page cannot
/// know it.
pub fn form_token(secret: &Secret) -> String {
    derived(FORMS, secret)
}

/// Whether a form carries it, in a time that does not depend on where it differs.
pub fn is_form_token(secret: &Secret, given: &str) -> bool {
    verify_slices_are_equal(form_token(secret).as_bytes(), given.as_bytes()).is_ok()
}

/// 64 hexadecimal digits that do not tell the secret.
fn derived(context: &str, secret: &Secret) -> String {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(secret.expose().as_bytes()).finalize().to_hex().to_string()
}

fn proved(login: Login) -> Identity {
    Identity {
        likeness: likeness(&login.claims, &login.username, &login.groups),
        issuer: Arc::from(login.issuer),
        subject: login.subject,
        username: login.username,
        groups: login.groups,
        claims: login.claims,
        workflow: login.workflow,
        run: login.run,
        expires: login.expires_at.to_system_time(),
        token_id: login.credential,
        bound: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forms_token_is_of_one_login_and_is_not_what_is_stored() {
        let (one, other) = (Secret::new("a".to_owned()), Secret::new("b".to_owned()));
        assert!(is_form_token(&one, &form_token(&one)));
        assert!(!is_form_token(&one, &form_token(&other)));
        assert!(!is_form_token(&one, ""));
        assert_ne!(form_token(&one), derived(STORED, &one));
    }
}
