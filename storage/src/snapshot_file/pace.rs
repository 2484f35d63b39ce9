//! Writes a large file in a way that others who use the same disk hardly feel.
//!
//! A batch of the log is durable only when its sync returns, and a sync waits for what the disk was given before.
//! A snapshot that is written at once and synced at its end leaves the disk hundreds of MiB to do: every sync
//! meanwhile, of any file and any node on that disk, took up to 0.3 s. So a snapshot is synced piece by piece, and
//! who cuts one rests after each piece for twice as long as it took, 150 ms at most. That leaves two thirds of a
//! disk that is not very slow, and of a processor, to others.

use std::fs::File;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// So much is written before it is synced, by who rests then: others wait for one piece at most.
const SHORT_PIECE_BYTES: usize = 256 * 1024;

/// The same where most of the time would go into the syncs of shorter ones: for a disk that is slow, and for who does
/// not rest.
const LONG_PIECE_BYTES: usize = 1024 * 1024;

/// A piece that takes longer shows that the disk is slow.
const SLOW: Duration = Duration::from_millis(20);

/// How long the rest after a piece is, as a multiple of what the piece took.
const REST: u32 = 2;

/// The longest rest after a piece. A disk that is slow for long is not made slower for ever.
const LONGEST_REST: Duration = Duration::from_millis(150);

/// How long to rest after a piece that took `busy`.
fn rest_after(busy: Duration) -> Duration {
    busy.saturating_mul(REST).min(LONGEST_REST)
}

/// How long the piece after one that took `busy` is, for who rests.
fn piece_bytes_after(busy: Duration) -> usize {
    if busy > SLOW {
        LONG_PIECE_BYTES
    } else {
        SHORT_PIECE_BYTES
    }
}

/// How far the writing of one file is.
#[derive(Debug)]
pub(super) struct Pace {
    unsynced_bytes: usize,
    /// When the writing of this piece began.
    begun: Instant,
    piece_bytes: usize,
    /// Whether to rest after each piece. Not for a thread that has something else to do.
    rests: bool,
}

impl Pace {
    /// Before the first byte.
    pub(super) fn new(rests: bool) -> Self {
        Self {
            unsynced_bytes: 0,
            begun: Instant::now(),
            piece_bytes: if rests {
                SHORT_PIECE_BYTES
            } else {
                LONG_PIECE_BYTES
            },
            rests,
        }
    }

    /// So many more bytes were written to `file`. Syncs them and rests if it is time.
    pub(super) fn written(&mut self, file: &File, bytes: usize) -> io::Result<()> {
        self.unsynced_bytes += bytes;
        if self.unsynced_bytes < self.piece_bytes {
            return Ok(());
        }
        file.sync_data()?;
        if self.rests {
            let busy = self.begun.elapsed();
            self.piece_bytes = piece_bytes_after(busy);
            thread::sleep(rest_after(busy));
        }
        self.unsynced_bytes = 0;
        self.begun = Instant::now();
        Ok(())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use super::{LONG_PIECE_BYTES, Pace, SHORT_PIECE_BYTES, piece_bytes_after, rest_after};

    #[test]
    fn a_rest_is_twice_as_long_as_the_work_but_no_longer_than_the_longest() {
        for (busy, rest) in [(0, 0), (10, 20), (75, 150), (76, 150), (10_000, 150)] {
            assert_eq!(
                rest_after(Duration::from_millis(busy)),
                Duration::from_millis(rest)
            );
        }
    }

    #[test]
    fn the_pieces_for_a_slow_disk_are_longer() {
        assert_eq!(piece_bytes_after(Duration::from_millis(20)), SHORT_PIECE_BYTES);
        assert_eq!(piece_bytes_after(Duration::from_millis(21)), LONG_PIECE_BYTES);
    }

    #[test]
    fn each_piece_is_synced_when_it_is_whole() {
        // What has no disk behind it cannot be synced, and says so.
        let no_disk = File::options().write(true).open("/dev/null").unwrap();
        for rests in [false, true] {
            let mut pace = Pace::new(rests);
            pace.written(&no_disk, pace.piece_bytes - 1).unwrap();
            pace.written(&no_disk, 1).unwrap_err();
            let dir = tempfile::tempdir().unwrap();
            let file = File::create(dir.path().join("file")).unwrap();
            let mut pace = Pace::new(rests);
            for _ in 0..3 {
                let piece_bytes = pace.piece_bytes;
                pace.written(&file, piece_bytes / 2).unwrap();
                pace.written(&no_disk, piece_bytes / 4).unwrap();
                pace.written(&file, piece_bytes / 4).unwrap();
            }
            pace.written(&no_disk, pace.piece_bytes - 1).unwrap();
        }
    }
}
