//! Scenarios told as stories: each file in `testscripts/` gives commands and holds what came of them, who sent
//! what to whom, what was persisted, what was committed. A change of behaviour shows up as a difference that a
//! person can judge. To accept one: `UPDATE_GOLDENFILES=1 cargo test -p raft-core --test it golden`, then read
//! the diff.
//!
//! The commands are the variants of [`Command`]. Nothing moves by itself: a message waits until `deliver` or
//! `settle`, a write until `persist` or `settle`.

use std::error::Error;
use std::path::Path;

use crate::common::cluster::Cluster;
use crate::common::disk::Disk;
use crate::common::server::Server;
use crate::common::{config, entries, plain_raft, voters};
use bytes::Bytes;
use raft_core::{Config, Message, NodeId};

/// What a script may say.
#[derive(goldenscript::Command)]
enum Command {
    /// A new cluster of so many servers, with the thesis' extensions unless `plain=true`.
    Cluster {
        servers: u64,
        #[arg(key, optional)]
        plain: bool,
        #[arg(key)]
        max_append_bytes: Option<usize>,
        #[arg(key)]
        window: Option<usize>,
    },
    /// The terms of the entries that a server has in its log at the start: `log 2 1 1 3`. Before `start`.
    Log(u64, Vec<u64>),
    /// Starts the servers.
    Start,
    /// Everybody else's trust in the leader runs out, then this server's election timeout.
    Timeout(u64),
    /// Only this server's election timeout runs out.
    TimeoutAlone(u64),
    /// So many ticks of this server's election clock.
    Tick(u64, u64),
    /// The heartbeat interval of this server passed.
    Heartbeat(u64),
    /// Delivers what is on its way now; `to=` only what is for that server.
    Deliver {
        #[arg(key)]
        to: Option<u64>,
    },
    /// Loses what is on its way from one server to another.
    Lose(u64, u64),
    /// Damages the pieces of snapshots that are on their way.
    Damage,
    /// Makes the oldest waiting batch of this server durable.
    Persist(u64),
    /// This server's disk stands still until `fast`.
    Slow(u64),
    /// This server's disk goes on.
    Fast(u64),
    /// Works off everything that waits.
    Settle,
    /// Proposes commands to a server.
    Propose(u64, Vec<String>),
    /// Asks a server for a read index.
    Read(u64),
    /// Cuts all links of a server.
    Isolate(u64),
    /// Makes all links whole.
    Heal,
    /// The power of a server goes out.
    Crash(u64),
    /// And comes back.
    Restart(u64),
    /// A server cuts a snapshot of what it has applied.
    Snapshot(u64),
    /// A server hands its leadership over.
    Transfer(u64),
    /// The role, term and log of each server.
    Status,
}

#[derive(Default)]
struct Narrator {
    disks: Vec<(u64, Disk)>,
    config: Option<Config>,
    cluster: Option<Cluster>,
    told: usize,
}

impl Narrator {
    fn cluster(&mut self) -> Result<&mut Cluster, Box<dyn Error>> {
        if self.cluster.is_none() {
            self.start()?;
        }
        self.cluster.as_mut().ok_or_else(|| "no cluster".into())
    }

    fn set_up(&mut self, servers: u64, plain: bool, max_append_bytes: Option<usize>, window: Option<usize>) {
        let base = if plain { plain_raft(1) } else { config(1) };
        self.config = Some(Config {
            max_append_bytes: max_append_bytes.unwrap_or(base.max_append_bytes),
            max_inflight_messages: window.unwrap_or(base.max_inflight_messages),
            retained_log_bytes: 0,
            ..base
        });
        self.disks = (1..=servers).map(|id| (id, Disk::new(voters(servers)))).collect();
    }

    fn set_log(&mut self, id: u64, terms: &[u64]) -> Result<(), Box<dyn Error>> {
        let last_term = terms.last().copied().unwrap_or_default();
        let slot = self
            .disks
            .iter_mut()
            .find(|(server, _)| *server == id)
            .ok_or("no such server")?;
        slot.1 = slot
            .1
            .clone()
            .with_hard_state(last_term, None)
            .with_entries(entries(1, terms));
        Ok(())
    }

    fn start(&mut self) -> Result<(), Box<dyn Error>> {
        let template = self.config.clone().ok_or("`cluster` comes first")?;
        let disks = std::mem::take(&mut self.disks).into_iter().collect();
        let configure = |id| Config {
            id: NodeId(id),
            seed: id,
            ..template.clone()
        };
        self.cluster = Some(Cluster::from_disks(disks, configure));
        Ok(())
    }

    /// What happened since this was last asked.
    fn news(&mut self) -> String {
        let Some(cluster) = &self.cluster else {
            return String::new();
        };
        let news = cluster.story[self.told..].join("\n");
        self.told = cluster.story.len();
        news
    }

