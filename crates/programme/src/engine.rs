//! The programme itself: sources in, returns and parts out.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{BootTime, MediaTime, OPUS_FRAME_SAMPLES, PartNumber};

use crate::codec::OpusLibrary;
use crate::encode::{self, Renditions};
use crate::layers::Layers;
use crate::level::{SILENCE_DB, Trim, power, to_db};
use crate::limiter::{CEILING_DBTP, Limiter};
use crate::returns::Returns;
use crate::slate::Slate;
use crate::source::Source;
use crate::{
    Frame, Layer, PartFrames, ProgrammeConfig, Room, SILENT_FRAME, SilentFrames, SourceId, SourceKind,
    SourceLevel, SourceRole, SourceStats, Tick, UnknownSource, mix,
};

/// The silent frames that gap parts are made of. Always the same bytes. Takes a few milliseconds; keep them.
pub fn silent_frames() -> SilentFrames {
    encode::silence(OpusLibrary::default()).expect("the encoders take their own settings")
}

/// The programme of one event. `Send`; pure.
pub struct Programme {
    config: ProgrammeConfig,
    position: MediaTime,
    sources: BTreeMap<SourceId, Source>,
    /// Removed sources, for the one frame in which they fade out.
    leaving: Vec<Source>,
    returns: Returns,
    trim: Trim,
    layers: Layers,
    limiter: Limiter,
    meter: ebur128::EbuR128,
    renditions: Renditions,
}

impl Programme {
    /// See [`Self::backlog`].
    pub const OGG_BACKLOG_MAX: Duration = Duration::from_millis(2_500);

    /// A programme whose first part is `first`; what lies before counts as never made. `slate` is on air.
    pub fn new(config: ProgrammeConfig, slate: Slate, hold: Slate, first: PartNumber) -> Self {
        let renditions = Renditions::new(first, Limiter::DELAY, config.opus)
            .expect("the encoders take their own settings");
        let meter = ebur128::EbuR128::new(1, model::SAMPLE_RATE, ebur128::Mode::I | ebur128::Mode::HISTOGRAM)
            .expect("one channel at 48 kHz is measured");
        Self {
            position: first.start(),
            sources: BTreeMap::new(),
            leaving: Vec::new(),
            returns: Returns::new(config.opus),
            trim: Trim::new(),
            layers: Layers::new(slate, hold),
            limiter: Limiter::new(CEILING_DBTP),
            meter,
            renditions,
            config,
        }
    }

    /// When [`Self::tick`] is due next: the end of its frame on the machine's clock. Push what has arrived by then,
    /// then tick.
    pub fn due(&self) -> BootTime {
        self.config.doors.plus(self.position.plus(OPUS_FRAME_SAMPLES as u64).to_duration())
    }

    /// First sample of the next frame.
    pub fn position(&self) -> MediaTime {
        self.position
    }

    /// Adds a source, silent and deaf until [`Self::set_role`].
    ///
    /// # Errors
    /// [`UnknownSource`] if the id is taken or there are too many.
    pub fn add_source(&mut self, id: SourceId, kind: SourceKind) -> Result<(), UnknownSource> {
        if self.sources.contains_key(&id) || self.sources.len() >= self.config.max_sources {
            return Err(UnknownSource(id));
        }
        let decoder = self.config.opus.decoder().map_err(|_| UnknownSource(id))?;
        self.sources.insert(id, Source::new(kind, decoder));
        Ok(())
    }

    /// Removes a source; what it was saying fades out within 5 ms. Unknown ids are ignored.
    pub fn remove_source(&mut self, id: SourceId) {
        if let Some(mut source) = self.sources.remove(&id) {
            source.set_role(SourceRole { seat: source.role().seat, ..SourceRole::default() });
            self.leaving.push(source);
        }
    }

    /// Places a source. Changes fade within 5 ms. Unknown ids are ignored.
    pub fn set_role(&mut self, id: SourceId, role: SourceRole) {
        if let Some(source) = self.sources.get_mut(&id) {
            source.set_role(role);
        }
    }

    /// A source's place.
    pub fn role(&self, id: SourceId) -> Option<SourceRole> {
        self.sources.get(&id).map(Source::role)
    }

    /// One RTP packet's Opus payload (RFC 7587). `sequence` is the 16-bit sequence number or any extension of it; only
    /// its low 16 bits are used. `timestamp` counts at 48 kHz. Empty payloads are dropped and counted as invalid.
    pub fn push_rtp(
        &mut self,
        id: SourceId,
        sequence: u64,
        timestamp: u32,
        payload: &[u8],
        arrival: BootTime,
    ) {
        let arrival = self.media_time(arrival);
        if let Some(source) = self.sources.get_mut(&id) {
            source.push_rtp(sequence as u16, timestamp, payload, arrival);
        }
    }

    /// One Opus packet from an Ogg stream (RFC 7845). `timestamp` is the position of its first sample at 48 kHz, counted
    /// from the stream's beginning (granule position of the page worked back through the packets' durations). A hole of
    /// up to a second is a pause; any other jump, as at the start of a chained stream, is closed.
    pub fn push_ogg(&mut self, id: SourceId, timestamp: u64, payload: &[u8], arrival: BootTime) {
        let arrival = self.media_time(arrival);
        if let Some(source) = self.sources.get_mut(&id) {
            source.push_ogg(timestamp, payload, arrival);
        }
    }

