//! One night, second by second: people, machines and our own faults, and what is counted of them.

use ed25519_dalek::SigningKey;
use minassa_admission::ledger::{
    BIN_MS, Bin, BinStart, Cause, Fingerprints, Ja4, Kernel, Mark, Measure, Merger, Opening, PrefixTag,
    ProcessBin,
};

use super::Run;
use super::rng::Rng;

/// Key of all test ledgers.
pub(crate) fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// Bins of a night.
pub(crate) const BINS: u64 = 40;
/// 2026-11-22T19:50:00Z, where nights begin.
const DAWN_MS: u64 = 1_795_377_000_000;

/// How people's networks and habits are.
#[derive(Clone, Debug)]
pub(crate) struct People {
    /// Mean seconds of a handshake.
    pub(crate) handshake_s: f64,
    /// Share of handshakes never finished.
    pub(crate) lost_handshakes: f64,
    /// Share that uses a ticket given.
    pub(crate) uses: f64,
    /// Mean seconds until it is used.
    pub(crate) use_s: f64,
    /// Share of sessions that reach the third part.
    pub(crate) follows: f64,
    /// Mean seconds until then.
    pub(crate) follow_s: f64,
    /// Share of due bytes that is acknowledged.
    pub(crate) acks: f64,
    /// Share of sessions starved, and starved with a shut window.
    pub(crate) starved: f64,
    pub(crate) shut: f64,
    /// Cookies sent and not returned, for each connection, when the kernel sends cookies.
    pub(crate) cookies: f64,
    /// Speculative connections for each real one.
    pub(crate) speculative: f64,
    /// Share that listens over HLS, and playlists asked for by each a second.
    pub(crate) hls: f64,
    pub(crate) playlists: f64,
    /// Mean seconds of listening.
    pub(crate) stay_s: f64,
    /// Share that takes its turn after waiting.
    pub(crate) patience: f64,
    /// Share that passes a challenge, and that asks on without.
    pub(crate) passes: f64,
    pub(crate) ignores: f64,
    /// Zipf's exponent of networks, and how many there are.
    pub(crate) zipf: f64,
    pub(crate) networks: u64,
}

/// A machine's way.
#[derive(Clone, Debug)]
pub(crate) enum Attack {
    /// Asks for tickets; `given` of them are given.
    Tickets { given: f64 },
    /// Asks for playlists; `bad` of them are wrong addresses.
    Playlists { bad: f64 },
    /// Opens sessions and shuts its window; `follows` of them after the third part.
    SlowReaders { follows: f64 },
    /// Sends requests byte by byte until it is closed.
    SlowHeaders,
    /// Floods of HTTP/2 frames.
    Abuse,
    /// Tickets that are none.
    Forgery,
    /// Addresses that are none.
    Junk,
    /// Opens sessions and drops them.
    Churn,
    /// Listens like people.
    Mimics { follows: f64 },
    /// SYNs from addresses that do not answer.
    Syn,
    /// Client hellos; `finished` of the handshakes are finished, `held` stay until the timer.
    Handshakes { finished: f64, held: f64 },
    /// Connections that say nothing.
    HalfOpen,
    /// Datagrams at the stage's port.
    Datagrams,
}

/// An attack: what, when and how much.
#[derive(Clone, Debug)]
pub(crate) struct Wave {
    pub(crate) attack: Attack,
    /// Seconds from dawn.
    pub(crate) from: u64,
    pub(crate) until: u64,
    /// A second.
    pub(crate) rate: f64,
    /// On for so many seconds, off for as many; 0: always on.
    pub(crate) pulse: u64,
    /// Seconds until it has its full strength.
    pub(crate) ramp: u64,
}

