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
    WIDEST,
];
const WIDEST: i64 = 365 * 86_400 * SECOND;

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
struct Counted {
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    #[serde(flatten)]
    sums: Counts,
    step: i64,
    places: Vec<Place>,
}

#[derive(Deserialize)]
struct Place {
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
        // What is found is found once, however it is counted then.
        let mut select = Select::begun(
            "select row_to_json(t) from (with found as materialized (select opened_at, \
            floor(extract(epoch from opened_at) * 1000000)::bigint as at, \
            commands, blocked, approved from sessions",
        );
        select.filter_all_sessions(filter);
        select.push("), span as (select min(opened_at) as first, max(opened_at) as last, ");
        select.push(COUNTS).push(" from found), ends as (select coalesce(");
        select.push_number(filter.from.map(|from| from.0));
        select.push(", min(at)) as first, coalesce(");
        select.push_number(filter.to.map(|to| to.0 - 1));
        select.push(", max(at)) as last from found), width as (select coalesce(min(step), ");
        select.push_number(WIDEST).push(") as step from ends, unnest(").push_number(STEPS.to_vec());
        select.push(") step where floor(greatest(first, last)::float8 / step) ");
        select.push("- floor(first::float8 / step) < ").push_number(COLUMNS);
        select.push("), places as (select at / step as place, ").push(COUNTS);
        select.push(" from found, width group by 1) select span.*, step, coalesce((select ");
        select.push("json_agg(places order by place) from places), '[]') as places ");
        let mut query = select.end("from span, width) t");
        let counted: Json<Counted> = query.build_query_scalar().fetch_one(&self.pool).await?;
        let Counted { first: Some(first), last: Some(last), sums, step, places } = counted.0 else {
            return Ok(Histogram::default());
        };
        let (first, last) =
            (filter.from.unwrap_or(first).0, filter.to.map_or(last.0, |to| to.0 - 1));
        let from = first.div_euclid(step);
        let to = last.max(first).div_euclid(step).min(from.saturating_add(COLUMNS));
        // What is only a moment long is shown with the time before it.
        let from = if filter.from.is_none() { from.min(to - FEWEST) } else { from };
        let mut found = places.into_iter().peekable();
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
