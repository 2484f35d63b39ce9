//! The bytes on the wire: that they stay what they are, and that no bytes do harm.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use proptest::test_runner::TestCaseError;
use proptest::{prop_assert, prop_assert_eq};
use raft_core::{
    AppendEntries, Entry, Incarnation, Leadership, LogIndex, NodeId, Payload, Sender, Standing, Term,
};
use rpc::client::{Consistency, GetReply, KvRequest, KvResponse, Sequence, SessionId, WriteId};
use rpc::codec::{CodecError, decode, encode};
use rpc::framing::{
    CallerFraming, FRAME_HEADER_BYTES, FailureReason, FrameError, ServerFraming, WireRequest, WireResponse,
};
use rpc::hello::{Hello, PROTOCOL_VERSION, Reply};
use rpc::limits::MAX_FRAME_BYTES;
use rpc::peer::{PeerRequest, PeerResponse};
use tarpc::{ClientMessage, Response};
use tokio_util::codec::{Decoder, Encoder};

type KvServer = ServerFraming<KvRequest, KvResponse>;
type KvCaller = CallerFraming<KvRequest, KvResponse>;
type PeerServer = ServerFraming<PeerRequest, PeerResponse>;
type PeerCaller = CallerFraming<PeerRequest, PeerResponse>;

fn put() -> KvRequest {
    let session = SessionId {
        opened_at: LogIndex(3),
        secret: 0x0102_0304_0506_0708,
    };
    let write = WriteId {
        session,
        sequence: Sequence(300),
        lowest_outstanding: Sequence(250),
    };
    KvRequest::Put {
        write,
        key: Bytes::from_static(b"key"),
        value: Bytes::from_static(b"value"),
    }
}

fn sender() -> Sender {
    Sender {
        incarnation: Incarnation(70_000),
        standing: Standing::Joining,
        knows_receiver_as: Some(Incarnation(300)),
        cluster_founder: Some(Incarnation(70_001)),
    }
}

