//! One event on the media thread: its show, its programme, its packager, and where their outputs go.
//!
//! ```text
//! packets ─► programme ─ tick ─► returns ─► sessions
//!    │          ▲  └─ parts ─► packager ─► bus, recorder
//!    ▼          │ layers, roles
//!   show ───────┘──► log, marks, anchor ─► recorder
//! ```
//!
//! Frame `[t, t+20 ms)` is made when it is over. The show is told the end of the frame just before, so that a start
//! that lies inside the frame is known when the frame is made, and the layer changes at its very sample.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use archive::{Marks, Moment};
use backend::bus::Bus;
use backend::wire;
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use model::{
    Anchor, BootTime, ClockReading, Digest, Epoch, Event, EventSlug, MediaTime, OPUS_FRAME_SAMPLES,
    PART_SAMPLES, Part, PartKind, PartNumber, SeatId, ShowState, UnixTime,
};
use packager::{ClosingRecords, Opening, Packager, Resume, SilentFrames};
use programme::slate::Slate;
use programme::{Programme, ProgrammeConfig, SourceRole, Speaks};
use stage::{
    Actor, AdmitError, Alarm, Command, CommandError, DirectError, LogItem, Output, SeatChange, Show,
    SourceId, SourceKind, SourceUse,
};
use tokio::sync::{mpsc, watch};

use super::SessionId;
use crate::counters;
use crate::directory::{SeatRow, View};
use crate::files::Line;
use crate::mix::MixKeeper;
use crate::recorder::{RecorderQueue, RecordingState, Task};

/// Frames made in one turn, so that packets are taken in between while catching up.
const TICKS_PER_TURN: u32 = 8;
/// A programme that is further behind its clock begins anew, and what it missed is gaps: the machine slept.
const BEHIND_MAX: Duration = Duration::from_secs(1);
/// Gap parts made in one turn.
const GAPS_PER_TURN: u32 = 32;
/// While gaps are made the recorder keeps this much room, unless it has not had it for [`STALLED_AFTER`].
const RECORDER_ROOM: usize = 32;
const STALLED_AFTER: Duration = Duration::from_secs(2);
/// Parts wait this long for the anchor to be on the disk.
const ANCHOR_PATIENCE: Duration = Duration::from_secs(2);
/// Tasks that wait for room in the recorder's queue; parts beyond that are lost to the recording.
const PENDING_MAX: usize = 1_024;
/// Packets taken from one Ogg stream before each frame.
const STREAM_PACKETS_PER_FRAME: u32 = 64;
const FRAME_SAMPLES: u64 = OPUS_FRAME_SAMPLES as u64;

/// One Opus packet of an Icecast source.
#[derive(Debug)]
pub(crate) struct StreamPacket {
    /// Position of its first sample at 48 kHz.
    pub(crate) position: u64,
    pub(crate) data: Bytes,
    pub(crate) arrival: BootTime,
}

/// An event as it is handed to the media thread.
pub(crate) struct Registration {
    pub(crate) show: Show,
    pub(crate) key: SigningKey,
    pub(crate) anchor: Option<Anchor>,
    /// Where the chain goes on, and this incarnation's number.
    pub(crate) resume: Resume,
    pub(crate) epoch: Epoch,
    /// A packager that has adopted what edges held; `None` if doors are not open yet.
    pub(crate) packager: Option<Packager>,
    /// The recorder that recovery opened.
    pub(crate) recorder: Option<Box<archive::Recorder>>,
    /// Parts that only edges had, already published, to be recorded.
    pub(crate) adopted: Vec<Part>,
    pub(crate) newest: Option<PartNumber>,
    pub(crate) recording: Arc<RecordingState>,
    pub(crate) slate: Slate,
    pub(crate) hold: Slate,
}

/// What a turn leaves to the media thread.
#[derive(Default)]
pub(crate) struct Effects {
    /// Packets for speakers.
    pub(crate) returns: Vec<(SessionId, MediaTime, Bytes)>,
    /// Sessions to close.
    pub(crate) closes: Vec<SessionId>,
    /// Whether the status of origin changed.
    pub(crate) changed: bool,
}

/// How loud a source was.
#[derive(Clone, Copy)]
struct Heard {
    level_dbfs: f32,
    voice: bool,
}

const UNHEARD: Heard = Heard { level_dbfs: -120.0, voice: false };

