//! The commands of the replicated state machine, as they stand in log entries.

use std::fmt;

use bytes::Bytes;
use rpc::client::{InvalidArgument, ScanRequest, WriteId};
use rpc::limits::{MAX_FRAME_BYTES, MAX_KEY_BYTES, MAX_VALUE_BYTES};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::codec;

/// The format that [`Command::encode`] writes: the first byte of every encoded command.
pub const COMMAND_FORMAT: u8 = 1;

/// What a log entry asks of the state machine.
///
/// The encoding is durable: it stands in logs that later releases must read. A change to this type or to
/// what it holds needs a new [`COMMAND_FORMAT`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Opens a client session (thesis §6.3). The log index of the entry and `secret` are its id.
    OpenSession {
        /// Random bits drawn by the server that proposed the entry. Replicas must not draw their own.
        secret: u64,
    },
    /// A write that takes effect once, however often it stands in the log.
    Write {
        /// Names the write.
        id: WriteId,
        /// What to do.
        op: Operation,
    },
    /// A read through the log. Changes nothing.
    Get {
        /// The key to read.
        key: Bytes,
    },
}

/// A change of one key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Sets `key` to `value`.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// Appends `value` to what `key` holds; a missing key counts as empty.
    Append {
        /// The key.
        key: Bytes,
        /// What to append.
        value: Bytes,
    },
    /// Removes `key`.
    Delete {
        /// The key.
        key: Bytes,
    },
}

/// Why the bytes of a log entry are not a command.
///
/// Committed entries were checked when they were proposed, so this is damage or a version mismatch. The
/// node must stop: it cannot know what the other replicas made of the entry.
#[derive(Debug, Error)]
pub enum CommandError {
    /// The entry has no bytes at all.
    #[error("the command is empty")]
    Empty,
    /// The first byte names a format that this program does not know.
    #[error(
        "the command has format {found}, this program reads format {COMMAND_FORMAT}: \
         run the release that wrote the log, or a newer one"
    )]
    UnknownFormat {
        /// The format found.
        found: u8,
    },
    /// The bytes behind the format byte are damaged.
    #[error("the command is damaged: {0}")]
    Damaged(String),
}

impl Command {
    /// The command as the bytes of a log entry.
    ///
    /// # Panics
    ///
    /// Never: a command is plain data, and memory takes it all.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut encoded = Vec::with_capacity(64 + self.payload_bytes());
        encoded.push(COMMAND_FORMAT);
        codec::encode_into(self, &mut encoded).expect("plain data is written to memory without errors");
        encoded.into()
    }

    /// Reads back what [`Command::encode`] wrote. The command owns its bytes: keeping a small key does not
    /// keep the network frame that it came in.
    ///
    /// # Errors
    ///
    /// When the bytes are empty, of another format, damaged, or go on behind the command.
    pub fn decode(encoded: &[u8]) -> Result<Self, CommandError> {
        let (&format, body) = encoded.split_first().ok_or(CommandError::Empty)?;
        if format != COMMAND_FORMAT {
            return Err(CommandError::UnknownFormat { found: format });
        }
        codec::decode(body, MAX_FRAME_BYTES).map_err(|error| CommandError::Damaged(error.to_string()))
    }

    fn payload_bytes(&self) -> usize {
        match self {
            Self::OpenSession { .. } => 0,
            Self::Write { op, .. } => op.key().len() + op.value().len(),
            Self::Get { key } => key.len(),
        }
    }
}

impl Operation {
    /// The key that the operation changes.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Append { key, .. } | Self::Delete { key } => key,
        }
    }

    pub(crate) fn value(&self) -> &[u8] {
        match self {
            Self::Put { value, .. } | Self::Append { value, .. } => value,
            Self::Delete { .. } => &[],
        }
    }

    /// Whether key and value are within the limits. Servers ask before they propose, and every replica
    /// asks again when it applies.
    ///
    /// # Errors
    ///
    /// The limit that is passed.
    pub fn validate(&self) -> Result<(), InvalidArgument> {
        validate_key(self.key())?;
        validate_value_len(self.value().len())
    }
}

impl fmt::Debug for Command {
    /// Leaves secrets and values out: commands end up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenSession { .. } => f.write_str("OpenSession"),
            Self::Write { id, op } => f.debug_struct("Write").field("id", id).field("op", op).finish(),
            Self::Get { key } => f.debug_struct("Get").field("key", key).finish(),
        }
    }
}

