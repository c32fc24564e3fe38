//! Who calls: identities, and the proofs that make them.
//!
//! An [`Identity`] has private fields and is made by this module alone, out of a token that
//! verified. A token goes one way: [`token::parse`] takes its text apart, its issuer's keys say
//! whether one of them signed it, and only then do its claims count. A [`ticket`] that the gateway
//! made for an identity proves that identity again, on one target; a [`browser`] that logged in
//! ([`login`]) proves it with a cookie. What an administrator withdrew
//! counts no more, token or ticket.
//!
//! What is not proved: that who presents a token is who it was made for (tokens that are bound to
//! a key are refused, bearer tokens are as good as their secrecy), and that its issuer has not
//! revoked it since. The key of an identity is issuer and subject, so an issuer must not give a
//! machine client the subject of a user (RFC 9068 section 5); where one might, an access rule
//! names `azp` beside the user.

pub mod browser;
mod certificate;
mod claims;
pub mod dev_issuer;
mod discovery;
mod fetch;
mod key_cache;
mod keys;
pub mod login;
#[cfg(test)]
mod provider_shapes;
mod random;
pub mod relying_party;
pub mod ssh_key;
mod strict_json;
#[cfg(test)]
mod test_key;
pub mod ticket;
pub mod token;

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::join_all;
use serde::Serialize;
use serde_json::{Map, Value};

pub use self::certificate::{Authority, NotIssued};
use self::discovery::Discovery;
use self::fetch::FetchError;
use self::key_cache::KeyCache;
use self::token::{refuse, shown};
use crate::config;
use crate::database::{Known, Withdrawn, WithdrawnKind};
use crate::policy::Caller;
use crate::secret::Secret;

/// A proved caller. The key is issuer and subject; everything else may change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Identity {
    issuer: Arc<str>,
    subject: String,
    username: String,
    groups: Vec<String>,
    claims: Map<String, Value>,
    workflow: Option<String>,
    run: Option<String>,
    #[serde(skip)]
    expires: SystemTime,
    token_id: String,
    #[serde(skip)]
    bound: Option<ticket::Bound>,
    #[serde(skip)]
    likeness: blake3::Hash,
}

impl From<&Identity> for Caller {
    fn from(identity: &Identity) -> Self {
        Self {
            issuer: identity.issuer().to_owned(),
            subject: identity.subject().to_owned(),
            username: identity.username().to_owned(),
            groups: identity.groups().to_vec(),
            claims: identity.claims().clone(),
            workflow: identity.workflow().map(str::to_owned),
            run: identity.run().map(str::to_owned),
        }
    }
}

/// Claims that tell a token from the next one of the same caller.
const OF_THE_TOKEN: &[&str] = &["exp", "iat", "nbf", "jti", "auth_time", "nonce", "at_hash"];

