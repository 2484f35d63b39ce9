//! Elections: standing for one (Raft §5.2; thesis §9.6) and voting in others' (Raft §5.4.1).

use std::collections::BTreeSet;

use crate::event::{Event, VoteRefusal};
use crate::message::{Message, VoteRequest, VoteResponse};
use crate::node::{Node, RoleState};
use crate::ready::ReplyTo;
use crate::types::{HardState, NodeId, Term, Ticks};

impl Node {
    /// No leader was heard from for an election timeout.
    pub(crate) fn election_timed_out(&mut self) {
        self.leader_id = None;
        if self.is_storage_stalled() {
            // Its own vote would not become durable: it would only raise terms against those who can win.
            self.reset_election_timer();
            return;
        }
        if self.config.pre_vote {
            self.start_pre_vote();
        } else {
            self.start_election(false);
        }
    }

    /// Asks the others whether they would vote for this node (thesis §9.6). No term changes.
    fn start_pre_vote(&mut self) {
        self.reset_election_timer();
        self.lose_founding_patience();
        self.state = RoleState::PreCandidate {
            granted: BTreeSet::from([self.id()]),
        };
        let term = self.hard_state.current_term.next();
        self.outbox.events.push(Event::PreVoteStarted { term });
        for peer in self.voting_peers() {
            let request = self.vote_request(peer, term, false);
            self.send(peer, Message::PreVote(request));
        }
        self.count_votes();
    }

    /// Starts an election in a new term (Raft §5.2). The requests leave, and this node's own vote counts,
    /// only when term and vote are durable.
    pub(crate) fn start_election(&mut self, leadership_transfer: bool) {
        self.reset_election_timer();
        self.leader_id = None;
        let term = self.hard_state.current_term.next();
        self.hard_state = HardState {
            current_term: term,
            voted_for: Some(self.id()),
            ..self.hard_state
        };
        self.state = RoleState::Candidate {
            granted: BTreeSet::new(),
        };
        self.outbox.events.push(Event::ElectionStarted {
            term,
            leadership_transfer,
        });
        for peer in self.voting_peers() {
            let request = self.vote_request(peer, term, leadership_transfer);
            self.send_after_persist(peer, Message::RequestVote(request));
        }
    }

    fn vote_request(&self, to: NodeId, term: Term, leadership_transfer: bool) -> VoteRequest {
        VoteRequest {
            term,
            candidate_id: self.id(),
            last_log_index: self.log.last_index(),
            last_log_term: self.log.last_term(),
            leadership_transfer,
            sender: self.sender_to(to),
        }
    }

    fn voting_peers(&self) -> Vec<NodeId> {
        let configuration = self.log.configuration();
        self.peers()
            .into_iter()
            .filter(|peer| configuration.is_voter(*peer))
            .collect()
    }

    pub(crate) fn handle_pre_vote_response(&mut self, from: NodeId, response: VoteResponse) {
        if !response.vote_granted {
            // A granted pre-vote echoes the term asked about; only a refusal tells a term in force.
            self.observe_term(response.term);
            // It may be the last one that the founding waited for.
            self.count_votes();
            return;
        }
        let asked_term = self.hard_state.current_term.next();
        if let RoleState::PreCandidate { granted } = &mut self.state
            && response.term == asked_term
        {
            granted.insert(from);
            self.count_votes();
        }
    }

    pub(crate) fn handle_vote_response(&mut self, from: NodeId, response: VoteResponse) {
        if self.observe_term(response.term) || response.term < self.hard_state.current_term {
            return;
        }
        if let RoleState::Candidate { granted } = &mut self.state
            && response.vote_granted
        {
            granted.insert(from);
            self.count_votes();
        }
    }