/// A fault of our own.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// Capacity falls to this share; a deploy, with a mark or without.
    Capacity { left: f64, mark: Option<Mark> },
    /// An edge is dead: one process of several does not report.
    DeadEdge,
    /// Writes take so many microseconds.
    Disk { micros: u64 },
    /// This share of requests fails.
    Errors { share: f64 },
    /// Something of ours uses the processor: this load, 1/10,000, and so late a loop.
    Spin { cpu_bp: u64, late_us: u64 },
}

/// Everything about a night.
pub(crate) struct Night {
    pub(crate) people: People,
    /// Arrivals a second that are usual.
    pub(crate) usual: f64,
    /// Arrivals a second beyond them, by seconds from dawn.
    pub(crate) surge: Box<dyn Fn(f64) -> f64>,
    /// Listening at dawn.
    pub(crate) audience: u64,
    pub(crate) capacity: u64,
    /// Joins a second beyond which we are slow.
    pub(crate) joins: f64,
    /// Seconds from dawn.
    pub(crate) announced: u64,
    /// Whether the doors speak TLS, and the kernel speaks to us.
    pub(crate) tls: bool,
    pub(crate) kernel: bool,
    /// At least two.
    pub(crate) processes: u32,
    /// Share of the surge that has another mix of clients, and comes from other networks.
    pub(crate) other_clients: f64,
    pub(crate) other_networks: f64,
    /// Share of the surge that comes from one network.
    pub(crate) one_network: f64,
    pub(crate) waves: Vec<Wave>,
    /// How many clients, and networks, machines have; whether their clients are those of people.
    pub(crate) bot_clients: u64,
    pub(crate) bot_networks: u64,
    pub(crate) bots_impersonate: bool,
    /// Trouble, and from when on.
    pub(crate) troubles: Vec<(Trouble, u64)>,
    /// At this second everyone's connection is lost: half come back at once, a third of them again and again.
    pub(crate) outage: Option<u64>,
    /// Whether former events left a mix to compare with.
    pub(crate) reference: bool,
    /// When what is to be named begins.
    pub(crate) begins: u64,
}

/// What an edge's survey knows of a session, and when, in seconds from its beginning. It follows from the rendition: the
/// kernel holds 40 KiB that may not have been acknowledged.
#[derive(Clone, Copy)]
struct Known {
    /// At the earliest, that it follows.
    follows_s: usize,
    /// That it does not.
    patience_s: usize,
    /// That it starves, if it takes nothing.
    starves_s: usize,
}

impl Known {
    const OPUS_24: Self = Self { follows_s: 14, patience_s: 21, starves_s: 21 };
    const OPUS_48: Self = Self { follows_s: 7, patience_s: 14, starves_s: 11 };
    const MP3_64: Self = Self { follows_s: 6, patience_s: 12, starves_s: 11 };
}

/// An edge closes who takes nothing for half a minute, after the kernel's 40 KiB.
const STUCK_S: usize = 37;

/// Until the buffer of somebody who reads nothing is full, and an edge has looked twice.
const SHUTS_S: usize = 8;

/// Numbers in flow.
struct Stocks {
    known: Known,
    greeting: u64,
    waiting: u64,
    challenged: u64,
    ticketed: u64,
    /// Who will follow, and is not known to, by age in seconds.
    starting: Vec<u64>,
    /// Who will go before that.
    leaving: u64,
    listening: u64,
    returning: u64,
    bots_half_open: Vec<u64>,
    bots_pending: Vec<u64>,
    /// By age in seconds.
    bots_shut: Vec<u64>,
    bots_starting: Vec<u64>,
    bots_listening: u64,
}

impl Stocks {
    fn new(known: Known, listening: u64) -> Self {
        let ages = || vec![0; known.patience_s];
        Self {
            known,
            greeting: 0,
            waiting: 0,
            challenged: 0,
            ticketed: 0,
            starting: ages(),
            leaving: 0,
            listening,
            returning: 0,
            bots_half_open: vec![0; 10],
            bots_pending: vec![0; 10],
            bots_shut: vec![0; STUCK_S],
            bots_starting: ages(),
            bots_listening: 0,
        }
    }

