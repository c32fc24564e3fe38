//! Whatever is changed in a set of recordings, both verifiers find it; in one that was not
//! changed, neither finds anything.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::slice;

use portcullis::recording::{Against, Audit, Claim, Keyring, verify, verify_all};

use super::set::{self, Set};
use crate::support::random::{Random, amount};

/// A sealed recording of the set, and the large one.
const SMALL: usize = 1;
const LARGE: usize = 2;
/// Of an encrypted set: the one that was sealed without its key.
const FOUND: usize = 4;

type Change = fn(&Set, &Path);

/// Alterations with a name, which somebody would make who knows the format.
const CORPUS: &[(&str, Change)] = &[
    ("a recording is gone", |set, copy| fs::remove_file(set.recording_in(copy, SMALL)).unwrap()),
    ("the newest recording is gone", |set, copy| {
        fs::remove_file(set.recording_in(copy, 3)).unwrap();
    }),
    ("the newest recording is gone, and the end of the ledger", |set, copy| {
        let session = set.recordings[3].file_stem().unwrap().to_str().unwrap().to_owned();
        fs::remove_file(set.recording_in(copy, 3)).unwrap();
        edit_ledger(copy, |lines| {
            let first = lines.iter().position(|line| line.contains(&session)).unwrap();
            lines.truncate(first);
        });
    }),
    ("the ledger is gone", |_, copy| fs::remove_file(copy.join("ledger")).unwrap()),
    ("the ledger's last line is gone", |_, copy| {
        edit_ledger(copy, |lines| lines.truncate(lines.len() - 1));
    }),
    ("a line of the ledger is gone", |_, copy| {
        edit_ledger(copy, |lines| lines.retain(|line| !line.starts_with("{\"n\":2,")));
    }),
    ("two lines of the ledger changed places", |_, copy| {
        edit_ledger(copy, |lines| lines.swap(1, 2));
    }),
    ("another ledger tells of the same recordings", |set, copy| {
        let other = set.copy("another");
        fs::remove_file(other.join("ledger")).unwrap();
        let settings = set::settings(&other);
        drop(portcullis::recording::Store::open(&other, &settings, &[7; 32]).unwrap());
        fs::copy(other.join("ledger"), copy.join("ledger")).unwrap();
    }),
    ("the seal is cut", |set, copy| {
        edit(&set.recording_in(copy, SMALL), |bytes| {
            let seal = block_offsets(bytes).pop().unwrap();
            bytes.truncate(seal);
        });
    }),
    ("a block in the middle is cut", |set, copy| {
        edit(&set.recording_in(copy, LARGE), |bytes| {
            let offsets = block_offsets(bytes);
            bytes.drain(offsets[1]..offsets[2]);
        });
    }),
    ("two blocks changed places", |set, copy| {
        edit(&set.recording_in(copy, LARGE), |bytes| {
            let at = block_offsets(bytes);
            let second = bytes[at[1]..at[2]].to_vec();
            bytes.splice(at[3]..at[3], second);
            bytes.drain(at[1]..at[2]);
        });
    }),
    ("bytes stand behind the seal", |set, copy| {
        edit(&set.recording_in(copy, SMALL), |bytes| bytes.push(0));
    }),
    ("a zstd frame stands behind the seal", |set, copy| {
        edit(&set.recording_in(copy, SMALL), |bytes| {
            bytes.extend(zstd::bulk::compress(b"other events", 1).unwrap());
        });
    }),
    ("a skippable frame stands behind the seal", |set, copy| {
        edit(&set.recording_in(copy, SMALL), |bytes| {
            bytes.extend([0x5f, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7]);
        });
    }),
    ("a recording stands in another's place", |set, copy| {
        fs::copy(set.recording_in(copy, 0), set.recording_in(copy, SMALL)).unwrap();
    }),
    ("a recording has another name", |set, copy| {
        let path = set.recording_in(copy, SMALL);
        let name = format!("{}.rec", portcullis::names::SessionId::generate());
        fs::rename(&path, path.with_file_name(name)).unwrap();
    }),
    ("a recording that the ledger does not know was added", |set, copy| {
        let other = Set::make();
        let path = set.recording_in(copy, SMALL);
        let name = other.recordings[SMALL].file_name().unwrap();
        fs::copy(&other.recordings[SMALL], path.with_file_name(name)).unwrap();
    }),
    ("a whole other set, with a key of its own", |_, copy| {
        fs::remove_dir_all(copy).unwrap();
        set::copy(&Set::make().data_dir, copy);
    }),
    ("a file that is no recording was added", |set, copy| {
        fs::write(set.recording_in(copy, 0).with_extension("txt"), "").unwrap();
    }),
];

