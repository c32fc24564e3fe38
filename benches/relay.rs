//! A plain byte relay: what any process between client and server costs, and the measure for what
//! the gateway does beyond that. Knows no protocol, records nothing, decides nothing.
//!
//! Usage: `relay LISTEN UPSTREAM`; prints the bound address.

use std::io::Write as _;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(upstream)) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("usage: relay LISTEN UPSTREAM");
    };
    let listener = TcpListener::bind(listen).await?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    let connections = TaskTracker::new();
    loop {
        let (downstream, _) = listener.accept().await?;
        connections.spawn(relay(downstream, upstream.clone()));
    }
}

async fn relay(mut downstream: TcpStream, upstream: String) -> std::io::Result<()> {
    let mut upstream = TcpStream::connect(upstream).await?;
    downstream.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    copy_bidirectional(&mut downstream, &mut upstream).await?;
    Ok(())
}
