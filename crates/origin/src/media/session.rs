//! One speaker's WebRTC connection on the media thread.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use model::{EventSlug, MediaTime};
use stage::SourceId;
use str0m::media::{Mid, Pt};
use str0m::net::{Protocol, Receive, Transmit};
use str0m::rtp::RtpWrite;
use str0m::{Event, IceConnectionState, Input, Output, Rtc, RtcError};

use super::Answered;

/// RTP sources of one session: its voice, and a few more for a client that begins anew.
const SSRCS_MAX: usize = 8;
/// Bad DTLS records that are passed over.
const DTLS_ERRORS_MAX: u32 = 64;

/// What a session gave rise to.
pub(crate) enum SessionOutput {
    /// Send this datagram.
    Send(Transmit),
    /// Sound arrived.
    Sound {
        /// Extended sequence number.
        sequence: u64,
        /// Time at 48 kHz.
        timestamp: u32,
        /// One Opus packet; never empty.
        payload: Arc<[u8]>,
    },
    /// ICE and DTLS are through.
    Connected,
    /// It is over: the peer said so, ICE gave up, or the engine failed.
    Over(&'static str),
}

/// A connection that a seat's holder has, or is about to have.
pub(crate) struct Session {
    pub(crate) event: EventSlug,
    pub(crate) source: SourceId,
    rtc: Rtc,
    mid: Mid,
    /// Where peers reach us; the first of its family stands for the socket.
    candidates: Arc<[SocketAddr]>,
    payload_type: Option<Pt>,
    sequence: u64,
    started: Instant,
    connected: bool,
    over: bool,
    dtls_errors: u32,
    ssrcs: Vec<u32>,
}

impl Session {
    /// `candidates` are those of the answer.
    pub(crate) fn new(
        event: EventSlug,
        source: SourceId,
        answered: Answered,
        candidates: Arc<[SocketAddr]>,
        now: Instant,
    ) -> Self {
        Self {
            event,
            source,
            rtc: answered.rtc,
            mid: answered.mid,
            candidates,
            payload_type: None,
            // Anywhere in the lower half, so that the rollover counter begins at 0 (RFC 3711 section 3.3.1).
            sequence: u64::from(rand::random::<u16>() >> 1),
            started: now,
            connected: false,
            over: false,
            dtls_errors: 0,
            ssrcs: Vec::new(),
        }
    }

    /// A datagram arrived for this session. Returns whether the engine took it as its peer's.
    pub(crate) fn receive(
        &mut self,
        source: SocketAddr,
        datagram: &[u8],
        now: Instant,
        outputs: &mut Vec<SessionOutput>,
    ) -> bool {
        self.guarded(outputs, |session, outputs| {
            let same_family = |ours: &&SocketAddr| ours.is_ipv4() == source.is_ipv4();
            let Some(local) = session.candidates.iter().find(same_family).copied() else { return Ok(false) };
            let Ok(packet) = Receive::new(Protocol::Udp, source, local, datagram) else { return Ok(false) };
            let input = Input::Receive(now, packet);
            if !session.is_expected(datagram) || !session.rtc.accepts(&input) {
                return Ok(false);
            }
            match session.rtc.handle_input(input) {
                // A single bad record proves nothing: anyone can send one in the peer's name.
                Err(RtcError::Dtls(_)) if session.dtls_errors < DTLS_ERRORS_MAX => session.dtls_errors += 1,
                other => other?,
            }
            session.drain(outputs)?;
            Ok(true)
        })
    }

    /// Whether a datagram's RTP source is one of the few a session may have. The engine keeps state for each source
    /// before it checks signatures.
    fn is_expected(&mut self, datagram: &[u8]) -> bool {
        // RFC 7983 and RFC 5761 section 4: RTP or RTCP by the first byte, RTCP by the second.
        let is_rtp =
            matches!(datagram.first(), Some(128..=191)) && !matches!(datagram.get(1), Some(192..=223));
        let Some(ssrc) = datagram.get(8..12).filter(|_| is_rtp) else { return !is_rtp };
        let ssrc = u32::from_be_bytes(ssrc.try_into().expect("four bytes were taken"));
        if !self.ssrcs.contains(&ssrc) {
            if self.ssrcs.len() >= SSRCS_MAX {
                return false;
            }
            self.ssrcs.push(ssrc);
        }
        true
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant, outputs: &mut Vec<SessionOutput>) {
        self.guarded(outputs, |session, outputs| {
            session.rtc.handle_input(Input::Timeout(now))?;
            session.drain(outputs)?;
            Ok(true)
        });
    }

