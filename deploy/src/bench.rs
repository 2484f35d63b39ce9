//! `deploy bench`: measures fresh local clusters, of ours alone or side by side with another store.
//!
//! Each measurement has a cluster of its own, started for it and thrown away after it. With a peer the two take
//! turns, and the order changes from round to round, so that whatever else the machine does meets both alike. The
//! clients run in this process, the same number on the same number of connections for either store.

pub(crate) mod arguments;
mod compare;
pub(crate) mod echo;
mod endure;
#[cfg(feature = "etcd")]
mod etcd;
mod failover;
mod growth;
#[cfg(feature = "etcd")]
pub(crate) mod guard;
mod interrupts;
mod measure;
mod memory;
mod ours;
mod pause;
mod plot;
mod restart;
mod result;
mod start;
mod statistics;
mod system;
mod table;
mod usage;
mod workload;

use std::path::Path;

use self::arguments::{BenchArguments, Peer};
use self::interrupts::Interrupts;
use self::start::Start;
use self::system::System;
use crate::error::Error;
use crate::made::MadeDirectories;
use crate::report::Reporter;

/// What `statfs` calls a file system that is in memory.
#[cfg(target_os = "linux")]
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// Measures what `arguments` ask for. A signal ends it, its clusters and their data, once what was measured is told.
pub(crate) async fn run(arguments: &BenchArguments, reporter: Reporter) -> Result<(), Error> {
    let interrupts = Interrupts::listen(arguments.plots.is_some())?;
    match measure_all(arguments, reporter, &interrupts).await {
        // It has seen what it wanted.
        Err(Error::Unread) => Ok(()),
        outcome => outcome,
    }
}

async fn measure_all(
    arguments: &BenchArguments,
    reporter: Reporter,
    interrupts: &Interrupts,
) -> Result<(), Error> {
    arguments.check_peer()?;
    arguments.check_size()?;
    if arguments.pause {
        pause::check_duration(arguments.duration)?;
    }
    let dirs = [&arguments.dir, &arguments.plots].into_iter().flatten();
    let _made: Vec<_> = dirs
        .map(|dir| MadeDirectories::create(dir))
        .collect::<Result<_, _>>()?;
    if let Some(dir) = &arguments.plots {
        plot::check_directory(dir)?;
    }
    let (systems, missing) = interrupts
        .or(async { Ok(systems(arguments.against).await) })
        .await?;
    reporter.tell(&Start::new(
        &systems,
        missing,
        is_in_memory(arguments.dir.as_deref()),
    ));
    if let Some(times) = arguments.failover {
        return failover::run(arguments, &systems, times, reporter, interrupts).await;
    }
    if arguments.pause {
        return pause::run(arguments, reporter, interrupts).await;
    }
    if arguments.memory {
        return memory::run(arguments, &systems, reporter, interrupts).await;
    }
    if arguments.restart {
        return restart::run(arguments, &systems, reporter, interrupts).await;
    }
    if arguments.endure {
        return endure::run(arguments, reporter, interrupts).await;
    }
    if arguments.growth {
        return growth::run(arguments, reporter, interrupts).await;
    }
    let results = compare::run(arguments, &systems, reporter, interrupts).await?;
    if let Some(dir) = &arguments.plots {
        plot::write_all(dir, &results)?;
    }
    Ok(())
}

/// Who takes part: ours and, if it can be had, the peer; or else why it cannot.
async fn systems(peer: Option<Peer>) -> (Vec<System>, Option<String>) {
    let found = match peer {
        None => return (vec![System::Ours], None),
        Some(Peer::Echo) => Ok(System::Echo),
        #[cfg(feature = "etcd")]
        Some(Peer::Etcd) => etcd::Etcd::find().await.map(System::Etcd),
        #[cfg(not(feature = "etcd"))]
        Some(Peer::Etcd) => Err("this program was built without a client of etcd: build it with \
                                 `cargo build --release -p deploy --features etcd`, which needs protoc"
            .into()),
    };
    match found {
        Ok(peer) => (vec![System::Ours, peer], None),
        Err(missing) => (vec![System::Ours], Some(missing)),
    }
}

/// Whether the clusters' data would be in memory, where no number means anything.
fn is_in_memory(dir: Option<&Path>) -> bool {
    #[cfg(target_os = "linux")]
    {
        let dir = dir.map_or_else(std::env::temp_dir, Path::to_owned);
        rustix::fs::statfs(&dir).is_ok_and(|of| of.f_type == TMPFS)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = dir;
        false
    }
}