struct Source {
    kind: SourceKind,
    session: Option<SessionId>,
    packets: Option<mpsc::Receiver<StreamPacket>>,
    /// Loudest frame of the current tenth of a second, and whether a voice was in it.
    heard: Heard,
    /// The same of the last whole one.
    shown: Heard,
}

/// An event on the media thread.
pub(crate) struct Running {
    slug: EventSlug,
    event: Arc<Event>,
    show: Show,
    key: SigningKey,
    anchor: Option<Anchor>,
    resume: Resume,
    epoch: Epoch,
    packager: Option<Packager>,
    programme: Option<Box<Programme>>,
    slate: Slate,
    hold: Slate,
    sources: BTreeMap<SourceId, Source>,
    bus: Arc<dyn Bus>,
    parts_topic: String,
    recording: Arc<RecordingState>,
    recorder: RecorderQueue,
    pending: VecDeque<Task>,
    /// Parts that wait for the anchor to be on the disk.
    held: VecDeque<Part>,
    /// Where mixes are kept, and the one that is.
    mixes: Option<PathBuf>,
    mix: Option<MixKeeper>,
    newest: Option<PartNumber>,
    /// The number after the last part, once the show has ended.
    end: Option<PartNumber>,
    closed: bool,
    /// Since when gaps wait for the recorder.
    stalled_since: Option<BootTime>,
    /// Whether it was said that there are too many programmes.
    crowded: bool,
    view: watch::Sender<Arc<View>>,
    change: u64,
    shown_at: BootTime,
}

impl Running {
    pub(crate) fn new(
        registration: Registration,
        bus: Arc<dyn Bus>,
        recorder: RecorderQueue,
        mixes: Option<PathBuf>,
    ) -> Self {
        let Registration {
            show,
            key,
            anchor,
            resume,
            epoch,
            packager,
            recorder: opened,
            adopted,
            newest,
            recording,
            slate,
            hold,
        } = registration;
        let event = Arc::new(show.event().clone());
        let slug = event.slug.clone();
        let view = watch::Sender::new(Arc::new(View {
            event: event.clone(),
            state: show.state().clone(),
            doors_at: show.doors_at(),
            live_at: show.live_at(),
            ended_at: show.ended_at(),
            anchor,
            epoch: None,
            newest,
            recorded_through: recording.recorded_through(),
            alarms: Vec::new(),
            seats: Vec::new(),
            closed: false,
            change: 0,
        }));
        let mut running = Self {
            parts_topic: format!("parts/{slug}"),
            slug,
            event,
            show,
            key,
            anchor,
            resume,
            epoch,
            packager,
            programme: None,
            slate,
            hold,
            sources: BTreeMap::new(),
            bus,
            recording,
            recorder,
            pending: VecDeque::new(),
            held: VecDeque::new(),
            mixes,
            mix: None,
            newest,
            end: None,
            closed: false,
            stalled_since: None,
            crowded: false,
            view,
            change: 1,
            shown_at: BootTime::default(),
        };
        if running.packager.is_some() {
            running.task(Task::Open(opened));
            for part in adopted {
                running.task(Task::Part(part));
            }
        }
        if let (ShowState::Ended, Some(ended_at)) = (running.show.state(), running.show.ended_at()) {
            running.plan_end(ended_at);
        }
        running
    }

