//! The admin socket: `data_dir/admin.sock`, for commands on the gateway's own machine.
//!
//! Who may connect is decided by the file: mode 0600, so the gateway's user (and root) only.
//! There is no further proof of who calls: the kernel says which user, and the audit log names it
//! `os:<user>`. There is no limit on that user's connections.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::connect_info::Connected;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::IncomingStream;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio_util::sync::CancellationToken;

use super::caller::Arrival;
use crate::config::{Mistake, Mistakes};

/// The socket's name in `data_dir`.
pub const FILE_NAME: &str = "admin.sock";
/// Where a reload is asked for.
pub const RELOAD: &str = "/api/v1/reload";

/// Commands come one at a time, typed by a person.
const BACKLOG: u32 = 16;
/// How long a stop waits for requests that are being answered.
const DRAIN: Duration = Duration::from_secs(2);

/// A configuration that took effect.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The sections that changed but take effect only at the next start.
    pub needs_restart: Vec<String>,
    /// What works but is hardly meant.
    pub warnings: Vec<Mistake>,
}

/// The answer when a configuration was refused: a problem document (RFC 9457).
#[derive(Debug, Serialize, Deserialize)]
pub struct Refused {
    /// What happened, the same each time.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// Everything that is wrong.
    pub mistakes: Vec<Mistake>,
}

/// The bound socket; its file goes when this is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    file: SocketFile,
}

impl AdminSocket {
    /// Binds the socket, in place of one that a dead gateway left. Fails when a gateway answers
    /// there, or when something else has the name.
    pub async fn bind(path: &Path) -> io::Result<Self> {
        make_way(path).await?;
        let socket = UnixSocket::new_stream()?;
        socket.bind(path)?;
        let file = SocketFile(path.to_owned());
        // Nobody can connect before it listens, so the mode holds from the first connection.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener: socket.listen(BACKLOG)?, file })
    }

    /// Answers until cancelled.
    pub async fn serve(self, router: Router, cancel: CancellationToken) -> io::Result<()> {
        let stopped = cancel.clone();
        let Self { listener, file: _file } = self;
        let service = router.into_make_service_with_connect_info::<Arrival>();
        let serving = axum::serve(listener, service)
            .with_graceful_shutdown(async move { stopped.cancelled().await })
            .into_future();
        tokio::select! {
            done = serving => done,
            () = async { cancel.cancelled().await; tokio::time::sleep(DRAIN).await } => Ok(()),
        }
    }
}

/// What can be asked here alone. `reload` puts the configuration file in force or says why not; it
/// may block, and calls may overlap.
pub fn routes<R>(reload: R) -> Router
where
    R: Fn() -> Result<Reloaded, Mistakes> + Send + Sync + 'static,
{
    Router::new().route(RELOAD, post(answer_reload::<R>)).with_state(Arc::new(reload))
}

impl Connected<IncomingStream<'_, UnixListener>> for Arrival {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let peer = stream.io().peer_cred();
        Self::Socket { user: peer.map_or_else(|_| "unknown".to_owned(), |peer| user(peer.uid())) }
    }
}

/// The name of one of the machine's users, or the number where no name is found.
fn user(uid: u32) -> String {
    let known = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = known.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| uid.to_string())
}

/// Removes the file of a gateway that died; what answers or is no socket stays.
async fn make_way(path: &Path) -> io::Result<()> {
    let taken =
        |what| Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{} {what}", path.display())));
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(found) if !found.file_type().is_socket() => taken("is there and is not a socket"),
        Ok(_) if UnixStream::connect(path).await.is_ok() => taken("is served by another gateway"),
        Ok(_) => fs::remove_file(path),
    }
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // The next start removes it otherwise.
        let _left = fs::remove_file(&self.0);
    }
}

async fn answer_reload<R>(State(reload): State<Arc<R>>) -> Response
where
    R: Fn() -> Result<Reloaded, Mistakes> + Send + Sync + 'static,
{
    match tokio::task::spawn_blocking(move || reload()).await {
        Ok(Ok(reloaded)) => Json(reloaded).into_response(),
        Ok(Err(Mistakes(mistakes))) => {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            let title = "the configuration has mistakes; the old one stays in force".to_owned();
            let refused = Refused { title, status: status.as_u16(), mistakes };
            let problem = [(header::CONTENT_TYPE, "application/problem+json")];
            (status, problem, Json(refused)).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn ask(path: &Path, request: &str) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn only_the_owner_may_connect_and_the_file_goes_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let socket = AdminSocket::bind(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let cancel = CancellationToken::new();
        let serving = socket.serve(
            routes(|| Ok(Reloaded::default())).route("/healthz", axum::routing::get("ok\n")),
            cancel.clone(),
        );
        let asking = async {
            let answer = ask(&path, "GET /healthz").await;
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
            assert!(ask(&path, "GET /api/v1/reload").await.starts_with("HTTP/1.1 405"));
            assert!(ask(&path, "POST /api/v1/other").await.starts_with("HTTP/1.1 404"));
            // A connection that says nothing does not hold the stop up.
            let silent = UnixStream::connect(&path).await.unwrap();
            cancel.cancel();
            silent
        };
        let (served, _silent) = tokio::join!(serving, asking);
        served.unwrap();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn the_socket_of_a_dead_gateway_is_replaced_and_of_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let live = AdminSocket::bind(&path).await.unwrap();
        let error = AdminSocket::bind(&path).await.unwrap_err().to_string();
        assert!(error.ends_with("is served by another gateway"), "{error}");
        assert!(path.exists());
        drop(live);
        fs::write(&path, "precious").unwrap();
        let error = AdminSocket::bind(&path).await.unwrap_err().to_string();
        assert!(error.ends_with("is there and is not a socket"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_refused_reload_lists_the_mistakes_with_their_places() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let socket = AdminSocket::bind(&path).await.unwrap();
        let cancel = CancellationToken::new();
        let wrong = Mistake {
            file: "a.toml".to_owned(),
            position: Some(crate::config::Position { line: 3, column: 7 }),
            message: "no".to_owned(),
            hint: None,
        };
        let refuse = move || Err(Mistakes(vec![wrong.clone()]));
        let asking = async {
            let answer = ask(&path, "POST /api/v1/reload").await;
            assert!(answer.starts_with("HTTP/1.1 422"), "{answer}");
            assert!(answer.contains("content-type: application/problem+json"), "{answer}");
            assert!(answer.contains(r#""file":"a.toml","line":3,"column":7,"#), "{answer}");
            cancel.cancel();
        };
        let (served, ()) = tokio::join!(socket.serve(routes(refuse), cancel.clone()), asking);
        served.unwrap();
    }
}
