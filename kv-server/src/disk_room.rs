//! How much room is left on the disks of a cluster, and what is still admitted.
//!
//! A store that runs into a full disk has to stop: it cannot know what became of the write. So a node watches
//! the free space of the file system that its data directory is on, and says no while there is room to say it:
//!
//! | room | when fewer bytes are free than | admitted |
//! |---|---|---|
//! | [`DiskRoom::Ample`] | - | everything |
//! | [`DiskRoom::Low`] | `min_free_bytes` + the next snapshot + the log that it replaces | what makes room or stores next to nothing: deletes, sessions, reads through the log |
//! | [`DiskRoom::Out`] | `min_free_bytes` / 4 | nothing that appends to the log: a leader proposes nothing, a follower takes no entries. Votes, terms and heartbeats go on |
//!
//! *The next snapshot* takes what the state as it is takes, which the state machine keeps along
//! ([`StateMachine::snapshot_bytes`](crate::state_machine::StateMachine::snapshot_bytes)): the file is written
//! while the old one still exists. (One more may be on its way out, for a few seconds: so long a snapshot is put off where
//! there is no room for three.) *The log that it replaces* counts because the database takes room before it gives
//! some back: removing records means to write what stands beside them anew.
//!
//! A snapshot is cut early when room is low and it makes some: because it makes the log shorter, or because much
//! of what is in the last one was deleted since. It is put off when it does not fit. What the database has once
//! taken it uses again, but its file hardly becomes shorter; so on a small disk the log is kept short from the
//! start ([`longest_log_bytes`]), or there would be nothing left that deleting keys could give back.
//!
//! What was admitted before room became low is still under way to its last place: the two files of the journal may
//! yet grow to their full length, and all that they hold goes into the database. So a file of the journal takes
//! at most an eighth of `min_free_bytes` ([`DiskSpace::journal_bytes`]): four eighths in all, which leaves the last
//! reserve and as much again for deletes.
//!
//! # One node, or all
//!
//! Each node judges its own disk. A follower that is out of room refuses entries: to its leader it is as good as
//! away, the majority goes on. A leader asks its peers for their room a few times a second, and refuses writes
//! while its own disk, or those of a majority, have no room for them ([`ClusterRoom::admit`]); it does not wait
//! for writes to get stuck. A leader with less room than a peer hands leadership to it
//! ([`ClusterRoom::successor`]), so that one full disk stops nobody. Everything comes back by itself: at once
//! when an eighth more than the threshold is free, and when just the threshold has been free at [`LOOKS_UNTIL_BACK`]
//! looks in a row. So room does not come and go with every look, and a disk that has as much room as when writes were
//! taken before takes them again.
//!
//! # Between two looks
//!
//! What was admitted since the disk was last looked at is not on it yet, and takes more than its own bytes when
//! it is. So bytes admitted in the last two intervals count [`WEIGHT`] times against what is free.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use raft_core::NodeId;
use rpc::client::BusyReason;
use rpc::peer::DiskRoom;

/// The default of `min_free_bytes` on a file system of 96 GiB or more, see [`DiskSpace::default_min_free_bytes`].
pub const DEFAULT_MIN_FREE_BYTES: u64 = 768 << 20;

/// The least that the default is, but for file systems of which that would be more than a quarter.
const LEAST_DEFAULT_MIN_FREE_BYTES: u64 = 128 << 20;

/// The least that `min_free_bytes` may be, but for 0: a quarter of it is the last reserve, and the file of the database
/// grows by some MiB at a time.
pub const LEAST_MIN_FREE_BYTES: u64 = 16 << 20;

/// How many bytes of disk an admitted byte is taken for until it shows: the log, its way into the database, and
/// what surrounds it there.
pub const WEIGHT: u64 = 3;

/// At how many looks in a row more room than before must be there until it counts, if it is not much more.
pub const LOOKS_UNTIL_BACK: u32 = 10;

/// How long the log may become before a snapshot replaces it, on a file system of this size: 64 MiB and more from
/// 1 GiB on. The database takes more for it, and some room whatever its length: `storage/docs/growth.md` says what was
/// measured.
#[must_use]
pub fn longest_log_bytes(total_bytes: u64) -> u64 {
    (total_bytes / 16).max(1 << 20)
}

