//! Everything that the gateway itself says to a Postgres client, in one place.
//!
//! What a client may be told is this list; no error text of another layer ever reaches it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::messages::to_client::{self, Field};
use crate::decode::postgres::Malformed;
use crate::decode::postgres::backend::TransactionStatus;
use crate::decode::sql::{SyntaxError, Unparsed};
use crate::names::{SessionId, TargetName};

/// Words of the gateway's own. Made in this file alone, so nothing of a target is in them but what
/// [`Refusal::Target`] takes.
#[derive(Debug, Clone)]
pub(super) struct Words {
    shown: Bytes,
    stored: Bytes,
}

impl Words {
    /// Nothing: the client does not see what came.
    pub(super) fn none() -> Self {
        Self::from(Bytes::new())
    }

    /// The messages, as they are sent.
    pub(super) fn as_bytes(&self) -> &Bytes {
        &self.shown
    }

    /// The messages, as they are stored: without what the client's own text may hold.
    pub(super) fn stored(&self) -> &Bytes {
        &self.stored
    }
}

impl From<Bytes> for Words {
    fn from(shown: Bytes) -> Self {
        Self { stored: shown.clone(), shown }
    }
}

/// Why a client is turned away or its session ends. Every one of them is FATAL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The token, the target or the access is wrong: one and the same for all of them.
    AccessDenied,
    /// People have to grant the access; this is where they do.
    AccessAsked {
        /// The target.
        target: TargetName,
        /// Where people decide.
        link: String,
        /// They said no, not long ago.
        denied: bool,
    },
    /// Somebody ended the session.
    Killed,
    /// The client must speak TLS before a token may be asked for.
    TlsRequired,
    /// The client broke the protocol.
    Malformed(Malformed),
    /// A startup parameter is not on the list.
    Parameter(String),
    /// Replication is not relayed.
    Replication,
    /// The client wants an encoding that UTF-8 cannot stand for, by this name.
    Encoding(String),
    /// Policy refused a setting of the startup message.
    Setting {
        /// The rule's reason, if it has one.
        reason: Option<String>,
        /// Whether people could allow it.
        approve: bool,
        /// The session that it is recorded in.
        session: SessionId,
    },
    /// The target refused the gateway for something that concerns the client, in words that name
    /// nothing but what the client sent.
    Target {
        /// The SQLSTATE.
        code: &'static str,
        /// The words.
        message: String,
    },
    /// All sessions are taken.
    TooManySessions,
    /// The target cannot be reached, or did not let the gateway in.
    Unreachable(TargetName),
    /// The session cannot be recorded.
    NotRecorded,
    /// The proof of identity, or the time that access allows, is over.
    Expired,
    /// The rules no longer give the access.
    AccessLost,
    /// The gateway stops.
    Shutdown,
    /// The target broke the protocol or went away.
    TargetLost(TargetName),
    /// The target gave an answer that was not asked for.
    OutOfStep(TargetName),
    /// The target gives an answer that cannot be masked.
    Unmaskable(Malformed),
}

