//! A listener: where it is in the window, and what it is to be sent next.

use bytes::Bytes;
use formats::{mp4, ogg};
use model::{PartNumber, Rendition};

use crate::window::{OGG_SERIAL, page_sequence};
use crate::{ENDLESS_BURST, FUTURE_PARTS, Window};

/// Parts between two flushes: 1, 2, 4 or 8. A slower tier gets the same bytes in fewer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tier(u8);

impl Tier {
    /// Every part.
    pub const ONE: Self = Self(1);
    /// Every second part: 0.96 s.
    pub const TWO: Self = Self(2);
    /// Every fourth part: 1.92 s.
    pub const FOUR: Self = Self(4);
    /// Every eighth part: 3.84 s.
    pub const EIGHT: Self = Self(8);

    /// The tier that flushes every `parts` parts, if there is one.
    pub const fn new(parts: u8) -> Option<Self> {
        match parts {
            1 | 2 | 4 | 8 => Some(Self(parts)),
            _ => None,
        }
    }

    /// Parts between two flushes.
    pub const fn parts(self) -> u64 {
        self.0 as u64
    }
}

/// The parts with which a listener's flushes end: each part, or every second, fourth or eighth, beginning somewhere.
/// Listeners of one tier have different phases, so that about as many are written to after each part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cadence {
    tier: Tier,
    phase: u8,
}

impl Cadence {
    /// Flushes when the number of the next part, divided by the tier, leaves `phase` (modulo the tier).
    pub const fn new(tier: Tier, phase: u64) -> Self {
        Self { tier, phase: (phase % tier.parts()) as u8 }
    }

    /// Its tier.
    pub const fn tier(self) -> Tier {
        self.tier
    }

    /// Whether a flush is due when `end` is the first part that is not there yet.
    pub const fn is_due(self, end: PartNumber) -> bool {
        end.get() % self.tier.parts() == self.phase as u64
    }
}

/// What parts are wrapped in for a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Container {
    /// The pushed stream: `init`, then parts with notices between them.
    Mp4,
    /// Endless Ogg/Opus: two header pages, then one page a part.
    Ogg,
    /// Endless MP3: frames.
    Mp3,
}

impl Container {
    /// Whether it can carry this rendition.
    pub const fn carries(self, rendition: Rendition) -> bool {
        match self {
            Self::Mp4 | Self::Ogg => rendition.is_cmaf(),
            Self::Mp3 => !rendition.is_cmaf(),
        }
    }

    /// Parts in the first burst, if the window has them: one flush and one part more, or Media Source players stall;
    /// what plain players need where they are what it is for.
    const fn burst(self, tier: Tier) -> u64 {
        let least = tier.parts() + 1;
        match self {
            Self::Mp4 => least,
            Self::Ogg | Self::Mp3 => {
                if least > ENDLESS_BURST {
                    least
                } else {
                    ENDLESS_BURST
                }
            }
        }
    }
}

/// Where a listener begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the present, with the first burst that a player needs.
    Live,
    /// With this part or, if the window has it no longer, with the oldest there is.
    From(PartNumber),
}

impl Start {
    /// Whether a listener may begin so, as far as the window knows by now.
    ///
    /// # Errors
    /// [`FutureStart`] if it is further than [`FUTURE_PARTS`] beyond the next part.
    pub fn check(self, window: &Window) -> Result<(), FutureStart> {
        match (self, window.newest()) {
            (Self::From(asked), Some(newest)) if window.is_settled() && is_future(asked, newest) => {
                Err(FutureStart { asked, newest })
            }
            _ => Ok(()),
        }
    }
}

/// A start that lies further in the future than anyone could have heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("part {asked} does not exist yet; the newest is {newest}")]
pub struct FutureStart {
    /// What was asked.
    pub asked: PartNumber,
    /// What there is.
    pub newest: PartNumber,
}

/// A rendition that a response cannot go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a response with {from} cannot go on with {to}")]
pub struct SwitchError {
    /// What it carries.
    pub from: Rendition,
    /// What was asked.
    pub to: Rendition,
}

/// Parts a listener did not get. Counts end at what fits: listeners are many, and this is in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skips {
    /// Gone from the window before it came to them: it was too slow, or asked for what is too old.
    pub behind: u32,
    /// Never arrived at this edge.
    pub missing: u32,
}

