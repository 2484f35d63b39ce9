//! Messages to frames and back.
//!
//! A frame is the length of its body (`u32`, big-endian, at most
//! [`MAX_FRAME_BYTES`]) and the body, one encoded [`WireRequest`] or
//! [`WireResponse`]. tarpc's own message types never travel: they carry a deadline that the sender chooses
//! freely, and tarpc's timers panic on extreme ones. On the wire a request carries the milliseconds that it
//! may take. The receiver cuts them to [`MAX_DEADLINE`] and builds tarpc's context itself.

use std::io;
use std::marker::PhantomData;
use std::time::Instant;

use bytes::{Buf, BufMut, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tarpc::context::{self, Context};
use tarpc::{ClientMessage, Request, Response, ServerError};
use thiserror::Error;
use tokio_util::codec::{Decoder, Encoder};

use crate::codec::{self, CodecError};
use crate::limits::{MAX_DEADLINE, MAX_FRAME_BYTES};

/// Bytes in front of a frame's body: its length.
pub const FRAME_HEADER_BYTES: usize = size_of::<u32>();

/// The body of a frame from a caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WireRequest<M> {
    /// Do this.
    Request {
        /// Names the request among those in flight on the connection.
        id: u64,
        /// How long the caller waits from now, in milliseconds.
        timeout_ms: u32,
        /// What to do.
        message: M,
    },
    /// The caller does not wait any more.
    Cancel {
        /// The request's id.
        id: u64,
    },
}

/// The body of a frame from a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WireResponse<M> {
    /// The service's answer.
    Answer {
        /// The request's id.
        id: u64,
        /// The answer.
        message: M,
    },
    /// There is no answer of the service's.
    Failure {
        /// The request's id.
        id: u64,
        /// Why.
        reason: FailureReason,
        /// The same for people.
        detail: String,
    },
}

/// Why a request has no answer: the few kinds of [`ServerError`] that travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureReason {
    /// Any other reason ([`io::ErrorKind::Other`]).
    Other,
    /// The server takes no more work at present ([`io::ErrorKind::WouldBlock`]).
    Busy,
    /// The answer is longer than a frame may be ([`io::ErrorKind::FileTooLarge`]).
    AnswerTooLarge,
}

/// Why frames cannot go on, or why a message cannot become a frame.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The other side announced a frame over the limit.
    #[error("a frame of {len_bytes} bytes arrived: the limit is {limit_bytes}")]
    FrameTooLarge {
        /// The announced length, in bytes.
        len_bytes: usize,
        /// The limit, in bytes.
        limit_bytes: usize,
    },
    /// A message that was to be sent is over the limit, or a frame that arrived is not a message.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The connection ended within a frame.
    #[error("the connection ended in the middle of a frame")]
    Truncated,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}

/// A caller's half of the framing: requests out, responses in.
#[derive(Debug)]
pub struct CallerFraming<Req, Resp>(PhantomData<fn(Req) -> Resp>);

/// A server's half of the framing: requests in, responses out.
#[derive(Debug)]
pub struct ServerFraming<Req, Resp> {
    /// What every request's context starts from. Building it anew would ask the tracing subscriber each time.
    template: Context,
    types: PhantomData<fn(Req) -> Resp>,
}

impl<Req, Resp> Default for CallerFraming<Req, Resp> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Req, Resp> Default for ServerFraming<Req, Resp> {
    fn default() -> Self {
        Self {
            template: context::current(),
            types: PhantomData,
        }
    }
}

impl<Req: Serialize, Resp> Encoder<ClientMessage<Req>> for CallerFraming<Req, Resp> {
    type Error = FrameError;

    /// A message over the limit is an error of that message alone; `frames` is then as it was.
    fn encode(&mut self, message: ClientMessage<Req>, frames: &mut BytesMut) -> Result<(), FrameError> {
        let body = match message {
            ClientMessage::Request(Request { context, id, message }) => WireRequest::Request {
                id,
                timeout_ms: timeout_ms_until(context.deadline),
                message,
            },
            ClientMessage::Cancel { request_id, .. } => WireRequest::Cancel { id: request_id },
            // The enum may grow; what this version does not know it does not send.
            other => return Err(unknown_message(&other)),
        };
        Ok(write_frame(&body, frames)?)
    }
}

impl<Req, Resp: DeserializeOwned> Decoder for CallerFraming<Req, Resp> {
    type Item = Response<Resp>;
    type Error = FrameError;

    fn decode(&mut self, frames: &mut BytesMut) -> Result<Option<Self::Item>, FrameError> {
        let body = read_frame(frames)?;
        Ok(body.map(|body| match body {
            WireResponse::Answer { id, message } => Response {
                request_id: id,
                message: Ok(message),
            },
            WireResponse::Failure { id, reason, detail } => Response {
                request_id: id,
                message: Err(ServerError::new(reason.into(), detail)),
            },
        }))
    }
}

