//! The beginning of a connection: TLS or not, cancel or session, and the password that is asked
//! for. Nothing is read ahead: bytes that come behind a request for TLS cannot slip past it.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::decode::postgres::startup::{self, CancelRequest, FirstPacket, MAX_STARTUP, Startup};
use crate::decode::postgres::{Malformed, frontend};
use crate::secret::Secret;

use super::GOODBYE;
use super::messages::to_client::{ENCRYPTION_ACCEPTED, ENCRYPTION_REFUSED};
use super::refusal::{self, Refusal, Words};
use super::stream::Stream;

/// The largest password message. A token of tens of kilobytes is possible where an identity
/// provider lists hundreds of groups.
const MAX_PASSWORD: usize = 64 << 10;

/// The name of the protocol in TLS' own negotiation. Source: PostgreSQL documentation, "SSL
/// Session Encryption".
pub const ALPN: &[u8] = b"postgresql";

/// The first byte of a TLS handshake record: the client speaks TLS without asking first.
const TLS_HANDSHAKE: u8 = 0x16;

/// How much of what a client that is turned away still sends is thrown away, so that no reset
/// overtakes the answer; in bytes.
const GOODBYE_BYTES: usize = 1 << 20;

/// Why no session came of a connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Turned {
    /// The client is told why.
    #[error("{0:?}")]
    Away(Refusal),
    /// The client hung up, or did what deserves no answer.
    #[error("{0}")]
    Dropped(&'static str),
    /// The connection broke.
    #[error("{0}")]
    Broken(#[from] io::Error),
}

impl From<Malformed> for Turned {
    fn from(malformed: Malformed) -> Self {
        Self::Away(Refusal::Malformed(malformed))
    }
}

/// What a client came for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// A session; the packet is its startup message without the length.
    Session(Zeroizing<Vec<u8>>),
    /// Cancelling.
    Cancel(CancelRequest),
}

/// Settles TLS and reads the startup packet. The stream is given back in any case, to say
/// goodbye on. `None` when it broke under TLS.
pub(super) async fn greet(
    tcp: TcpStream,
    tls: Option<&Arc<rustls::ServerConfig>>,
) -> (Option<Stream>, Result<Purpose, Turned>) {
    let mut first = [0];
    match tcp.peek(&mut first).await {
        Ok(1) if first == [TLS_HANDSHAKE] => return direct_tls(tcp, tls).await,
        Ok(1) => {}
        Ok(_) => return (None, Err(Turned::Dropped("closed before a packet"))),
        Err(error) => return (None, Err(error.into())),
    }
    let mut stream = Stream::Plain(tcp);
    match before_tls(&mut stream, tls.is_some()).await {
        Ok(Some(purpose)) => (Some(stream), Ok(purpose)),
        Err(turned) => (Some(stream), Err(turned)),
        Ok(None) => match (stream, tls) {
            (Stream::Plain(tcp), Some(tls)) => under_tls(tcp, tls, false).await,
            (stream, _) => (Some(stream), Err(Turned::Dropped("TLS is not configured"))),
        },
    }
}

/// Answers requests for encryption. `None`: the client was told to begin TLS.
async fn before_tls(stream: &mut Stream, has_tls: bool) -> Result<Option<Purpose>, Turned> {
    let (mut asked_tls, mut asked_gss) = (false, false);
    loop {
        let packet = read_packet(stream).await?;
        let answer = match startup::first_packet(&packet)? {
            FirstPacket::SslRequest if !asked_tls => {
                asked_tls = true;
                if has_tls { ENCRYPTION_ACCEPTED } else { ENCRYPTION_REFUSED }
            }
            FirstPacket::GssEncRequest if !asked_gss => {
                asked_gss = true;
                ENCRYPTION_REFUSED
            }
            FirstPacket::SslRequest | FirstPacket::GssEncRequest => {
                return Err(Turned::Dropped("encryption requested twice"));
            }
            FirstPacket::CancelRequest(request) => return Ok(Some(Purpose::Cancel(request))),
            FirstPacket::Startup(_) => return Ok(Some(Purpose::Session(packet))),
        };
        // CVE-2021-23214: what comes behind the request would be taken for encrypted.
        if let Stream::Plain(tcp) = stream {
            match tcp.try_read(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => return Err(Turned::Dropped("bytes behind a request for encryption")),
            }
        }
        stream.write_all(&[answer]).await?;
        if answer == ENCRYPTION_ACCEPTED {
            return Ok(None);
        }
    }
}

