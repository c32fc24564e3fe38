//! Why a target could not be reached.

use std::io;

use super::super::messages::to_target::Unwritable;
use crate::decode::postgres::backend::ReportFields;

/// How much of a server's text is kept, in characters.
const TEXT_MAX: usize = 500;

/// A connection to a target could not be opened. The text is for operators: it names hosts and
/// users, and says what to do. A client gets [`UpstreamError::client_code`] and the target's name.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The target cannot be used as it is configured.
    #[error("{0}")]
    Configuration(String),
    /// The name has no address.
    #[error("{host} has no address: {source}; check the target's address and the machine's DNS")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No address took the connection; this is what the last one said.
    #[error("no connection to {address}: {source}; check that the server runs and listens there")]
    Connect {
        /// Address and port.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The target took too long.
    #[error("{doing} took too long; check the server's load and the network between")]
    Timeout {
        /// The step.
        doing: &'static str,
    },
    /// The connection broke.
    #[error("the connection broke at {doing}: {source}")]
    Io {
        /// The step.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The server has TLS switched off.
    #[error(
        "the server does not offer TLS; switch it on there (ssl = on), or set the target's \
         tls = \"disable\" where the network is trusted"
    )]
    TlsRefused,
    /// What came instead of an answer to `SSLRequest`, or behind it (CVE-2021-23222). It is not
    /// shown, because anybody on the way could have written it (CVE-2024-10977).
    #[error("the server broke the TLS negotiation: {0}")]
    TlsNegotiation(&'static str),
    /// The TLS handshake failed.
    #[error("TLS failed: {source}; {hint}")]
    Tls {
        /// What rustls said.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The server does not keep to the protocol.
    #[error("the server broke the protocol: {0}; is it a PostgreSQL server?")]
    Protocol(String),
    /// The server wants an authentication that the gateway does not have.
    #[error(
        "the server asks for {0}; let the target's user log in with scram-sha-256 in pg_hba.conf"
    )]
    Method(String),
    /// SCRAM failed on the server's side of it: whoever answers does not know the password.
    #[error("the server did not prove itself by SCRAM: {0}; somebody may stand in its place")]
    Scram(String),
    /// The server refused, in its own words.
    #[error("the server refused: {0}")]
    Server(ServerError),
    /// The server gave no key to cancel with.
    #[error("the server gave no key to cancel with")]
    NoCancelKey,
}

impl UpstreamError {
    /// Whether it is the target's configuration that is wrong, its credential above all: class 28.
    pub fn is_of_configuration(&self) -> bool {
        match self {
            Self::Configuration(_) => true,
            Self::Server(error) => error.code.starts_with("28"),
            _ => false,
        }
    }

    /// The SQLSTATE for the client: it tells the client whether to try again, and nothing else.
    pub fn client_code(&self) -> &'static str {
        match self {
            Self::Server(error) => match error.code.as_str() {
                "53300" => "53300", // too_many_connections
                "57P03" => "57P03", // cannot_connect_now: starting or stopping
                _ => "08001",
            },
            _ => "08001", // sqlclient_unable_to_establish_sqlconnection
        }
    }

    pub(super) fn io(doing: &'static str, source: io::Error) -> Self {
        Self::Io { doing, source }
    }
}

impl From<Unwritable> for UpstreamError {
    fn from(unwritable: Unwritable) -> Self {
        Self::Configuration(unwritable.to_string())
    }
}

/// An `ErrorResponse`, for the operator's log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{severity} {code}: {message}")]
pub struct ServerError {
    /// `FATAL`, say.
    pub severity: String,
    /// The SQLSTATE.
    pub code: String,
    /// The text, as the server's language has it.
    pub message: String,
}

/// What a server says against a setting of the startup message.
/// Source: PostgreSQL documentation, appendix A.
const ABOUT_SETTINGS: &[&str] = &[
    "0A000", // feature_not_supported
    "22023", // invalid_parameter_value
    "42501", // insufficient_privilege
    "42602", // invalid_name
    "42704", // undefined_object: an unknown setting
    "55P02", // cant_change_runtime_param
];

