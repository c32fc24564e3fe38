//! The running gateway: on this machine through its admin socket, elsewhere through its API.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, FromArgMatches};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use super::http::{ANSWER_TIME, Client, MAX_ANSWER};
use super::{ConfigFile, login, output};
use crate::config;
use crate::web::admin;

/// Rows asked for at once, the most that the API gives.
const PAGE: usize = 1000;

/// Which gateway to ask.
#[derive(Debug)]
pub(super) struct Options {
    config: ConfigFile,
    server: Option<String>,
    /// The option that says which one, to be repeated in lines to paste.
    flag: String,
}

/// The same as it was written.
#[derive(Debug, Args)]
struct Written {
    #[command(flatten)]
    config: ConfigFile,
    /// Ask the gateway at this address of its API, instead of the one on this machine. The token is
    /// that of `PORTCULLIS_TOKEN`, where that is set, else that of `portcullis login`. A `--config` on
    /// the command line goes before the variable.
    #[arg(long, value_name = "URL", env = "PORTCULLIS_SERVER")]
    server: Option<String>,
}

impl Args for Options {
    fn augment_args(command: clap::Command) -> clap::Command {
        Written::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Written::augment_args_for_update(command)
    }
}

impl FromArgMatches for Options {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let typed = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
        let Written { config, server } = Written::from_arg_matches(matches)?;
        let (is_local, is_remote) = (typed("path"), typed("server"));
        let server = server.filter(|url| !url.is_empty() && (is_remote || !is_local));
        let flag = match &server {
            Some(server) => format!(" --server {server}"),
            None if is_local => format!(" --config {}", config.path.display()),
            None => String::new(),
        };
        Ok(Self { config, server, flag })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Options {
    /// The option that names this gateway, with a blank in front, for lines to paste.
    pub(super) fn flag(&self) -> &str {
        &self.flag
    }

    /// A refusal in words: of a right that is missing also who was asked, and as whom.
    fn refused(&self, status: StatusCode, path: &str, body: &[u8]) -> String {
        let refusal = refusal(status, body);
        match (status, &self.server) {
            (StatusCode::NOT_FOUND, _) => {
                let asked = path.split('?').next().unwrap_or_default();
                format!("{refusal}: {}", asked.trim_start_matches("/api/v1/"))
            }
            (StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED, Some(server)) => {
                format!("{refusal} (asked at {server}, with the token of {})", login::source())
            }
            _ => refusal,
        }
    }

    /// Gets what stands at a path of the API.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.send(Method::GET, path, None).await
    }

    /// Sends something to a path of the API, and gives what comes back.
    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> anyhow::Result<T> {
        let body = body.map(serde_json::to_vec).transpose()?.map(Bytes::from);
        let (status, body) = self.ask(method, path, body).await?;
        if !status.is_success() {
            bail!(self.refused(status, path, &body));
        }
        serde_json::from_slice(&body).context("the gateway's answer is not understood")
    }

    /// Something small at a path of the API, if there is one.
    pub(super) async fn find(&self, path: &str) -> anyhow::Result<Option<Bytes>> {
        match self.ask(Method::GET, path, None).await? {
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, body) if status.is_success() => Ok(Some(body)),
            (status, body) => bail!(self.refused(status, path, &body)),
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        match &self.server {
            Some(server) => {
                let token = login::token_for(server)?;
                let url = format!("{}{path}", server.trim_end_matches('/'));
                Client::new()?.send_json(method, &url, &token, body).await
            }
            None => ask(&config::data_dir(&self.config.path)?, method, path, body).await,
        }
    }