    /// Moves on if a quorum agrees. A candidate's own vote counts once it is durable.
    pub(crate) fn count_votes(&mut self) {
        let own_vote_durable = self.is_hard_state_durable();
        let id = self.id();
        match &self.state {
            RoleState::PreCandidate { granted } => {
                let has_quorum = self
                    .log
                    .configuration()
                    .has_quorum(|voter| granted.contains(&voter));
                if has_quorum && self.may_found() {
                    self.start_election(false);
                }
            }
            RoleState::Candidate { granted } => {
                let agrees = |voter| granted.contains(&voter) || (voter == id && own_vote_durable);
                if self.log.configuration().has_quorum(agrees) {
                    self.become_leader();
                }
            }
            RoleState::Follower | RoleState::Leader(_) => {}
        }
    }

    /// Whether this node hears from a leader, and so takes part in no election (thesis §4.2.3). A higher term
    /// that became known since changes nothing: leases count on it that whoever answered a leader gives no vote
    /// for an election timeout.
    fn has_live_leader(&self) -> bool {
        let leads = matches!(self.state, RoleState::Leader(_));
        self.config.check_quorum && (leads || self.leader_silence < self.config.election_timeout_min)
    }

    /// Answers a pre-vote. Changes nothing here and promises nothing, so it leaves at once.
    pub(crate) fn handle_pre_vote(&mut self, reply_to: ReplyTo, request: VoteRequest) {
        let refusal = if !self.hard_state.standing.may_vote() {
            Some(VoteRefusal::NoStanding)
        } else if request.term <= self.hard_state.current_term {
            Some(VoteRefusal::OldTerm)
        } else if self.has_live_leader() {
            Some(VoteRefusal::HasLeader)
        } else if !self
            .log
            .is_up_to_date(request.last_log_term, request.last_log_index)
        {
            Some(VoteRefusal::LogBehind)
        } else {
            None
        };
        let vote_granted = refusal.is_none();
        let term = if vote_granted {
            request.term
        } else {
            self.hard_state.current_term
        };
        let sender = self.sender_to(reply_to.to);
        let answer = VoteResponse {
            term,
            vote_granted,
            sender,
        };
        self.reply_now(reply_to, Message::PreVoteResponse(answer));
    }

    pub(crate) fn handle_request_vote(&mut self, reply_to: ReplyTo, request: VoteRequest) {
        let refusal = self.vote_refusal(&request);
        let term = self.hard_state.current_term;
        let vote_granted = refusal.is_none();
        let answer = Message::RequestVoteResponse(VoteResponse {
            term,
            vote_granted,
            sender: self.sender_to(reply_to.to),
        });
        if let Some(reason) = refusal {
            let candidate = request.candidate_id;
            self.outbox.events.push(Event::VoteRefused {
                candidate,
                term: request.term,
                reason,
            });
            self.reply_now(reply_to, answer);
        } else {
            self.election_elapsed = Ticks::ZERO;
            if matches!(self.state, RoleState::PreCandidate { .. }) {
                // Pre-votes that still arrive must not set it against the candidate it has just chosen.
                self.state = RoleState::Follower;
            }
            self.hard_state.voted_for = Some(request.candidate_id);
            self.outbox.events.push(Event::VoteGranted {
                candidate: request.candidate_id,
                term,
            });
            self.reply_after_persist(reply_to, answer);
        }
    }

    /// The voting rules (Raft §5.2, §5.4.1; thesis §4.2.3). Takes on a higher term on the way.
    fn vote_refusal(&mut self, request: &VoteRequest) -> Option<VoteRefusal> {
        if request.term < self.hard_state.current_term {
            return Some(VoteRefusal::OldTerm);
        }
        if !request.leadership_transfer && self.has_live_leader() {
            return Some(VoteRefusal::HasLeader);
        }
        self.observe_term(request.term);
        if !self.hard_state.standing.may_vote() {
            return Some(VoteRefusal::NoStanding);
        }
        if self
            .hard_state
            .voted_for
            .is_some_and(|voted_for| voted_for != request.candidate_id)
        {
            return Some(VoteRefusal::VotedForOther);
        }
        if !self
            .log
            .is_up_to_date(request.last_log_term, request.last_log_index)
        {
            return Some(VoteRefusal::LogBehind);
        }
        None
    }
}
