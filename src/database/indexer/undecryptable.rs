//! Encrypted recordings that could not be opened when they were indexed.

use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::batch::{self, Batch};
use super::reading::Reading;
use crate::database::DatabaseError;
use crate::names::SessionId;

/// Why the index has not all of a recording that is encrypted.
pub(super) const LOCKED: &str = "it is encrypted, and no identity opens it";

/// Lets recordings be read from their beginning that could not be opened before.
pub(super) async fn forget_locked(
    connection: &mut PgConnection,
    gateway: &str,
) -> Result<(), DatabaseError> {
    let mut write = connection.begin().await?;
    let locked: Vec<Uuid> =
        sqlx::query_scalar("select session from recordings where gateway = $1 and failed = $2")
            .bind(gateway)
            .bind(LOCKED)
            .fetch_all(&mut *write)
            .await?;
    let locked: Vec<SessionId> =
        locked.into_iter().filter_map(|id| id.to_string().parse().ok()).collect();
    batch::delete(&mut write, &locked).await?;
    let again: Vec<_> = locked.iter().map(|session| Reading::new(*session)).collect();
    batch::write(&mut write, gateway, &Batch::default(), again.iter()).await?;
    Ok(write.commit().await?)
}