impl<Req, Resp: Serialize> Encoder<Response<Resp>> for ServerFraming<Req, Resp> {
    type Error = FrameError;

    /// An answer over the limit is replaced by a failure that says so, and the connection goes on.
    fn encode(&mut self, response: Response<Resp>, frames: &mut BytesMut) -> Result<(), FrameError> {
        let id = response.request_id;
        let body = match response.message {
            Ok(message) => WireResponse::Answer { id, message },
            Err(error) => WireResponse::Failure {
                id,
                reason: error.kind.into(),
                detail: error.detail,
            },
        };
        match write_frame(&body, frames) {
            Err(error @ CodecError::TooLarge { .. }) => {
                tracing::warn!(%error, "an answer does not fit into a frame");
                let reason = FailureReason::AnswerTooLarge;
                Ok(write_frame(
                    &WireResponse::<Resp>::Failure {
                        id,
                        reason,
                        detail: error.to_string(),
                    },
                    frames,
                )?)
            }
            other => Ok(other?),
        }
    }
}

impl<Req: DeserializeOwned, Resp> Decoder for ServerFraming<Req, Resp> {
    type Item = ClientMessage<Req>;
    type Error = FrameError;

    fn decode(&mut self, frames: &mut BytesMut) -> Result<Option<Self::Item>, FrameError> {
        let body = read_frame(frames)?;
        Ok(body.map(|body| match body {
            WireRequest::Request {
                id,
                timeout_ms,
                message,
            } => {
                let mut context = self.template;
                context.deadline = deadline_in(timeout_ms);
                ClientMessage::Request(Request { context, id, message })
            }
            WireRequest::Cancel { id } => ClientMessage::Cancel {
                trace_context: self.template.trace_context,
                request_id: id,
            },
        }))
    }
}

impl From<FailureReason> for io::ErrorKind {
    fn from(reason: FailureReason) -> Self {
        match reason {
            FailureReason::Other => Self::Other,
            FailureReason::Busy => Self::WouldBlock,
            FailureReason::AnswerTooLarge => Self::FileTooLarge,
        }
    }
}

impl From<io::ErrorKind> for FailureReason {
    fn from(kind: io::ErrorKind) -> Self {
        match kind {
            io::ErrorKind::WouldBlock => Self::Busy,
            io::ErrorKind::FileTooLarge => Self::AnswerTooLarge,
            _ => Self::Other,
        }
    }
}

/// The length of the frame at the front of `frames`, header included, once all of it is there.
///
/// # Errors
///
/// [`FrameError::FrameTooLarge`] as soon as the header announces more than the limit.
pub(crate) fn complete_frame_bytes(frames: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(header) = frames.first_chunk::<FRAME_HEADER_BYTES>() else {
        return Ok(None);
    };
    let len_bytes = usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX);
    if len_bytes > MAX_FRAME_BYTES {
        return Err(FrameError::FrameTooLarge {
            len_bytes,
            limit_bytes: MAX_FRAME_BYTES,
        });
    }
    let whole = FRAME_HEADER_BYTES + len_bytes;
    Ok((frames.len() >= whole).then_some(whole))
}

fn read_frame<T: DeserializeOwned>(frames: &mut BytesMut) -> Result<Option<T>, FrameError> {
    let Some(whole) = complete_frame_bytes(frames)? else {
        return Ok(None);
    };
    let value = codec::decode(&frames[FRAME_HEADER_BYTES..whole], MAX_FRAME_BYTES)?;
    frames.advance(whole);
    Ok(Some(value))
}

fn write_frame<T: Serialize>(body: &T, frames: &mut BytesMut) -> Result<(), CodecError> {
    let start = frames.len();
    frames.put_u32(0);
    if let Err(error) = codec::encode_into(body, MAX_FRAME_BYTES, frames) {
        frames.truncate(start);
        return Err(error);
    }
    let body_start = start + FRAME_HEADER_BYTES;
    let len =
        u32::try_from(frames.len() - body_start).expect("a body within MAX_FRAME_BYTES fits into a u32");
    frames[start..body_start].copy_from_slice(&len.to_be_bytes());
    Ok(())
}

/// What remains until `deadline`, rounded up so that a short wait does not become none.
fn timeout_ms_until(deadline: Instant) -> u32 {
    let remaining = deadline
        .saturating_duration_since(Instant::now())
        .min(MAX_DEADLINE);
    let rounded_up = remaining.as_nanos().div_ceil(1_000_000);
    u32::try_from(rounded_up).expect("MAX_DEADLINE in milliseconds fits into a u32")
}

fn deadline_in(timeout_ms: u32) -> Instant {
    Instant::now() + std::time::Duration::from_millis(u64::from(timeout_ms)).min(MAX_DEADLINE)
}

fn unknown_message<Req>(_: &ClientMessage<Req>) -> FrameError {
    FrameError::Io(io::Error::new(
        io::ErrorKind::Unsupported,
        "tarpc sent a message of an unknown kind",
    ))
}
