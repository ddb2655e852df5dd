//! Turns at what costs processor time, for those of cheap sites first.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use admission::doorstep::Lanes;
use tokio::sync::oneshot;

/// Who wants a turn, and how many may have one at once.
#[derive(Debug)]
pub(super) struct Turns {
    state: Mutex<State>,
    waiting_max: usize,
}

#[derive(Debug)]
struct State {
    free: usize,
    waiting: Lanes<oneshot::Sender<Turn>>,
}

/// A turn; dropping it gives it to the next.
#[derive(Debug)]
pub(super) struct Turn {
    /// `None` once it has been passed on.
    turns: Option<Arc<Turns>>,
}

impl Turns {
    /// `at_once` have one at the same time, `waiting_max` wait for one, those who gave up meanwhile included.
    pub(super) fn new(at_once: usize, waiting_max: usize) -> Arc<Self> {
        let state = State { free: at_once, waiting: Lanes::default() };
        Arc::new(Self { state: Mutex::new(state), waiting_max })
    }

    /// Waits for a turn. `None` if too many wait.
    pub(super) async fn turn(self: &Arc<Self>, lane: u8) -> Option<Turn> {
        let mine = {
            let mut state = self.lock();
            if state.free > 0 {
                state.free -= 1;
                return Some(Turn { turns: Some(self.clone()) });
            }
            if state.waiting.len() >= self.waiting_max {
                return None;
            }
            let (give, mine) = oneshot::channel();
            state.waiting.push(lane, give);
            mine
        };
        mine.await.ok()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic happens under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(turns) = self.turns.take() else { return };
        loop {
            let next = {
                let mut state = turns.lock();
                let next = state.waiting.pop();
                if next.is_none() {
                    state.free += 1;
                }
                next
            };
            let Some(next) = next else { return };
            match next.send(Turn { turns: Some(turns.clone()) }) {
                Ok(()) => return,
                // It has given up. The turn it was to have must not look for another one too.
                Err(mut unwanted) => unwanted.turns = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn turns_go_by_lane_and_are_never_lost() {
        let turns = Turns::new(1, 4);
        let first = turns.turn(0).now_or_never().unwrap().unwrap();
        let mut waiting: Vec<_> = [7, 7, 0, 3].map(|lane| Box::pin(turns.turn(lane))).into();
        for wait in &mut waiting {
            assert!(wait.now_or_never().is_none());
        }
        assert!(turns.turn(0).now_or_never().unwrap().is_none(), "four wait");
        // One of those of the last lane gives up.
        drop(waiting.remove(0));
        drop(first);
        let mut order = Vec::new();
        while let Some(at) = waiting.iter_mut().position(|wait| {
            let turn = wait.now_or_never();
            turn.is_some()
        }) {
            // The turn was dropped at once, and went to the next.
            order.push(at);
            drop(waiting.remove(at));
        }
        assert_eq!((order, waiting.len()), (vec![1, 1, 0], 0));
        assert_eq!(turns.lock().free, 1);
        assert!(turns.turn(7).now_or_never().unwrap().is_some());
    }
}
