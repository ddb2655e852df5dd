//! A speaker who comes in through WHIP (RFC 9725) and WebRTC, as the stage page does.
//!
//! One thread owns a UDP socket and a sans-IO `str0m` session that offers one `sendrecv` audio line. Its microphone
//! never waits for the network: frame `k` of the [`Voice`] is spoken from `started + k·20 ms` on, connected or not.
//!
//! ```text
//! Voice ─ frame each 20 ms ─ Opus ─ RTP ─► [relay, if there is weather] ─► server
//! heard ◄──── decode, conceal ◄──── RTP ◄───────────────────────────────────┘
//! ```

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use programme::codec::{MAX_PACKET_SAMPLES, OpusDecoder, OpusEncoder, OpusLibrary, OpusSettings};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc};

use crate::peer::{Backoff, resolve};
use crate::relay::{Relay, RelayCounts, Weather};
use crate::trust::Trust;
use crate::voice::{FRAME_SAMPLES, Voice};

/// Time of one frame.
const FRAME: Duration = Duration::from_millis(20);
/// Longest wait for an answer to an HTTP request.
const HTTP_TIMEOUT: Duration = Duration::from_secs(4);
/// Longest wait from the answer to the first packet heard.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(6);
/// Largest answer read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// Packets missing in a row that are concealed; longer holes are only counted.
const CONCEALED_MAX: u64 = 10;
/// The thread looks at least this often whether it is to stop.
const STOP_CHECK: Duration = Duration::from_millis(20);

/// As browsers encode speech: for conversation, ready for loss.
const VOICE: OpusSettings = OpusSettings {
    bitrate: 32_000,
    complexity: 9,
    constant: false,
    fec_loss_percent: 10,
    conversation: true,
};

/// What was heard in one 20 ms packet from the server.
#[derive(Clone, Debug)]
pub struct Heard {
    /// When its packet came; for a concealed one, when its absence was noticed.
    pub at: Instant,
    /// Its time at 48 kHz, counted from where the server began.
    pub rtp_time: u64,
    /// Whether the packet never came and the decoder made this up.
    pub concealed: bool,
    /// 48 kHz mono, full scale ±1.0.
    pub samples: Vec<f32>,
}

/// Takes what is heard, on the speaker's thread: it must not block.
pub type HeardFn = Box<dyn FnMut(Heard) + Send>;

/// How to speak.
pub struct SpeakerConfig {
    /// Address of the WHIP endpoint: `http[s]://host:port/whip/{event}`, with `?standby=1` for a seat's second source.
    pub whip: String,
    /// Whom to believe that it is the server.
    pub trust: Trust,
    /// The invitation.
    pub invite: String,
    /// What the microphone hears.
    pub voice: Box<dyn Voice>,
    /// Bits a second of the Opus sent.
    pub bitrate: u32,
    /// How much faster than the machine's the speaker's clock runs, in parts per million.
    pub drift_ppm: f64,
    /// Weather between the speaker and the server, if any.
    pub weather: Option<Weather>,
    /// Takes what is heard, if anybody wants it. Without it nothing is decoded.
    pub heard: Option<HeardFn>,
    /// Without a packet for this long the connection is given up and offered anew; the page does so after 500 ms.
    pub silence_limit: Duration,
    /// Whether to come back when the connection is lost or refused.
    pub comes_back: bool,
    /// Where the draws of the waits before coming back begin.
    pub seed: u64,
}

impl SpeakerConfig {
    /// A speaker at 32 kbit/s with a perfect clock and network who comes back when lost.
    pub fn new(whip: impl Into<String>, invite: impl Into<String>, voice: impl Voice + 'static) -> Self {
        Self {
            whip: whip.into(),
            trust: Trust::default(),
            invite: invite.into(),
            voice: Box::new(voice),
            bitrate: 32_000,
            drift_ppm: 0.0,
            weather: None,
            heard: None,
            silence_limit: Duration::from_millis(500),
            comes_back: true,
            seed: 0,
        }
    }
}

