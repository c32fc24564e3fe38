//! One command as a page shows it: what was sent and decided, and what came back.

use serde_json::Value;

use super::text;
use crate::database::Timestamp;
use crate::names::{Protocol, SessionId};
use crate::replay::{Moment, Piece, Said, Stream, Table};

/// Characters shown of a command's text.
const TEXT: usize = 20_000;
/// Characters shown of a body or of a terminal's text.
const BODY: usize = 60_000;
/// Effects shown of one command.
const EFFECTS: usize = 100;

/// A command with its answer.
pub(super) struct Detail {
    pub(super) session: String,
    /// Whether it leads to other pages.
    pub(super) linked: bool,
    /// Whether its session is open, so that it may still end.
    pub(super) is_open: bool,
    pub(super) sequence: u64,
    pub(super) at: String,
    pub(super) at_exact: String,
    pub(super) offset: String,
    pub(super) form: String,
    pub(super) text: String,
    pub(super) statement: String,
    pub(super) parameters: Vec<(String, String)>,
    pub(super) verdict: &'static str,
    pub(super) rules: String,
    pub(super) reason: String,
    pub(super) exempted: String,
    pub(super) observed: String,
    pub(super) effects: Vec<(String, String)>,
    pub(super) withheld: bool,
    pub(super) answers: Vec<Answer>,
    pub(super) request: Option<Http>,
    pub(super) response: Option<Http>,
    pub(super) output: String,
    pub(super) error_output: String,
    pub(super) input: String,
    pub(super) typed: u64,
    pub(super) outcome: Option<Outcome>,
    pub(super) cut: bool,
}

/// What came back, or was said.
pub(super) enum Answer {
    Table(Table),
    Said(Said),
    Note(String, String),
    Approval { word: String, text: String, request: String, votes: Vec<String> },
}

/// A request or an answer of HTTP.
pub(super) struct Http {
    pub(super) first: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
    pub(super) is_json: bool,
    pub(super) more: String,
}

/// How it ended.
pub(super) struct Outcome {
    pub(super) status: String,
    pub(super) rows: String,
    pub(super) duration: String,
    pub(super) error: String,
    pub(super) masked: Vec<(String, String)>,
}

impl Detail {
    pub(super) fn of(session: SessionId, sequence: u64, moment: &Moment) -> Self {
        let (command, decision) = (&moment.command.command, &moment.command.decision);
        let is_http = moment.protocol == Protocol::Http;
        let is_ssh = moment.protocol == Protocol::Ssh;
        let observed = decision.observed().iter();
        let observed =
            observed.map(|seen| format!("{} ({})", seen.rule, super::word(seen.verdict)));
        let effects = command.effects.iter().take(EFFECTS).map(|effect| {
            let object = effect.object.as_ref().map(ToString::to_string).unwrap_or_default();
            (text::line(&effect.action), text::line(&object))
        });
        let blocked = decision.verdict() == crate::policy::Verdict::Block;
        let told = moment.pieces.iter().any(|p| matches!(p, Piece::Said(said) if said.error));
        let offset = i64::try_from(moment.monotonic_us).unwrap_or(i64::MAX);
        let plain = |stream: &Stream| match is_http {
            true => String::new(),
            false => output(stream),
        };
        Self {
            session: session.to_string(),
            linked: true,
            is_open: false,
            sequence,
            at: text::time_to_the_ms(Timestamp(moment.wall_us)),
            at_exact: crate::recording::rfc3339(moment.wall_us),
            offset: text::duration(offset),
            form: text::line(&command.form),
            text: text::block(&command.text, TEXT),
            statement: text::block(moment.statement.as_deref().unwrap_or_default(), TEXT),
            parameters: parameters(&command.attributes),
            verdict: super::word(decision.verdict()),
            rules: text::line(&decision.rules().join(", ")),
            reason: text::line(decision.reason().unwrap_or_default()),
            exempted: text::line(&decision.exempted().join(", ")),
            observed: text::line(&observed.collect::<Vec<_>>().join(", ")),
            effects: effects.collect(),
            withheld: moment.command.exact.is_some(),
            answers: moment.pieces.iter().map(answer).collect(),
            request: is_http.then(|| http(&moment.up)).flatten(),
            response: is_http.then(|| http(&moment.down)).flatten(),
            output: plain(&moment.down),
            error_output: plain(&moment.error),
            input: if is_ssh { plain(&moment.up) } else { String::new() },
            typed: moment.withheld,
            // What never ran did not fail, and what the target said of a failure is shown.
            outcome: moment.outcome.as_ref().map(|ended| outcome(ended, !blocked && !told)),
            cut: moment.cut,
        }
    }
}

/// Whatever came of a command beside messages, as text.
fn output(stream: &Stream) -> String {
    let mut shown = text::bytes(&without_colours(&stream.bytes), BODY);
    if stream.more > 0 {
        let more = i64::try_from(stream.more).unwrap_or(i64::MAX);
        shown.push_str(&format!("\n… {} more", text::size(more)));
    }
    shown
}

