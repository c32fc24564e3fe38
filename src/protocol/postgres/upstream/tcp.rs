//! TCP to a target.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use super::UpstreamError;

/// All addresses of a target together have this long; a server that is up answers in one round trip.
const TCP_TIME: Duration = Duration::from_secs(10);

/// A target that vanished without a word is noticed after 60 + 3 * 10 seconds.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// Connects to the first address of the host that answers. Each gets an even share of the time
/// that is left, so that one silent address does not hide the others. A resolver that hangs keeps
/// its thread until the system gives up.
pub(super) async fn connect(
    host: &str,
    port: u16,
    deadline: Instant,
) -> Result<TcpStream, UpstreamError> {
    let deadline = deadline.min(Instant::now() + TCP_TIME);
    let addresses: Vec<SocketAddr> = timeout_at(deadline, lookup_host((host, port)))
        .await
        .map_err(|_| UpstreamError::Timeout { doing: "the address lookup" })?
        .map_err(|source| UpstreamError::Resolve { host: host.to_owned(), source })?
        .collect();

    let mut failure = UpstreamError::Resolve {
        host: host.to_owned(),
        source: io::Error::from(io::ErrorKind::NotFound),
    };
    for (address, left) in addresses.iter().zip((1..=addresses.len()).rev()) {
        let now = Instant::now();
        let share = (deadline - now) / u32::try_from(left).unwrap_or(u32::MAX);
        match connect_to(*address, now + share).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Connects to one address.
pub(super) async fn connect_to(
    address: SocketAddr,
    deadline: Instant,
) -> Result<TcpStream, UpstreamError> {
    let failed = |source| UpstreamError::Connect { address: address.to_string(), source };
    let tcp = timeout_at(deadline, TcpStream::connect(address))
        .await
        .map_err(|_| failed(io::Error::from(io::ErrorKind::TimedOut)))?
        .map_err(failed)?;
    // Without these the connection works, only worse.
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    if let Err(error) =
        tcp.set_nodelay(true).and_then(|()| SockRef::from(&tcp).set_tcp_keepalive(&keepalive))
    {
        tracing::debug!(%error, "socket options not set");
    }
    Ok(tcp)
}