/// The free space of one disk against what its node needs. Shared by all who admit bytes.
#[derive(Debug)]
pub struct DiskSpace {
    min_free_bytes: u64,
    next_snapshot_bytes: AtomicU64,
    log_bytes: AtomicU64,
    free_bytes: AtomicU64,
    /// Admitted since the last look.
    spent: AtomicU64,
    /// Admitted between the last two looks.
    spent_before: AtomicU64,
    /// The verdict of the last look.
    room: AtomicU8,
    /// How many looks in a row have found more room than that.
    looks_with_more: AtomicU32,
    /// A snapshot that was received found no room, whatever was expected.
    lacked_room: AtomicBool,
}

impl DiskSpace {
    /// A disk that nobody has looked at yet. With `min_free_bytes` 0 there is always room.
    #[must_use]
    pub fn new(min_free_bytes: u64) -> Self {
        Self {
            min_free_bytes,
            next_snapshot_bytes: AtomicU64::new(0),
            log_bytes: AtomicU64::new(0),
            free_bytes: AtomicU64::new(u64::MAX),
            spent: AtomicU64::new(0),
            spent_before: AtomicU64::new(0),
            room: AtomicU8::new(DiskRoom::Ample as u8),
            looks_with_more: AtomicU32::new(0),
            lacked_room: AtomicBool::new(false),
        }
    }

    /// The default of `min_free_bytes` for a file system of this size: a 128th of it, at least 128 MiB (a quarter of a file
    /// system of less than 512 MiB), at most 768 MiB.
    #[must_use]
    pub fn default_min_free_bytes(total_bytes: u64) -> u64 {
        (total_bytes / 128)
            .clamp(LEAST_DEFAULT_MIN_FREE_BYTES, DEFAULT_MIN_FREE_BYTES)
            .min(total_bytes / 4)
    }

    /// How long each of the two files of the journal may become, if `wanted` is what it would be on a large
    /// disk and the file system has `total_bytes`: a 16th of it for both, even where room is not minded.
    #[must_use]
    pub fn journal_bytes(&self, wanted: u64, total_bytes: u64) -> u64 {
        match self.min_free_bytes {
            0 => wanted.min(total_bytes / 32),
            min_free_bytes => wanted.min(min_free_bytes / 8),
        }
    }

    /// Below this many free bytes room is low.
    #[must_use]
    pub fn low_below(&self) -> u64 {
        match self.min_free_bytes {
            0 => 0,
            min_free_bytes => min_free_bytes
                .saturating_add(self.next_snapshot_bytes())
                .saturating_add(self.log_bytes.load(Ordering::Relaxed)),
        }
    }

    /// Below this many free bytes there is no room.
    #[must_use]
    pub fn out_below(&self) -> u64 {
        self.min_free_bytes / 4
    }

    /// The most bytes that a snapshot cut now would take.
    #[must_use]
    pub fn next_snapshot_bytes(&self) -> u64 {
        self.next_snapshot_bytes.load(Ordering::Relaxed)
    }

    /// Sets the most bytes that a snapshot cut now would take, and how long the log is that it would replace.
    pub fn set_needs(&self, next_snapshot_bytes: u64, log_bytes: u64) {
        self.next_snapshot_bytes
            .store(next_snapshot_bytes, Ordering::Relaxed);
        self.log_bytes.store(log_bytes, Ordering::Relaxed);
    }

    /// `free_bytes` were free just now. Returns the room if it has changed. Called by one thread.
    pub fn measured(&self, free_bytes: u64) -> Option<DiskRoom> {
        let spent = self.spent.swap(0, Ordering::Relaxed);
        self.spent_before.store(spent, Ordering::Relaxed);
        self.free_bytes.store(free_bytes, Ordering::Relaxed);
        let before = self.last_room();
        let now = self.judge_look(self.expected_free_bytes(), before);
        self.room.store(now as u8, Ordering::Relaxed);
        (now != before).then_some(now)
    }

