//! Attackers, for the night's lab: each a process of its own, bounded in count and time, and only against this machine.
//!
//! | Module | Holds |
//! | --- | --- |
//! | `swarm` | many connections on one thread, each led by a script |
//! | `http1` | slow heads, slow bodies, slow readers, connections held before their request |
//! | `hello` | TLS handshakes that are begun and abandoned |
//! | `h2frames`, `h2` | HTTP/2: rapid reset, MadeYouReset, CONTINUATION, PING, SETTINGS, HPACK bombs |
//! | `requests` | floods of requests, and tickets that nobody issued |
//! | `media` | STUN, DTLS and RTP |
//! | `syn` | half-open connections, by `hping3` in a network namespace |
//!
//! Builders of frames and requests are pure; sockets are thin around them. An attacker refuses any target that is not
//! loopback, gives way to everyone else (nice 19), and ends when its time is over or its parent is gone.

pub(crate) mod h2;
pub(crate) mod h2frames;
pub(crate) mod hello;
pub(crate) mod http1;
pub(crate) mod media;
pub(crate) mod requests;
pub(crate) mod swarm;
pub(crate) mod syn;

use std::io::Write as _;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use model::EventSlug;
use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};
use serde::{Deserialize, Serialize};

use h2::{Family, Flood};
use hello::Abandon;
use http1::{Drip, Hold, Sip};
use media::Datagram;
use requests::{Ask, Draws, Forgery, Once};
use swarm::{AT_ONCE_MAX, Notes, Pace, Script, Sources, Swarm};

/// Longest attack, s.
const SECONDS_MAX: f64 = 600.0;
/// Most that an attacker does in a second.
const PER_SECOND_MAX: f64 = 200_000.0;
/// The second byte of attackers' addresses.
const ATTACKERS_NET: u8 = 66;

/// What an attacker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Attack {
    /// Heads of requests that never end.
    SlowHeaders,
    /// Bodies that hardly come.
    SlowBodies,
    /// Readers of the stream that take a byte a second.
    SlowReaders,
    /// Connections that ask for nothing, at all doors of listeners.
    Held,
    /// TLS handshakes that are begun and abandoned.
    Handshakes,
    /// HTTP/2: streams opened and reset (CVE-2023-44487).
    RapidReset,
    /// HTTP/2: streams that the server is made to reset (CVE-2025-8671).
    MadeYouReset,
    /// HTTP/2: headers without an end.
    Continuation,
    /// HTTP/2: pings.
    Pings,
    /// HTTP/2: settings.
    Settings,
    /// HTTP/2: small headers that unpack to much.
    Bombs,
    /// Requests of tickets.
    Tickets,
    /// Requests of the API, and of tickets, with tokens that are none.
    BadTokens,
    /// Playlists that are to wait for parts of a far future.
    FarParts,
    /// STUN at the stage's port.
    Stun,
    /// DTLS at the stage's port.
    Dtls,
    /// RTP at the stage's port.
    Rtp,
    /// Tickets that nobody issued, at the doors of listeners.
    Forge,
    /// One good ticket, shown by many.
    Replay,
    /// Half-open connections.
    Syn,
}

impl Attack {
    /// Its name, as flags have it.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether it needs doors that speak TLS.
    pub(crate) fn needs_tls(self) -> bool {
        self == Self::Handshakes
    }

    /// What it does unless it is told: connections or datagrams a second, at once, and ms from one of a connection's
    /// deeds to its next.
    fn vigour(self) -> Vigour {
        let of = |per_second, at_once, every_ms| Vigour { per_second, at_once, every_ms };
        match self {
            Self::SlowHeaders | Self::SlowBodies => of(500.0, 4_000, 2_000),
            Self::SlowReaders => of(300.0, 2_000, 1_000),
            // Of each attacker; the night sends as many as are needed.
            Self::Held => of(2_000.0, 19_000, 1_000),
            Self::Handshakes => of(400.0, 400, 3_000),
            Self::RapidReset | Self::MadeYouReset | Self::Pings | Self::Settings => of(50.0, 20, 2),
            Self::Continuation | Self::Bombs => of(50.0, 20, 5),
            Self::Tickets | Self::BadTokens => of(100.0, 100, 50),
            Self::FarParts => of(100.0, 200, 100),
            Self::Stun | Self::Dtls | Self::Rtp | Self::Syn => of(10_000.0, 1, 1),
            Self::Replay => of(200.0, 1_000, 200),
            Self::Forge => of(500.0, 500, 2_000),
        }
    }
}

