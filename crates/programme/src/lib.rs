//! The programme as a state machine: jitter buffers, mix and mix-minus, loudness, slate, encoders.
//!
//! ```text
//! push_rtp ─┐  source: jitter buffer ─ decode ─ resample ─ level ─┐
//! push_ogg ─┘            (one a connection)                        ├─ stage mix ──┐
//!                                                                  │              ├ layers ─ limiter ─┬ opus-24 ─┐
//!                        returns: mix-minus, shared mixes  ◄───────┤   slate, hold┘                   ├ opus-48 ─┼─► poll_part
//!                                                                  └─ green room mix                  └ mp3-64 ──┘
//! ```
//!
//! Everything is 48 kHz mono in frames of 20 ms. The shell pushes packets with their arrival time, calls
//! [`Programme::tick`] once for every 20 ms of the event's timeline (several times in a row if it was late), sends the
//! returned packets to the speakers and takes finished parts from [`Programme::poll_part`].
//!
//! ```
//! use minassa_programme::{
//!     Hears, Layer, Programme, ProgrammeConfig, Slate, SourceId, SourceKind, SourceRole, Speaks,
//! };
//! use model::{BootTime, PartNumber};
//!
//! let doors = BootTime::from_nanos(5_000_000_000);
//! let config = ProgrammeConfig::new(doors);
//! let mut programme = Programme::new(config, Slate::silence(), Slate::silence(), PartNumber::ZERO);
//! let speaker = SourceId(1);
//! programme.add_source(speaker, SourceKind::Rtp).unwrap();
//! programme.set_role(speaker, SourceRole { seat: 0, speaks: Speaks::Stage, hears: Hears::Stage });
//! programme.set_layer(Layer::Stage, None);
//! // Whenever the machine's clock has reached `programme.due()`: first what has arrived, then the tick.
//! while programme.due() <= doors.plus(std::time::Duration::from_secs(1)) {
//!     let tick = programme.tick();
//!     for (source, packet) in tick.returns {
//!         assert_eq!(source, speaker);
//!         assert!(!packet.is_empty());
//!     }
//! }
//! assert_eq!(programme.poll_part().unwrap().number, PartNumber::ZERO);
//! ```
//!
//! The crate owns no socket, clock or thread, decides nothing about the show (`stage` does) and writes no container
//! (`packager` does).

pub mod codec;
mod encode;
mod engine;
mod layers;
mod level;
mod limiter;
mod mix;
mod resample;
mod returns;
pub mod slate;
mod source;
mod types;

pub use engine::{Programme, silent_frames};
pub use slate::{Slate, SlateError};
pub use types::{
    Hears, Layer, PartFrames, ProgrammeConfig, SilentFrames, SourceId, SourceKind, SourceLevel, SourceRole,
    SourceStats, Speaks, Tick, UnknownSource,
};

/// 20 ms of sound.
type Frame = [f32; model::OPUS_FRAME_SAMPLES];

const SILENT_FRAME: Frame = [0.0; model::OPUS_FRAME_SAMPLES];

/// Where speakers hear each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Room {
    Stage,
    Green,
}
