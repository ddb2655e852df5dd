//! Synthetic voices, networks and measurements for the tests.
#![allow(unreachable_pub)] // A module of one test binary.

use std::collections::BTreeMap;

use bytes::Bytes;
use minassa_programme::codec::{MAX_PACKET_SAMPLES, OpusLibrary, OpusSettings};
use minassa_programme::{
    Hears, Layer, PartFrames, Programme, ProgrammeConfig, Slate, SourceId, SourceKind, SourceRole, Speaks,
    Tick,
};
use model::{BootTime, PartNumber};

pub const FRAME: usize = 960;
pub const DOORS: BootTime = BootTime::from_nanos(1_000_000_000_000);

/// A seeded generator (splitmix64): tests repeat exactly.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 0 to 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn noise(&mut self) -> f32 {
        self.unit() as f32 * 2.0 - 1.0
    }
}

/// The moment `samples` (48 kHz) after doors.
pub fn at(samples: f64) -> BootTime {
    BootTime::from_nanos((DOORS.as_nanos() as f64 + samples * 1e9 / 48_000.0) as u64)
}

pub fn programme() -> Programme {
    Programme::new(ProgrammeConfig::new(DOORS), Slate::silence(), Slate::silence(), PartNumber::ZERO)
}

pub const ON_STAGE: SourceRole = SourceRole { seat: 0, speaks: Speaks::Stage, hears: Hears::Nothing };

pub fn on_stage(seat: u16) -> SourceRole {
    SourceRole { seat, speaks: Speaks::Stage, hears: Hears::Stage }
}

/// Continuous tone.
pub fn tone(frequency: f64, amplitude: f64, samples: usize) -> Vec<f32> {
    (0..samples)
        .map(|i| ((i as f64 * frequency / 48_000.0 * std::f64::consts::TAU).sin() * amplitude) as f32)
        .collect()
}

/// Something like speech: syllables of a buzzing, formant-filtered voice and of hiss, with pauses between phrases.
/// `whisper` makes all of it hiss. Peaks near 1 before scaling.
pub fn speech(seconds: f64, pitch: f64, whisper: bool, seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    let samples = (seconds * 48_000.0) as usize;
    let mut out = Vec::with_capacity(samples);
    let mut phase = 0.0_f64;
    let mut formants = [[0.0_f64; 2]; 3];
    while out.len() < samples {
        let phrase = 6 + (random.next() % 8) as usize;
        for _ in 0..phrase {
            let voiced = !whisper && random.unit() < 0.8;
            let length = ((0.09 + 0.14 * random.unit()) * 48_000.0) as usize;
            let level = 0.4 + 0.6 * random.unit();
            let frequencies = [
                300.0 + 500.0 * random.unit(),
                900.0 + 1_300.0 * random.unit(),
                2_300.0 + 900.0 * random.unit(),
            ];
            let start = pitch * (0.85 + 0.3 * random.unit());
            let slope = pitch * 0.2 * (random.unit() - 0.5);
            for i in 0..length {
                let t = i as f64 / length as f64;
                let envelope = (t * std::f64::consts::PI).sin().powf(0.6) * level;
                phase += (start + slope * t) / 48_000.0;
                phase -= phase.floor();
                let hiss = f64::from(random.noise());
                let source = if voiced { (1.0 - 2.0 * phase) * 0.6 + hiss * 0.02 } else { hiss * 0.35 };
                let mut sum = 0.0;
                for (state, (frequency, weight)) in
                    formants.iter_mut().zip(frequencies.iter().zip([1.0, 0.5, 0.25]))
                {
                    // A resonator of 90 Hz bandwidth.
                    let r = (-std::f64::consts::PI * 90.0 / 48_000.0).exp();
                    let c = 2.0 * r * (std::f64::consts::TAU * frequency / 48_000.0).cos();
                    let y = source * 0.03 + c * state[0] - r * r * state[1];
                    state[1] = state[0];
                    state[0] = y;
                    sum += y * weight;
                }
                out.push((sum * envelope) as f32);
            }
            out.extend(std::iter::repeat_n(0.0, (random.unit() * 0.05 * 48_000.0) as usize));
        }
        out.extend(std::iter::repeat_n(0.0, ((0.2 + 0.5 * random.unit()) * 48_000.0) as usize));
    }
    out.truncate(samples);
    let peak = out.iter().fold(0.0_f32, |peak, s| peak.max(s.abs())).max(1e-9);
    out.iter_mut().for_each(|s| *s /= peak);
    out
}

/// Integrated loudness, LUFS.
pub fn loudness(samples: &[f32]) -> f64 {
    let mut meter = ebur128::EbuR128::new(1, 48_000, ebur128::Mode::I).unwrap();
    meter.add_frames_f32(samples).unwrap();
    meter.loudness_global().unwrap()
}

/// True peak, dBTP.
pub fn true_peak(samples: &[f32]) -> f64 {
    let mut meter = ebur128::EbuR128::new(1, 48_000, ebur128::Mode::TRUE_PEAK).unwrap();
    meter.add_frames_f32(samples).unwrap();
    20.0 * meter.true_peak(0).unwrap().log10()
}

