//! Sessions counted over time: a histogram of what a filter finds, with its sums.

use sqlx::types::Json;

use super::conditions::Select;
use super::limits::{Filter, QueryError};
use crate::database::Database;
use crate::database::rows::Timestamp;
use serde::Deserialize;

/// The most columns of a histogram.
const COLUMNS: i64 = 60;
/// The fewest, less one, where nobody says from when.
const FEWEST: i64 = 29;
const SECOND: i64 = 1_000_000;
/// Widths of a column in microseconds: times that people think in.
const STEPS: [i64; 15] = [
    SECOND,
    5 * SECOND,
    15 * SECOND,
    60 * SECOND,
    300 * SECOND,
    900 * SECOND,
    3600 * SECOND,
    3 * 3600 * SECOND,
    6 * 3600 * SECOND,
    12 * 3600 * SECOND,
    86_400 * SECOND,
    7 * 86_400 * SECOND,
    30 * 86_400 * SECOND,
    90 * 86_400 * SECOND,
    365 * 86_400 * SECOND,
];

/// What a filter finds, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// All of it.
    pub sums: Counts,
    /// The width of a column in microseconds.
    pub step_us: i64,
    /// The columns from the first to the last, empty ones too.
    pub columns: Vec<Column>,
}

/// Sessions that opened in one piece of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Where it begins; it ends a step later.
    pub from: Timestamp,
    /// What is in it.
    pub counts: Counts,
}

/// Sessions, and sums over them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Counts {
    /// How many.
    pub sessions: i64,
    /// Their commands.
    pub commands: i64,
    /// Of these, those that were blocked.
    pub blocked: i64,
    /// Of these, those that a human had to decide.
    pub approved: i64,
}

#[derive(Deserialize)]
struct Span {
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    #[serde(flatten)]
    counts: Counts,
}

#[derive(Deserialize)]
struct Found {
    place: i64,
    #[serde(flatten)]
    counts: Counts,
}

const COUNTS: &str = "count(*) as sessions, coalesce(sum(commands), 0)::bigint as commands, \
    coalesce(sum(blocked), 0)::bigint as blocked, coalesce(sum(approved), 0)::bigint as approved";

impl Database {
    /// Counts the sessions that a filter finds, over the time that it names, else over the time
    /// that they span.
    ///
    /// # Errors
    /// [`QueryError::Bad`] when the filter is not one.
    pub async fn histogram(&self, filter: &Filter) -> Result<Histogram, QueryError> {
        filter.check()?;
        let mut select = Select::begun("select row_to_json(t) from (select ");
        select.push(COUNTS).push(", min(opened_at) as first, max(opened_at) as last from sessions");
        select.filter_sessions(filter);
        let mut query = select.end(") t");
        let span: Json<Span> = query.build_query_scalar().fetch_one(&self.pool).await?;
        let Span { first: Some(first), last: Some(last), counts: sums } = span.0 else {
            return Ok(Histogram::default());
        };
        let (first, last) =
            (filter.from.unwrap_or(first).0, filter.to.map_or(last.0, |to| to.0 - 1));
        let step = step_of(first, last.max(first));

        let mut select = Select::begun(
            "select row_to_json(t) from (select \
            floor(extract(epoch from opened_at) * 1000000 / ",
        );
        select.push_step(step);
        select.push(")::bigint as place, ").push(COUNTS).push(" from sessions");
        select.filter_sessions(filter);
        let mut query = select.end(" group by 1 order by 1) t");
        let found: Vec<Json<Found>> = query.build_query_scalar().fetch_all(&self.pool).await?;
        let from = first.div_euclid(step);
        let to = last.max(first).div_euclid(step).min(from.saturating_add(COLUMNS));
        // What is only a moment long is shown with the time before it.
        let from = if filter.from.is_none() { from.min(to - FEWEST) } else { from };
        let mut found = found.into_iter().map(|row| row.0).peekable();
        let columns = (from..=to).map(|place| {
            while found.next_if(|found| found.place < place).is_some() {}
            let counts = found.next_if(|found| found.place == place).map(|found| found.counts);
            Column {
                from: Timestamp(place.saturating_mul(step)),
                counts: counts.unwrap_or_default(),
            }
        });
        Ok(Histogram { sums, step_us: step, columns: columns.collect() })
    }
}

/// The smallest width that needs no more columns than there may be.
fn step_of(first: i64, last: i64) -> i64 {
    let fits = |step: &&i64| last.div_euclid(**step) - first.div_euclid(**step) < COLUMNS;
    STEPS.iter().find(fits).copied().unwrap_or(365 * 86_400 * SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_as_wide_as_people_think_and_there_are_not_too_many() {
        let hour = 3600 * SECOND;
        assert_eq!(step_of(0, 0), SECOND);
        assert_eq!(step_of(0, hour - 1), 60 * SECOND);
        assert_eq!(step_of(5, 24 * hour), hour);
        assert_eq!(step_of(0, 30 * 24 * hour), 12 * hour + 12 * hour);
        for days in [1_i64, 10, 100, 1000, 10_000] {
            let (first, last) = (777, days * 24 * hour);
            let step = step_of(first, last);
            assert!(last / step - first / step < COLUMNS, "{days}");
        }
    }
}
