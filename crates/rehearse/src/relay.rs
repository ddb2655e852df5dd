//! A UDP relay with seeded loss, delay, jitter and duplicates.
//!
//! Kernels of small machines and containers often lack `netem`; this does its work in user space, and the same
//! seed drops the same packets (counted in each direction from the first).
//!
//! ```text
//! client ⇄ [front socket] ─ weather ─ [a socket for each client] ⇄ upstream
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Packets that may be under way at once; more are dropped and counted.
const UNDER_WAY_MAX: usize = 8_192;
/// Clients that one relay serves; packets of further ones are dropped and counted.
const CLIENTS_MAX: usize = 64;
/// How often blocked threads look whether they are to stop.
const STOP_CHECK: Duration = Duration::from_millis(50);

/// What happens to packets on their way, in each direction alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weather {
    /// Part of the packets that vanish, `0.0..=1.0`.
    pub loss: f64,
    /// Part of the packets that arrive twice, `0.0..=1.0`.
    pub duplicates: f64,
    /// Delay of every packet.
    pub delay: Duration,
    /// Further delay of each packet, drawn evenly from zero to this. Packets overtake each other by it.
    pub jitter: Duration,
    /// Where the draws begin.
    pub seed: u64,
}

impl Weather {
    /// Nothing happens to packets.
    pub const CLEAR: Self =
        Self { loss: 0.0, duplicates: 0.0, delay: Duration::ZERO, jitter: Duration::ZERO, seed: 0 };
}

/// What a relay has done so far, both directions together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayCounts {
    /// Packets passed on.
    pub passed: u64,
    /// Packets that vanished by the weather or while the line was cut.
    pub lost: u64,
    /// Packets sent twice.
    pub duplicated: u64,
    /// Packets dropped because too many, or too many clients, were under way.
    pub overflowed: u64,
}

/// A running relay; it stops when dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    cut: AtomicBool,
    passed: AtomicU64,
    lost: AtomicU64,
    duplicated: AtomicU64,
    overflowed: AtomicU64,
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    heap: BinaryHeap<Reverse<UnderWay>>,
    order: u64,
}

