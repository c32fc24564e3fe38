//! Accepting connections: how many, how long they may take to show who they are, and from whom a
//! PROXY protocol header is believed.
//!
//! Accepting never waits for those who are silent: connections that have not shown who they are
//! make way for new ones, the oldest of the address that has too many first.
//!
//! The header is read from `trusted_proxies` alone, and optional there, so that clients in the
//! same network may also come directly. Its TLVs are skipped.

pub mod connections;
pub mod room;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::shutdown::Shutdown;

/// From accept to an open session: TLS, the token's verification and the target's own login.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(30);

/// How long accepting rests when the process or machine has no descriptor left: trying again at
/// once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What bounds the connections of all listeners together.
#[derive(Debug)]
pub struct Limits {
    handshakes: Arc<Handshakes>,
    sessions: Arc<Semaphore>,
}

impl Limits {
    /// Room for so many sessions, and for so many connections that have not shown who they are.
    pub fn new(max_sessions: usize, unproved: usize) -> Self {
        Self {
            handshakes: Arc::new(Handshakes::new(unproved)),
            sessions: Arc::new(Semaphore::new(max_sessions.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Room for one session, or `None` when all is taken. Dropping it gives it back.
    pub fn session(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.sessions).try_acquire_owned().ok()
    }
}

/// Connections that have not shown who they are, by address, the oldest first.
#[derive(Debug)]
struct Handshakes {
    most: usize,
    /// How many of them one address may have: enough for a crew that starts behind one NAT.
    share: usize,
    unproved: Mutex<Unproved>,
}

#[derive(Debug, Default)]
struct Unproved {
    by_address: HashMap<IpAddr, VecDeque<(u64, CancellationToken)>>,
    count: usize,
    next: u64,
}

impl Handshakes {
    fn new(most: usize) -> Self {
        Self { most, share: (most / 4).max(1), unproved: Mutex::default() }
    }

    /// Takes one more in. When its address, or all together, have too many, the oldest of the
    /// address, or of the one that has the most, is told to go.
    fn admit(self: &Arc<Self>, address: IpAddr, shared: bool) -> (Handshake, CancellationToken) {
        let address = network_of(address);
        let gone = CancellationToken::new();
        let mut unproved = self.unproved.lock();
        let number = unproved.next;
        unproved.next += 1;
        let own = unproved.by_address.get(&address).map_or(0, VecDeque::len);
        if own >= self.share && !shared {
            unproved.drop_oldest(address);
        } else if unproved.count >= self.most
            && let Some(most) = unproved.greediest()
        {
            unproved.drop_oldest(most);
        }
        unproved.by_address.entry(address).or_default().push_back((number, gone.clone()));
        unproved.count += 1;
        drop(unproved);
        (Handshake { all: Arc::clone(self), address, number }, gone)
    }
}

impl Unproved {
    fn greediest(&self) -> Option<IpAddr> {
        let most = self.by_address.iter().max_by_key(|(_, waiting)| waiting.len());
        most.map(|(address, _)| *address)
    }

    fn drop_oldest(&mut self, address: IpAddr) {
        let Some(waiting) = self.by_address.get_mut(&address) else { return };
        if let Some((_, gone)) = waiting.pop_front() {
            gone.cancel();
            self.count -= 1;
        }
        if waiting.is_empty() {
            self.by_address.remove(&address);
        }
    }

    fn remove(&mut self, address: IpAddr, number: u64) {
        let Some(waiting) = self.by_address.get_mut(&address) else { return };
        // Numbers only grow.
        if let Ok(at) = waiting.binary_search_by_key(&number, |(number, _)| *number) {
            waiting.remove(at);
            self.count -= 1;
        }
        if waiting.is_empty() {
            self.by_address.remove(&address);
        }
    }
}

/// One connection's place among those that have not shown who they are. Once this is dropped, the
/// connection makes way for nobody.
#[derive(Debug)]
pub struct Handshake {
    all: Arc<Handshakes>,
    address: IpAddr,
    number: u64,
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.all.unproved.lock().remove(self.address, self.number);
    }
}

/// What counts as one address: of IPv6 the /64, of which every host has all.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

/// Something scarce that whoever connects may take: so much altogether, and a share of it for each
/// address. What is given back early still counts for a while.
#[derive(Debug)]
pub struct Shares {
    most: usize,
    share: usize,
    hold: Duration,
    taken: Mutex<HashMap<IpAddr, Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    in_use: usize,
    /// Until when those count that were given back early.
    early: Vec<Instant>,
}

impl Taken {
    fn count(&self) -> usize {
        self.in_use + self.early.len()
    }
}

impl Shares {
    /// `most` altogether, `share` for each address; each counts for `hold` at least.
    pub fn new(most: usize, share: usize, hold: Duration) -> Arc<Self> {
        Arc::new(Self { most, share, hold, taken: Mutex::default() })
    }

    /// Takes one; none when all, or all of the address's share, are taken.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Option<Share> {
        let address = network_of(address);
        let now = Instant::now();
        let mut taken = self.taken.lock();
        // There are `most` entries at most.
        taken.retain(|_, of| {
            of.early.retain(|until| *until > now);
            of.count() > 0
        });
        let all: usize = taken.values().map(Taken::count).sum();
        let own = taken.get(&address).map_or(0, Taken::count);
        if all >= self.most || own >= self.share {
            return None;
        }
        taken.entry(address).or_default().in_use += 1;
        drop(taken);
        Some(Share { of: Arc::clone(self), address, until: now + self.hold })
    }
}

/// One of [`Shares`]; given back when this is dropped.
#[derive(Debug)]
pub struct Share {
    of: Arc<Shares>,
    address: IpAddr,
    until: Instant,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut all = self.of.taken.lock();
        let Some(taken) = all.get_mut(&self.address) else { return };
        taken.in_use = taken.in_use.saturating_sub(1);
        if self.until > Instant::now() {
            taken.early.push(self.until);
        } else if taken.count() == 0 {
            all.remove(&self.address);
        }
    }
}

