//! What happens in a cluster, told in words. An entry is written `index@term`.

use raft_core::{
    AppendEntries, AppendOutcome, Entry, Envelope, InstallSnapshot, LogIndex, Message, Payload, ReadOutcome,
    SnapshotMeta, SnapshotOutcome, Term, VoteRequest, Write,
};

use super::server::Happening;

/// One line: what server `id` did.
pub(crate) fn tell(id: u64, happening: &Happening) -> String {
    match happening {
        Happening::Event(event) => format!("{id} {event}"),
        Happening::Sends(envelope) => tell_message(envelope),
        Happening::Persists(writes) if writes.is_empty() => format!("{id} puts a piece of a snapshot aside"),
        Happening::Persists(writes) => {
            let writes: Vec<String> = writes.iter().map(tell_write).collect();
            format!("{id} persists {}", writes.join("; "))
        }
        Happening::Commits(index) => format!("{id} knows that {index} is committed"),
        Happening::Applies(entry) => format!("{id} applies {}", tell_entry(entry)),
        Happening::Restores(snapshot) => {
            format!("{id} restores its state machine from {}", tell_snapshot(snapshot))
        }
        Happening::Read(ReadOutcome::Confirmed { id: read, index }) => {
            format!("{id} may serve read {read} once it has applied {index}")
        }
        Happening::Read(ReadOutcome::Dropped { id: read }) => format!("{id} drops read {read}"),
    }
}

/// `1 -> 2: what it says`.
pub(crate) fn tell_message(envelope: &Envelope) -> String {
    format!(
        "{} -> {}: {}",
        envelope.from,
        envelope.to,
        tell_content(&envelope.message)
    )
}

fn tell_content(message: &Message) -> String {
    match message {
        Message::PreVote(request) => tell_vote_request("PreVote", request),
        Message::RequestVote(request) => tell_vote_request("RequestVote", request),
        Message::PreVoteResponse(response) => {
            tell_vote_response("PreVote", response.term, response.vote_granted)
        }
        Message::RequestVoteResponse(response) => {
            tell_vote_response("RequestVote", response.term, response.vote_granted)
        }
        Message::AppendEntries(request) => tell_append(request),
        Message::AppendEntriesResponse(response) => format!(
            "AppendEntries answered in term {}: {}{}",
            response.term,
            tell_append_outcome(response.outcome),
            tell_round(response.read_round)
        ),
        Message::InstallSnapshot(request) => tell_chunk(request),
        Message::InstallSnapshotResponse(response) => format!(
            "InstallSnapshot {} answered in term {}: {}",
            response.last_included_index,
            response.term,
            tell_snapshot_outcome(response.outcome)
        ),
        Message::TimeoutNow(request) => format!("TimeoutNow in term {}", request.term),
        Message::TimeoutNowResponse(response) => format!("TimeoutNow answered in term {}", response.term),
    }
}

fn tell_vote_request(name: &str, request: &VoteRequest) -> String {
    let last = tell_place(request.last_log_index, request.last_log_term);
    let transfer = if request.leadership_transfer {
        ", leadership is handed over"
    } else {
        ""
    };
    format!("{name} for term {}, log ends at {last}{transfer}", request.term)
}

fn tell_vote_response(name: &str, term: Term, granted: bool) -> String {
    let verdict = if granted { "yes" } else { "no" };
    format!("{name} answered in term {term}: {verdict}")
}

fn tell_append(request: &AppendEntries) -> String {
    let prev = tell_place(request.prev_log_index, request.prev_log_term);
    let what = match request.entries.as_slice() {
        [] => "heartbeat".to_owned(),
        entries => format!("[{}]", tell_entries(entries)),
    };
    format!(
        "AppendEntries in term {}: {what} after {prev}, commit {}{}",
        request.term,
        request.leader_commit,
        tell_round(request.read_round)
    )
}

fn tell_round(read_round: u64) -> String {
    match read_round {
        0 => String::new(),
        round => format!(", read round {round}"),
    }
}

fn tell_append_outcome(outcome: AppendOutcome) -> String {
    match outcome {
        AppendOutcome::Matched { match_index } => format!("matched up to {match_index}"),
        AppendOutcome::Conflict {
            rejected_index,
            conflict_term: None,
            conflict_index,
        } => format!("conflict at {rejected_index}, the log goes on at {conflict_index}"),
        AppendOutcome::Conflict {
            rejected_index,
            conflict_term: Some(term),
            conflict_index,
        } => format!("conflict at {rejected_index}, which is of term {term} from {conflict_index} on"),
        AppendOutcome::Stale => "stale".to_owned(),
    }
}

fn tell_chunk(request: &InstallSnapshot) -> String {
    let end = request.offset + request.data.len() as u64;
    let done = if request.done { ", the last piece" } else { "" };
    format!(
        "InstallSnapshot {} in term {}: bytes {}..{end}{done}",
        request.snapshot.last_included_index, request.term, request.offset
    )
}

fn tell_snapshot_outcome(outcome: SnapshotOutcome) -> String {
    match outcome {
        SnapshotOutcome::Continue { next_offset } => format!("go on at byte {next_offset}"),
        SnapshotOutcome::Installed => "installed".to_owned(),
        SnapshotOutcome::Damaged => "damaged".to_owned(),
        SnapshotOutcome::Stale => "stale".to_owned(),
    }
}

fn tell_write(write: &Write) -> String {
    match write {
        Write::HardState(state) => match state.voted_for {
            Some(candidate) => format!("term {} and its vote for {candidate}", state.current_term),
            None => format!("term {}", state.current_term),
        },
        Write::Append(entries) => format!("[{}]", tell_entries(entries)),
        Write::InstallSnapshot {
            snapshot,
            keep_suffix,
        } => {
            let log = if *keep_suffix { "keeps" } else { "drops" };
            format!(
                "the leader's {} and {log} the log behind it",
                tell_snapshot(snapshot)
            )
        }
        Write::Compact {
            snapshot,
            first_retained,
        } => format!("its {}, log from {first_retained} on", tell_snapshot(snapshot)),
    }
}

fn tell_snapshot(snapshot: &SnapshotMeta) -> String {
    let place = tell_place(snapshot.last_included_index, snapshot.last_included_term);
    format!("snapshot at {place} ({} bytes)", snapshot.size_bytes)
}

fn tell_place(index: LogIndex, term: Term) -> String {
    format!("{index}@{term}")
}

fn tell_entries(entries: &[Entry]) -> String {
    let entries: Vec<String> = entries.iter().map(tell_entry).collect();
    entries.join(", ")
}

fn tell_entry(entry: &Entry) -> String {
    let place = tell_place(entry.index, entry.term);
    match &entry.payload {
        Payload::Noop { .. } => format!("{place} no-op"),
        Payload::Configuration(_) => format!("{place} configuration"),
        Payload::Command(command) => format!("{place} {}", String::from_utf8_lossy(command)),
    }
}