impl fmt::Debug for SpeakerConfig {
    /// Without the invitation, which is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpeakerConfig").field("whip", &self.whip).finish_non_exhaustive()
    }
}

/// Where a speaker stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Offers, or waits for the first packet from the server.
    #[default]
    Connecting,
    /// Packets go and come.
    Connected,
    /// Was lost or refused, and waits before it tries again.
    Away,
    /// Has left, or was lost without coming back.
    Gone,
}

/// What has happened to a speaker so far.
#[derive(Clone, Debug, Default)]
pub struct SpeakerState {
    /// Where it stands.
    pub phase: Phase,
    /// Connections that came about.
    pub connections: u32,
    /// Offers that were refused or came to nothing.
    pub failures: u32,
    /// Packets sent.
    pub sent: u64,
    /// Packets that came.
    pub received: u64,
    /// Packets that never came, or too late.
    pub missing: u64,
    /// From the beginning of the latest offer to the first packet heard.
    pub connect_time: Option<Duration>,
    /// The status of the latest answer to an offer.
    pub answer_status: Option<u16>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// What the weather did.
    pub weather: RelayCounts,
}

/// A speaker at work on a thread of its own; it leaves when dropped.
pub struct Speaker {
    shared: Arc<Shared>,
    started: Instant,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Speaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Speaker").field("state", &*self.shared.lock()).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    muted: AtomicBool,
    cut: AtomicBool,
    state: Mutex<SpeakerState>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, SpeakerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut SpeakerState)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Speaker {
    /// Begins to speak.
    ///
    /// # Errors
    /// When the bitrate is none for Opus, or no thread can be started. Whether the server takes the speaker in is in its [`SpeakerState`].
    pub fn start(config: SpeakerConfig) -> io::Result<Self> {
        let settings = OpusSettings { bitrate: config.bitrate, ..VOICE };
        let encoder = OpusLibrary::default()
            .encoder(settings)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let shared = Arc::new(Shared::default());
        let started = Instant::now();
        let for_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("speaker".into())
            .spawn(move || Mouth::new(config, encoder, for_thread, started).run())?;
        Ok(Self { shared, started, thread: Some(thread) })
    }

    /// When frame 0 of the voice began to be spoken.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// What has happened so far.
    pub fn state(&self) -> SpeakerState {
        self.shared.lock().clone()
    }

    /// Waits until `look` yields something, at most for `within`; `None` if it did not.
    pub fn wait<T>(&self, within: Duration, mut look: impl FnMut(&SpeakerState) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + within;
        let mut state = self.shared.lock();
        loop {
            if let Some(found) = look(&state) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until packets go and come; says whether they do.
    pub fn wait_connected(&self, within: Duration) -> bool {
        self.wait(within, |state| (state.phase == Phase::Connected).then_some(())).is_some()
    }

    /// Sends silence instead of the voice, as a muted page does.
    pub fn mute(&self, muted: bool) {
        self.shared.muted.store(muted, Ordering::Relaxed);
    }

    /// Cuts the speaker off the network, HTTP included, or lets it back. Needs [`SpeakerConfig::weather`].
    pub fn cut(&self, cut: bool) {
        self.shared.cut.store(cut, Ordering::Relaxed);
    }

    /// Leaves properly, with `DELETE`, and says what happened.
    pub fn leave(mut self) -> SpeakerState {
        self.join();
        self.state()
    }

    fn join(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.join();
    }
}

/// What ended a connection, or kept it from coming about.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("the server answered {0}: {1}")]
    Refused(u16, String),
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    #[error("no packet for {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("{0}")]
    Broken(String),
}

impl From<str0m::RtcError> for Lost {
    fn from(error: str0m::RtcError) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<io::Error> for Lost {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

/// The thread's own: everything that outlives a connection.
struct Mouth {
    config: SpeakerConfig,
    shared: Arc<Shared>,
    http: ureq::Agent,
    started: Instant,
    /// Time between two frames by the machine's clock.
    pace: Duration,
    encoder: Box<dyn OpusEncoder>,
    chance: StdRng,
}

impl Mouth {
    fn new(
        config: SpeakerConfig,
        encoder: Box<dyn OpusEncoder>,
        shared: Arc<Shared>,
        started: Instant,
    ) -> Self {
        let http = ureq::Agent::config_builder()
            .timeout_global(Some(HTTP_TIMEOUT))
            .http_status_as_error(false)
            .build();
        let http = config.trust.agent(http);
        Self {
            pace: FRAME.div_f64(1.0 + config.drift_ppm / 1e6),
            encoder,
            chance: StdRng::seed_from_u64(config.seed),
            http,
            config,
            shared,
            started,
        }
    }

    fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));
        while !self.shared.stopped() {
            let before = self.shared.lock().connections;
            self.shared.update(|state| state.phase = Phase::Connecting);
            let Err(lost) = self.session() else { break };
            tracing::debug!(%lost, "a speaker lost its connection");
            let connected = self.shared.lock().connections > before;
            self.shared.update(|state| {
                state.phase = Phase::Away;
                state.failures += u32::from(!connected);
                state.answer_status = match &lost {
                    Lost::Refused(status, _) => Some(*status),
                    _ => state.answer_status,
                };
                state.last_error = Some(lost.to_string());
            });
            if !self.config.comes_back {
                break;
            }
            if connected {
                // The first attempt after a loss is made at once: that is what brings a speaker back in time.
                backoff.reset();
                continue;
            }
            let until = Instant::now() + backoff.wait(&mut self.chance);
            while !self.shared.stopped() && Instant::now() < until {
                std::thread::sleep(STOP_CHECK);
            }
        }
        self.shared.update(|state| state.phase = Phase::Gone);
    }

    /// When frame `index` of the voice has been spoken to its end.
    fn frame_end(&self, index: u64) -> Instant {
        self.started + self.pace.mul_f64(index as f64 + 1.0)
    }

    /// One connection from its offer to its end; `Ok` if the speaker was told to leave.
    fn session(&mut self) -> Result<(), Lost> {
        let mut session = self.offer()?;
        let ended = session.run(self);
        let counts = session.relay.as_ref().map(Relay::counts).unwrap_or_default();
        self.shared.update(|state| {
            state.weather.passed += counts.passed;
            state.weather.lost += counts.lost;
            state.weather.duplicated += counts.duplicated;
            state.weather.overflowed += counts.overflowed;
        });
        // Whoever is told to leave says so; whoever lost the connection is noticed by the server itself.
        if ended.is_ok()
            && let Some(location) = &session.location
        {
            let authorization = format!("Bearer {}", self.config.invite);
            self.http.delete(location).header("authorization", authorization).call().ok();
        }
        ended
    }

    fn offer(&mut self) -> Result<Session, Lost> {
        let offered_at = Instant::now();
        let socket = UdpSocket::bind((self.local_ip()?, 0))?;
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        let mut rtc =
            Rtc::builder().set_rtp_mode(true).clear_codecs().enable_opus(true, false).build(offered_at);
        let candidate = Candidate::host(local, "udp").map_err(|error| Lost::Broken(error.to_string()))?;
        rtc.add_local_candidate(candidate);
        let mut changes = rtc.sdp_api();
        let mid = changes.add_media(MediaKind::Audio, Direction::SendRecv, None, None, None);
        let (offer, pending) = changes.apply().expect("an added line needs an offer");

        let (answer, location) = self.post(&offer.to_sdp_string())?;
        let (answer, relay) = match self.config.weather {
            Some(weather) => {
                let (answer, relay) = through_relay(&answer, weather)?;
                (answer, Some(relay))
            }
            None => (answer, None),
        };
        let answer = SdpAnswer::from_sdp_string(&answer).map_err(|error| Lost::Broken(error.to_string()))?;
        rtc.sdp_api().accept_answer(pending, answer)?;
        Ok(Session {
            rtc,
            socket,
            local,
            mid,
            location,
            relay,
            payload_type: None,
            sequence: 1,
            next_frame: 0,
            ice: false,
            offered_at,
            last_packet: None,
            ear: Ear::default(),
            buffer: vec![0; 2_048],
        })
    }

    /// Posts the offer; the answer and the address of the session.
    fn post(&self, offer: &str) -> Result<(String, Option<String>), Lost> {
        if self.shared.cut.load(Ordering::Relaxed) {
            return Err(Lost::Unreachable("the line is cut".into()));
        }
        let mut response = self
            .http
            .post(&self.config.whip)
            .header("authorization", format!("Bearer {}", self.config.invite))
            .header("content-type", "application/sdp")
            .send(offer)
            .map_err(|error| Lost::Unreachable(error.to_string()))?;
        let status = response.status().as_u16();
        let location = response
            .headers()
            .get("location")
            .and_then(|value| value.to_str().ok())
            .map(|location| resolve(&self.config.whip, location));
        let body = response
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_string()
            .map_err(|error| Lost::Unreachable(error.to_string()))?;
        if status != 201 {
            return Err(Lost::Refused(status, body.chars().take(300).collect()));
        }
        self.shared.update(|state| state.answer_status = Some(status));
        Ok((body, location))
    }

    /// The address of this machine that the server sees.
    fn local_ip(&self) -> Result<std::net::IpAddr, Lost> {
        let unreachable = |reason: &str| Lost::Unreachable(reason.to_owned());
        let uri: http::Uri =
            self.config.whip.parse().map_err(|_| unreachable("the WHIP address is no address"))?;
        let host = uri.host().ok_or_else(|| unreachable("the WHIP address names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let server = (host, uri.port_u16().unwrap_or(80))
            .to_socket_addrs()
            .map_err(|error| Lost::Unreachable(error.to_string()))?
            .next()
            .ok_or_else(|| unreachable("the host has no address"))?;
        let any: SocketAddr =
            if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        // Connecting a datagram socket sends nothing; it only finds the way.
        let probe = UdpSocket::bind(any)?;
        probe.connect(server)?;
        Ok(probe.local_addr()?.ip())
    }
}

/// One connection.
struct Session {
    rtc: Rtc,
    socket: UdpSocket,
    local: SocketAddr,
    mid: Mid,
    location: Option<String>,
    relay: Option<Relay>,
    payload_type: Option<Pt>,
    sequence: u64,
    next_frame: u64,
    /// Whether ICE and DTLS are through.
    ice: bool,
    offered_at: Instant,
    last_packet: Option<Instant>,
    ear: Ear,
    buffer: Vec<u8>,
}

impl Session {
    fn run(&mut self, mouth: &mut Mouth) -> Result<(), Lost> {
        self.skip_to_now(mouth);
        loop {
            if mouth.shared.stopped() {
                self.rtc.disconnect();
                return Ok(());
            }
            if let Some(relay) = &self.relay {
                relay.cut(mouth.shared.cut.load(Ordering::Relaxed));
            }
            self.speak(mouth)?;
            let timeout = self.drain(mouth)?;
            let now = Instant::now();
            self.check_alive(mouth, now)?;
            let wake = timeout.min(mouth.frame_end(self.next_frame)).min(now + STOP_CHECK);
            self.receive(wake)?;
        }
    }

    /// What was said while there was no connection is lost.
    fn skip_to_now(&mut self, mouth: &Mouth) {
        let spoken = Instant::now().saturating_duration_since(mouth.started).div_duration_f64(mouth.pace);
        self.next_frame = spoken as u64;
    }

    /// Sends every frame that has been spoken to its end.
    fn speak(&mut self, mouth: &mut Mouth) -> Result<(), Lost> {
        let mut frame = [0.0; FRAME_SAMPLES];
        while mouth.frame_end(self.next_frame) <= Instant::now() {
            let index = self.next_frame;
            self.next_frame += 1;
            if !self.ice {
                continue;
            }
            if mouth.shared.muted.load(Ordering::Relaxed) {
                frame.fill(0.0);
            } else {
                mouth.config.voice.frame(index, &mut frame);
            }
            let packet = mouth.encoder.encode(&frame).map_err(|error| Lost::Broken(error.to_string()))?;
            let Some(payload_type) = self.opus_payload_type() else { continue };
            let now = Instant::now();
            let mut direct = self.rtc.direct_api();
            let Some(stream) = direct.stream_tx_by_mid(self.mid, None) else { continue };
            let time = (index as u32).wrapping_mul(FRAME_SAMPLES as u32);
            stream.write_rtp(RtpWrite::new(payload_type, self.sequence.into(), time, now, &packet[..]));
            self.sequence += 1;
            self.rtc.handle_input(Input::Timeout(now))?;
            mouth.shared.lock().sent += 1;
        }
        Ok(())
    }

    fn opus_payload_type(&mut self) -> Option<Pt> {
        if self.payload_type.is_none() {
            self.payload_type = self.rtc.media(self.mid)?.remote_pts().first().copied();
        }
        self.payload_type
    }

    /// Takes everything the session has to say; when it wants to be woken.
    fn drain(&mut self, mouth: &mut Mouth) -> Result<Instant, Lost> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) => return Ok(at),
                Output::Transmit(transmit) => {
                    // A datagram that does not go out now is lost, as on any network.
                    self.socket.send_to(&transmit.contents, transmit.destination).ok();
                }
                Output::Event(event) => self.on_event(event, mouth)?,
            }
        }
    }

    fn on_event(&mut self, event: Event, mouth: &mut Mouth) -> Result<(), Lost> {
        match event {
            Event::Connected => {
                self.ice = true;
                self.skip_to_now(mouth);
            }
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => {
                return Err(Lost::Broken("ICE is disconnected".into()));
            }
            Event::RtpPacket(packet) => {
                let now = Instant::now();
                let first = self.last_packet.replace(now).is_none();
                let missing =
                    self.ear.take(*packet.seq_no, &packet.payload, now, mouth.config.heard.as_mut());
                mouth.shared.update(|state| {
                    state.received += 1;
                    state.missing = state.missing.saturating_add_signed(missing);
                    if first {
                        state.phase = Phase::Connected;
                        state.connections += 1;
                        state.connect_time = Some(now - self.offered_at);
                    }
                });
            }
            _ => {}
        }
        Ok(())
    }

    fn check_alive(&self, mouth: &Mouth, now: Instant) -> Result<(), Lost> {
        let limit = mouth.config.silence_limit;
        match self.last_packet {
            Some(last) if now.saturating_duration_since(last) > limit => Err(Lost::Silent(limit)),
            None if now.saturating_duration_since(self.offered_at) > CONNECT_TIMEOUT => {
                Err(Lost::Silent(CONNECT_TIMEOUT))
            }
            _ if !self.rtc.is_alive() => Err(Lost::Broken("the session has ended".into())),
            _ => Ok(()),
        }
    }

    /// Waits for a datagram until `wake`, then gives the session all that have come, or the time.
    fn receive(&mut self, wake: Instant) -> Result<(), Lost> {
        let wait = wake.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let readable = poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout));
        if matches!(readable, Ok(1..)) {
            // A turn is bounded: a flood must not keep the voice waiting.
            for _ in 0..32 {
                let (length, source) = match self.socket.recv_from(&mut self.buffer) {
                    Ok(received) => received,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // The answer to a datagram sent to a port that is closed now: the silence will be noticed.
                    Err(_) => continue,
                };
                let datagram = &self.buffer[..length];
                if let Ok(packet) = Receive::new(Protocol::Udp, source, self.local, datagram) {
                    self.rtc.handle_input(Input::Receive(Instant::now(), packet))?;
                }
            }
        }
        self.rtc.handle_input(Input::Timeout(Instant::now()))?;
        Ok(())
    }
}

