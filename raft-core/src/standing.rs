//! Which stores count: why a node that lost its disk cannot make the cluster wrong.
//!
//! Raft lets a server forget nothing that it promised: a vote, an acknowledged entry, an answer in a round of
//! reads. A node whose data directory was emptied has forgotten all of it, and from the inside it looks like a
//! node that is new. So what counts is not the node but its *store*. Each store draws an [`Incarnation`] when
//! it is created, and the log itself says by which store each node takes part: the *registry*, in the
//! [`Configuration`](crate::Configuration), travels in entries and snapshots.
//!
//! # The rules
//!
//! 1. Every message on which something may be counted says which store sends it ([`Sender`]). A candidate
//!    counts a vote, and a leader an acknowledgement, an answer in a read round or a sign of life toward its
//!    quorum, only if its registry names that very store and the store has *standing*. Quorums stay majorities
//!    of all voters: whoever does not count is missing.
//! 2. **Founding.** While a candidate's log names no stores, every store that was not made to join counts for
//!    it. The winner appends a registry right behind its no-op, before any command: itself and every such
//!    store that it has heard of. So no log holds a command without the registry before it. A candidate first
//!    waits a few election timeouts for the nodes that have not been heard of yet, because who is named in the
//!    founding registry counts at once, and who comes later only after rule 3.
//! 3. **Registration.** A store that the founding registry does not name (a [`Newcomer`](Standing::Newcomer),
//!    or one that an operator made to replace a lost one: [`Joining`](Standing::Joining)) receives the log and
//!    has no standing: it grants no votes, does not stand for election, and its answers say so. When it has
//!    caught up, the leader appends a configuration that names it in place of its node's old store. From there on the old store does
//!    not count, and the new one not yet: so the entry is committed by a majority *without* that node. When
//!    the new store knows its own registration to be committed it becomes a [`Member`](Standing::Member),
//!    durably, with its vote in the present term given to the present leader.
//! 4. A store that nobody made to join and whose node is registered by another store is told so by every
//!    message that it gets, and stops ([`Refusal::OtherData`]).
//! 5. A leader tells every follower how far it has acknowledged the log in this leadership. A follower that
//!    has less runs on an older copy of its disk and stops ([`Refusal::OlderCopy`]).
//!
//! 6. Who founded the cluster is part of the registry for ever. Messages between nodes of different founders,
//!    each committed, are dropped, and a node that hears from the leader of another cluster stops
//!    ([`Refusal::OtherCluster`]). So logs of two clusters are never taken for one, though their entries may be
//!    alike in index and term.
//! 7. A leader that hears of a committed entry which it does not have stops ([`Refusal::LacksCommitted`]), and so
//!    does a follower whose leader has another entry in the place of one that is committed here
//!    ([`Refusal::OtherHistory`]). Entries are compared one by one, and a snapshot by the terms that it tells of
//!    ([`SnapshotMeta::terms`](crate::SnapshotMeta::terms)).
//! 8. A node that knows, or has in its log, who leads in a term stops when another leads in that term
//!    ([`Refusal::TwoLeaders`]), or when that one leads in it by another election
//!    ([`Refusal::LedTwice`]), because it has forgotten the first. Their logs could differ and agree in every index and
//!    term. So each election draws a number, the [`Leadership`](crate::Leadership). A leader tells it with each `AppendEntries`,
//!    together with that of the term before the entries. What is kept of a term tells it as well: the no-op at its
//!    beginning, or the snapshot that replaced that. So no entry is kept of a term whose no-op is dropped for a snapshot
//!    that does not tell of it any more.
//!
//! # Why this is safe
//!
//! Let node *n* have lost store *c* at some moment *w*, let *c'* be the store that replaces it, let *k* be the
//! entry that registers *c'*, appended by the leader of term *T*, and *Q* the majority that committed it. *k*
//! comes after *w*, for the leader had heard of *c'*. *Q* is a majority of all voters in which *n* was not
//! counted, so **any majority, whether it counted *n* or not, shares a member other than *n* with *Q***: of
//! the other *N* − 1 it has at least ⌊*N*/2⌋, and *Q* ⌊*N*/2⌋ + 1. All that follows rests on that member *y*.
//!
//! **Vote amnesia.** Could *c* have voted for *X* in a term *t*, and *c'* vote for another in *t*, with both
//! counted? Whoever counts *c'* has *k* in its log, so *t* > *T*. The election of *X* in *t* had a majority,
//! and with *Q* a member *y*, which acknowledged *k* in *T* before it voted in *t*, and so holds *k* or entries
//! of later terms. Then *X* was up to date with it when it asked. *X* asked before *w*, for *c* answered; at
//! that time *k* did not exist, so the last entry of *X* was of a term *T'*, *T* < *T'* < *t*. The leader of
//! *T'* was elected before *w* by a majority that also shares a member with *Q*; this one was in *T'* before
//! *w* and could not acknowledge *k* in *T* afterwards. A contradiction, so no.
//!
//! **Acknowledgement amnesia.** Could an entry that was committed because *c* had acknowledged it get lost?
//! If a leader of a term up to *T* committed it before *k* was appended, the leader of *T* holds it before *k*
//! (leader completeness, argued with the elections so far, in which *c'* was not counted), and so does every
//! log with *k* in it. Whoever counts *c'* holds *k*. A leader of a later term was elected by a majority that
//! shares *y* with *Q*, so it holds *k*, and does not count *c*.
//!
//! **Read amnesia.** A leader confirms that it still leads by answers of a majority, which promise nothing
//! but what the terms of those who answered promise already. *c'* answers for itself only after it took on a
//! term of at least *T*, durably, and what *c* answered before *w* was true then: the elections that could
//! make it stale need a majority, and *y* with it.
//!
//! **Registered stores that are lost again**, also several at once, are the same argument one after the other:
//! who is missing does not count until its own *k*, and each *k* needs a majority of those who count.
//!
//! A store that the registry does not name yet and that nobody lost is the case without *c*. It may answer as
//! a founder until it has read in the log that it is none, and is not counted: a founder counts only for those
//! in whose log the founding registry, or a committed one, names it.
//!
//! # Who may be told, by whom
//!
//! A follower can be behind, and its registry with it. So a voter does not look at the registry at all (the
//! log check of Raft §5.4.1 keeps an emptied node from winning), a follower follows whoever leads, and a
//! refusal is heeded by a store that is not in its own log's registry: that another store of the same node was
//! ever named is proof enough. A registered one heeds it only from a leader whose commit index has come to its
//! registration.
//!
//! # What cannot be told
//!
//! - A majority of nodes of which none holds anything is a new cluster. If the nodes that hold the data are
//!   down, and the rest were emptied or never started, they found another one. (A node that was started once
//!   while the others were up holds the registry.) When one that holds the data is started then, it stops by
//!   rule 6, and keeps it, if its log starts with a snapshot; else it may come to follow as if its entries had
//!   not been committed.
//! - Until a node that missed the founding is registered, each founder is needed in its place: with two of
//!   three founded and the third not yet seen, both must be up.
//! - An older copy of a directory that is put back while no leader remembers what it had acknowledged (the
//!   leadership has changed since) counts as what it was. If it elects a leader that lacks acknowledged entries, the
//!   nodes that have them stop by the rules 7 and 8, with these exceptions. A node that was itself restarted since does
//!   not know that its entries behind its last snapshot were committed, and gives them up for a leader of a later term
//!   that has others in their place, or none. And a snapshot tells only of the latest
//!   [`MAX_TERMS`](crate::SnapshotMeta::MAX_TERMS) terms: a node that is further behind takes it. Never put back a copy:
//!   empty the directory and join.
//! - Two processes on copies of one store, unless both are elected in one term.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::configuration::Configuration;
use crate::event::{Event, StepDownReason};
use crate::message::{AppendEntries, Message};
use crate::node::{Node, RoleState};
use crate::types::{Entry, Incarnation, LogIndex, NodeId, Payload, Term};

