//! From the startup message to the first `ReadyForQuery`.
//!
//! <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroizing;

use super::authentication::Login;
use super::frames::{Frame, Frames, take_text};
use super::{Authentication, ProtocolVersion, UpstreamError};
use crate::protocol::postgres::messages::to_target;

/// Servers refuse a longer startup message (`MAX_STARTUP_PACKET_LENGTH`).
const STARTUP_MESSAGE_MAX: usize = 10_000;

/// Process id and the shortest secret key, which is also the only one in version 3.0.
const KEY_DATA_MIN: usize = 4 + 4;

/// Process id and the longest secret key of version 3.2.
const KEY_DATA_MAX: usize = 4 + 256;

/// A server that is ready for a query.
pub(super) struct Ready {
    pub(super) version: ProtocolVersion,
    pub(super) authentication: Authentication,
    pub(super) key: Option<Zeroizing<Vec<u8>>>,
    pub(super) parameters: Vec<(String, String)>,
    pub(super) notices: Vec<Bytes>,
    pub(super) buffered: BytesMut,
}

/// The startup message.
pub(super) fn message(
    version: ProtocolVersion,
    user: &str,
    database: &str,
    parameters: &[(String, String)],
) -> Result<Bytes, UpstreamError> {
    let refused = |what: &str| Err(UpstreamError::Configuration(what.to_owned()));
    let own = [("user", user), ("database", database)];
    let others = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in own.into_iter().chain(others.clone()) {
        if name.is_empty() || name.contains('\0') || value.contains('\0') {
            return refused("a startup parameter without a name, or with a NUL in it");
        }
    }
    if others.clone().any(|(name, _)| matches!(name, "user" | "database" | "replication")) {
        return refused("user, database and replication are not for a client to set");
    }
    let message = to_target::startup_message(version.code(), own.into_iter().chain(others))?;
    if message.len() > STARTUP_MESSAGE_MAX {
        return refused("the startup parameters are longer than a server takes (10,000 bytes)");
    }
    Ok(message)
}

/// Says hello and goes on until the server is ready for a query.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    asked: ProtocolVersion,
    hello: &[u8],
    login: Login<'_>,
) -> Result<Ready, UpstreamError> {
    let mut frames = Frames::new(stream);
    frames.send(hello).await?;

    let mut first = frames.next(b"Rv").await?;
    let mut version = asked;
    if first.tag == b'v' {
        version = negotiated(asked, &mut first.body())?;
        first = frames.next(b"R").await?;
    }
    let authentication = login.run(&mut frames, first).await?;
    settle(frames, version, authentication).await
}

/// Takes what the server tells of itself between `AuthenticationOk` and `ReadyForQuery`.
async fn settle<S: AsyncRead + Unpin>(
    mut frames: Frames<'_, S>,
    version: ProtocolVersion,
    authentication: Authentication,
) -> Result<Ready, UpstreamError> {
    let (mut key, mut parameters, mut notices) = (None, Vec::new(), Vec::new());
    loop {
        let frame: Frame = frames.next(b"SKNZ").await?;
        let mut body = frame.body();
        match frame.tag {
            b'S' => {
                parameters.push((take_text(&mut body)?, take_text(&mut body)?));
                whole("ParameterStatus", &body)?;
            }
            b'K' if key.is_none() => key = Some(key_data(version, &body)?),
            b'K' => return Err(UpstreamError::Protocol("a second BackendKeyData".to_owned())),
            b'N' => notices.push(frame.whole),
            _ if &*body == b"I" => {
                let buffered = frames.into_rest();
                return Ok(Ready { version, authentication, key, parameters, notices, buffered });
            }
            _ => return Err(UpstreamError::Protocol("ready, but not idle".to_owned())),
        }
    }
}

/// Reads `NegotiateProtocolVersion`: an older version within what was asked, and the protocol
/// options not known to the server, of which the gateway sends none.
fn negotiated(asked: ProtocolVersion, body: &mut Bytes) -> Result<ProtocolVersion, UpstreamError> {
    let (code, options) = (body.try_get_u32().ok(), body.try_get_u32().ok());
    let version = [ProtocolVersion::V3_0, ProtocolVersion::V3_2]
        .into_iter()
        .find(|version| *version <= asked && Some(version.code()) == code);
    match (version, options) {
        (Some(version), Some(0)) => whole("NegotiateProtocolVersion", body).map(|()| version),
        _ => Err(UpstreamError::Protocol("it wants a version that was not asked for".to_owned())),
    }
}

