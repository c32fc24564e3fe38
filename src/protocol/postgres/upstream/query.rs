//! A connection to a target on which the gateway asks questions of its own.
//!
//! What it asks is fixed text with quoted names; what comes back is bounded, and foreign.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use super::error::ServerError;
use super::{Upstream, UpstreamError, within};
use crate::decode::postgres::backend::{self, Column};
use crate::decode::postgres::frame::{self, Side, Walker};
use crate::decode::postgres::frontend::Named;
use crate::protocol::postgres::messages::to_target;
use crate::protocol::postgres::stream::Stream;

/// One question has this long.
const ANSWER_TIME: Duration = Duration::from_secs(20);
/// The most bytes of one answer: the names of a million tables.
const ANSWER_MAX: usize = 128 << 20;

/// A row of texts; `None` is NULL.
pub type Row = Vec<Option<String>>;

/// A connection for questions, one at a time. One that was left in the middle of an answer (the
/// future dropped) is of no use any more.
#[derive(Debug)]
pub struct Questions {
    stream: Stream,
    buffer: BytesMut,
}

impl From<Upstream> for Questions {
    fn from(upstream: Upstream) -> Self {
        Self { stream: upstream.stream, buffer: upstream.buffered }
    }
}

impl Upstream {
    /// What a setting of the server is in this session. From PostgreSQL 18 on the server reports
    /// `search_path` unasked; where it does not, it is asked.
    pub async fn with_setting(
        mut self,
        name: &'static str,
    ) -> Result<(Self, Arc<str>), UpstreamError> {
        if let Some((_, value)) = self.parameters.iter().rev().find(|(known, _)| known == name) {
            let value = Arc::from(value.as_str());
            return Ok((self, value));
        }
        let mut questions = Questions { stream: self.stream, buffer: self.buffered };
        let question = format!("SELECT pg_catalog.current_setting('{name}')");
        let rows = questions.rows(&question).await?.pop().unwrap_or_default();
        let value = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten());
        let value =
            value.ok_or_else(|| UpstreamError::Protocol("a setting without a value".to_owned()))?;
        (self.stream, self.buffered) = (questions.stream, questions.buffer);
        Ok((self, Arc::from(value)))
    }
}

impl Questions {
    /// Runs the statements of a text, and gives the rows of each that has some.
    pub async fn rows(&mut self, sql: &str) -> Result<Vec<Vec<Row>>, UpstreamError> {
        let mut message = BytesMut::new();
        to_target::query(&mut message, sql)?;
        let mut results = Vec::new();
        self.ask(&message, |tag, message| {
            match (tag, results.last_mut()) {
                (b'T', _) => results.push(Vec::new()),
                (b'D', Some(rows)) => rows.push(row(message)?),
                _ => {}
            }
            Ok(())
        })
        .await?
        .map_err(UpstreamError::Server)?;
        Ok(results)
    }

    /// The columns that a statement gives, without running it; `None` when the server does not
    /// take it.
    pub async fn describe(&mut self, sql: &str) -> Result<Option<Vec<Column>>, UpstreamError> {
        let mut message = BytesMut::new();
        to_target::parse(&mut message, "", sql, &[])?;
        to_target::describe(&mut message, Named::Statement(""))?;
        to_target::sync(&mut message);
        let mut columns = None;
        let asked = self
            .ask(&message, |tag, message| {
                if tag == b'T' {
                    columns = Some(backend::row_description(message).map_err(malformed)?);
                }
                Ok(())
            })
            .await?;
        Ok(columns.filter(|_| asked.is_ok()))
    }

    /// Sends messages and reads up to the `ReadyForQuery`; gives the server's error, if it had one.
    async fn ask(
        &mut self,
        messages: &[u8],
        mut see: impl FnMut(u8, &[u8]) -> Result<(), UpstreamError>,
    ) -> Result<Result<(), ServerError>, UpstreamError> {
        const DOING: &str = "a question about the catalog";
        let deadline = Instant::now() + ANSWER_TIME;
        within(deadline, DOING, async {
            let sent = async {
                self.stream.write_all(messages).await?;
                self.stream.flush().await
            };
            sent.await.map_err(|e| UpstreamError::io(DOING, e))?;
            let mut left = ANSWER_MAX;
            let mut asked = Ok(());
            loop {
                // Each message whole: none of the answers has large values.
                while let Some(length) = whole(&self.buffer)? {
                    let message = self.buffer.split_to(length);
                    let tag = message.first().copied().unwrap_or(0);
                    match tag {
                        b'E' => asked = Err(ServerError::parse(&message)),
                        b'Z' => return Ok(asked),
                        tag => see(tag, &message)?,
                    }
                }
                self.buffer.reserve(16 << 10);
                let read = self.stream.read_buf(&mut self.buffer).await;
                let read = read.map_err(|e| UpstreamError::io(DOING, e))?;
                if read == 0 {
                    return Err(UpstreamError::io(DOING, io::ErrorKind::UnexpectedEof.into()));
                }
                left = left.checked_sub(read).ok_or_else(|| {
                    UpstreamError::Protocol("its catalog is too large to be read".to_owned())
                })?;
            }
        })
        .await
    }
}

/// The length of the whole message at the front.
fn whole(bytes: &[u8]) -> Result<Option<usize>, UpstreamError> {
    let piece = Walker::whole(Side::Backend).next(bytes).map_err(malformed)?;
    Ok(piece.filter(frame::Piece::is_whole).map(|piece| piece.length))
}

fn malformed(error: crate::decode::postgres::Malformed) -> UpstreamError {
    UpstreamError::Protocol(error.to_string())
}

fn row(message: &[u8]) -> Result<Row, UpstreamError> {
    let values = backend::data_row(message).map_err(malformed)?;
    let text = |value: Option<&[u8]>| {
        value
            .map(|bytes| String::from_utf8(bytes.to_vec()))
            .transpose()
            .map_err(|_| UpstreamError::Protocol("a name in its catalog is not UTF-8".to_owned()))
    };
    values.map(|value| text(value.map_err(malformed)?)).collect()
}
