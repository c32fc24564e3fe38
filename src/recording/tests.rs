//! What an attacker can write who knows the format: every hash is right, and the rest is not.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;

use super::{
    Against, Event, Opened, ReadError, Reader, RecordedIdentity, Recording, State, Store, verify,
};
use crate::config;
use crate::names::{Protocol, SessionId};
use crate::recording::format::append_file::Tail;
use crate::recording::format::cipher::{self, Sealing};
use crate::recording::format::clock;
use crate::recording::format::documents::{FRAME_HEAD, Place, Start, frame_head};
use crate::recording::format::event::{Direction, Kind};
use crate::recording::format::header::{BlockKind, HEADER_LEN, Header, SKIPPABLE_SEALED};
use crate::recording::read::keyring::Keyring;
use crate::recording::write::block_writer::BlockWriter;

/// Of a session of nobody.
pub(crate) fn opened() -> Opened {
    Opened {
        session: SessionId::generate(),
        protocol: Protocol::Postgres,
        target: "orders".parse().unwrap(),
        database: None,
        client: String::new(),
        identity: RecordedIdentity {
            issuer: String::new(),
            subject: String::new(),
            username: String::new(),
            groups: Vec::new(),
        },
        workflow: None,
        run: None,
        client_parameters: std::collections::BTreeMap::new(),
        policy: String::new(),
        gateway_version: String::new(),
    }
}

/// A recording of its own in `data_dir`, for tests of those who read it.
pub(crate) fn recorded(data_dir: &Path, opened: &Opened) -> Recording {
    let settings = config::Recording {
        durability: config::Durability::Process,
        max_session: 1 << 30,
        max_local: 1 << 30,
        signing_key: data_dir.join("seal_ed25519"),
        mask_key: config::SecretRef::Env("UNUSED".to_owned()),
        recipients: Vec::new(),
        identity: None,
    };
    let store = Store::open(data_dir, &settings, &[0; 32]).unwrap();
    store.create(opened, config::OnRecordingFailure::Refuse).unwrap()
}