/// How often a candidate that could found the cluster waits another election timeout for nodes that it has
/// not heard of.
const FOUNDING_PATIENCE: u32 = 2;

/// What the word of a store is worth. Durable, part of [`HardState`](crate::HardState).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Nobody made it to join: it counts if the cluster was founded with it.
    #[default]
    Founder,
    /// The cluster was founded without it. Counts once it is registered.
    Newcomer,
    /// An operator made it to replace a lost store. Counts once it is registered.
    Joining,
    /// It was registered after the founding, and knows that this is committed.
    Member,
}

/// Which store sends a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// The store.
    pub incarnation: Incarnation,
    /// What its word is worth.
    pub standing: Standing,
    /// The store by which the sender's registry knows the receiver, if it does.
    pub knows_receiver_as: Option<Incarnation>,
    /// The store by whose election the sender's cluster was founded, once the sender knows that to be
    /// committed. See [`Configuration::founder`](crate::Configuration::founder).
    pub cluster_founder: Option<Incarnation>,
}

/// Why a node must not take part. Nothing that it acknowledged to others was counted since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The cluster knows this node by another store: its data directory was emptied or replaced.
    #[error("node {by} knows this node by other data (store {known_as}) than it was started with")]
    OtherData {
        /// Who says so.
        by: NodeId,
        /// The store by which it knows this node.
        known_as: Incarnation,
    },
    /// This node has acknowledged more of the log than it has: it runs on an older copy of its data.
    #[error(
        "this node had acknowledged the log up to entry {acknowledged} to leader {by}, and now it ends at entry \
         {last_log_index}"
    )]
    OlderCopy {
        /// The leader.
        by: NodeId,
        /// What was acknowledged to it.
        acknowledged: LogIndex,
        /// What is there.
        last_log_index: LogIndex,
    },
    /// This node was elected without an entry that another knows to be committed: enough nodes run on older
    /// copies of their data to elect it.
    #[error(
        "this node was elected, and its log ends at entry {last_log_index}, while node {by} knows entry {committed} \
         to be committed"
    )]
    LacksCommitted {
        /// Who knows of the entry.
        by: NodeId,
        /// The entry.
        committed: LogIndex,
        /// What is there.
        last_log_index: LogIndex,
    },
    /// Two nodes lead in one term: somebody voted twice, because it runs on an older copy of its data.
    #[error("node {by} leads in term {term}, in which node {other} led")]
    TwoLeaders {
        /// Who leads.
        by: NodeId,
        /// The term.
        term: Term,
        /// Who led in that term as well, by what this node remembers or has in its log.
        other: NodeId,
    },
    /// One node led twice in this term, or the logs show of an earlier one that it was led twice: somebody runs on an
    /// older copy of its data.
    #[error("term {term} was led twice: node {by} leads with another leadership of it than this node knows")]
    LedTwice {
        /// Who leads.
        by: NodeId,
        /// The term.
        term: Term,
    },
    /// A leader has another entry where this node knows one to be committed: it was elected by nodes that run on
    /// older copies of their data.
    #[error("node {by} leads with another entry {index} than the one that this node knows to be committed")]
    OtherHistory {
        /// Who leads.
        by: NodeId,
        /// The entry.
        index: LogIndex,
    },
    /// A majority has founded another cluster, without the data of this node.
    #[error("node {by} leads another cluster, which store {founder} founded without the data of this node")]
    OtherCluster {
        /// Who leads it.
        by: NodeId,
        /// The store by whose election it was founded.
        founder: Incarnation,
    },
}

