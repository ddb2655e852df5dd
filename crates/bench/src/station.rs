//! An origin without a stage: publishes a programme on the bus of a data directory, so that edges there can be measured
//! while nothing else works on the machine.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use archive::{DiskFiles, Marks, Moment, Recorder, RecorderConfig, Sync};
use backend::bus::{Bus as _, UnixBus};
use backend::wire::{self, AnchorRecord, EventStatus, OriginStatus, StateRecord};
use clap::Args;
use model::{ClockReading, EventSlug, PART_DURATION, PartNumber};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use crate::material::{Material, now};

/// Parts published at once in the beginning, so that there is a window to join.
const BEFORE: u32 = 20;

/// Flags of the station.
#[derive(Clone, Debug, Args)]
pub struct StationFlags {
    /// The data directory.
    #[arg(long)]
    pub data: PathBuf,
    /// The event.
    #[arg(long, default_value = "talk")]
    pub event: EventSlug,
    /// Silence instead of a voice: nothing to encode, and `opus-24` is next to nothing.
    #[arg(long)]
    pub silence: bool,
    /// Record another event of so many minutes first, which has ended: `past`.
    #[arg(long, default_value_t = 0)]
    pub past_minutes: u64,
}

/// Publishes until it is killed; says when it has begun.
///
/// # Errors
/// If the bus or the recording cannot be used.
#[tokio::main(flavor = "current_thread")]
pub async fn run(flags: &StationFlags) -> Result<()> {
    if flags.past_minutes > 0 {
        record_past(flags).context("cannot record the past")?;
    }
    let mut doors = now();
    doors.unix = doors.unix.minus(PART_DURATION * BEFORE);
    let mut material = match flags.silence {
        true => Material::silence(&flags.event, doors)?,
        false => Material::voice(&flags.event, doors)?,
    };
    std::fs::create_dir_all(flags.data.join("run/bus"))?;
    let bus = UnixBus::bind(&flags.data.join("run/bus"), "origin").context("cannot join the bus")?;
    let topic = format!("parts/{}", flags.event);
    let mut newest = None;
    let mut publish = || -> Result<PartNumber> {
        let part = material.part()?;
        bus.publish(&topic, part.number.get(), wire::encode_part(&part));
        Ok(part.number)
    };
    for _ in 0..BEFORE {
        newest = Some(publish()?);
    }
    let mut out = std::io::stdout();
    writeln!(out, "{}", serde_json::json!({ "on_air": flags.event.as_str() }))?;
    out.flush()?;
    let mut parts = interval_at(Instant::now() + PART_DURATION, PART_DURATION);
    parts.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut words = interval(Duration::from_secs(1));
    let mut said = 0;
    loop {
        tokio::select! {
            _ = parts.tick() => newest = Some(publish()?),
            _ = words.tick() => {
                said += 1;
                let status = status(flags, doors, newest);
                bus.publish("status", said, wire::encode(&status));
            }
        }
    }
}

fn status(flags: &StationFlags, doors: ClockReading, newest_part: Option<PartNumber>) -> OriginStatus {
    let anchor =
        AnchorRecord { doors: doors.unix, doors_boot_ns: doors.boot.as_nanos(), boot_id: doors.boot_id.0 };
    let event = EventStatus {
        event: flags.event.clone(),
        revision: 1,
        state: StateRecord::Live,
        epoch: Some(1),
        anchor: Some(anchor),
        live_at: Some(doors.unix),
        ended_at: None,
        newest_part,
        recorded_through: None,
        alarms: Vec::new(),
        late: false,
        seats: Vec::new(),
    };
    OriginStatus { pid: std::process::id(), at: backend::clock::unix_now(), events: vec![event] }
}

/// Records an event that has ended, as fast as the disk takes it.
fn record_past(flags: &StationFlags) -> Result<()> {
    let event: EventSlug = "past".parse().expect("it is a slug");
    let mut doors = now();
    let length = Duration::from_secs(60 * flags.past_minutes);
    doors.unix = doors.unix.minus(length);
    let mut material = Material::silence(&event, doors)?;
    let config = RecorderConfig { directories: vec![flags.data.clone()], sync: Sync::Never };
    let (mut recorder, _) = Recorder::open_with(config, &event, Box::new(DiskFiles))?;
    let live_at = Some(Moment { unix: doors.unix, media: PartNumber::ZERO.start() });
    let mut marks = Marks { doors: doors.unix, live_at, ended_at: None };
    recorder.set_marks(&marks)?;
    for _ in 0..length.as_millis() / PART_DURATION.as_millis() {
        recorder.append(&material.part()?)?;
    }
    let closing = material.close(doors)?;
    let media = closing.end.start();
    marks.ended_at = Some(Moment { unix: doors.unix.plus(media.to_duration()), media });
    recorder.finish(&closing, &marks)?;
    Ok(())
}
