//! What an attacker can write who knows the format: every hash is right, and the rest is not.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;

use super::block::{BlockKind, BlockWriter, HEADER_LEN, Header, Place, Start};
use super::clock;
use super::event::{Direction, Kind};
use super::tail::Tail;
use super::{Against, Event, Opened, ReadError, Reader, Recording, State, Store, verify};
use crate::config;
use crate::names::SessionId;

/// A recording of its own in `data_dir`, for tests of those who read it.
pub(crate) fn recorded(data_dir: &Path, opened: &Opened) -> Recording {
    let settings = config::Recording {
        durability: config::Durability::Process,
        max_session: 1 << 30,
        max_local: 1 << 30,
        signing_key: data_dir.join("seal_ed25519"),
        mask_key: config::SecretRef::Env("UNUSED".to_owned()),
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
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forged.rec");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
    let mut writer = BlockWriter::new(Tail::new(file, 0, Arc::default()), Place::default());
    let start = Start {
        format: 1,
        session: SessionId::generate(),
        gateway: "g".to_owned(),
        started: clock::rfc3339(0),
        cipher: None,
        recipients: Vec::new(),
        dictionary: None,
    };
    writer.start(&start, 0).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let first: [u8; HEADER_LEN] = bytes[..HEADER_LEN].try_into().unwrap();
    let claimed = zstd::zstd_safe::get_frame_content_size(stored).ok().flatten();
    let mut header = Header {
        kind: BlockKind::Events,
        cipher: 0,
        index: 1,
        first_sequence: 0,
        next_sequence: 1,
        first_wall_us: 3,
        last_wall_us: 3,
        raw_len: claimed.unwrap_or(0),
        stored_len: stored.len() as u64,
        events: 1,
        stored_hash: *blake3::hash(stored).as_bytes(),
        chain: *blake3::hash(&first).as_bytes(),
    };
    change(&mut header);
    bytes.extend_from_slice(&header.encode());
    bytes.extend_from_slice(stored);
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
        ("a cipher", |h| h.cipher = 1),
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
