//! A runtime for each core, on which sessions stay from their first byte to their last.
//!
//! A relay waits twice for each command, and its work between two waits takes microseconds. On a
//! runtime of several threads each wait may wake another thread, which costs as much again. Here a
//! session's sockets, timers and tasks belong to one thread, which waits for all of its sessions at
//! once. What takes long has threads of its own: large SQL, the index, the disk's commits.

use std::io;
use std::net::TcpStream as StdStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// The cores' runtimes. They end when this is dropped, with whatever still runs on them.
#[derive(Debug)]
pub struct Cores {
    cores: Box<[Core]>,
    _end: DropGuard,
}

#[derive(Debug)]
struct Core {
    runtime: Handle,
    /// Connections that are served there.
    serves: Arc<AtomicUsize>,
}

/// A connection's place on a core; dropping it makes the core less busy.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Cores {
    /// Starts a thread for each core that the process may use.
    ///
    /// # Errors
    /// When the operating system gives no thread, or no descriptor for one to wait with.
    pub fn start() -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let end = CancellationToken::new();
        let cores: io::Result<Box<[Core]>> = (0..count).map(|at| Core::start(at, &end)).collect();
        Ok(Self { cores: cores?, _end: end.drop_guard() })
    }

    /// Serves a connection on the core that serves the fewest.
    ///
    /// # Errors
    /// When the connection is of no use any more.
    pub(super) fn serve<F>(
        &self,
        sessions: &TaskTracker,
        stream: TcpStream,
        serve: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) -> io::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let quietest = self.cores.iter().min_by_key(|core| core.serves.load(Ordering::Relaxed));
        let Some(core) = quietest else { return Err(io::Error::other("there are no cores")) };
        core.serves.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(&core.serves));
        let stream: StdStream = stream.into_std()?;
        let task = async move {
            let _place = place;
            // A socket belongs to the runtime in which it is made.
            match TcpStream::from_std(stream) {
                Ok(stream) => serve(stream).await,
                Err(error) => tracing::warn!(%error, "a connection cannot be served"),
            }
        };
        sessions.spawn_on(task, &core.runtime);
        Ok(())
    }
}

impl Core {
    fn start(at: usize, end: &CancellationToken) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, end) = (runtime.handle().clone(), end.clone());
        thread::Builder::new()
            .name(format!("core-{at}"))
            .spawn(move || runtime.block_on(end.cancelled()))?;
        Ok(Self { runtime: handle, serves: Arc::default() })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn connections_are_dealt_out_and_each_stays_on_its_core() {
        let cores = Cores::start().unwrap();
        let sessions = TaskTracker::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, mut threads) = mpsc::channel(16);
        let mut clients = Vec::new();
        for _ in 0..2 * cores.cores.len() {
            clients.push(TcpStream::connect(address).await.unwrap());
            let (stream, _) = listener.accept().await.unwrap();
            let seen = seen.clone();
            let echo = move |mut stream: TcpStream| async move {
                let mut byte = [0];
                while stream.read_exact(&mut byte).await.is_ok() {
                    let name = thread::current().name().unwrap().to_owned();
                    seen.send((byte[0], name)).await.unwrap();
                    stream.write_all(&byte).await.unwrap();
                }
            };
            cores.serve(&sessions, stream, echo).unwrap();
        }
        let busy = |cores: &Cores| -> Vec<usize> {
            cores.cores.iter().map(|core| core.serves.load(Ordering::Relaxed)).collect()
        };
        assert_eq!(busy(&cores), vec![2; cores.cores.len()]);
        let mut of = vec![None; clients.len()];
        for _ in 0..3 {
            for (at, client) in clients.iter_mut().enumerate() {
                client.write_all(&[u8::try_from(at).unwrap()]).await.unwrap();
                client.read_exact(&mut [0]).await.unwrap();
                let (who, thread) = threads.recv().await.unwrap();
                assert_eq!(usize::from(who), at);
                assert_eq!(*of[at].get_or_insert(thread.clone()), thread);
            }
        }
        drop(clients);
        sessions.close();
        sessions.wait().await;
        assert_eq!(busy(&cores), vec![0; cores.cores.len()]);
    }
}
