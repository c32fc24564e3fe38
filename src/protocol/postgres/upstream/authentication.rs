//! The authentication part of the startup: what the server asks for, and the gateway's answers.
//!
//! Each exchange goes its whole way: `AuthenticationOk` counts only where it is due, so that
//! nobody in the server's place can cut SCRAM short of the server's own proof.

use bytes::{Buf as _, Bytes};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroizing;

use super::frames::{Frame, Frames, take_text};
use super::startup::whole;
use super::{Authentication, UpstreamError};
use crate::protocol::postgres::messages::to_target;
use crate::secret::Secret;

/// Who the gateway is at a target, and what binds its proof to the connection.
pub(super) struct Login<'a> {
    pub(super) user: &'a str,
    pub(super) password: &'a Secret,
    /// `tls-server-end-point`, where there is one.
    pub(super) binding: Option<Vec<u8>>,
}

/// The kinds of `Authentication…` message, by the number they start with.
enum Request {
    Ok,
    CleartextPassword,
    Md5Password([u8; 4]),
    Sasl(Vec<String>),
    SaslContinue(Bytes),
    SaslFinal(Bytes),
    Unsupported(&'static str),
}

impl Login<'_> {
    /// Answers the server's first request, and goes on to `AuthenticationOk`.
    pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
        self,
        frames: &mut Frames<'_, S>,
        first: Frame,
    ) -> Result<Authentication, UpstreamError> {
        let password = self.password.expose().as_bytes();
        let done = match Request::parse(first.body())? {
            Request::Ok => return Ok(Authentication::Trust),
            Request::CleartextPassword => {
                send_text(frames, password).await?;
                Authentication::Password
            }
            Request::Md5Password(salt) => {
                let hash = Zeroizing::new(md5_hash(self.user.as_bytes(), password, salt));
                send_text(frames, hash.as_bytes()).await?;
                Authentication::Md5
            }
            Request::Sasl(mechanisms) => self.scram(frames, &mechanisms).await?,
            Request::SaslContinue(_) | Request::SaslFinal(_) => return Err(out_of_turn()),
            Request::Unsupported(what) => return Err(UpstreamError::Method(what.to_owned())),
        };
        match next(frames).await? {
            Request::Ok => Ok(done),
            _ => Err(out_of_turn()),
        }
    }

    /// SCRAM (RFC 5802, RFC 7677), up to and with the server's proof.
    async fn scram<S: AsyncRead + AsyncWrite + Unpin>(
        self,
        frames: &mut Frames<'_, S>,
        mechanisms: &[String],
    ) -> Result<Authentication, UpstreamError> {
        let offers = |name: &str| mechanisms.iter().any(|mechanism| mechanism == name);
        let (mechanism, binding, kind) = match self.binding {
            Some(binding) if offers(SCRAM_SHA_256_PLUS) => (
                SCRAM_SHA_256_PLUS,
                ChannelBinding::tls_server_end_point(binding),
                Authentication::ScramPlus,
            ),
            _ if !offers(SCRAM_SHA_256) => {
                return Err(UpstreamError::Method(format!("SASL {}", mechanisms.join(", "))));
            }
            // Says that the gateway would have bound: a server that did offer it then knows that
            // somebody took the offer away.
            Some(_) => (SCRAM_SHA_256, ChannelBinding::unrequested(), Authentication::Scram),
            None => (SCRAM_SHA_256, ChannelBinding::unsupported(), Authentication::Scram),
        };

        let mut scram = ScramSha256::new(self.password.expose().as_bytes(), binding);
        let first = scram.message();
        frames.send(to_target::sasl_initial_response(mechanism, first)?.expose()).await?;

        let Request::SaslContinue(challenge) = next(frames).await? else {
            return Err(out_of_turn());
        };
        // Thousands of hashes, by a number that the server chooses (100,000 at most): not for a
        // thread that serves others.
        let hashed = tokio::task::spawn_blocking(move || scram.update(&challenge).map(|()| scram));
        let mut scram = hashed.await.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
        frames.send(to_target::sasl_response(scram.message())?.expose()).await?;

        let Request::SaslFinal(proof) = next(frames).await? else { return Err(out_of_turn()) };
        scram.finish(&proof).map_err(|e| failed(&e))?;
        Ok(kind)
    }
}

impl Request {
    fn parse(mut body: Bytes) -> Result<Self, UpstreamError> {
        let short = |_| UpstreamError::Protocol("an authentication request cut short".to_owned());
        let request = match body.try_get_u32().map_err(short)? {
            0 => Self::Ok,
            3 => Self::CleartextPassword,
            5 => Self::Md5Password(body.try_get_u32().map_err(short)?.to_be_bytes()),
            10 => {
                let mut mechanisms = Vec::new();
                loop {
                    let mechanism = take_text(&mut body)?;
                    if mechanism.is_empty() {
                        break Self::Sasl(mechanisms);
                    }
                    mechanisms.push(mechanism);
                }
            }
            11 => Self::SaslContinue(body.split_off(0)),
            12 => Self::SaslFinal(body.split_off(0)),
            2 => return Ok(Self::Unsupported("Kerberos V5")),
            6 => return Ok(Self::Unsupported("SCM credentials")),
            7 | 8 => return Ok(Self::Unsupported("GSSAPI")),
            9 => return Ok(Self::Unsupported("SSPI")),
            _ => return Ok(Self::Unsupported("an unknown authentication")),
        };
        whole("an authentication request", &body)?;
        Ok(request)
    }
}

async fn next<S: AsyncRead + Unpin>(frames: &mut Frames<'_, S>) -> Result<Request, UpstreamError> {
    Request::parse(frames.next(b"R").await?.body())
}

/// Sends a `PasswordMessage`, which ends with a NUL and so cannot hold one.
async fn send_text<S: AsyncRead + AsyncWrite + Unpin>(
    frames: &mut Frames<'_, S>,
    text: &[u8],
) -> Result<(), UpstreamError> {
    if text.contains(&0) {
        let what = "the target's password has a NUL in it, which no server takes";
        return Err(UpstreamError::Configuration(what.to_owned()));
    }
    frames.send(to_target::password_message(text)?.expose()).await
}

fn out_of_turn() -> UpstreamError {
    UpstreamError::Protocol("an authentication message out of turn".to_owned())
}

fn failed(error: &dyn std::error::Error) -> UpstreamError {
    UpstreamError::Scram(super::error::printable(error.to_string().as_bytes()))
}
