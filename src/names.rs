//! Ids and names that travel through the whole gateway, parsed once at the edge.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The id of one session: a UUIDv7, so ids sort by the time the session opened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(Uuid);

impl SessionId {
    /// A new id from the wall clock and the operating system's randomness.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// The 16 bytes of the id, big-endian as RFC 9562 lays them out.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The id as the type that databases know.
    pub fn as_uuid(&self) -> Uuid {
        self.0
    }

    /// When the id was made, to the millisecond.
    pub fn created(&self) -> SystemTime {
        let (seconds, nanos) = self.0.get_timestamp().map_or((0, 0), |t| t.to_unix());
        UNIX_EPOCH + Duration::new(seconds, nanos)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An id of something that is kept as state: a UUIDv7.
macro_rules! state_id {
    ($name:ident, $what:literal) => {
        #[doc = concat!("The id of one ", $what, ": a UUIDv7.")]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id from the wall clock and the operating system's randomness.
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// The id as the type that databases know.
            pub fn as_uuid(&self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = BadName;

            fn from_str(text: &str) -> Result<Self, BadName> {
                let bad = BadName(concat!("the id of a ", $what, " is a UUID"));
                Uuid::try_parse(text).map(Self).map_err(|_| bad)
            }
        }
    };
}

state_id!(TicketId, "ticket");
state_id!(RequestId, "request");
state_id!(GrantId, "grant");
state_id!(HoldId, "hold");

/// What was given is not a name or id of this kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadName(&'static str);

impl SessionId {
    /// The id that a UUID is; none when it is not of version 7.
    pub fn of(id: Uuid) -> Option<Self> {
        (id.get_version_num() == 7).then_some(Self(id))
    }
}

impl FromStr for SessionId {
    type Err = BadName;

    /// Accepts a version 7 UUID in its hyphenated form only: ids become file names.
    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = BadName("a session id is a UUID of version 7");
        if text.len() != 36 {
            return Err(bad);
        }
        match Uuid::try_parse(text) {
            Ok(id) if id.get_version_num() == 7 => Ok(Self(id)),
            _ => Err(bad),
        }
    }
}

/// The name of a target in the catalog, as design section 1 allows it:
/// `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct TargetName(Arc<str>);

impl TargetName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TargetName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let outer = |b: Option<&u8>| b.is_some_and(|b| *b != b'-');
        let bytes = text.as_bytes();
        let well_formed = bytes.len() <= 63
            && bytes.iter().all(|b| inner(*b))
            && outer(bytes.first())
            && outer(bytes.last());
        if well_formed {
            Ok(Self(text.into()))
        } else {
            Err(BadName(
                "a target's name is 1 to 63 characters of a-z, 0-9 and -, with no - at either end",
            ))
        }
    }
}

impl<'de> Deserialize<'de> for TargetName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The protocols that the gateway speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// The PostgreSQL frontend/backend protocol, versions 3.0 and 3.2.
    Postgres,
    /// SSH 2.
    Ssh,
    /// HTTP/1.1 and HTTP/2.
    Http,
}

impl Protocol {
    /// The name that configuration, recordings and API use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Ssh => "ssh",
            Self::Http => "http",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_names_follow_the_grammar() {
        for good in ["a", "0", "orders", "web-1", "a--b", &"x".repeat(63)] {
            assert_eq!(good.parse::<TargetName>().unwrap().as_str(), good);
        }
        for bad in ["", "-", "-a", "a-", "A", "a_b", "a.b", "a/b", "ä", "a b", &"x".repeat(64)] {
            assert!(bad.parse::<TargetName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_session_id_is_only_a_hyphenated_uuid_of_version_7() {
        let id = SessionId::generate();
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in [
            "",
            "../../etc/passwd",
            "0192f0c1a2b37c4d8e5f60718293a4b5",
            "{0192f0c1-a2b3-7c4d-8e5f-60718293a4b5}",
            "0192f0c1-a2b3-4c4d-8e5f-60718293a4b5",
        ] {
            assert!(bad.parse::<SessionId>().is_err(), "{bad:?}");
        }
    }
}