/// A connection nobody has proved anything about yet.
#[derive(Debug)]
pub struct Accepted {
    /// The connection; small writes are not held back.
    pub stream: TcpStream,
    /// The client's address, as a trusted proxy told it or as the kernel sees it.
    pub client: SocketAddr,
    /// Held until the client has shown who it is; dropping it makes room for the next.
    pub handshake: Handshake,
}

/// Accepts until the drain begins and spawns `serve` for every connection.
pub async fn accept<S, F>(
    listener: TcpListener,
    limits: Arc<Limits>,
    trusted_proxies: Arc<[IpNet]>,
    shutdown: Shutdown,
    serve: S,
) where
    S: Fn(Accepted) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = shutdown.draining() => return,
        };
        let (serve, trusted) = (serve.clone(), Arc::clone(&trusted_proxies));
        let handshakes = Arc::clone(&limits.handshakes);
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        // A proxy brings many clients: the share is theirs, once it said who they are.
        let proxy = trusted.iter().any(|network| network.contains(&peer.ip()));
        let (waiting, gone) = handshakes.admit(peer.ip(), proxy);
        shutdown.sessions().spawn(async move {
            let introduced = tokio::select! {
                introduced = introduce(stream, peer, proxy) => introduced,
                () = gone.cancelled() => return made_way(peer),
            };
            let (stream, client) = match introduced {
                Ok(introduced) => introduced,
                Err(error) => return tracing::debug!(%peer, %error, "connection dropped"),
            };
            let (handshake, gone) = match proxy {
                true => {
                    drop(waiting);
                    handshakes.admit(client.ip(), false)
                }
                false => (waiting, gone),
            };
            tokio::select! {
                () = serve(Accepted { stream, client, handshake }) => {}
                () = gone.cancelled() => made_way(client),
            }
        });
    }
}

fn made_way(client: SocketAddr) {
    tracing::debug!(%client, "connection dropped: it had not logged in, and others came");
}

/// Sets the socket up, and finds out who the client is when a trusted proxy brings it.
async fn introduce(
    mut stream: TcpStream,
    peer: SocketAddr,
    proxy: bool,
) -> io::Result<(TcpStream, SocketAddr)> {
    stream.set_nodelay(true)?;
    if !proxy {
        return Ok((stream, peer));
    }
    let told = tokio::time::timeout(HANDSHAKE_DEADLINE, proxy_header(&mut stream)).await??;
    Ok((stream, told.unwrap_or(peer)))
}

