//! Snapshots that are put off.

use std::io;

use actix::Addr;
use raft_core::{Configuration, LogIndex, Payload, Term};

use super::*;
use crate::full_disk::FullDisk;
use crate::shutdown::{Fatal, stop_channel};

struct Node(tokio::sync::mpsc::UnboundedSender<SnapshotMeta>);

impl Actor for Node {
    type Context = Context<Self>;
}

impl Handler<AppliedTo> for Node {
    type Result = ();

    fn handle(&mut self, _: AppliedTo, _: &mut Self::Context) {}
}

impl Handler<SnapshotCut> for Node {
    type Result = ();

    fn handle(&mut self, SnapshotCut(snapshot): SnapshotCut, _: &mut Self::Context) {
        self.0.send(snapshot).unwrap();
    }
}

impl Handler<EntriesApplied> for Node {
    type Result = ();

    fn handle(&mut self, _: EntriesApplied, _: &mut Self::Context) {}
}

/// Applies one entry with which a snapshot is due, on a disk that refuses `failures` snapshots.
async fn apply_one(failures: u32, kind: io::ErrorKind) -> Result<SnapshotMeta, Fatal> {
    apply_one_resting(failures, kind, Duration::from_millis(1), |_| ()).await
}

/// The same, where a snapshot is put off for so long. Does `meanwhile` until there is one.
async fn apply_one_resting(
    failures: u32,
    kind: io::ErrorKind,
    put_off_for: Duration,
    meanwhile: impl Fn(&Addr<Applier>),
) -> Result<SnapshotMeta, Fatal> {
    let (cut, mut snapshots) = tokio::sync::mpsc::unbounded_channel();
    let node = Node(cut).start();
    let (stop, mut reasons) = stop_channel();
    let listeners = Listeners {
        applied: node.clone().recipient(),
        cut: node.clone().recipient(),
        outcomes: node.recipient(),
    };
    let disk = Arc::new(DiskSpace::new(0));
    let settings = ApplierSettings {
        put_off_for,
        ..ApplierSettings::new(1, SnapshotMeta::default(), disk)
    };
    let store = Arc::new(FullDisk::new(failures, kind));
    let applier = Applier::new(StateMachine::new(), store, settings, listeners, stop).start();
    applier.do_send(Apply(vec![Entry {
        index: LogIndex(1),
        term: Term(1),
        payload: Payload::Configuration(Configuration::default()),
    }]));
    let outcome = async {
        loop {
            tokio::select! {
                snapshot = snapshots.recv() => return Ok(snapshot.unwrap()),
                reason = reasons.reason() => return Err(reason),
                () = tokio::time::sleep(Duration::from_millis(5)) => meanwhile(&applier),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), outcome)
        .await
        .unwrap()
}

#[test]
fn a_node_that_stops_soon_puts_nothing_off() {
    actix_rt::System::new().block_on(async {
        let an_hour = Duration::from_secs(3600);
        let stop_soon = |applier: &Addr<Applier>| {
            applier.do_send(PutNothingOff);
            // As the watch does that misses the file.
            applier.do_send(ReplaceSnapshot(SnapshotMeta::default()));
        };
        let snapshot = apply_one_resting(3, io::ErrorKind::NotFound, an_hour, stop_soon).await;
        assert_eq!(snapshot.unwrap().last_included_index, LogIndex(1));
    });
}

#[test]
fn a_snapshot_for_which_there_is_no_room_is_put_off_until_there_is() {
    actix_rt::System::new().block_on(async {
        use io::ErrorKind::{NotFound, QuotaExceeded, StorageFull};
        for kind in [StorageFull, QuotaExceeded, NotFound] {
            let snapshot = apply_one(4, kind).await.unwrap_or_else(|fatal| panic!("{fatal}"));
            assert_eq!(snapshot.last_included_index, LogIndex(1));
        }
        for failures in [1, 2] {
            let fatal = apply_one(failures, io::ErrorKind::FileTooLarge)
                .await
                .unwrap_err();
            assert!(matches!(fatal, Fatal::Snapshot(_)), "{fatal}");
        }
    });
}