/// What a server says that does not take connections, in all words that PostgreSQL has for it.
const NOT_NOW: &[&str] = &[
    "the database system is starting up",
    "the database system is shutting down",
    "the database system is in recovery mode",
    "the database system is not accepting connections",
    "the database system is not yet accepting connections",
    "sorry, too many clients already",
];

impl ServerError {
    /// The code, where the refusal concerns the client, and the server's own words, where they name
    /// nothing but what the client `sent`. Roles, hosts and databases are the operator's.
    pub fn for_client(&self, sent: impl Fn(&str) -> bool) -> Option<(&'static str, Option<&str>)> {
        let message = self.message.as_str();
        let listed = |codes: &[&'static str]| codes.iter().copied().find(|code| self.code == *code);
        if let Some(code) = listed(&["3D000", "53300", "57P03"]) {
            return Some((code, Some(message).filter(|message| NOT_NOW.contains(message))));
        }
        let code = listed(ABOUT_SETTINGS)?;
        // Other languages have other quotes.
        let parts: Vec<&str> = message.split('"').collect();
        let mut named = parts.iter().skip(1).step_by(2).peekable();
        let about_sent = message.is_ascii() && parts.len() % 2 == 1 && named.peek().is_some();
        (about_sent && named.all(|name| sent(name))).then_some((code, Some(message)))
    }

    /// Reads the fields of a whole `ErrorResponse`; what is missing or broken stays empty.
    pub(super) fn parse(message: &[u8]) -> Self {
        let field = |wanted: u8| {
            let found = ReportFields::of(message).find(|(kind, _)| *kind == wanted);
            found.map(|(_, text)| printable(text)).unwrap_or_default()
        };
        Self { severity: field(b'S'), code: field(b'C'), message: field(b'M') }
    }
}

/// A foreign text as it may stand in a log: short, without control characters.
pub(super) fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars().take(TEXT_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::postgres::frame::message;

    #[test]
    fn a_servers_text_reaches_the_log_short_and_tame() {
        let long = "x".repeat(TEXT_MAX);
        let body = format!("SFATAL\0VFATAL\0C57P03\0M\x1b[2J\n{long}\0\0");
        let error = ServerError::parse(&message(b'E', body.as_bytes()));
        assert_eq!(error.code, "57P03");
        assert!(error.to_string().starts_with("FATAL 57P03: \u{fffd}[2J\u{fffd}xx"));
        assert_eq!(error.message.chars().count(), TEXT_MAX);
        assert_eq!(UpstreamError::Server(error).client_code(), "57P03");
    }

    #[test]
    fn a_client_reads_the_servers_words_where_they_name_what_it_sent() {
        let error = |code: &str, message: &str| ServerError {
            severity: "FATAL".to_owned(),
            code: code.to_owned(),
            message: message.to_owned(),
        };
        let sent = |name: &str| ["TimeZone", "Mars/Phobos"].contains(&name);
        for (code, message, words) in [
            ("22023", "invalid value for parameter \"TimeZone\": \"Mars/Phobos\"", Some(true)),
            ("22023", "invalid value for parameter \"x\" of role \"svc\"", None),
            ("42501", "permission denied for database \"orders\"", None),
            ("42501", "permission denied for database orders", None),
            ("42501", "Recht verweigert für »TimeZone«", None),
            ("53300", "sorry, too many clients already", Some(true)),
            ("53300", "too many connections for role \"svc\"", Some(false)),
            ("57P03", "the database system is starting up", Some(true)),
            ("57P03", "host db-7.internal is starting", Some(false)),
            ("3D000", "database \"orders\" does not exist", Some(false)),
            ("28P01", "password authentication failed for user \"svc\"", None),
            ("28000", "no pg_hba.conf entry for host \"10.0.0.7\"", None),
        ] {
            let error = error(code, message);
            let told = error.for_client(sent);
            assert_eq!(told.map(|(_, own)| own.is_some()), words, "{message}");
            assert!(told.is_none_or(|(told, _)| told == code));
        }
    }

    #[test]
    fn a_broken_error_is_still_an_error() {
        for body in ["", "\0", "S", "\0\0\0", "M", "C\0S\0"] {
            let error = ServerError::parse(&message(b'E', body.as_bytes()));
            assert_eq!(UpstreamError::Server(error).client_code(), "08001", "{body:?}");
        }
    }
}
