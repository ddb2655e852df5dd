//! The listeners of one event.

use std::sync::Arc;
use std::time::Duration;

use admission::ladder::Measures;
use fanout::{Rota, Tier, Window};
use model::{PartNumber, Rendition};

use crate::channel::Live;

/// Without a part for this long, notices are given out by themselves: the programme has stalled.
const STALLED: Duration = Duration::from_millis(1_200);

/// A window with those who listen to it.
#[derive(Debug)]
pub(crate) struct Hall {
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
    /// What is in force for those who sit in it.
    measures: Measures,
}

impl Hall {
    /// An empty one.
    pub(crate) fn new(live: Arc<Live>, measures: Measures, now: Duration) -> Self {
        let revision = live.revision();
        let mut hall = Self {
            live,
            rota: Rota::new(),
            cut_told: 0,
            revision,
            newest: None,
            settled: false,
            ended: false,
            part_at: now,
            measures,
        };
        hall.take_in(now);
        hall
    }

    /// Looks what is new in the window, and begins a round for those whom it concerns. Returns whether some are to be
    /// moved to another rendition or tier.
    pub(crate) fn look(&mut self, measures: Measures, now: Duration) -> bool {
        let moves = moves(&self.measures) != moves(&measures);
        self.measures = measures;
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

    /// Whether there are measures for newcomers alone.
    pub(crate) fn is_hard_on_newcomers(&self) -> bool {
        self.measures.newcomers_cap.is_some() || self.measures.newcomers_tier > admission::ticket::Tier::ONE
    }

    /// What somebody gets at present.
    pub(crate) fn terms(&self, asked: Asked) -> (Rendition, Tier) {
        let Measures { newcomers_cap, everyones_cap, newcomers_tier, everyones_tier, .. } = self.measures;
        let (cap, slowest) = if asked.newcomer {
            (everyones_cap.or(newcomers_cap), newcomers_tier.max(everyones_tier))
        } else {
            (everyones_cap, everyones_tier)
        };
        let rendition = match cap {
            Some(cap) if asked.rendition.is_cmaf() => asked.rendition.min(cap),
            _ => asked.rendition,
        };
        let slowest = Tier::new(slowest.parts()).unwrap_or(Tier::ONE);
        (rendition, asked.tier.max(slowest))
    }
}

/// What somebody asked for, whatever they have been moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) rendition: Rendition,
    pub(crate) tier: Tier,
    /// Whether they came while there were measures for newcomers.
    pub(crate) newcomer: bool,
}

/// What of the measures decides who has what.
fn moves(measures: &Measures) -> impl PartialEq + use<> {
    let Measures { newcomers_cap, everyones_cap, newcomers_tier, everyones_tier, .. } = *measures;
    (newcomers_cap, everyones_cap, newcomers_tier, everyones_tier)
}
