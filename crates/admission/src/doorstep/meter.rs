//! What sites have cost of late.

use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::{LANES, Prefix};

/// Independent counters of one site.
const ROWS: usize = 4;
/// Counters in a row; a power of two.
const COLUMNS: usize = 8_192;

/// What each site and each home has cost within the last two windows of time: a count-min sketch (Cormode and
/// Muthukrishnan, 2005) of 256 KiB, whoever comes.
///
/// It never says less than what was counted within the present window. It says more for who shares all four counters
/// with others: with a hundred sites that flood that happens to one in a million, with a thousand to one in five hundred.
/// Nobody can look for such neighbours without the key, and all they cost is a later turn.
pub struct Meter {
    keyed: Hmac<Sha256>,
    window: Duration,
    homes: u32,
    /// Which window `now` is.
    epoch: u64,
    now: Counters,
    before: Counters,
}

struct Counters {
    cells: Box<[u32]>,
    total: u64,
}

impl Counters {
    fn new() -> Self {
        Self { cells: vec![0; ROWS * COLUMNS].into(), total: 0 }
    }

    fn clear(&mut self) {
        self.cells.fill(0);
        self.total = 0;
    }
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter")
            .field("window", &self.window)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl Meter {
    /// An empty one. The key is to be random and nobody else's; `window` is the time after which cost begins to be
    /// forgotten, at least a millisecond; `homes` is how many homes of a site together count as much as one alone, at least
    /// 1: more is milder to those whose neighbours are expensive.
    pub fn new(key: &[u8; 32], window: Duration, homes: u32) -> Self {
        Self {
            keyed: Hmac::new_from_slice(key).expect("HMAC takes keys of any length"),
            window: window.max(Duration::from_millis(1)),
            homes: homes.max(1),
            epoch: 0,
            now: Counters::new(),
            before: Counters::new(),
        }
    }

    /// Counts `cost` against where it comes from. Returns what that has cost of late, this included: its home, or its
    /// site's part if that is more.
    pub fn add(&mut self, prefix: Prefix, cost: u32, now: Duration) -> u32 {
        self.turn(now);
        self.now.total = self.now.total.saturating_add(cost.into());
        let (home, site) = self.cells(prefix);
        for &cell in site.iter().chain(home.iter().flatten()) {
            let count = &mut self.now.cells[cell];
            *count = count.saturating_add(cost);
        }
        self.weigh(home, site, now)
    }

    /// What [`Self::add`] would say of it, without counting.
    pub fn cost(&mut self, prefix: Prefix, now: Duration) -> u32 {
        self.turn(now);
        let (home, site) = self.cells(prefix);
        self.weigh(home, site, now)
    }

    /// What all together have cost of late.
    pub fn total(&mut self, now: Duration) -> u64 {
        self.turn(now);
        let left = self.left(now);
        self.now.total + (self.before.total as f64 * left) as u64
    }

    /// The lane of [`super::Lanes`] for what has cost so much of late: one for each doubling.
    pub fn lane(cost: u32) -> u8 {
        let doublings = cost.max(1).ilog2() as u8;
        doublings.min(LANES as u8 - 1)
    }

    /// What a connection weighs in [`super::Places`] whose site has a debt of so much: twice as much for each doubling, up
    /// to 128.
    pub fn weight(debt: u32) -> u32 {
        1 << Self::lane(debt)
    }

    /// Begins the window that `now` is in.
    fn turn(&mut self, now: Duration) {
        let epoch = (now.as_micros() / self.window.as_micros()) as u64;
        if epoch <= self.epoch {
            return;
        }
        std::mem::swap(&mut self.now, &mut self.before);
        if epoch > self.epoch + 1 {
            self.before.clear();
        }
        self.now.clear();
        self.epoch = epoch;
    }

    /// How much of the window before is still within one window of time.
    fn left(&self, now: Duration) -> f64 {
        let window = self.window.as_micros();
        1.0 - (now.as_micros() % window) as f64 / window as f64
    }

    fn weigh(&self, home: Option<[usize; ROWS]>, site: [usize; ROWS], now: Duration) -> u32 {
        let left = self.left(now);
        let least = |cells: [usize; ROWS]| {
            let of = |cell: usize| {
                let before = (f64::from(self.before.cells[cell]) * left) as u32;
                self.now.cells[cell].saturating_add(before)
            };
            cells.into_iter().map(of).min().unwrap_or(0)
        };
        home.map_or(0, least).max(least(site) / self.homes)
    }

    /// The counters of a home, and of its site. Where a site counts in full its homes have none: they count no more.
    fn cells(&self, prefix: Prefix) -> (Option<[usize; ROWS]>, [usize; ROWS]) {
        let home = (self.homes > 1).then(|| self.cells_of(0, prefix.0));
        (home, self.cells_of(1, prefix.site().0))
    }

    fn cells_of(&self, kind: u8, number: u64) -> [usize; ROWS] {
        let mut keyed = self.keyed.clone();
        keyed.update(&[kind]);
        keyed.update(&number.to_be_bytes());
        let hash: [u8; 32] = keyed.finalize().into_bytes().into();
        let mut rows = 0..;
        [0, 8, 16, 24].map(|at| {
            let row: usize = rows.next().unwrap_or(0);
            row * COLUMNS + usize::from(u16::from_be_bytes([hash[at], hash[at + 1]])) % COLUMNS
        })
    }
}