/// Something to write, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output<'w> {
    /// The container's beginning: first of all, once.
    Head(Bytes),
    /// What listeners are told (pushed stream only).
    Notice(&'w Bytes),
    /// A part.
    Part {
        /// Which.
        number: PartNumber,
        /// In the cursor's container.
        bytes: &'w Bytes,
    },
    /// The container's end: last of all, once, if it has one.
    Tail(Bytes),
}

/// What a listener's shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'w> {
    /// Write this and ask again when there is room for more.
    Send(Output<'w>),
    /// Nothing now: ask again when the window has changed.
    Wait,
    /// The response is complete.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing was sent.
    Head(Start),
    /// The window has nothing yet to begin with.
    Waiting(Start),
    /// `next` is the next part to send. Parts before `flush_end` go out as they can, those from it on wait until a
    /// flush is due by the cadence, or full because its moment was missed.
    Running { next: PartNumber, flush_end: PartNumber },
    /// The last part is out, and `next` would have been the next one.
    Last { next: PartNumber },
    /// Everything is.
    Done,
}

/// A listener's place in the window. It outlives no part, holds no bytes and is never inside a part.
#[derive(Clone, Debug)]
pub struct Cursor {
    rendition: Rendition,
    container: Container,
    cadence: Cadence,
    phase: Phase,
    /// Sequence of the last notice sent, 0 if none was.
    noticed: u64,
    skips: Skips,
}

impl Cursor {
    /// A listener who begins at `start`. The first part it gets is fixed when the window has settled, by the first
    /// [`Self::poll`] after.
    ///
    /// # Errors
    /// As [`Start::check`].
    ///
    /// # Panics
    /// If the container cannot carry the rendition ([`Container::carries`]).
    pub fn open(
        window: &Window,
        rendition: Rendition,
        container: Container,
        cadence: Cadence,
        start: Start,
    ) -> Result<Self, FutureStart> {
        assert!(container.carries(rendition), "the caller pairs renditions with containers that carry them");
        start.check(window)?;
        let phase = Phase::Head(start);
        Ok(Self { rendition, container, cadence, phase, noticed: 0, skips: Skips::default() })
    }

    /// The rendition of the next part.
    pub fn rendition(&self) -> Rendition {
        self.rendition
    }

    /// What it is wrapped in.
    pub fn container(&self) -> Container {
        self.container
    }

    /// Its tier.
    pub fn tier(&self) -> Tier {
        self.cadence.tier
    }

    /// The next part it is to get, once that is fixed.
    pub fn next(&self) -> Option<PartNumber> {
        match self.phase {
            Phase::Running { next, .. } | Phase::Last { next } => Some(next),
            Phase::Head(_) | Phase::Waiting(_) | Phase::Done => None,
        }
    }

    /// What it did not get so far.
    pub fn skips(&self) -> Skips {
        self.skips
    }

    /// Goes on with another rendition from the next part on, inside the same response: both Opus renditions have one
    /// `init`.
    ///
    /// # Errors
    /// [`SwitchError`] if the container cannot carry it.
    pub fn switch(&mut self, to: Rendition) -> Result<(), SwitchError> {
        if !self.container.carries(to) {
            return Err(SwitchError { from: self.rendition, to });
        }
        self.rendition = to;
        Ok(())
    }

    /// Goes on with another cadence from the next flush on.
    pub fn set_cadence(&mut self, cadence: Cadence) {
        self.cadence = cadence;
    }

