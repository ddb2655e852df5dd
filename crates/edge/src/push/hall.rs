//! The listeners of one event.

use std::sync::Arc;
use std::time::Duration;

use fanout::{Rota, Window};
use model::{PartNumber, Rendition};

use crate::channel::{Channel, Live};

/// Without a part for this long, notices are given out by themselves: the programme has stalled.
const STALLED: Duration = Duration::from_millis(1_200);
/// Ladder level from which everybody has the small rendition (DESIGN section 5).
const SMALL_FROM_LEVEL: u8 = 3;

/// A window with those who listen to it.
#[derive(Debug)]
pub(crate) struct Hall {
    pub(crate) channel: Arc<Channel>,
    pub(crate) live: Arc<Live>,
    pub(crate) rota: Rota,
    /// Rounds given up that were counted.
    pub(crate) cut_told: u64,
    /// What of the window was seen last.
    revision: u64,
    newest: Option<PartNumber>,
    settled: bool,
    ended: bool,
    /// When the newest part was seen, on the loop's clock.
    part_at: Duration,
    /// Whether everybody who can have it has the small rendition.
    pub(crate) small: bool,
}

impl Hall {
    /// An empty one.
    pub(crate) fn new(channel: Arc<Channel>, live: Arc<Live>, now: Duration) -> Self {
        let small = channel.level() >= SMALL_FROM_LEVEL;
        let revision = live.revision();
        let mut hall = Self {
            channel,
            live,
            rota: Rota::new(),
            cut_told: 0,
            revision,
            newest: None,
            settled: false,
            ended: false,
            part_at: now,
            small,
        };
        hall.take_in(now);
        hall
    }

    /// Looks what is new in the window, and begins a round for those whom it concerns. Returns whether everybody is to
    /// be moved to another rendition.
    pub(crate) fn look(&mut self, now: Duration) -> bool {
        let small = self.channel.level() >= SMALL_FROM_LEVEL;
        let moves = std::mem::replace(&mut self.small, small) != small;
        let revision = self.live.revision();
        if std::mem::replace(&mut self.revision, revision) != revision {
            self.take_in(now);
        }
        moves
    }

    fn take_in(&mut self, now: Duration) {
        let (newest, settled, ended) = {
            let window: &Window = &self.live.window();
            (window.newest(), window.is_settled(), window.has_ended())
        };
        let turned = settled != self.settled || ended != self.ended;
        (self.settled, self.ended) = (settled, ended);
        let before = std::mem::replace(&mut self.newest, newest);
        let is_next = newest.is_some() && newest == before.map(PartNumber::next);
        if newest != before {
            self.part_at = now;
        }
        match newest {
            Some(newest) if is_next && !turned => self.rota.begin(newest.next(), now),
            _ if turned || newest != before => self.rota.begin_all(now),
            // Only a notice is new. It rides on the next part, if there is one.
            _ if now.saturating_sub(self.part_at) > STALLED => self.rota.begin_all(now),
            _ => {}
        }
    }

    /// What somebody who asked for `wanted` gets at present.
    pub(crate) fn rendition_for(&self, wanted: Rendition) -> Rendition {
        if self.small && wanted.is_cmaf() { Rendition::Opus24 } else { wanted }
    }
}
