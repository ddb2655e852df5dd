//! From waiting packets to a steady 960 samples a tick: decoding, bridging, and the delay held at its target.
//!
//! With `due` the programme's moment and `q` the sender's timestamp that is consumed by then, `due − q` is how late the
//! sender's sound is played. A packet is in time if its offset `arrival − timestamp` is no greater; so `due − q` is held
//! a little above what [`Arrivals`](super::arrivals::Arrivals) calls `high`, by resampling, and in pauses by leaving out
//! or repeating a little of them.

use super::SourceKind;
use super::intake::Intake;
use crate::Frame;
use crate::codec::{MAX_PACKET_SAMPLES, OpusDecoder};
use crate::resample::{Gentle, MAX_SPEED_CHANGE};

const MS: i64 = 48;
const FRAME: i64 = model::OPUS_FRAME_SAMPLES as i64;

/// Concealment is heard in full for 120 ms, then fades within 40 ms.
const CONCEAL_FULL: usize = 5_760;
const CONCEAL_END: usize = 7_680;
/// In an announced pause the decoder's own background fades out within 60 ms.
const PAUSE_END: usize = 2_880;
/// Nothing for 2 s: the next packet starts afresh.
const GONE: i64 = 96_000;
/// Fade over cuts and new beginnings: 5 ms.
const FADE: usize = 240;
/// Largest piece left out or repeated at once in a pause: 10 ms.
const EDIT: usize = 480;

/// Proportional and integral gain of the loop that holds the delay, per second and per second squared: critically
/// damped with a time constant of 40 s, so that 200 ppm are learnt within a few minutes and 3 ms of delay.
const PROPORTIONAL: f64 = 0.05;
const INTEGRAL: f64 = 0.000_625;
/// Change of pitch that nobody hears, and the one used when the delay is far off.
const SPEED_FINE: f64 = 0.000_6;
const SPEED_COARSE: f64 = 0.004;
const _: () = assert!(SPEED_COARSE + DRIFT_MAX <= MAX_SPEED_CHANGE);
/// Off by more than this, the delay is "far off".
const FAR: i64 = 25 * MS;
/// Off by more than this, pauses are edited.
const EDIT_FROM: i64 = 5 * MS;
const _: () = assert!(EDIT_FROM >= FADE as i64 && EDIT >= FADE);
/// No quartz is worse than this.
const DRIFT_MAX: f64 = 0.001;

/// Counted here, told in [`crate::SourceStats`].
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) lost: u64,
    pub(super) fec_used: u64,
    pub(super) concealed: u64,
    pub(super) broken: u64,
    pub(super) cuts: u64,
}

/// Why there was nothing to decode.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hole {
    Loss,
    Pause,
}

pub(super) struct Playout {
    decoder: Box<dyn OpusDecoder>,
    resampler: Gentle,
    /// Decoded and not yet resampled.
    pcm: Vec<f32>,
    room: Box<[f32; MAX_PACKET_SAMPLES]>,
    pub(super) counts: Counts,
    /// Timestamp of the first sample not yet decoded; `None` before the start.
    turn: Option<i64>,
    /// Samples made up since the buffer ran empty; what is missing afterwards has been bridged already by so much.
    owed: i64,
    /// Samples made up in a row.
    bridged: usize,
    /// Samples lost that do not make up a packet yet.
    missing: i64,
    last_sequence: Option<u16>,
    last_samples: usize,
    last_silence: bool,
    /// Recent share of packets lost, and of packets that carry redundancy, 0 to 1.
    loss: f32,
    redundancy: f32,
    drift: f64,
    delay: i64,
    target: i64,
}

impl Playout {
    pub(super) fn new(decoder: Box<dyn OpusDecoder>) -> Self {
        Self {
            decoder,
            resampler: Gentle::new(),
            pcm: Vec::with_capacity(3 * MAX_PACKET_SAMPLES),
            room: Box::new([0.0; MAX_PACKET_SAMPLES]),
            counts: Counts::default(),
            turn: None,
            owed: 0,
            bridged: CONCEAL_END,
            missing: 0,
            last_sequence: None,
            last_samples: model::OPUS_FRAME_SAMPLES,
            last_silence: false,
            loss: 0.0,
            redundancy: 0.0,
            drift: 0.0,
            delay: 0,
            target: 0,
        }
    }

