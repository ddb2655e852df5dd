//! How regularly packets arrive: the offset between arrival and timestamp, its least and its usual worst.

/// Packets remembered: ten seconds of 20 ms packets.
const MEMORY: usize = 512;
/// How often the figures are worked out anew once the memory has filled a little.
const EVERY: u32 = 8;

/// Offsets `arrival − timestamp` of the latest packets, in samples. The network's delay is in them, an unknown
/// constant, and the drift between the clocks; only differences between them mean anything.
pub(super) struct Arrivals {
    /// One in so many may be later than [`Self::high`]; 0: none.
    tolerated: usize,
    offsets: Vec<i64>,
    oldest: usize,
    noted: u32,
    sorted: Vec<i64>,
    low: i64,
    high: i64,
}

impl Arrivals {
    pub(super) fn new(tolerated: usize) -> Self {
        let (offsets, sorted) = (Vec::with_capacity(MEMORY), Vec::with_capacity(MEMORY));
        Self { tolerated, offsets, oldest: 0, noted: 0, sorted, low: 0, high: 0 }
    }

    pub(super) fn reset(&mut self) {
        self.offsets.clear();
        self.oldest = 0;
        self.noted = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Packets that the figures rest on.
    pub(super) fn len(&self) -> usize {
        self.offsets.len()
    }

    pub(super) fn note(&mut self, offset: i64) {
        if self.offsets.len() < MEMORY {
            self.offsets.push(offset);
        } else {
            self.offsets[self.oldest] = offset;
            self.oldest = (self.oldest + 1) % MEMORY;
        }
        self.noted = self.noted.wrapping_add(1);
        if self.offsets.len() < 64 || self.noted.is_multiple_of(EVERY) {
            self.work_out();
        } else {
            self.low = self.low.min(offset);
        }
    }

    fn work_out(&mut self) {
        self.sorted.clear();
        self.sorted.extend_from_slice(&self.offsets);
        let outliers = self.sorted.len().checked_div(self.tolerated).unwrap_or(0);
        let rank = self.sorted.len() - 1 - outliers;
        let (_, high, _) = self.sorted.select_nth_unstable(rank);
        self.high = *high;
        self.low = self.offsets.iter().copied().min().unwrap_or(0);
    }

    /// Of the fastest packet remembered.
    pub(super) fn low(&self) -> i64 {
        self.low
    }

    /// That all but the tolerated outliers stay below.
    pub(super) fn high(&self) -> i64 {
        self.high
    }
}
