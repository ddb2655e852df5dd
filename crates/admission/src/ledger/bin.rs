//! What is counted in ten seconds.

use model::UnixTime;
use serde::{Deserialize, Serialize};

use super::anonymous::{Fingerprints, Prefixes};

/// Length of a bin, milliseconds. Bins begin at multiples of it of UNIX time.
pub const BIN_MS: u64 = 10_000;
/// Most marks kept in a bin.
pub(super) const MARKS_MAX: usize = 64;

/// When a bin begins: a multiple of [`BIN_MS`], milliseconds of UNIX time, by the event's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct BinStart(u64);

/// A time at which no bin begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no bin begins at {0} ms")]
pub struct NotAligned(pub u64);

impl BinStart {
    /// Of the bin that `time` falls into; times before 1970 fall into the first.
    pub fn containing(time: UnixTime) -> Self {
        let millis = u64::try_from(time.as_millis()).unwrap_or(0);
        Self(millis - millis % BIN_MS)
    }

    /// Milliseconds of UNIX time.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Of the bin after.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(BIN_MS))
    }

    /// Of the bin before; the first has none.
    #[must_use]
    pub const fn before(self) -> Self {
        Self(self.0.saturating_sub(BIN_MS))
    }

    /// How many bins later than `earlier` this one begins; nothing if it is earlier.
    pub fn bins_since(self, earlier: Self) -> Option<u64> {
        self.0.checked_sub(earlier.0).map(|millis| millis / BIN_MS)
    }
}

impl TryFrom<u64> for BinStart {
    type Error = NotAligned;

    fn try_from(millis: u64) -> Result<Self, NotAligned> {
        // Times that 53 bits hold, so that every reader of JSON reads them.
        let fits = millis.is_multiple_of(BIN_MS) && millis < 1 << 53;
        if fits { Ok(Self(millis)) } else { Err(NotAligned(millis)) }
    }
}

impl From<BinStart> for u64 {
    fn from(start: BinStart) -> Self {
        start.0
    }
}

