//! Messages between the processes of one installation.
//!
//! There is no broker: each process publishes on a socket of its own (`run/bus/{name}.sock`) and subscribes at the
//! sockets of others. A subscriber names a topic and the sequence number it wants to begin with; the publisher
//! replays what it retains from there on and goes on live. What a topic retains follows from its name
//! ([`Retention::of`]).
//!
//! ```text
//! parts/{event}    origin → edges       a part a message, sequence = part number   256 retained
//! window/{event}   edge → origin        the same payload, for the refill           256 retained
//! events           control → all        every event, once a second and on change   the last one
//! status           origin → control,    state of every show, once a second and     the last one
//!                           edges       on change
//! heartbeat        edge → control       listeners and resources, once a second     the last one
//! bins             all → origin         what a process counted, every ten seconds  the last one
//! audience         control → edges      totals and the ladder, once a second       the last one
//! sessions         edge → control       sessions of tickets, once a second         the last one
//! limits           control → edges      tickets above their sessions, revoked      the last one
//! ```

mod frame;
mod topic;
mod unix;
#[cfg(test)]
mod unix_tests;

use bytes::Bytes;

pub use unix::{UnixBus, UnixBusStats, forget_peers};

/// Largest payload of a message, bytes.
pub const PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Messages a log topic retains: 123 s of parts.
pub const LOG_MESSAGES: usize = 256;

/// What a topic keeps for those who come later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// The last [`LOG_MESSAGES`] messages. Sequence numbers ascend across restarts of the publisher; a number that
    /// does not ascend is refused.
    Log,
    /// The last message, which says everything. It is sent at every (re)connection whatever number was asked for,
    /// so a publisher may begin its numbers anew.
    State,
}

impl Retention {
    /// What the topic of this name keeps: `parts/…` and `window/…` are logs, everything else is state.
    pub fn of(topic: &str) -> Self {
        if topic.starts_with("parts/") || topic.starts_with("window/") { Self::Log } else { Self::State }
    }
}

/// Entry point for fuzzing: takes any bytes as a frame and as a request.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    frame::fuzz(data);
}

/// One message of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its number within the topic, chosen by the publisher.
    pub sequence: u64,
    /// What it says; see [`crate::wire`].
    pub payload: Bytes,
}

/// The way to the other processes. Names of topics are at most 128 bytes.
pub trait Bus: Send + Sync + 'static {
    /// Publishes on this process's own topics. Never blocks and may be called from any thread. A payload over
    /// [`PAYLOAD_BYTES_MAX`], or a number that does not ascend on a log topic, is dropped and counted.
    fn publish(&self, topic: &str, sequence: u64, payload: Bytes);

    /// Forgets a topic of this process: what it retains, and the subscribers, who are cut off.
    fn retire(&self, topic: &str);

    /// Subscribes to a topic of `peer` (`origin`, `control`, `edge-0`, …), which need not be there yet: the
    /// subscription connects, and reconnects after a loss, with jittered pauses of 20 to 500 ms, asking for the
    /// message after the last received. `from` on a log topic is the first number wanted; `None` begins with the
    /// next one published. On a state topic it is ignored.
    fn subscribe(&self, peer: &str, topic: &str, from: Option<u64>) -> Subscription;

    /// Peers that have a socket at the moment, in order of their names, this process not among them. One that died
    /// may still be listed.
    fn peers(&self) -> Vec<String>;
}

/// A running subscription. Dropping it ends it.
pub struct Subscription {
    messages: tokio::sync::mpsc::Receiver<Message>,
    connected: tokio::sync::watch::Receiver<bool>,
    task: tokio::task::AbortHandle,
}

impl Subscription {
    /// The next message; `None` only when the runtime shuts down. Cancelling loses nothing.
    pub async fn next(&mut self) -> Option<Message> {
        self.messages.recv().await
    }

    /// The next message if one is there already.
    pub fn try_next(&mut self) -> Option<Message> {
        self.messages.try_recv().ok()
    }

    /// As [`Self::next`] for a thread outside the runtime.
    ///
    /// # Panics
    /// When called from within an asynchronous task.
    pub fn blocking_next(&mut self) -> Option<Message> {
        self.messages.blocking_recv()
    }

    /// Whether the publisher is connected.
    pub fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}
