//! Tickets: temporary permits that the gateway makes itself. A ticket is short where tokens are
//! long, is for one identity (groups and claims as they were) and one target, and ends at a stated
//! time, or when it is revoked, or with the one session that it may open.
//!
//! Its text is random and says nothing; only its hash is stored, so a copy of the database opens
//! nothing. While the database cannot be asked no ticket counts.

use std::sync::Arc;
use std::time::Duration;

use super::random::random_secret;
use super::{Identity, Refused, Verifier, likeness};
use crate::database::{
    Database, DatabaseError, NewTicket, StoredTicket, Ticket, TicketLimits, TicketMade,
};
use crate::names::{TargetName, TicketId};
use crate::secret::Secret;

/// What every ticket begins with, so that people and scanners for secrets know one.
const PREFIX: &str = "pct_";
/// How long the database is asked; who presents a ticket waits.
const ASK_TIME: Duration = Duration::from_secs(5);
/// For what the hash is.
const CONTEXT: &str = "portcullis ticket v1";

/// What a ticket says of the identity that it proves, beside who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The ticket.
    pub id: TicketId,
    /// The one target that it is for.
    pub target: TargetName,
    /// Whether it opens one session and never another.
    pub single_use: bool,
    /// The credential that it was made with: when that is withdrawn, so is this.
    pub made_with: String,
}

/// Makes tickets and proves them.
#[derive(Debug, Clone)]
pub struct Tickets {
    database: Database,
}

/// Why no ticket was made.
#[derive(Debug, thiserror::Error)]
pub enum NoTicket {
    /// A ticket makes no ticket.
    #[error("a ticket is made with a token, not with another ticket")]
    WithTicket,
    /// The owner has too many.
    #[error("you have too many tickets, {0} at a time ([tickets] max_live); revoke some")]
    TooMany(usize),
    /// The owner made too many.
    #[error("you made too many tickets, {0} in an hour ([tickets] max_per_hour); ask again later")]
    TooFast(usize),
    /// There is no randomness to be had.
    #[error("no random numbers")]
    NoRandomness,
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl Tickets {
    /// Those of one database.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Makes a ticket for an identity, which presented a token, on a target. The text is given
    /// once, here.
    ///
    /// # Errors
    /// When there is none; nothing is kept then.
    pub async fn make(
        &self,
        identity: &Identity,
        target: &TargetName,
        lifetime: Duration,
        single_use: bool,
        limits: TicketLimits,
    ) -> Result<(Ticket, Secret), NoTicket> {
        if identity.bound().is_some() {
            return Err(NoTicket::WithTicket);
        }
        let random = random_secret().ok_or(NoTicket::NoRandomness)?;
        let secret = Secret::new(format!("{PREFIX}{}", random.expose()));
        let new = NewTicket {
            id: TicketId::generate(),
            hash: hash(&secret),
            issuer: identity.issuer().to_owned(),
            subject: identity.subject().to_owned(),
            username: identity.username().to_owned(),
            groups: identity.groups().to_vec(),
            claims: identity.claims().clone(),
            workflow: identity.workflow().map(str::to_owned),
            run: identity.run().map(str::to_owned),
            made_with: identity.token_id().to_owned(),
            target: target.to_string(),
            single_use,
        };
        match self.database.add_ticket(&new, lifetime.as_secs().max(1), limits).await? {
            TicketMade::Made(ticket) => Ok((*ticket, secret)),
            TicketMade::TooMany => Err(NoTicket::TooMany(limits.live)),
            TicketMade::TooFast => Err(NoTicket::TooFast(limits.per_hour)),
        }
    }

    /// Proves who holds a ticket, as long as its issuer is still one of ours. Cancel safe.
    pub(super) async fn identify(
        &self,
        secret: &Secret,
        verifier: &Verifier,
    ) -> Result<Identity, Refused> {
        let hash = hash(secret);
        let asked = tokio::time::timeout(ASK_TIME, self.database.ticket_by_hash(&hash));
        let found = match asked.await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(Refused(format!("a ticket, while {error}"))),
            Err(_) => return Err(Refused("a ticket, while the database is too slow".to_owned())),
        };
        let Some(stored) = found else { return Err(Refused("no such ticket".to_owned())) };
        let id = stored.ticket.id;
        if !stored.live {
            return Err(Refused(format!("ticket {id} is expired or revoked")));
        }
        if !verifier.trusts(&stored.ticket.issuer) {
            return Err(Refused(format!("ticket {id} is of an issuer that is not configured")));
        }
        proved(stored, hash).ok_or_else(|| Refused(format!("ticket {id} is damaged")))
    }
}

/// Whether a text looks like a ticket.
pub(super) fn is_ticket(text: &Secret) -> bool {
    text.expose().starts_with(PREFIX)
}

/// The hash that a ticket is known by: 64 hexadecimal digits.
fn hash(secret: &Secret) -> String {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(secret.expose().as_bytes()).finalize().to_hex().to_string()
}

fn proved(stored: StoredTicket, hash: String) -> Option<Identity> {
    let StoredTicket { ticket, claims, made_with, .. } = stored;
    let bound = Bound {
        id: ticket.id,
        target: ticket.target.parse().ok()?,
        single_use: ticket.single_use,
        made_with,
    };
    Some(Identity {
        likeness: likeness(&claims, &ticket.username, &ticket.groups),
        issuer: Arc::from(ticket.issuer),
        subject: ticket.subject,
        username: ticket.username,
        groups: ticket.groups,
        claims,
        workflow: ticket.workflow,
        run: ticket.run,
        expires: ticket.expires_at.to_system_time(),
        token_id: hash,
        bound: Some(bound),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_fits_where_tokens_do_not() {
        let text = format!("{PREFIX}{}", random_secret().unwrap().expose());
        // OpenSSH's prompt for passwords takes this many bytes.
        assert!(text.len() < 1023 && text.len() == 47, "{text}");
        assert!(is_ticket(&Secret::new(text)));
        assert!(!is_ticket(&Secret::new("eyJhbGciOiJFUzI1NiJ9.e30.c2ln".to_owned())));
    }
}