    /// Makes the frame that ends at `due`. `pause` says that nobody has been speaking lately.
    pub(super) fn pull(&mut self, intake: &mut Intake, due: i64, pause: bool, frame: &mut Frame) {
        if std::mem::take(&mut intake.restarted) {
            self.cut();
            self.turn = None;
        }
        let needed = self.resampler.needed();
        if self.turn.is_none() {
            self.start(intake, due, needed);
        }
        while self.pcm.len() < needed {
            if self.turn.is_none() {
                self.bridge(needed - self.pcm.len(), Hole::Pause);
            } else {
                self.produce(intake, pause);
            }
        }
        self.resampler.run(&self.pcm[..needed], frame);
        self.pcm.drain(..needed);
        self.steer(intake, due);
    }

    /// Begins with the first packet, at the moment that gives it the delay aimed at.
    fn start(&mut self, intake: &mut Intake, due: i64, needed: usize) {
        let Some((first, _)) = intake.first() else { return };
        let consumed = due - self.aim(intake);
        let lead = first - (consumed - needed as i64);
        if lead >= needed as i64 {
            return;
        }
        let silence = usize::try_from(lead).unwrap_or(0).saturating_sub(self.pcm.len());
        if silence > 0 {
            self.bridge(silence, Hole::Pause);
        }
        self.turn = Some(first);
        intake.turn = self.turn;
        self.owed = 0;
        self.last_sequence = None;
        self.last_silence = false;
    }

    /// `due − q` to aim at.
    fn aim(&self, intake: &Intake) -> i64 {
        let arrivals = &intake.arrivals;
        let (low, spread) = (arrivals.low(), arrivals.high() - arrivals.low());
        let least = match intake.kind() {
            // A little more until enough packets are known.
            SourceKind::Rtp if arrivals.len() < 50 => (spread + 5 * MS).max(12 * MS),
            SourceKind::Rtp => spread + 5 * MS,
            SourceKind::Ogg => spread + 60 * MS,
        };
        // The redundancy that rebuilds a lost packet lies in the one after it: it is worth waiting for where packets
        // are lost.
        let repair = if self.loss > 0.01 && self.redundancy > 0.1 { self.last_samples as i64 } else { 0 };
        low + (least + repair).min(intake.delay_max())
    }

    /// Adds some sound: the next packet's, or something in its place.
    fn produce(&mut self, intake: &mut Intake, pause: bool) {
        let turn = self.turn.expect("producing begins with a start");
        intake.skip_to(turn);
        let Some((position, waiting)) = intake.first() else {
            return self.starve(intake);
        };
        let gap = position - turn;
        let samples = waiting.packet.samples;
        let follows = match (waiting.sequence, self.last_sequence) {
            (Some(now), Some(last)) => now == last.wrapping_add(1),
            _ => intake.kind() == SourceKind::Ogg,
        };
        let announced = self.last_silence || follows;
        let rest = usize::try_from(gap - self.owed).unwrap_or(0) / 120 * 120;
        if rest > 0 && announced {
            // Nobody misses the end of a pause if the delay is too long anyway.
            let spare = (self.delay - self.target).clamp(0, rest as i64) as usize / 120 * 120;
            let fill = (rest - spare).min(model::OPUS_FRAME_SAMPLES);
            if fill > 0 {
                self.bridge(fill, Hole::Pause);
                return self.advance(intake, fill);
            }
        } else if rest > 0 {
            let redundant = waiting.packet.redundant;
            if redundant && rest <= samples {
                let payload = waiting.payload.clone();
                self.note_loss(gap, samples);
                self.recover(&payload, rest);
                return self.advance(intake, rest);
            }
            let kept = if redundant { samples } else { 0 };
            let fill = (rest - kept).clamp(120, model::OPUS_FRAME_SAMPLES);
            self.bridge(fill, Hole::Loss);
            self.note_loss(fill as i64 + self.owed, samples);
            return self.advance(intake, fill);
        } else if gap > 0 && !announced {
            // Bridged already while there was nothing.
            self.note_loss(gap, samples);
        }
        self.owed = 0;
        self.decode(intake, pause);
    }