/// The bytes without what only gives them colours (SGR, ECMA-48 section 8.3.117).
fn without_colours(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        let sequence = rest.strip_prefix(b"\x1b[").and_then(|inner| {
            let end = inner.iter().position(|b| !b.is_ascii_digit() && *b != b';')?;
            let (_, inner) = inner.split_at_checked(end)?;
            inner.strip_prefix(b"m")
        });
        match sequence {
            Some(behind) => rest = behind,
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

fn parameters(attributes: &crate::policy::Attributes) -> Vec<(String, String)> {
    let mut shown = Vec::new();
    for name in ["statement", "portal"] {
        if let Some(Value::String(value)) = attributes.get(name)
            && !value.is_empty()
        {
            shown.push((name.to_owned(), text::line(value)));
        }
    }
    let Some(Value::Array(parameters)) = attributes.get("parameters") else { return shown };
    for (n, parameter) in parameters.iter().take(EFFECTS).enumerate() {
        let value = match parameter {
            Value::Null => "NULL".to_owned(),
            Value::String(text) => format!("'{text}'"),
            Value::Object(map) => match map.get("hex") {
                Some(Value::String(hex)) => format!("\\x{hex}"),
                _ => parameter.to_string(),
            },
            other => other.to_string(),
        };
        shown.push((format!("${}", n + 1), text::line(&value)));
    }
    shown
}

fn answer(piece: &Piece) -> Answer {
    match piece {
        Piece::Table(table) => Answer::Table(Table {
            columns: table.columns.iter().map(|name| text::line(name)).collect(),
            rows: table.rows.iter().map(|row| row.iter().map(value).collect()).collect(),
            more: table.more,
        }),
        Piece::Said(said) => Answer::Said(Said {
            error: said.error,
            severity: text::line(&said.severity),
            code: text::line(&said.code),
            message: text::block(&said.message, TEXT),
            detail: text::block(&said.detail, TEXT),
            hint: text::block(&said.hint, TEXT),
        }),
        Piece::Copied(bytes) => {
            let size = text::size(i64::try_from(*bytes).unwrap_or(i64::MAX));
            Answer::Note("copied".to_owned(), format!("{size} came as COPY data"))
        }
        Piece::Note(note) => Answer::Note(text::line(&note.what), text::block(&note.text, TEXT)),
        Piece::Approval(step) => Answer::Approval {
            word: text::line(&step.step),
            // Its page and those who decided tell this better.
            text: match step.votes.is_empty() && &*step.step != "asked" {
                true => text::line(&step.text),
                false => String::new(),
            },
            request: step.request.to_string(),
            votes: step
                .votes
                .iter()
                .map(|vote| {
                    let said = match &*vote.verdict {
                        "approve" => "approved",
                        "deny" => "denied",
                        other => other,
                    };
                    let why = vote.comment.as_deref().map(|c| format!(": {c}")).unwrap_or_default();
                    text::line(&format!("{} {said}{why}", vote.username))
                })
                .collect(),
        },
    }
}

fn value(value: &Option<String>) -> Option<String> {
    value.as_deref().map(|value| text::block(value, 2_000))
}

fn outcome(outcome: &crate::recording::Outcome, with_error: bool) -> Outcome {
    let number = |n: u64| text::number(i64::try_from(n).unwrap_or(i64::MAX));
    Outcome {
        status: text::line(outcome.status.as_deref().unwrap_or_default()),
        rows: outcome
            .rows
            .map(|rows| text::count(i64::try_from(rows).unwrap_or(i64::MAX), "row"))
            .unwrap_or_default(),
        duration: text::duration(i64::try_from(outcome.duration_us).unwrap_or(i64::MAX)),
        error: if with_error { error_of(outcome) } else { String::new() },
        masked: outcome
            .masked
            .iter()
            .map(|(mask, count)| (text::line(mask), number(*count)))
            .collect(),
    }
}

fn error_of(outcome: &crate::recording::Outcome) -> String {
    let error = outcome.error.as_ref().map(|error| format!("{}: {}", error.code, error.message));
    text::block(&error.unwrap_or_default(), TEXT)
}

/// Takes the recorded bytes of one direction apart: a first line, fields, a body.
fn http(stream: &Stream) -> Option<Http> {
    if stream.is_empty() {
        return None;
    }
    let bytes = &stream.bytes;
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = match end.and_then(|end| bytes.split_at_checked(end)) {
        Some((head, body)) => (head, body.get(4..).unwrap_or_default()),
        None => (&[][..], bytes.as_slice()),
    };
    let head = text::bytes(head, TEXT);
    let mut lines = head.lines();
    let first = lines.next().unwrap_or_default().to_owned();
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let json = serde_json::from_slice::<Value>(body).ok().filter(|_| stream.more == 0);
    let pretty = json.and_then(|json| serde_json::to_string_pretty(&json).ok());
    let more = i64::try_from(stream.more).unwrap_or(i64::MAX);
    Some(Http {
        first,
        headers,
        is_json: pretty.is_some(),
        body: match pretty {
            Some(pretty) => text::block(&pretty, BODY),
            None => text::bytes(body, BODY),
        },
        more: if more > 0 { text::size(more) } else { String::new() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(bytes: &[u8]) -> Stream {
        Stream { bytes: bytes.to_vec(), more: 0 }
    }

    #[test]
    fn colours_go_and_whatever_else_a_terminal_acts_on_is_shown() {
        let bytes = b"\x1b[01;34mred\x1b[0m \x1b[2J\x1b]0;t\x07\x1b[3";
        assert_eq!(without_colours(bytes), b"red \x1b[2J\x1b]0;t\x07\x1b[3");
    }

    #[test]
    fn an_answer_is_taken_apart_and_its_json_is_laid_out() {
        let shown = http(&stream(b"HTTP/1.1 200 OK\r\nA: b\r\nC:d\r\n\r\n{\"x\":[1]}")).unwrap();
        assert_eq!(shown.first, "HTTP/1.1 200 OK");
        assert_eq!(shown.headers, [("A".into(), "b".into()), ("C".into(), "d".into())]);
        assert_eq!(shown.body, "{\n  \"x\": [\n    1\n  ]\n}");
        let shown = http(&stream(b"<script>\xff")).unwrap();
        assert_eq!((shown.first.as_str(), shown.body.as_str()), ("", "<script>\\xff"));
        assert!(http(&stream(b"")).is_none());
    }
}
