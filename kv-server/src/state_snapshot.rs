//! The state of a replica as a file: what a snapshot holds (Raft §7).
//!
//! Format 1. All numbers are little-endian; `u8`, `u32` and `u64` have 1, 4 and 8 bytes.
//!
//! ```text
//! magic               8 bytes, "KV-STATE"
//! format              u8, 1
//! last_applied        u64
//! last_applied_term   u64
//! session_cap         u32
//! sessions            u32, how many follow, in rising order of opened_at
//!   opened_at         u64
//!   secret            u64
//!   last_used         u64
//!   lowest_outstanding u64
//!   answers           u32, how many follow, in rising order of sequence
//!     sequence        u64
//!     kind            u8: 0 stored, 1 deleted, 2 key empty, 3 key too long, 4 value too long, 5 sequence
//!     number          u64: version; 1 if the key existed; 0; length; length; 0
//! keys                u64, how many follow, in rising order
//!   key_len           u32
//!   value_len         u32
//!   version           u64
//!   key, value        key_len + value_len bytes
//! ```
//!
//! Equal states give equal bytes. There is no checksum: the file that holds the snapshot has one. Reading
//! refuses every order, count and number that no replica would have written, so a snapshot that is read
//! back without an error is a possible state.

use std::io::{self, BufReader, BufWriter, Read, Write};

use bytes::Bytes;
use raft_core::{LogIndex, Term};
use rpc::client::{InvalidArgument, Sequence};
use rpc::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};

use crate::map::{Key, List, MapSnapshot, SharedMap, Versioned, key_of};
use crate::sessions::{Answer, FrozenSessions, MAX_SESSION_WINDOW, Outcome, Session, SessionTable};
use crate::state_machine::{StateError, StateMachine};

/// The format that snapshots are written in.
pub const SNAPSHOT_FORMAT: u8 = 1;

const MAGIC: [u8; 8] = *b"KV-STATE";
const BUFFER_BYTES: usize = 64 * 1024;

/// Magic, format, `last_applied`, its term, cap and number of sessions, number of keys.
const FIXED_BYTES: u64 = 8 + 1 + 8 + 8 + 4 + 4 + 8;
/// A session without its answers.
const SESSION_BYTES: u64 = 4 * 8 + 4;
const ANSWER_BYTES: u64 = 8 + 1 + 8;
/// What a key and its value take beside their own bytes: two lengths and a version.
const KEY_OVERHEAD_BYTES: u64 = 4 + 4 + 8;

/// What all but the keys and values takes in a snapshot.
pub(crate) fn frame_bytes(sessions: &SessionTable) -> u64 {
    FIXED_BYTES + SESSION_BYTES * sessions.len() as u64 + ANSWER_BYTES * sessions.answers() as u64
}

/// What one key with its value takes in a snapshot.
pub(crate) fn stored_bytes(key_len: usize, value_len: usize) -> u64 {
    KEY_OVERHEAD_BYTES + key_len as u64 + value_len as u64
}

/// The state at one point of the log, unchanged by entries that are applied later. Can be sent to another
/// thread and written out there.
#[derive(Debug)]
pub struct StateSnapshot {
    map: MapSnapshot,
    sessions: FrozenSessions,
    last_applied: LogIndex,
    last_applied_term: Term,
}

impl StateSnapshot {
    pub(crate) fn new(
        map: MapSnapshot,
        sessions: FrozenSessions,
        last_applied: LogIndex,
        last_applied_term: Term,
    ) -> Self {
        Self {
            map,
            sessions,
            last_applied,
            last_applied_term,
        }
    }

    /// The last entry that the state covers: the snapshot's `last_included_index`.
    #[must_use]
    pub fn last_applied(&self) -> LogIndex {
        self.last_applied
    }

    /// The term of that entry: the snapshot's `last_included_term`.
    #[must_use]
    pub fn last_applied_term(&self) -> Term {
        self.last_applied_term
    }

