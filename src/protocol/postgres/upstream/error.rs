//! Why a target could not be reached.

use std::io;

use bytes::Bytes;

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

impl ServerError {
    /// Reads the fields of an `ErrorResponse`; what is missing or broken stays empty.
    pub(super) fn parse(body: &Bytes) -> Self {
        let field = |tag: u8| {
            let fields = body.split(|byte| *byte == 0);
            let found = fields.filter_map(|f| f.split_first()).find(|(t, _)| **t == tag);
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

    #[test]
    fn a_servers_text_reaches_the_log_short_and_tame() {
        let long = "x".repeat(TEXT_MAX);
        let body = format!("SFATAL\0VFATAL\0C57P03\0M\x1b[2J\n{long}\0\0");
        let error = ServerError::parse(&Bytes::from(body));
        assert_eq!(error.code, "57P03");
        assert!(error.to_string().starts_with("FATAL 57P03: \u{fffd}[2J\u{fffd}xx"));
        assert_eq!(error.message.chars().count(), TEXT_MAX);
        assert_eq!(UpstreamError::Server(error).client_code(), "57P03");
    }

    #[test]
    fn a_broken_error_is_still_an_error() {
        for body in ["", "\0", "S", "\0\0\0", "M", "C\0S\0"] {
            let error = ServerError::parse(&Bytes::from(body));
            assert_eq!(UpstreamError::Server(error).client_code(), "08001", "{body:?}");
        }
    }
}
