//! A connection whose peer must take what is written to it, and gets the time to.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::DoorCounts;

/// How long what is left of a refused body is thrown away. Closing with something unread takes back the answer that says
/// why (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(1);
/// As much of it at most.
const LINGER_BYTES: usize = 256 << 20;

/// Fails a write that has been pending for too long; otherwise a peer that reads nothing would hold its answer, and
/// its place, for ever. What is written is counted. Where a body was left `unread` it lingers after the answer.
pub(super) struct WriteGuard<I> {
    io: I,
    limit: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
    unread: Arc<AtomicBool>,
    lingering: Option<Lingering>,
    counts: Arc<DoorCounts>,
}

struct Lingering {
    until: Pin<Box<Sleep>>,
    left: usize,
}

impl<I> WriteGuard<I> {
    pub(super) fn new(io: I, limit: Duration, unread: Arc<AtomicBool>, counts: Arc<DoorCounts>) -> Self {
        Self { io, limit, waiting: None, unread, lingering: None, counts }
    }
}

impl<I: AsyncRead + Unpin> WriteGuard<I> {
    fn linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let lingering = self
            .lingering
            .get_or_insert_with(|| Lingering { until: Box::pin(sleep(LINGER)), left: LINGER_BYTES });
        // As much in one go as a turn may take.
        for _ in 0..16 {
            if lingering.left == 0 || lingering.until.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            let mut bytes = [0; 16 * 1024];
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut self.io).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
            lingering.left = lingering.left.saturating_sub(buffer.filled().len());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<I: Unpin> WriteGuard<I> {
    fn guard<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut I>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(written) = write(Pin::new(&mut self.io), context) {
            self.waiting = None;
            return Poll::Ready(written);
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(waiting.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer reads nothing")))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for WriteGuard<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WriteGuard<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.guard(context, |io, context| io.poll_write(context, bytes)));
        Poll::Ready(written.inspect(|bytes| self.counts.sent(*bytes)))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.guard(context, |io, context| io.poll_write_vectored(context, bytes)));
        Poll::Ready(written.inspect(|bytes| self.counts.sent(*bytes)))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.guard(context, |io, context| io.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(self.guard(context, |io, context| io.poll_shutdown(context)))?;
        }
        if self.unread.load(Ordering::Relaxed) {
            ready!(self.linger(context));
        }
        Poll::Ready(Ok(()))
    }
}
