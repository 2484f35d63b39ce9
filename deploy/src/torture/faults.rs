//! Does what the plan says, and undoes it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::sleep;

use super::cluster::Cluster;
use super::events::Event;
use super::links::{Condition, Link};
use super::plan::{Fault, Planned, Target};
use super::workload::{Clock, Progress};
use crate::error::Error;
use crate::report::Reporter;

/// What kind of fault it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// Processes were killed.
    Kill,
    /// A process was paused.
    Pause,
    /// Links were cut.
    Cut,
}

impl FaultKind {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Kill, Self::Pause, Self::Cut];

    /// How it is written on a time line.
    pub(crate) fn letter(self) -> char {
        match self {
            Self::Kill => 'K',
            Self::Pause => 'P',
            Self::Cut => 'C',
        }
    }
}

/// A fault that was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    /// Of which kind.
    pub(crate) kind: FaultKind,
    /// In words.
    pub(crate) what: String,
    /// The nodes it befell.
    pub(crate) nodes: Vec<u64>,
    /// When it began.
    pub(crate) from_us: u64,
    /// When it was undone.
    pub(crate) to_us: u64,
}

/// How many faults of each kind there were, and what they befell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct FaultCounts {
    /// Times that one process or all were killed.
    pub(crate) kills: u64,
    /// Processes killed by them.
    pub(crate) killed_processes: u64,
    /// Times that a process was paused.
    pub(crate) pauses: u64,
    /// Times that links were cut.
    pub(crate) cuts: u64,
    /// Links cut by them: each leads from one node to another, and back is another.
    pub(crate) cut_links: u64,
}

impl fmt::Display for FaultCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "faults: {} kills ({} processes), {} pauses (a process each), {} cuts ({} links, each direction by itself)",
            self.kills, self.killed_processes, self.pauses, self.cuts, self.cut_links
        )
    }
}

/// Torments a cluster.
#[derive(Debug)]
pub(crate) struct Tormentor<'a> {
    /// Whom.
    pub(crate) cluster: &'a mut Cluster,
    /// When.
    pub(crate) clock: Clock,
    /// What the clients get done meanwhile.
    pub(crate) progress: Arc<Progress>,
    /// Where it is told.
    pub(crate) reporter: Reporter,
    /// What was done.
    pub(crate) done: Vec<Done>,
    /// How much of it.
    pub(crate) counts: FaultCounts,
    /// Nodes that ended by themselves, and how.
    pub(crate) flaws: Vec<String>,
}

/// What has to be undone.
enum Undo {
    Start(Vec<u64>),
    Resume(u64),
    Mend(Vec<Link>),
}

impl Undo {
    /// The kind of what it undoes.
    fn kind(&self) -> FaultKind {
        match self {
            Self::Start(_) => FaultKind::Kill,
            Self::Resume(_) => FaultKind::Pause,
            Self::Mend(_) => FaultKind::Cut,
        }
    }
}