    fn starting(&self) -> u64 {
        self.starting.iter().sum::<u64>() + self.leaving
    }
}

/// A second goes by: everybody is older, and those who come to the end are told.
fn age(stock: &mut [u64]) -> u64 {
    stock.rotate_right(1);
    std::mem::take(&mut stock[0])
}

/// Who arrived in a bin, and what the kernel saw.
#[derive(Default)]
struct Arrived {
    usual: u64,
    surge: u64,
    bots: u64,
    kernel: Kernel,
}

fn ja4(n: u64) -> Ja4 {
    let hash = Rng::new(n ^ 0x1a4).bits() & 0xffff_ffff_ffff;
    format!("t13d{:02}{:02}h2_{hash:012x}_02713d6af862", 10 + n % 20, 8 + n % 9).parse().expect("a JA4")
}

/// Shares of clients: a few common ones and a tail.
fn clients(rng: &mut Rng, first: u64, count: u64) -> Vec<(Ja4, f64)> {
    let weights: Vec<f64> = (0..count).map(|at| rng.between(0.5, 1.5) / (at + 1) as f64).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().enumerate().map(|(at, weight)| (ja4(first + at as u64), weight / sum)).collect()
}

/// Deals `total` among shares.
fn deal(rng: &mut Rng, total: u64, shares: &[f64]) -> Vec<u64> {
    let (mut left, mut weight) = (total, shares.iter().sum::<f64>());
    shares
        .iter()
        .map(|share| {
            let part = if weight <= 0.0 { 0 } else { rng.binomial(left, share / weight) };
            left -= part;
            weight -= share;
            part
        })
        .collect()
}

impl Night {
    pub(crate) fn run(self, seed: u64, name: String) -> Run {
        let mut rng = Rng::new(seed ^ 0x0e76);
        let usual_clients = clients(&mut rng, 0, 14);
        let other_clients = clients(&mut rng, 5, 10);
        let bot_clients = if self.bots_impersonate {
            let first = rng.below(3);
            clients(&mut rng, first, self.bot_clients)
        } else {
            clients(&mut rng, 1_000, self.bot_clients)
        };
        let mut merger = Merger::new();
        // Most listen to what the page offers first.
        let known = match Rng::new(seed ^ 0x0c05).below(10) {
            0 => Known::OPUS_24,
            1 | 2 => Known::MP3_64,
            _ => Known::OPUS_48,
        };
        let mut stocks = Stocks::new(known, self.audience);
        let (mut bins, mut by_machines) = (Vec::new(), Vec::new());
        for at in 0..BINS {
            let start = BinStart::try_from(DAWN_MS + at * BIN_MS).expect("aligned");
            let mut bin = ProcessBin::new(start, 0, 0);
            let mut arrived = Arrived::default();
            for second in at * 10..at * 10 + 10 {
                self.second(second, &mut rng, &mut stocks, &mut bin, &mut arrived);
            }
            let part = |machines: u64, all: u64| machines >= 50 && machines * 5 >= all;
            by_machines.push(
                part(arrived.bots, arrived.bots + arrived.usual + arrived.surge)
                    || part(stocks.bots_listening, stocks.bots_listening + stocks.listening),
            );
            bin.kernel = self.kernel.then_some(arrived.kernel);
            self.gauges(at * 10 + 9, &mut rng, &stocks, &mut bin);
            self.histograms(&mut rng, &arrived, [&usual_clients, &other_clients, &bot_clients], &mut bin);
            bins.push(self.merge(&mut merger, start, at * 10, bin));
        }
        let reference = self.reference.then(|| {
            let counts = usual_clients.iter().map(|(ja4, share)| (*ja4, (share * 20_000.0) as u64)).collect();
            Fingerprints::reference(&counts)
        });
        let event = "a-night".parse().expect("a slug");
        let ms = |second: u64| DAWN_MS + second * 1_000;
        let opening =
            Opening::new(&event, &key().verifying_key(), DAWN_MS, ms(self.announced), reference.flatten());
        Run { name, opening, bins, by_machines, begins_ms: ms(self.begins) }
    }

