//! What the demonstration shows while it runs: a bar on a terminal, plain lines in a pipe.

use std::io::{self, IsTerminal as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// In a pipe a line is written this often.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// One look at the show.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sight<'a> {
    /// Before the start.
    Waiting {
        /// State of the show.
        state: &'a str,
        /// Time to the start.
        until: Duration,
        /// Speakers who are in.
        connected: usize,
        /// Speakers there are.
        speakers: usize,
    },
    /// On air.
    OnAir {
        /// State of the show: live, or on hold.
        state: &'a str,
        /// Time on air.
        elapsed: Duration,
        /// All of it.
        length: Duration,
        /// Listeners, as control counts them; our own is one.
        listeners: Option<u64>,
        /// The newest part our own listener has.
        part: Option<u64>,
        /// Parts it missed.
        missed: u64,
        /// The last part that is safe on the disk.
        recorded: Option<u64>,
        /// Speakers who are in.
        connected: usize,
        /// Speakers there are.
        speakers: usize,
    },
}

impl Sight<'_> {
    fn describe(&self) -> String {
        let number = |value: Option<u64>| value.map_or_else(|| "–".to_owned(), |value| value.to_string());
        match self {
            Self::Waiting { state, until, connected, speakers } => {
                format!("{state}: starts in {} · {connected} of {speakers} speakers are in", clock(*until))
            }
            Self::OnAir {
                state,
                elapsed,
                length,
                listeners,
                part,
                missed,
                recorded,
                connected,
                speakers,
            } => {
                let missed = if *missed == 0 { String::new() } else { format!(" ({missed} missed)") };
                format!(
                    "{state} {} of {} · {connected}/{speakers} speak · {} listen · part {}{missed}, safe {}",
                    clock(*elapsed),
                    clock(*length),
                    number(*listeners),
                    number(*part),
                    number(*recorded),
                )
            }
        }
    }
}

/// `m:ss`.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// Shows the progress.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    on_terminal: bool,
    /// Whether there was anything to show yet: an empty bar says nothing.
    begun: AtomicBool,
    last_plain: Mutex<Option<Instant>>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let on_terminal = io::stdout().is_terminal();
        let target = if on_terminal { ProgressDrawTarget::stdout() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(1), target);
        let style = ProgressStyle::with_template("{bar:12} {wide_msg}").expect("the template is well-formed");
        bar.set_style(style);
        Self { bar, on_terminal, begun: AtomicBool::new(false), last_plain: Mutex::default() }
    }

    /// A line that stays.
    pub(super) fn line(&self, text: &str) {
        if self.on_terminal && self.begun.load(Ordering::Relaxed) {
            self.bar.suspend(|| super::say(text));
        } else {
            super::say(text);
        }
    }

    /// A line about a change; the next look is shown at once.
    pub(super) fn state(&self, text: &str) {
        self.line(text);
        *self.last_plain.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// How it stands.
    pub(super) fn show(&self, sight: &Sight<'_>) {
        if self.on_terminal {
            self.begun.store(true, Ordering::Relaxed);
            if let Sight::OnAir { elapsed, length, .. } = sight {
                self.bar.set_length(length.as_millis().try_into().unwrap_or(u64::MAX));
                self.bar.set_position(elapsed.as_millis().try_into().unwrap_or(u64::MAX));
            }
            self.bar.set_message(sight.describe());
            self.bar.tick();
            return;
        }
        let mut last = self.last_plain.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= PLAIN_EVERY) {
            *last = Some(Instant::now());
            super::say(&sight.describe());
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.begun.store(false, Ordering::Relaxed);
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_a_line() {
        let waiting =
            Sight::Waiting { state: "doors", until: Duration::from_millis(7_900), connected: 1, speakers: 2 };
        assert_eq!(waiting.describe(), "doors: starts in 0:07 · 1 of 2 speakers are in");
        let on_air = Sight::OnAir {
            state: "live",
            elapsed: Duration::from_secs(62),
            length: Duration::from_secs(180),
            listeners: Some(3),
            part: Some(129),
            missed: 2,
            recorded: None,
            connected: 2,
            speakers: 2,
        };
        assert_eq!(
            on_air.describe(),
            "live 1:02 of 3:00 · 2/2 speak · 3 listen · part 129 (2 missed), safe –"
        );
    }
}
