//! Honest newcomers as a process: so many a second, each a `super::guest::Guest`.

use std::cell::RefCell;
use std::io::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Args;
use model::EventSlug;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::guest::{Guest, Guestbook, Wishes};
use crate::attack::hello;
use crate::attack::only_here;
use crate::attack::swarm::{self, AT_ONCE_MAX, Pace, Script, Sources, Swarm};

/// The second byte of guests' addresses: other networks than attackers'.
const GUESTS_NET: u8 = 32;
/// Kinds of guests.
const KINDS: u64 = 6;

/// Flags of newcomers.
#[derive(Clone, Debug, Args)]
pub struct GuestsFlags {
    /// Control's door.
    #[arg(long, value_name = "ADDRESS")]
    pub control: SocketAddr,
    /// The push door.
    #[arg(long, value_name = "ADDRESS")]
    pub push: SocketAddr,
    /// The event.
    #[arg(long, value_name = "SLUG")]
    pub event: EventSlug,
    /// Whether the doors speak TLS.
    #[arg(long)]
    pub tls: bool,
    /// Guests a second.
    #[arg(long, value_name = "N", default_value_t = 200.0)]
    pub per_second: f64,
    /// Guests in all.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub guests: u64,
    /// How long they come, s.
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub seconds: f64,
    /// How long each listens, s.
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    pub listen: f64,
    /// How unlike they are in that, 0 to 1: with 1 some stay for a moment and some for twice as long.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub turnover: f64,
    /// How long each waits to be let in, s.
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub patience: f64,
    /// When all leave at once, s since the beginning. Every second one comes again, and of these every third at once and
    /// again and again, whatever it is told.
    #[arg(long, value_name = "S")]
    pub exit: Option<f64>,
    /// When everything ends, s [default: when the last one would have left].
    #[arg(long, value_name = "S")]
    pub end: Option<f64>,
    /// Networks (/24) they come from.
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub networks: u32,
}

/// What became of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct GuestsReport {
    /// Guests that came.
    pub(crate) begun: u64,
    /// What became of them.
    pub(crate) book: Guestbook,
    /// Seconds it took.
    pub(crate) seconds: f64,
    /// The share of that time in which this process wanted a processor and had none.
    pub(crate) starved: f64,
    /// The share of that time in which it had one.
    pub(crate) busy: f64,
}

impl GuestsReport {
    /// The share that was let in, 0 to 1.
    pub(crate) fn let_in(&self) -> f64 {
        self.book.notes.of("let in") as f64 / self.begun.max(1) as f64
    }
}

/// Sends them, and prints what became of them as JSON.
///
/// # Errors
/// If a door is not on this machine, or something cannot be begun.
pub fn guests(flags: &GuestsFlags) -> Result<()> {
    only_here(&[flags.control, flags.push])?;
    ensure!(
        flags.per_second > 0.0 && flags.per_second <= 100_000.0,
        "--per-second is not within 0 to 100000"
    );
    ensure!((0.0..=1.0).contains(&flags.turnover), "--turnover is not within 0 to 1");
    ensure!((0.1..=3_600.0).contains(&flags.seconds), "--seconds is not within 0.1 to 3600");
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let end_s = flags.end.unwrap_or(flags.seconds + flags.patience + flags.listen);
    let swarm = Swarm {
        doors: vec![flags.control, flags.push],
        tls: if flags.tls { Some(hello::client(b"http/1.1")?) } else { None },
        pace: Pace {
            per_second: flags.per_second,
            at_once: AT_ONCE_MAX,
            in_all: flags.guests,
            seconds: flags.seconds,
            end_s,
        },
        sources: Sources { net: GUESTS_NET, networks: flags.networks, hosts: 200 },
        small: false,
    };
    let wishes = |number: u64| Wishes {
        event: flags.event.as_str().to_owned(),
        authorities: [flags.control.to_string(), flags.push.to_string()],
        listen_ms: ms(flags.listen * (1.0 + flags.turnover * ((2 * number + 1) as f64 / KINDS as f64 - 1.0))),
        patience_ms: ms(flags.patience),
        exit_ms: flags.exit.map(ms),
        returns: flags.exit.is_some() && number.is_multiple_of(2),
        hasty: number.is_multiple_of(6) && flags.exit.is_some(),
    };
    // Shared: thousands come.
    let kinds: Vec<Rc<Wishes>> = (0..KINDS).map(|number| Rc::new(wishes(number))).collect();
    let book = Rc::new(RefCell::new(Guestbook::default()));
    let (begun, [ran, waited]) = (Instant::now(), scheduled());
    let notes = swarm::run(&swarm, |n| -> Box<dyn Script> {
        let wishes = Rc::clone(&kinds[(n % kinds.len() as u64) as usize]);
        Box::new(Guest::new(wishes, Rc::clone(&book), n))
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let share = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e9 / seconds;
    let [ran_now, waited_now] = scheduled();
    let mut book = std::mem::take(&mut *book.borrow_mut());
    book.notes.merge(&notes);
    let report = GuestsReport {
        begun: notes.of("begun"),
        book,
        seconds,
        starved: share(waited, waited_now),
        busy: share(ran, ran_now),
    };
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&report)?)?;
    Ok(())
}

fn ms(seconds: f64) -> u64 {
    (1_000.0 * seconds.max(0.0)) as u64
}

/// Time this process had a processor, and time it waited for one, ns (`Documentation/scheduler/sched-stats.rst`).
fn scheduled() -> [u64; 2] {
    super::watch::schedstat(&std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default())
}