    fn trouble(&self, second: u64) -> impl Iterator<Item = &Trouble> {
        self.troubles.iter().filter(move |(_, from)| second >= *from).map(|(trouble, _)| trouble)
    }

    fn capacity(&self, second: u64) -> u64 {
        let mut capacity = self.capacity as f64;
        for trouble in self.trouble(second) {
            capacity *= match trouble {
                Trouble::Capacity { left, .. } => *left,
                Trouble::DeadEdge => 1.0 - 1.0 / f64::from(self.processes),
                _ => 1.0,
            };
        }
        capacity as u64
    }

    /// Honest people, for one second.
    fn second(
        &self,
        second: u64,
        rng: &mut Rng,
        s: &mut Stocks,
        bin: &mut ProcessBin,
        arrived: &mut Arrived,
    ) {
        let people = &self.people;
        if self.outage == Some(second) {
            s.returning = rng.binomial(s.listening, 0.5);
            s.listening = 0;
        }
        let back = rng.binomial(s.returning, 0.3);
        s.returning -= back;
        // A third ask again and again while there is no place.
        let hammering =
            if self.outage.is_some_and(|at| (at..at + 30).contains(&second)) { back / 3 } else { 0 };
        let usual = rng.poisson(self.usual) + back;
        let surge = rng.poisson((self.surge)(second as f64));
        arrived.usual += usual;
        arrived.surge += surge;
        let come = usual + surge;

        // How slow we are, by those who join now.
        let load = (come + s.greeting / 4 + hammering) as f64 / self.joins;
        let slow = load.max(1.0);
        let failing: f64 = self
            .trouble(second)
            .map(|trouble| if let Trouble::Errors { share } = trouble { *share } else { 0.0 })
            .sum();
        let c = &mut bin.counts;
        let speculative = rng.binomial(come, people.speculative);
        let connections = come + speculative + hammering;
        c.door.connections += connections;
        c.door.silent += speculative;
        if slow > 1.0 {
            let dropped = rng.binomial(connections, 0.2 * (1.0 - 1.0 / slow));
            arrived.kernel.listen_overflows += dropped;
            arrived.kernel.listen_drops += dropped;
            arrived.kernel.cookies_sent += (connections as f64 * (1.0 + people.cookies)) as u64;
            arrived.kernel.cookies_returned += connections - dropped;
        }
        if self.tls {
            c.door.handshakes_started += speculative + hammering;
            c.door.handshakes_finished += rng.binomial(speculative + hammering, 1.0 - people.lost_handshakes);
        }
        s.greeting += come;
        let greeted = rng.binomial(s.greeting, 1.0 - (-1.0 / (people.handshake_s * slow)).exp());
        s.greeting -= greeted;
        let asking = rng.binomial(greeted, 1.0 - people.lost_handshakes);
        if self.tls {
            // Edges count them when they have ended, one way or the other.
            c.door.handshakes_started += greeted;
            c.door.handshakes_finished += asking;
        }
        c.door.timed_out += rng.binomial(greeted - asking, 0.1);
        c.door.requests += asking * 3 + hammering;
        c.door.client_errors += rng.binomial(asking, 0.05);
        let errors = failing + if slow > 1.0 { 0.1 * (1.0 - 1.0 / slow) } else { 0.0 };
        c.door.server_errors += rng.binomial(asking * 3, errors);
        c.tickets.asked += asking;
        c.refused.full += hammering;

        // Admission: a trickle of places above nine tenths of capacity.
        let capacity = self.capacity(second);
        let room = (capacity * 9 / 10).saturating_sub(s.listening + s.starting() + s.ticketed);
        let admitted = asking.min(room);
        let waiting = asking - admitted;
        s.waiting += waiting;
        c.refused.full += waiting;
        let challenged = waiting / 2;
        s.challenged += challenged;
        c.admission.challenged += challenged;
        let answering = rng.binomial(s.challenged, 0.3);
        s.challenged -= answering;
        c.admission.passed += rng.binomial(answering, people.passes);
        c.admission.ignored += rng.binomial(answering, people.ignores);
        let called = s.waiting.min(room - admitted);
        let taken = rng.binomial(called, people.patience);
        s.waiting -= called;
        s.waiting -= rng.binomial(s.waiting, 1.0 / 400.0);
        c.admission.called += called;
        c.admission.taken += taken;
        if waiting > 0 && second.is_multiple_of(10) {
            bin.mitigate(Measure::ChallengeOn, Cause::Evidence, 1);
        }
        let c = &mut bin.counts;
        c.tickets.given += admitted + taken;
        s.ticketed += admitted + taken;

        // Listening.
        let trying = rng.binomial(s.ticketed, 1.0 - (-1.0 / (people.use_s * slow)).exp());
        s.ticketed -= trying;
        let using = rng.binomial(trying, people.uses * (1.0 - failing) / slow.sqrt());
        c.tickets.used += using;
        c.door.connections += using;
        c.door.requests += using;
        if self.tls {
            c.door.handshakes_started += using;
            c.door.handshakes_finished += using;
        }
        // Whoever goes is known not to follow at once; the others are when the kernel took more than it can hold.
        let staying = rng.binomial(using, people.follows / slow.sqrt());
        s.leaving += using - staying;
        let gone = rng.binomial(s.leaving, 1.0 - (-1.0_f64 / 3.0).exp());
        s.leaving -= gone;
        c.audio.opened += gone;
        let late = age(&mut s.starting);
        s.starting[0] += staying;
        c.audio.opened += late;
        s.listening += late;
        for age in s.known.follows_s..s.known.patience_s {
            let mean_s = (people.follow_s * slow - 1.0).max(0.5);
            let followed = rng.binomial(s.starting[age], 1.0 - (-1.0 / mean_s).exp());
            s.starting[age] -= followed;
            c.audio.opened += followed;
            c.audio.followed += followed;
            s.listening += followed;
        }
        s.listening -= rng.binomial(s.listening, 1.0 / people.stay_s);
        // Where there is no place any more for all of them, those who are cut off come again.
        let over = s.listening.saturating_sub(capacity);
        s.listening -= over;
        s.returning += over / 2;

        let hls = s.listening as f64 * people.hls;
        let playlists = rng.poisson(hls * people.playlists);
        let files = rng.poisson(hls * 2.0 * people.acks * (1.0 - failing));
        c.audio.playlists += playlists;
        c.audio.files += files;
        c.door.requests += playlists + files;
        c.door.server_errors += rng.binomial(playlists, failing);
        c.audio.parts += (s.listening as f64 * (1.0 - people.hls) * 2.0) as u64;
        // To newcomers nothing is due before the kernel has what it holds.
        let due = s.listening * 3_300;
        c.audio.bytes_due += due;
        c.audio.bytes_acked += (due as f64 * people.acks / slow.sqrt()) as u64;
        let busy =
            (500.0 + 4_000.0 * s.listening as f64 / self.capacity as f64 + 5_000.0 * load).min(9_950.0);
        let late = if slow > 1.0 { 30_000.0 * slow * slow } else { 400.0 * rng.between(0.5, 3.0) };
        c.own.cpu_bp = c.own.cpu_bp.max(busy as u64);
        c.own.loop_late_us = c.own.loop_late_us.max(late as u64);
        c.own.disk_write_us = c.own.disk_write_us.max((rng.magnitude(800.0, 8_000.0) * slow.min(5.0)) as u64);
        c.own.datagrams += rng.poisson(150.0);
        for trouble in self.trouble(second) {
            match trouble {
                Trouble::Disk { micros } => c.own.disk_write_us = c.own.disk_write_us.max(*micros),
                Trouble::Spin { cpu_bp, late_us } => {
                    c.own.cpu_bp = c.own.cpu_bp.max(*cpu_bp);
                    c.own.loop_late_us = c.own.loop_late_us.max(*late_us);
                }
                Trouble::Capacity { .. } | Trouble::DeadEdge | Trouble::Errors { .. } => {}
            }
        }
        if let Some((Trouble::Capacity { mark: Some(mark), .. }, _)) =
            self.troubles.iter().find(|(_, from)| *from == second)
        {
            bin.mark(*mark, second % 10 * 1_000);
        }
        self.wait_out(s, bin);
        self.machines_go_on(rng, s, bin);
        for wave in &self.waves {
            self.attack(wave, second, rng, s, bin, arrived);
        }
    }

