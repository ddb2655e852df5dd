//! What a publisher retains of one topic, and where its subscribers stand in it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{LOG_MESSAGES, Message, Retention};

/// Messages taken at once for one subscriber.
const BATCH: usize = 32;

/// One topic. Messages share their bytes; a subscriber is a [`Cursor`] into the log.
#[derive(Debug)]
pub(super) struct Topic {
    retention: Retention,
    log: Mutex<Log>,
    /// Messages ever published; its watchers wake at each one.
    published: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Log {
    ring: VecDeque<Message>,
    /// Messages that have left the ring.
    gone: u64,
    retired: bool,
}

/// A subscriber's place: how many messages of the topic lie behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor(u64);

/// What is next for a subscriber.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// These, at least one.
    Messages(Vec<Message>),
    /// Nothing yet; on a log topic the next message will have at least this number.
    Wait { next: u64 },
    /// What would be next is no longer retained.
    Lost,
    /// The topic was retired.
    Retired,
}

impl Topic {
    pub(super) fn new(retention: Retention) -> Self {
        Self { retention, log: Mutex::default(), published: watch::Sender::new(0) }
    }

    /// Adds a message. False if its number does not ascend on a log topic.
    pub(super) fn publish(&self, message: Message) -> bool {
        let mut log = self.lock();
        let limit = match self.retention {
            Retention::Log => {
                if log.ring.back().is_some_and(|last| last.sequence >= message.sequence) {
                    return false;
                }
                LOG_MESSAGES
            }
            Retention::State => 1,
        };
        log.ring.push_back(message);
        while log.ring.len() > limit {
            log.ring.pop_front();
            log.gone += 1;
        }
        drop(log);
        self.published.send_modify(|count| *count += 1);
        true
    }

    /// No more messages; subscribers are cut off.
    pub(super) fn retire(&self) {
        self.lock().retired = true;
        self.published.send_modify(|_| {});
    }

    /// Where a subscriber begins that asks for `from`.
    pub(super) fn cursor(&self, from: Option<u64>) -> Cursor {
        let log = self.lock();
        let skipped = match (self.retention, from) {
            (Retention::State, _) => 0,
            (Retention::Log, Some(from)) => log.ring.partition_point(|message| message.sequence < from),
            (Retention::Log, None) => log.ring.len(),
        };
        Cursor(log.gone + skipped as u64)
    }

    /// The next messages at `cursor`, which moves behind them.
    pub(super) fn take(&self, cursor: &mut Cursor) -> Next {
        let log = self.lock();
        if log.retired {
            return Next::Retired;
        }
        let skipped = match (self.retention, cursor.0.checked_sub(log.gone)) {
            (_, Some(skipped)) => skipped as usize,
            // Older states are of no interest to anyone.
            (Retention::State, None) => 0,
            (Retention::Log, None) => return Next::Lost,
        };
        let messages: Vec<_> = log.ring.iter().skip(skipped).take(BATCH).cloned().collect();
        if messages.is_empty() {
            return Next::Wait { next: log.ring.back().map_or(0, |last| last.sequence.saturating_add(1)) };
        }
        cursor.0 = log.gone + (skipped + messages.len()) as u64;
        Next::Messages(messages)
    }

    /// Wakes at every message from now on.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        // Nothing that can panic happens under the lock.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn message(sequence: u64) -> Message {
        Message { sequence, payload: Bytes::from(sequence.to_string()) }
    }

    fn numbers(next: Next) -> Vec<u64> {
        match next {
            Next::Messages(messages) => messages.iter().map(|message| message.sequence).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn a_log_is_read_from_any_number() {
        let topic = Topic::new(Retention::Log);
        for sequence in [5, 6, 9, 10] {
            assert!(topic.publish(message(sequence)));
        }
        assert!(!topic.publish(message(10)), "a number is never used twice");
        for (from, expected) in [
            (Some(0), vec![5, 6, 9, 10]),
            (Some(7), vec![9, 10]),
            (Some(10), vec![10]),
            (Some(11), vec![]),
            (None, vec![]),
        ] {
            let mut cursor = topic.cursor(from);
            assert_eq!(numbers(topic.take(&mut cursor)), expected, "{from:?}");
            assert_eq!(topic.take(&mut cursor), Next::Wait { next: 11 });
        }
    }

    #[test]
    fn who_falls_out_of_the_log_is_told() {
        let topic = Topic::new(Retention::Log);
        topic.publish(message(1));
        let mut cursor = topic.cursor(Some(0));
        (2..=1 + LOG_MESSAGES as u64).for_each(|n| assert!(topic.publish(message(n))));
        assert_eq!(topic.take(&mut cursor), Next::Lost);
        let mut cursor = topic.cursor(Some(2));
        assert_eq!(numbers(topic.take(&mut cursor))[0], 2);
    }

    #[test]
    fn of_states_only_the_last_counts() {
        let topic = Topic::new(Retention::State);
        let mut cursor = topic.cursor(None);
        assert_eq!(topic.take(&mut cursor), Next::Wait { next: 0 });
        for sequence in [7, 8, 3] {
            assert!(topic.publish(message(sequence)));
        }
        assert_eq!(numbers(topic.take(&mut cursor)), [3]);
        assert_eq!(numbers(topic.take(&mut topic.cursor(Some(99)))), [3]);
        topic.retire();
        assert_eq!(topic.take(&mut cursor), Next::Retired);
    }
}
