//! An HTTP service that remembers how much it got of each request, whole or not.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::daemon::wait_until;
use super::http::target;

/// The service. It takes bodies with a length, and says `ok` behind each.
pub struct Sink {
    pub port: u16,
    received: Arc<Mutex<BTreeMap<String, usize>>>,
    open: Arc<AtomicUsize>,
}

impl Sink {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (received, open) = (Arc::default(), Arc::<AtomicUsize>::default());
        let sink = Self { port, received: Arc::clone(&received), open: Arc::clone(&open) };
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (received, open) = (Arc::clone(&received), Arc::clone(&open));
                open.fetch_add(1, Ordering::AcqRel);
                thread::spawn(move || {
                    // A connection that breaks off is what the tests are about.
                    let _broke = serve(stream, &received);
                    open.fetch_sub(1, Ordering::AcqRel);
                });
            }
        });
        sink
    }

    /// Bytes of the body of each request, by method and path, once nobody is connected.
    pub fn take(&self) -> BTreeMap<String, usize> {
        wait_until("the target's connections to end", || self.open.load(Ordering::Acquire) == 0);
        std::mem::take(&mut self.received.lock().unwrap())
    }

    /// How many requests it got.
    pub fn count(&self) -> usize {
        self.received.lock().unwrap().len()
    }

    /// It as a target of a gateway.
    pub fn target(&self, name: &str) -> String {
        target(name, &format!("http://127.0.0.1:{}", self.port), "")
    }
}

fn serve(mut stream: TcpStream, received: &Mutex<BTreeMap<String, usize>>) -> std::io::Result<()> {
    let (mut left, mut block) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let end = loop {
            if let Some(at) = left.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            let read = stream.read(&mut block)?;
            if read == 0 {
                return Ok(());
            }
            left.extend_from_slice(&block[..read]);
        };
        let head = String::from_utf8_lossy(&left[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        let path = head.split(' ').take(2).collect::<Vec<_>>().join(" ");
        left.drain(..end);
        let mut body = 0;
        loop {
            let part = left.len().min(length - body);
            left.drain(..part);
            body += part;
            received.lock().unwrap().insert(path.clone(), body);
            if body == length {
                break;
            }
            let read = stream.read(&mut block)?;
            if read == 0 {
                return Ok(());
            }
            left.extend_from_slice(&block[..read]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
    }
}