    /// Timers of ten seconds end what machines hold.
    fn wait_out(&self, s: &mut Stocks, bin: &mut ProcessBin) {
        bin.counts.door.timed_out += age(&mut s.bots_pending);
        // Edges count handshakes when they have ended.
        bin.counts.door.handshakes_started += age(&mut s.bots_half_open) * u64::from(self.tls);
    }

    /// What becomes known of machines that listen, or pretend to. Of two such waves the habit of the first is both's.
    fn machines_go_on(&self, rng: &mut Rng, s: &mut Stocks, bin: &mut ProcessBin) {
        let audio = &mut bin.counts.audio;
        let share = |of: fn(&Attack) -> Option<f64>| self.waves.iter().find_map(|wave| of(&wave.attack));
        if let Some(follows) =
            share(|attack| if let Attack::Mimics { follows } = attack { Some(*follows) } else { None })
        {
            let known = age(&mut s.bots_starting) + std::mem::take(&mut s.bots_starting[s.known.follows_s]);
            let followed = rng.binomial(known, follows);
            audio.opened += known;
            audio.followed += followed;
            s.bots_listening += followed;
            let due = s.bots_listening * 3_300;
            audio.bytes_due += due;
            audio.bytes_acked += (due as f64 * 0.99) as u64;
        }
        if let Some(follows) =
            share(|attack| if let Attack::SlowReaders { follows } = attack { Some(*follows) } else { None })
        {
            age(&mut s.bots_shut);
            let followed = rng.binomial(s.bots_shut[s.known.follows_s], follows);
            audio.opened += followed + rng.binomial(s.bots_shut[s.known.patience_s], 1.0 - follows);
            audio.followed += followed;
            audio.bytes_due += s.bots_shut[s.known.follows_s..].iter().sum::<u64>() * 3_300;
        }
    }