/// See [`Identity::likeness`].
fn likeness(claims: &Map<String, Value>, username: &str, groups: &[String]) -> blake3::Hash {
    let lasting = |name: &String| !OF_THE_TOKEN.contains(&name.as_str());
    // Maps of serde_json are sorted by name.
    let claims: Vec<_> = claims.iter().filter(|(name, _)| lasting(name)).collect();
    let text = serde_json::to_vec(&(claims, username, groups));
    blake3::hash(&text.unwrap_or_default())
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

    /// All claims of the token, but for an `email` that `email_verified` does not vouch for.
    pub fn claims(&self) -> &Map<String, Value> {
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

    /// When the proof ends: `exp`, with no leeway.
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// What revocation and replay lists key on: 64 hexadecimal digits that hash the issuer and
    /// `jti`, else the signed claims; never the token's text, which may have a twin.
    pub fn token_id(&self) -> &str {
        &self.token_id
    }

    /// What a ticket binds it to; none for a token.
    pub fn bound(&self) -> Option<&ticket::Bound> {
        self.bound.as_ref()
    }

    /// Hashes what a rule may know of the caller besides issuer and subject: the next token of the
    /// same caller has the same, unless its groups or claims are others.
    pub fn likeness(&self) -> &blake3::Hash {
        &self.likeness
    }

    /// The address that the issuer has verified.
    pub fn email(&self) -> Option<&str> {
        self.claims.get("email").and_then(Value::as_str)
    }

    /// What was presented, and what that was made with.
    pub fn credentials(&self) -> impl Iterator<Item = &str> {
        let made_with = self.bound.as_ref().map(|bound| bound.made_with.as_str());
        std::iter::once(self.token_id.as_str()).chain(made_with)
    }

    /// Who withdrew what was presented, or whoever presented it, if somebody did.
    pub fn withdrawn_by(&self, withdrawn: Known<'_>) -> Option<String> {
        let credential = |id| withdrawn.by(WithdrawnKind::Credential, id);
        let user = || withdrawn.by_user(&self.issuer, &self.subject);
        self.credentials().find_map(credential).or_else(user)
    }
}

/// Why a token was not accepted, for the log and the recording; the client is told nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// Verifies tokens against the configured issuers' current keys, and tickets.
#[derive(Debug)]
pub struct Verifier {
    issuers: Vec<Source>,
    state: Option<State>,
}

/// What the verifier knows of tickets, and of what was withdrawn.
#[derive(Debug)]
struct State {
    tickets: ticket::Tickets,
    withdrawn: Arc<Withdrawn>,
}

/// One issuer: its settings and its keys.
#[derive(Debug)]
struct Source {
    settings: config::Issuer,
    keys: KeyCache,
}

impl Verifier {
    /// Fetches every issuer's discovery document and keys. Fails when a document is wrong (another
    /// issuer, keys elsewhere or without TLS, a certificate that does not hold); an issuer that is
    /// only out of reach is retried in the background and its tokens are refused until it answers.
    pub async fn start(issuers: &[config::Issuer]) -> Result<Arc<Self>, DiscoveryError> {
        Ok(Arc::new(Self { issuers: sources(issuers).await?, state: None }))
    }

    /// Asks every issuer once, and tells of each that cannot be used now, for whatever reason.
    pub async fn probe(issuers: &[config::Issuer]) -> Vec<DiscoveryError> {
        let asked = issuers.iter().map(|settings| async {
            let (_, outcome) = Source::ask(settings).await?;
            outcome.map_err(|error| DiscoveryError::new(settings, error.to_string()))
        });
        join_all(asked).await.into_iter().filter_map(Result::err).collect()
    }

    /// The same, and takes tickets too, and nothing that was withdrawn.
    pub async fn start_with(
        issuers: &[config::Issuer],
        tickets: ticket::Tickets,
        withdrawn: Arc<Withdrawn>,
    ) -> Result<Arc<Self>, DiscoveryError> {
        let state = Some(State { tickets, withdrawn });
        Ok(Arc::new(Self { issuers: sources(issuers).await?, state }))
    }

    /// The URL of a configured issuer, by its name or its URL.
    pub fn issuer_url(&self, named: &str) -> Option<&str> {
        let mut all = self.issuers.iter().map(|source| &source.settings);
        let found = all.find(|issuer| issuer.name == named || issuer.url == named)?;
        Some(&found.url)
    }

    fn trusts(&self, issuer: &str) -> bool {
        self.issuers.iter().any(|source| source.settings.url == issuer)
    }

    /// Proves who holds this token or ticket, or says (for the log alone) why not. May wait some
    /// seconds for keys that its issuer has only just published, which needs [`Self::run`], and
    /// for the database that knows tickets. Cancel safe.
    pub async fn verify(&self, presented: &Secret) -> Result<Arc<Identity>, Refused> {
        let identity = match &self.state {
            Some(state) if ticket::is_ticket(presented) => {
                Arc::new(state.tickets.identify(presented, self).await?)
            }
            _ => self.verify_token(presented, SystemTime::now).await?,
        };
        self.unless_withdrawn(identity).await
    }

    /// The identity, unless somebody withdrew what proves it.
    async fn unless_withdrawn(&self, identity: Arc<Identity>) -> Result<Arc<Identity>, Refused> {
        let withdrawn = match &self.state {
            Some(state) => identity.withdrawn_by(state.withdrawn.current().await),
            None => None,
        };
        match withdrawn {
            Some(by) => refuse(format!("it was withdrawn by {}", shown(&by))),
            None => Ok(identity),
        }
    }

    async fn verify_token(
        &self,
        token: &Secret,
        now: impl Fn() -> SystemTime,
    ) -> Result<Arc<Identity>, Refused> {
        if let Some(known) = self.known(token)
            && now() < known.expires
        {
            return Ok(known);
        }
        let token = token::parse(token.expose())?;
        let hash = token.hash;
        let Some(Value::String(iss)) = token.claims.get("iss") else {
            return refuse("it names no issuer");
        };
        let Some(source) = self.issuers.iter().find(|source| source.settings.url == *iss) else {
            return refuse(format!("issuer {} is not configured", shown(iss)));
        };
        let signed = source.keys.check(token).await?;
        let identity = Arc::new(claims::identify(&source.settings, signed, now())?);
        source.keys.note(&hash, &identity);
        Ok(identity)
    }

    /// Whom a token proved before. Of what was looked at then only its end can have come since.
    fn known(&self, token: &Secret) -> Option<Arc<Identity>> {
        let hash = token::hash(token.expose())?;
        self.issuers.iter().find_map(|source| source.keys.known(&hash))
    }

    /// The issuer of this URL, when it is configured.
    fn issuer(&self, url: &str) -> Option<Arc<str>> {
        let mut known = self.issuers.iter().map(|source| source.settings.url.as_str());
        known.find(|known| *known == url).map(Arc::from)
    }

    /// Keeps the keys fresh until cancelled.
    pub async fn run(self: Arc<Self>, cancel: tokio_util::sync::CancellationToken) {
        join_all(self.issuers.iter().map(|source| source.keys.keep_fresh(&cancel))).await;
    }
}

async fn sources(issuers: &[config::Issuer]) -> Result<Vec<Source>, DiscoveryError> {
    join_all(issuers.iter().map(Source::start)).await.into_iter().collect()
}

impl Source {
    async fn start(settings: &config::Issuer) -> Result<Self, DiscoveryError> {
        let (keys, outcome) = Self::ask(settings).await?;
        match outcome {
            Ok(()) => {}
            Err(FetchError::Wrong(problem)) => return Err(DiscoveryError::new(settings, problem)),
            Err(FetchError::Unreachable(problem)) => tracing::warn!(
                issuer = %settings.name,
                %problem,
                "issuer is out of reach; its tokens are refused until it answers"
            ),
        }
        Ok(Self { settings: settings.clone(), keys })
    }

    /// Fetches an issuer's documents for the first time.
    async fn ask(
        settings: &config::Issuer,
    ) -> Result<(KeyCache, Result<(), FetchError>), DiscoveryError> {
        let discovery =
            Discovery::new(settings).map_err(|problem| DiscoveryError::new(settings, problem))?;
        let keys = KeyCache::new(&settings.name, Box::new(discovery));
        let outcome = keys.refresh().await;
        Ok((keys, outcome))
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

impl DiscoveryError {
    fn new(settings: &config::Issuer, problem: String) -> Self {
        Self { issuer: settings.name.clone(), problem }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use futures_util::future::BoxFuture;
    use parking_lot::Mutex;
    use serde_json::json;

    use super::key_cache::KeySource;
    use super::keys::KeySet;
    use super::test_key::TestKey;
    use super::*;

    const NOW: u64 = 1_795_000_000;

    #[derive(Debug, Clone)]
    struct Published(Arc<Mutex<Value>>);

    impl KeySource for Published {
        fn fetch(&self) -> BoxFuture<'_, Result<KeySet, FetchError>> {
            let keys = json!({ "keys": [*self.0.lock()] }).to_string();
            Box::pin(async move { KeySet::parse(keys.as_bytes()).map_err(FetchError::Wrong) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whom_a_token_proved_is_known_until_its_time_is_over_or_its_key_gone() {
        let settings = provider_shapes::issuer(
            "url = \"https://login.example.com\"\naudiences = [\"portcullis\"]",
        );
        let claims = |subject: &str, exp: u64| {
            json!({
                "iss": settings.url, "aud": "portcullis", "sub": subject, "iat": NOW, "exp": exp,
            })
        };
        let (key, next) = (TestKey::new("k"), TestKey::new("k"));
        let published = Published(Arc::new(Mutex::new(key.jwk())));
        let keys = KeyCache::new("corp", Box::new(published.clone()));
        keys.refresh().await.unwrap();
        let issuers = vec![Source { settings: settings.clone(), keys }];
        let verifier = Verifier { issuers, state: None };
        let tokens = [("a", 600), ("b", 600), ("a", 700)]
            .map(|(subject, life)| Secret::new(key.sign(&claims(subject, NOW + life))));
        let at = |seconds| move || UNIX_EPOCH + Duration::from_secs(NOW + seconds);

        let first = verifier.verify_token(&tokens[0], at(1)).await.unwrap();
        let again = verifier.verify_token(&tokens[0], at(599)).await.unwrap();
        assert!(Arc::ptr_eq(&first, &again), "it was not remembered");
        let other = verifier.verify_token(&tokens[1], at(599)).await.unwrap();
        let next_token = verifier.verify_token(&tokens[2], at(599)).await.unwrap();
        assert_eq!([&again, &other, &next_token].map(|who| who.subject()), ["a", "b", "a"]);
        assert!(again.likeness() == next_token.likeness() && again.likeness() != other.likeness());
        let over = verifier.verify_token(&tokens[0], at(600)).await.unwrap_err();
        assert!(over.0.contains("expired"), "{over}");

        // Another key by the same name: nothing that the old one signed is known any more, not even
        // when it is noted once more.
        *published.0.lock() = next.jwk();
        verifier.issuers[0].keys.refresh().await.unwrap();
        let hash = token::hash(tokens[0].expose()).unwrap();
        verifier.issuers[0].keys.note(&hash, &first);
        let gone = verifier.verify_token(&tokens[0], at(1)).await.unwrap_err();
        assert!(gone.0.contains("did not sign"), "{gone}");
    }
}