    fn status(&mut self) -> Result<String, Box<dyn Error>> {
        let cluster = self.cluster()?;
        let mut lines = Vec::new();
        for id in cluster.ids().into_iter().map(NodeId::get) {
            if cluster.crashed.contains_key(&NodeId(id)) {
                lines.push(format!("{id} is down"));
                continue;
            }
            let status = cluster.status(id);
            lines.push(format!(
                "{id} {} in term {}, log {}..{}, durable {}, committed {}, applied {}",
                status.soft_state.role,
                status.soft_state.term,
                status.first_log_index,
                status.last_log_index,
                status.durable_index,
                status.commit_index,
                status.applied_index
            ));
        }
        Ok(lines.join("\n"))
    }

    /// Commands about the network.
    fn move_messages(&mut self, command: &Command) -> Result<(), Box<dyn Error>> {
        let cluster = self.cluster()?;
        match command {
            Command::Deliver { to: None } => cluster.deliver_round(),
            Command::Deliver { to: Some(to) } => deliver_to(cluster, *to),
            Command::Lose(from, to) => {
                cluster.lose(|envelope| (envelope.from.get(), envelope.to.get()) == (*from, *to));
            }
            Command::Damage => damage_chunks(cluster),
            Command::Isolate(id) => cluster.isolate(*id),
            Command::Heal => cluster.heal(),
            _ => cluster.settle(),
        }
        Ok(())
    }

    /// Commands about one server.
    fn act(&mut self, command: &Command) -> Result<(), Box<dyn Error>> {
        let cluster = self.cluster()?;
        match command {
            Command::Timeout(id) => cluster.time_out(*id),
            Command::TimeoutAlone(id) => cluster.time_out_alone(*id),
            Command::Tick(id, ticks) => (0..*ticks).for_each(|_| cluster.tick(*id)),
            Command::Heartbeat(id) => cluster.heartbeat(*id),
            Command::Persist(id) => cluster.persist(*id, 1),
            Command::Slow(id) => cluster.hold_persists(*id),
            Command::Fast(id) => cluster.release_persists(*id),
            Command::Propose(id, commands) => {
                for command in commands {
                    cluster.propose(*id, command).ok_or("refused")?;
                }
            }
            Command::Read(id) => {
                cluster.read(*id).ok_or("refused")?;
            }
            Command::Crash(id) => cluster.crash(*id),
            Command::Restart(id) => cluster.restart(*id),
            Command::Snapshot(id) => cluster.cut_snapshot(*id),
            Command::Transfer(id) => {
                cluster
                    .with(NodeId(*id), Server::transfer_leadership)
                    .flatten()
                    .ok_or("nobody could take over")?;
            }
            _ => unreachable!("handled by the caller"),
        }
        Ok(())
    }
}

fn deliver_to(cluster: &mut Cluster, to: u64) {
    for envelope in std::mem::take(&mut cluster.network) {
        if envelope.to.get() == to {
            cluster.deliver(envelope);
        } else {
            cluster.network.push_back(envelope);
        }
    }
}

fn damage_chunks(cluster: &mut Cluster) {
    for envelope in &mut cluster.network {
        if let Message::InstallSnapshot(chunk) = &mut envelope.message {
            chunk.data = Bytes::from(vec![b'?'; chunk.data.len()]);
        }
    }
}

impl goldenscript::Runner for Narrator {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &goldenscript::Context) -> Result<String, Box<dyn Error>> {
        match command {
            Command::Cluster {
                servers,
                plain,
                max_append_bytes,
                window,
            } => self.set_up(*servers, *plain, *max_append_bytes, *window),
            Command::Log(id, terms) => self.set_log(*id, terms)?,
            Command::Start => self.start()?,
            Command::Status => return self.status(),
            Command::Deliver { .. }
            | Command::Lose(..)
            | Command::Damage
            | Command::Isolate(_)
            | Command::Heal
            | Command::Settle => self.move_messages(command)?,
            _ => self.act(command)?,
        }
        Ok(self.news())
    }
}

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testscripts").join(stringify!($name));
                goldenscript::run(&mut Narrator::default(), path).unwrap();
            }
        )*

        #[test]
        fn every_script_is_run() {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testscripts");
            let files = std::fs::read_dir(directory).unwrap().count();
            assert_eq!(files, [$(stringify!($name)),*].len());
        }
    };
}

scenarios![
    check_quorum,
    conflict_backup,
    delayed_persist,
    election,
    leadership_transfer,
    lost_message_is_probed,
    pipelining,
    pre_vote,
    read_index,
    snapshot_damaged,
    snapshot_resumed,
    snapshot_sent,
    split_vote,
    truncation_while_persisting,
];