    fn attack(
        &self,
        wave: &Wave,
        second: u64,
        rng: &mut Rng,
        s: &mut Stocks,
        bin: &mut ProcessBin,
        arrived: &mut Arrived,
    ) {
        let c = &mut bin.counts;
        let is_on = wave.pulse == 0 || (second.saturating_sub(wave.from) / wave.pulse).is_multiple_of(2);
        if !(wave.from..wave.until).contains(&second) || !is_on {
            return;
        }
        let strength = ((second - wave.from + 1) as f64 / wave.ramp.max(1) as f64).min(1.0);
        let n = rng.poisson(wave.rate * strength);
        let tls = u64::from(self.tls);
        let mut connect = |connections: u64, finished: u64| {
            c.door.connections += connections;
            c.door.handshakes_started += finished * tls;
            c.door.handshakes_finished += finished * tls;
        };
        let full = self.capacity(second) * 9 / 10 <= s.listening + s.bots_listening;
        match wave.attack {
            Attack::Tickets { given } => {
                connect(n, n);
                arrived.bots += n;
                c.door.requests += n;
                c.tickets.asked += n;
                if full {
                    c.refused.full += n;
                    c.admission.challenged += n / 2;
                    c.admission.ignored += n / 2;
                    s.waiting += n / 2;
                } else {
                    c.tickets.given += rng.binomial(n, given);
                }
            }
            Attack::Playlists { bad } => {
                connect(n / 40 + 1, n / 40 + 1);
                arrived.bots += n / 40 + 1;
                c.door.requests += n;
                let wrong = rng.binomial(n, bad);
                c.audio.playlists += n - wrong;
                c.door.client_errors += wrong;
            }
            Attack::SlowReaders { .. } => {
                // Those that do as pages do ask for a ticket first.
                let tickets = n * u64::from(self.bots_impersonate);
                connect(n + tickets, n + tickets);
                arrived.bots += n;
                c.door.requests += n + tickets;
                c.tickets.asked += tickets;
                c.tickets.given += tickets;
                c.tickets.used += tickets;
                s.bots_shut[0] += n;
            }
            Attack::SlowHeaders => {
                connect(n, n);
                s.bots_pending[0] += n;
            }
            Attack::Abuse => {
                connect(n, n);
                c.door.requests += 20 * n;
                c.door.abuse += rng.binomial(n, 0.8);
            }
            Attack::Forgery => {
                connect(n, n);
                c.door.requests += n;
                c.door.client_errors += n;
                c.refused.forged += n;
            }
            Attack::Junk => {
                connect(n / 20 + 1, n / 20 + 1);
                c.door.requests += n;
                c.door.client_errors += rng.binomial(n, 0.9);
            }
            Attack::Churn => {
                connect(2 * n, 2 * n);
                arrived.bots += n;
                c.door.requests += 2 * n;
                c.tickets.asked += n;
                c.tickets.given += n;
                c.tickets.used += n;
                c.audio.opened += n;
                c.audio.followed += rng.binomial(n, 0.05);
            }
            Attack::Mimics { .. } => {
                connect(2 * n, 2 * n);
                arrived.bots += n;
                c.door.requests += 2 * n;
                c.tickets.asked += n;
                c.tickets.given += n;
                c.tickets.used += n;
                s.bots_starting[0] += n;
            }
            Attack::Syn => {
                arrived.kernel.cookies_sent += n;
                arrived.kernel.listen_drops += n / 50;
            }
            Attack::Handshakes { finished, held } => {
                let finished = rng.binomial(n, finished);
                connect(n, finished);
                let held = rng.binomial(n - finished, held);
                s.bots_half_open[0] += held;
                c.door.handshakes_started += (n - finished - held) * tls;
            }
            Attack::HalfOpen => {
                c.door.connections += n;
                s.bots_half_open[0] += n;
            }
            Attack::Datagrams => {
                c.own.datagrams_refused += n;
            }
        }
    }

