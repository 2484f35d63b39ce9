//! Writes a large file in a way that others who use the same disk hardly feel.
//!
//! A batch of the log is durable only when its sync returns, and a sync waits for what the disk was given before.
//! A snapshot that is written at once and synced at its end leaves the disk hundreds of MiB to do: every sync
//! meanwhile, of any file and any node on that disk, took up to 0.3 s. So a snapshot is synced piece by piece, and
//! who writes one rests after each piece for three times as long as it took, 150 ms at most. That leaves three quarters of
//! a disk that is not very slow, and of a processor, to others: where three nodes on one machine of two processors write
//! theirs at once, more than one of the two.

use std::fs::File;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// So much is written before it is synced.
const PIECE_BYTES: usize = 256 * 1024;

/// How long the rest after a piece is, as a multiple of what the piece took.
const REST: u32 = 3;

/// The longest rest after a piece. A disk that is slow for long is not made slower for ever.
const LONGEST_REST: Duration = Duration::from_millis(150);

/// How long to rest after a piece that took `busy`.
fn rest_after(busy: Duration) -> Duration {
    busy.saturating_mul(REST).min(LONGEST_REST)
}

/// How far the writing of one file is.
#[derive(Debug)]
pub(super) struct Pace {
    unsynced_bytes: usize,
    /// When the writing of this piece began.
    begun: Instant,
    /// Whether to rest after each piece. Not for a thread that has something else to do.
    rests: bool,
}

impl Pace {
    /// Before the first byte.
    pub(super) fn new(rests: bool) -> Self {
        Self {
            unsynced_bytes: 0,
            begun: Instant::now(),
            rests,
        }
    }

    /// So many more bytes were written to `file`. Syncs them and rests if it is time.
    pub(super) fn written(&mut self, file: &File, bytes: usize) -> io::Result<()> {
        self.unsynced_bytes += bytes;
        if self.unsynced_bytes < PIECE_BYTES {
            return Ok(());
        }
        file.sync_data()?;
        if self.rests {
            thread::sleep(rest_after(self.begun.elapsed()));
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

    use super::{PIECE_BYTES, Pace, rest_after};

    #[test]
    fn a_rest_is_three_times_as_long_as_the_work_but_no_longer_than_the_longest() {
        for (busy, rest) in [(0, 0), (10, 30), (50, 150), (51, 150), (10_000, 150)] {
            assert_eq!(
                rest_after(Duration::from_millis(busy)),
                Duration::from_millis(rest)
            );
        }
    }

    #[test]
    fn each_piece_is_synced_when_it_is_whole() {
        // What has no disk behind it cannot be synced, and says so.
        let no_disk = File::options().write(true).open("/dev/null").unwrap();
        for rests in [false, true] {
            let mut pace = Pace::new(rests);
            pace.written(&no_disk, PIECE_BYTES - 1).unwrap();
            pace.written(&no_disk, 1).unwrap_err();
            let dir = tempfile::tempdir().unwrap();
            let file = File::create(dir.path().join("file")).unwrap();
            let mut pace = Pace::new(rests);
            for _ in 0..3 {
                pace.written(&file, PIECE_BYTES / 2).unwrap();
                pace.written(&no_disk, PIECE_BYTES / 4).unwrap();
                pace.written(&file, PIECE_BYTES / 4).unwrap();
            }
            pace.written(&no_disk, PIECE_BYTES - 1).unwrap();
        }
    }
}
