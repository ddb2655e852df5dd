//! The frames of an HTTP/2 connection, and what they are worth.
//!
//! The HTTP/2 library bounds the memory that a flood of frames can take, and some kinds of floods by number; but it answers
//! PING after PING and SETTINGS after SETTINGS for as long as they come. So frames have a price here, whatever their kind:
//! each takes one from a [`Budget`], and each answer puts some back, as does what is sent of it, and time. Whoever asks and
//! takes is worth more than it says; whoever only keeps us busy runs out, and is closed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// What HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame before its payload.
const HEAD: usize = 9;
const DATA: u8 = 0;
/// Bytes of a DATA frame from which on it costs nothing: it is worth its head.
const DATA_MIN: u32 = 256;

/// Frames that may come at once.
pub(super) const FRAMES_MAX: u32 = 1_000;
/// Frames a second that may come for nothing.
const FRAMES_A_SECOND: u32 = 20;
/// Bytes sent that are worth a frame: more than the answer to a PING has (17).
const BYTES_A_FRAME: u32 = 32;
/// Frames that an answer to a request is worth: the request itself, windows for its answer, and a few of whatever else. Who
/// takes its request back before it is answered does not get them.
const FRAMES_AN_ANSWER: u32 = 4;

/// Counts the frames in what a peer sends, piece by piece, and what they are worth. Pure: it is told the time.
#[derive(Debug)]
pub(super) struct Budget {
    reading: Reading,
    frames: u32,
    /// Bytes sent that do not make a frame yet.
    sent: u32,
    /// Up to when time has put back.
    paid: Duration,
}

#[derive(Debug)]
enum Reading {
    /// So many bytes of the preface are there.
    Preface(usize),
    /// It is no HTTP/2.
    Other,
    /// The head of a frame.
    Head([u8; HEAD], usize),
    /// So many bytes of a payload are to come.
    Payload(u32),
}

/// More frames came than the connection was worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many frames for what was asked")]
pub(super) struct Flood;

impl Budget {
    pub(super) fn new() -> Self {
        Self { reading: Reading::Preface(0), frames: FRAMES_MAX, sent: 0, paid: Duration::ZERO }
    }

    /// Takes what came in; `now` is the time since the connection's begin.
    pub(super) fn received(&mut self, mut bytes: &[u8], now: Duration) -> Result<(), Flood> {
        if matches!(self.reading, Reading::Other) {
            return Ok(());
        }
        self.pay(now);
        while let Some(&first) = bytes.first() {
            match &mut self.reading {
                Reading::Other => return Ok(()),
                Reading::Preface(at) if first == PREFACE[*at] => {
                    *at += 1;
                    if *at == PREFACE.len() {
                        self.reading = Reading::Head([0; HEAD], 0);
                    }
                    bytes = &bytes[1..];
                }
                Reading::Preface(_) => self.reading = Reading::Other,
                Reading::Head(head, at) => {
                    let count = bytes.len().min(HEAD - *at);
                    head[*at..*at + count].copy_from_slice(&bytes[..count]);
                    *at += count;
                    bytes = &bytes[count..];
                    if *at == HEAD {
                        let [a, b, c, kind, ..] = *head;
                        let length = u32::from_be_bytes([0, a, b, c]);
                        self.reading =
                            if length == 0 { Reading::Head([0; HEAD], 0) } else { Reading::Payload(length) };
                        if kind != DATA || length < DATA_MIN {
                            self.frames = self.frames.checked_sub(1).ok_or(Flood)?;
                        }
                    }
                }
                Reading::Payload(left) => {
                    let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX).min(*left);
                    *left -= count;
                    bytes = &bytes[count as usize..];
                    if *left == 0 {
                        self.reading = Reading::Head([0; HEAD], 0);
                    }
                }
            }
        }
        Ok(())
    }

    /// So many bytes went out.
    pub(super) fn sent(&mut self, bytes: usize) {
        let all = self.sent.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.sent = all % BYTES_A_FRAME;
        self.put_back(all / BYTES_A_FRAME);
    }

    /// So many requests were answered.
    pub(super) fn answered(&mut self, answers: u32) {
        self.put_back(answers.saturating_mul(FRAMES_AN_ANSWER));
    }

    fn pay(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.paid).as_millis() * u128::from(FRAMES_A_SECOND) / 1_000;
        let frames = u32::try_from(passed).unwrap_or(u32::MAX);
        if frames > 0 {
            self.paid = now;
            self.put_back(frames);
        }
    }

    fn put_back(&mut self, frames: u32) {
        self.frames = self.frames.saturating_add(frames).min(FRAMES_MAX);
    }
}

/// A connection whose frames are counted.
pub(super) struct Frames<I> {
    io: I,
    budget: Option<Budget>,
    start: Instant,
    /// Requests answered that the budget has not been told of.
    answers: Arc<AtomicU32>,
    /// Told once it is a flood.
    flooded: Box<dyn FnMut() + Send>,
}