    fn gauges(&self, second: u64, rng: &mut Rng, s: &Stocks, bin: &mut ProcessBin) {
        let c = &mut bin.counts;
        c.door.half_open = s.greeting + s.bots_half_open.iter().sum::<u64>();
        c.door.pending = rng.binomial(s.greeting, 0.1) + s.bots_pending.iter().sum::<u64>();
        c.admission.waiting = s.waiting;
        let honest = s.listening + s.starting();
        let shut: u64 = s.bots_shut.iter().sum();
        c.audio.sessions = honest + shut + s.bots_listening + s.bots_starting.iter().sum::<u64>();
        // Who takes a quarter of what is due starves: our turns must be seconds late to do that to somebody.
        let late_s = c.own.loop_late_us as f64 / 1e6;
        // A frozen phone starves too.
        let starved = self.people.starved + self.people.shut;
        let starved = starved + (1.0 - starved) * ((late_s - 1.0) / 6.0).clamp(0.0, 0.9);
        c.audio.starved =
            rng.binomial(s.listening, starved) + s.bots_shut[s.known.starves_s..].iter().sum::<u64>();
        // The kernel that speaks to us also says who has shut the window.
        if self.kernel {
            c.audio.shut =
                rng.binomial(s.listening, self.people.shut) + s.bots_shut[SHUTS_S..].iter().sum::<u64>();
        } else {
            c.audio.shut_unknown = c.audio.starved;
        }
        c.audio.listeners = honest + s.bots_listening;
        c.own.capacity = self.capacity(second);
        let full = c.audio.listeners * 100 / c.own.capacity.max(1);
        c.own.level = [70, 75, 85, 90, 95].iter().filter(|percent| full >= **percent).count() as u64;
        c.admission.arrivals = 0;
    }