async fn direct_tls(
    tcp: TcpStream,
    tls: Option<&Arc<rustls::ServerConfig>>,
) -> (Option<Stream>, Result<Purpose, Turned>) {
    match tls {
        Some(tls) => under_tls(tcp, tls, true).await,
        None => (None, Err(Turned::Dropped("TLS is not configured"))),
    }
}

async fn under_tls(
    tcp: TcpStream,
    tls: &Arc<rustls::ServerConfig>,
    direct: bool,
) -> (Option<Stream>, Result<Purpose, Turned>) {
    let stream = match TlsAcceptor::from(Arc::clone(tls)).accept(tcp).await {
        Ok(stream) => stream,
        Err(error) => return (None, Err(error.into())),
    };
    // Without the name, direct TLS could be another protocol's client led here (ALPACA).
    if direct && stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        return (None, Err(Turned::Dropped("direct TLS without ALPN \"postgresql\"")));
    }
    let mut stream = Stream::from(stream);
    let purpose = within_tls(&mut stream).await;
    (Some(stream), purpose)
}

async fn within_tls(stream: &mut Stream) -> Result<Purpose, Turned> {
    let packet = read_packet(stream).await?;
    match startup::first_packet(&packet)? {
        FirstPacket::CancelRequest(request) => Ok(Purpose::Cancel(request)),
        FirstPacket::Startup(_) => Ok(Purpose::Session(packet)),
        FirstPacket::SslRequest | FirstPacket::GssEncRequest => {
            Err(Turned::Dropped("encryption requested under TLS"))
        }
    }
}

/// Reads exactly one packet, its length left out. It may hold secrets that clients misplace.
async fn read_packet(stream: &mut Stream) -> Result<Zeroizing<Vec<u8>>, Turned> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let length = startup::packet_length(length)?;
    debug_assert!(length <= MAX_STARTUP);
    let mut packet = Zeroizing::new(vec![0; length - 4]);
    stream.read_exact(&mut packet).await?;
    Ok(packet)
}

/// The startup message in a packet that [`greet`] read.
pub(super) fn startup_message(packet: &[u8]) -> Result<Startup<'_>, Turned> {
    match startup::first_packet(packet)? {
        FirstPacket::Startup(startup) => Ok(startup),
        _ => Err(Turned::Dropped("no startup message")),
    }
}

/// Asks for the password and reads it; `before` is sent ahead of the question.
pub(super) async fn ask_password(
    stream: &mut Stream,
    before: Option<Words>,
) -> Result<Secret, Turned> {
    for words in before.iter().chain([&refusal::ask_password()]) {
        stream.write_all(words.as_bytes()).await?;
    }
    stream.flush().await?;
    let mut header = [0; 5];
    stream.read_exact(&mut header).await?;
    let [tag, length @ ..] = header;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if tag != b'p' || !(5..=MAX_PASSWORD).contains(&length) {
        return Err(Malformed("a password message was expected").into());
    }
    let mut message = Zeroizing::new(vec![0; length + 1]);
    let (head, body) = message.split_at_mut(header.len());
    head.copy_from_slice(&header);
    stream.read_exact(body).await?;
    Ok(Secret::new(frontend::password(&message)?.to_owned()))
}

/// Says why, and closes so that the client can read it.
pub(super) async fn say_goodbye(stream: &mut Stream, refusal: &Refusal) {
    let goodbye = async {
        stream.write_all(refusal.to_words().as_bytes()).await?;
        stream.shutdown().await?;
        let mut rest = [0; 4096];
        let mut thrown = 0;
        while thrown < GOODBYE_BYTES {
            match stream.read(&mut rest).await? {
                0 => break,
                read => thrown += read,
            }
        }
        Ok::<(), io::Error>(())
    };
    // A client that does not listen is gone either way.
    let _gone = tokio::time::timeout(GOODBYE, goodbye).await;
}
