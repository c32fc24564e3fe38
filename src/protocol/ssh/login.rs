//! Who knocks: a token or a certificate, a target, and the access. Whatever is wrong, the client
//! is told one thing; what it was stands in the log and in the gateway's own recording.

use std::net::SocketAddr;
use std::sync::Arc;

use russh::keys::Certificate;

use crate::admission::{Admitted, Knock, Proofs};
use crate::identity::{Identity, Refused};
use crate::names::{Protocol, SessionId};
use crate::secret::Secret;

use super::Context;

/// What a login came to.
pub(super) enum Login {
    Admitted(Box<Admitted>),
    /// There is no room for another session. That is said once the client is let in.
    Full,
}

/// Who tries to log in.
pub(super) struct Caller<'a> {
    pub(super) context: &'a Context,
    pub(super) client: SocketAddr,
    /// The user name, which should be a target's.
    pub(super) user: &'a str,
    /// The id that the session will have.
    pub(super) session: SessionId,
}

impl Caller<'_> {
    /// Logs in with a token.
    pub(super) async fn with_token(&self, token: Secret) -> Option<Login> {
        self.log_in(self.context.gateway.verifier.verify(&token).await).await
    }

    /// Logs in with a certificate, for a key that the client proved to have.
    pub(super) async fn with_certificate(&self, certificate: &Certificate) -> Option<Login> {
        let (authority, verifier) = (&self.context.authority, &self.context.gateway.verifier);
        self.log_in(authority.verify(certificate, self.user, verifier).await).await
    }

    async fn log_in(&self, proved: Result<Arc<Identity>, Refused>) -> Option<Login> {
        let gateway = &self.context.gateway;
        let identity = match proved {
            Ok(identity) => identity,
            Err(refused) => return self.denied(None, &refused.to_string()),
        };
        // A name that is no target's is not looked at further: there is no other form.
        let named = self.user.parse().ok();
        let target = match gateway.target(Protocol::Ssh, named.as_ref()) {
            Ok(target) => target,
            Err(why) => return self.denied(Some(&identity), &why.to_string()),
        };
        let Some(place) = gateway.place() else {
            gateway.turned_away(&self.knock(), Some(&identity), "no room for another session");
            return Some(Login::Full);
        };
        let (name, session) = (&target.name, self.session);
        match gateway.admit(&identity, name, session, place, Proofs::One).await {
            Ok(admitted) => Some(Login::Admitted(Box::new(admitted))),
            Err(no_access) => self.denied(Some(&identity), &no_access.to_string()),
        }
    }

    /// Notes who got no session, and why.
    pub(super) fn denied(&self, identity: Option<&Identity>, reason: &str) -> Option<Login> {
        self.context.gateway.denied(&self.knock(), identity, reason);
        None
    }

    fn knock(&self) -> Knock<'_> {
        Knock { protocol: Protocol::Ssh, client: self.client, named: self.user }
    }
}
