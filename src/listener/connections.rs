//! The connections of one listener for HTTP, and which of them gives way to a new one.
//!
//! A connection without a running request is kept as a favour: when there is no room, the one that has
//! been idle the longest is closed, of the address that has the most. So nobody who only opens
//! connections keeps others out.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// The connections that are open.
#[derive(Debug)]
pub struct Connections {
    most: usize,
    share: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: HashMap<u64, Entry>,
    /// How many each network has.
    networks: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Entry {
    network: IpAddr,
    usage: Arc<Usage>,
    close: CancellationToken,
}

#[derive(Debug)]
struct Usage {
    /// Requests that run.
    requests: AtomicUsize,
    /// Since when none runs, in milliseconds since the connection began.
    idle_since: AtomicU64,
    began: Instant,
}

impl Usage {
    /// Since when no request runs; `None` while one does.
    fn idle_since(&self) -> Option<Instant> {
        let since = Duration::from_millis(self.idle_since.load(Ordering::Acquire));
        (self.requests.load(Ordering::Acquire) == 0).then(|| self.began + since)
    }
}

/// One connection's place, until this is dropped.
#[derive(Debug)]
pub struct Place {
    connections: Arc<Connections>,
    id: u64,
    usage: Arc<Usage>,
    close: CancellationToken,
}

/// A request that runs on a connection, until this is dropped.
#[derive(Debug)]
pub struct Running(Arc<Usage>);

impl Connections {
    /// Room for so many, and for so many of one address.
    pub fn new(most: usize, share: usize) -> Arc<Self> {
        Arc::new(Self { most, share, open: Mutex::default() })
    }

    /// A place for a client's connection; an idle one may have to go. `None` where all that could go
    /// have requests running.
    pub fn enter(self: &Arc<Self>, client: IpAddr) -> Option<Place> {
        let network = network(client);
        let mut open = self.open.lock();
        let mine = open.networks.get(&network).copied().unwrap_or(0);
        if mine >= self.share {
            open.make_room(Some(network))?;
        } else if open.connections.len() >= self.most {
            open.make_room(None)?;
        }
        let id = open.next;
        open.next += 1;
        let close = CancellationToken::new();
        let (requests, idle_since) = (AtomicUsize::new(0), AtomicU64::new(0));
        let usage = Arc::new(Usage { requests, idle_since, began: Instant::now() });
        let entry = Entry { network, usage: Arc::clone(&usage), close: close.clone() };
        open.connections.insert(id, entry);
        *open.networks.entry(network).or_default() += 1;
        Some(Place { connections: Arc::clone(self), id, usage, close })
    }
}

impl Open {
    /// Closes an idle connection, of one network or of the one that has the most of them.
    fn make_room(&mut self, network: Option<IpAddr>) -> Option<()> {
        let mine = |entry: &Entry| network.is_none_or(|network| network == entry.network);
        let idle = self.connections.iter().filter(|(_, entry)| mine(entry));
        let idle = idle.filter_map(|(id, entry)| Some((*id, entry, entry.usage.idle_since()?)));
        let of_network = |entry: &Entry| self.networks.get(&entry.network).copied().unwrap_or(0);
        let (id, ..) = idle.max_by_key(|(_, entry, since)| (of_network(entry), Reverse(*since)))?;
        if let Some(entry) = self.remove(id) {
            entry.close.cancel();
        }
        Some(())
    }

    fn remove(&mut self, id: u64) -> Option<Entry> {
        let entry = self.connections.remove(&id)?;
        if let Some(count) = self.networks.get_mut(&entry.network) {
            *count -= 1;
            if *count == 0 {
                self.networks.remove(&entry.network);
            }
        }
        Some(entry)
    }
}

impl Place {
    /// Notes that a request runs.
    pub fn request(&self) -> Running {
        self.usage.requests.fetch_add(1, Ordering::AcqRel);
        Running(Arc::clone(&self.usage))
    }

    /// Waits until the connection gives way to another. Cancel safe.
    pub async fn closed(&self) {
        self.close.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open.lock().remove(self.id);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Self(usage) = self;
        let now = u64::try_from(usage.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        usage.idle_since.store(now, Ordering::Release);
        usage.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What counts as one address: of IPv6 the network that one subscriber has (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        address => address,
    }
}

/// An answer's body: its request runs until it ends.
#[derive(Debug)]
pub struct Answering<B> {
    body: B,
    _running: Running,
}

impl<B> Answering<B> {
    /// The body of the answer to a running request.
    pub fn new(body: B, running: Running) -> Self {
        Self { body, _running: running }
    }
}

impl<B: Body + Unpin> Body for Answering<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn an_idle_connection_gives_way_and_a_running_one_does_not() {
        let connections = Connections::new(4, 3);
        let mut places: Vec<Place> =
            (0..3).map(|_| connections.enter(address(1)).unwrap()).collect();
        let running = places[0].request();
        // The share is taken: the oldest idle one of the same address goes.
        places.push(connections.enter(address(1)).unwrap());
        let closed: Vec<bool> = places.iter().map(|place| place.close.is_cancelled()).collect();
        assert_eq!(closed, [false, true, false, false]);
        let other = connections.enter(address(2)).unwrap();
        let another = connections.enter(address(3)).unwrap();
        assert!(places[2].close.is_cancelled(), "of the address with the most");
        assert!(!other.close.is_cancelled() && !another.close.is_cancelled());
        let busy = [places[3].request(), other.request(), another.request()];
        assert!(connections.enter(address(4)).is_none());
        drop(busy);
        assert!(connections.enter(address(4)).is_some());
        drop(running);
        drop((places, other, another));
        assert!(connections.open.lock().networks.is_empty());
    }

    #[test]
    fn addresses_of_one_ipv6_network_have_one_share() {
        let connections = Connections::new(4, 1);
        let first = connections.enter("2001:db8::1".parse().unwrap()).unwrap();
        let _second = connections.enter("2001:db8::2".parse().unwrap()).unwrap();
        assert!(first.close.is_cancelled());
    }
}
