//! Masks of what channels carry.
//!
//! What programs write is text, masked as it passes, each stream by itself. A terminal waits no
//! longer than [`PATIENCE`] for what may be the beginning of a secret: then its client sees it, and
//! the recording goes on waiting. Files and forwarded connections cannot be masked: where a mask
//! is in force for the client they are refused, where it is lifted only their lengths are recorded.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::decode::ssh::KINDS;
use crate::gate::{Against, Asked, Plan, Ruling};
use crate::mask::{MaskPlan, Masked, Output, PATTERNS, document};
use crate::policy::{Command, Effect, Object};
use crate::recording::Sequence;

/// How long a terminal waits for what may be the beginning of a secret: little enough for who
/// types and waits for the echo.
const PATIENCE: Duration = Duration::from_millis(100);
/// Why files are refused, for the client.
pub(super) const NO_FILES: &str =
    "Files are masked here, and cannot be while they are transferred.";
/// Why connections are refused; the client is not told.
pub(super) const NO_FORWARDS: &str =
    "What is masked here cannot be in a connection that is forwarded.";

/// What a channel carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carries {
    /// What programs write and read.
    Text {
        /// To a terminal.
        terminal: bool,
    },
    /// Files, or whatever goes through a forwarded connection.
    Anything,
}

impl Carries {
    /// What a command line carries: some serve file transfers.
    pub(super) fn of(command: &Command, terminal: bool) -> Self {
        let files = command.effects.iter().any(|effect| effect.attributes.contains_key("via"));
        if files { Self::Anything } else { Self::Text { terminal } }
    }
}

/// The masks of one channel.
#[derive(Debug)]
pub(super) struct Masking {
    plan: Arc<MaskPlan>,
    carries: Carries,
    streams: Mutex<Streams>,
}

#[derive(Debug)]
struct Streams {
    /// Standard output, standard error.
    out: [Output; 2],
    input: Output,
    found: u64,
    /// Since when the client waits for something.
    waits: Option<Instant>,
    /// The client knows that bytes were changed that are no text.
    told: bool,
}

impl Masking {
    pub(super) fn new(plan: Arc<MaskPlan>, carries: Carries) -> Self {
        let to_terminal = carries == Carries::Text { terminal: true };
        let output = || plan.output(to_terminal);
        let (out, input) = ([output(), output()], plan.output(false));
        let streams = Streams { out, input, found: 0, waits: None, told: false };
        Self { carries, streams: Mutex::new(streams), plan }
    }

    /// Whether text is masked, for whosever eyes.
    pub(super) fn masks_text(&self) -> bool {
        self.plan.has_patterns() && self.carries != Carries::Anything
    }

    /// Whether only lengths are recorded.
    pub(super) fn keeps_lengths(&self) -> bool {
        self.plan.has_patterns() && self.carries == Carries::Anything
    }

    /// Whether files must not reach the client.
    pub(super) fn hides_files(&self) -> bool {
        self.against(NO_FILES).is_some()
    }

    /// What is against reading files.
    pub(super) fn against(&self, reason: &'static str) -> Option<Against> {
        against(&self.plan, reason)
    }

    /// Whether the client may see this whole text.
    pub(super) fn may_be_seen(&self, text: &[u8]) -> bool {
        self.plan.text(&Bytes::copy_from_slice(text)).shown() == text
    }

    /// A line that was typed, as its echo is recorded.
    pub(super) fn line(&self, text: &str) -> String {
        let masked = self.plan.text(&Bytes::copy_from_slice(text.as_bytes()));
        String::from_utf8_lossy(masked.stored()).into_owned()
    }

    /// Decides and records a command within the channel's.
    pub(super) fn decide(
        &self,
        plan: &mut Plan<'_>,
        range: Range<usize>,
        command: &Command,
        against: Option<Against>,
    ) -> (Sequence, Ruling) {
        decide(&self.plan, plan, range, command, against)
    }

    /// Something whole that is no text: what is recorded of it is all, or nothing.
    pub(super) fn whole(&self, bytes: Bytes) -> Masked {
        let stored = if self.keeps_lengths() { Bytes::new() } else { bytes.clone() };
        Masked::by_value(bytes, stored)
    }

    /// The next of standard output or standard error.
    pub(super) fn output(&self, code: Option<u32>, bytes: Bytes) -> Masked {
        if !self.masks_text() {
            return self.whole(bytes);
        }
        let mut streams = self.streams.lock();
        let masked = streams.of(code).push(&bytes);
        let held = streams.out.iter().any(|output| output.held() > 0);
        let since = streams.waits.filter(|_| masked.shown().is_empty());
        streams.waits = held.then(|| since.unwrap_or_else(Instant::now));
        masked
    }