    /// How much sound a source has waiting. For an Ogg source the shell stops reading the socket while this is over
    /// [`Self::OGG_BACKLOG_MAX`], so that a sender faster than its clock is slowed by TCP instead of cut.
    pub fn backlog(&self, id: SourceId) -> Duration {
        let samples = self.sources.get(&id).map_or(0, Source::backlog);
        MediaTime::from_samples(samples).to_duration()
    }

    /// Puts a layer on air, at the sample `at` if that lies ahead, otherwise with the next frame. Fades take at most
    /// 10 ms. The latest call wins; what was planned before is forgotten.
    pub fn set_layer(&mut self, layer: Layer, at: Option<MediaTime>) {
        self.layers.plan(layer, at.unwrap_or(self.position).max(self.position));
    }

    /// What is on air now.
    pub fn layer(&self) -> Layer {
        self.layers.on_air()
    }

    /// Replaces the slate before the start; a slate on air is crossfaded.
    pub fn set_slate(&mut self, slate: Slate) {
        self.layers.set_slate(slate);
    }

    /// Makes the next 20 ms. Never skips: call it once for every frame that is due, also when late.
    pub fn tick(&mut self) -> Tick {
        let at = self.position;
        let due = i64::try_from(at.samples()).unwrap_or(i64::MAX / 2) + OPUS_FRAME_SAMPLES as i64;
        self.renditions.note(at, self.layers.on_air_at(at).part_kind());

        for source in self.sources.values_mut().chain(&mut self.leaving) {
            source.pull(due);
        }
        let (mut programme, voice) = self.mix_stage();
        let returns = self.returns.make(&self.sources, &self.leaving);
        self.leaving.clear();

        self.layers.run(at, &mut programme);
        self.limiter.run(&mut programme);
        if self.layers.only_stage() {
            self.trim.measure(&programme, voice);
        }
        let programme_dbfs = to_db(power(&programme)).clamp(SILENCE_DB, 0.0);
        self.meter.add_frames_f32(&programme).expect("whole frames of one channel");
        self.renditions.push(&programme);
        self.position = at.plus(OPUS_FRAME_SAMPLES as u64);

        let levels = self
            .sources
            .iter()
            .map(|(id, source)| SourceLevel {
                id: *id,
                level_dbfs: source.level_dbfs(),
                voice: source.voice(),
            })
            .collect();
        Tick { at, returns, levels, layer: self.layers.on_air(), programme_dbfs, programme }
    }

    /// The stage as it goes on air: every open microphone by its share, the whole brought to level; and whether what is
    /// heard is worth measuring: voices, all of them brought to level.
    fn mix_stage(&mut self) -> (Frame, bool) {
        let mut programme = SILENT_FRAME;
        let open = |source: &&mut Source| source.part(Room::Stage).is_some();
        let total: f32 =
            self.sources.values_mut().chain(&mut self.leaving).filter(open).map(Source::push_share).sum();
        let (mut voice, mut settled) = (false, true);
        for source in self.sources.values_mut().chain(&mut self.leaving).filter(open) {
            voice |= source.voice();
            settled &= source.settled() || !source.voice();
            source.add_share(total, &mut programme);
        }
        self.trim.apply(&mut programme);
        (programme, voice && settled)
    }

    /// The next complete part, in ascending order without holes from the first.
    pub fn poll_part(&mut self) -> Option<PartFrames> {
        self.renditions.poll()
    }

    /// Frames that an encoder refused and that were replaced by silence, and parts that nobody took in time. Both are
    /// bugs; both stay 0.
    pub fn failures(&self) -> (u64, u64) {
        (self.renditions.refused, self.renditions.dropped)
    }

    /// Counters of a source.
    pub fn stats(&self, id: SourceId) -> Option<SourceStats> {
        self.sources.get(&id).map(Source::stats)
    }

    /// All sources, in the order of ids.
    pub fn sources(&self) -> impl Iterator<Item = SourceId> + '_ {
        self.sources.keys().copied()
    }

    /// Loudness of the programme so far (integrated, EBU R 128), LUFS; −120 before there is any.
    pub fn loudness_lufs(&self) -> f32 {
        let loudness = self.meter.loudness_global().expect("the meter was made for this");
        (loudness as f32).max(SILENCE_DB)
    }

    /// A moment of the machine's clock on the event's timeline, in samples; negative before doors.
    fn media_time(&self, moment: BootTime) -> i64 {
        let nanos = i128::from(moment.as_nanos()) - i128::from(self.config.doors.as_nanos());
        i64::try_from(nanos * 48 / 1_000_000).unwrap_or(0)
    }
}

/// Adds `frame` to `mix`, if there is one.
pub(crate) fn add_part(part: Option<&Frame>, mix: &mut Frame) {
    if let Some(frame) = part {
        mix::add(frame, mix);
    }
}