impl Standing {
    /// Whether a store of this standing votes and stands for election.
    #[must_use]
    pub(crate) fn may_vote(self) -> bool {
        matches!(self, Self::Founder | Self::Member)
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Founder => "founder",
            Self::Newcomer => "newcomer",
            Self::Joining => "joining",
            Self::Member => "member",
        })
    }
}

impl Node {
    /// The store that this node runs on.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.config.incarnation
    }

    /// What this node's word is worth.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.hard_state.standing
    }

    /// What this node says of itself in a message to `to`.
    pub(crate) fn sender_to(&self, to: NodeId) -> Sender {
        Sender {
            incarnation: self.config.incarnation,
            standing: self.hard_state.standing,
            knows_receiver_as: self.log.configuration().incarnation_of(to),
            cluster_founder: self.log.committed_configuration().founder(),
        }
    }

    /// Whether this node may stand for election: a voter with standing, and not one that its own log says was
    /// replaced.
    pub(crate) fn may_campaign(&self) -> bool {
        let registered = self.log.configuration().incarnation_of(self.id());
        self.is_voter()
            && self.hard_state.standing.may_vote()
            && registered.map_or(!self.log.configuration().is_founded(), |store| {
                store == self.config.incarnation
            })
    }

    /// Whether the word of this store counts here, as of what is in the log.
    pub(crate) fn counts(&self, from: NodeId, sender: Sender) -> bool {
        let configuration = self.log.configuration();
        if !configuration.is_founded() {
            return sender.standing == Standing::Founder;
        }
        configuration.incarnation_of(from) == Some(sender.incarnation)
            && match sender.standing {
                Standing::Founder => self.log.is_settled(from, sender.incarnation),
                Standing::Member => true,
                Standing::Newcomer | Standing::Joining => false,
            }
    }

    /// The one gate for every message: whether it is to be handled. Takes note of who it is from, stops this
    /// node if the message shows that it must not take part, and keeps out what must not be counted.
    pub(crate) fn admits(&mut self, from: NodeId, message: &Message) -> bool {
        if self.is_refused {
            return false;
        }
        let Some(sender) = message.sender() else {
            return true;
        };
        if let Some(refusal) = self.refusal_in(from, sender, message) {
            self.refuse(refusal);
            return false;
        }
        let own_founder = self.log.committed_configuration().founder();
        if own_founder.is_some()
            && sender
                .cluster_founder
                .is_some_and(|theirs| own_founder != Some(theirs))
        {
            return false;
        }
        self.heard.insert(from, sender);
        match message {
            Message::PreVoteResponse(answer) | Message::RequestVoteResponse(answer) => {
                !answer.vote_granted || self.counts(from, sender)
            }
            Message::AppendEntriesResponse(answer) => {
                self.is_of_this_term(answer.term) && self.admits_peer(from, sender)
            }
            Message::InstallSnapshotResponse(answer) => {
                self.is_of_this_term(answer.term) && self.admits_peer(from, sender)
            }
            _ => true,
        }
    }

    /// Takes on a higher term, whoever tells of it.
    fn is_of_this_term(&mut self, term: Term) -> bool {
        !self.observe_term(term) && term == self.hard_state.current_term
    }

    /// Whether the message shows that this node must stop.
    fn refusal_in(&self, by: NodeId, sender: Sender, message: &Message) -> Option<Refusal> {
        if let Message::AppendEntries(request) = message
            && let Some(founder) = sender.cluster_founder
            && self.is_of_another_cluster(founder, request)
        {
            return Some(Refusal::OtherCluster { by, founder });
        }
        if let Message::AppendEntries(request) = message
            && let Some(index) = self.committed_otherwise(request)
        {
            return Some(Refusal::OtherHistory { by, index });
        }
        let known_as = sender.knows_receiver_as?;
        let leader = match message {
            Message::AppendEntries(request) if request.term >= self.hard_state.current_term => Some(request),
            _ => None,
        };
        if known_as != self.config.incarnation {
            return self
                .heeds_other_data(leader)
                .then_some(Refusal::OtherData { by, known_as });
        }
        let acknowledged = leader?.acknowledged;
        let last_log_index = self.log.last_index();
        (acknowledged > last_log_index).then_some(Refusal::OlderCopy {
            by,
            acknowledged,
            last_log_index,
        })
    }

    /// Where the log of a leader is another than what is committed here (against Raft §5.4: leader completeness).
    fn committed_otherwise(&self, request: &AppendEntries) -> Option<LogIndex> {
        if request.term < self.hard_state.current_term {
            return None;
        }
        let committed = self.log.commit_index();
        let prev = (request.prev_log_index, request.prev_log_term);
        let entries = request.entries.iter().map(|entry| (entry.index, entry.term));
        std::iter::once(prev)
            .chain(entries)
            .take_while(|(index, _)| *index <= committed)
            .find(|(index, term)| self.log.told_term_at(*index).is_some_and(|own| own != *term))
            .map(|(index, _)| index)
    }

    /// Whether a leader of the cluster of `founder` leads another cluster than that of this log: of what is
    /// committed, or what log matching would take for the leader's.
    fn is_of_another_cluster(&self, founder: Incarnation, request: &AppendEntries) -> bool {
        let mut shared = self.log.commit_index();
        if self.log.term_at(request.prev_log_index) == Some(request.prev_log_term) {
            let is_alike = |entry: &&Entry| self.log.term_at(entry.index) == Some(entry.term);
            let alike = request.entries.iter().take_while(is_alike).last();
            shared = shared.max(alike.map_or(request.prev_log_index, |entry| entry.index));
        }
        self.log
            .configuration_at(shared)
            .and_then(Configuration::founder)
            .is_some_and(|own| own != founder)
    }

    /// Whether this node stops when it is known by another store; `leader` is the leader's message, if one
    /// says so.
    fn heeds_other_data(&self, leader: Option<&AppendEntries>) -> bool {
        let registered_at = self.log.registered_at(self.id(), self.config.incarnation);
        match (self.hard_state.standing, registered_at) {
            (Standing::Joining, _) => false,
            (Standing::Newcomer, _) | (Standing::Founder, None) => true,
            // A message from before the registration says nothing.
            (Standing::Founder | Standing::Member, Some(index)) => {
                leader.is_some_and(|request| request.leader_commit >= index)
            }
            (Standing::Member, None) => false,
        }
    }

    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        self.note_step_down(StepDownReason::NoStanding);
        self.become_follower(self.hard_state.current_term, None);
        self.is_refused = true;
        self.outbox.events.push(Event::Refused(refusal));
        self.outbox.refusal = Some(refusal);
    }

    /// As a leader: whether the answer of this store is to be handled, if only to bring its log up. Follows the
    /// change from one store to another, and proposes to register a new one.
    fn admits_peer(&mut self, from: NodeId, sender: Sender) -> bool {
        let registered = self.log.configuration().incarnation_of(from);
        let is_registered = registered == Some(sender.incarnation);
        if !is_registered && registered.is_some() && sender.standing != Standing::Joining {
            return false;
        }
        let counts = self.counts(from, sender);
        let next_index = self.log.last_index().next();
        let RoleState::Leader(leader) = &mut self.state else {
            return false;
        };
        let Some(progress) = leader.peers.get_mut(&from) else {
            return false;
        };
        progress.is_of(sender.incarnation, counts, next_index);
        if !is_registered {
            self.approach_registration(from, sender.incarnation);
        }
        true
    }

    /// Registers a store once it has caught up with an entry that was appended after it was first heard of. So
    /// it is alive, and not a late message of one that is gone; and nobody waits for a store that has all of
    /// the log yet to fetch. One registration at a time: the next when the one before is committed.
    fn approach_registration(&mut self, peer: NodeId, incarnation: Incarnation) {
        if self.accepting_leader().is_err() {
            return;
        }
        let Some(progress) = self.peer(peer) else { return };
        match progress.proof_index {
            None => {
                let index = self.append_noop();
                if let Some(progress) = self.peer_mut(peer) {
                    progress.proof_index = Some(index);
                }
            }
            Some(index) if progress.match_index >= index => self.propose_registration(peer, incarnation),
            Some(_) => {}
        }
    }

    fn propose_registration(&mut self, peer: NodeId, incarnation: Incarnation) {
        if self.log.configuration_index() > self.log.commit_index() {
            return;
        }
        let configuration = self.log.configuration().clone();
        self.append_as_leader(Payload::Configuration(
            configuration.with_incarnation(peer, incarnation),
        ));
        self.outbox
            .events
            .push(Event::RegistrationProposed { peer, incarnation });
    }

    /// As a new leader, right behind the no-op: says in the log who the members are, and founds the cluster if
    /// nobody did.
    pub(crate) fn append_configuration(&mut self) {
        let mut configuration = self.log.configuration().clone();
        if configuration.is_founded() {
            if !self.log.has_logged_configuration() {
                self.append_as_leader(Payload::Configuration(configuration));
            }
            return;
        }
        let founder = self.config.incarnation;
        configuration = configuration
            .founded_by(founder)
            .with_incarnation(self.id(), founder);
        let mut known = 1;
        for peer in self.peers() {
            let may_found = |heard: &&Sender| heard.standing == Standing::Founder;
            if let Some(heard) = self.heard.get(&peer).filter(may_found) {
                configuration = configuration.with_incarnation(peer, heard.incarnation);
                known += 1;
            }
        }
        self.append_as_leader(Payload::Configuration(configuration));
        self.outbox.events.push(Event::ClusterFounded { known });
    }

    /// A pre-vote is won: whether to go on to the election. In a cluster that is not founded, waits a little
    /// for those who were never heard of.
    pub(crate) fn may_found(&mut self) -> bool {
        if self.log.configuration().is_founded() || self.founding_patience == 0 {
            return true;
        }
        let all_known = self.peers().iter().all(|peer| self.heard.contains_key(peer));
        self.founding_deferred |= !all_known;
        all_known
    }

    /// A pre-vote starts.
    pub(crate) fn lose_founding_patience(&mut self) {
        self.founding_patience = if std::mem::take(&mut self.founding_deferred) {
            self.founding_patience.saturating_sub(1)
        } else {
            FOUNDING_PATIENCE
        };
    }

    /// The log or what is known to be committed of it has changed: what this store's word is worth now.
    pub(crate) fn update_standing(&mut self) {
        let configuration = self.log.configuration();
        match self.hard_state.standing {
            Standing::Founder
                if configuration.is_founded() && !self.log.is_settled(self.id(), self.config.incarnation) =>
            {
                self.hard_state.standing = Standing::Newcomer;
                self.outbox.events.push(Event::IsNewcomer);
            }
            Standing::Newcomer | Standing::Joining
                if self.log.committed_configuration().incarnation_of(self.id())
                    == Some(self.config.incarnation) =>
            {
                self.hard_state.standing = Standing::Member;
                self.hard_state.voted_for = self.hard_state.voted_for.or(self.leader_id);
                let incarnation = self.config.incarnation;
                self.outbox.events.push(Event::Admitted { incarnation });
            }
            _ => {}
        }
    }
}
