//! Who knocks: a token or a certificate, a target, and the access. Whatever is wrong, the client
//! is told one thing; what it was stands in the log and in the gateway's own recording.

use std::net::SocketAddr;
use std::sync::Arc;

use russh::keys::Certificate;

use crate::access::{Access, Grant};
use crate::config::TargetKind;
use crate::gate::recorded_identity;
use crate::identity::{Identity, Refused};
use crate::names::{Protocol, SessionId, TargetName};
use crate::recording::RefusedCaller;
use crate::secret::Secret;

use super::Context;

/// As much of a user name as is kept of those who got no session.
const MAX_NAME: usize = 63;

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
    pub(super) async fn with_token(&self, token: Secret) -> Option<Grant> {
        self.log_in(self.context.verifier.verify(&token).await).await
    }

    /// Logs in with a certificate, for a key that the client proved to have.
    pub(super) async fn with_certificate(&self, certificate: &Certificate) -> Option<Grant> {
        let context = self.context;
        self.log_in(context.authority.verify(certificate, self.user, &context.verifier).await).await
    }

    async fn log_in(&self, proved: Result<Arc<Identity>, Refused>) -> Option<Grant> {
        let identity = match proved {
            Ok(identity) => identity,
            Err(refused) => return self.denied(None, &refused.to_string()),
        };
        // A name that is no target's is not looked at further: there is no other form.
        let Ok(target) = self.user.parse::<TargetName>() else {
            return self.denied(Some(&identity), "the user name is no target's");
        };
        let rules = self.context.catalog.current();
        match rules.target(&target).map(|of| &of.kind) {
            Some(TargetKind::Ssh(_)) => {}
            Some(_) => return self.denied(Some(&identity), "the target is no SSH host"),
            None => return self.denied(Some(&identity), "no such target"),
        }
        let access = Access::new(Arc::clone(self.context.catalog.desk()));
        match access.admit(&rules, &identity, &target, self.session).await {
            Ok(grant) => Some(grant),
            Err(no_access) => self.denied(Some(&identity), &no_access.to_string()),
        }
    }

    /// Notes who got no session, and why.
    pub(super) fn denied(&self, identity: Option<&Identity>, reason: &str) -> Option<Grant> {
        let end = self.user.floor_char_boundary(MAX_NAME);
        let refused = RefusedCaller {
            protocol: Protocol::Ssh,
            client: self.client.to_string(),
            target: self.user.get(..end).unwrap_or_default().to_owned(),
            identity: identity.map(recorded_identity),
            reason: reason.to_owned(),
        };
        self.context.catalog.desk().metrics().denied(Protocol::Ssh);
        self.context.store.refused(&refused);
        None
    }
}
