//! How far each gateway's ledger is, away from its disk.

use super::super::{Database, DatabaseError};
use crate::recording::Head;

impl Database {
    /// Notes how far a gateway's ledger is, and gives back the head that is noted now: another
    /// one when a longer ledger was noted before, or another history of that length.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn note_ledger_head(
        &self,
        gateway: &str,
        head: &Head,
    ) -> Result<Head, DatabaseError> {
        sqlx::query(
            "insert into ledger_heads (gateway, lines, hash) values ($1, $2, $3) \
             on conflict (gateway) do update set lines = excluded.lines, hash = excluded.hash, \
             at = excluded.at where ledger_heads.lines < excluded.lines",
        )
        .bind(gateway)
        .bind(i64::try_from(head.lines).unwrap_or(i64::MAX))
        .bind(&head.hash)
        .execute(&self.pool)
        .await?;
        Ok(self.ledger_head(gateway).await?.unwrap_or_else(|| head.clone()))
    }

    /// How far a gateway's ledger was when that was last noted.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn ledger_head(&self, gateway: &str) -> Result<Option<Head>, DatabaseError> {
        let row: Option<(i64, String)> =
            sqlx::query_as("select lines, hash from ledger_heads where gateway = $1")
                .bind(gateway)
                .fetch_optional(&self.pool)
                .await?;
        Ok(row.map(|(lines, hash)| Head { lines: u64::try_from(lines).unwrap_or_default(), hash }))
    }
}
