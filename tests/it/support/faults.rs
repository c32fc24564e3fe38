//! A proxy between a gateway and a server that fails as it is told to.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What happens to connections, from the next one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// They pass.
    None,
    /// They are closed at once.
    Refuse,
    /// They are cut after so many bytes from the client.
    Cut(usize),
    /// Each request is answered so.
    Answer(&'static str),
    /// They pass slowly: so many milliseconds for each piece.
    Slow(u64),
    /// The last byte of long pieces from the server is another.
    Corrupt,
}

/// An internal error, as a store has it.
pub const ERROR: Fault = Fault::Answer("500 Internal Server Error");
/// A store without room.
pub const FULL: Fault = Fault::Answer("507 Insufficient Storage");
/// Credentials that do not count.
pub const FORBIDDEN: Fault = Fault::Answer("403 Forbidden");

/// What a refused attempt counts for.
const REFUSED: usize = 4000;

/// The proxy. Its thread ends with the process.
pub struct Proxy {
    pub address: SocketAddr,
    fault: Arc<Mutex<Fault>>,
    bytes: Arc<AtomicUsize>,
}

impl Proxy {
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let fault = Arc::new(Mutex::new(Fault::None));
        let bytes = Arc::default();
        let (current, seen) = (Arc::clone(&fault), Arc::clone(&bytes));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (current, seen) = (Arc::clone(&current), Arc::clone(&seen));
                thread::spawn(move || serve(&client, port, (&current, &seen)));
            }
        });
        Self { address, fault, bytes }
    }

    /// How far clients got: the bytes that they sent, and for each attempt that was refused some
    /// thousand.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Fails so from now on.
    pub fn fail(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }
}

/// Passes one connection on; a fault that comes later acts on it, too.
fn serve(client: &TcpStream, port: u16, (current, seen): (&Arc<Mutex<Fault>>, &AtomicUsize)) {
    let fault = || *current.lock().unwrap();
    if fault() == Fault::Refuse {
        seen.fetch_add(REFUSED, Ordering::Relaxed);
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { return };
    let (mut down, mut from) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let of_server = Arc::clone(current);
    let answers = thread::spawn(move || {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut bytes) {
            match *of_server.lock().unwrap() {
                Fault::Slow(ms) => thread::sleep(Duration::from_millis(ms)),
                Fault::Corrupt if read > 700 => bytes[read - 1] ^= 1,
                _ => {}
            }
            if down.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
        let _gone = down.shutdown(Shutdown::Both);
    });
    let (mut up, mut to) = (client, &server);
    let (mut bytes, mut passed) = (vec![0; 16 << 10], 0);
    while let Ok(read @ 1..) = up.read(&mut bytes) {
        passed += read;
        seen.fetch_add(read, Ordering::Relaxed);
        match fault() {
            Fault::Refuse => break,
            Fault::Cut(most) if passed > most => break,
            Fault::Answer(status) => {
                let answer =
                    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                let mut refused = client;
                let _gone = refused.write_all(answer.as_bytes());
                break;
            }
            Fault::Slow(ms) => thread::sleep(Duration::from_millis(ms)),
            _ => {}
        }
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _gone = (server.shutdown(Shutdown::Both), client.shutdown(Shutdown::Both));
    let _ended = answers.join();
}