    /// `samples` were put in place of what is missing, on top of what is owed.
    fn advance(&mut self, intake: &mut Intake, samples: usize) {
        let owed = std::mem::take(&mut self.owed);
        self.turn = self.turn.map(|turn| turn + owed + samples as i64);
        intake.turn = self.turn;
    }

    fn note_loss(&mut self, samples: i64, packet: usize) {
        self.missing += samples;
        let packet = packet as i64;
        // Half a packet missing is a packet lost: packets of several lengths may alternate.
        let packets = (self.missing + packet / 2) / packet;
        self.missing -= packets * packet;
        self.counts.lost += packets as u64;
        // A long silence is one trouble, not a thousand.
        for _ in 0..packets.min(10) {
            self.loss += (1.0 - self.loss) * 0.01;
        }
    }

    /// Nothing is waiting.
    fn starve(&mut self, intake: &mut Intake) {
        let hole = if self.last_silence { Hole::Pause } else { Hole::Loss };
        let fill = self.last_samples.clamp(120, model::OPUS_FRAME_SAMPLES);
        self.bridge(fill, hole);
        self.owed += fill as i64;
        if self.owed > GONE {
            self.turn = None;
            intake.turn = None;
            self.owed = 0;
        }
    }

    fn decode(&mut self, intake: &mut Intake, pause: bool) {
        let Some((position, waiting)) = intake.take() else { return };
        self.redundancy += (f32::from(u8::from(waiting.packet.redundant)) - self.redundancy) * 0.02;
        self.loss *= 0.99;
        let decoded = self.decoder.decode(&waiting.payload, &mut self.room);
        let samples = match decoded {
            Ok(samples) if samples > 0 => samples.min(MAX_PACKET_SAMPLES),
            _ => {
                self.counts.broken += 1;
                let fill = waiting.packet.samples.min(model::OPUS_FRAME_SAMPLES);
                self.bridge(fill, Hole::Loss);
                self.turn = Some(position + waiting.packet.samples as i64);
                intake.turn = self.turn;
                return;
            }
        };
        let from = self.pcm.len();
        self.pcm.extend_from_slice(&self.room[..samples]);
        if self.bridged >= PAUSE_END {
            fade_in(&mut self.pcm[from..]);
        }
        self.bridged = 0;
        self.last_sequence = waiting.sequence;
        self.last_samples = samples;
        self.last_silence = waiting.packet.silence;
        self.turn = Some(position + samples as i64);
        intake.turn = self.turn;
        if pause {
            self.edit(from);
        }
    }

    fn recover(&mut self, next: &[u8], samples: usize) {
        let from = self.pcm.len();
        self.pcm.resize(from + samples, 0.0);
        match self.decoder.recover(next, &mut self.pcm[from..]) {
            Ok(()) => {
                self.counts.fec_used += 1;
                if self.bridged >= PAUSE_END {
                    fade_in(&mut self.pcm[from..]);
                }
                self.bridged = 0;
            }
            Err(_) => {
                self.pcm.truncate(from);
                self.bridge(samples, Hole::Loss);
            }
        }
    }

    /// Makes up `samples`: the decoder's concealment, fading, at last silence.
    fn bridge(&mut self, samples: usize, hole: Hole) {
        let from = self.pcm.len();
        self.pcm.resize(from + samples, 0.0);
        let (full, end) = match hole {
            Hole::Loss => (CONCEAL_FULL, CONCEAL_END),
            Hole::Pause => (0, PAUSE_END),
        };
        if self.bridged < end {
            // The decoder makes multiples of 2.5 ms; a shorter rest, at a start only, stays silent.
            let whole = samples / 120 * 120;
            if self.decoder.conceal(&mut self.pcm[from..from + whole]).is_err() {
                self.pcm[from..].fill(0.0);
            }
            for (index, sample) in self.pcm[from..].iter_mut().enumerate() {
                let into = (self.bridged + index).saturating_sub(full) as f32 / (end - full) as f32;
                *sample *= 0.5 + 0.5 * (into.min(1.0) * std::f32::consts::PI).cos();
            }
            if hole == Hole::Loss {
                self.counts.concealed += samples as u64;
            }
        }
        self.bridged = self.bridged.saturating_add(samples);
    }