    /// Writes the state in format 1, piece by piece, and flushes.
    ///
    /// # Errors
    ///
    /// Those of `out`. What was written so far is not a snapshot.
    pub fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, out);
        self.write_parts(&mut out)?;
        out.flush()
    }

    /// See [`StateMachine::state_hash`].
    #[must_use]
    pub fn hash(&self) -> u64 {
        let mut hasher = Fnv1a::default();
        // The hash of the file, so that it covers whatever the file covers. Hashing does not fail.
        match self.write_parts(&mut hasher) {
            Ok(()) | Err(_) => hasher.0,
        }
    }

    fn write_parts(&self, out: &mut dyn Write) -> io::Result<()> {
        self.write_header(out)?;
        self.write_sessions(out)?;
        self.write_keys(out)
    }

    fn write_header(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&MAGIC)?;
        out.write_all(&[SNAPSHOT_FORMAT])?;
        put_u64(out, self.last_applied.0)?;
        put_u64(out, self.last_applied_term.0)
    }

    fn write_sessions(&self, out: &mut dyn Write) -> io::Result<()> {
        let sessions = self.sessions.in_order();
        put_u32(out, self.sessions.cap())?;
        put_len(out, sessions.len())?;
        for (opened_at, session) in sessions {
            put_u64(out, opened_at.0)?;
            put_u64(out, session.secret)?;
            put_u64(out, session.last_used.0)?;
            put_u64(out, session.lowest_outstanding.0)?;
            put_len(out, session.answers.len())?;
            for (sequence, answer) in &session.answers {
                let (kind, number) = answer_to_numbers(*answer);
                put_u64(out, sequence.0)?;
                out.write_all(&[kind])?;
                put_u64(out, number)?;
            }
        }
        Ok(())
    }

    fn write_keys(&self, out: &mut dyn Write) -> io::Result<()> {
        put_u64(out, self.map.len() as u64)?;
        for (key, held) in self.map.iter() {
            put_len(out, key.len())?;
            put_len(out, held.value.len())?;
            put_u64(out, held.version.0)?;
            out.write_all(&key)?;
            out.write_all(&held.value)?;
        }
        Ok(())
    }
}

impl StateMachine {
    /// Reads back what [`StateSnapshot::write_to`] wrote. Takes one pass, and beside the state itself no
    /// more memory than the longest value.
    ///
    /// # Errors
    ///
    /// When the input fails, is of another format, ends early, goes on too long, or is damaged.
    pub fn read_from(input: &mut dyn Read) -> Result<Self, StateError> {
        let mut input = BufReader::with_capacity(BUFFER_BYTES, input);
        let input: &mut dyn Read = &mut input;
        read_format(input)?;
        let last_applied = LogIndex(get_u64(input)?);
        let last_applied_term = Term(get_u64(input)?);
        let sessions = read_sessions(input, last_applied)?;
        let map = read_keys(input, last_applied)?;
        if input.read(&mut [0])? != 0 {
            return Err(StateError::SnapshotDamaged("it goes on behind the last key"));
        }
        Ok(Self::from_parts(map, sessions, last_applied, last_applied_term))
    }
}

fn read_format(input: &mut dyn Read) -> Result<(), StateError> {
    if get_array(input)? != MAGIC {
        return Err(StateError::SnapshotDamaged("it does not start like one"));
    }
    match get_array(input)? {
        [SNAPSHOT_FORMAT] => Ok(()),
        [found] => Err(StateError::SnapshotFormat { found }),
    }
}

fn read_sessions(input: &mut dyn Read, last_applied: LogIndex) -> Result<SessionTable, StateError> {
    let cap = get_u32(input)?;
    ensure(cap > 0, "its cap on sessions is zero")?;
    let mut table = SessionTable::new(cap);
    let mut previous = LogIndex::ZERO;
    for _ in 0..get_u32(input)? {
        let opened_at = LogIndex(get_u64(input)?);
        ensure(opened_at > previous, "its sessions are out of order")?;
        previous = opened_at;
        let session = read_session(input)?;
        let in_the_log = opened_at <= session.last_used && session.last_used <= last_applied;
        ensure(in_the_log, "a session was used outside the log")?;
        ensure(
            table.restore(opened_at, session),
            "two sessions share an entry, or there are too many",
        )?;
    }
    Ok(table)
}

fn read_session(input: &mut dyn Read) -> Result<Session, StateError> {
    let mut session = Session {
        secret: get_u64(input)?,
        last_used: LogIndex(get_u64(input)?),
        lowest_outstanding: Sequence(get_u64(input)?),
        answers: std::collections::VecDeque::new(),
    };
    let lowest = session.lowest_outstanding.0;
    ensure(lowest > 0, "a session's sequences start below 1")?;
    let mut next = lowest;
    for _ in 0..get_u32(input)? {
        let sequence = get_u64(input)?;
        let in_window = sequence >= next && sequence - lowest < MAX_SESSION_WINDOW;
        ensure(
            in_window,
            "a session's answers are out of order or outside its window",
        )?;
        let [kind] = get_array(input)?;
        let answer = answer_from_numbers(kind, get_u64(input)?);
        let answer = answer.ok_or(StateError::SnapshotDamaged(
            "a session has an answer of no known kind",
        ))?;
        session.answers.push_back((Sequence(sequence), answer));
        next = sequence.saturating_add(1);
    }
    Ok(session)
}