impl<I> Frames<I> {
    /// `http2` is whether frames may come at all; in `answers` whoever answers requests counts them; `flooded` is called if
    /// there are too many frames.
    pub(super) fn new(
        io: I,
        http2: bool,
        answers: Arc<AtomicU32>,
        flooded: impl FnMut() + Send + 'static,
    ) -> Self {
        let budget = http2.then(Budget::new);
        Self { io, budget, start: Instant::now(), answers, flooded: Box::new(flooded) }
    }

    fn count_sent(&mut self, written: &Poll<io::Result<usize>>) {
        if let (Some(budget), Poll::Ready(Ok(count))) = (&mut self.budget, written) {
            budget.sent(*count);
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Frames<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        let now = self.start.elapsed();
        let answers = self.answers.swap(0, Ordering::Relaxed);
        if let Some(budget) = &mut self.budget {
            budget.answered(answers);
        }
        if let Some(budget) = &mut self.budget
            && let Err(flood) = budget.received(&buffer.filled()[before..], now)
        {
            self.budget = None;
            (self.flooded)();
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, flood)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Frames<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        self.count_sent(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(context, bytes);
        self.count_sent(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: u8 = 6;

    fn frame(kind: u8, length: u32) -> Vec<u8> {
        let mut bytes = vec![0; HEAD + length as usize];
        bytes[..3].copy_from_slice(&length.to_be_bytes()[1..]);
        bytes[3] = kind;
        bytes
    }

    /// How many of these frames come through before it is a flood, if `between` happens after each.
    fn passed(frame: &[u8], most: u32, mut between: impl FnMut(&mut Budget, u32) -> Duration) -> u32 {
        let mut budget = Budget::new();
        budget.received(PREFACE, Duration::ZERO).unwrap();
        let mut now = Duration::ZERO;
        for count in 0..most {
            if budget.received(frame, now).is_err() {
                return count;
            }
            now = between(&mut budget, count);
        }
        most
    }

    #[test]
    fn frames_for_nothing_run_out_and_those_that_are_worth_something_do_not() {
        let never = |_: &mut Budget, _| Duration::ZERO;
        for kind in [1, 2, 3, 4, PING, 8, 9, 16, 255] {
            assert_eq!(passed(&frame(kind, 8), 10_000, never), FRAMES_MAX, "{kind}");
        }
        assert_eq!(passed(&frame(DATA, 0), 10_000, never), FRAMES_MAX);
        assert_eq!(passed(&frame(DATA, DATA_MIN), 10_000, never), 10_000);
        // The answers to PING do not pay for them.
        let pong = |budget: &mut Budget, _| {
            budget.sent(17);
            Duration::ZERO
        };
        // The last answers' bytes do not make a frame.
        assert_eq!(passed(&frame(PING, 8), 10_000, pong), FRAMES_MAX * 32 / 15 - 1);
        // Answers to requests do, however small, with windows for each too.
        let answered = |budget: &mut Budget, _| {
            budget.answered(1);
            budget.received(&frame(8, 4), Duration::ZERO).unwrap();
            budget.received(&frame(8, 4), Duration::ZERO).unwrap();
            Duration::ZERO
        };
        assert_eq!(passed(&frame(1, 40), 10_000, answered), 10_000);
        // And so does time: twenty a second for ever.
        let slowly = |_: &mut Budget, count| Duration::from_millis(50) * (count + 1);
        assert_eq!(passed(&frame(PING, 8), 10_000, slowly), 10_000);
        let faster = |_: &mut Budget, count| Duration::from_millis(10) * (count + 1);
        assert!((1_200..1_300).contains(&passed(&frame(PING, 8), 10_000, faster)));
    }

    #[test]
    fn frames_are_counted_however_they_are_cut() {
        let mut bytes = PREFACE.to_vec();
        for length in [0, 1, 8, 300, 0, 20_000] {
            bytes.extend(frame(PING, length));
        }
        for piece in [1, 2, 7, 9, 10, 24, 4_096, usize::MAX] {
            let mut budget = Budget::new();
            bytes.chunks(piece).for_each(|piece| budget.received(piece, Duration::ZERO).unwrap());
            assert_eq!(budget.frames, FRAMES_MAX - 6, "{piece}");
            assert!(matches!(budget.reading, Reading::Head(_, 0)));
        }
    }

    #[test]
    fn what_is_no_http_2_costs_nothing() {
        let mut budget = Budget::new();
        budget.received(b"PRI * HTTP/2.1\r\n\r\n", Duration::ZERO).unwrap();
        budget.received(&[0; 1_000_000], Duration::ZERO).unwrap();
        assert!(matches!(budget.reading, Reading::Other));
        assert_eq!(budget.frames, FRAMES_MAX);
    }
}
