//! A byte stream as a stream and sink of messages.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use tokio_util::codec::{Decoder, Encoder};
use tokio_util::io::{poll_read_buf, poll_write_buf};

use crate::framing::{FrameError, complete_frame_bytes};

/// Frames are gathered up to this many bytes before the socket must take some of them.
const BACKPRESSURE_BYTES: usize = 128 << 10;
/// At least this much room is offered to each read from the socket.
const READ_CHUNK_BYTES: usize = 16 << 10;
/// A buffer that held more than this is given back to the allocator when it runs empty, so that one long
/// frame does not cost a connection its memory for life.
const KEPT_BUFFER_BYTES: usize = 256 << 10;
/// How long, and for how many bytes, a closing server listens for the caller to close as well.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: usize = 64 << 10;

/// Messages over any byte stream: TCP today, TLS around it if need be.
///
/// It differs from `tokio_util`'s `Framed` in what a server needs to defend itself: reading can be paused, and
/// it tells when a frame began to arrive and how many bytes the other side has taken.
#[derive(Debug)]
pub struct Transport<S, C> {
    io: S,
    framing: C,
    received: BytesMut,
    received_was_large: bool,
    unsent: BytesMut,
    unsent_was_large: bool,
    reading_paused: bool,
    read_ended: bool,
    frame_began: Option<Instant>,
    last_frame_bytes: usize,
    sent_bytes: u64,
}

impl<S, C> Transport<S, C> {
    /// Wraps a stream on which the hello has been exchanged.
    pub fn new(io: S, framing: C) -> Self {
        Self {
            io,
            framing,
            received: BytesMut::new(),
            received_was_large: false,
            unsent: BytesMut::new(),
            unsent_was_large: false,
            reading_paused: false,
            read_ended: false,
            frame_began: None,
            last_frame_bytes: 0,
            sent_bytes: 0,
        }
    }

    /// The byte stream.
    pub(crate) fn io_mut(&mut self) -> &mut S {
        &mut self.io
    }

    /// Stops or restarts reading. While paused the stream is pending and wakes nobody: whoever restarts it
    /// polls it again. Time in which we did not read is not held against the sender's frame.
    pub(crate) fn pause_reading(&mut self, paused: bool) {
        self.reading_paused = paused;
        if paused {
            self.frame_began = None;
        }
    }

    /// When the frame of which only a part is here began to arrive; `None` if there is no such frame.
    pub(crate) fn frame_began(&self) -> Option<Instant> {
        self.frame_began
    }

    /// The length of the last frame that was yielded.
    pub(crate) fn last_frame_bytes(&self) -> usize {
        self.last_frame_bytes
    }

    /// Whether bytes wait for the other side to take them.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// How many bytes the socket has taken so far.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    fn release_large_read_buffer(&mut self) {
        self.received_was_large |= self.last_frame_bytes > KEPT_BUFFER_BYTES;
        if self.received_was_large && self.received.is_empty() {
            self.received = BytesMut::new();
            self.received_was_large = false;
        }
    }

    fn release_large_write_buffer(&mut self) {
        if self.unsent_was_large {
            self.unsent = BytesMut::new();
            self.unsent_was_large = false;
        }
    }
}

impl<S, C> Transport<S, C>
where
    S: AsyncRead + Unpin,
    C: Decoder<Error = FrameError> + Unpin,
{
    fn take_frame(&mut self) -> Result<Option<C::Item>, FrameError> {
        let Some(frame_bytes) = complete_frame_bytes(&self.received)? else {
            return Ok(None);
        };
        self.last_frame_bytes = frame_bytes;
        let message = self.framing.decode(&mut self.received)?;
        self.frame_began = None;
        self.release_large_read_buffer();
        Ok(message)
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), FrameError>> {
        // The buffer grows with what arrives, by doubling, and never by what the frame's header claims.
        self.received.reserve(READ_CHUNK_BYTES);
        match poll_read_buf(Pin::new(&mut self.io), cx, &mut self.received) {
            Poll::Pending => {
                if !self.received.is_empty() && self.frame_began.is_none() {
                    self.frame_began = Some(Instant::now());
                }
                Poll::Pending
            }
            Poll::Ready(read) => {
                self.read_ended = read? == 0;
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl<S, C> Stream for Transport<S, C>
where
    S: AsyncRead + Unpin,
    C: Decoder<Error = FrameError> + Unpin,
{
    type Item = Result<C::Item, FrameError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.reading_paused {
            return Poll::Pending;
        }
        loop {
            if let Some(message) = this.take_frame()? {
                return Poll::Ready(Some(Ok(message)));
            }
            if this.read_ended {
                let whole = this.received.is_empty();
                return Poll::Ready(if whole {
                    None
                } else {
                    Some(Err(FrameError::Truncated))
                });
            }
            ready!(this.poll_receive(cx))?;
        }
    }
}

impl<S: AsyncWrite + Unpin, C> Transport<S, C> {
    /// Hands bytes to the socket until at most `keep_bytes` are left.
    fn poll_send(&mut self, cx: &mut Context<'_>, keep_bytes: usize) -> Poll<Result<(), FrameError>> {
        while self.unsent.len() > keep_bytes {
            let sent = ready!(poll_write_buf(Pin::new(&mut self.io), cx, &mut self.unsent))?;
            if sent == 0 {
                return Poll::Ready(Err(FrameError::Io(std::io::ErrorKind::WriteZero.into())));
            }
            self.sent_bytes += sent as u64;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S, C, M> Sink<M> for Transport<S, C>
where
    S: AsyncWrite + Unpin,
    C: Encoder<M, Error = FrameError> + Unpin,
{
    type Error = FrameError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), FrameError>> {
        self.poll_send(cx, BACKPRESSURE_BYTES)
    }

    fn start_send(mut self: Pin<&mut Self>, message: M) -> Result<(), FrameError> {
        let this = &mut *self;
        this.framing.encode(message, &mut this.unsent)?;
        this.unsent_was_large |= this.unsent.len() > KEPT_BUFFER_BYTES;
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), FrameError>> {
        ready!(self.poll_send(cx, 0))?;
        self.release_large_write_buffer();
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), FrameError>> {
        ready!(self.poll_send(cx, 0))?;
        ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }
}

/// Closes a stream so that the other side gets to read what was sent last.
///
/// Closing a socket that holds unread bytes resets the connection, which can wipe out answers that the other
/// side has not read. So: end the sending half, then read on for a moment.
pub(crate) async fn close_gently<S: AsyncRead + AsyncWrite + Unpin>(io: &mut S) {
    let discard_the_rest = async {
        io.shutdown().await?;
        let mut buffer = [0; 4 << 10];
        let mut discarded = 0;
        while discarded < LINGER_BYTES {
            match io.read(&mut buffer).await? {
                0 => break,
                read => discarded += read,
            }
        }
        std::io::Result::Ok(())
    };
    // Whatever goes wrong now, the connection is over.
    let _ = timeout(LINGER, discard_the_rest).await;
}

#[cfg(test)]
mod tests;
