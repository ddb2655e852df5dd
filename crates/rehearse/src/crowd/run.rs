//! Sends the shares of a crowd out, and looks at the server meanwhile.

use std::io::{self, BufRead as _, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clock::{RunClock, monotonic_ns};
use super::config::CrowdConfig;
use super::load::{LINGER_US, Share, carry};
use super::machine::Sampler;
use super::plan::Plan;
use super::report::{Course, CrowdReport};
use super::sockets::Survey;
use super::tally::{ShareReport, Standing};
use super::{CrowdError, machine::Sample};

/// Time for processes to start before the first listener comes, ns.
const HEAD_START_NS: u64 = 400_000_000;
/// Time between two looks at the server within the window, µs.
const LOOK_US: u64 = 1_000_000;
/// How long before the window the sockets are looked at: it takes a while, and is not to be in anyone's way.
const EARLIER_US: u64 = 400_000;
/// How long after the end a share may take to report, beyond lingering.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Listeners come.
    Ramp,
    /// All are there, and get used to it.
    Settle,
    /// It is measured.
    Window,
}

/// One look at a run.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    /// Where it stands.
    pub phase: Phase,
    /// Time since it began.
    pub elapsed: Duration,
    /// Time it takes.
    pub total: Duration,
    /// How the listeners stand.
    pub standing: Standing,
    /// The last look at the server.
    pub server: Sample,
}

/// What a load process says, a line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Standing(Standing),
    Report(Box<ShareReport>),
    Failed(String),
}

/// Runs a crowd to its end. One share runs in a thread of this process; of several each runs in a process of its own
/// that `start` describes: it must come to call [`serve_share`] on its standard input and output. `tell` hears a few
/// times a second how it stands.
///
/// # Errors
/// [`CrowdError`] if the crowd cannot be sent out.
pub fn run(
    config: &CrowdConfig,
    start: &dyn Fn() -> io::Result<Command>,
    tell: &mut dyn FnMut(&Sight),
) -> Result<CrowdReport, CrowdError> {
    config.check()?;
    let ports: Vec<u16> = {
        let mut ports: Vec<_> = config.targets()?.iter().map(|target| target.address.port()).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    };
    let shares = config.shares();
    let mut sampler = Sampler::new(&config.server_pids, &config.server_cores);
    let mut course =
        Course { before: sampler.look(), tied: sampler.own_core().is_some(), ..Course::default() };
    let start_ns = monotonic_ns() + HEAD_START_NS;
    course.begun_us = start_ns / 1_000;
    let (sender, words) = mpsc::channel();
    let mut children = Children::default();
    for index in 0..shares {
        let share = Share { config: config.clone(), index, of: shares, start_ns };
        if shares == 1 {
            let sender = sender.clone();
            thread::spawn(move || {
                let word = match carry(&share, &mut |standing| {
                    // The run may be over, and nobody listens.
                    let _ = sender.send((index, Word::Standing(standing)));
                }) {
                    Ok(report) => Word::Report(Box::new(report)),
                    Err(error) => Word::Failed(error.to_string()),
                };
                let _ = sender.send((index, word));
            });
        } else {
            children.start(start, &share, sender.clone())?;
        }
    }
    drop(sender);
    let mut watch = Watch {
        clock: RunClock::new(start_ns),
        plan: Plan::new(config),
        words,
        standings: vec![Standing::default(); shares],
        reports: vec![None; shares],
        last: course.before,
        tell,
    };
    watch.follow(&mut sampler, &ports, &mut course)?;
    let mut all = ShareReport::default();
    watch.reports.iter().flatten().for_each(|report| all.merge(report));
    Ok(CrowdReport::new(config, shares, &all, &course))
}

/// Runs one share whose description comes on `input`, as [`run`] asks a process to.
///
/// # Errors
/// If it cannot be read or told.
pub fn serve_share(input: impl io::Read, output: &mut impl Write) -> io::Result<()> {
    let share: Share = serde_json::from_reader(input)?;
    let mut told = Ok(());
    let word = match carry(&share, &mut |standing| {
        if told.is_ok() {
            told = say(output, &Word::Standing(standing));
        }
    }) {
        Ok(report) => Word::Report(Box::new(report)),
        Err(error) => Word::Failed(error.to_string()),
    };
    told?;
    say(output, &word)
}

fn say(output: &mut impl Write, word: &Word) -> io::Result<()> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    output.write_all(&line)?;
    output.flush()
}

/// Load processes, which end with the run whatever happens to it.
#[derive(Default)]
struct Children(Vec<Child>);