    /// The next thing to write. What it returned counts as written.
    pub fn poll<'w>(&mut self, window: &'w Window) -> Step<'w> {
        loop {
            match self.phase {
                Phase::Head(start) => {
                    self.phase = Phase::Waiting(start);
                    if let Some(head) = self.head() {
                        return Step::Send(Output::Head(head));
                    }
                }
                Phase::Waiting(start) => {
                    if !window.has_ended()
                        && let Some(notice) = self.notice(window, 1)
                    {
                        return Step::Send(Output::Notice(notice));
                    }
                    match self.place(window, start) {
                        Some(running) => self.phase = running,
                        None if window.has_ended() => self.phase = Phase::Last { next: PartNumber::ZERO },
                        None => return Step::Wait,
                    }
                }
                Phase::Running { next, flush_end } => {
                    let Some((number, bytes)) = self.next_part(window, next) else {
                        if window.has_ended() {
                            self.phase = Phase::Last { next };
                            continue;
                        }
                        return self.idle(window);
                    };
                    if number >= flush_end {
                        let end = window.newest().map_or(number, PartNumber::next);
                        let full = end.get().saturating_sub(next.get()) >= self.cadence.tier.parts();
                        if !(full || self.cadence.is_due(end) || window.has_ended()) {
                            return self.idle(window);
                        }
                        self.phase = Phase::Running { next, flush_end: end };
                        if !window.has_ended()
                            && let Some(notice) = self.notice(window, 1)
                        {
                            return Step::Send(Output::Notice(notice));
                        }
                        continue;
                    }
                    self.count_skips(window, next, number);
                    self.phase = Phase::Running { next: number.next(), flush_end };
                    return Step::Send(Output::Part { number, bytes });
                }
                Phase::Last { next } => {
                    if let Some(notice) = self.notice(window, 1) {
                        return Step::Send(Output::Notice(notice));
                    }
                    self.phase = Phase::Done;
                    if self.container == Container::Ogg && next > PartNumber::ZERO {
                        return Step::Send(Output::Tail(ogg_tail(next)));
                    }
                }
                Phase::Done => return Step::End,
            }
        }
    }

    fn head(&self) -> Option<Bytes> {
        match self.container {
            Container::Mp4 => Some(mp4::opus_init()),
            Container::Ogg => Some(ogg::opus_headers(OGG_SERIAL, "Minassa", &[])),
            Container::Mp3 => None,
        }
    }

    /// Fixes the first part.
    fn place(&mut self, window: &Window, start: Start) -> Option<Phase> {
        let newest = window.newest().filter(|_| window.is_settled())?;
        let next = match start {
            // It was accepted while nothing could be known; now it turns out to be nonsense.
            Start::From(asked) if is_future(asked, newest) => self.live(newest),
            Start::From(asked) => asked,
            Start::Live => self.live(newest).max(window.oldest().unwrap_or(newest)),
        };
        // The first flush goes out as it is, full or not.
        Some(Phase::Running { next, flush_end: newest.next().max(next) })
    }

    fn live(&self, newest: PartNumber) -> PartNumber {
        newest.next().minus(self.container.burst(self.cadence.tier))
    }

    /// The first part at or after `next` that can be sent.
    fn next_part<'w>(&self, window: &'w Window, next: PartNumber) -> Option<(PartNumber, &'w Bytes)> {
        let mut candidate = next;
        loop {
            let number = window.present_from(candidate)?;
            match window.bytes(number, self.rendition, self.container) {
                Some(bytes) => return Some((number, bytes)),
                None => candidate = number.next(),
            }
        }
    }

    fn count_skips(&mut self, window: &Window, next: PartNumber, number: PartNumber) {
        let gone = window.oldest().unwrap_or(next).min(number).get().saturating_sub(next.get());
        let count = |parts: u64| u32::try_from(parts).unwrap_or(u32::MAX);
        self.skips.behind = self.skips.behind.saturating_add(count(gone));
        self.skips.missing = self.skips.missing.saturating_add(count(number.get() - next.get() - gone));
    }

    /// Between flushes: a notice goes alone only if no flush has carried one for longer than a flush takes, so that
    /// listeners hear of a stalled programme, and slow tiers still cost few writes.
    fn idle<'w>(&mut self, window: &'w Window) -> Step<'w> {
        match self.notice(window, self.cadence.tier.parts() + 1) {
            Some(notice) => Step::Send(Output::Notice(notice)),
            None => Step::Wait,
        }
    }

    /// The current notice, if at least `after` were made since the last one sent.
    fn notice<'w>(&mut self, window: &'w Window, after: u64) -> Option<&'w Bytes> {
        let notice = window.notice().filter(|_| self.container == Container::Mp4)?;
        if notice.sequence < self.noticed.saturating_add(after) {
            return None;
        }
        self.noticed = notice.sequence;
        Some(&notice.bytes)
    }
}

fn is_future(asked: PartNumber, newest: PartNumber) -> bool {
    asked > newest.next().plus(FUTURE_PARTS)
}

/// An empty page that ends the logical stream (RFC 3533 section 4).
fn ogg_tail(next: PartNumber) -> Bytes {
    ogg::page_for_part::<&[u8]>(OGG_SERIAL, page_sequence(next), next.start().samples(), &[], true)
}
