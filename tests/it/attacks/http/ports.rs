//! Ports that connections without a request could fill.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use crate::support::daemon::{PATIENCE, wait_until};
use crate::support::http::{Caller, gateway};

/// As many as the port takes at once, and more.
const MANY: usize = 560;

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The status of the answer; 0 where the connection was closed.
fn status(stream: &mut TcpStream) -> u16 {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

fn get(address: SocketAddr, path: &str) -> u16 {
    let mut stream = connect(address);
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    // It may have been closed.
    let _sent = stream.write_all(request.as_bytes());
    status(&mut stream)
}

const LISTEN: &str = "web = \"127.0.0.1:0\"\nmetrics = \"127.0.0.1:0\"\n";

/// Held by `o08_…` in the file above.
pub(super) fn idle_connections_give_way() {
    let gateway = gateway(LISTEN);
    for (port, path) in [("web", "/healthz"), ("metrics", "/metrics")] {
        let address = gateway.daemon().address_of(port);
        let ask = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        // Between two requests, before the first one, and within one's head.
        for (begun, answered) in [(ask.as_str(), true), ("", false), ("GET /heal", false)] {
            let mut idle = Vec::new();
            for _ in 0..MANY {
                let mut stream = connect(address);
                stream.write_all(begun.as_bytes()).unwrap();
                if answered {
                    assert_eq!(status(&mut stream), 200, "{port}: {} are open", idle.len());
                }
                idle.push(stream);
            }
            for n in 0..80 {
                assert_eq!(get(address, path), 200, "{port} {begun:?}: probe {n}");
            }
        }
    }
}

#[test]
fn requests_that_run_on_every_connection_leave_room_for_health() {
    let gateway = gateway(LISTEN);
    let (address, token) = (gateway.web(), Caller::of(&gateway).token);
    // A body that does not come.
    let begun = format!(
        "POST /api/v1/tickets HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    );
    let mut running = Vec::new();
    wait_until("the room for requests to be full", || {
        for _ in 0..64 {
            let mut stream = connect(address);
            let _closed = stream.write_all(begun.as_bytes());
            running.push(stream);
        }
        get(address, "/api/v1/sessions") == 503
    });
    for n in 0..20 {
        assert_eq!(get(address, "/healthz"), 200, "probe {n}");
    }
}

#[test]
fn silent_connections_to_other_ports_keep_nobody_from_asking_how_the_gateway_is() {
    let gateway = gateway(LISTEN);
    let _silent: Vec<TcpStream> = (0..600).map(|_| connect(gateway.address())).collect();
    for (port, path) in [("web", "/healthz"), ("metrics", "/metrics")] {
        assert_eq!(get(gateway.daemon().address_of(port), path), 200);
    }
}