fn key_data(version: ProtocolVersion, body: &Bytes) -> Result<Zeroizing<Vec<u8>>, UpstreamError> {
    let longest = match version {
        ProtocolVersion::V3_0 => KEY_DATA_MIN,
        ProtocolVersion::V3_2 => KEY_DATA_MAX,
    };
    if !(KEY_DATA_MIN..=longest).contains(&body.len()) {
        return Err(UpstreamError::Protocol(format!("a cancel key of {} bytes", body.len())));
    }
    Ok(Zeroizing::new(body.to_vec()))
}

/// Whether all of a message was used.
pub(super) fn whole(message: &str, rest: &Bytes) -> Result<(), UpstreamError> {
    if rest.is_empty() {
        return Ok(());
    }
    Err(UpstreamError::Protocol(format!("{message} goes on behind its end")))
}

impl ProtocolVersion {
    fn code(self) -> u32 {
        match self {
            Self::V3_0 => 3 << 16,
            Self::V3_2 => (3 << 16) | 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use proptest::collection::vec;
    use proptest::prelude::*;
    use tokio::io::ReadBuf;

    use super::*;
    use crate::decode::postgres::frame::message as frame;
    use crate::secret::Secret;

    const OK: &[u8] = b"R\0\0\0\x08\0\0\0\0";
    const READY: &[u8] = b"Z\0\0\0\x05I";

    /// A server that says its part in pieces, whatever it hears, and then hangs up.
    struct Script {
        pieces: VecDeque<Vec<u8>>,
        heard: Vec<u8>,
    }

    impl AsyncRead for Script {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if let Some(mut piece) = self.pieces.pop_front() {
                let rest = piece.split_off(piece.len().min(buf.remaining()));
                buf.put_slice(&piece);
                if !rest.is_empty() {
                    self.pieces.push_front(rest);
                }
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Script {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.heard.extend_from_slice(buf);
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// What comes of it, and what the server heard behind the startup message.
    fn play(pieces: &[&[u8]]) -> (Result<Ready, UpstreamError>, Vec<u8>) {
        let pieces = pieces.iter().map(|p| p.to_vec()).filter(|p| !p.is_empty()).collect();
        let mut script = Script { pieces, heard: Vec::new() };
        let password = Secret::new("canary-7f3a".to_owned());
        let login = Login { user: "svc", password: &password, binding: Some(vec![7; 32]) };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let result = runtime.block_on(run(&mut script, ProtocolVersion::V3_2, b"hello", login));
        (result, script.heard.split_off(5))
    }

    fn refusal(pieces: &[&[u8]]) -> String {
        play(pieces).0.err().expect("a refusal").to_string()
    }

    #[test]
    fn what_the_server_tells_of_itself_is_kept_in_order() {
        let notice = frame(b'N', b"SWARNING\0C01000\0Mcollations differ\0\0");
        let (ready, heard) = play(&[
            OK,
            &frame(b'S', b"server_version\x0018.1\0"),
            &notice,
            &frame(b'S', b"TimeZone\0UTC\0"),
            &frame(b'K', &[9; 260]),
            &[READY, b"more"].concat(),
        ]);
        let ready = ready.unwrap();
        assert_eq!(ready.version, ProtocolVersion::V3_2);
        assert_eq!(ready.authentication, Authentication::Trust);
        assert_eq!(ready.parameters[0], ("server_version".to_owned(), "18.1".to_owned()));
        assert_eq!(ready.parameters[1].0, "TimeZone");
        assert_eq!(ready.notices, [notice]);
        assert_eq!(ready.key.unwrap().len(), 260);
        assert_eq!(ready.buffered, b"more"[..]);
        assert!(heard.is_empty());
    }

    #[test]
    fn an_older_version_is_taken_and_holds_for_the_key() {
        let older = frame(b'v', &[0, 3, 0, 0, 0, 0, 0, 0]);
        let ready = play(&[&older, OK, &frame(b'K', &[9; 8]), READY]).0.unwrap();
        assert_eq!(ready.version, ProtocolVersion::V3_0);
        assert!(refusal(&[&older, OK, &frame(b'K', &[9; 9]), READY]).contains("cancel key"));
        for wrong in [[0, 3, 0, 1, 0, 0, 0, 0], [0, 3, 0, 3, 0, 0, 0, 0], [0, 3, 0, 0, 0, 0, 0, 1]]
        {
            assert!(refusal(&[&frame(b'v', &wrong), OK, READY]).contains("not asked for"));
        }
        assert!(refusal(&[&older, &older, OK, READY]).contains("'v' has no place"));
    }

    #[test]
    fn nothing_is_taken_out_of_turn() {
        let sasl = frame(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
        let cleartext = frame(b'R', &[0, 0, 0, 3]);
        let parameter = frame(b'S', b"a\0b\0");
        let notice = frame(b'N', b"\0");
        let (no_place, turn) = ("no place here", "out of turn");
        let cases: &[(&[&[u8]], &str)] = &[
            (&[&sasl, OK, READY], turn),
            (&[&sasl, &sasl], turn),
            (&[&cleartext, &cleartext], turn),
            (&[&cleartext, &sasl], turn),
            (&[&frame(b'R', b"\0\0\0\x0bx")], turn),
            (&[&frame(b'R', b"\0\0\0\x0cx")], turn),
            (&[&parameter, OK, READY], no_place),
            (&[&notice, OK, READY], no_place),
            (&[READY], no_place),
            (&[OK, OK], no_place),
            (&[OK, &frame(b'T', b"\0\0")], no_place),
            (&[b"HTTP/1.1 400 Bad Request\r\n"], "'H' has no place here"),
            (&[OK, &frame(b'Z', b"T")], "not idle"),
            (&[OK, &frame(b'K', &[0; 8]), &frame(b'K', &[0; 8])], "second"),
            (&[OK, &frame(b'K', &[0; 7])], "cancel key"),
            (&[OK, &frame(b'K', &[0; 261])], "cancel key"),
            (&[OK, &frame(b'S', b"a\0b")], "without its end"),
            (&[OK, &frame(b'S', b"a\0b\0c")], "behind its end"),
            (&[OK, &frame(b'S', b"a\0\xff\0")], "not UTF-8"),
            (&[&frame(b'R', &[0; 3])], "cut short"),
            (&[&frame(b'R', &[0; 5])], "behind its end"),
            (&[OK], "broke at startup"),
        ];
        for (pieces, text) in cases {
            let refusal = refusal(pieces);
            assert!(refusal.contains(text), "{pieces:?}: {refusal}");
        }
    }

    #[test]
    fn sizes_are_refused_before_they_are_waited_for() {
        for length in [0_u32, 3, 64 * 1024, u32::MAX >> 1, u32::MAX] {
            let header = [b"R", &length.to_be_bytes()[..]].concat();
            assert!(refusal(&[&header]).contains("a message of"), "{length}");
        }
        let endless = frame(b'S', b"a\0b\0").repeat(100_000);
        assert!(refusal(&[OK, &endless]).contains("a message of"));
    }

    #[test]
    fn a_method_that_the_gateway_lacks_is_named() {
        for (body, name) in [
            (&b"\0\0\0\x07"[..], "GSSAPI"),
            (b"\0\0\0\x09", "SSPI"),
            (b"\0\0\0\x02", "Kerberos"),
            (b"\0\0\0\x63", "unknown"),
            (b"\0\0\0\x0aOAUTHBEARER\0\0", "OAUTHBEARER"),
        ] {
            let (result, heard) = play(&[&frame(b'R', body)]);
            assert!(matches!(result, Err(UpstreamError::Method(what)) if what.contains(name)));
            assert!(heard.is_empty());
        }
    }

    #[test]
    fn md5_never_shows_the_password() {
        let (ready, heard) = play(&[&frame(b'R', b"\0\0\0\x05salt"), OK, READY]);
        assert_eq!(ready.unwrap().authentication, Authentication::Md5);
        assert!(heard.starts_with(b"p\0\0\0\x28md5"));
        let (_, heard) = play(&[&frame(b'R', b"\0\0\0\x03"), OK, READY]);
        assert_eq!(heard, b"p\0\0\0\x10canary-7f3a\0");
    }

    #[test]
    fn scram_begins_with_its_name_and_a_length() {
        let offer = |names: &[u8]| frame(b'R', &[b"\0\0\0\x0a", names, b"\0"].concat());
        let (_, heard) = play(&[&offer(b"SCRAM-SHA-256-PLUS\0")]);
        let begin = b"p\0\0\0\x50SCRAM-SHA-256-PLUS\0\0\0\0\x35p=tls-server-end-point,,n=,r=";
        assert!(heard.starts_with(begin), "{}", heard.escape_ascii());
        let (_, heard) = play(&[&offer(b"SCRAM-SHA-256\0")]);
        let begin = b"p\0\0\0\x36SCRAM-SHA-256\0\0\0\0\x20y,,n=,r=";
        assert!(heard.starts_with(begin), "{}", heard.escape_ascii());
    }

    #[test]
    fn startup_parameters_cannot_be_smuggled_or_endless() {
        let message = |name: &str, value: &str| {
            message(ProtocolVersion::V3_0, "u", "d", &[(name.to_owned(), value.to_owned())])
        };
        assert_eq!(
            message("a", "b").unwrap(),
            b"\0\0\0\x1f\0\x03\0\0user\0u\0database\0d\0a\0b\0\0"[..]
        );
        let newer = super::message(ProtocolVersion::V3_2, "u", "d", &[]).unwrap();
        assert_eq!(newer, b"\0\0\0\x1b\0\x03\0\x02user\0u\0database\0d\0\0"[..]);
        for (name, value) in [("", "x"), ("a\0b", "x"), ("a", "x\0user\0postgres")] {
            assert!(message(name, value).is_err());
        }
        for name in ["user", "database", "replication"] {
            assert!(message(name, "true").is_err());
        }
        assert!(message("a", &"x".repeat(10_000)).is_err());
    }

    /// Messages of a startup, well made or not, in an order that may make sense.
    fn any_frames() -> impl Strategy<Value = Vec<u8>> {
        let body = || vec(any::<u8>(), 0..40);
        let request = (0_u8..13, body())
            .prop_map(|(kind, rest)| frame(b'R', &[&[0, 0, 0, kind][..], &rest].concat()));
        let one = prop_oneof![
            4 => Just(OK.to_vec()),
            2 => Just(READY.to_vec()),
            2 => Just(frame(b'S', b"name\0value\0")),
            1 => Just(frame(b'K', &[1; 8])),
            1 => Just(frame(b'R', b"\0\0\0\x05salt")),
            1 => Just(frame(b'R', b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")),
            1 => "r=[a-z]{0,30},s=[a-zA-Z=]{0,8},i=[0-9]{0,12}".prop_map(|text| {
                frame(b'R', &[b"\0\0\0\x0b", text.as_bytes()].concat())
            }),
            2 => request,
            2 => (proptest::sample::select(b"RSKNZEv".to_vec()), body())
                .prop_map(|(tag, body)| frame(tag, &body)),
            1 => body(),
        ];
        (vec(one, 0..8), any::<bool>()).prop_map(|(frames, welcome)| {
            let mut bytes = if welcome { OK.to_vec() } else { Vec::new() };
            bytes.extend(frames.concat());
            bytes
        })
    }

    fn outcome(pieces: &[&[u8]]) -> String {
        match play(pieces).0 {
            Ok(r) => {
                format!("{:?} {:?} {:?} {:?}", r.authentication, r.parameters, r.notices, r.key)
            }
            Err(error) => error.to_string(),
        }
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_end_the_same_way(
            bytes in any_frames(), cuts in vec(any::<proptest::sample::Index>(), 0..6),
        ) {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            prop_assert_eq!(outcome(&pieces), outcome(&[&bytes]));
            let single: Vec<_> = bytes.chunks(1).collect();
            prop_assert_eq!(outcome(&single), outcome(&[&bytes]));
        }
    }
}