/// How hard an attack is.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Vigour {
    per_second: f64,
    at_once: usize,
    every_ms: u64,
}

/// Flags of an attacker.
#[derive(Clone, Debug, Args)]
pub struct AttackerFlags {
    /// What it does.
    #[arg(value_enum)]
    pub attack: Attack,
    /// Control's door.
    #[arg(long, value_name = "ADDRESS")]
    pub control: SocketAddr,
    /// The push door.
    #[arg(long, value_name = "ADDRESS")]
    pub push: SocketAddr,
    /// The files door.
    #[arg(long, value_name = "ADDRESS")]
    pub files: SocketAddr,
    /// The stage's media port.
    #[arg(long, value_name = "ADDRESS")]
    pub media: SocketAddr,
    /// The event.
    #[arg(long, value_name = "SLUG")]
    pub event: EventSlug,
    /// Whether the doors speak TLS.
    #[arg(long)]
    pub tls: bool,
    /// A good ticket, to forge others after it.
    #[arg(long, value_name = "TICKET", default_value = "", hide_default_value = true)]
    pub ticket: String,
    /// How long, 0.1 to 600 s.
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub seconds: f64,
    /// Connections or datagrams a second, at most 200000 [default: by its kind].
    #[arg(long, value_name = "N")]
    pub per_second: Option<f64>,
    /// Connections at once, at most 19500 [default: by its kind].
    #[arg(long, value_name = "N")]
    pub at_once: Option<usize>,
    /// Networks (/24) it comes from, 1 to 250.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub networks: u32,
    /// Where draws begin, and by how much its addresses differ from other attackers'.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u8,
}

/// What an attacker did, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Deeds {
    /// Its name.
    pub(crate) attack: String,
    /// How long it was at it, s.
    pub(crate) seconds: f64,
    /// Counts, by kind.
    pub(crate) notes: Notes,
}

/// Refuses whatever is not this machine: these programs must not be of use to anybody.
///
/// # Errors
/// If one of them is elsewhere.
pub(crate) fn only_here(targets: &[SocketAddr]) -> Result<()> {
    for target in targets {
        ensure!(target.ip().is_loopback(), "{target} is not this machine: attackers go nowhere else");
    }
    Ok(())
}

/// Attacks, and prints its deeds as JSON.
///
/// # Errors
/// If a target is not this machine, or a flag is outside its range.
pub fn attacker(flags: &AttackerFlags) -> Result<()> {
    only_here(&[flags.control, flags.push, flags.files, flags.media])?;
    ensure!((0.1..=SECONDS_MAX).contains(&flags.seconds), "--seconds is not within 0.1 to {SECONDS_MAX}");
    let mut vigour = flags.attack.vigour();
    if let Some(per_second) = flags.per_second {
        ensure!(
            (0.1..=PER_SECOND_MAX).contains(&per_second),
            "--per-second is not within 0.1 to {PER_SECOND_MAX}"
        );
        vigour.per_second = per_second;
    }
    if let Some(at_once) = flags.at_once {
        ensure!((1..=AT_ONCE_MAX).contains(&at_once), "--at-once is not within 1 to {AT_ONCE_MAX}");
        vigour.at_once = at_once;
    }
    // Whoever attacks gets what is left.
    nice(19).context("cannot give way")?;
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let begun = std::time::Instant::now();
    let notes = perform(flags, vigour)?;
    let deeds = Deeds { attack: flags.attack.name(), seconds: begun.elapsed().as_secs_f64(), notes };
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&deeds)?)?;
    Ok(())
}

