//! Verifying while a gateway writes: nothing is reported that is not wrong.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use portcullis::recording::{Against, Direction, verify_all};

use super::set;

const ROUNDS: usize = 40;
const WRITERS: usize = 3;
/// Of each writer; each round reads all there is.
const SESSIONS: usize = 200;

#[test]
fn a_data_dir_in_use_is_verified_without_a_false_alarm() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let store = set::store(&data_dir);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                for _ in 0..SESSIONS {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let recording = set::open(&store);
                    for bytes in [20, 70_000, 300] {
                        let text = vec![b'x'; bytes];
                        recording.append(|batch| batch.data(Direction::Up, None, &text)).unwrap();
                    }
                    set::close(&recording);
                }
            });
        }
        let mut last = 0;
        let mut heads = Vec::new();
        let mut round = 0;
        // The writers may come to their turn late.
        while round < ROUNDS || last == 0 {
            round += 1;
            let against = Against { heads: heads.clone(), ..Against::default() };
            let audit = verify_all(&data_dir, &against).unwrap();
            if !audit.wrong.is_empty() {
                stop.store(true, Ordering::Relaxed);
            }
            assert_eq!(audit.wrong.len(), 0, "round {round}: {audit:?}");
            assert!(audit.recordings >= last, "round {round}");
            last = audit.recordings;
            // What was once noted holds ever after.
            heads = audit.head.into_iter().collect();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let audit = verify_all(&data_dir, &Against::default()).unwrap();
    assert_eq!((audit.wrong.len(), audit.open, audit.whole), (0, 0, audit.recordings));
}
