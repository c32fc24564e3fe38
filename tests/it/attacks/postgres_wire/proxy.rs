//! Somebody between the gateway and a server, who changes what the server says.

use std::io::{Read, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Listens for as long as the test process lives.
pub struct Proxy {
    port: u16,
}

impl Proxy {
    /// Passes everything on to a server, and to the client what `alter` makes of each message, from
    /// where the client has said `word` in a session.
    pub fn start(
        server: u16,
        word: &'static str,
        alter: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let alter = Arc::new(alter);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, alter) = (client.unwrap(), Arc::clone(&alter));
                let server = TcpStream::connect(("127.0.0.1", server)).unwrap();
                let armed = Arc::new(AtomicBool::new(false));
                let halves = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let arming = Arc::clone(&armed);
                thread::spawn(move || up(client, server, word.as_bytes(), &arming));
                thread::spawn(move || down(halves.1, halves.0, &armed, &*alter));
            }
        });
        Self { port }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

fn up(mut client: TcpStream, mut server: TcpStream, word: &[u8], armed: &AtomicBool) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        if buffer[..count].windows(word.len()).any(|part| part == word) {
            armed.store(true, Ordering::SeqCst);
        }
        if server.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _gone = server.shutdown(Shutdown::Write);
}

fn down(
    mut server: TcpStream,
    mut client: TcpStream,
    armed: &AtomicBool,
    alter: &dyn Fn(&[u8]) -> Vec<u8>,
) {
    let mut header = [0; 5];
    while server.read_exact(&mut header).is_ok() {
        let length = u32::from_be_bytes(header[1..].try_into().unwrap()) as usize;
        let mut message = header.to_vec();
        message.resize(length + 1, 0);
        if server.read_exact(&mut message[5..]).is_err() {
            break;
        }
        let message = if armed.load(Ordering::SeqCst) { alter(&message) } else { message };
        if client.write_all(&message).is_err() {
            break;
        }
    }
    let _gone = client.shutdown(Shutdown::Both);
}
