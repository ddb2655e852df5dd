//! Real clients of our own: a speaker that comes in through WebRTC, a listener of the pushed stream, and crowds.
//!
//! They are used by the demonstration and by the tests of the whole, and nothing in them is a short cut: a
//! [`Speaker`] offers by WHIP and sends RTP over DTLS-SRTP from a socket of its own, a [`PushListener`] is an
//! ordinary HTTP/1.1 client. The [`Relay`] puts seeded bad weather between a speaker and the server. A [`crowd`] is
//! thousands of listeners at once, and what they got and cost.
//!
//! What they do not do: decide anything about a show, or reach into a server by another way than its doors.

// Clients live in real time: they read the clock, as every shell does.
#![allow(clippy::disallowed_methods)]

pub mod crowd;
mod decode;
mod peer;
mod push;
pub mod record;
mod relay;
mod speaker;
mod trust;
mod voice;

pub use push::{LatencySummary, PushConfig, PushListener, PushReport, PushStatus, ReceivedPart};
pub use relay::{Relay, RelayCounts, Weather};
pub use speaker::{Heard, HeardFn, Phase, Speaker, SpeakerConfig, SpeakerState};
pub use trust::Trust;
pub use voice::{Click, Clip, FRAME_SAMPLES, Silence, Tone, UnreadableClip, Voice};
