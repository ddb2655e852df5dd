//! Control, as far as edges hear of the ladder from it: it has pinned a level, as an operator would, and repeats that.
//!
//! What an edge can carry is measured here, not what it does when it carries too much.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use backend::bus::{Bus as _, UnixBus};
use backend::wire::{self, Audience, MeasuresRecord};
use model::Rendition;
use rehearse::crowd::clock_us;

/// Nothing is short.
pub(crate) const WELL: u8 = 0;
/// Everyone gets `opus-24`.
pub(crate) const SMALL: u8 = 3;
/// An edge goes on alone when it has heard nothing for five seconds.
const REPEATED: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Control {
    /// Levels, as they are announced; it ends with this.
    levels: Sender<u8>,
}

impl Control {
    /// Joins the bus in `directory`, all being well.
    pub(crate) fn start(directory: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let entered = runtime.enter();
        let bus = UnixBus::bind(directory, "control").context("cannot join the bus")?;
        drop(entered);
        let (levels, announced) = channel();
        thread::spawn(move || {
            // What the bus lives on.
            let _runtime = runtime;
            let mut level = WELL;
            for sequence in 1.. {
                let cap = (level >= SMALL).then_some(Rendition::Opus24);
                let measures = MeasuresRecord { everyones_cap: cap, ..MeasuresRecord::default() };
                let audience = Audience { level, pinned: true, measures, totals: Vec::new() };
                bus.publish("audience", sequence, wire::encode(&audience));
                match announced.recv_timeout(REPEATED) {
                    Ok(other) => level = other,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        });
        Ok(Self { levels })
    }

    /// Announces a level. When, on the machine's clock, µs.
    pub(crate) fn announce(&self, level: u8) -> u64 {
        let moment_us = clock_us();
        // Who repeats it lives as long as this.
        self.levels.send(level).ok();
        moment_us
    }
}
