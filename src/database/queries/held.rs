//! Which sessions a hold covers.

use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::conditions::Select;
use super::limits::{Filter, QueryError};
use crate::names::SessionId;

/// Which of these sessions a filter finds.
pub(in crate::database) async fn found_among(
    connection: &mut PgConnection,
    filter: &Filter,
    sessions: &[Uuid],
) -> Result<Vec<SessionId>, sqlx::Error> {
    let mut select = Select::begun("select id from sessions");
    select.one_of(sessions);
    select.filter_sessions(filter);
    let ids = select.end("").build_query_scalar::<Uuid>().fetch_all(connection).await?;
    Ok(ids.into_iter().filter_map(SessionId::of).collect())
}

/// Sessions of a gateway that a filter finds and that do not have the file of this hold.
pub(in crate::database) async fn found_without_file(
    connection: &mut PgConnection,
    (filter, hold): (&Filter, Uuid),
    gateway: &str,
    limit: i64,
) -> Result<Vec<SessionId>, sqlx::Error> {
    let mut select = Select::begun("select id from sessions");
    select.of_gateway_without_file(gateway, hold);
    select.filter_sessions(filter);
    let mut query = select.end(" limit ");
    query.push_bind(limit);
    let ids = query.build_query_scalar::<Uuid>().fetch_all(connection).await?;
    Ok(ids.into_iter().filter_map(SessionId::of).collect())
}

impl Filter {
    /// Whether it names anything at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it looks into the texts of commands.
    pub fn looks_into_text(&self) -> bool {
        self.text.is_some() || self.contains.is_some()
    }

    /// Whether it can be looked for.
    ///
    /// # Errors
    /// [`QueryError::Bad`] when it cannot.
    pub fn checked(&self) -> Result<(), QueryError> {
        self.check()
    }
}
