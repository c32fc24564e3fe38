//! `portcullis replay`: shows a recording in the terminal, or answers clients from it.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::fetched::Fetched;
use super::identities::Identities;
use super::{gateway, output};
use crate::app::replaying::WireReplay;
use crate::recording::{Keyring, Reader};
use crate::replay::export::json_lines;
use crate::replay::{self, Pace, ReplayError};

/// Show a recording in the terminal: commands, decisions, rows. Or let it answer a client.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  portcullis replay 019aa0c2-7f11-7d9e-a3c1-2b6f0e5d4c3b --speed 4\n  \
                  portcullis replay /var/lib/portcullis/recordings/2026-11-20/SESSION.rec --step\n  \
                  portcullis replay SESSION.rec --serve 127.0.0.1:0"
)]
#[group(skip)]
pub(super) struct Options {
    /// A session's id, which the gateway is asked for, or a recording's file, SESSION.rec.
    #[arg(value_name = "ID | PATH")]
    what: String,
    #[command(flatten)]
    gateway: gateway::Options,
    #[command(flatten)]
    identities: Identities,
    /// Keep the recorded timing, N times as fast; terminals are shown as they were. A key pauses,
    /// q ends.
    #[arg(long, value_name = "N", value_parser = speed)]
    speed: Option<f64>,
    /// Wait for Enter or space before each command; q ends.
    #[arg(long)]
    step: bool,
    /// With --speed: no wait is longer than this, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = speed, requires = "speed")]
    idle: Option<f64>,
    /// Rows shown of each result.
    #[arg(long, value_name = "N", default_value_t = 50)]
    rows: usize,
    /// No colours, on a terminal too; the environment variable `NO_COLOR` says the same.
    #[arg(long)]
    no_color: bool,
    /// Answer ordinary clients at this address from the recording instead: psql and drivers for a
    /// session of Postgres, curl for one of HTTP. A loopback address; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with_all = ["speed", "step"])]
    serve: Option<SocketAddr>,
    /// Print every event as a line of JSON instead; bytes are base64. With --serve: where it
    /// listens.
    #[arg(long, conflicts_with_all = ["speed", "step"])]
    json: bool,
}

pub(super) async fn run(options: Options) -> anyhow::Result<()> {
    let keyed = options.identities.given();
    let place = Fetched::or_file(&options.what, &options.gateway, keyed).await?;
    let path = place.path();
    let keyring = options.identities.keyring().await?;
    match options.serve {
        Some(address) => serve(&options, (path, &keyring), address).await,
        None => play(&options, path, &keyring),
    }
}

/// Answers clients from the recording until Ctrl-C.
async fn serve(
    options: &Options,
    (path, keyring): (&Path, &Keyring),
    address: SocketAddr,
) -> anyhow::Result<()> {
    let replay = WireReplay::open(path, keyring, address)
        .await
        .with_context(|| format!("cannot answer from {}", options.what))?;
    if options.json {
        output::print_json(&serde_json::json!({
            "protocol": replay.protocol(),
            "address": replay.address(),
            "line": replay.line(),
        }))?;
    } else {
        output::print(&format!(
            "{} at {} answers from the recording: {}. Ctrl-C ends it.\n{}",
            replay.protocol(),
            replay.address(),
            replay.title(),
            replay.line()
        ))?;
    }
    tokio::select! {
        served = replay.serve() => served,
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}

fn play(options: &Options, path: &Path, keyring: &Keyring) -> anyhow::Result<()> {
    let shown = &options.what;
    let reader =
        Reader::open_with(path, keyring).with_context(|| format!("cannot replay {shown}"))?;
    let stdout = io::stdout();
    let terminal = stdout.is_terminal();
    if options.step && !(terminal && io::stdin().is_terminal()) {
        bail!("--step needs a terminal; leave it out, or use --speed");
    }
    let mut out = io::BufWriter::new(stdout.lock());
    let played = if options.json {
        json_lines(reader, &mut out)
    } else {
        let no_colour =
            options.no_color || std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let size = terminal.then(|| rustix::termios::tcgetwinsize(&stdout).ok()).flatten();
        let look = replay::Options {
            colour: terminal && !no_colour,
            rows: options.rows,
            width: size.map(|size| size.ws_col).filter(|width| *width > 0),
            live: terminal && options.speed.is_some(),
        };
        let keys = terminal && io::stdin().is_terminal();
        let mut pace =
            Keyboard { speed: options.speed, idle: options.idle, step: options.step, keys };
        replay::play(reader, &mut out, &look, &mut pace)
    };
    // What came before a damage is shown before the damage is told.
    let flushed = out.flush();
    match played {
        // Whoever watched has seen enough.
        Err(ReplayError::Io(error)) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        Err(ReplayError::Io(error)) => Err(error.into()),
        Err(error) => Err(error).with_context(|| format!("cannot replay {shown} to its end")),
        Ok(()) => Ok(flushed?),
    }
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if speed.is_finite() && speed >= 0.0 => Ok(speed),
        _ => Err("a number from 0; 2 is twice as fast, 0 does not wait".to_owned()),
    }
}