/// Counters, each a 64-bit number without sign. `sum`: what processes counted is added. `max`: the worst of them stands.
macro_rules! counters {
    (@sum $a:expr, $b:expr) => { $a.saturating_add($b) };
    (@max $a:expr, $b:expr) => { $a.max($b) };
    (@group $a:expr, $b:expr) => {{ let mut both = $a; both.absorb(&$b); both }};
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty = $how:ident,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name { $($(#[$doc])* pub $field: $type,)* }

        impl $name {
            /// Adds what another process counted.
            pub(super) fn absorb(&mut self, other: &Self) {
                $(self.$field = counters!(@$how self.$field, other.$field);)*
            }
        }
    };
}

counters! {
    /// At the doors. Gauges are taken at the end of the bin.
    pub struct Door {
        /// TCP connections accepted.
        connections: u64 = sum,
        /// TLS handshakes begun. Edges count them when they have ended, finished or not.
        handshakes_started: u64 = sum,
        /// TLS handshakes finished.
        handshakes_finished: u64 = sum,
        /// TLS handshakes that *we* gave up, for want of budget.
        handshakes_shed: u64 = sum,
        /// Gauge: connections accepted whose TLS handshake is not finished (without TLS: that sent no byte).
        half_open: u64 = sum,
        /// Gauge: connections that sent a part of a request's head or body and not the whole.
        pending: u64 = sum,
        /// Connections closed that never sent a byte of a request, though the handshake was finished.
        silent: u64 = sum,
        /// Connections closed because a request's head or body took too long.
        timed_out: u64 = sum,
        /// Connections closed for abuse of the protocol: floods of resets, CONTINUATION, PING, SETTINGS.
        abuse: u64 = sum,
        /// Whole requests.
        requests: u64 = sum,
        /// Answers 4xx other than 401 with a challenge and 429.
        client_errors: u64 = sum,
        /// Answers 5xx other than refusals with a place or a time to come back.
        server_errors: u64 = sum,
    }
}

counters! {
    /// Refused, by why.
    pub struct Refused {
        /// No place: waiting room, frozen admission or a listeners' cap; with a place or a time to come back.
        full: u64 = sum,
        /// Too many from one prefix for now.
        prefix: u64 = sum,
        /// A ticket or token that is none of ours.
        forged: u64 = sum,
        /// A ticket or token of ours past its time.
        expired: u64 = sum,
        /// More sessions than the ticket is good for.
        excess: u64 = sum,
    }
}

counters! {
    /// Tickets.
    pub struct Tickets {
        /// Asked for.
        asked: u64 = sum,
        /// Given, renewals not counted.
        given: u64 = sum,
        /// Used for the first time: a session was opened with it.
        used: u64 = sum,
    }
}

counters! {
    /// Who came, who waits, and what they were asked.
    pub struct Admission {
        /// Arrivals: first requests for a ticket, and first requests of audio by players without one.
        arrivals: u64 = sum,
        /// Gauge: places given in the waiting room whose turn has not come.
        waiting: u64 = sum,
        /// Places whose turn came.
        called: u64 = sum,
        /// Places that were taken up when their turn had come.
        taken: u64 = sum,
        /// Challenges given.
        challenged: u64 = sum,
        /// Challenges passed.
        passed: u64 = sum,
        /// Requests by those who were challenged, did not answer, and asked again.
        ignored: u64 = sum,
    }
}

counters! {
    /// Audio, from the first request to the last acknowledged byte. Gauges are taken at the end of the bin.
    pub struct Audio {
        /// Playlists asked for.
        playlists: u64 = sum,
        /// Parts and segments that the files door served whole.
        files: u64 = sum,
        /// Parts that the push door delivered.
        parts: u64 = sum,
        /// Sessions begun. Edges count them when it is known whether they follow, or when they go.
        opened: u64 = sum,
        /// Sessions that got their third part in order, its last byte acknowledged.
        followed: u64 = sum,
        /// Gauge: sessions open.
        sessions: u64 = sum,
        /// Gauge: sessions that acknowledged less than a quarter of what was due to them in this bin.
        starved: u64 = sum,
        /// Gauge: sessions whose receiver had shut its window for two seconds or more: the network is not to blame.
        shut: u64 = sum,
        /// Gauge: starved sessions of which the platform cannot say that.
        shut_unknown: u64 = sum,
        /// Bytes due to sessions at their media rate.
        bytes_due: u64 = sum,
        /// Bytes acknowledged by clients' TCP.
        bytes_acked: u64 = sum,
        /// Gauge: people with audio delivered in the last 10 s.
        listeners: u64 = sum,
    }
}

counters! {
    /// Ourselves.
    pub struct Own {
        /// Share of its processor time that the busiest process used, 1/10,000.
        cpu_bp: u64 = max,
        /// How late the event loop's turns were at worst, microseconds.
        loop_late_us: u64 = max,
        /// The slowest write to the recording's or the ledger's disk, microseconds.
        disk_write_us: u64 = max,
        /// The ladder's highest level, 0 to 6.
        level: u64 = max,
        /// Listeners that the processes alive can carry.
        capacity: u64 = sum,
        /// Datagrams taken at the stage's port.
        datagrams: u64 = sum,
        /// Datagrams refused there: of no session, malformed, beyond their rate.
        datagrams_refused: u64 = sum,
    }
}

counters! {
    /// Everything a process counts.
    pub struct Counts {
        /// At the doors.
        door: Door = group,
        /// Refused.
        refused: Refused = group,
        /// Tickets.
        tickets: Tickets = group,
        /// Waiting room and challenges.
        admission: Admission = group,
        /// Audio.
        audio: Audio = group,
        /// Ourselves.
        own: Own = group,
    }
}

counters! {
    /// What the kernel of a machine counted in the bin (Linux: `TcpExt` in `/proc/net/netstat`).
    pub struct Kernel {
        /// SYN cookies sent.
        cookies_sent: u64 = sum,
        /// Valid SYN cookies that came back.
        cookies_returned: u64 = sum,
        /// Connections lost because a listening socket's queue was full.
        listen_overflows: u64 = sum,
        /// Connection requests dropped by listening sockets for whatever reason.
        listen_drops: u64 = sum,
    }
}

/// Processes that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Processes {
    /// That should be there.
    pub expected: u64,
    /// Whose counts are in the bin.
    pub reported: u64,
}

/// What was done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// The ladder went up.
    LadderUp,
    /// The ladder went down.
    LadderDown,
    /// An operator pinned the ladder's level.
    LevelPinned,
    /// An operator set the highest number of listeners.
    ListenersCapped,
    /// Newcomers are challenged.
    ChallengeOn,
    /// They no longer are.
    ChallengeOff,
    /// Newcomers of a prefix were weighed down.
    PrefixWeighed,
    /// Connections before their request were closed to stay below the cap.
    ConnectionsCapped,
    /// TLS handshakes were given up to stay within the budget.
    HandshakesShed,
    /// Connections were closed for slowness.
    SlowClosed,
    /// Connections were closed for abuse of the protocol.
    AbuseClosed,
    /// Sessions beyond what their ticket is good for were closed.
    SessionsClosed,
    /// Tickets were revoked.
    TicketsRevoked,
    /// Listeners got a lower bitrate.
    BitrateLowered,
    /// Listeners got a slower tier.
    TierSlowed,
    /// Newcomers were sent to the delayed feed.
    DelayedFeed,
    /// Newcomers were sent to the CDN.
    SentToCdn,
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The processor.
    Processor,
    /// The event loop.
    Loop,
    /// The line.
    Line,
    /// Open files.
    Files,
    /// Memory.
    Memory,
    /// Control was silent.
    Silence,
    /// An operator said so.
    Operator,
    /// A verdict asked for it.
    Evidence,
    /// A fixed limit was reached.
    Limit,
    /// The load went away.
    Relief,
}