/// Doors by their places in a swarm.
const CONTROL: usize = 0;
const PUSH: usize = 1;
const FILES: usize = 2;

fn perform(flags: &AttackerFlags, vigour: Vigour) -> Result<Notes> {
    let sources =
        Sources { net: ATTACKERS_NET.saturating_add(flags.seed), networks: flags.networks, hosts: 200 };
    let datagrams = |kind| media::flood(kind, flags.media, sources, vigour.per_second, flags.seconds);
    match flags.attack {
        Attack::Stun => return datagrams(Datagram::Stun),
        Attack::Dtls => return datagrams(Datagram::Dtls),
        Attack::Rtp => return datagrams(Datagram::Rtp),
        Attack::Syn => return syn::flood(flags.control.port(), vigour.per_second, flags.seconds),
        _ => {}
    }
    let http2 = matches!(
        flags.attack,
        Attack::RapidReset
            | Attack::MadeYouReset
            | Attack::Continuation
            | Attack::Pings
            | Attack::Settings
            | Attack::Bombs
    );
    let alpn: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
    // Connections that are held, and hellos, are as raw as they come.
    let raw = matches!(flags.attack, Attack::Held | Attack::Handshakes);
    let swarm = Swarm {
        doors: vec![flags.control, flags.push, flags.files],
        tls: if flags.tls && !raw { Some(hello::client(alpn)?) } else { None },
        pace: Pace {
            per_second: vigour.per_second,
            at_once: vigour.at_once,
            in_all: u64::MAX,
            seconds: flags.seconds,
            end_s: flags.seconds,
        },
        sources,
        small: flags.attack == Attack::SlowReaders,
    };
    let hellos = if flags.attack == Attack::Handshakes { hello::hellos(hello::HELLOS)? } else { Vec::new() };
    swarm::run(&swarm, |n| script(flags, vigour, &hellos, n))
}