    /// Sends one Opus packet of the mix; nothing if the peer wants none or is not there yet.
    pub(crate) fn send(
        &mut self,
        at: MediaTime,
        packet: &Bytes,
        now: Instant,
        outputs: &mut Vec<SessionOutput>,
    ) {
        if !self.connected {
            return;
        }
        self.guarded(outputs, |session, outputs| {
            let Some(payload_type) = session.payload_type() else { return Ok(false) };
            // RTP time counts at the programme's rate, so it is the programme's sample number (RFC 7587 section 4.1).
            let time = at.samples() as u32;
            let mut api = session.rtc.direct_api();
            let Some(stream) = api.stream_tx_by_mid(session.mid, None) else { return Ok(false) };
            stream.write_rtp(RtpWrite::new(payload_type, session.sequence.into(), time, now, &packet[..]));
            session.sequence += 1;
            session.rtc.handle_input(Input::Timeout(now))?;
            session.drain(outputs)?;
            Ok(true)
        });
    }

    /// Says goodbye, so that the peer need not wait to notice.
    pub(crate) fn close(&mut self, now: Instant, outputs: &mut Vec<SessionOutput>) {
        self.guarded(outputs, |session, outputs| {
            session.rtc.close()?;
            session.drain(outputs)?;
            session.rtc.handle_input(Input::Timeout(now))?;
            session.drain(outputs)?;
            Ok(true)
        });
        self.over = true;
    }

    /// Since when it exists.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    fn payload_type(&mut self) -> Option<Pt> {
        if self.payload_type.is_none() {
            self.payload_type = self.rtc.media(self.mid)?.remote_pts().first().copied();
        }
        self.payload_type
    }

    fn drain(&mut self, outputs: &mut Vec<SessionOutput>) -> Result<(), RtcError> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(_) => return Ok(()),
                Output::Transmit(transmit) => outputs.push(SessionOutput::Send(transmit)),
                Output::Event(event) => self.on_event(event, outputs),
            }
        }
    }

    fn on_event(&mut self, event: Event, outputs: &mut Vec<SessionOutput>) {
        match event {
            Event::Connected => {
                self.connected = true;
                outputs.push(SessionOutput::Connected);
            }
            // Padding and probes come as packets without payload.
            Event::RtpPacket(packet) if !packet.payload.is_empty() => outputs.push(SessionOutput::Sound {
                sequence: *packet.seq_no,
                timestamp: packet.header.timestamp,
                payload: packet.payload,
            }),
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => {
                // The stage decides by packets when a source is dead; ICE may yet recover.
                tracing::debug!(event = %self.event, source = self.source.0, "ICE is disconnected");
            }
            Event::Closed => self.end("closed by the peer", outputs),
            _ => {}
        }
    }

    fn end(&mut self, why: &'static str, outputs: &mut Vec<SessionOutput>) {
        if !std::mem::replace(&mut self.over, true) {
            outputs.push(SessionOutput::Over(why));
        }
    }

    /// Runs one step of the engine. What the network sends must never take others along: an error or a panic inside
    /// ends this session and no other.
    fn guarded(
        &mut self,
        outputs: &mut Vec<SessionOutput>,
        step: impl FnOnce(&mut Self, &mut Vec<SessionOutput>) -> Result<bool, RtcError>,
    ) -> bool {
        if self.over {
            return false;
        }
        let done = catch_unwind(AssertUnwindSafe(|| step(self, outputs)));
        let taken = match done {
            Ok(Ok(taken)) => taken,
            Ok(Err(error)) => {
                tracing::info!(event = %self.event, source = self.source.0, %error, "a session failed");
                self.end("failed", outputs);
                return false;
            }
            Err(_) => {
                tracing::error!(event = %self.event, source = self.source.0, "a session's engine panicked");
                self.end("panicked", outputs);
                return false;
            }
        };
        if !self.rtc.is_alive() {
            self.end("over", outputs);
        }
        taken
    }
}