    /// Copies what stands at a path of the API into a file, of whatever length.
    pub(super) async fn download(&self, path: &str, out: &File) -> anyhow::Result<()> {
        if let Some(server) = &self.server {
            let token = login::token_for(server)?;
            let url = format!("{}{path}", server.trim_end_matches('/'));
            return copy(Client::new()?.open(&url, &token).await?, out).await;
        }
        let stream = connect(&config::data_dir(&self.config.path)?).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::get(path).header("host", "gateway").body(Full::<Bytes>::default())?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let copied = copy(response, out).await;
            // The connection ends with its last sender.
            drop(sender);
            copied
        };
        let (copied, connection) = tokio::join!(answer, connection);
        copied.or_else(|e| connection.map_err(anyhow::Error::from).and(Err(e)))
    }

    /// Up to so many rows that a query asks for, over as many pages as they take.
    pub(super) async fn pages<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        limit: usize,
    ) -> anyhow::Result<Vec<T>> {
        let mut rows = Vec::new();
        let mut cursor = None;
        loop {
            let left = (limit - rows.len()).min(PAGE);
            let page = self.page(path, query, left, cursor.as_deref()).await?;
            rows.extend(page.items);
            match page.next {
                Some(next) if rows.len() < limit => cursor = Some(next),
                _ => return Ok(rows),
            }
        }
    }

    /// The page of a list that a cursor is of; the first without one.
    pub(super) async fn page<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        limit: usize,
        cursor: Option<&str>,
    ) -> anyhow::Result<Page<T>> {
        let mut asked = form_urlencoded::Serializer::new(format!("{path}?limit={limit}"));
        asked.extend_pairs(query).extend_pairs(cursor.map(|cursor| ("cursor", cursor)));
        self.get(&asked.finish()).await
    }
}

/// Which gateway's list, how much of it, and how it is printed.
#[derive(Debug, Args)]
pub(super) struct Listing {
    #[command(flatten)]
    gateway: Options,
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Print them as JSON: an array.
    #[arg(long)]
    json: bool,
}

impl Listing {
    /// Prints what stands at a path of the API.
    pub(super) async fn print<T: DeserializeOwned + Serialize>(
        &self,
        path: &str,
        columns: &[&str],
        row: impl Fn(&T) -> Vec<String>,
    ) -> anyhow::Result<()> {
        let list: Vec<T> = self.gateway.pages(path, &[], self.limit).await?;
        output::print_list(self.json, &list, columns, row)
    }
}

/// A part of a list, and the cursor of the next.
#[derive(Deserialize)]
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    pub(super) next: Option<String>,
}

/// What a problem document says, for a person.
pub(super) fn refusal(status: StatusCode, body: &[u8]) -> String {
    let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str| problem.get(key).and_then(|text| text.as_str()).map(output::visible);
    let hint = match status {
        StatusCode::UNAUTHORIZED => "; log in with `portcullis login`",
        _ => "",
    };
    match (text("title"), text("detail")) {
        (Some(title), Some(detail)) => format!("{title}: {detail}{hint}"),
        (Some(title), None) => format!("{title}{hint}"),
        _ => format!("the gateway answered {status}{hint}"),
    }
}

/// Writes an answer's body down, if it is what was asked for.
async fn copy(response: Response<Incoming>, mut out: &File) -> anyhow::Result<()> {
    let status = response.status();
    let mut body = response.into_body();
    if !status.is_success() {
        let told = Limited::new(body, MAX_ANSWER).collect().await;
        bail!(refusal(status, &told.map_err(|e| anyhow::anyhow!(e))?.to_bytes()));
    }
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.context("the gateway broke off")?.into_data() {
            out.write_all(&data)?;
        }
    }
    Ok(())
}

async fn connect(data_dir: &Path) -> anyhow::Result<UnixStream> {
    let socket = data_dir.join(admin::FILE_NAME);
    UnixStream::connect(&socket).await.map_err(|e| anyhow::anyhow!(explained(&e, &socket)))
}

/// Posts to a path of the gateway that runs on this `data_dir`.
pub(super) async fn post(data_dir: &Path, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    ask(data_dir, Method::POST, path, None).await
}

async fn ask(
    data_dir: &Path,
    method: Method,
    path: &str,
    body: Option<Bytes>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let stream = connect(data_dir).await?;
    tokio::time::timeout(ANSWER_TIME, exchange(stream, method, path, body))
        .await
        .context("the gateway did not answer in time")?
        .context("the gateway broke off")
}

async fn exchange(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: Option<Bytes>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder().method(method).uri(path).header("host", "gateway");
    let request = match &body {
        Some(_) => request.header("content-type", "application/json"),
        None => request,
    };
    let request = request.body(Full::new(body.unwrap_or_default()))?;
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