/// The `n`th connection's script. Doors take turns.
fn script<'s>(flags: &'s AttackerFlags, vigour: Vigour, hellos: &[Vec<u8>], n: u64) -> Box<dyn Script + 's> {
    let every_ms = vigour.every_ms;
    let event = flags.event.as_str();
    let of = |door: usize| [flags.control, flags.push, flags.files][door].to_string();
    let mut draws = Draws(u64::from(flags.seed) << 32 | n);
    let turn = |doors: &[usize]| doors[(n % doors.len() as u64) as usize];
    let flood = |family: Family| -> Box<dyn Script + 's> {
        let door = turn(&[FILES, CONTROL]);
        let path = if door == FILES {
            format!("/live/{event}/index.m3u8")
        } else {
            format!("/api/events/{event}/queue.json")
        };
        Box::new(Flood::new(family, door, flags.tls, &of(door), &path, every_ms))
    };
    match flags.attack {
        Attack::SlowHeaders => {
            let door = turn(&[CONTROL, PUSH, FILES]);
            Box::new(Drip::new(door, http1::endless_head(&of(door), "/"), every_ms, http1::one_more))
        }
        Attack::SlowBodies => {
            let path = format!("/api/events/{event}/ticket");
            let first = http1::slow_post(&of(CONTROL), &path, 400);
            Box::new(Drip::new(CONTROL, first, every_ms, |_| b"a".to_vec()))
        }
        Attack::SlowReaders => {
            let request = http1::get(&of(PUSH), &format!("/live/{event}/opus-48.mp4"));
            Box::new(Sip { request, door: PUSH, bytes: 1, every_ms, opened_ms: 0, begun: false })
        }
        Attack::Held => Box::new(Hold { door: turn(&[PUSH, FILES, CONTROL]), opened_ms: 0 }),
        Attack::Handshakes => {
            let hello = hellos[(n % hellos.len().max(1) as u64) as usize].clone();
            Box::new(Abandon { hello, door: turn(&[PUSH, FILES, CONTROL]), patience_ms: every_ms })
        }
        Attack::RapidReset => flood(Family::RapidReset),
        Attack::MadeYouReset => flood(Family::MadeYouReset),
        Attack::Continuation => flood(Family::Continuation),
        Attack::Pings => flood(Family::Ping),
        Attack::Settings => flood(Family::Settings),
        Attack::Bombs => flood(Family::Bomb),
        Attack::Tickets => {
            let request = requests::ticket(&of(CONTROL), event);
            Box::new(Ask::new(CONTROL, every_ms, move || request.clone()))
        }
        Attack::BadTokens => {
            let authority = of(CONTROL);
            Box::new(Ask::new(CONTROL, every_ms, move || {
                if draws.draw().is_multiple_of(2) {
                    requests::bad_token(&authority, event, &mut draws)
                } else {
                    requests::forged_token(&authority, event, &mut draws)
                }
            }))
        }
        Attack::FarParts => {
            let authority = of(FILES);
            Box::new(Ask::new(FILES, every_ms, move || requests::far_part(&authority, event, &mut draws)))
        }
        Attack::Forge => {
            let door = turn(&[PUSH, FILES]);
            let forgery = Forgery::ALL[(n / 2) as usize % Forgery::ALL.len()];
            let ticket = forgery.make(&flags.ticket, &mut draws);
            let request = requests::with_ticket(&of(door), event, &ticket, door == PUSH);
            Box::new(Once { door, request, patience_ms: every_ms })
        }
        Attack::Replay => {
            let request = requests::with_ticket(&of(PUSH), event, &flags.ticket, true);
            Box::new(Sip { request, door: PUSH, bytes: usize::MAX, every_ms, opened_ms: 0, begun: false })
        }
        // Datagrams and half-open connections have no script; they were sent elsewhere.
        Attack::Stun | Attack::Dtls | Attack::Rtp | Attack::Syn => {
            Box::new(Hold { door: CONTROL, opened_ms: 0 })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(attack: Attack) -> AttackerFlags {
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        AttackerFlags {
            attack,
            control: address,
            push: address,
            files: address,
            media: address,
            event: "talk".parse().unwrap(),
            tls: false,
            ticket: String::new(),
            seconds: 1.0,
            per_second: None,
            at_once: None,
            networks: 4,
            seed: 0,
        }
    }

    #[test]
    fn only_this_machine_is_attacked() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(only_here(&[at("127.0.0.1:80"), at("127.9.9.9:80"), at("[::1]:80")]).is_ok());
        for elsewhere in
            ["10.0.0.1:80", "192.168.1.1:80", "0.0.0.0:80", "192.0.2.7:80", "[2001:db8::1]:80", "[::]:1"]
        {
            assert!(only_here(&[at("127.0.0.1:80"), at(elsewhere)]).is_err(), "{elsewhere}");
            // Whatever is asked for, before anything is done.
            for attack in Attack::value_variants() {
                let flags = AttackerFlags { media: at(elsewhere), ..here(*attack) };
                assert!(attacker(&flags).unwrap_err().to_string().contains("not this machine"));
            }
        }
    }

    #[test]
    fn attacks_are_bounded() {
        for attack in Attack::value_variants() {
            let vigour = attack.vigour();
            assert!((1..=AT_ONCE_MAX).contains(&vigour.at_once), "{attack:?}");
            assert!(vigour.per_second <= PER_SECOND_MAX && vigour.every_ms > 0, "{attack:?}");
        }
        let spoilt = [
            AttackerFlags { seconds: 1e9, ..here(Attack::Held) },
            AttackerFlags { per_second: Some(1e9), ..here(Attack::Held) },
            AttackerFlags { at_once: Some(1_000_000), ..here(Attack::Held) },
        ];
        for flags in spoilt {
            assert!(attacker(&flags).unwrap_err().to_string().contains("is not within"));
        }
    }

    #[test]
    fn every_attack_has_its_script() {
        let hellos = hello::hellos(2).unwrap();
        for attack in Attack::value_variants() {
            let flags = here(*attack);
            for n in 0..6 {
                assert!(script(&flags, attack.vigour(), &hellos, n).first_door() <= FILES);
            }
            assert!(!attack.name().is_empty());
        }
    }
}
