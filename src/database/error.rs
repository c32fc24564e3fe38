//! What goes wrong with a database, sorted by what to do about it.

use super::migrations::SchemaError;

/// Why the database did not do what was asked. The texts are for operators.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// It cannot be reached, or does not let us in.
    #[error("the database cannot be reached: {0}")]
    Unreachable(String),
    /// It takes no writes.
    #[error(
        "the database is read-only; point [database] url at the primary, or lift \
         default_transaction_read_only"
    )]
    ReadOnly,
    /// It took too long.
    #[error("the database took too long")]
    TooSlow,
    /// It has no room.
    #[error("the database's disk is full: {0}")]
    Full(String),
    /// Its tables are not the ones that this version needs.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Somebody has as many of something as they may have; the text is for them.
    #[error("{0}")]
    Limit(String),
    /// It does not take a value: the fault is in what was to be stored.
    #[error("the database refuses a value: {0}")]
    Refused(String),
    /// Anything else.
    #[error("the database failed: {0}")]
    Other(#[source] sqlx::Error),
}

impl From<sqlx::Error> for DatabaseError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error;
        let (code, text) = match &error {
            Error::Io(_)
            | Error::Tls(_)
            | Error::PoolClosed
            | Error::PoolTimedOut
            | Error::Configuration(_)
            | Error::Protocol(_) => {
                return Self::Unreachable(error.to_string());
            }
            Error::Database(reported) => (reported.code(), reported.message().to_owned()),
            _ => return Self::Other(error),
        };
        // PostgreSQL's appendix A.
        match code.as_deref().unwrap_or_default() {
            "25006" => Self::ReadOnly,
            "57014" | "55P03" => Self::TooSlow,
            "53100" => Self::Full(text),
            "42P01" | "42703" | "42883" => SchemaError::Changed(text).into(),
            code if ["08", "28", "3D", "53", "57"].iter().any(|class| code.starts_with(class)) => {
                Self::Unreachable(text)
            }
            code if ["22", "23", "54"].iter().any(|class| code.starts_with(class)) => {
                Self::Refused(text)
            }
            _ => Self::Other(error),
        }
    }
}