/// The keys and values, and what they take in a snapshot.
fn read_keys(input: &mut dyn Read, last_applied: LogIndex) -> Result<(SharedMap, u64), StateError> {
    let count = get_u64(input)?;
    let mut failure = None;
    let mut bytes = 0;
    let keys = (0..count).map_while(|_| {
        read_key(input, last_applied)
            .map_err(|error| failure = Some(error))
            .inspect(|(key, held)| bytes += stored_bytes(key.len(), held.value.len()))
            .ok()
    });
    let list =
        List::from_sorted(keys).map_err(|_| StateError::SnapshotDamaged("its keys are out of order"))?;
    failure.map_or_else(|| Ok((list.into(), bytes)), Err)
}

fn read_key(input: &mut dyn Read, last_applied: LogIndex) -> Result<(Key, Versioned), StateError> {
    let key_len = get_len(input, MAX_KEY_BYTES)?;
    let value_len = get_len(input, MAX_VALUE_BYTES)?;
    let version = LogIndex(get_u64(input)?);
    ensure(key_len > 0, "a key is empty")?;
    ensure(version <= last_applied, "a version lies outside the log")?;
    let key = key_of(get_bytes(input, key_len)?);
    let value = get_bytes(input, value_len)?.into();
    Ok((key, Versioned { value, version }))
}

fn answer_to_numbers(answer: Answer) -> (u8, u64) {
    match answer {
        Ok(Outcome::Stored { version }) => (0, version.0),
        Ok(Outcome::Deleted { existed }) => (1, u64::from(existed)),
        Err(InvalidArgument::KeyEmpty) => (2, 0),
        Err(InvalidArgument::KeyTooLong { len }) => (3, len),
        Err(InvalidArgument::ValueTooLong { len }) => (4, len),
        Err(InvalidArgument::Sequence) => (5, 0),
    }
}

fn answer_from_numbers(kind: u8, number: u64) -> Option<Answer> {
    let answer = match (kind, number) {
        (0, version) => Ok(Outcome::Stored {
            version: LogIndex(version),
        }),
        (1, existed @ (0 | 1)) => Ok(Outcome::Deleted {
            existed: existed == 1,
        }),
        (2, 0) => Err(InvalidArgument::KeyEmpty),
        (3, len) => Err(InvalidArgument::KeyTooLong { len }),
        (4, len) => Err(InvalidArgument::ValueTooLong { len }),
        (5, 0) => Err(InvalidArgument::Sequence),
        _ => return None,
    };
    Some(answer)
}

fn ensure(holds: bool, damage: &'static str) -> Result<(), StateError> {
    if holds {
        Ok(())
    } else {
        Err(StateError::SnapshotDamaged(damage))
    }
}

fn put_u64(out: &mut dyn Write, number: u64) -> io::Result<()> {
    out.write_all(&number.to_le_bytes())
}

fn put_u32(out: &mut dyn Write, number: u32) -> io::Result<()> {
    out.write_all(&number.to_le_bytes())
}

/// Keys, values, windows and the session table all have limits far below `u32::MAX`.
fn put_len(out: &mut dyn Write, len: usize) -> io::Result<()> {
    let len = u32::try_from(len).map_err(|_| io::Error::other("a length does not fit 32 bits"))?;
    put_u32(out, len)
}

fn get_u64(input: &mut dyn Read) -> Result<u64, StateError> {
    Ok(u64::from_le_bytes(get_array(input)?))
}

fn get_u32(input: &mut dyn Read) -> Result<u32, StateError> {
    Ok(u32::from_le_bytes(get_array(input)?))
}

fn get_len(input: &mut dyn Read, limit: usize) -> Result<usize, StateError> {
    let len = usize::try_from(get_u32(input)?).unwrap_or(usize::MAX);
    ensure(len <= limit, "a key or a value is longer than its limit")?;
    Ok(len)
}

fn get_array<const N: usize>(input: &mut dyn Read) -> Result<[u8; N], StateError> {
    let mut array = [0; N];
    fill(input, &mut array)?;
    Ok(array)
}

/// Reads `len` bytes, which the caller has checked against a limit.
fn get_bytes(input: &mut dyn Read, len: usize) -> Result<Bytes, StateError> {
    let mut bytes = vec![0; len];
    fill(input, &mut bytes)?;
    Ok(bytes.into())
}

fn fill(input: &mut dyn Read, buffer: &mut [u8]) -> Result<(), StateError> {
    input.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => StateError::SnapshotDamaged("it ends early"),
        _ => StateError::SnapshotIo(error),
    })
}

/// FNV-1a, 64 bits: short, and the same in every process, unlike the hashers of the standard library.
struct Fnv1a(u64);

impl Default for Fnv1a {
    fn default() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }
}

impl Write for Fnv1a {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "state_snapshot_tests.rs"]
mod tests;