/// A file that starts well, with one block behind it whose hash and chain are right.
struct Forged {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn forge(stored: &[u8], change: impl FnOnce(&mut Header)) -> Forged {
    let claimed = zstd::zstd_safe::get_frame_content_size(stored).ok().flatten();
    forge_with(&start(SessionId::generate()), |chain| {
        let mut header = Header {
            raw_len: claimed.unwrap_or(0),
            stored_len: stored.len() as u64,
            stored_hash: *blake3::hash(stored).as_bytes(),
            ..header(chain)
        };
        change(&mut header);
        (header, stored.to_vec())
    })
}

fn start(session: SessionId) -> Start {
    Start {
        format: 1,
        session,
        gateway: "g".to_owned(),
        started: clock::rfc3339(0),
        cipher: None,
        recipients: Vec::new(),
        dictionary: None,
        key: None,
    }
}

/// Of a block with one event, behind the start.
fn header(chain: [u8; 32]) -> Header {
    Header {
        kind: BlockKind::Events,
        encrypted: false,
        ends: false,
        number: 0,
        index: 1,
        first_sequence: 0,
        next_sequence: 1,
        first_wall_us: 3,
        last_wall_us: 3,
        raw_len: 0,
        stored_len: 0,
        events: 1,
        stored_hash: [0; 32],
        chain,
    }
}

fn forge_with(start: &Start, block: impl FnOnce([u8; 32]) -> (Header, Vec<u8>)) -> Forged {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forged.rec");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
    let mut writer = BlockWriter::new(Tail::new(file, 0, Arc::default()), Place::default());
    writer.start(start, 0).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let first: [u8; HEADER_LEN] = bytes[..HEADER_LEN].try_into().unwrap();
    let (header, stored) = block(*blake3::hash(&first).as_bytes());
    bytes.extend_from_slice(&header.encode());
    bytes.extend_from_slice(&stored);
    std::fs::write(&path, bytes).unwrap();
    Forged { _folder: folder, path }
}

fn read(forged: &Forged) -> Result<Vec<Event>, ReadError> {
    Reader::open(&forged.path)?.collect()
}

fn pack(raw: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(raw, 1).unwrap()
}

const EVENT: &[u8] =
    b"{\"seq\":0,\"mono\":2,\"wall\":3,\"dir\":\"up\",\"kind\":\"data\",\"len\":2}\nhi\n";

#[test]
fn what_a_header_says_holds_or_the_block_is_refused() {
    let good = pack(EVENT);
    let events = read(&forge(&good, |_| {})).unwrap();
    assert_eq!((events[0].kind, events[0].direction), (Kind::Data, Direction::Up));
    assert_eq!(events[0].payload, "hi");
    assert_eq!(
        verify(&forge(&good, |_| {}).path, &Against::default()).unwrap().state,
        State::Wrong
    );

    type Change = (&'static str, fn(&mut Header));
    let changes: [Change; 11] = [
        ("another number", |h| h.index = 2),
        ("another chain", |h| h.chain = [0; 32]),
        ("another first sequence", |h| h.first_sequence = 1),
        ("another next sequence", |h| h.next_sequence = 2),
        ("the sequence goes back", |h| h.next_sequence = 0),
        ("another count", |h| h.events = 2),
        ("another first time", |h| h.first_wall_us = 4),
        ("another last time", |h| h.last_wall_us = 4),
        ("another length", |h| h.raw_len += 1),
        ("a length over the bound", |h| h.raw_len = u64::MAX),
        ("a cipher", |h| (h.encrypted, h.number) = (true, 1)),
    ];
    for (what, change) in changes {
        let forged = forge(&good, change);
        let error = read(&forged).expect_err(what);
        assert!(matches!(&error, ReadError::Damage(d) if d.block == 1), "{what}: {error}");
    }
    // A stored length beyond the file is a block being written, whatever it says.
    assert_eq!(read(&forge(&good, |h| h.stored_len += 1)).unwrap(), []);
}

#[test]
fn what_is_stored_is_one_frame_of_events_and_nothing_else() {
    let skippable = [&0x184D_2A50u32.to_le_bytes()[..], &2u32.to_le_bytes(), b"xx"].concat();
    let bomb = pack(&vec![0; 20 << 20]);
    let twice = [EVENT, EVENT].concat();
    for (what, stored) in [
        ("two frames", [pack(EVENT), pack(EVENT)].concat()),
        ("a frame to skip behind", [pack(EVENT), skippable.clone()].concat()),
        ("a frame to skip before", [skippable, pack(EVENT)].concat()),
        ("a bomb", bomb),
        ("no frame", b"hello".to_vec()),
        ("nothing", Vec::new()),
        ("half a frame", pack(EVENT)[..20].to_vec()),
        ("an event twice", pack(&twice)),
        ("half an event", pack(&EVENT[..EVENT.len() - 1])),
        ("bytes behind", pack(&[EVENT, b"x"].concat())),
        ("no events", pack(b"")),
    ] {
        read(&forge(&stored, |_| {})).expect_err(what);
    }
}

/// The same behind a cipher: who has the key, or made it, is trusted no more than others.
#[test]
fn what_is_sealed_is_held_to_the_same_bounds() {
    let good = forge_sealed(&pack(EVENT), |_| {});
    assert_eq!(read_sealed(&good).unwrap()[0].payload, "hi");
    assert!(matches!(read(&good.0), Err(ReadError::NoKey(_))));
    for (what, packed) in [
        ("a bomb", pack(&vec![0; 20 << 20])),
        ("two frames", [pack(EVENT), pack(EVENT)].concat()),
        ("no frame", b"hello".to_vec()),
        ("nothing", Vec::new()),
        ("an event twice", pack(&[EVENT, EVENT].concat())),
        ("bytes behind", pack(&[EVENT, b"x"].concat())),
    ] {
        read_sealed(&forge_sealed(&packed, |_| {})).expect_err(what);
    }
    type Change = (&'static str, fn(&mut Header));
    let changes: [Change; 7] = [
        ("another length", |h| h.raw_len += 1),
        ("a length over the bound", |h| h.raw_len = u64::MAX),
        ("another count", |h| h.events = 2),
        ("an end that is none", |h| h.ends = true),
        ("another number", |h| h.number += 1),
        ("no number", |h| h.number = 0),
        ("records that are none", |h| (h.kind, h.number) = (BlockKind::Found, 0)),
    ];
    for (what, change) in changes {
        read_sealed(&forge_sealed(&pack(EVENT), change)).expect_err(what);
    }
}

/// A recording with one sealed block, and what opens it. The header is changed before it is bound.
fn forge_sealed(packed: &[u8], change: fn(&mut Header)) -> (Forged, Keyring) {
    let recipient = "age1gfr9v9fwjlj3729l5yq54lmgw7vvznw8584esrfvldf0pd7pcptqlhukv7";
    let (mut sealing, key) = Sealing::make(&[recipient.parse().unwrap()]).unwrap();
    let session = SessionId::generate();
    let keyring = Keyring::default();
    keyring.hold(session, sealing.key());
    let start = Start {
        cipher: Some(cipher::NAME.to_owned()),
        recipients: vec![recipient.to_owned()],
        key: Some(key),
        ..start(session)
    };
    let length = packed.len() + cipher::TAG;
    let mut stored = frame_head(SKIPPABLE_SEALED, length).unwrap().to_vec();
    stored.extend_from_slice(packed);
    let raw_len = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten().unwrap_or(0);
    let forged = forge_with(&start, |chain| {
        let once = sealing.once().unwrap();
        let mut header = Header {
            encrypted: true,
            number: once.number(),
            raw_len,
            stored_len: (FRAME_HEAD + length) as u64,
            ..header(chain)
        };
        change(&mut header);
        sealing.seal(once, &header.bound(), &mut stored, FRAME_HEAD).unwrap();
        header.stored_hash = *blake3::hash(&stored).as_bytes();
        (header, stored)
    });
    (forged, keyring)
}

fn read_sealed((forged, keyring): &(Forged, Keyring)) -> Result<Vec<Event>, ReadError> {
    Reader::open_with(&forged.path, keyring)?.collect()
}

#[test]
fn a_gap_cannot_wind_the_sequence_round() {
    let payload = format!("{{\"events\":{},\"bytes\":0,\"reason\":\"\"}}", u64::MAX);
    let line = "{\"seq\":0,\"mono\":2,\"wall\":3,\"dir\":\"none\",\"kind\":\"gap\",\"len\":";
    let gap = format!("{line}{}}}\n{payload}\n", payload.len());
    let forged = forge(&pack(gap.as_bytes()), |h| h.next_sequence = u64::MAX);
    assert_eq!(read(&forged).unwrap().len(), 1);
    let again = format!("{gap}{gap}");
    assert!(read(&forge(&pack(again.as_bytes()), |h| h.next_sequence = u64::MAX)).is_err());
}

proptest! {
    #[test]
    fn well_hashed_nonsense_does_not_panic(
        head in prop::collection::vec(any::<u8>(), 0..30),
        at in 0..EVENT.len(),
        tail in prop::collection::vec(any::<u8>(), 0..30),
        packed in any::<bool>(),
    ) {
        let raw = [&EVENT[..at], &head, &EVENT[at..], &tail].concat();
        let stored = if packed { pack(&raw) } else { [&pack(EVENT)[..at.min(20)], &raw].concat() };
        let _any = read(&forge(&stored, |_| {}));
    }
}
