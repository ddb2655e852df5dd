//! What goes into the programme and comes out of it.

use bytes::Bytes;
use model::{BootTime, MediaTime, PartKind, PartNumber};

use crate::codec::OpusLibrary;

/// One connection that sends audio. Chosen by the shell; never reused while the source is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u32);

/// How a source's packets arrive, which decides how far its buffer may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// RTP: one packet at a time, possibly lost or out of order. Buffer of 20 to 200 ms.
    Rtp,
    /// Ogg/Opus over TCP: in order, in bursts of up to a page (1 s). Buffer of 60 ms to 2.5 s.
    Ogg,
}

/// Which mix a source's sound goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speaks {
    /// None: muted, or a standby. It is still decoded, levelled and listened to for voice.
    #[default]
    Nowhere,
    /// The stage mix: on air while [`Layer::Stage`] is.
    Stage,
    /// The green room's mix, never on air.
    GreenRoom,
}

/// Which mix is returned to a source. It never contains what its own seat speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hears {
    /// None; no packets are made for it.
    #[default]
    Nothing,
    /// The stage.
    Stage,
    /// The green room.
    GreenRoom,
}

/// A source's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceRole {
    /// The seat (person) it belongs to. Sources of one seat never hear each other and share one return.
    pub seat: u16,
    /// Where it is heard.
    pub speaks: Speaks,
    /// What it hears. If its seat speaks there, a mix-minus of its own; otherwise the mix shared by all who only
    /// listen.
    pub hears: Hears,
}

/// What is on air.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The slate before the start.
    Slate,
    /// The stage.
    Stage,
    /// The hold slate.
    Hold,
}

/// Settings of a programme. All values have defaults that broadcast practice would choose.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ProgrammeConfig {
    /// Where media time 0 lies on the machine's clock ([`model::Anchor::doors_boot`]).
    pub doors: BootTime,
    /// Most sources at once; more are refused. Default 64.
    pub max_sources: usize,
    /// Which library encodes and decodes Opus. Default ropus.
    pub opus: OpusLibrary,
}

impl Layer {
    /// What a part that begins with this layer is called.
    pub const fn part_kind(self) -> PartKind {
        match self {
            Self::Slate => PartKind::Slate,
            Self::Stage => PartKind::Live,
            Self::Hold => PartKind::Hold,
        }
    }
}

impl ProgrammeConfig {
    /// Defaults, for a timeline that begins at `doors`.
    pub fn new(doors: BootTime) -> Self {
        Self { doors, max_sources: 64, opus: OpusLibrary::default() }
    }
}

/// No source of this id (or, when adding, no room for one more, or one of this id is there already).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("source {0:?} is unknown, already there, or one too many")]
pub struct UnknownSource(pub SourceId);

/// What one tick made.
#[derive(Clone, Debug)]
pub struct Tick {
    /// First sample of the 20 ms frame that was made.
    pub at: MediaTime,
    /// One Opus packet of 20 ms (mono, with in-band FEC) for every source that hears something, in the order of ids.
    /// Packets of those who share a mix share their bytes.
    pub returns: Vec<(SourceId, Bytes)>,
    /// Level and voice of every source in this frame, in the order of ids.
    pub levels: Vec<SourceLevel>,
    /// What was on air at the end of this frame.
    pub layer: Layer,
    /// Level (RMS) of the programme in this frame, dBFS, −120 to 0.
    pub programme_dbfs: f32,
    /// The frame as it goes to the encoders, full scale ±1.0: the mix, for whoever keeps or meters it.
    pub programme: [f32; model::OPUS_FRAME_SAMPLES],
}

/// A source in one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SourceLevel {
    /// Which.
    pub id: SourceId,
    /// RMS of the frame as it arrived, before levelling, dBFS, −120 to 0.
    pub level_dbfs: f32,
    /// Whether this is a voice (or another sound that is not background): rises within 60 ms, falls 400 ms after the
    /// last sound. Independent of [`Speaks`], so that the stage core can let a hold yield to speech.
    pub voice: bool,
}

/// Counters and estimates of a source, cheap to read at every tick.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SourceStats {
    /// Packets with audio taken in.
    pub packets: u64,
    /// Packets that never came in time (RTP: by sequence number; Ogg: by granule position).
    pub lost: u64,
    /// Packets that came after their turn.
    pub late: u64,
    /// Packets that came twice.
    pub duplicate: u64,
    /// Packets that could not be decoded, or were dropped as empty or absurd.
    pub invalid: u64,
    /// Packets rebuilt from the next one's forward error correction.
    pub fec_used: u64,
    /// Sound made up to bridge losses, milliseconds in total.
    pub concealed_ms: u64,
    /// Fresh starts: timestamp jumps, sequence restarts, overflows.
    pub resyncs: u64,
    /// Delay the buffer aims at, from arrival of a packet until its last sample is mixed, milliseconds.
    pub target_ms: f32,
    /// The delay as it is, milliseconds.
    pub delay_ms: f32,
    /// How much faster than the programme's the sender's clock runs, parts per million.
    pub drift_ppm: f32,
    /// RMS of the last frame before levelling, dBFS, −120 to 0.
    pub level_dbfs: f32,
    /// Loudness of what was said lately, before levelling, LUFS; −120 if nothing was.
    pub loudness_lufs: f32,
    /// Gain applied by levelling, dB.
    pub gain_db: f32,
    /// Whether a voice is heard, as in [`SourceLevel::voice`].
    pub voice: bool,
}

/// The frames of one complete part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartFrames {
    /// Its number.
    pub number: PartNumber,
    /// What was on air when it began: slate, live or hold.
    pub kind: PartKind,
    /// 24 Opus packets of 20 ms.
    pub opus24: Vec<Bytes>,
    /// 24 Opus packets of 20 ms, 120 bytes each.
    pub opus48: Vec<Bytes>,
    /// 20 MP3 frames of 24 ms, 192 bytes each.
    pub mp3: Vec<Bytes>,
}

/// A frame of silence for each rendition; each decodes by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SilentFrames {
    /// One Opus packet of 20 ms.
    pub opus24: Bytes,
    /// One Opus packet of 20 ms, 120 bytes.
    pub opus48: Bytes,
    /// One MP3 frame of 24 ms, 192 bytes.
    pub mp3: Bytes,
}