pub fn scale_to(samples: &mut [f32], lufs: f64) {
    let gain = 10.0_f64.powf((lufs - loudness(samples)) / 20.0) as f32;
    samples.iter_mut().for_each(|s| *s *= gain);
}

pub fn rms_db(samples: &[f32]) -> f64 {
    let power = samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / samples.len().max(1) as f64;
    10.0 * power.max(1e-20).log10()
}

/// How strong one frequency is, dB relative to a full-scale tone (Goertzel, Hann window).
pub fn tone_db(samples: &[f32], frequency: f64) -> f64 {
    let n = samples.len() as f64;
    let (mut re, mut im) = (0.0, 0.0);
    for (i, s) in samples.iter().enumerate() {
        let window = 1.0 - (i as f64 / n * std::f64::consts::TAU).cos();
        let angle = i as f64 * frequency / 48_000.0 * std::f64::consts::TAU;
        re += f64::from(*s) * window * angle.cos();
        im += f64::from(*s) * window * angle.sin();
    }
    20.0 * (2.0 * (re * re + im * im).sqrt() / n).max(1e-12).log10()
}

/// Encodes a whole signal into Opus packets of 20 ms.
pub fn encode(samples: &[f32], settings: OpusSettings) -> Vec<Bytes> {
    let mut encoder = OpusLibrary::default().encoder(settings).unwrap();
    samples.chunks_exact(FRAME).map(|frame| encoder.encode(frame.try_into().unwrap()).unwrap()).collect()
}

/// What a browser sends: VOIP, forward error correction.
pub const BROWSER: OpusSettings = OpusSettings {
    bitrate: 32_000,
    complexity: 5,
    constant: false,
    fec_loss_percent: 15,
    conversation: true,
};

pub fn decode_opus<'a>(packets: impl IntoIterator<Item = &'a Bytes>) -> Vec<f32> {
    let mut decoder = OpusLibrary::default().decoder().unwrap();
    let mut room = [0.0; MAX_PACKET_SAMPLES];
    let mut out = Vec::new();
    for packet in packets {
        let samples = decoder.decode(packet, &mut room).unwrap();
        out.extend_from_slice(&room[..samples]);
    }
    out
}

/// Plain decoding by symphonia, nothing trimmed.
pub fn decode_mp3<'a>(frames: impl IntoIterator<Item = &'a Bytes>) -> Vec<f32> {
    use symphonia::core::codecs::audio::AudioDecoderOptions;
    use symphonia::core::formats::probe::Hint;
    use symphonia::core::formats::{FormatOptions, TrackType};
    use symphonia::core::io::MediaSourceStream;
    let bytes: Vec<u8> = frames.into_iter().flat_map(|frame| frame.iter().copied()).collect();
    let stream = MediaSourceStream::new(Box::new(std::io::Cursor::new(bytes)), Default::default());
    let mut hint = Hint::new();
    hint.with_extension("mp3");
    let options = FormatOptions::default();
    let mut reader =
        symphonia::default::get_probe().probe(&hint, stream, options, Default::default()).unwrap();
    let track = reader.default_track(TrackType::Audio).unwrap();
    let parameters = track.codec_params.as_ref().unwrap().audio().unwrap().clone();
    let mut decoder = symphonia::default::get_codecs()
        .make_audio_decoder(&parameters, &AudioDecoderOptions::default())
        .unwrap();
    let (mut out, mut frame) = (Vec::new(), Vec::new());
    while let Ok(Some(packet)) = reader.next_packet() {
        decoder.decode(&packet).unwrap().copy_to_vec_interleaved::<f32>(&mut frame);
        out.extend_from_slice(&frame);
    }
    out
}

/// Lag of `b` behind `a` in samples at the best correlation within ±`reach`, and that correlation.
pub fn align(a: &[f32], b: &[f32], reach: i64) -> (i64, f64) {
    let length = a.len().min(b.len()) as i64;
    let mut best = (0, f64::MIN);
    for lag in -reach..=reach {
        let from = reach.max(0);
        let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
        for i in from..length - reach {
            let (x, y) = (f64::from(a[i as usize]), f64::from(b[(i + lag) as usize]));
            ab += x * y;
            aa += x * x;
            bb += y * y;
        }
        let r = ab / (aa * bb).sqrt().max(1e-12);
        if r > best.1 {
            best = (lag, r);
        }
    }
    best
}

/// A sender and the network between it and the programme, both in virtual time.
pub struct Sender {
    pub id: SourceId,
    pub kind: SourceKind,
    packets: Vec<Bytes>,
    next: usize,
    sequence: u16,
    timestamp: u32,
    granule: u64,
    /// When the sender's next packet is complete, in programme samples.
    ready: f64,
    /// Programme samples of one sender's packet: 960 with perfect clocks.
    step: f64,
    pub loss: f64,
    pub jitter: f64,
    latency: f64,
    random: Random,
    /// Arrival (nanoseconds from doors, serial) to packet.
    air: BTreeMap<(u64, u64), (u16, u32, u64, Bytes)>,
    serial: u64,
    /// Packets a page (Ogg).
    pub page: usize,
    held: Vec<(u16, u32, u64, Bytes)>,
    /// No packet is sent from here on, if set.
    pub ends: Option<usize>,
}