impl fmt::Debug for Operation {
    /// Leaves values out: operations end up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Put { .. } => "Put",
            Self::Append { .. } => "Append",
            Self::Delete { .. } => "Delete",
        };
        f.debug_struct(name)
            .field("key", self.key())
            .field("value_bytes", &self.value().len())
            .finish()
    }
}

/// Whether a key is within its limits.
///
/// # Errors
///
/// [`InvalidArgument::KeyEmpty`] or [`InvalidArgument::KeyTooLong`].
pub fn validate_key(key: &[u8]) -> Result<(), InvalidArgument> {
    match key.len() {
        0 => Err(InvalidArgument::KeyEmpty),
        1..=MAX_KEY_BYTES => Ok(()),
        len => Err(InvalidArgument::KeyTooLong { len: len as u64 }),
    }
}

/// Whether the bounds of a scan are within their limits: they may be one byte longer than a key, because
/// the place just behind the longest key is such a bound.
///
/// # Errors
///
/// [`InvalidArgument::KeyTooLong`].
pub fn validate_scan(request: &ScanRequest) -> Result<(), InvalidArgument> {
    let to_len = request.to.as_ref().map_or(0, Bytes::len);
    let longest = to_len.max(request.from.len());
    if longest > MAX_KEY_BYTES + 1 {
        return Err(InvalidArgument::KeyTooLong { len: longest as u64 });
    }
    Ok(())
}

/// Whether the numbers of a write make sense.
///
/// # Errors
///
/// [`InvalidArgument::Sequence`].
pub fn validate_write_id(id: &WriteId) -> Result<(), InvalidArgument> {
    if id.sequence.0 == 0 || id.sequence < id.lowest_outstanding {
        return Err(InvalidArgument::Sequence);
    }
    Ok(())
}