impl Tormentor<'_> {
    /// Does what `plan` says until `until_us`.
    pub(crate) async fn run(
        &mut self,
        plan: impl Iterator<Item = Planned>,
        until_us: u64,
    ) -> Result<(), Error> {
        for planned in plan {
            let left = Duration::from_micros(until_us.saturating_sub(self.clock.now_us()));
            if left < planned.calm {
                sleep(left).await;
                break;
            }
            sleep(planned.calm).await;
            self.revive()?;
            self.torment(planned).await?;
        }
        Ok(())
    }

    async fn torment(&mut self, planned: Planned) -> Result<(), Error> {
        let victim = self.victim(planned.fault).await;
        let from_us = self.clock.now_us();
        let (what, nodes, undo) = self.inflict(planned.fault, victim);
        self.reporter.tell(&Event::Fault {
            at_ms: from_us / 1_000,
            what: what.clone(),
            lasts_ms: u64::try_from(planned.lasts.as_millis()).unwrap_or(u64::MAX),
            acknowledged: self.progress.acknowledged(),
        });
        sleep(planned.lasts).await;
        let kind = undo.kind();
        self.undo(undo)?;
        self.done.push(Done {
            kind,
            what,
            nodes,
            from_us,
            to_us: self.clock.now_us(),
        });
        Ok(())
    }

    /// Which node it befalls. Without a leader, the first.
    async fn victim(&self, fault: Fault) -> u64 {
        let ids = self.cluster.ids();
        match fault {
            Fault::Kill(target)
            | Fault::Pause(target)
            | Fault::Isolate(target, _)
            | Fault::CutFrom(target, _)
            | Fault::CutPair(target, _) => match target {
                Target::Node(place) => ids[place % ids.len()],
                Target::Leader => self.cluster.leader().await.unwrap_or(ids[0]),
            },
            Fault::KillAll => ids[0],
        }
    }

    fn inflict(&mut self, fault: Fault, victim: u64) -> (String, Vec<u64>, Undo) {
        match fault {
            Fault::Kill(_) => self.kill(vec![victim]),
            Fault::KillAll => self.kill(self.cluster.ids()),
            Fault::Pause(_) => {
                self.cluster.pause(victim);
                self.counts.pauses += 1;
                (
                    format!("node {victim} paused"),
                    vec![victim],
                    Undo::Resume(victim),
                )
            }
            Fault::Isolate(_, condition) => self.cut(
                condition,
                &format!("node {victim} cut off"),
                vec![victim],
                |link| link.from == victim || link.to == victim,
            ),
            Fault::CutFrom(_, condition) => self.cut(
                condition,
                &format!("node {victim} can not call"),
                vec![victim],
                |link| link.from == victim,
            ),
            Fault::CutPair(_, condition) => {
                let ids = self.cluster.ids();
                let other = ids.iter().copied().find(|id| *id > victim).unwrap_or(ids[0]);
                let what = format!("no link between nodes {victim} and {other}");
                self.cut(condition, &what, vec![victim, other], |link| {
                    [(victim, other), (other, victim)].contains(&(link.from, link.to))
                })
            }
        }
    }

    fn kill(&mut self, victims: Vec<u64>) -> (String, Vec<u64>, Undo) {
        self.counts.kills += 1;
        for &victim in &victims {
            self.cluster.kill(victim);
            self.counts.killed_processes += 1;
        }
        let what = match &victims[..] {
            [victim] => format!("node {victim} killed"),
            _ => "all nodes killed".to_owned(),
        };
        (what, victims.clone(), Undo::Start(victims))
    }

    fn cut(
        &mut self,
        condition: Condition,
        what: &str,
        nodes: Vec<u64>,
        is_cut: impl Fn(&Link) -> bool,
    ) -> (String, Vec<u64>, Undo) {
        let links: Vec<Link> = self.cluster.links().all().filter(is_cut).collect();
        self.counts.cuts += 1;
        for &link in &links {
            self.cluster.links().set(link, condition);
            self.counts.cut_links += 1;
        }
        let how = if condition == Condition::Silent {
            "silently"
        } else {
            "connections closed"
        };
        (format!("{what} ({how})"), nodes, Undo::Mend(links))
    }

    fn undo(&mut self, undo: Undo) -> Result<(), Error> {
        match undo {
            Undo::Start(nodes) => nodes
                .into_iter()
                .try_for_each(|node| self.cluster.start_node(node))?,
            Undo::Resume(node) => self.cluster.resume(node),
            Undo::Mend(links) => {
                for link in links {
                    self.cluster.links().set(link, Condition::Works);
                }
            }
        }
        Ok(())
    }

    /// Starts nodes that ended by themselves again, and keeps that in mind.
    pub(crate) fn revive(&mut self) -> Result<(), Error> {
        if let Some(error) = self.cluster.ended_early() {
            let what = error.to_string();
            self.reporter.tell(&Event::Flaw { what: what.clone() });
            self.flaws.push(what);
            for id in self.cluster.ids() {
                self.cluster.start_node(id)?;
            }
        }
        Ok(())
    }
}
