//! Wire replay: a recording of Postgres answers an ordinary client, and no target is there.
//!
//! A statement is answered with what its recording has: the same rows, the same error. One that ran
//! several times is answered in that order, and from then on as it was the last time. What is not
//! recorded gets an error that says so. Masked values are not in the recording, so they stay masked.
//!
//! Where the recording withholds literals or values, any that a client sends there fit, and a
//! notice says so. What drivers send by themselves (the beginning and end of transactions,
//! `DEALLOCATE`) is answered also where it is not recorded. Limits: rows recorded as text are not made binary; nothing is
//! cancelled, notified or copied in beyond what was.

mod answer;
mod fitting;
mod listening;
mod pieces;
mod portal;
mod session;
mod tape;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

pub use tape::Tape;

use super::handshake::{Purpose, Turned, greet, say_goodbye, startup_message};
use super::refusal::{self, Refusal};
use super::stream::Stream;
use session::Session;

/// How long a client may take to say what it wants.
const GREETING: Duration = Duration::from_secs(30);

/// Answers one client from a recording until it leaves.
pub async fn answer(tcp: TcpStream, tape: Arc<Tape>) {
    let Ok((stream, purpose)) = timeout(GREETING, greet(tcp, None)).await else { return };
    let (Some(mut stream), Ok(Purpose::Session(packet))) = (stream, purpose) else { return };
    match begin(&mut stream, &packet, &tape).await {
        Ok(()) => {
            if let Err(error) = Session::new(stream, tape).run().await {
                tracing::debug!(%error, "client of a replay gone");
            }
        }
        Err(Turned::Away(refusal)) => say_goodbye(&mut stream, &refusal).await,
        Err(turned) => tracing::debug!(reason = %turned, "client of a replay dropped"),
    }
}

/// Lets a client in as the target once did.
async fn begin(stream: &mut Stream, packet: &[u8], tape: &Tape) -> Result<(), Turned> {
    use tokio::io::AsyncWriteExt as _;

    let startup = startup_message(packet)?;
    if startup.parameter("replication").is_some_and(|value| value != "false") {
        return Err(Turned::Away(Refusal::Replication));
    }
    let names = startup.parameters.iter().map(|(name, _)| *name);
    let unknown: Vec<&str> = names.filter(|name| name.starts_with("_pq_.")).collect();
    if startup.minor != 0 || !unknown.is_empty() {
        let words = refusal::negotiate_version(0, &unknown);
        stream.write_all(words.as_bytes()).await?;
    }
    // Nobody can cancel what takes no time.
    let welcome = refusal::welcome(&tape.settings, &[], 0, &[0; 4]);
    stream.write_all(welcome.as_bytes()).await?;
    stream.flush().await?;
    Ok(())
}