pub(crate) fn validate_value_len(len: usize) -> Result<(), InvalidArgument> {
    if len > MAX_VALUE_BYTES {
        return Err(InvalidArgument::ValueTooLong { len: len as u64 });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use raft_core::LogIndex;
    use rpc::client::{Sequence, SessionId};

    use super::*;

    fn write_id() -> WriteId {
        WriteId {
            session: SessionId {
                opened_at: LogIndex(7),
                secret: 300,
            },
            sequence: Sequence(2),
            lowest_outstanding: Sequence(1),
        }
    }

    fn put(key_len: usize, value_len: usize) -> Operation {
        Operation::Put {
            key: vec![b'k'; key_len].into(),
            value: vec![b'v'; value_len].into(),
        }
    }

    #[test]
    fn the_encoding_of_format_1_never_changes() {
        let op = Operation::Put {
            key: "k".into(),
            value: "value".into(),
        };
        let expected: [(Command, &[u8]); 5] = [
            (Command::OpenSession { secret: 5 }, &[1, 0, 5]),
            (
                Command::Write { id: write_id(), op },
                b"\x01\x01\x07\xfb\x2c\x01\x02\x01\x00\x01k\x05value",
            ),
            (
                Command::Write {
                    id: write_id(),
                    op: Operation::Append {
                        key: "k".into(),
                        value: "v".into(),
                    },
                },
                b"\x01\x01\x07\xfb\x2c\x01\x02\x01\x01\x01k\x01v",
            ),
            (
                Command::Write {
                    id: write_id(),
                    op: Operation::Delete { key: "k".into() },
                },
                b"\x01\x01\x07\xfb\x2c\x01\x02\x01\x02\x01k",
            ),
            (Command::Get { key: "k".into() }, b"\x01\x02\x01k"),
        ];
        for (command, bytes) in expected {
            assert_eq!(command.encode(), bytes, "{command:?}");
            assert_eq!(Command::decode(bytes).unwrap(), command);
        }
    }

    #[test]
    fn bytes_behind_a_command_are_refused() {
        assert!(matches!(
            Command::decode(&[1, 0, 5, 0]),
            Err(CommandError::Damaged(_))
        ));
    }

    #[test]
    fn an_unknown_format_is_named() {
        let error = Command::decode(&[9, 0, 5]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the command has format 9, this program reads format 1: run the release that wrote the log, or a newer one"
        );
        assert!(matches!(Command::decode(&[]), Err(CommandError::Empty)));
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        // A Get whose key claims 2^60 bytes.
        let claim = b"\x01\x02\xfd\x00\x00\x00\x00\x00\x00\x00\x10";
        assert!(matches!(Command::decode(claim), Err(CommandError::Damaged(_))));
    }

    #[test]
    fn the_largest_write_fits_the_format() {
        let command = Command::Write {
            id: write_id(),
            op: put(MAX_KEY_BYTES, MAX_VALUE_BYTES),
        };
        assert_eq!(Command::decode(&command.encode()).unwrap(), command);
    }

    #[test]
    fn an_encoded_command_takes_hardly_more_room_than_its_bytes() {
        let command = Command::Write {
            id: write_id(),
            op: put(1_000, 100),
        };
        let encoded = command.encode();
        let length = encoded.len();
        let room = encoded.try_into_mut().unwrap().capacity();
        assert!(room <= length + 64, "{room} bytes for {length}");
    }

    #[test]
    fn limits_are_inclusive() {
        assert_eq!(put(1, 0).validate(), Ok(()));
        assert_eq!(put(MAX_KEY_BYTES, MAX_VALUE_BYTES).validate(), Ok(()));
        assert_eq!(put(0, 1).validate(), Err(InvalidArgument::KeyEmpty));
        assert_eq!(
            put(4_097, 1).validate(),
            Err(InvalidArgument::KeyTooLong { len: 4_097 })
        );
        assert_eq!(
            put(1, 1_048_577).validate(),
            Err(InvalidArgument::ValueTooLong { len: 1_048_577 })
        );
        assert_eq!(
            Operation::Delete { key: Bytes::new() }.validate(),
            Err(InvalidArgument::KeyEmpty)
        );
    }

    #[test]
    fn a_scan_may_start_just_behind_the_longest_key() {
        let from = |len: usize| ScanRequest {
            from: vec![0; len].into(),
            ..ScanRequest::default()
        };
        assert_eq!(validate_scan(&from(MAX_KEY_BYTES + 1)), Ok(()));
        assert_eq!(
            validate_scan(&from(4_098)),
            Err(InvalidArgument::KeyTooLong { len: 4_098 })
        );
        let to = ScanRequest {
            to: Some(vec![0; 5_000].into()),
            ..ScanRequest::default()
        };
        assert_eq!(
            validate_scan(&to),
            Err(InvalidArgument::KeyTooLong { len: 5_000 })
        );
    }

    #[test]
    fn a_write_is_numbered_from_1_and_from_its_lowest_outstanding() {
        let id = |sequence, lowest| WriteId {
            sequence: Sequence(sequence),
            lowest_outstanding: Sequence(lowest),
            ..write_id()
        };
        assert_eq!(validate_write_id(&id(1, 0)), Ok(()));
        assert_eq!(validate_write_id(&id(3, 3)), Ok(()));
        assert_eq!(validate_write_id(&id(0, 0)), Err(InvalidArgument::Sequence));
        assert_eq!(validate_write_id(&id(3, 4)), Err(InvalidArgument::Sequence));
    }

    #[test]
    fn logs_show_neither_values_nor_secrets() {
        let op = Operation::Put {
            key: "key".into(),
            value: "hidden".into(),
        };
        let shown = format!(
            "{:?} {:?}",
            Command::Write { id: write_id(), op },
            Command::OpenSession { secret: 98_765 }
        );
        assert!(shown.contains("b\"key\""), "{shown}");
        assert!(
            !shown.contains("hidden") && !shown.contains("98765") && !shown.contains("300"),
            "{shown}"
        );
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(command) = Command::decode(&bytes) {
                // Numbers have more than one spelling, so only the value is compared.
                prop_assert_eq!(Command::decode(&command.encode()).unwrap(), command);
            }
        }

        #[test]
        fn a_cut_command_is_refused(key in proptest::collection::vec(any::<u8>(), 0..20), cut in 1_usize..8) {
            let encoded = Command::Write { id: write_id(), op: Operation::Delete { key: key.into() } }.encode();
            let end = encoded.len().saturating_sub(cut);
            prop_assert!(Command::decode(&encoded[..end]).is_err());
        }
    }
}