impl Refusal {
    /// The SQLSTATE. Source: PostgreSQL documentation, appendix A.
    fn code(&self) -> &'static str {
        match self {
            Self::AccessDenied => "28P01",
            Self::TlsRequired | Self::Expired | Self::AccessLost | Self::AccessAsked { .. } => {
                "28000"
            }
            Self::Malformed(what) if *what == NOT_UTF8 => "22021",
            Self::Malformed(_) | Self::OutOfStep(_) => "08P01",
            Self::Parameter(_) | Self::Replication => "0A000",
            Self::Encoding(_) => "22023",
            Self::Setting { .. } | Self::Unmaskable(_) => "42501",
            Self::Target { code, .. } => code,
            Self::TooManySessions => "53300",
            Self::Unreachable(_) => "08001",
            Self::NotRecorded => "58030",
            Self::Shutdown | Self::Killed => "57P01",
            Self::TargetLost(_) => "08006",
        }
    }

    /// What the client is told.
    pub(super) fn message(&self) -> String {
        match self {
            Self::AccessDenied => "access denied".to_owned(),
            Self::AccessAsked { target, link, denied: true } => {
                format!("access to \"{target}\" was denied: {link}")
            }
            Self::AccessAsked { target, link, .. } => {
                format!("access to \"{target}\" waits for approval: {link}")
            }
            Self::Killed => "the session was ended by an administrator".to_owned(),
            Self::TlsRequired => "the gateway takes tokens over TLS only".to_owned(),
            Self::Malformed(what) => what.to_string(),
            Self::Parameter(name) => format!("startup parameter \"{name}\" is not allowed"),
            Self::Replication => "replication connections are not relayed".to_owned(),
            Self::Encoding(name) => {
                format!("client_encoding \"{name}\" cannot be used: the gateway reads UTF8")
            }
            Self::Setting { reason: Some(reason), .. } => reason.clone(),
            Self::Setting { approve: true, .. } => {
                "a startup parameter needs an approval".to_owned()
            }
            Self::Setting { .. } => "a startup parameter is refused by policy".to_owned(),
            Self::Target { message, .. } => message.clone(),
            Self::TooManySessions => "the gateway has no room for another session".to_owned(),
            Self::Unreachable(target) => format!("target \"{target}\" cannot be reached"),
            Self::NotRecorded => "the session cannot be recorded".to_owned(),
            Self::Expired => "the session's time is over".to_owned(),
            Self::AccessLost => "the access to this target was withdrawn".to_owned(),
            Self::Shutdown => "the gateway is stopping".to_owned(),
            Self::TargetLost(target) => format!("the connection to target \"{target}\" was lost"),
            Self::OutOfStep(target) => {
                format!("target \"{target}\" gave an answer that was not asked for")
            }
            Self::Unmaskable(why) => format!("the answer cannot be masked: {why}"),
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::AccessDenied => {
                "The database is the name of a target, the password a current token or ticket for this gateway."
            }
            Self::AccessAsked { denied: true, .. } => "Ask again later.",
            Self::AccessAsked { .. } => "Connect again once it is granted.",
            Self::TlsRequired => "Connect with sslmode=require or stricter.",
            Self::Expired => "Get a new token and connect again.",
            Self::TooManySessions => "Try again later.",
            Self::Unreachable(_) => "The gateway's operator finds why in its log.",
            Self::Encoding(_) => "Set client_encoding to UTF8: PGCLIENTENCODING=UTF8, for example.",
            Self::Malformed(what) if *what == NOT_UTF8 => {
                "The session runs in UTF8: send UTF-8, and set PGCLIENTENCODING=UTF8."
            }
            Self::Malformed(what) if *what == TOO_LARGE => {
                "Send large data by COPY, or in several statements."
            }
            Self::Parameter(_) => "Only the server's operator can set it. Leave it out.",
            Self::Replication => "Dump with pg_dump, or connect replication to the server itself.",
            Self::Setting { approve: true, session, .. } => {
                return Some(format!(
                    "SET it in the session, where it can wait for approval. Session {session}."
                ));
            }
            Self::Setting { session, .. } => return Some(format!("Session {session}.")),
            Self::Unmaskable(_) => {
                "Ask for less at once, and by SELECT or COPY of a query instead of an EXECUTE."
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// The `ErrorResponse` that says it.
    pub(super) fn to_words(&self) -> Words {
        error_response("FATAL", self.code(), &self.message(), self.hint().as_deref())
    }
}

/// What says that the client sends another encoding.
const NOT_UTF8: Malformed = crate::decode::postgres::NOT_UTF8;
/// What says that the client sends more at once than is kept.
const TOO_LARGE: Malformed = crate::decode::postgres::frame::TOO_LARGE;

/// Why a command was refused in a session that goes on. It is an ERROR like any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Objection {
    /// Policy refused it; the rule's reason, if it has one.
    Policy {
        /// The rule's reason.
        reason: Option<String>,
        /// The session that it is recorded in.
        session: SessionId,
    },
    /// People had to approve it, and it does not run.
    NotReleased {
        /// Why.
        why: String,
        /// The client asked to cancel.
        cancelled: bool,
        /// Too many commands wait.
        too_many: bool,
        /// The rule's reason, if it has one.
        reason: Option<String>,
        /// The session that it is recorded in.
        session: SessionId,
    },
    /// The function call message is not relayed.
    FunctionCall,
    /// It would change the encoding of the session.
    Encoding {
        /// The session that it is recorded in.
        session: SessionId,
    },
    /// It is not understood, and policy lets only pass what is.
    NotUnderstood {
        /// Why not.
        unparsed: Unparsed,
        /// What the parser says, where it is no SQL.
        syntax: Option<SyntaxError>,
        /// Why that matters here.
        reason: String,
        /// The session that it is recorded in.
        session: SessionId,
    },
    /// Nobody was asked: the transaction failed before.
    TransactionAborted,
    /// Nobody was asked: what prepares the command fails.
    NotPrepared,
}

impl Objection {
    /// The `ErrorResponse` that says it.
    pub(super) fn to_words(&self) -> Words {
        match self {
            Self::Policy { reason, session } => {
                let reason = reason.as_deref().unwrap_or("the command is refused by policy");
                error_response("ERROR", "42501", reason, Some(&format!("Session {session}.")))
            }
            Self::NotReleased { cancelled: true, session, .. } => {
                let message = "canceling statement due to user request";
                error_response("ERROR", "57014", message, Some(&format!("Session {session}.")))
            }
            Self::NotReleased { why, too_many: true, session, .. } => {
                let message = format!("nobody was asked to approve the command: {why}");
                error_response("ERROR", "53400", &message, Some(&format!("Session {session}.")))
            }
            Self::NotReleased { why, reason, session, .. } => {
                let message = match reason {
                    Some(reason) => format!("the command was not approved: {why}. {reason}"),
                    None => format!("the command was not approved: {why}"),
                };
                error_response("ERROR", "42501", &message, Some(&format!("Session {session}.")))
            }
            Self::TransactionAborted => error_response(
                "ERROR",
                "25P02",
                "current transaction is aborted, commands ignored until end of transaction block",
                None,
            ),
            Self::NotPrepared => error_response(
                "ERROR",
                "42501",
                "the command was not approved: it could not be prepared when people were to be asked",
                Some("Run it again."),
            ),
            Self::FunctionCall => error_response(
                "ERROR",
                "0A000",
                "the function call message is not relayed",
                Some(
                    "Call the function in a statement: SELECT lo_get(…), for example. \
                     Dump with pg_dump --no-blobs.",
                ),
            ),
            Self::Encoding { session } => error_response(
                "ERROR",
                "22023",
                "client_encoding can only be UTF8 in this session",
                Some(&format!("Leave it at UTF8, and convert in the client. Session {session}.")),
            ),
            Self::NotUnderstood { unparsed, syntax, reason, session } => {
                let hint = format!("Session {session}.");
                let code = match unparsed {
                    Unparsed::Syntax => "42601",
                    Unparsed::TooLong => "54000",
                    _ => "54001",
                };
                let whole = match unparsed {
                    Unparsed::Syntax => "syntax error".to_owned(),
                    limit => format!("the text is not understood: {limit}"),
                };
                let (shown, stored, position) = match syntax {
                    Some(SyntaxError { message, stored, position }) => (message, stored, *position),
                    None => (&whole, &whole, None),
                };
                let position = position.map(|at| at.to_string());
                let words = |message: &str| {
                    let own = fields("ERROR", code, message, None);
                    let more = [(b'D', reason.as_str()), (b'H', &hint)];
                    let position = position.iter().map(|at| (b'P', at.as_str()));
                    let fields = own.chain(more).chain(position);
                    to_client::bytes_of(|out| to_client::error_response(out, fields))
                };
                Words { shown: words(shown), stored: words(stored) }
            }
        }
    }
}

/// `NoticeResponse`: the session runs in another encoding than the client asked for.
pub(super) fn other_encoding(asked: &str) -> Words {
    let message = format!("client_encoding {asked} was asked for; the session runs in UTF8");
    notice_response(&message, None)
}

/// `NoticeResponse`: the client learns that its command waits, and where people decide it.
pub(super) fn waits_for_approval(id: &str, link: &str, left: Duration) -> Words {
    let message = format!(
        "the command waits for approval, {} s at most: request {id}",
        left.as_secs().max(1)
    );
    notice_response(&message, Some(&format!("Decide: {link}")))
}

/// Wire replay: what it cannot do, and what to do instead.
pub(super) fn replay_error(code: &str, message: &str, hint: &str) -> Words {
    error_response("ERROR", code, message, Some(hint).filter(|hint| !hint.is_empty()))
}

/// Wire replay: what was asked is not recorded.
pub(super) fn replay_not_recorded(message: &str, target: &TargetName, session: SessionId) -> Words {
    let hint = format!(
        "This is a replay of session {session}: statements are answered as they were recorded, \
         and nothing reaches {target}."
    );
    error_response("ERROR", "P0002", message, Some(&hint))
}

/// Wire replay: the answer is that of a command of which the recording withholds something.
pub(super) fn replay_withholds(sequence: u64) -> Words {
    let message = format!(
        "answered with command #{sequence} of the recording, which withholds literals or values"
    );
    notice_response(&message, None)
}

fn error_response(severity: &str, code: &str, message: &str, hint: Option<&str>) -> Words {
    let fields = fields(severity, code, message, hint);
    to_client::bytes_of(|out| to_client::error_response(out, fields)).into()
}

fn notice_response(message: &str, hint: Option<&str>) -> Words {
    let fields = fields("NOTICE", "00000", message, hint);
    to_client::bytes_of(|out| to_client::notice_response(out, fields)).into()
}

fn fields<'f>(
    severity: &'f str,
    code: &'f str,
    message: &'f str,
    hint: Option<&'f str>,
) -> impl Iterator<Item = Field<'f>> {
    let own = [(b'S', severity), (b'V', severity), (b'C', code), (b'M', message)];
    own.into_iter().chain(hint.map(|hint| (b'H', hint)))
}

