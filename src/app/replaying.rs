//! Wire replay: a recording that answers an ordinary client of its protocol.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::names::Protocol;
use crate::protocol::{http, postgres};
use crate::recording::{Keyring, Opened, Reader};

/// Clients at once.
const MOST_CLIENTS: usize = 64;

/// A recording behind a socket.
#[derive(Debug)]
pub struct WireReplay {
    listener: TcpListener,
    address: SocketAddr,
    tape: Tape,
}

#[derive(Debug, Clone)]
enum Tape {
    Postgres(Arc<postgres::serve::Tape>),
    Http(Arc<http::serve::Player>),
}

impl WireReplay {
    /// Reads a recording, with what opens it where it is encrypted, and binds the address, which is
    /// this machine's own: a replay asks nobody who they are.
    pub async fn open(path: &Path, keyring: &Keyring, address: SocketAddr) -> anyhow::Result<Self> {
        if !address.ip().is_loopback() {
            bail!(
                "{address} can be reached from elsewhere, and a replay asks nobody who they are: \
                 give a loopback address, as 127.0.0.1:0"
            );
        }
        let (path, keyring) = (path.to_owned(), keyring.clone());
        let tape = tokio::task::spawn_blocking(move || Tape::read(&path, &keyring)).await??;
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("{address} cannot be bound"))?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, tape })
    }

    /// What is spoken.
    pub fn protocol(&self) -> Protocol {
        match self.tape {
            Tape::Postgres(_) => Protocol::Postgres,
            Tape::Http(_) => Protocol::Http,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it answers from, in words.
    pub fn title(&self) -> String {
        let ((username, target, session), count, what) = match &self.tape {
            Tape::Postgres(tape) => (tape.title(), tape.statements(), "statements"),
            Tape::Http(player) => (player.tape().title(), player.tape().requests(), "requests"),
        };
        let username = username.escape_debug();
        format!("{count} {what} of {username} on {target}, session {session}")
    }

    /// A line to paste that asks it.
    pub fn line(&self) -> String {
        let (ip, port) = (self.address.ip(), self.address.port());
        match &self.tape {
            Tape::Postgres(tape) => {
                let (_, target, _) = tape.title();
                format!("psql 'host={ip} port={port} dbname={target} user=replay'")
            }
            Tape::Http(_) => format!("curl -i http://{}/", self.address),
        }
    }

    /// Answers whoever comes, until it is dropped.
    pub async fn serve(&self) -> anyhow::Result<()> {
        let (clients, slots) = (TaskTracker::new(), Arc::new(Semaphore::new(MOST_CLIENTS)));
        loop {
            let slot = Arc::clone(&slots).acquire_owned().await?;
            let (stream, _) = self.listener.accept().await?;
            // An answer that waits for another segment is slow.
            let _unimportant = stream.set_nodelay(true);
            let tape = self.tape.clone();
            clients.spawn(async move {
                tape.answer(stream).await;
                drop(slot);
            });
        }
    }
}

impl Tape {
    fn read(path: &Path, keyring: &Keyring) -> anyhow::Result<Self> {
        let mut reader = Reader::open_with(path, keyring)?;
        let first = reader.next().transpose()?.context("it is empty")?;
        let opened: Opened = serde_json::from_slice(&first.payload)
            .map_err(|_| anyhow::anyhow!("it is no session's recording"))?;
        Ok(match opened.protocol {
            Protocol::Postgres => {
                Self::Postgres(Arc::new(postgres::serve::Tape::read(path, keyring)?))
            }
            Protocol::Http => {
                let tape = http::serve::Tape::read(path, keyring)?;
                Self::Http(Arc::new(http::serve::Player::new(tape)))
            }
            Protocol::Ssh => bail!(
                "it is a session of SSH, which is played in the terminal: leave --serve out; \
                 --serve answers clients of Postgres and HTTP"
            ),
        })
    }

    async fn answer(self, stream: TcpStream) {
        match self {
            Self::Postgres(tape) => postgres::serve::answer(stream, tape).await,
            Self::Http(player) => http::serve::answer(stream, player).await,
        }
    }
}