/// A mitigation and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mitigation {
    /// What was done.
    pub measure: Measure,
    /// Why.
    pub cause: Cause,
    /// How many times, or to how many; at least one.
    pub count: u64,
}

/// What happened to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// A new version was started.
    Deploy,
    /// A process was started again.
    Restart,
    /// The configuration was changed.
    Configuration,
    /// The wall clock was stepped.
    ClockStep,
    /// Writing to disk was slow.
    DiskSlow,
    /// Recording moved to the second directory.
    DiskSwitched,
    /// An edge was lost.
    EdgeLost,
    /// An edge came back.
    EdgeBack,
    /// The show went live.
    Live,
    /// The show was put on hold.
    Hold,
    /// The show ended.
    Ended,
}

/// A mark and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marked {
    /// Milliseconds after the bin's beginning, below [`BIN_MS`].
    pub at_ms: u64,
    /// What.
    pub mark: Mark,
}

/// A bin as it is published: of all processes together. Made by [`super::Merger`] only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedBin")]
pub struct Bin {
    pub(super) start_ms: BinStart,
    pub(super) processes: Processes,
    pub(super) counts: Counts,
    pub(super) kernel: Option<Kernel>,
    pub(super) prefixes: Option<Prefixes>,
    pub(super) fingerprints: Option<Fingerprints>,
    pub(super) mitigations: Vec<Mitigation>,
    pub(super) marks: Vec<Marked>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedBin {
    start_ms: BinStart,
    processes: Processes,
    counts: Counts,
    kernel: Option<Kernel>,
    prefixes: Option<Prefixes>,
    fingerprints: Option<Fingerprints>,
    mitigations: Vec<Mitigation>,
    marks: Vec<Marked>,
}

impl Bin {
    /// When it begins.
    pub fn start(&self) -> BinStart {
        self.start_ms
    }

    /// Who counted.
    pub fn processes(&self) -> Processes {
        self.processes
    }

    /// The counters.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The kernels' counters, where every machine has them.
    pub fn kernel(&self) -> Option<&Kernel> {
        self.kernel.as_ref()
    }

    /// Arrivals by prefix, if there were enough of them.
    pub fn prefixes(&self) -> Option<&Prefixes> {
        self.prefixes.as_ref()
    }

    /// Arrivals by TLS fingerprint, if there were enough of them.
    pub fn fingerprints(&self) -> Option<&Fingerprints> {
        self.fingerprints.as_ref()
    }

    /// What was done, in the order of [`Measure`] and [`Cause`], each pair once.
    pub fn mitigations(&self) -> &[Mitigation] {
        &self.mitigations
    }

    /// What happened to us, in order of time.
    pub fn marks(&self) -> &[Marked] {
        &self.marks
    }
}

impl TryFrom<UncheckedBin> for Bin {
    type Error = &'static str;

    fn try_from(bin: UncheckedBin) -> Result<Self, &'static str> {
        let UncheckedBin { start_ms, processes, counts, kernel, prefixes, fingerprints, mitigations, marks } =
            bin;
        let ordered = |a: &Mitigation, b: &Mitigation| (a.measure, a.cause) < (b.measure, b.cause);
        if !mitigations.is_sorted_by(ordered) || mitigations.iter().any(|mitigation| mitigation.count == 0) {
            Err("mitigations are out of order, named twice, or did nothing")
        } else if marks.len() > MARKS_MAX || !marks.is_sorted() {
            Err("marks are out of order, or too many")
        } else if marks.iter().any(|mark| mark.at_ms >= BIN_MS) {
            Err("a mark lies outside its bin")
        } else if processes.reported > processes.expected {
            Err("more processes reported than there were")
        } else {
            Ok(Self { start_ms, processes, counts, kernel, prefixes, fingerprints, mitigations, marks })
        }
    }
}