    /// A way to follow it.
    pub(crate) fn follow(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    pub(crate) fn slug(&self) -> &EventSlug {
        &self.slug
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn ended_at(&self) -> Option<UnixTime> {
        self.show.ended_at()
    }

    /// Whether a programme is running.
    pub(crate) fn has_programme(&self) -> bool {
        self.programme.is_some()
    }

    /// The part whose frames are being made.
    pub(crate) fn part_in_progress(&self) -> Option<PartNumber> {
        self.programme.as_ref().map(|programme| programme.position().part())
    }

    /// The newest part published.
    pub(crate) fn newest(&self) -> Option<PartNumber> {
        self.newest
    }

    /// Whether everything the recorder is to do has been handed to it.
    pub(crate) fn is_handed_over(&self) -> bool {
        self.pending.is_empty() && self.held.is_empty()
    }

    /// Forgets what was published: nobody comes back for it.
    pub(crate) fn retire(&self) {
        self.bus.retire(&self.parts_topic);
    }

    /// When it wants to be called next, if it has a programme.
    pub(crate) fn due(&self) -> Option<BootTime> {
        self.programme.as_ref().map(|programme| programme.due())
    }

    /// The event's time at `boot`.
    fn unix(&self, reading: ClockReading) -> UnixTime {
        self.anchor.map_or(reading.unix, |anchor| anchor.unix_at(reading.boot))
    }

    /// Takes the event as control changed it.
    pub(crate) fn update(&mut self, event: Event, reading: ClockReading, effects: &mut Effects) {
        if self.show.update_event(event, self.unix(reading)) {
            self.event = Arc::new(self.show.event().clone());
            self.changed(effects);
        }
        self.drain(reading, effects);
    }

    /// Replaces the slate before the start.
    pub(crate) fn set_slate(&mut self, slate: Slate) {
        if let Some(programme) = &mut self.programme {
            programme.set_slate(slate.clone());
        }
        self.slate = slate;
    }

    /// Lets a source in.
    pub(crate) fn admit(
        &mut self,
        seat: SeatId,
        kind: SourceKind,
        standby: bool,
        feed: Feed,
        reading: ClockReading,
        effects: &mut Effects,
    ) -> Result<SourceId, AdmitError> {
        let admitted = self.show.add_source(seat, kind, standby, self.unix(reading));
        if let Ok(admitted) = admitted {
            let (session, packets) = match feed {
                Feed::Session(session) => (Some(session), None),
                Feed::Stream(packets) => (None, Some(packets)),
            };
            let source = Source { kind, session, packets, heard: UNHEARD, shown: UNHEARD };
            self.sources.insert(admitted.source, source);
            self.changed(effects);
        }
        self.drain(reading, effects);
        admitted.map(|admitted| admitted.source)
    }

    /// A source's connection has ended.
    pub(crate) fn remove_source(&mut self, source: SourceId, reading: ClockReading, effects: &mut Effects) {
        self.show.remove_source(source, self.unix(reading));
        self.drain(reading, effects);
    }

    /// A packet of a WebRTC source.
    pub(crate) fn sound(
        &mut self,
        source: SourceId,
        sequence: u64,
        timestamp: u32,
        payload: &[u8],
        reading: ClockReading,
        effects: &mut Effects,
    ) {
        self.show.handle_packet(source, self.unix(reading));
        self.drain(reading, effects);
        if let Some(programme) = &mut self.programme {
            let id = programme::SourceId(source.0);
            programme.push_rtp(id, sequence, timestamp, payload, reading.boot);
        }
    }

    pub(crate) fn direct(
        &mut self,
        by: Actor,
        seat: SeatId,
        change: SeatChange,
        reading: ClockReading,
        effects: &mut Effects,
    ) -> Result<bool, DirectError> {
        let result = self.show.direct(by, seat, change, self.unix(reading));
        self.drain(reading, effects);
        self.show_view(reading.boot, effects);
        result
    }

    pub(crate) fn command(
        &mut self,
        command: Command,
        reading: ClockReading,
        effects: &mut Effects,
    ) -> Result<bool, CommandError> {
        let result = self.show.command(command, self.unix(reading));
        self.drain(reading, effects);
        self.show_view(reading.boot, effects);
        result
    }

    /// Does what is due at `reading`. `may_start` says whether another programme may be started. Returns whether
    /// more is due at once.
    pub(crate) fn advance(&mut self, reading: ClockReading, may_start: bool, effects: &mut Effects) -> bool {
        self.hand_over();
        if self.closed {
            return false;
        }
        if self.is_behind(reading.boot) {
            tracing::warn!(event = %self.slug, "the programme lost its time; what is missing becomes gaps");
            self.programme = None;
            self.mix = None;
        }
        if self.programme.is_none() {
            self.take_streams(reading, effects);
            let now = self.unix(reading);
            // There may be thousands of events to come, and nothing to do for them.
            if self.show.poll_timeout().is_some_and(|due| due <= now) {
                self.show.handle_timeout(now);
                self.drain(reading, effects);
            }
            if self.packager.is_some() && !self.fill(reading.boot, effects) {
                return true;
            }
            if self.packager.is_some() && !self.closed {
                if may_start {
                    self.start_programme(reading.boot);
                } else if !std::mem::replace(&mut self.crowded, true) {
                    tracing::error!(
                        event = %self.slug,
                        "no programme can be started: as many as origin.programmes_max allows are running"
                    );
                }
            }
        }
        for _ in 0..TICKS_PER_TURN {
            if self.due().is_none_or(|due| due > reading.boot) {
                return false;
            }
            self.tick(reading, effects);
        }
        self.due().is_some_and(|due| due <= reading.boot)
    }

    /// What is looked at once a second.
    pub(crate) fn watch(&mut self, reading: ClockReading, effects: &mut Effects) {
        if self.closed {
            return;
        }
        let now = self.unix(reading);
        if let Some(anchor) = self.anchor {
            let stepped = anchor.wall_offset_ms(reading).abs() > 1_000;
            self.show.set_alarm(Alarm::ClockStep, stepped, now);
        }
        self.show.set_alarm(Alarm::Recorder, self.recording.is_failing(), now);
        self.drain(reading, effects);
    }

    /// Puts what changed into the view: levels ten times a second, everything else at once.
    pub(crate) fn show_view(&mut self, boot: BootTime, effects: &mut Effects) {
        let last = self.view.borrow().clone();
        let recorded_through = self.recording.recorded_through();
        let counted = last.recorded_through != recorded_through || last.newest != self.newest;
        let levels = self.programme.is_some() && boot.since(self.shown_at) >= Duration::from_millis(100);
        if last.change == self.change && !counted && !levels {
            return;
        }
        if levels {
            self.shown_at = boot;
            for source in self.sources.values_mut() {
                source.shown = std::mem::replace(&mut source.heard, UNHEARD);
            }
        }
        let seats: Vec<SeatRow> = self
            .show
            .seats()
            .map(|seat| {
                let source = seat.active.and_then(|id| self.sources.get(&id)).filter(|_| seat.connected);
                let Heard { level_dbfs, voice } = source.map_or(UNHEARD, |source| source.shown);
                let stats =
                    seat.active.and_then(|id| self.programme.as_ref()?.stats(programme::SourceId(id.0)));
                SeatRow { level_dbfs, speaking: voice, stats, seat }
            })
            .collect();
        let same = |old: &SeatRow, new: &SeatRow| old.seat == new.seat && old.speaking == new.speaking;
        let moved = last.seats.len() != seats.len()
            || !last.seats.iter().zip(&seats).all(|(old, new)| same(old, new));
        if moved && last.change == self.change {
            self.change += 1;
        }
        effects.changed |= last.change != self.change;
        self.view.send_replace(Arc::new(View {
            event: self.event.clone(),
            state: self.show.state().clone(),
            doors_at: self.show.doors_at(),
            live_at: self.show.live_at(),
            ended_at: self.show.ended_at(),
            anchor: self.anchor,
            epoch: self.anchor.map(|_| self.epoch),
            newest: self.newest,
            recorded_through,
            alarms: self.show.alarms().collect(),
            seats,
            closed: self.closed,
            change: self.change,
        }));
    }

    fn changed(&mut self, effects: &mut Effects) {
        self.change += 1;
        effects.changed = true;
    }

    /// Performs what the show has decided.
    fn drain(&mut self, reading: ClockReading, effects: &mut Effects) {
        let mut lines = Vec::new();
        while let Some(output) = self.show.poll_output() {
            self.changed(effects);
            match output {
                Output::OpenDoors { doors } => self.open_doors(doors, reading),
                Output::State { at, state } => {
                    tracing::info!(event = %self.slug, state = state.name(), %at, "the show moved");
                    let ended = state == ShowState::Ended;
                    if let Some(marks) = self.marks() {
                        self.task(Task::Marks(marks));
                    }
                    if ended {
                        self.plan_end(at);
                    }
                }
                Output::Layer { layer, at } => {
                    let at = self.anchor.map(|anchor| anchor.media_of(at));
                    if let Some(programme) = &mut self.programme {
                        programme.set_layer(layer_of(layer), at);
                    }
                }
                Output::Use { source, to } => self.use_source(source, to),
                Output::Close { source, why } => {
                    tracing::info!(event = %self.slug, source = source.0, why = why.name(), "a source is gone");
                    if let Some(programme) = &mut self.programme {
                        programme.remove_source(programme::SourceId(source.0));
                    }
                    if let Some(gone) = self.sources.remove(&source) {
                        effects.closes.extend(gone.session);
                    }
                }
                Output::Alarm { alarm, raised: true } => {
                    counters::ALARMS.increment();
                    tracing::warn!(event = %self.slug, alarm = alarm.name(), "alarm");
                }
                Output::Alarm { alarm, raised: false } => {
                    tracing::info!(event = %self.slug, alarm = alarm.name(), "the alarm is over");
                }
                Output::Log(entry) => {
                    if let LogItem::SourceHeard { seat, source } = &entry.item {
                        tracing::info!(event = %self.slug, seat = seat.0, source = source.0, "a source is heard");
                    }
                    lines.push(Line::from(&entry));
                }
            }
        }
        if !lines.is_empty() {
            self.task(Task::Log(lines));
        }
    }

    /// What the next signatures are to witness.
    pub(crate) fn set_ledger_head(&mut self, head: Digest) {
        if let Some(packager) = &mut self.packager {
            packager.set_ledger_head(head);
        }
    }

    fn open_doors(&mut self, doors: UnixTime, reading: ClockReading) {
        let anchor = Anchor::new(doors, reading);
        tracing::info!(event = %self.slug, %doors, epoch = self.epoch.0, "doors are open");
        self.anchor = Some(anchor);
        self.task(Task::Anchor(anchor));
        self.task(Task::Log(vec![Line::epoch(doors, self.epoch)]));
        self.task(Task::Open(None));
        self.packager =
            open_packager(&self.slug, &self.key, self.epoch, anchor, reading, self.resume.clone());
    }

    fn marks(&self) -> Option<Marks> {
        let anchor = self.anchor?;
        let moment = |unix: UnixTime| Moment { unix, media: anchor.media_of(unix) };
        Some(Marks {
            doors: anchor.doors,
            live_at: self.show.live_at().map(moment),
            ended_at: self.show.ended_at().map(moment),
        })
    }

    /// The last part is the one that holds the moment of the end.
    fn plan_end(&mut self, ended_at: UnixTime) {
        match self.anchor {
            Some(anchor) if self.packager.is_some() => {
                let samples = anchor.media_of(ended_at).samples();
                self.end = Some(PartNumber::new(samples.div_ceil(PART_SAMPLES)));
            }
            _ => self.closed = true,
        }
    }

    fn use_source(&mut self, source: SourceId, to: SourceUse) {
        let Some(kind) = self.sources.get(&source).map(|source| source.kind) else { return };
        let Some(programme) = &mut self.programme else { return };
        let id = programme::SourceId(source.0);
        if programme.role(id).is_none() {
            let kind = match kind {
                SourceKind::Rtp => programme::SourceKind::Rtp,
                SourceKind::Stream => programme::SourceKind::Ogg,
            };
            if let Err(error) = programme.add_source(id, kind) {
                tracing::error!(event = %self.slug, %error, "the programme took no more sources");
                return;
            }
        }
        programme.set_role(
            id,
            SourceRole {
                seat: to.seat.0,
                speaks: if to.in_mix { Speaks::Stage } else { Speaks::Nowhere },
                hears: programme::Hears::Stage,
            },
        );
    }

    fn is_behind(&self, boot: BootTime) -> bool {
        self.due().is_some_and(|due| boot.since(due) > BEHIND_MAX)
    }

    /// Makes gaps of what was due before now and never made. Says whether nothing is missing any more.
    fn fill(&mut self, boot: BootTime, effects: &mut Effects) -> bool {
        let (Some(anchor), Some(packager)) = (self.anchor, &self.packager) else { return true };
        let clock = anchor.media_at(boot).part();
        let until = self.end.map_or(clock, |end| end.min(clock));
        let mut next = packager.next();
        for _ in 0..GAPS_PER_TURN {
            if next >= until {
                break;
            }
            // The disk may be slower than we are, and is waited for; a disk that hangs is not.
            if self.recorder.free() < RECORDER_ROOM {
                let since = *self.stalled_since.get_or_insert(boot);
                if boot.since(since) < STALLED_AFTER {
                    return false;
                }
            } else {
                self.stalled_since = None;
            }
            let Some(packager) = &mut self.packager else { return true };
            match packager.gap(next) {
                Ok(part) => self.hand_out(part, effects),
                Err(error) => return self.fail(&error),
            }
            next = next.next();
        }
        if self.end.is_some_and(|end| next >= end) {
            self.close(effects);
            return true;
        }
        next >= until
    }

    fn start_programme(&mut self, boot: BootTime) {
        let (Some(anchor), Some(packager)) = (self.anchor, &self.packager) else { return };
        let first = packager.next().max(anchor.media_at(boot).part());
        let config = ProgrammeConfig::new(anchor.doors_boot);
        let mut programme = Programme::new(config, self.slate.clone(), self.hold.clone(), first);
        let layer = match self.show.state() {
            ShowState::Scheduled | ShowState::Doors => None,
            ShowState::Hold { .. } => Some(programme::Layer::Hold),
            _ if self.show.silence_hold() => Some(programme::Layer::Hold),
            _ => Some(programme::Layer::Stage),
        };
        if let Some(layer) = layer {
            // Live from the beginning of doors, or again after a restart; a start inside the first frame is exact.
            let live = self.show.live_at().map(|at| anchor.media_of(at)).filter(|at| *at > first.start());
            programme.set_layer(layer, live);
        }
        self.programme = Some(Box::new(programme));
        if let Some(data) = &self.mixes {
            self.mix = MixKeeper::start(data, &self.slug, self.epoch, first.start())
                .inspect_err(|error| tracing::warn!(event = %self.slug, %error, "the mix cannot be kept"))
                .ok();
        }
        let uses: Vec<(SourceId, SourceUse)> =
            self.sources.keys().filter_map(|id| self.show.source_use(*id).map(|to| (*id, to))).collect();
        for (source, to) in uses {
            self.use_source(source, to);
        }
        tracing::info!(event = %self.slug, part = first.get(), "the programme is on air");
    }

    fn tick(&mut self, reading: ClockReading, effects: &mut Effects) {
        let (Some(anchor), Some(programme)) = (self.anchor, &self.programme) else { return };
        let end = anchor.unix_of(programme.position().plus(FRAME_SAMPLES));
        let late = reading.boot.since(programme.due()) > Duration::from_millis(20);
        self.take_streams(reading, effects);
        self.show.handle_timeout(end);
        self.drain(reading, effects);
        let Some(programme) = &mut self.programme else { return };
        let tick = programme.tick();
        if let Some(mix) = &self.mix {
            mix.push(tick.at, &tick.programme);
        }
        counters::TICKS.increment();
        counters::TICKS_LATE.add(u64::from(late));
        let mut voice = false;
        for level in &tick.levels {
            let id = SourceId(level.id.0);
            if let Some(source) = self.sources.get_mut(&id) {
                source.heard.level_dbfs = source.heard.level_dbfs.max(level.level_dbfs);
                source.heard.voice |= level.voice;
            }
            voice |= level.voice && self.show.source_use(id).is_some_and(|to| to.in_mix);
        }
        for (id, packet) in tick.returns {
            let session = self.sources.get(&SourceId(id.0)).and_then(|source| source.session);
            effects.returns.extend(session.map(|session| (session, tick.at, packet)));
        }
        if voice {
            self.show.handle_voice(end);
            self.drain(reading, effects);
        }
        self.take_parts(effects);
    }

    fn take_parts(&mut self, effects: &mut Effects) {
        while let Some(frames) = self.programme.as_mut().and_then(|programme| programme.poll_part()) {
            let Some(packager) = &mut self.packager else { return };
            let pushed = packager.push(packager::PartFrames {
                number: frames.number,
                kind: frames.kind,
                opus24: frames.opus24,
                opus48: frames.opus48,
                mp3: frames.mp3,
            });
            match pushed {
                Ok(part) => self.hand_out(part, effects),
                Err(error) => {
                    self.fail(&error);
                    return;
                }
            }
            if self.end.is_some_and(|end| frames.number.next() >= end) {
                self.close(effects);
            }
        }
    }

    /// A part could not be made: our bug. The programme begins anew behind it.
    fn fail(&mut self, error: &dyn std::fmt::Display) -> bool {
        counters::PACK_ERRORS.increment();
        tracing::error!(event = %self.slug, %error, "a part could not be made");
        self.programme = None;
        self.mix = None;
        false
    }

    /// Publishes a part at once and has it recorded.
    fn hand_out(&mut self, part: Part, effects: &mut Effects) {
        match part.kind {
            PartKind::Gap => counters::GAPS.increment(),
            _ => counters::PARTS.increment(),
        }
        // A number must not be heard by anyone before the disk knows the timeline it belongs to.
        if !self.recording.is_anchored() {
            let patient = self.held.front().is_none_or(|first| {
                part.number.start().since(first.number.start())
                    < MediaTime::from_duration(ANCHOR_PATIENCE).samples()
            });
            if patient {
                counters::HELD_BACK.increment();
                self.held.push_back(part);
                return;
            }
        }
        self.release();
        self.publish(part);
        effects.changed |= self.newest.is_none();
    }

    fn release(&mut self) {
        for part in std::mem::take(&mut self.held) {
            self.publish(part);
        }
    }

    fn publish(&mut self, part: Part) {
        self.bus.publish(&self.parts_topic, part.number.get(), wire::encode_part(&part));
        self.newest = Some(part.number);
        self.task(Task::Part(part));
    }

    /// Ends the programme: signs what is left and closes the recording.
    fn close(&mut self, effects: &mut Effects) {
        self.programme = None;
        self.mix = None;
        self.closed = true;
        self.release();
        let (Some(mut packager), Some(marks)) = (self.packager.take(), self.marks()) else { return };
        let closing: Result<ClosingRecords, _> =
            packager.close(marks.ended_at.map_or(marks.doors, |ended| ended.unix));
        match closing {
            Ok(closing) => self.task(Task::Finish(closing, marks)),
            Err(error) => tracing::error!(event = %self.slug, %error, "the event could not be closed"),
        }
        self.changed(effects);
    }

    /// Gives the recorder a task, after those that wait already.
    fn task(&mut self, task: Task) {
        if self.pending.len() >= PENDING_MAX && matches!(task, Task::Part(_) | Task::Log(_)) {
            counters::RECORDER_LOST.increment();
            return;
        }
        self.pending.push_back(task);
        self.hand_over();
    }

    pub(crate) fn hand_over(&mut self) {
        if !self.held.is_empty() && self.recording.is_anchored() {
            self.release();
        }
        while self.recorder.free() > 0
            && let Some(task) = self.pending.pop_front()
        {
            self.recorder.push(&self.slug, &self.recording, task);
        }
    }

    /// Takes in what Icecast sources have sent. What the programme has no room for stays in the channel, and then in
    /// the sender's socket.
    fn take_streams(&mut self, reading: ClockReading, effects: &mut Effects) {
        let now = self.unix(reading);
        let mut gone = Vec::new();
        for (id, source) in &mut self.sources {
            let Some(packets) = &mut source.packets else { continue };
            let programme_id = programme::SourceId(id.0);
            for _ in 0..STREAM_PACKETS_PER_FRAME {
                let full = self
                    .programme
                    .as_ref()
                    .is_some_and(|programme| programme.backlog(programme_id) > Programme::OGG_BACKLOG_MAX);
                if full {
                    // It is alive all the same: we keep it waiting, not the other way round.
                    self.show.handle_packet(*id, now);
                    break;
                }
                match packets.try_recv() {
                    Ok(packet) => {
                        self.show.handle_packet(*id, now);
                        if let Some(programme) = &mut self.programme {
                            programme.push_ogg(programme_id, packet.position, &packet.data, packet.arrival);
                        }
                    }
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => {
                        gone.push(*id);
                        break;
                    }
                }
            }
        }
        for id in gone {
            self.show.remove_source(id, now);
        }
        if self.sources.values().any(|source| source.packets.is_some()) {
            self.drain(reading, effects);
        }
    }
}

/// Where a source's packets come from.
pub(crate) enum Feed {
    /// A WebRTC session of this thread.
    Session(SessionId),
    /// A task that reads an Icecast source.
    Stream(mpsc::Receiver<StreamPacket>),
}

/// Opens the packager of an incarnation. That it fails would be a bug of ours; the stage goes on without it.
pub(crate) fn open_packager(
    slug: &EventSlug,
    key: &SigningKey,
    epoch: Epoch,
    anchor: Anchor,
    now: ClockReading,
    resume: Resume,
) -> Option<Packager> {
    let doors = anchor.doors;
    let silence = SilentFrames::standard();
    Packager::open(Opening { event: slug, key, epoch, doors, now, resume, silence })
        .inspect_err(|error| tracing::error!(event = %slug, %error, "the packager cannot go on"))
        .ok()
}

fn layer_of(layer: stage::Layer) -> programme::Layer {
    match layer {
        stage::Layer::Slate => programme::Layer::Slate,
        stage::Layer::Stage => programme::Layer::Stage,
        stage::Layer::Hold => programme::Layer::Hold,
    }
}