fn append_entries() -> PeerRequest {
    let command = Payload::Command(Bytes::from_static(b"cmd"));
    PeerRequest::AppendEntries {
        request: AppendEntries {
            term: Term(4),
            leader_id: NodeId(2),
            leadership: Leadership(71_000),
            prev_log_index: LogIndex(70_000),
            prev_log_term: Term(3),
            prev_log_leadership: Some(Leadership(301)),
            entries: vec![
                Entry {
                    term: Term(4),
                    index: LogIndex(70_001),
                    payload: Payload::Noop {
                        leader_id: NodeId(1),
                        leadership: Leadership(70),
                    },
                },
                Entry {
                    term: Term(4),
                    index: LogIndex(70_002),
                    payload: command,
                },
            ],
            leader_commit: LogIndex(69_999),
            read_round: 17,
            acknowledged: LogIndex(69_000),
            sender: sender(),
        },
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(" ")
}

// A change here is a change of the protocol: raise PROTOCOL_VERSION with it.
#[test]
fn the_bytes_of_requests_stay_what_they_are() {
    let request = WireRequest::Request {
        id: 7,
        timeout_ms: 5_000,
        message: put(),
    };
    let golden = "00 07 fb 88 13 01 03 fd 08 07 06 05 04 03 02 01 fb 2c 01 fa 03 6b 65 79 05 76 61 6c 75 65";
    assert_eq!(hex(&encode(&request, MAX_FRAME_BYTES).unwrap()), golden);

    let request = WireRequest::Request {
        id: 8,
        timeout_ms: 100,
        message: append_entries(),
    };
    let golden = "00 08 64 02 04 02 fc 58 15 01 00 fc 70 11 01 00 03 01 fb 2d 01 \
                  02 04 fc 71 11 01 00 00 01 46 04 fc 72 11 01 00 02 03 63 6d 64 fc 6f 11 01 00 11 \
                  fc 88 0d 01 00 fc 70 11 01 00 02 01 fb 2c 01 01 fc 71 11 01 00";
    assert_eq!(hex(&encode(&request, MAX_FRAME_BYTES).unwrap()), golden);

    let cancel = WireRequest::<KvRequest>::Cancel { id: 9 };
    assert_eq!(hex(&encode(&cancel, MAX_FRAME_BYTES).unwrap()), "01 09");
}

#[test]
fn the_bytes_of_responses_stay_what_they_are() {
    let reply = GetReply {
        found: None,
        applied_index: LogIndex(11),
        term: Term(2),
    };
    let answer = WireResponse::Answer {
        id: 7,
        message: KvResponse::Get(Ok(reply)),
    };
    assert_eq!(
        hex(&encode(&answer, MAX_FRAME_BYTES).unwrap()),
        "00 07 04 00 00 0b 02"
    );

    let reason = FailureReason::AnswerTooLarge;
    let failure = WireResponse::<KvResponse>::Failure {
        id: 7,
        reason,
        detail: "no".into(),
    };
    assert_eq!(
        hex(&encode(&failure, MAX_FRAME_BYTES).unwrap()),
        "01 07 02 02 6e 6f"
    );
}

#[test]
fn a_frame_is_the_big_endian_length_and_the_body() {
    let mut frames = BytesMut::new();
    let message = Err(tarpc::ServerError::new(
        std::io::ErrorKind::WouldBlock,
        "no".into(),
    ));
    KvServer::default()
        .encode(
            Response {
                request_id: 7,
                message,
            },
            &mut frames,
        )
        .unwrap();
    assert_eq!(hex(&frames), "00 00 00 06 01 07 01 02 6e 6f");
}

#[test]
fn a_value_may_fill_its_limit_and_not_pass_it() {
    let value = vec![7_u8; 100];
    let len_bytes = encode(&value, usize::MAX).unwrap().len();
    assert_eq!(encode(&value, len_bytes).unwrap().len(), len_bytes);
    let too_large = CodecError::TooLarge {
        limit_bytes: len_bytes - 1,
    };
    assert_eq!(encode(&value, len_bytes - 1).unwrap_err(), too_large);
    let bytes = encode(&value, len_bytes).unwrap();
    assert_eq!(decode::<Vec<u8>>(&bytes, len_bytes).unwrap(), value);
    assert_eq!(decode::<Vec<u8>>(&bytes, len_bytes - 1).unwrap_err(), too_large);
}

#[test]
fn bytes_behind_a_value_are_an_error() {
    let mut bytes = encode(&append_entries(), MAX_FRAME_BYTES).unwrap();
    bytes.extend_from_slice(&[0]);
    let error = decode::<PeerRequest>(&bytes, MAX_FRAME_BYTES).unwrap_err();
    assert!(matches!(error, CodecError::Malformed { .. }), "{error}");
}

/// Were a claimed length believed, the allocation would abort the test.
#[test]
fn a_length_within_a_message_is_not_believed() {
    let huge = [&[253][..], &(1_u64 << 46).to_le_bytes()].concat();
    let claims: [&[u8]; 3] = [
        &[0, 1, 1, 4],                   // a key
        &[0, 1, 1, 2, 1, 1, 1, 1, 1, 0], // a list of entries
        &[0, 1, 1, 3, 1, 1, 1, 1, 0],    // a set of voters
    ];
    for claim in claims {
        let bytes = [claim, &huge].concat();
        decode::<WireRequest<KvRequest>>(&bytes, MAX_FRAME_BYTES).unwrap_err();
        decode::<WireRequest<PeerRequest>>(&bytes, MAX_FRAME_BYTES).unwrap_err();
        decode::<WireResponse<KvResponse>>(&bytes, MAX_FRAME_BYTES).unwrap_err();
    }
}

#[test]
fn a_frame_over_the_limit_is_refused_when_its_header_is_there() {
    let mut frames = BytesMut::from(&u32::try_from(MAX_FRAME_BYTES + 1).unwrap().to_be_bytes()[..]);
    let error = KvServer::default().decode(&mut frames).unwrap_err();
    assert!(matches!(error, FrameError::FrameTooLarge { .. }), "{error}");
    let mut frames = BytesMut::from(&u32::try_from(MAX_FRAME_BYTES).unwrap().to_be_bytes()[..]);
    assert!(KvServer::default().decode(&mut frames).unwrap().is_none());
}

/// Decodes all frames there are.
fn drain<D: Decoder<Error = FrameError>>(mut framing: D, bytes: &[u8]) -> Result<usize, FrameError> {
    let mut frames = BytesMut::from(bytes);
    let mut count = 0;
    while framing.decode(&mut frames)?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// Random bytes, and random bytes that at least are whole frames.
fn hostile_bytes() -> impl Strategy<Value = Vec<u8>> {
    let body = prop_oneof![
        vec(any::<u8>(), 0..200),
        // Small numbers are tags and lengths more often than not, so these get further.
        vec(prop_oneof![0..6_u8, 248..=255_u8], 0..200),
    ];
    let framed = vec(body.clone(), 1..5).prop_map(|bodies| {
        let frame = |body: &Vec<u8>| [&u32::try_from(body.len()).unwrap().to_be_bytes(), &body[..]].concat();
        bodies.iter().flat_map(frame).collect()
    });
    prop_oneof![body, framed, mangled_frame()]
}

/// A good frame with a few bytes changed or cut off.
fn mangled_frame() -> impl Strategy<Value = Vec<u8>> {
    let good = prop_oneof![Just(frame_of(put())), Just(frame_of(append_entries()))];
    (good, vec((any::<usize>(), any::<u8>()), 1..4), any::<usize>()).prop_map(|(mut bytes, changes, end)| {
        for (position, byte) in changes {
            let position = position % bytes.len();
            bytes[position] = byte;
        }
        bytes.truncate(1 + end % bytes.len());
        bytes
    })
}

fn frame_of<M: serde::Serialize>(message: M) -> Vec<u8> {
    let body = encode(
        &WireRequest::Request {
            id: 1,
            timeout_ms: 1,
            message,
        },
        MAX_FRAME_BYTES,
    )
    .unwrap();
    [&u32::try_from(body.len()).unwrap().to_be_bytes(), &body[..]].concat()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in hostile_bytes()) {
        let _ = drain(KvServer::default(), &bytes);
        let _ = drain(KvCaller::default(), &bytes);
        let _ = drain(PeerServer::default(), &bytes);
        let _ = drain(PeerCaller::default(), &bytes);
        let version = PROTOCOL_VERSION.to_be_bytes();
        block_on(async {
            let _ = Hello::read(&mut &bytes[..]).await;
            let _ = Hello::read(&mut &[&b"KVRH"[..], &version, &bytes].concat()[..]).await;
            let _ = Reply::read(&mut &[&b"KVRA"[..], &version, &bytes].concat()[..]).await;
        });
    }

    #[test]
    fn frames_survive_any_cuts_on_their_way(
        requests in vec((any::<u64>(), any::<u32>(), vec(any::<u8>(), 0..100)), 1..10),
        cuts in vec(1..40_usize, 1..200),
    ) {
        let sent: Vec<_> = requests
            .into_iter()
            .map(|(id, timeout_ms, key)| (id, timeout_ms, Bytes::from(key)))
            .collect();
        let bytes: Vec<u8> = sent.iter().flat_map(|(id, timeout_ms, key)| {
            let message = KvRequest::Get { key: key.clone(), consistency: Consistency::Stale };
            let body = encode(&WireRequest::Request { id: *id, timeout_ms: *timeout_ms, message }, MAX_FRAME_BYTES);
            let body = body.unwrap();
            [&u32::try_from(body.len()).unwrap().to_be_bytes(), &body[..]].concat()
        }).collect();

        let (mut framing, mut frames, mut received) = (KvServer::default(), BytesMut::new(), Vec::new());
        let mut rest = &bytes[..];
        for cut in cuts.into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, behind) = rest.split_at(cut.min(rest.len()));
            frames.extend_from_slice(piece);
            rest = behind;
            while let Some(message) = framing.decode(&mut frames).unwrap() {
                received.push(id_and_key(message)?);
            }
        }
        prop_assert!(frames.is_empty());
        let expected: Vec<_> = sent.into_iter().map(|(id, _, key)| (id, key)).collect();
        prop_assert_eq!(received, expected);
    }

    #[test]
    fn what_is_encoded_is_decoded_and_never_passes_its_limit(value in vec(vec(any::<u8>(), 0..50), 0..20), limit in 0..600_usize) {
        match encode(&value, limit) {
            Ok(bytes) => {
                prop_assert!(bytes.len() <= limit);
                prop_assert_eq!(decode::<Vec<Vec<u8>>>(&bytes, limit).unwrap(), value);
            }
            Err(error) => {
                prop_assert_eq!(error, CodecError::TooLarge { limit_bytes: limit });
                prop_assert!(encode(&value, usize::MAX).unwrap().len() > limit);
            }
        }
    }
}

fn id_and_key(message: ClientMessage<KvRequest>) -> Result<(u64, Bytes), TestCaseError> {
    match message {
        ClientMessage::Request(request) => match request.message {
            KvRequest::Get { key, .. } => Ok((request.id, key)),
            other => Err(TestCaseError::fail(format!("another method arrived: {other:?}"))),
        },
        other => Err(TestCaseError::fail(format!("another message arrived: {other:?}"))),
    }
}

#[test]
fn a_message_that_does_not_fit_leaves_the_frames_before_it_alone() {
    let mut frames = BytesMut::new();
    let mut framing = KvCaller::default();
    let request = |key: Vec<u8>| {
        let message = KvRequest::Get {
            key: key.into(),
            consistency: Consistency::Stale,
        };
        ClientMessage::Request(tarpc::Request {
            context: rpc::context(std::time::Duration::ZERO),
            id: 1,
            message,
        })
    };
    framing.encode(request(vec![1]), &mut frames).unwrap();
    let before = frames.clone();
    framing
        .encode(request(vec![1; MAX_FRAME_BYTES]), &mut frames)
        .unwrap_err();
    assert_eq!(frames, before);
    assert!(frames.len() > FRAME_HEADER_BYTES);
}
