//! How it went, in at most so many points.

use serde::Serialize;

use super::Moment;
use crate::ledger::{BIN_MS, Bin};

/// Most points of a series.
pub const POINTS_MAX: usize = 720;
/// Widths of a point, in bins, each a multiple of the one before: 10 s, 20 s, 1 min, 2 min, 10 min, 30 min, 1 h, 6 h,
/// 1 day. Beyond that they double.
const WIDTHS: [u64; 9] = [1, 2, 6, 12, 60, 180, 360, 2_160, 8_640];

/// Points of equal width, in order of time. Where nobody counted there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Series {
    /// Width of a point, seconds; points begin at multiples of it of UNIX time.
    pub step_s: u64,
    /// The points, at most [`POINTS_MAX`].
    pub points: Vec<Point>,
}

/// One point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Point {
    /// Its beginning.
    pub at: Moment,
    /// Bins in it: fewer than it has room for at the ends and where nobody counted.
    pub bins: u64,
    /// Arrivals in it.
    pub arrivals: u64,
    /// Tickets given in it.
    pub admitted: u64,
    /// Requests turned away in it.
    pub refused: u64,
    /// Most people waiting at the end of a bin.
    pub waiting: u64,
    /// Most people listening at the end of a bin.
    pub listening: u64,
    /// The ladder's highest level.
    pub level: u64,
    /// Whole requests in it.
    pub requests: u64,
    /// Answers 5xx in it.
    pub server_errors: u64,
    /// Fewest listeners that the processes alive could carry.
    pub capacity: u64,
}

impl Point {
    pub(super) fn of(bin: &Bin) -> Self {
        let counts = bin.counts();
        Self {
            at: Moment::from_millis(bin.start().as_millis()),
            bins: 1,
            arrivals: counts.admission.arrivals,
            admitted: counts.tickets.given,
            refused: refused(bin),
            waiting: counts.admission.waiting,
            listening: counts.audio.listeners,
            level: counts.own.level,
            requests: counts.door.requests,
            server_errors: counts.door.server_errors,
            capacity: counts.own.capacity,
        }
    }

    fn absorb(&mut self, later: &Self) {
        self.bins = self.bins.saturating_add(later.bins);
        self.arrivals = self.arrivals.saturating_add(later.arrivals);
        self.admitted = self.admitted.saturating_add(later.admitted);
        self.refused = self.refused.saturating_add(later.refused);
        self.requests = self.requests.saturating_add(later.requests);
        self.server_errors = self.server_errors.saturating_add(later.server_errors);
        self.waiting = self.waiting.max(later.waiting);
        self.listening = self.listening.max(later.listening);
        self.level = self.level.max(later.level);
        self.capacity = self.capacity.min(later.capacity);
    }
}

/// Requests turned away in a bin, for whatever reason.
pub(super) fn refused(bin: &Bin) -> u64 {
    let refused = &bin.counts().refused;
    [refused.full, refused.prefix, refused.forged, refused.expired, refused.excess]
        .into_iter()
        .fold(0, u64::saturating_add)
}

impl Default for Series {
    fn default() -> Self {
        Self { step_s: BIN_MS / 1_000, points: Vec::new() }
    }
}

impl Series {
    /// Adds a bin, which must be later than those before.
    pub(super) fn push(&mut self, bin: &Bin) {
        self.add(Point::of(bin));
        while self.points.len() > POINTS_MAX {
            self.widen();
        }
    }

    /// The same in at most `most` points, which are as narrow as that allows.
    ///
    /// `most` is at least 1.
    #[must_use]
    pub fn at_most(&self, most: usize) -> Self {
        let mut series = self.clone();
        while series.points.len() > most.max(1) {
            series.widen();
        }
        series
    }

    fn add(&mut self, point: Point) {
        let width_ms = self.step_s.saturating_mul(1_000);
        let at = point.at.as_millis();
        let at = Moment::from_millis(at - at % width_ms);
        match self.points.last_mut() {
            Some(last) if last.at == at => last.absorb(&point),
            _ => self.points.push(Point { at, ..point }),
        }
    }

    fn widen(&mut self) {
        let bins = self.step_s * 1_000 / BIN_MS;
        let wider = WIDTHS.into_iter().find(|width| *width > bins).unwrap_or(bins * 2);
        let points = std::mem::take(&mut self.points);
        // Times are below 2^53 ms, so a width is reached before any of this overflows.
        self.step_s = wider * BIN_MS / 1_000;
        points.into_iter().for_each(|point| self.add(point));
    }
}