    /// Brings the delay closer to its target by leaving out, or repeating, up to 10 ms of a pause.
    fn edit(&mut self, from: usize) {
        let error = self.delay - self.target;
        let length = self.pcm.len() - from;
        if error.abs() < EDIT_FROM || length < EDIT + 2 * FADE {
            return;
        }
        let piece = usize::try_from(error.unsigned_abs()).unwrap_or(EDIT).min(EDIT);
        let end = self.pcm.len();
        if error > 0 {
            // `… a [piece] b`: b's head is faded in over the end of a.
            let keep = end - piece - FADE;
            for index in 0..FADE {
                let weight = (index as f32 + 0.5) / FADE as f32;
                let (old, new) = (self.pcm[keep + index], self.pcm[keep + piece + index]);
                self.pcm[keep + index] = old + (new - old) * weight;
            }
            self.pcm.truncate(end - piece);
            self.delay -= piece as i64;
        } else {
            let again = end - piece - FADE;
            self.pcm.extend_from_within(end - piece..);
            self.delay += piece as i64;
            for index in 0..FADE {
                let weight = (index as f32 + 0.5) / FADE as f32;
                let (old, new) = (self.pcm[end - FADE + index], self.pcm[again + index]);
                self.pcm[end - FADE + index] = old + (new - old) * weight;
            }
        }
    }

    /// Compares the delay with its target and sets the speed.
    fn steer(&mut self, intake: &mut Intake, due: i64) {
        let Some(turn) = self.turn else { return };
        let aim = self.aim(intake);
        let consumed = turn + self.owed - self.pcm.len() as i64;
        let behind = due - consumed;
        let low = intake.arrivals.low();
        self.delay = behind - low + FRAME;
        self.target = aim - low + FRAME;
        if self.owed > 0 {
            return;
        }
        let error = behind - aim;
        if behind - low > intake.delay_max() + 100 * MS + self.slack(intake) {
            // Longer than any delay aimed at, as after a stall: what is too old goes.
            self.counts.cuts += 1;
            self.cut();
            intake.skip_to(turn + error);
            self.turn = Some(intake.first().map_or(turn + error, |(position, _)| position));
            intake.turn = self.turn;
            return;
        }
        let limit = if error.abs() > FAR { SPEED_COARSE } else { SPEED_FINE };
        let push = PROPORTIONAL * error as f64 / 48_000.0;
        if error.abs() < FAR {
            let seconds = FRAME as f64 / 48_000.0;
            self.drift =
                (self.drift + INTEGRAL * error as f64 / 48_000.0 * seconds).clamp(-DRIFT_MAX, DRIFT_MAX);
        }
        self.resampler.set_speed(1.0 + self.drift + push.clamp(-limit, limit));
    }

    /// Ends what was decoded, so that something else may follow it.
    fn cut(&mut self) {
        self.pcm.truncate(FADE);
        fade_out(&mut self.pcm);
        self.bridged = CONCEAL_END;
    }

    /// An Ogg source may have a page more waiting than it needs.
    fn slack(&self, intake: &Intake) -> i64 {
        match intake.kind() {
            SourceKind::Rtp => 0,
            SourceKind::Ogg => 1_500 * MS,
        }
    }

    /// Delay from a packet's arrival until its last sample is mixed, in samples.
    pub(super) fn delay(&self) -> i64 {
        self.delay + self.resampler.delay() as i64
    }

    /// The delay aimed at, in samples.
    pub(super) fn target(&self) -> i64 {
        self.target + self.resampler.delay() as i64
    }

    /// How much faster the sender's clock runs, as a fraction.
    pub(super) fn drift(&self) -> f64 {
        self.drift
    }
}

fn fade_in(samples: &mut [f32]) {
    for (index, sample) in samples.iter_mut().take(FADE).enumerate() {
        *sample *= (index as f32 + 0.5) / FADE as f32;
    }
}

fn fade_out(samples: &mut [f32]) {
    let length = samples.len();
    for (index, sample) in samples.iter_mut().enumerate() {
        *sample *= (length - index) as f32 / (length + 1) as f32;
    }
}