/// Decodes what the server sends, in the order of the sequence numbers.
#[derive(Default)]
struct Ear {
    decoder: Option<Box<dyn OpusDecoder>>,
    /// Sequence number of the first packet and of the next one expected.
    range: Option<(u64, u64)>,
}

impl Ear {
    /// Takes a packet; by how much the count of missing ones changes.
    fn take(&mut self, sequence: u64, packet: &[u8], at: Instant, heard: Option<&mut HeardFn>) -> i64 {
        let (first, next) = *self.range.get_or_insert((sequence, sequence));
        if sequence < next {
            // It was counted as missing and has come after all, too late to be heard; or it came twice or before
            // the first, which was never counted.
            return if sequence >= first { -1 } else { 0 };
        }
        self.range = Some((first, sequence + 1));
        let missing = sequence - next;
        if let Some(heard) = heard.filter(|_| !packet.is_empty()) {
            self.decode(sequence - first, missing, packet, at, heard);
        }
        missing as i64
    }

    fn decode(&mut self, index: u64, missing: u64, packet: &[u8], at: Instant, heard: &mut HeardFn) {
        if self.decoder.is_none() {
            self.decoder = OpusLibrary::default().decoder().ok();
        }
        let Some(decoder) = &mut self.decoder else { return };
        let mut tell = |index: u64, concealed: bool, samples: &[f32]| {
            let rtp_time = index * FRAME_SAMPLES as u64;
            heard(Heard { at, rtp_time, concealed, samples: samples.to_vec() });
        };
        let mut pcm = Box::new([0.0; MAX_PACKET_SAMPLES]);
        let concealed = missing.min(CONCEALED_MAX);
        for before in (1..=concealed).rev() {
            let lost = &mut pcm[..FRAME_SAMPLES];
            // The packet at hand may carry the one before it once more.
            let made_up = if before == 1 { decoder.recover(packet, lost) } else { decoder.conceal(lost) };
            if made_up.is_ok() {
                tell(index - before, true, lost);
            }
        }
        if let Ok(count) = decoder.decode(packet, &mut pcm) {
            tell(index, false, &pcm[..count]);
        }
    }
}