#[test]
fn both_verifiers_find_every_alteration_of_the_corpus() {
    [Set::make(), Set::encrypted()].iter().for_each(find_every_alteration);
}

fn find_every_alteration(set: &Set) {
    let mut copies = Vec::new();
    for (number, (_, change)) in CORPUS.iter().enumerate() {
        let copy = set.copy(&format!("copy-{number}"));
        change(set, &copy);
        copies.push(copy);
    }
    let second = set.second_opinions(&copies);
    for (((what, _), copy), second) in CORPUS.iter().zip(&copies).zip(second) {
        let audit = set.audit(copy);
        assert!(is_found(&audit), "{what}: not found: {audit:?}");
        assert_ne!(second["wrong"], serde_json::json!([]), "{what}: not found by the second");
    }
}

#[test]
fn neither_verifier_finds_anything_in_a_set_that_was_not_changed() {
    let set = Set::make();
    let audit = set.audit(&set.data_dir);
    assert!(!is_found(&audit), "{audit:?}");
    let all = [Claim::Whole, Claim::Signed, Claim::Complete, Claim::Anchored];
    assert_eq!((audit.proved.as_slice(), audit.whole, audit.interrupted), (&all[..], 4, 1));
    let second = set.second_opinions(slice::from_ref(&set.data_dir)).remove(0);
    let proved = serde_json::json!(["whole", "complete", "signed", "anchored"]);
    assert_eq!((&second["wrong"], &second["proved"]), (&serde_json::json!([]), &proved));
    let head = audit.head.unwrap();
    assert_eq!(second["head"], format!("{}:{}", head.lines, head.hash));
}

/// As those who must prove it and may not read it, and as those who may.
#[test]
fn neither_verifier_finds_anything_in_an_encrypted_set() {
    let set = Set::encrypted();
    let all = [Claim::Whole, Claim::Signed, Claim::Complete, Claim::Anchored];
    for (keyring, identity, unread) in
        [(Keyring::default(), None, 5), (set::keyring(), Some(set::IDENTITY), 0)]
    {
        let audit = verify_all(&set.data_dir, &Against { keyring, ..set.against() }).unwrap();
        assert!(!is_found(&audit), "{audit:?}");
        assert_eq!((audit.proved.as_slice(), audit.whole), (&all[..], 5));
        assert_eq!((audit.interrupted, audit.unread), (2, unread));
        let second = set.second_opinions_by(identity, slice::from_ref(&set.data_dir)).remove(0);
        assert_eq!(second["wrong"], serde_json::json!([]));
    }
    // Somebody else's identity does no harm.
    let second =
        set.second_opinions_by(Some(set::OTHER_IDENTITY), slice::from_ref(&set.data_dir)).remove(0);
    assert_eq!(second["wrong"], serde_json::json!([]));
}

/// One bit of each byte: of a recording, whose every place is named, and of the ledger.
#[test]
fn every_byte_of_a_recording_and_its_ledger_counts() {
    every_byte_counts(&Set::make(), SMALL);
    let set = Set::encrypted();
    every_byte_counts(&set, SMALL);
    every_byte_counts(&set, FOUND);
}

fn every_byte_counts(set: &Set, number: usize) {
    let copy = set.copy("copy");
    let against = set.against();
    let path = set.recording_in(&copy, number);
    let whole = fs::read(&path).unwrap();
    let blocks = block_offsets(&whole);
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        fs::write(&path, &changed).unwrap();
        let wrong = verify(&path, &against).unwrap().wrong.unwrap();
        let block = blocks.iter().rposition(|start| *start <= at).unwrap();
        let named = wrong.block.map(|block| usize::try_from(block).unwrap());
        // A changed header may still be one, and then the next one does not follow it.
        assert!(named == Some(block) || named == Some(block + 1), "byte {at}: {wrong}");
    }
    fs::write(&path, &whole).unwrap();
    let ledger = copy.join("ledger");
    let whole = fs::read(&ledger).unwrap();
    for at in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        fs::write(&ledger, &changed).unwrap();
        assert!(is_found(&set.audit(&copy)), "byte {at} of the ledger");
    }
    fs::write(&ledger, &whole).unwrap();
    assert!(!is_found(&set.audit(&copy)));
    fs::remove_dir_all(&copy).unwrap();
}