/// The longest header of version 1, with its line end.
/// Source: "The PROXY protocol", section 2.1.
const MAX_V1: usize = 107;
/// The first 12 bytes of version 2. Source: the same, section 2.2.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest version 2 body that is read: addresses and a few TLVs.
const MAX_V2: usize = 2_048;

/// Reads a PROXY header if one is there. No protocol that is served starts with its first byte
/// (a TLS record and a Postgres packet start with 0x16 and 0x00).
async fn proxy_header(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    match first {
        [b'P'] => {
            let mut line = Vec::with_capacity(MAX_V1);
            while !line.ends_with(b"\r\n") {
                if line.len() == MAX_V1 {
                    return Err(io::Error::other("a PROXY header of version 1 is too long"));
                }
                line.push(stream.read_u8().await?);
            }
            version_1(&line)
        }
        [b'\r'] => {
            let mut head = [0; 16];
            stream.read_exact(&mut head).await?;
            let (signature, rest) = head.split_at(12);
            let [version_command, family, high, low] = *rest else {
                return Err(io::Error::other("a PROXY header is short"));
            };
            let length = usize::from(u16::from_be_bytes([high, low]));
            if signature != V2_SIGNATURE || version_command >> 4 != 2 || length > MAX_V2 {
                return Err(io::Error::other("a PROXY header of version 2 is malformed"));
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await?;
            version_2(version_command & 15, family, &body)
        }
        _ => Ok(None),
    }
}

fn version_1(line: &[u8]) -> io::Result<Option<SocketAddr>> {
    let malformed = || io::Error::other("a PROXY header of version 1 is malformed");
    let line = std::str::from_utf8(line).map_err(|_| malformed())?.trim_end_matches("\r\n");
    let words: Vec<&str> = line.split(' ').collect();
    match *words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", "TCP4" | "TCP6", source, _, port, _] => {
            let address: IpAddr = source.parse().map_err(|_| malformed())?;
            let port = port.parse().map_err(|_| malformed())?;
            Ok(Some(SocketAddr::new(address.to_canonical(), port)))
        }
        _ => Err(malformed()),
    }
}

