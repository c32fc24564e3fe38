//! A session played to a terminal: its commands in order, each with what was decided, what came
//! back (of Postgres as a table, of SSH as it was), and how it ended.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::grid::{COLUMNS_SHOWN, Grid, VALUE_SHOWN};
use super::http::Requests;
use super::postgres::{Column, Fields, Message, Messages};
use super::ssh::{Channels, Shown};
use super::terminal_filter::RESET;
use super::text::{Lines, printable, printable_bytes, shortened};
use crate::names::Protocol;
use crate::policy::{Command, Verdict};
use crate::recording::{
    ApprovalStep, Closed, Direction, End, Event, Gap, GatewayOpened, Kind, Note, Opened, Outcome,
    ReadError, Reader, RecordedCommand, RefusedCaller, Sequence, rfc3339,
};

/// Commands whose columns are remembered for rows that come without; the oldest go first.
const REMEMBERED: usize = 4_096;
/// What is shown of one command's text.
const TEXT_SHOWN: usize = 20_000;

/// How a recording is shown.
#[derive(Debug, Clone)]
pub struct Options {
    /// Colours and bold, for terminals.
    pub colour: bool,
    /// Rows shown of each result.
    pub rows: usize,
    /// The terminal's width, when there is one.
    pub width: Option<u16>,
    /// Whether recorded terminals are shown as they were: on a terminal, at their own speed.
    pub live: bool,
}

/// What stands between two commands.
pub trait Pace {
    /// This much time passed when it was recorded.
    ///
    /// # Errors
    /// When waiting is not possible.
    fn passed(&mut self, recorded: Duration) -> io::Result<()>;

    /// The next command comes; false ends the replay.
    ///
    /// # Errors
    /// When nobody can be asked.
    fn step(&mut self) -> io::Result<bool>;
}

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The recording cannot be read on; what came before was shown.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The terminal cannot be written to.
    #[error("cannot show the recording: {0}")]
    Io(#[from] io::Error),
}

/// Shows a recording from where the reader is to its end.
///
/// # Errors
/// When the recording is damaged, after everything before the damage was shown.
pub fn play(
    mut reader: Reader,
    out: &mut dyn Write,
    options: &Options,
    pace: &mut dyn Pace,
) -> Result<(), ReplayError> {
    let mut player = Player {
        out,
        options,
        messages: Some(Messages::default()),
        commands: BTreeMap::new(),
        prepared: None,
        result: Grid::default(),
        copied: 0,
        channels: None,
        requests: None,
        drawn: false,
    };
    let mut before = None;
    for event in reader.by_ref() {
        let event = event?;
        let drawn = options.live
            && event.kind == Kind::Data
            && player.channels.as_ref().is_some_and(|channels| channels.is_screen(&event));
        if drawn || matches!(event.kind, Kind::Command | Kind::Outcome | Kind::Closed) {
            let since = event.monotonic_us.saturating_sub(before.unwrap_or(event.monotonic_us));
            pace.passed(Duration::from_micros(since))?;
            before = Some(event.monotonic_us);
        }
        if event.kind == Kind::Command && !pace.step()? {
            return Ok(());
        }
        player.show(&event)?;
        player.out.flush()?;
    }
    player.flush_rows()?;
    player.leave_screen()?;
    if !matches!(reader.end(), Some(End::Sealed(_))) {
        writeln!(player.out, "{}", player.dim("the recording is open: not sealed"))?;
    }
    Ok(())
}

struct Player<'a> {
    out: &'a mut dyn Write,
    options: &'a Options,
    /// None after a gap or bytes that are no messages: where one begins is not known then.
    messages: Option<Messages>,
    commands: BTreeMap<Sequence, Known>,
    /// The last statement or portal that was made.
    prepared: Option<Sequence>,
    result: Grid,
    /// Bytes of COPY data since something was shown of them.
    copied: u64,
    /// Of a session of SSH.
    channels: Option<Channels>,
    /// Of a session of HTTP.
    requests: Option<Requests>,
    /// A recorded terminal was the last to write.
    drawn: bool,
}