/// One packet and where it goes. Ordered by when it is due, then by when it came.
#[derive(Debug)]
struct UnderWay {
    due: Instant,
    order: u64,
    through: Arc<UdpSocket>,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl PartialEq for UnderWay {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for UnderWay {}

impl PartialOrd for UnderWay {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for UnderWay {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

impl Relay {
    /// Opens a relay on a free loopback port that passes packets on to `upstream`.
    ///
    /// # Errors
    /// When no socket can be opened or no thread started.
    pub fn start(upstream: SocketAddr, weather: Weather) -> io::Result<Self> {
        let front = Arc::new(UdpSocket::bind(loopback(upstream))?);
        front.set_read_timeout(Some(STOP_CHECK))?;
        let address = front.local_addr()?;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            passed: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            duplicated: AtomicU64::new(0),
            overflowed: AtomicU64::new(0),
            queue: Mutex::default(),
            wake: Condvar::new(),
        });
        let mut relay = Self { address, shared: shared.clone(), threads: Vec::new() };
        let deliverer = shared.clone();
        relay.threads.push(spawn("relay-deliver", move || deliverer.deliver())?);
        relay.threads.push(spawn("relay-front", move || {
            let backs = shared.read_front(&front, upstream, weather);
            for back in backs {
                back.join().ok();
            }
        })?);
        Ok(relay)
    }

    /// Where clients send to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts the line (nothing passes in either direction) or mends it.
    pub fn cut(&self, cut: bool) {
        self.shared.cut.store(cut, Ordering::Relaxed);
    }

    /// What it has done so far.
    pub fn counts(&self) -> RelayCounts {
        RelayCounts {
            passed: self.shared.passed.load(Ordering::Relaxed),
            lost: self.shared.lost.load(Ordering::Relaxed),
            duplicated: self.shared.duplicated.load(Ordering::Relaxed),
            overflowed: self.shared.overflowed.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Reads what clients send; opens a socket towards upstream for each new one.
    fn read_front(
        self: &Arc<Self>,
        front: &Arc<UdpSocket>,
        upstream: SocketAddr,
        weather: Weather,
    ) -> Vec<JoinHandle<()>> {
        let mut backs = BTreeMap::<SocketAddr, Arc<UdpSocket>>::new();
        let mut readers = Vec::new();
        let mut chance = StdRng::seed_from_u64(weather.seed);
        let mut packet = vec![0; 65_536];
        while !self.stopped() {
            let Ok((length, client)) = front.recv_from(&mut packet) else { continue };
            let back = match backs.get(&client) {
                Some(back) => back.clone(),
                None if backs.len() >= CLIENTS_MAX => {
                    self.overflowed.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                None => match self.open_back(front, upstream, client, weather) {
                    Ok((back, reader)) => {
                        backs.insert(client, back.clone());
                        readers.push(reader);
                        back
                    }
                    Err(_) => {
                        self.overflowed.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                },
            };
            self.put(&mut chance, weather, &back, upstream, &packet[..length]);
        }
        readers
    }

    fn open_back(
        self: &Arc<Self>,
        front: &Arc<UdpSocket>,
        upstream: SocketAddr,
        client: SocketAddr,
        weather: Weather,
    ) -> io::Result<(Arc<UdpSocket>, JoinHandle<()>)> {
        let back = Arc::new(UdpSocket::bind(loopback(upstream))?);
        back.set_read_timeout(Some(STOP_CHECK))?;
        let (shared, front, socket) = (self.clone(), front.clone(), back.clone());
        let reader = spawn("relay-back", move || {
            // The way back has draws of its own, so that neither direction disturbs the other's.
            let mut chance = StdRng::seed_from_u64(!weather.seed);
            let mut packet = vec![0; 65_536];
            while !shared.stopped() {
                if let Ok((length, from)) = socket.recv_from(&mut packet)
                    && from == upstream
                {
                    shared.put(&mut chance, weather, &front, client, &packet[..length]);
                }
            }
        })?;
        Ok((back, reader))
    }

    /// Decides the fate of one packet. The draws are made even when the line is cut: a cut shifts no later fate.
    fn put(
        &self,
        chance: &mut StdRng,
        weather: Weather,
        through: &Arc<UdpSocket>,
        to: SocketAddr,
        bytes: &[u8],
    ) {
        let lost = chance.random::<f64>() < weather.loss;
        let twice = chance.random::<f64>() < weather.duplicates;
        let delays = [chance.random::<f64>(), chance.random::<f64>()];
        if lost || self.cut.load(Ordering::Relaxed) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let now = Instant::now();
        let copies = if twice { 2 } else { 1 };
        self.duplicated.fetch_add(copies - 1, Ordering::Relaxed);
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        for delay in &delays[..copies as usize] {
            if queue.heap.len() >= UNDER_WAY_MAX {
                self.overflowed.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let due = now + weather.delay + weather.jitter.mul_f64(*delay);
            let order = queue.order;
            queue.order += 1;
            queue.heap.push(Reverse(UnderWay {
                due,
                order,
                through: through.clone(),
                to,
                bytes: bytes.to_vec(),
            }));
        }
        drop(queue);
        self.wake.notify_one();
    }

    /// Sends what is due.
    fn deliver(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        while !self.stopped() {
            let now = Instant::now();
            let wait = match queue.heap.peek() {
                Some(Reverse(first)) if first.due <= now => {
                    let Some(Reverse(packet)) = queue.heap.pop() else { continue };
                    drop(queue);
                    // A full socket buffer is a loss like any other on this way.
                    let counter = match packet.through.send_to(&packet.bytes, packet.to) {
                        Ok(_) => &self.passed,
                        Err(_) => &self.lost,
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                    queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                Some(Reverse(first)) => first.due - now,
                None => STOP_CHECK,
            };
            queue = self.wake.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Any port of the loopback of the same family.
fn loopback(like: SocketAddr) -> SocketAddr {
    if like.is_ipv4() { (Ipv4Addr::LOCALHOST, 0).into() } else { (Ipv6Addr::LOCALHOST, 0).into() }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `count` numbered packets through a relay to an upstream that sends each back; returns the numbers that
    /// return, sorted.
    fn numbers_through(weather: Weather, count: u32) -> (Vec<u32>, RelayCounts) {
        let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
        upstream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let relay = Relay::start(upstream.local_addr().unwrap(), weather).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut seen = Vec::new();
        let mut packet = [0; 16];
        for number in 0..count {
            client.send_to(&number.to_be_bytes(), relay.address()).unwrap();
            // No more at once than the buffer of a socket holds for sure.
            if number % 32 < 31 && number + 1 < count {
                continue;
            }
            // Everything has a fate: wait until fates add up, and for all packets that were passed.
            loop {
                let counts = relay.counts();
                let fates = counts.passed + counts.lost;
                if seen.len() as u64 == counts.passed && fates == u64::from(number) + 1 + counts.duplicated {
                    break;
                }
                if counts.passed > seen.len() as u64 {
                    let (length, _) = upstream.recv_from(&mut packet).unwrap();
                    assert_eq!(length, 4);
                    seen.push(u32::from_be_bytes(packet[..4].try_into().unwrap()));
                } else {
                    std::thread::yield_now();
                }
            }
        }
        seen.sort_unstable();
        (seen, relay.counts())
    }

    #[test]
    fn clear_weather_loses_nothing() {
        let (seen, counts) = numbers_through(Weather::CLEAR, 200);
        assert_eq!(seen, (0..200).collect::<Vec<_>>());
        assert_eq!(counts.overflowed, 0);
    }

    #[test]
    fn the_same_seed_loses_the_same_packets() {
        let weather = Weather { loss: 0.2, jitter: Duration::from_millis(3), seed: 7, ..Weather::CLEAR };
        let (first, counts) = numbers_through(weather, 300);
        let (second, _) = numbers_through(weather, 300);
        assert_eq!(first, second);
        assert!((30..90).contains(&counts.lost), "{counts:?}");
        let (other, _) = numbers_through(Weather { seed: 8, ..weather }, 300);
        assert_ne!(first, other);
    }

    #[test]
    fn answers_find_their_client_and_a_cut_line_carries_nothing() {
        let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
        let relay = Relay::start(upstream.local_addr().unwrap(), Weather::CLEAR).unwrap();
        let clients = [UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap()];
        let mut packet = [0; 8];
        for (name, client) in [b"one.", b"two."].into_iter().zip(&clients) {
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            client.send_to(name, relay.address()).unwrap();
            let (length, from) = upstream.recv_from(&mut packet).unwrap();
            upstream.send_to(&packet[..length], from).unwrap();
            assert_eq!(client.recv_from(&mut packet).unwrap(), (4, relay.address()));
            assert_eq!(&packet[..4], name);
        }
        relay.cut(true);
        clients[0].send_to(b"lost", relay.address()).unwrap();
        while relay.counts().lost == 0 {
            std::thread::yield_now();
        }
        relay.cut(false);
        clients[0].send_to(b"back", relay.address()).unwrap();
        upstream.recv_from(&mut packet).unwrap();
        assert_eq!(&packet[..4], b"back");
    }
}
