//! The kinds of faults: how often each happens in a run, and how often it did.

use std::ops::AddAssign;

use rand::RngExt;
use rand_pcg::Pcg64Mcg;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A message between nodes, or between a client and a node, is lost.
    MessageLost,
    /// A message arrives twice.
    MessageDuplicated,
    /// A message is held up so long that many others overtake it.
    MessageDelayed,
    /// Some nodes cannot reach the others, nor be reached.
    Partition,
    /// Some nodes can hear the others and not be heard.
    OneWayCut,
    /// Single links are cut, so that the rest forms a chain, a ring or a star, or lacks one link.
    PartialCut,
    /// All that is under way between two nodes is lost.
    ConnectionBroken,
    /// The same, between two chunks of a snapshot. A follower was cut off before, so that it needed one.
    TransferBroken,
    /// A node crashes and loses what is not durable.
    Crash,
    /// A node crashes in the middle of its writes: the first of them are durable and nobody knows.
    CrashInWrite,
    /// A node stands still for a while.
    Pause,
    /// A node's clock changes its speed.
    ClockSkewed,
    /// Some disks are slow from now on.
    DiskSlow,
    /// A disk does nothing for a while.
    DiskStalled,
    /// A write fails, and may be on the disk all the same.
    DiskFailed,
    /// A bit of a snapshot file flips.
    BitFlipped,
    /// A node crashes, and a bit of its log, its hard state or another record flips.
    RecordFlipped,
    /// A node loses its whole disk, and comes back with an empty one.
    DiskLost,
    /// A node comes back with an older copy of its disk, or with a disk that was lost.
    CopyPutBack,
    /// Some nodes apply slowly from now on.
    ApplierSlow,
    /// The leader is asked to hand over.
    HandOver,
    /// A client crashes and comes back with its session.
    ClientCrash,
    /// A client cannot reach some nodes.
    ClientCutOff,
    /// A leader is left by the others, and some clients stay with it.
    LeaderDeserted,
}

impl FaultKind {
    /// How many kinds there are.
    const COUNT: usize = Self::ALL.len();

    /// All of them.
    pub const ALL: [Self; 24] = [
        Self::MessageLost,
        Self::MessageDuplicated,
        Self::MessageDelayed,
        Self::Partition,
        Self::OneWayCut,
        Self::PartialCut,
        Self::ConnectionBroken,
        Self::TransferBroken,
        Self::Crash,
        Self::CrashInWrite,
        Self::Pause,
        Self::ClockSkewed,
        Self::DiskSlow,
        Self::DiskStalled,
        Self::DiskFailed,
        Self::BitFlipped,
        Self::RecordFlipped,
        Self::DiskLost,
        Self::CopyPutBack,
        Self::ApplierSlow,
        Self::HandOver,
        Self::ClientCrash,
        Self::ClientCutOff,
        Self::LeaderDeserted,
    ];

    /// The kinds that are drawn one at a time, with how often at most, against the others. What the network
    /// does to single messages is not among them, nor what has runs of its own.
    const DRAWN: [(Self, u32); 20] = [
        (Self::Partition, 6),
        (Self::OneWayCut, 3),
        (Self::PartialCut, 4),
        (Self::ConnectionBroken, 3),
        (Self::TransferBroken, 6),
        (Self::Crash, 4),
        (Self::CrashInWrite, 4),
        (Self::Pause, 3),
        (Self::ClockSkewed, 2),
        (Self::DiskSlow, 2),
        (Self::DiskStalled, 2),
        (Self::DiskFailed, 2),
        (Self::BitFlipped, 2),
        (Self::RecordFlipped, 2),
        (Self::DiskLost, 3),
        (Self::CopyPutBack, 3),
        (Self::ApplierSlow, 2),
        (Self::HandOver, 2),
        (Self::ClientCrash, 3),
        (Self::ClientCutOff, 2),
    ];

    /// The kind in words, as it stands behind a number.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MessageLost => "messages lost",
            Self::MessageDuplicated => "messages duplicated",
            Self::MessageDelayed => "messages held up",
            Self::Partition => "partitions",
            Self::OneWayCut => "one-way cuts",
            Self::PartialCut => "partial cuts",
            Self::ConnectionBroken => "connections broken",
            Self::TransferBroken => "snapshot transfers broken",
            Self::Crash => "crashes",
            Self::CrashInWrite => "crashes in a write",
            Self::Pause => "pauses",
            Self::ClockSkewed => "clock changes",
            Self::DiskSlow => "slow disks",
            Self::DiskStalled => "stalled disks",
            Self::DiskFailed => "failed disks",
            Self::BitFlipped => "flipped bits in snapshots",
            Self::RecordFlipped => "flipped bits in records",
            Self::DiskLost => "lost disks",
            Self::CopyPutBack => "old disks put back",
            Self::ApplierSlow => "slow appliers",
            Self::HandOver => "hand-overs",
            Self::ClientCrash => "client crashes",
            Self::ClientCutOff => "clients cut off",
            Self::LeaderDeserted => "leaders deserted",
        }
    }
}

/// How often each kind happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts([u64; FaultKind::COUNT]);

impl FaultCounts {
    pub(crate) fn count(&mut self, kind: FaultKind) {
        self.0[kind as usize] += 1;
    }

    /// How often `kind` happened.
    #[must_use]
    pub fn of(&self, kind: FaultKind) -> u64 {
        self.0[kind as usize]
    }
}

impl AddAssign for FaultCounts {
    fn add_assign(&mut self, other: Self) {
        for (mine, others) in self.0.iter_mut().zip(other.0) {
            *mine += others;
        }
    }
}

/// Which faults happen in a run, and how often against each other. A run with few kinds gets deeper into each.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultMix {
    weights: Vec<(FaultKind, u32)>,
    /// Mends the links.
    repair: u32,
}

impl FaultMix {
    /// About half of the kinds.
    pub(crate) fn draw(generator: &mut Pcg64Mcg) -> Self {
        let mut weights = Vec::new();
        for (kind, heaviest) in FaultKind::DRAWN {
            if generator.random_ratio(1, 2) {
                weights.push((kind, generator.random_range(1..=heaviest)));
            }
        }
        let cuts = [
            FaultKind::Partition,
            FaultKind::OneWayCut,
            FaultKind::PartialCut,
            FaultKind::ClientCutOff,
        ];
        let repair = weights
            .iter()
            .filter(|(kind, _)| cuts.contains(kind))
            .map(|(_, weight)| weight)
            .sum();
        Self { weights, repair }
    }

    /// Leaders are deserted again and again, and little else happens.
    pub(crate) fn deserting() -> Self {
        let weights = vec![
            (FaultKind::LeaderDeserted, 12),
            (FaultKind::Crash, 1),
            (FaultKind::Pause, 1),
            (FaultKind::ClockSkewed, 1),
            (FaultKind::HandOver, 1),
        ];
        Self { weights, repair: 1 }
    }

    /// Whether `kind` is among them.
    pub(crate) fn has(&self, kind: FaultKind) -> bool {
        self.weights.iter().any(|(drawn, _)| *drawn == kind)
    }

    /// The next fault; `None` mends the links.
    pub(crate) fn next(&self, generator: &mut Pcg64Mcg) -> Option<FaultKind> {
        let sum: u32 = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut drawn = generator.random_range(0..(sum + self.repair).max(1));
        for (kind, weight) in &self.weights {
            if drawn < *weight {
                return Some(*kind);
            }
            drawn -= weight;
        }
        None
    }
}