    /// What is recorded of the next input.
    pub(super) fn input(&self, bytes: &Bytes) -> Bytes {
        match self.masks_text() {
            true => self.streams.lock().input.push(bytes).stored().clone(),
            false => bytes.clone(),
        }
    }

    /// What is left to be recorded of the input.
    pub(super) fn rest_of_input(&self) -> Bytes {
        self.streams.lock().input.finish().0.stored().clone()
    }

    /// Waits until a terminal has waited long enough. Cancel safe.
    pub(super) async fn patience(&self) {
        let waits = self.streams.lock().waits;
        match waits {
            Some(since) if self.carries == Carries::Text { terminal: true } => {
                tokio::time::sleep_until(since + PATIENCE).await;
            }
            _ => std::future::pending().await,
        }
    }

    /// What a terminal has waited for.
    pub(super) fn give_up(&self) -> [(Option<u32>, Masked); 2] {
        let mut streams = self.streams.lock();
        streams.waits = None;
        let [out, err] = &mut streams.out;
        [(None, out.give_up()), (Some(1), err.give_up())]
    }

    /// What is left of the output.
    pub(super) fn rest(&self) -> [(Option<u32>, Masked); 2] {
        let mut streams = self.streams.lock();
        streams.waits = None;
        let [(out, some), (err, more)] = streams.out.each_mut().map(Output::finish);
        streams.found += some + more;
        [(None, out), (Some(1), err)]
    }

    /// What the client is told of output that is not text and was changed; once, at its end. A
    /// terminal shows what was masked.
    pub(super) fn notice(&self) -> Option<String> {
        let mut streams = self.streams.lock();
        let altered: u64 = streams.out.iter().filter_map(Output::altered).sum();
        let terminal = self.carries == Carries::Text { terminal: true };
        if altered == 0 || terminal || std::mem::replace(&mut streams.told, true) {
            return None;
        }
        let values = if altered == 1 { "value" } else { "values" };
        Some(format!(
            "portcullis: this output is not text, and masks replaced {altered} {values} in it: its bytes \
             are not those that the program wrote\r\n"
        ))
    }

    /// How many secrets were masked so far in what is recorded.
    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        let found = self.streams.lock().found;
        (found > 0).then(|| (PATTERNS.to_owned(), found)).into_iter().collect()
    }
}

impl Streams {
    /// Standard error, and whatever else is beside standard output.
    fn of(&mut self, code: Option<u32>) -> &mut Output {
        let [out, err] = &mut self.out;
        if code.is_none() { out } else { err }
    }
}

/// What masks in force for the client are against what they cannot be applied to.
pub(super) fn against(plan: &MaskPlan, reason: &'static str) -> Option<Against> {
    let masks: Vec<Arc<str>> = plan.patterns_shown().cloned().collect();
    (!masks.is_empty()).then_some(Against { masks, reason: reason.into() })
}

/// Decides and records a command; the recording has it as it may be seen.
pub(super) fn decide(
    masks: &Arc<MaskPlan>,
    plan: &mut Plan<'_>,
    range: Range<usize>,
    command: &Command,
    against: Option<Against>,
) -> (Sequence, Ruling) {
    let seen = view(masks, command);
    let recorded = seen.as_ref().unwrap_or(command);
    let (effects, seen_effects) = ([&*command.effects], [&*recorded.effects]);
    plan.ask(
        range,
        &Asked {
            commands: &[command.parts(&effects)],
            view: recorded.parts(&seen_effects),
            withheld: seen.is_some(),
            prepares: false,
            of: None,
            against,
            sent: None,
        },
    )
}

/// What is stored of a command; `None` where that is the command itself.
fn view(plan: &Arc<MaskPlan>, command: &Command) -> Option<Command> {
    if !plan.has_patterns() {
        return None;
    }
    let mut seen = command.clone();
    seen.text = plan.view(&command.text).into_owned();
    for (name, value) in &mut seen.attributes {
        if name != "channel" {
            *value = masked(plan, value);
        }
    }
    for Effect { object, attributes, .. } in &mut seen.effects {
        if let Some(named) = object.as_ref()
            && let Some(name) = named.name()
            && let Some(kind) = KINDS.iter().find(|kind| **kind == named.kind())
        {
            *object = Some(Object::named(kind, plan.view(name)));
        }
        attributes.values_mut().for_each(|value| *value = masked(plan, value));
    }
    (seen != *command).then_some(seen)
}

fn masked(plan: &Arc<MaskPlan>, value: &serde_json::Value) -> serde_json::Value {
    let masked = document(plan, &Bytes::from(value.to_string()));
    serde_json::from_slice(masked.stored()).unwrap_or(serde_json::Value::Null)
}