/// How many random alterations are made; `scripts/soak alterations` makes 10,000.
#[test]
fn random_alterations_are_found() {
    let alterations = amount("PORTCULLIS_ALTERATIONS", 300);
    let mut random = Random::seeded();
    find_random_alterations(&Set::make(), alterations / 2, &mut random);
    find_random_alterations(&Set::encrypted(), alterations / 2, &mut random);
}

fn find_random_alterations(set: &Set, alterations: usize, random: &mut Random) {
    let (mut copies, mut kinds) = (Vec::new(), BTreeMap::<_, usize>::new());
    for number in 0..alterations {
        let copy = set.copy(&format!("copy-{number}"));
        let (kind, what) = alter(set, &copy, random);
        *kinds.entry(kind).or_default() += 1;
        let audit = set.audit(&copy);
        assert!(is_found(&audit), "{what}: {audit:?}");
        copies.push((what, copy));
        if copies.len() == 100 || number + 1 == alterations {
            let paths: Vec<PathBuf> = copies.iter().map(|(_, copy)| copy.clone()).collect();
            for ((what, copy), second) in copies.drain(..).zip(set.second_opinions(&paths)) {
                assert_ne!(second["wrong"], serde_json::json!([]), "{what}: not by the second");
                fs::remove_dir_all(copy).unwrap();
            }
        }
    }
    println!("{alterations} alterations, all found by both: {kinds:?}");
}

/// Changes something somewhere, and says in what way and what.
fn alter(set: &Set, copy: &Path, random: &mut Random) -> (&'static str, String) {
    let number = random.below(set.recordings.len());
    let path = match random.below(3) {
        0 => copy.join("ledger"),
        _ => set.recording_in(copy, number),
    };
    let shown = path.file_name().unwrap().to_string_lossy().into_owned();
    let mut bytes = fs::read(&path).unwrap();
    let before = bytes.clone();
    let at = random.below(bytes.len());
    let (kind, what) = match random.below(7) {
        0 | 1 => {
            bytes[at] ^= 1 << random.below(8);
            ("a bit", format!("byte {at} of {shown} has another bit"))
        }
        2 => {
            let to = at + 1 + random.below((bytes.len() - at).min(500));
            bytes.drain(at..to.min(before.len()));
            ("bytes gone", format!("bytes {at} to {to} of {shown} are gone"))
        }
        3 => {
            let more: Vec<u8> = (0..=random.below(200)).map(|_| random.byte()).collect();
            bytes.splice(at..at, more);
            ("bytes put in", format!("bytes were put in at {at} of {shown}"))
        }
        4 => {
            bytes.truncate(at);
            ("cut", format!("{shown} is cut at {at}"))
        }
        5 => {
            let length = (bytes.len() - at).min(1 + random.below(300));
            let from = random.below(bytes.len() - length + 1);
            bytes.copy_within(from..from + length, at);
            ("bytes copied", format!("{length} bytes of {shown} at {at} are those at {from}"))
        }
        _ => {
            fs::remove_file(&path).unwrap();
            return ("a file gone", format!("{shown} is gone"));
        }
    };
    if bytes == before {
        bytes[at] ^= 1;
    }
    fs::write(&path, bytes).unwrap();
    (kind, what)
}

fn is_found(audit: &Audit) -> bool {
    // What the command fails for.
    !audit.wrong.is_empty() || audit.open > 0 || audit.torn_ledger > 0
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn edit_ledger(copy: &Path, change: impl FnOnce(&mut Vec<&str>)) {
    let path = copy.join("ledger");
    let text = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    change(&mut lines);
    fs::write(path, lines.join("\n") + "\n").unwrap();
}

/// Where the blocks of a recording start.
fn block_offsets(bytes: &[u8]) -> Vec<usize> {
    let (mut at, mut offsets) = (0, Vec::new());
    while at < bytes.len() {
        offsets.push(at);
        let stored = u64::from_le_bytes(bytes[at + 64..at + 72].try_into().unwrap());
        at += 160 + usize::try_from(stored).unwrap();
    }
    offsets
}
