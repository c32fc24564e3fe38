//! Who asks, and what they may: the one place where roles are decided.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::header;
use axum::http::request::Parts;

use super::api::Api;
use super::problem::Problem;
use crate::config;
use crate::identity::Identity;
use crate::secret::Secret;

/// How a connection came.
#[derive(Debug, Clone)]
pub(super) enum Arrival {
    /// Over the admin socket.
    Socket {
        /// The machine's user on the other side, as the kernel says.
        user: String,
    },
    /// Over TCP.
    Network {
        /// From where.
        client: SocketAddr,
        /// Whether tokens may come this way.
        private: bool,
    },
}

/// The groups that `[web]` gives rights to.
#[derive(Debug)]
pub struct Roles {
    auditors: Vec<String>,
    admins: Vec<String>,
}

impl Roles {
    /// As configured.
    pub fn new(web: &config::Web) -> Self {
        Self { auditors: web.auditors.clone(), admins: web.admins.clone() }
    }

    /// Whether somebody may read what was recorded: auditors, and admins.
    fn may_read(&self, identity: &Identity) -> bool {
        let mut named = self.auditors.iter().chain(&self.admins);
        named.any(|group| identity.groups().contains(group))
    }

    fn is_admin(&self, identity: &Identity) -> bool {
        self.admins.iter().any(|group| identity.groups().contains(group))
    }
}

/// A proved caller.
#[derive(Debug)]
pub(super) enum Caller {
    /// The machine's own: the admin socket's file says who may connect.
    Local(String),
    /// Somebody with a token.
    Remote(Arc<Identity>, SocketAddr),
}

impl Caller {
    pub(super) fn username(&self) -> String {
        match self {
            Self::Local(user) => format!("os:{user}"),
            Self::Remote(identity, _) => identity.username().to_owned(),
        }
    }

    pub(super) fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Local(_) => None,
            Self::Remote(identity, _) => Some(identity),
        }
    }

    pub(super) fn client(&self) -> Option<SocketAddr> {
        match self {
            Self::Local(_) => None,
            Self::Remote(_, client) => Some(*client),
        }
    }

    /// Whether this caller may do what admins may: on the machine itself, or by a group.
    pub(super) fn is_admin(&self, roles: &Roles) -> bool {
        self.identity().is_none_or(|identity| roles.is_admin(identity))
    }

    /// Whether this caller may see what others did.
    pub(super) fn may_read(&self, roles: &Roles) -> bool {
        self.identity().is_none_or(|identity| roles.may_read(identity))
    }

    /// Issuer and subject, for those who may deal with what is their own alone.
    pub(super) fn key(&self) -> Option<(&str, &str)> {
        self.identity().map(|identity| (identity.issuer(), identity.subject()))
    }

    pub(super) async fn of(parts: &Parts, api: &Api) -> Result<Self, Problem> {
        let Some(ConnectInfo(arrival)) = parts.extensions.get::<ConnectInfo<Arrival>>() else {
            return Err(Problem::internal());
        };
        match arrival {
            Arrival::Socket { user } => Ok(Self::Local(user.clone())),
            Arrival::Network { private: false, .. } => Err(Problem::needs_tls()),
            Arrival::Network { client, .. } => {
                let Some(token) = bearer(parts) else {
                    // A cookie shows what there is and changes nothing: forms have a proof more.
                    let reads = parts.method.is_safe()
                        && !parts.headers.contains_key(header::AUTHORIZATION);
                    let found = if reads { Self::logged_in(parts, api).await? } else { None };
                    return found.map(|(caller, _)| caller).ok_or_else(Problem::unproved);
                };
                let identity = api.verifier().verify(&token).await.map_err(|refused| {
                    tracing::warn!(%client, reason = %refused, "token refused by the API");
                    Problem::unproved()
                })?;
                // A ticket is for one target, and this is none.
                if identity.bound().is_some() {
                    tracing::warn!(%client, "ticket presented to the API");
                    return Err(Problem::unproved());
                }
                Ok(Self::Remote(identity, *client))
            }
        }
    }
}

impl Caller {
    /// Who is logged in in this browser, and the login's secret; none when nobody is.
    pub(super) async fn logged_in(
        parts: &Parts,
        api: &Api,
    ) -> Result<Option<(Self, Secret)>, Problem> {
        let Some(ConnectInfo(arrival)) = parts.extensions.get::<ConnectInfo<Arrival>>() else {
            return Err(Problem::internal());
        };
        let client = match arrival {
            // Pages are for browsers, which come over TCP.
            Arrival::Socket { .. } => return Ok(None),
            Arrival::Network { private: false, .. } => return Err(Problem::needs_tls()),
            Arrival::Network { client, .. } => *client,
        };
        let entrance = api.entrance();
        let Some(secret) = entrance.secret(parts) else { return Ok(None) };
        let identity = entrance.browsers.identify(&secret, api.verifier()).await?;
        Ok(identity.map(|identity| (Self::Remote(identity, client), secret)))
    }
}

/// The bearer token (RFC 6750 section 2.1).
fn bearer(parts: &Parts) -> Option<Secret> {
    let mut given = parts.headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Secret::new(token.trim().to_owned()))
}

/// A caller who may read what was recorded.
#[derive(Debug)]
pub(super) struct Reader(pub(super) Caller);

impl FromRequestParts<Arc<Api>> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let caller = Caller::of(parts, api).await?;
        if caller.identity().is_none_or(|identity| api.roles().may_read(identity)) {
            return Ok(Self(caller));
        }
        api.refused(&caller, parts.uri.path()).await;
        Err(Problem::no_right())
    }
}

/// A proved caller, whatever rights there are.
#[derive(Debug)]
pub(super) struct Person(pub(super) Caller);

impl FromRequestParts<Arc<Api>> for Person {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        Caller::of(parts, api).await.map(Self)
    }
}

/// A caller who may end sessions and take rights away.
#[derive(Debug)]
pub(super) struct Admin(pub(super) Caller);

impl FromRequestParts<Arc<Api>> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let caller = Caller::of(parts, api).await?;
        if caller.is_admin(api.roles()) {
            return Ok(Self(caller));
        }
        api.refused(&caller, parts.uri.path()).await;
        Err(Problem::no_right())
    }
}