    /// `bytes` were admitted.
    pub fn spend(&self, bytes: u64) {
        self.spent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How much room there is.
    #[must_use]
    pub fn room(&self) -> DiskRoom {
        let last = self.last_room();
        self.judge(self.expected_free_bytes(), last).min(last)
    }

    /// Whether a snapshot of `bytes` can be written without using up the last reserve.
    #[must_use]
    pub fn fits(&self, bytes: u64) -> bool {
        self.min_free_bytes == 0 || self.expected_free_bytes() >= bytes.saturating_add(self.out_below())
    }

    /// A snapshot that was received found no room: because of a quota, or something else that took the room.
    pub fn snapshot_lacked_room(&self) {
        self.lacked_room.store(true, Ordering::Relaxed);
    }

    /// Whether that has happened since it was last asked. The next piece is refused then, so that its sender pauses.
    #[must_use]
    pub fn take_lacked_room(&self) -> bool {
        self.lacked_room.load(Ordering::Relaxed) && self.lacked_room.swap(false, Ordering::Relaxed)
    }

    fn last_room(&self) -> DiskRoom {
        match self.room.load(Ordering::Relaxed) {
            room if room == DiskRoom::Out as u8 => DiskRoom::Out,
            room if room == DiskRoom::Low as u8 => DiskRoom::Low,
            _ => DiskRoom::Ample,
        }
    }

    /// What a room is judged by: the bytes that are free, less what was admitted and may not be on the disk yet.
    #[must_use]
    pub fn expected_free_bytes(&self) -> u64 {
        let spent = self.spent.load(Ordering::Relaxed) + self.spent_before.load(Ordering::Relaxed);
        let free = self.free_bytes.load(Ordering::Relaxed);
        if free == u64::MAX {
            return free;
        }
        free.saturating_sub(spent.saturating_mul(WEIGHT))
    }

    /// From this many free bytes on, room that was lost below `threshold` is back at once: an eighth more, so that it
    /// does not come and go.
    #[must_use]
    pub fn back_from(threshold: u64) -> u64 {
        threshold.saturating_add(threshold / 8)
    }

    /// The verdict of a look, which also counts that more room has lasted.
    fn judge_look(&self, free_bytes: u64, before: DiskRoom) -> DiskRoom {
        let now = self.judge(free_bytes, before);
        let without_margin = self.judge(free_bytes, DiskRoom::Ample);
        let looks = if now > before || without_margin <= before {
            0
        } else {
            self.looks_with_more.load(Ordering::Relaxed) + 1
        };
        let has_lasted = looks >= LOOKS_UNTIL_BACK;
        self.looks_with_more
            .store(if has_lasted { 0 } else { looks }, Ordering::Relaxed);
        if has_lasted { without_margin } else { now }
    }

    fn judge(&self, free_bytes: u64, before: DiskRoom) -> DiskRoom {
        let is_below = |threshold: u64, lost: bool| {
            let enough = if lost {
                Self::back_from(threshold)
            } else {
                threshold
            };
            free_bytes < enough
        };
        if is_below(self.out_below(), before == DiskRoom::Out) {
            DiskRoom::Out
        } else if is_below(self.low_below(), before < DiskRoom::Ample) {
            DiskRoom::Low
        } else {
            DiskRoom::Ample
        }
    }
}

/// What a leader knows of the disks of its cluster.
#[derive(Debug)]
pub struct ClusterRoom {
    own_id: NodeId,
    disk: Arc<DiskSpace>,
    /// What each peer last said; `None` counts as ample, because a peer that says nothing acknowledges nothing.
    peers: BTreeMap<NodeId, Option<DiskRoom>>,
}

impl ClusterRoom {
    /// The cluster of `own_id`, whose disk is `disk`, and `peers`.
    #[must_use]
    pub fn new(own_id: NodeId, disk: Arc<DiskSpace>, peers: impl IntoIterator<Item = NodeId>) -> Self {
        Self {
            own_id,
            disk,
            peers: peers.into_iter().map(|peer| (peer, None)).collect(),
        }
    }

    /// `peer` has this much room.
    pub fn report(&mut self, peer: NodeId, room: DiskRoom) {
        if let Some(known) = self.peers.get_mut(&peer) {
            *known = Some(room);
        }
    }

    /// Forgets what peers said: it was said to a leader of another time.
    pub fn forget(&mut self) {
        self.peers.values_mut().for_each(|room| *room = None);
    }