impl Children {
    fn start(
        &mut self,
        start: &dyn Fn() -> io::Result<Command>,
        share: &Share,
        sender: Sender<(usize, Word)>,
    ) -> Result<(), CrowdError> {
        let failed = |error: io::Error| CrowdError::Process(error.to_string());
        let mut command = start().map_err(failed)?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        self.0.push(child);
        let mut input = input.expect("it was piped");
        serde_json::to_writer(&mut input, share).map_err(|error| failed(error.into()))?;
        // Its end tells that this was all.
        drop(input);
        let (output, index) = (output.expect("it was piped"), share.index);
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let word =
                    serde_json::from_str(&line).unwrap_or_else(|error| Word::Failed(error.to_string()));
                if sender.send((index, word)).is_err() {
                    return;
                }
            }
        });
        Ok(())
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Whoever has reported is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

struct Watch<'t> {
    clock: RunClock,
    plan: Plan,
    words: Receiver<(usize, Word)>,
    standings: Vec<Standing>,
    reports: Vec<Option<ShareReport>>,
    last: Sample,
    tell: &'t mut dyn FnMut(&Sight),
}

impl Watch<'_> {
    fn follow(
        &mut self,
        sampler: &mut Sampler,
        ports: &[u16],
        course: &mut Course,
    ) -> Result<(), CrowdError> {
        let Plan { ramp_end_us, window_us, storm_end_us, end_us, .. } = self.plan;
        self.until(0)?;
        course.ramp = self.glance(sampler);
        self.until(ramp_end_us)?;
        course.ramped = self.glance(sampler);
        self.until(window_us.saturating_sub(EARLIER_US).max(ramp_end_us))?;
        course.survey = Survey::take(ports).ok();
        self.until(window_us)?;
        course.window = self.glance(sampler);
        let mut look_us = window_us;
        let mut storm_end_us = (storm_end_us > window_us).then_some(storm_end_us);
        while look_us + LOOK_US < end_us {
            look_us += LOOK_US;
            if let Some(storm_end_us) = storm_end_us.take_if(|at_us| *at_us <= look_us) {
                self.until(storm_end_us)?;
                course.storm_end = Some(sampler.brief());
            }
            self.until(look_us)?;
            let sample = self.glance(sampler);
            course.rss.push((sample.at_us, sample.rss_bytes));
        }
        if let Some(storm_end_us) = storm_end_us {
            self.until(storm_end_us)?;
            course.storm_end = Some(sampler.brief());
        }
        self.until(end_us)?;
        course.end = self.glance(sampler);
        // The connections stay for a moment, and nothing is measured any more.
        course.survey_end = Survey::take(ports).ok();
        course.after = sampler.look();
        course.late = self.clock.now_us() >= end_us + LINGER_US;
        self.until(end_us + LINGER_US)?;
        while self.reports.iter().any(Option::is_none) {
            match self.words.recv_timeout(PATIENCE) {
                Ok((index, word)) => self.hear(index, word)?,
                Err(_) => return Err(CrowdError::Process("it does not report".to_owned())),
            }
        }
        Ok(())
    }

    fn glance(&mut self, sampler: &mut Sampler) -> Sample {
        self.last = sampler.glance();
        self.last
    }

    /// Listens to the shares until a moment of the run.
    fn until(&mut self, moment_us: u64) -> Result<(), CrowdError> {
        loop {
            let now_us = self.clock.now_us();
            if now_us >= moment_us && (moment_us > 0 || now_us > 0) {
                return Ok(());
            }
            let wait = Duration::from_micros(moment_us.saturating_sub(now_us).clamp(1_000, 1_000_000));
            match self.words.recv_timeout(wait) {
                Ok((index, word)) => self.hear(index, word)?,
                Err(RecvTimeoutError::Timeout) => {}
                // All have said their last: only the clock is left.
                Err(RecvTimeoutError::Disconnected) if self.reports.iter().all(Option::is_some) => {
                    thread::sleep(wait);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(CrowdError::Process("it ended early".to_owned()));
                }
            }
        }
    }

    fn hear(&mut self, index: usize, word: Word) -> Result<(), CrowdError> {
        match word {
            Word::Standing(standing) => {
                self.standings[index] = standing;
                let mut all = Standing::default();
                self.standings.iter().for_each(|standing| all.merge(standing));
                let now_us = self.clock.now_us();
                let phase = match now_us {
                    now_us if now_us < self.plan.ramp_end_us => Phase::Ramp,
                    now_us if now_us < self.plan.window_us => Phase::Settle,
                    _ => Phase::Window,
                };
                (self.tell)(&Sight {
                    phase,
                    elapsed: Duration::from_micros(now_us),
                    total: Duration::from_micros(self.plan.end_us),
                    standing: all,
                    server: self.last,
                });
            }
            Word::Report(report) => self.reports[index] = Some(*report),
            Word::Failed(why) => return Err(CrowdError::Process(why)),
        }
        Ok(())
    }
}
