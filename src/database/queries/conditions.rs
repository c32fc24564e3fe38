//! Filters as SQL. Whatever a client gave is a bound parameter; what stands in the text of a query
//! is written here.

use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use super::limits::Filter;
use crate::database::rows::Timestamp;
use crate::names::SessionId;

/// Between a session's id, which names its first moment, and the clock of its commands.
const CLOCK_SLACK_US: i64 = 24 * 3600 * 1_000_000;

/// A query for one page of rows as JSON.
pub(super) struct Select {
    query: QueryBuilder<Postgres>,
    conditions: usize,
}

impl Select {
    /// From one of our tables.
    pub(super) fn new(table: &'static str) -> Self {
        Self::of("", table)
    }

    /// The same query's plan.
    pub(super) fn explained(table: &'static str) -> Self {
        Self::of("explain (analyze, buffers) ", table)
    }

    fn of(before: &'static str, table: &'static str) -> Self {
        let mut select = Self::begun(before);
        select.push("select row_to_json(t) from (select * from ").push(table);
        select
    }

    /// One that is written piece by piece; its filter comes where the conditions do.
    pub(super) fn begun(text: &'static str) -> Self {
        Self { query: QueryBuilder::new(text), conditions: 0 }
    }

    pub(super) fn push(&mut self, text: &'static str) -> &mut Self {
        self.query.push(text);
        self
    }

    /// One of these sessions.
    pub(super) fn one_of(&mut self, sessions: &[Uuid]) {
        self.and().push("id = any(").push_bind(sessions.to_vec()).push(")");
    }

    /// A session of a gateway beside which the file of a hold is not known to stand.
    pub(super) fn of_gateway_without_file(&mut self, gateway: &str, hold: Uuid) {
        self.and().push("gateway = ").push_bind(gateway.to_owned());
        self.and().push("not exists (select from hold_files f where f.session = id and f.hold = ");
        self.query.push_bind(hold).push(")");
    }

    /// A number, or several.
    pub(super) fn push_number<'q, N>(&mut self, number: N) -> &mut Self
    where
        N: 'q + sqlx::Encode<'q, Postgres> + sqlx::Type<Postgres>,
    {
        self.query.push_bind(number);
        self
    }

    pub(super) fn end(mut self, text: &'static str) -> QueryBuilder<Postgres> {
        self.query.push(text);
        self.query
    }

    /// The rows with the largest of these columns first.
    pub(super) fn latest(self, columns: &'static str, limit: u32) -> QueryBuilder<Postgres> {
        let order = columns.replace(',', " desc,") + " desc";
        self.ordered(&order, limit)
    }

    /// The rows with the smallest of these columns first.
    pub(super) fn earliest(self, columns: &'static str, limit: u32) -> QueryBuilder<Postgres> {
        self.ordered(columns, limit)
    }

    fn ordered(mut self, order: &str, limit: u32) -> QueryBuilder<Postgres> {
        self.query.push(" order by ").push(order).push(" limit ");
        self.query.push_bind(i64::from(limit) + 1).push(") t");
        self.query
    }

    pub(super) fn filter_sessions(&mut self, filter: &Filter) {
        self.filter_names(filter);
        self.filter_kind(filter);
        self.between("opened_at", filter);
        if let Some(verdict) = filter.verdict {
            use crate::policy::Verdict::{Allow, Approve, Block};
            self.and().push(match verdict {
                Allow => "allowed > 0",
                Approve => "approved > 0",
                Block => "blocked > 0",
            });
        }
        if filter.text.is_some() || filter.contains.is_some() {
            self.and().push("id in (select session from commands where true");
            self.opened_between(filter);
            self.matching(filter);
            self.query.push(")");
        }
    }

    /// The same for a query that needs all of them: what matches is looked up once in the index of
    /// words, not for each session anew.
    pub(super) fn filter_all_sessions(&mut self, filter: &Filter) {
        let without_words = Filter { text: None, contains: None, ..filter.clone() };
        self.filter_sessions(&without_words);
        if filter.text.is_some() || filter.contains.is_some() {
            self.and().push("id in (select distinct session from commands where true");
            self.opened_between(filter);
            self.matching(filter);
            self.query.push(")");
        }
    }

    /// Commands of sessions whose ids are of the time: partitions of other times are not looked at.
    fn opened_between(&mut self, filter: &Filter) {
        for (bound, operator, slack) in [
            (filter.from, " and session >= ", -CLOCK_SLACK_US),
            (filter.to, " and session < ", CLOCK_SLACK_US),
        ] {
            if let Some(bound) = bound {
                let id = first_id_at(bound.0.saturating_add(slack));
                self.query.push(operator).push_bind(id);
            }
        }
    }

    pub(super) fn filter_commands(&mut self, filter: &Filter) {
        self.filter_names(filter);
        if filter.group.is_some() || filter.protocol.is_some() {
            self.and().push("session in (select id from sessions");
            let outer = std::mem::take(&mut self.conditions);
            self.filter_kind(filter);
            self.conditions = outer;
            self.query.push(")");
        }
        self.between("at", filter);
        if let Some(to) = filter.to {
            // Partitions that hold only later sessions are not looked at.
            let last = first_id_at(to.0.saturating_add(CLOCK_SLACK_US));
            self.and().push("session < ").push_bind(last);
        }
        if let Some(verdict) = filter.verdict {
            let verdict = serde_json::to_value(verdict).unwrap_or_default();
            let word = verdict.as_str().unwrap_or_default().to_owned();
            // Said twice: an index holds those that are not allowed.
            if word != "allow" {
                self.and().push("verdict <> 'allow'");
            }
            self.and().push("verdict = ").push_bind(word);
        }
        if filter.text.is_some() || filter.contains.is_some() {
            self.and().push("true");
            self.matching(filter);
        }
    }