/// Puts a relay between the speaker and the first UDP candidate of the answer.
fn through_relay(answer: &str, weather: Weather) -> Result<(String, Relay), Lost> {
    let mut relay = None;
    let mut lines = Vec::new();
    for line in answer.lines() {
        let Some(candidate) = line.strip_prefix("a=candidate:") else {
            lines.push(line.to_owned());
            continue;
        };
        // foundation component transport priority address port "typ" … (RFC 8839 section 5.1)
        let mut words: Vec<String> = candidate.split_whitespace().map(str::to_owned).collect();
        let is_udp = words.len() >= 8 && words[2].eq_ignore_ascii_case("udp");
        if !is_udp || relay.is_some() {
            continue;
        }
        let upstream: SocketAddr = match (words[4].parse(), words[5].parse()) {
            (Ok(ip), Ok(port)) => SocketAddr::new(ip, port),
            _ => continue,
        };
        let opened = Relay::start(upstream, weather)?;
        words[4] = opened.address().ip().to_string();
        words[5] = opened.address().port().to_string();
        relay = Some(opened);
        lines.push(format!("a=candidate:{}", words.join(" ")));
    }
    let relay = relay.ok_or_else(|| Lost::Broken("the answer has no UDP candidate".into()))?;
    Ok((lines.join("\r\n") + "\r\n", relay))
}
