//! The running gateway on this machine, asked through its admin socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::web::admin;

/// A thousand mistakes are far below this.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// A reload reads files and nothing else.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// Posts to a path of the gateway that runs on this `data_dir`.
pub(super) async fn post(data_dir: &Path, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let socket = data_dir.join(admin::FILE_NAME);
    let stream = match UnixStream::connect(&socket).await {
        Ok(stream) => stream,
        Err(e) => bail!(explained(&e, &socket)),
    };
    tokio::time::timeout(ANSWER_TIME, exchange(stream, path))
        .await
        .context("the gateway did not answer in time")?
        .context("the gateway broke off")
}

async fn exchange(stream: UnixStream, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::post(path).header("host", "gateway").body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|e| anyhow::anyhow!(e))?.to_bytes();
        // The connection ends with its last sender.
        drop(sender);
        Ok((status, body))
    };
    let (answer, connection) = tokio::join!(answer, connection);
    // What was answered in full is an answer, however the connection ended.
    answer.or_else(|e| connection.map_err(anyhow::Error::from).and(Err(e)))
}

fn explained(error: &io::Error, socket: &Path) -> String {
    let socket = socket.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => format!(
            "no gateway runs here: nobody answers at {socket}; start it with `portcullis serve`"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("{socket} is not yours to use: run this as the gateway's user")
        }
        _ => format!("cannot reach the gateway at {socket}: {error}"),
    }
}