    pub(super) fn filter_audit(&mut self, filter: &Filter, after: Option<i64>) {
        self.equal("username", filter.user.as_ref());
        self.between("at", filter);
        if let Some(part) = filter.text.as_ref().or(filter.contains.as_ref()) {
            let like = like(part);
            self.and().push("(action ilike ").push_bind(like.clone());
            self.query.push(" or object ilike ").push_bind(like).push(")");
        }
        if let Some(after) = after {
            self.and().push("id < ").push_bind(after);
        }
    }

    pub(super) fn after_session(&mut self, after: Option<(Timestamp, SessionId)>) {
        if let Some((at, id)) = after {
            self.and().push("(opened_at, id) < (").push_bind(at.to_string());
            self.query.push("::timestamptz, ").push_bind(id.as_uuid()).push(")");
        }
    }

    pub(super) fn after_command(&mut self, after: Option<(Timestamp, SessionId, i64)>) {
        if let Some((at, session, sequence)) = after {
            self.and().push("at <= ").push_bind(at.to_string()).push("::timestamptz");
            self.and().push("(at, session, sequence) < (").push_bind(at.to_string());
            self.query.push("::timestamptz, ").push_bind(session.as_uuid());
            self.query.push(", ").push_bind(sequence).push(")");
        }
    }

    pub(super) fn of_session(&mut self, session: SessionId, after: Option<i64>) {
        self.and().push("session = ").push_bind(session.as_uuid());
        if let Some(after) = after {
            self.and().push("sequence > ").push_bind(after);
        }
    }

    fn filter_names(&mut self, filter: &Filter) {
        self.equal("username", filter.user.as_ref());
        self.equal("target", filter.target.as_ref());
        self.equal("workflow", filter.workflow.as_ref());
        self.equal("run", filter.run.as_ref());
    }

    /// What only the table of sessions has an index for.
    fn filter_kind(&mut self, filter: &Filter) {
        let protocol = filter.protocol.map(|protocol| protocol.as_str().to_owned());
        self.equal("protocol", protocol.as_ref());
        if let Some(group) = &filter.group {
            self.and().push("groups @> array[").push_bind(group.clone()).push("::text]");
        }
    }

    fn equal(&mut self, column: &'static str, value: Option<&String>) {
        if let Some(value) = value {
            self.and().push(column).push(" = ").push_bind(value.clone());
        }
    }

    fn between(&mut self, column: &'static str, filter: &Filter) {
        for (bound, operator) in [(filter.from, " >= "), (filter.to, " < ")] {
            if let Some(bound) = bound {
                self.and().push(column).push(operator);
                self.query.push_bind(bound.storable().to_string()).push("::timestamptz");
            }
        }
    }

    fn matching(&mut self, filter: &Filter) {
        if let Some(words) = &filter.text {
            self.query.push(
                " and to_tsvector('pg_catalog.simple', command_words(text)) \
                 @@ websearch_to_tsquery('pg_catalog.simple', command_words(",
            );
            self.query.push_bind(words.clone()).push("))");
        }
        if let Some(part) = &filter.contains {
            self.query.push(" and text ilike ").push_bind(like(part));
        }
    }

    fn and(&mut self) -> &mut QueryBuilder<Postgres> {
        self.query.push(if self.conditions == 0 { " where " } else { " and " });
        self.conditions += 1;
        &mut self.query
    }
}

/// The pattern for any text with this part in it.
fn like(part: &str) -> String {
    let escaped = part.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    format!("%{escaped}%")
}

/// The smallest UUIDv7 of a time, all of whose random bits are zero (RFC 9562 section 5.7).
pub(in crate::database) fn first_id_at(time_us: i64) -> Uuid {
    let milliseconds = u64::try_from(time_us.div_euclid(1000)).unwrap_or(0).min((1 << 48) - 1);
    Uuid::from_u128(u128::from(milliseconds) << 80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_gives_is_never_part_of_the_query() {
        let evil = || Some("x' or 1=1; drop table commands --".to_owned());
        let filter = Filter {
            user: evil(),
            group: evil(),
            target: evil(),
            workflow: evil(),
            run: evil(),
            text: evil(),
            contains: evil(),
            ..Filter::default()
        };
        for fill in [Select::filter_sessions, Select::filter_commands] {
            let mut select = Select::new("commands");
            fill(&mut select, &filter);
            let query = select.latest("at, session", 5);
            let sql = query.sql().as_str().to_owned();
            assert!(!sql.contains("drop table"), "{sql}");
            assert!(sql.ends_with("order by at desc, session desc limit $8) t"), "{sql}");
        }
    }

    #[test]
    fn a_part_to_look_for_has_no_wildcards() {
        assert_eq!(like(r"50%_\"), r"%50\%\_\\%");
    }

    #[test]
    fn the_first_id_of_a_time_is_below_every_id_of_it() {
        let id = SessionId::generate();
        let milliseconds = id.created().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let us = i64::try_from(milliseconds).unwrap() * 1000;
        assert!(first_id_at(us) < id.as_uuid() && id.as_uuid() < first_id_at(us + 1000));
        assert_eq!(first_id_at(i64::MIN), Uuid::nil());
        assert!(first_id_at(i64::MAX) < Uuid::max());
    }
}