/// The person at the terminal.
struct Keyboard {
    speed: Option<f64>,
    /// The longest wait, in seconds.
    idle: Option<f64>,
    /// Whether somebody can press a key.
    keys: bool,
    step: bool,
}

impl Pace for Keyboard {
    fn passed(&mut self, recorded: Duration) -> io::Result<()> {
        if let Some(speed) = self.speed.filter(|speed| *speed > 0.0) {
            let seconds = recorded.as_secs_f64() / speed;
            let seconds = self.idle.map_or(seconds, |idle| seconds.min(idle));
            let wait = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
            if self.keys {
                return rest(wait);
            }
            std::thread::sleep(wait);
        }
        Ok(())
    }

    fn step(&mut self) -> io::Result<bool> {
        if !self.step {
            return Ok(true);
        }
        loop {
            match key()? {
                None | Some(b'q' | b'Q' | 3 | 4) => return Ok(false),
                Some(b' ' | b'\r' | b'\n') => return Ok(true),
                Some(_) => {}
            }
        }
    }
}

/// Waits so long; a key pauses until the next one, q ends.
fn rest(wait: Duration) -> io::Result<()> {
    let ends = Instant::now().checked_add(wait);
    let stdin = io::stdin();
    let before = tcgetattr(&stdin)?;
    let mut raw = before.clone();
    raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
    tcsetattr(&stdin, OptionalActions::Now, &raw)?;
    let pressed = loop {
        let left = ends
            .map_or(Duration::from_secs(60), |ends| ends.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            break Ok(false);
        }
        let timeout = Timespec::try_from(left.min(Duration::from_secs(60)));
        let mut ready = [PollFd::new(&stdin, PollFlags::IN)];
        match poll(&mut ready, timeout.ok().as_ref()) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => break Ok(true),
            Err(error) => break Err(error),
        }
    };
    tcsetattr(&stdin, OptionalActions::Now, &before)?;
    if !pressed? {
        return Ok(());
    }
    let ends = |key: Option<u8>| matches!(key, None | Some(b'q' | b'Q' | 3 | 4));
    // The first key pauses, the next goes on.
    if ends(key()?) || ends(key()?) {
        return Err(io::ErrorKind::Interrupted.into());
    }
    Ok(())
}

/// One key, without its echo. The terminal's signals are off for that moment, so that none
/// leaves it without echo; Ctrl-C comes as 3.
fn key() -> io::Result<Option<u8>> {
    let stdin = io::stdin();
    let before = tcgetattr(&stdin)?;
    let mut raw = before.clone();
    raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
    tcsetattr(&stdin, OptionalActions::Now, &raw)?;
    let mut byte = [0];
    let read = rustix::io::read(&stdin, &mut byte);
    tcsetattr(&stdin, OptionalActions::Now, &before)?;
    let [byte] = byte;
    Ok((read? == 1).then_some(byte))
}