    /// Admits an entry of `bytes` that needs at least `needed` on this disk and on those of a majority.
    ///
    /// # Errors
    ///
    /// [`BusyReason::DiskFull`] with a node that has less.
    pub fn admit(&self, needed: DiskRoom, bytes: usize) -> Result<(), BusyReason> {
        if self.disk.room() < needed {
            return Err(BusyReason::DiskFull { node: self.own_id });
        }
        let mut without = self
            .peers
            .iter()
            .filter(|(_, room)| room.unwrap_or_default() < needed);
        // A majority of n can do without (n - 1) / 2; the next one is one too many.
        let most_without = self.peers.len() / 2;
        if let Some((node, _)) = without.nth(most_without) {
            return Err(BusyReason::DiskFull { node: *node });
        }
        self.disk.spend(bytes as u64);
        Ok(())
    }

    /// The peer with the most room, if it has more than this node.
    #[must_use]
    pub fn successor(&self) -> Option<NodeId> {
        let own = self.disk.room();
        let known = self
            .peers
            .iter()
            .filter_map(|(peer, room)| Some((*peer, (*room)?)));
        let best = known.max_by_key(|(_, room)| *room)?;
        (best.1 > own).then_some(best.0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use raft_core::NodeId;
    use rpc::client::BusyReason;
    use rpc::peer::DiskRoom::{Ample, Low, Out};

    use super::{ClusterRoom, DiskSpace, LOOKS_UNTIL_BACK, longest_log_bytes};

    const KIB: u64 = 1024;

    #[test]
    fn room_goes_at_its_thresholds_and_comes_back_a_little_above_them() {
        let disk = DiskSpace::new(64 * KIB);
        assert_eq!(disk.room(), Ample, "nobody has looked yet");
        for (free, changed, room) in [
            (64, None, Ample),
            (63, Some(Low), Low),
            (71, None, Low),
            (72, Some(Ample), Ample),
            (16, Some(Low), Low),
            (15, Some(Out), Out),
            (17, None, Out),
            (18, Some(Low), Low),
            (0, Some(Out), Out),
            (100, Some(Ample), Ample),
        ] {
            assert_eq!(
                (disk.measured(free * KIB), disk.room()),
                (changed, room),
                "{free} KiB"
            );
        }
    }

    #[test]
    fn a_disk_that_has_as_much_room_as_before_it_was_full_takes_writes_again() {
        let disk = DiskSpace::new(64 * KIB);
        disk.set_needs(30 * KIB, 10 * KIB);
        disk.measured(110 * KIB);
        assert_eq!(disk.room(), Ample);
        disk.measured(0);
        assert_eq!(disk.room(), Out);
        assert_eq!(disk.measured(110 * KIB), Some(Low), "not all of it at once");
        for look in 1..LOOKS_UNTIL_BACK {
            assert_eq!(disk.measured(110 * KIB), None, "{look}");
        }
        assert_eq!(disk.measured(110 * KIB), Some(Ample));
    }

    #[test]
    fn room_that_comes_and_goes_between_looks_is_not_back() {
        let disk = DiskSpace::new(64 * KIB);
        for look in 0..10 * LOOKS_UNTIL_BACK {
            disk.measured(if look % LOOKS_UNTIL_BACK == 0 { 63 } else { 65 } * KIB);
            assert_eq!(disk.room(), Low, "{look}");
        }
    }

    #[test]
    fn a_snapshot_to_come_raises_the_threshold_and_must_leave_the_reserve() {
        let disk = DiskSpace::new(64 * KIB);
        disk.set_needs(60 * KIB, 40 * KIB);
        disk.measured(163 * KIB);
        assert_eq!(disk.room(), Low);
        assert!(disk.fits(147 * KIB) && !disk.fits(148 * KIB));
    }

    #[test]
    fn what_was_admitted_counts_until_the_look_after_next() {
        let disk = DiskSpace::new(64 * KIB);
        disk.measured(100 * KIB);
        disk.spend(12 * KIB);
        assert_eq!(disk.room(), Ample);
        disk.spend(1);
        assert_eq!(disk.room(), Low);
        assert_eq!(disk.measured(100 * KIB), Some(Low));
        assert_eq!(disk.measured(100 * KIB), Some(Ample));
    }

    #[test]
    fn the_log_stays_short_on_a_small_disk() {
        let lengths = [0, 64 << 20, 1 << 30, u64::MAX].map(longest_log_bytes);
        assert_eq!(lengths, [1 << 20, 4 << 20, 64 << 20, u64::MAX / 16]);
    }

    #[test]
    fn the_reserve_grows_with_the_disk_and_the_journal_with_the_reserve() {
        let totals: [u64; 5] = [64 << 20, 1 << 30, 32 << 30, 96 << 30, u64::MAX];
        let reserves = totals.map(DiskSpace::default_min_free_bytes);
        assert_eq!(reserves.map(|bytes| bytes >> 20), [16, 128, 256, 768, 768]);
        let journals = reserves.map(|reserve| DiskSpace::new(reserve).journal_bytes(96 << 20, u64::MAX));
        assert_eq!(journals.map(|bytes| bytes >> 20), [2, 16, 32, 96, 96]);
        let unminded = DiskSpace::new(0);
        assert_eq!(unminded.journal_bytes(96 << 20, u64::MAX), 96 << 20);
        assert_eq!(unminded.journal_bytes(96 << 20, 256 << 20), 8 << 20);
    }

    #[test]
    fn without_a_threshold_there_is_always_room() {
        let disk = DiskSpace::new(0);
        disk.set_needs(KIB, 0);
        disk.measured(0);
        assert_eq!(disk.room(), Ample);
        assert!(disk.fits(u64::MAX));
    }

    fn cluster(own_free: u64, peers: &[(u64, rpc::peer::DiskRoom)]) -> ClusterRoom {
        let disk = Arc::new(DiskSpace::new(64));
        disk.measured(own_free);
        let mut cluster = ClusterRoom::new(NodeId(1), disk, (2..=5).map(NodeId).take(peers.len()));
        for (peer, room) in peers {
            cluster.report(NodeId(*peer), *room);
        }
        cluster
    }

    fn full(node: u64) -> Result<(), BusyReason> {
        Err(BusyReason::DiskFull { node: NodeId(node) })
    }

    #[test]
    fn a_write_needs_room_here_and_on_a_majority() {
        for (own_free, peers, stores, makes_room) in [
            (100, &[][..], Ok(()), Ok(())),
            (63, &[], full(1), Ok(())),
            (15, &[], full(1), full(1)),
            (100, &[(2, Out)], full(2), full(2)),
            (100, &[(2, Out), (3, Ample)], Ok(()), Ok(())),
            (100, &[(2, Out), (3, Low)], full(3), Ok(())),
            (100, &[(2, Out), (3, Out)], full(3), full(3)),
            (63, &[(2, Ample), (3, Ample)], full(1), Ok(())),
            (100, &[(2, Out), (3, Out), (4, Ample), (5, Ample)], Ok(()), Ok(())),
            (100, &[(2, Out), (3, Out), (4, Low), (5, Ample)], full(4), Ok(())),
        ] {
            let cluster = cluster(own_free, peers);
            let verdict = (cluster.admit(Ample, 0), cluster.admit(Low, 0));
            assert_eq!(verdict, (stores, makes_room), "{own_free}, {peers:?}");
        }
    }

    #[test]
    fn leadership_goes_to_a_peer_with_more_room_only() {
        for (own_free, peers, successor) in [
            (100, &[(2, Ample), (3, Ample)][..], None),
            (63, &[(2, Low), (3, Ample)], Some(NodeId(3))),
            (63, &[(2, Low), (3, Out)], None),
            (15, &[(2, Low), (3, Out)], Some(NodeId(2))),
        ] {
            assert_eq!(
                cluster(own_free, peers).successor(),
                successor,
                "{own_free}, {peers:?}"
            );
        }
        let mut forgetful = cluster(63, &[(2, Ample), (3, Ample)]);
        forgetful.forget();
        assert_eq!(
            forgetful.successor(),
            None,
            "nobody is asked to lead who said nothing"
        );
        assert_eq!(forgetful.admit(Low, 0), Ok(()));
    }
}