    /// Prefixes and fingerprints of those who arrived; it counts the arrivals too.
    fn histograms(
        &self,
        rng: &mut Rng,
        arrived: &Arrived,
        [usual, other, bots]: [&[(Ja4, f64)]; 3],
        bin: &mut ProcessBin,
    ) {
        let Arrived { usual: regulars, surge, bots: machines, .. } = *arrived;
        let strangers = rng.binomial(surge, self.other_networks);
        let together = rng.binomial(surge - strangers, self.one_network);
        let mut prefixes = self.networks(rng, regulars + surge - strangers - together, 0);
        prefixes.extend(self.networks(rng, strangers, 1 << 32));
        prefixes.push((0, together));
        let even = vec![1.0; self.bot_networks.min(150) as usize];
        // The networks used by many bots change from bin to bin; of few they stay.
        let first = if self.bot_networks > 150 { rng.below(self.bot_networks) } else { 0 };
        let machines_by = deal(rng, machines, &even);
        prefixes.extend(
            (0..).map(|at: u64| (2 << 32) + (first + at) % self.bot_networks.max(1)).zip(machines_by),
        );
        for (prefix, arrivals) in prefixes {
            bin.arrive(PrefixTag(prefix), None, arrivals);
        }
        if !self.tls {
            return;
        }
        let differing = rng.binomial(surge, self.other_clients);
        let groups = [(regulars + surge - differing, usual), (differing, other), (machines, bots)];
        for (arrivals, clients) in groups {
            let shares: Vec<f64> = clients.iter().map(|(_, share)| *share).collect();
            for (count, (ja4, _)) in deal(rng, arrivals, &shares).into_iter().zip(clients) {
                bin.count_fingerprint(*ja4, count);
            }
        }
    }

    /// Deals arrivals among networks: a hundred large ones and a tail of small ones.
    fn networks(&self, rng: &mut Rng, arrivals: u64, first: u64) -> Vec<(u64, u64)> {
        let people = &self.people;
        let large = people.networks.min(60);
        let mut shares: Vec<f64> = (0..large).map(|at| ((at + 2) as f64).powf(-people.zipf)).collect();
        let tail = (people.networks - large).min(60);
        let each = ((large + 2) as f64).powf(-people.zipf) * (people.networks - large) as f64 / 120.0;
        shares.extend(std::iter::repeat_n(each / tail.max(1) as f64 * 60.0, tail as usize));
        let dealt = deal(rng, arrivals, &shares);
        let tail_at = rng.below((people.networks - large).max(1));
        let name = |at: usize| {
            let at = at as u64;
            if at < large { first + at } else { first + large + (tail_at + at) % (people.networks - large) }
        };
        dealt.into_iter().enumerate().map(|(at, count)| (name(at), count)).collect()
    }

    /// The bin among the bins of the other processes, which have nothing to add.
    fn merge(&self, merger: &mut Merger, start: BinStart, second: u64, bin: ProcessBin) -> Bin {
        let dead = self.trouble(second + 9).any(|trouble| matches!(trouble, Trouble::DeadEdge));
        let alive = self.processes - u32::from(dead);
        let mut bins = vec![bin];
        bins.extend((1..alive).map(|process| ProcessBin::new(start, process, 0)));
        merger.merge(start, u64::from(self.processes), &bins)
    }
}