/// `AuthenticationCleartextPassword`.
pub(super) fn ask_password() -> Words {
    to_client::bytes_of(to_client::authentication_cleartext_password).into()
}

/// `NegotiateProtocolVersion`: the newest minor version that is spoken, and the protocol options
/// that are not.
pub(super) fn negotiate_version(minor: u16, unknown_options: &[&str]) -> Words {
    to_client::bytes_of(|out| to_client::negotiate_protocol_version(out, minor, unknown_options))
        .into()
}

/// Everything from `AuthenticationOk` to the first `ReadyForQuery`: what the target said of
/// itself when it let the gateway in, and the client's own cancel key.
pub(super) fn welcome(
    parameters: &[(String, String)],
    notices: &[Bytes],
    process_id: u32,
    cancel_key: &[u8],
) -> Words {
    let mut out = BytesMut::new();
    to_client::authentication_ok(&mut out);
    for (name, value) in parameters {
        to_client::parameter_status(&mut out, name, value);
    }
    to_client::backend_key_data(&mut out, process_id, cancel_key);
    for notice in notices {
        out.extend_from_slice(notice);
    }
    to_client::ready_for_query(&mut out, TransactionStatus::Idle);
    out.freeze().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::postgres::backend;

    #[test]
    fn a_refusal_is_one_well_formed_error_response() {
        let refusal = Refusal::Unreachable("orders".parse().unwrap());
        let report = backend::report(refusal.to_words().as_bytes()).unwrap();
        assert_eq!((report.severity.as_str(), report.code.as_str()), ("FATAL", "08001"));
        assert_eq!(report.message, "target \"orders\" cannot be reached");
        let hostile = Refusal::Parameter("a\0Mb".to_owned()).to_words();
        assert!(backend::report(hostile.as_bytes()).unwrap().message.contains("aMb"));
    }
}