fn version_2(command: u8, family: u8, body: &[u8]) -> io::Result<Option<SocketAddr>> {
    let malformed = || io::Error::other("a PROXY header of version 2 is malformed");
    match (command, family) {
        // LOCAL: the proxy's own health check.
        (0, _) => Ok(None),
        (1, 0x11) => {
            let [a, b, c, d, _, _, _, _, high, low] =
                *body.first_chunk::<10>().ok_or_else(malformed)?;
            let address = Ipv4Addr::new(a, b, c, d);
            Ok(Some(SocketAddr::new(address.into(), u16::from_be_bytes([high, low]))))
        }
        (1, 0x21) => {
            let source = body.first_chunk::<16>().ok_or_else(malformed)?;
            let port = body.get(32..34).and_then(|p| p.first_chunk::<2>()).ok_or_else(malformed)?;
            let address = IpAddr::V6(Ipv6Addr::from(*source)).to_canonical();
            Ok(Some(SocketAddr::new(address, u16::from_be_bytes(*port))))
        }
        _ => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    fn network(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    async fn introduced(sent: &[u8], trusted: &[IpNet]) -> io::Result<(SocketAddr, Vec<u8>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        client.write_all(sent).await.unwrap();
        client.shutdown().await.unwrap();
        let proxy = trusted.iter().any(|network| network.contains(&peer.ip()));
        let (mut stream, client) = introduce(stream, peer, proxy).await?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        Ok((client, rest))
    }

    #[test]
    fn networks_hold_their_addresses_only() {
        let holds =
            |text, address: &str| network(text).contains(&address.parse::<IpAddr>().unwrap());
        assert!(holds("10.0.0.0/8", "10.255.1.2"));
        assert!(!holds("10.0.0.0/8", "11.0.0.1"));
        assert!(!holds("10.0.0.0/8", "::1"));
        assert!(!holds("0.0.0.0/0", "::1") && !holds("::/0", "10.0.0.1"));
        assert!(holds("0.0.0.0/0", "203.0.113.9"));
        assert!(holds("2001:db8::/32", "2001:db8:1::1"));
        assert!(!holds("2001:db8::/128", "2001:db8::1"));
    }

    #[tokio::test]
    async fn a_trusted_proxy_says_who_the_client_is() {
        let trusted = [network("127.0.0.0/8")];
        let v1 = b"PROXY TCP4 203.0.113.9 10.0.0.1 5555 5432\r\nrest";
        let mut v2 = V2_SIGNATURE.to_vec();
        v2.extend([0x21, 0x11, 0, 15, 203, 0, 113, 9, 10, 0, 0, 1, 0x15, 0xB3, 0, 80, 3, 0, 0]);
        v2.extend(b"rest");
        for sent in [v1.to_vec(), v2] {
            let (client, rest) = introduced(&sent, &trusted).await.unwrap();
            assert_eq!(client, "203.0.113.9:5555".parse().unwrap());
            assert_eq!(rest, b"rest");
        }
        let (client, rest) = introduced(b"\0\0\0\x08", &trusted).await.unwrap();
        assert!(client.ip().is_loopback());
        assert_eq!(rest, b"\0\0\0\x08");
    }

    #[tokio::test]
    async fn nobody_else_is_believed() {
        let sent = b"PROXY TCP4 203.0.113.9 10.0.0.1 5555 5432\r\n";
        let (client, rest) = introduced(sent, &[network("10.0.0.0/8")]).await.unwrap();
        assert!(client.ip().is_loopback());
        assert_eq!(rest, sent);
    }

    #[tokio::test]
    async fn a_malformed_header_drops_the_connection() {
        let trusted = [network("127.0.0.0/8")];
        let endless = [&b"PROXY "[..], &[b'x'; 200]].concat();
        for sent in [&b"PROXY TCP4 nonsense\r\n"[..], b"\r\n\r\nwhatever else is here", &endless] {
            assert!(introduced(sent, &trusted).await.is_err());
        }
    }

    #[test]
    fn the_oldest_of_the_greediest_address_makes_way() {
        let (most, share) = (2_048, 512);
        let handshakes = Arc::new(Handshakes::new(most));
        let address = |n: usize| IpAddr::from([10, 0, 0, u8::try_from(n).unwrap()]);
        let mut held = Vec::new();
        for n in 0..share {
            held.push(handshakes.admit(address(1), false));
            assert!(!held[0].1.is_cancelled(), "{n}");
        }
        held.push(handshakes.admit(address(1), false));
        assert!(held[0].1.is_cancelled() && !held[1].1.is_cancelled());
        // It goes without a trace.
        drop(held.remove(0));
        for n in 2.. {
            let free = most - handshakes.unproved.lock().count;
            if free == 0 {
                break;
            }
            for _ in 0..free.min(100) {
                held.push(handshakes.admit(address(n), false));
            }
        }
        let newest = handshakes.admit(address(250), false);
        assert!(held[0].1.is_cancelled() && !held[1].1.is_cancelled());
        assert_eq!(handshakes.unproved.lock().count, most);
        assert!(!newest.1.is_cancelled());
        drop((held, newest));
        assert_eq!(handshakes.unproved.lock().count, 0);
        assert!(handshakes.unproved.lock().by_address.is_empty());
    }

    #[test]
    fn shares_are_of_addresses_and_count_for_a_while() {
        let shares = Shares::new(3, 2, Duration::from_secs(3600));
        let (one, other) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        let far: IpAddr = "192.0.2.1".parse().unwrap();
        let first = shares.take(one).unwrap();
        let _second = shares.take(other).unwrap();
        assert!(shares.take(one).is_none(), "they are of one /64");
        drop(first);
        assert!(shares.take(one).is_none(), "it was given back early");
        let _third = shares.take(far).unwrap();
        assert!(shares.take("192.0.2.2".parse().unwrap()).is_none(), "there are three");
        let brief = Shares::new(1, 1, Duration::ZERO);
        for _ in 0..3 {
            brief.take(far).unwrap();
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(bytes in prop::collection::vec(any::<u8>(), 0..120), family in any::<u8>()) {
            let _ = version_1(&bytes);
            let _ = version_2(1, family, &bytes);
        }
    }
}