impl Sender {
    /// `ppm`: how much faster its clock runs. Packets repeat for ever.
    pub fn new(id: u32, kind: SourceKind, packets: Vec<Bytes>, ppm: f64) -> Self {
        Self {
            id: SourceId(id),
            kind,
            packets,
            next: 0,
            sequence: 65_500,
            timestamp: u32::MAX - 50_000,
            granule: 0,
            ready: FRAME as f64,
            step: FRAME as f64 / (1.0 + ppm * 1e-6),
            loss: 0.0,
            jitter: 0.0,
            latency: 48.0 * 10.0,
            random: Random(u64::from(id) + 7),
            air: BTreeMap::new(),
            serial: 0,
            page: 1,
            held: Vec::new(),
            ends: None,
        }
    }

    /// Begins at this moment of the programme.
    pub fn run_to(&mut self, samples: f64) {
        self.ready = samples;
    }

    /// Sends and delivers everything due up to `now` (programme samples).
    pub fn run(&mut self, programme: &mut Programme, now: f64) {
        while self.ready <= now {
            let packet = self.packets[self.next % self.packets.len()].clone();
            let entry = (self.sequence, self.timestamp, self.granule, packet);
            self.next += 1;
            self.sequence = self.sequence.wrapping_add(1);
            self.timestamp = self.timestamp.wrapping_add(FRAME as u32);
            self.granule += FRAME as u64;
            let lost = self.random.unit() < self.loss;
            let silent = self.ends.is_some_and(|end| self.next > end);
            if self.page > 1 {
                self.held.push(entry);
                if self.held.len() == self.page {
                    let arrival = self.ready + self.latency + self.jitter * self.random.unit();
                    for entry in std::mem::take(&mut self.held) {
                        self.fly(arrival, entry);
                    }
                }
            } else if !lost && !silent {
                let arrival = self.ready + self.latency + self.jitter * self.random.unit();
                self.fly(arrival, entry);
            }
            self.ready += self.step;
        }
        let due = (now * 1e9 / 48_000.0) as u64;
        while let Some(((when, _), (sequence, timestamp, granule, packet))) =
            self.air.first_key_value().map(|(k, v)| (*k, v.clone()))
        {
            if when > due {
                break;
            }
            self.air.pop_first();
            let arrival = BootTime::from_nanos(DOORS.as_nanos() + when);
            match self.kind {
                SourceKind::Rtp => programme.push_rtp(self.id, sequence.into(), timestamp, &packet, arrival),
                SourceKind::Ogg => programme.push_ogg(self.id, granule, &packet, arrival),
            }
        }
    }

    fn fly(&mut self, arrival: f64, entry: (u16, u32, u64, Bytes)) {
        self.serial += 1;
        self.air.insert(((arrival * 1e9 / 48_000.0) as u64, self.serial), entry);
    }
}

/// A programme with its senders.
pub struct Night {
    pub programme: Programme,
    pub senders: Vec<Sender>,
    pub parts: Vec<PartFrames>,
}

impl Night {
    pub fn new(programme: Programme, senders: Vec<Sender>) -> Self {
        let mut night = Self { programme, senders, parts: Vec::new() };
        night.programme.set_layer(Layer::Stage, None);
        for (seat, sender) in night.senders.iter().enumerate() {
            night.programme.add_source(sender.id, sender.kind).unwrap();
            night.programme.set_role(sender.id, on_stage(seat as u16));
        }
        night
    }

    pub fn tick(&mut self) -> Tick {
        let now = self.programme.position().samples() as f64 + FRAME as f64;
        for sender in &mut self.senders {
            sender.run(&mut self.programme, now);
        }
        let tick = self.programme.tick();
        while let Some(part) = self.programme.poll_part() {
            self.parts.push(part);
        }
        tick
    }

    /// The programme as a listener of `opus-48` hears it.
    pub fn heard(&self) -> Vec<f32> {
        decode_opus(self.parts.iter().flat_map(|part| &part.opus48))
    }
}

/// A WAV file, 16 bit.
pub fn wav(samples: &[f32], rate: u32, channels: u16) -> Vec<u8> {
    let mut file = Vec::new();
    let bytes = samples.len() as u32 * 2;
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&(36 + bytes).to_le_bytes());
    file.extend_from_slice(b"WAVEfmt ");
    file.extend_from_slice(&16_u32.to_le_bytes());
    file.extend_from_slice(&1_u16.to_le_bytes());
    file.extend_from_slice(&channels.to_le_bytes());
    file.extend_from_slice(&rate.to_le_bytes());
    file.extend_from_slice(&(rate * u32::from(channels) * 2).to_le_bytes());
    file.extend_from_slice(&(channels * 2).to_le_bytes());
    file.extend_from_slice(&16_u16.to_le_bytes());
    file.extend_from_slice(b"data");
    file.extend_from_slice(&bytes.to_le_bytes());
    for sample in samples {
        file.extend_from_slice(&((sample * 32_767.0) as i16).to_le_bytes());
    }
    file
}
