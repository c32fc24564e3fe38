//! Messages of a server during startup, read within bounds.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::UpstreamError;
use super::error::ServerError;

/// No message of the startup comes near this; the largest is a notice or an error.
const FRAME_MAX: usize = 64 * 1024;

/// All messages of one startup together. Servers send about 1 KiB.
const STARTUP_MAX: usize = 256 * 1024;

/// How much is asked of the connection at once.
const READ_SIZE: usize = 4 * 1024;

/// Tag and length.
const HEADER: usize = 5;

/// One message.
#[derive(Debug)]
pub(super) struct Frame {
    /// Its first byte.
    pub(super) tag: u8,
    /// All of it, header too.
    pub(super) whole: Bytes,
}

impl Frame {
    /// What is behind the header.
    pub(super) fn body(&self) -> Bytes {
        self.whole.slice(HEADER.min(self.whole.len())..)
    }
}

/// Cuts what a server sends into messages.
pub(super) struct Frames<'a, S> {
    stream: &'a mut S,
    buffer: BytesMut,
    left: usize,
}

impl<'a, S: AsyncRead + Unpin> Frames<'a, S> {
    pub(super) fn new(stream: &'a mut S) -> Self {
        Self { stream, buffer: BytesMut::new(), left: STARTUP_MAX }
    }

    /// The next message, which must have one of these tags; an `ErrorResponse` is the error it
    /// tells of. A wrong tag or length is refused on sight, its body never waited for.
    pub(super) async fn next(&mut self, expected: &[u8]) -> Result<Frame, UpstreamError> {
        loop {
            if let Some(frame) = self.cut(expected)? {
                return match frame.tag {
                    b'E' => Err(UpstreamError::Server(ServerError::parse(&frame.whole))),
                    _ => Ok(frame),
                };
            }
            self.buffer.reserve(READ_SIZE);
            let mut space = (&mut self.buffer).limit(READ_SIZE);
            let read = self.stream.read_buf(&mut space).await;
            if read.map_err(|e| UpstreamError::io("startup", e))? == 0 {
                let closed = std::io::ErrorKind::UnexpectedEof.into();
                return Err(UpstreamError::io("startup", closed));
            }
        }
    }

    /// Sends a message.
    pub(super) async fn send(&mut self, message: &[u8]) -> Result<(), UpstreamError>
    where
        S: AsyncWrite,
    {
        let sent = async {
            self.stream.write_all(message).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|e| UpstreamError::io("startup", e))
    }

    /// What was read and not asked for.
    pub(super) fn into_rest(self) -> BytesMut {
        self.buffer
    }

    fn cut(&mut self, expected: &[u8]) -> Result<Option<Frame>, UpstreamError> {
        let Some((&tag, mut rest)) = self.buffer.split_first() else { return Ok(None) };
        if tag != b'E' && !expected.contains(&tag) {
            let what = format!("message '{}' has no place here", tag.escape_ascii());
            return Err(UpstreamError::Protocol(what));
        }
        let Ok(length) = rest.try_get_u32() else { return Ok(None) };
        let size = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(1);
        if !(HEADER..=FRAME_MAX).contains(&size) || size > self.left {
            return Err(UpstreamError::Protocol(format!("a message of {length} bytes")));
        }
        if self.buffer.len() < size {
            return Ok(None);
        }
        self.left -= size;
        Ok(Some(Frame { tag, whole: self.buffer.split_to(size).freeze() }))
    }
}

/// Takes the text before the next NUL.
pub(super) fn take_text(body: &mut Bytes) -> Result<String, UpstreamError> {
    let end = body.iter().position(|byte| *byte == 0);
    let end = end.ok_or_else(|| UpstreamError::Protocol("a text without its end".to_owned()))?;
    let text = body.split_to(end);
    body.advance(1);
    String::from_utf8(text.into())
        .map_err(|_| UpstreamError::Protocol("a text that is not UTF-8".to_owned()))
}