/// What later events need of a command.
#[derive(Default)]
struct Known {
    of: Option<Sequence>,
    text: Option<Rc<str>>,
    columns: Option<Rc<[Column]>>,
    /// The result formats that a bind asked for.
    formats: Option<Vec<bool>>,
}

impl Player<'_> {
    fn show(&mut self, event: &Event) -> io::Result<()> {
        if event.kind != Kind::Data {
            self.flush_rows()?;
            self.leave_screen()?;
        } else if self.channels.is_some() {
            return self.channel(event);
        } else if let Some(requests) = &mut self.requests {
            for line in requests.show(event) {
                writeln!(self.out, "  {line}")?;
            }
            return Ok(());
        }
        match event.kind {
            Kind::Opened => self.opened(event),
            Kind::Gateway => self.with(event, |player, opened: GatewayOpened| {
                let gateway = printable(&opened.gateway, Lines::Escape);
                writeln!(player.out, "{}", player.bold(&format!("refusals of gateway {gateway}")))
            }),
            Kind::Command => self.with(event, |player, command: RecordedCommand<'_>| {
                player.command(event, &command)
            }),
            Kind::Data if event.direction == Direction::Down => self.down(event),
            Kind::Data => Ok(()),
            Kind::Outcome => {
                self.with(event, |player, outcome: Outcome| player.outcome(event, &outcome))
            }
            Kind::Refused => self.with(event, |player, refused: RefusedCaller| {
                let when = player.dim(&rfc3339(event.wall_us));
                let [client, target, reason] = [&refused.client, &refused.target, &refused.reason]
                    .map(|text| printable(text, Lines::Escape));
                let who = refused.identity.map_or_else(
                    || "nobody proved".to_owned(),
                    |identity| printable(&identity.username, Lines::Escape),
                );
                let protocol = refused.protocol;
                writeln!(
                    player.out,
                    "{when} {protocol} {target} refused to {who} from {client}: {reason}"
                )
            }),
            Kind::Note => self.with(event, |player, note: Note| {
                let [what, text] =
                    [&*note.what, &note.text].map(|text| printable(text, Lines::Escape));
                writeln!(player.out, "{}", player.yellow(&format!("note ({what}): {text}")))
            }),
            Kind::Approval => self.with(event, |player, step: ApprovalStep| {
                let votes = step.votes.iter().map(|vote| {
                    let [who, why] = [&vote.username, vote.comment.as_deref().unwrap_or_default()]
                        .map(|text| printable(text, Lines::Escape));
                    format!("; {who}: {} {why}", vote.verdict).trim_end().to_owned()
                });
                let [word, text] =
                    [&*step.step, &step.text].map(|text| printable(text, Lines::Escape));
                let told = format!("approval {word} (request {}) {text}", step.request);
                let told = told.trim_end().to_owned() + &votes.collect::<String>();
                writeln!(player.out, "{}", player.yellow(&told))
            }),
            Kind::Gap => {
                self.messages = None;
                self.with(event, |player, gap: Gap| {
                    let Gap { events, bytes, reason } = gap;
                    let reason = printable(&reason, Lines::Escape);
                    let told = format!("{events} events ({bytes} bytes) are missing: {reason}");
                    writeln!(player.out, "{}", player.red(&told))
                })
            }
            Kind::Closed => self.with(event, |player, closed: Closed| {
                let [how, text] =
                    [&*closed.how, &closed.text].map(|text| printable(text, Lines::Escape));
                let line = format!("{} closed ({how}) {text}", rfc3339(event.wall_us));
                writeln!(player.out, "{}", player.bold(line.trim_end()))
            }),
        }
    }

    fn opened(&mut self, event: &Event) -> io::Result<()> {
        self.with(event, |player, opened: Opened| {
            player.requests = (opened.protocol == Protocol::Http).then(Requests::default);
            player.channels = (opened.protocol == Protocol::Ssh).then(Channels::default);
            let safe = |text: &str| printable(text, Lines::Escape);
            let database = opened.database.map(|d| format!("/{}", safe(&d))).unwrap_or_default();
            let title =
                format!("{} {}{database}  {}", opened.protocol, opened.target, opened.session);
            writeln!(player.out, "{}", player.bold(&title))?;
            let identity = opened.identity;
            let [username, issuer, subject, client] =
                [&identity.username, &identity.issuer, &identity.subject, &opened.client]
                    .map(|text| safe(text));
            writeln!(player.out, "{username}  (subject {subject} at {issuer}) from {client}")?;
            let mut facts = Vec::new();
            if !identity.groups.is_empty() {
                facts.push(format!("groups {}", safe(&identity.groups.join(", "))));
            }
            for (name, told) in [("workflow", opened.workflow), ("run", opened.run)] {
                if let Some(told) = told {
                    let proved = if told.proved { "proved" } else { "as the client says" };
                    facts.push(format!("{name} {} ({proved})", safe(&told.name)));
                }
            }
            facts.push(format!("policy {}", safe(&opened.policy)));
            writeln!(player.out, "{}", player.dim(&facts.join("; ")))?;
            writeln!(player.out, "{}", player.dim(&format!("opened {}", rfc3339(event.wall_us))))
        })
    }

    fn command(&mut self, event: &Event, recorded: &RecordedCommand<'_>) -> io::Result<()> {
        let (command, decision) = (&recorded.command, &recorded.decision);
        let verdict = match decision.verdict() {
            Verdict::Allow => self.green("allow"),
            Verdict::Approve => self.yellow("approve"),
            Verdict::Block => self.red("block"),
        };
        let after = self.dim(&format!("+{}", duration(event.monotonic_us)));
        let form = self.bold(&printable(&command.form, Lines::Escape));
        writeln!(self.out)?;
        write!(
            self.out,
            "#{} {} {after} {verdict} {form}",
            event.sequence,
            rfc3339(event.wall_us)
        )?;
        if let Some(details) = details(command) {
            write!(self.out, " {details}")?;
        }
        writeln!(self.out)?;
        if !decision.rules().is_empty() || decision.reason().is_some() {
            let rules = printable(&decision.rules().join(", "), Lines::Escape);
            let reason = printable(decision.reason().unwrap_or_default(), Lines::Escape);
            writeln!(self.out, "  {}", self.dim(format!("{rules}: {reason}").trim()))?;
        }
        let known = Known {
            of: event.of,
            text: (!command.text.is_empty())
                .then(|| shortened(&command.text, VALUE_SHOWN * 2).into()),
            columns: None,
            formats: formats(command),
        };
        if command.text.is_empty() {
            if let Some(text) = event.of.and_then(|of| self.origin(of, |known| known.text.clone()))
            {
                let text = printable(&text, Lines::Escape);
                writeln!(self.out, "  {}", self.dim(&text))?;
            }
        } else {
            let text = printable(&shortened(&command.text, TEXT_SHOWN), Lines::Keep);
            for line in text.lines() {
                writeln!(self.out, "  {line}")?;
            }
        }
        if matches!(&*command.form, "parse" | "bind") {
            self.prepared = Some(event.sequence);
        }
        self.commands.insert(event.sequence, known);
        if self.commands.len() > REMEMBERED {
            self.commands.pop_first();
        }
        Ok(())
    }

    fn outcome(&mut self, event: &Event, outcome: &Outcome) -> io::Result<()> {
        let mut parts = Vec::new();
        if let Some(status) = &outcome.status {
            parts.push(printable(status, Lines::Escape));
        }
        if let Some(rows) = outcome.rows {
            parts.push(format!("{rows} row{}", if rows == 1 { "" } else { "s" }));
        }
        parts.push(duration(outcome.duration_us));
        let of = event.of.map(|of| format!("#{of} ")).unwrap_or_default();
        let line = format!("  {of}{}", parts.join(", "));
        writeln!(self.out, "{}", self.dim(&line))?;
        if let Some(error) = &outcome.error {
            let [code, message] =
                [&error.code, &error.message].map(|text| printable(text, Lines::Escape));
            writeln!(self.out, "  {}", self.red(&format!("{code}: {message}")))?;
        }
        Ok(())
    }

    /// An event of a channel.
    fn channel(&mut self, event: &Event) -> io::Result<()> {
        let Some(channels) = &mut self.channels else { return Ok(()) };
        let shown = channels.show(event, self.options.live);
        if !matches!(shown, Shown::Screen(_) | Shown::Nothing) {
            self.leave_screen()?;
        }
        match shown {
            Shown::Screen(text) => {
                self.drawn = true;
                write!(self.out, "{text}")
            }
            Shown::Text(text, error) => {
                for line in text.lines() {
                    let line = if error { self.red(line) } else { line.to_owned() };
                    writeln!(self.out, "  {line}")?;
                }
                Ok(())
            }
            Shown::Remark(text) => writeln!(self.out, "  {}", self.dim(&text)),
            Shown::Nothing => Ok(()),
            Shown::Unknown => {
                let told = format!("event {} is no message of a channel", event.sequence);
                writeln!(self.out, "{}", self.red(&told))
            }
        }
    }

    /// Puts the terminal back to how it was before a recorded one wrote to it.
    fn leave_screen(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.drawn) {
            writeln!(self.out, "{RESET}")?;
        }
        Ok(())
    }

    fn down(&mut self, event: &Event) -> io::Result<()> {
        let Some(mut messages) = self.messages.take() else { return Ok(()) };
        let mut seen = Ok(());
        let fed = messages.feed(event.of, &event.payload, |of, message| {
            if seen.is_ok() {
                seen = self.message(of, message);
            }
        });
        seen?;
        if fed.is_ok() {
            self.messages = Some(messages);
        } else {
            let told = "the recorded bytes are no Postgres messages from here on";
            writeln!(self.out, "{}", self.red(told))?;
        }
        Ok(())
    }

    fn message(&mut self, of: Option<Sequence>, message: Message) -> io::Result<()> {
        match message {
            Message::RowDescription(columns) => {
                self.flush_rows()?;
                let columns: Rc<[Column]> = columns.into();
                // The answer to a Describe says not whose; it is asked for what was prepared last.
                if let Some(known) = of.or(self.prepared).and_then(|of| self.commands.get_mut(&of))
                {
                    known.columns = Some(Rc::clone(&columns));
                }
                self.result.describe(Some(columns), 0);
            }
            Message::DataRow(row) => self.row(of, &row),
            Message::CopyData(bytes) => self.copied += bytes,
            Message::CommandComplete(_) | Message::EmptyQuery | Message::PortalSuspended => {
                self.flush_rows()?;
                self.result.forget_columns();
            }
            Message::Error(fields) => {
                self.flush_rows()?;
                self.result.forget_columns();
                self.fields(&fields, true)?;
            }
            Message::Notice(fields) => {
                self.flush_rows()?;
                self.fields(&fields, false)?;
            }
            Message::Other => {}
        }
        Ok(())
    }

    fn row(&mut self, of: Option<Sequence>, row: &[Option<Vec<u8>>]) {
        if self.result.is_empty() {
            let described = of.and_then(|of| self.origin(of, |known| known.columns.clone()));
            self.result.describe(described, row.len());
        }
        let formats = of.and_then(|of| self.origin(of, |known| known.formats.clone()));
        self.result.add(row, formats.as_deref(), self.options.rows);
    }

    /// Prints the rows that came, if any did.
    fn flush_rows(&mut self) -> io::Result<()> {
        let copied = std::mem::take(&mut self.copied);
        if copied > 0 {
            writeln!(self.out, "  {}", self.dim(&format!("{copied} bytes copied out")))?;
        }
        if let Some((table, more)) = self.result.take(self.options.width) {
            writeln!(self.out, "{table}")?;
            if more > 0 {
                writeln!(self.out, "  {}", self.dim(&format!("… {more} more rows")))?;
            }
        }
        Ok(())
    }

    fn fields(&mut self, fields: &Fields, error: bool) -> io::Result<()> {
        let safe = |bytes: &[u8]| shortened(&printable_bytes(bytes, Lines::Escape), TEXT_SHOWN);
        let mut line =
            format!("{} {}: {}", safe(&fields.severity), safe(&fields.code), safe(&fields.message));
        for (name, text) in [("detail", &fields.detail), ("hint", &fields.hint)] {
            if !text.is_empty() {
                line.push_str(&format!(" ({name}: {})", safe(text)));
            }
        }
        let line = if error { self.red(&line) } else { self.dim(&line) };
        writeln!(self.out, "  {line}")
    }

    /// Looks at a command and what it refers to, an execute's bind and its parse, for the first
    /// that knows.
    fn origin<T>(&self, mut of: Sequence, knows: impl Fn(&Known) -> Option<T>) -> Option<T> {
        for _ in 0..3 {
            let known = self.commands.get(&of)?;
            if let Some(found) = knows(known) {
                return Some(found);
            }
            of = known.of?;
        }
        None
    }

    /// Decodes a payload and shows it; one that is not what its kind says is shown as such.
    fn with<T: DeserializeOwned>(
        &mut self,
        event: &Event,
        show: impl FnOnce(&mut Self, T) -> io::Result<()>,
    ) -> io::Result<()> {
        match serde_json::from_slice(&event.payload) {
            Ok(payload) => show(self, payload),
            Err(_) => {
                let kind = event.kind.as_str();
                let told = format!("event {} is no {kind} that can be read", event.sequence);
                writeln!(self.out, "{}", self.red(&told))
            }
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.options.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    fn red(&self, text: &str) -> String {
        self.paint("31", text)
    }

    fn green(&self, text: &str) -> String {
        self.paint("32", text)
    }

    fn yellow(&self, text: &str) -> String {
        self.paint("33", text)
    }
}

/// Names and values of the extended protocol, in one line.
fn details(command: &Command) -> Option<String> {
    let mut parts = Vec::new();
    for name in ["statement", "portal"] {
        if let Some(serde_json::Value::String(text)) = command.attributes.get(name)
            && !text.is_empty()
        {
            parts.push(format!(
                "{name} {}",
                shortened(&printable(text, Lines::Escape), VALUE_SHOWN)
            ));
        }
    }
    if let Some(serde_json::Value::Array(parameters)) = command.attributes.get("parameters") {
        for (n, parameter) in parameters.iter().take(COLUMNS_SHOWN).enumerate() {
            let shown = match parameter {
                serde_json::Value::Null => "NULL".to_owned(),
                serde_json::Value::String(text) => format!("'{text}'"),
                serde_json::Value::Object(map) => match map.get("hex") {
                    Some(serde_json::Value::String(hex)) => format!("\\x{hex}"),
                    _ => parameter.to_string(),
                },
                other => other.to_string(),
            };
            let shown = shortened(&printable(&shown, Lines::Escape), VALUE_SHOWN);
            parts.push(format!("${} = {shown}", n + 1));
        }
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn formats(command: &Command) -> Option<Vec<bool>> {
    let formats = command.attributes.get("result_formats")?.as_array()?;
    Some(formats.iter().map(|format| format.as_u64() == Some(1)).collect())
}

fn duration(us: u64) -> String {
    let us = Duration::from_micros(us);
    if us < Duration::from_secs(1) {
        format!("{:.1} ms", us.as_secs_f64() * 1e3)
    } else {
        format!("{:.2} s", us.as_secs_f64())
    }
}
