//! From an offer to an answer (RFC 9725 section 4.2), off the media thread.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use rand::RngExt as _;
use str0m::change::SdpOffer;
use str0m::media::Mid;
use str0m::{Candidate, IceCreds, Output, Rtc};

/// Most lines of an offer; a browser's has about sixty.
const LINES_MAX: usize = 2_000;

/// Why an offer gets no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OfferError {
    /// Not SDP, or SDP that no session can come of.
    #[error("the offer cannot be read: {0}")]
    Malformed(String),
    /// Nothing to hear in it.
    #[error("the offer has no audio; one audio line with Opus is needed")]
    NoAudio,
    /// Audio, but not what we take.
    #[error("the offer's audio has no Opus (opus/48000/2)")]
    NoOpus,
    /// The audio is only to be received.
    #[error("the offer sends no audio: its direction must be sendrecv or sendonly")]
    NotSending,
    /// More than one track.
    #[error("the offer has {0} audio lines; one is taken")]
    ManyAudio(usize),
}

/// A session that waits for its peer, and the answer that tells the peer where.
pub(crate) struct Answered {
    pub(crate) rtc: Rtc,
    pub(crate) mid: Mid,
    /// Our end's ICE user name: what the peer's STUN requests begin with.
    pub(crate) ufrag: String,
    pub(crate) sdp: String,
}

/// Makes a session of an offer. `candidates` are the addresses of the media port, at least one.
pub(crate) fn answer(offer: &str, candidates: &[SocketAddr], now: Instant) -> Result<Answered, OfferError> {
    let mid = check(offer)?;
    // The offer comes from outside and the library reads it; should it ever panic, only this offer is lost.
    catch_unwind(AssertUnwindSafe(|| negotiate(offer, mid, candidates, now)))
        .unwrap_or_else(|_| Err(OfferError::Malformed("it broke our reader".to_owned())))
}

/// The user name that the peer's ICE agent gave itself, if the text (an offer, or a fragment of one) names one.
pub(crate) fn ice_ufrag(sdp: &str) -> Option<&str> {
    sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).map(str::trim)
}

fn negotiate(
    offer: &str,
    mid: &str,
    candidates: &[SocketAddr],
    now: Instant,
) -> Result<Answered, OfferError> {
    let malformed = |error: &dyn std::fmt::Display| OfferError::Malformed(error.to_string());
    let offer = SdpOffer::from_sdp_string(offer).map_err(|error| malformed(&error))?;
    let mut rng = rand::rng();
    let mut secret = |length: usize| -> String {
        (0..length).map(|_| char::from(rng.sample(rand::distr::Alphanumeric))).collect()
    };
    let (ufrag, pass) = (secret(16), secret(32));
    // RTP mode: packets come as they are, the programme has the jitter buffer. No RED: in-band FEC covers losses.
    let mut rtc = Rtc::builder()
        .set_local_ice_credentials(IceCreds { ufrag: ufrag.clone(), pass })
        .set_ice_lite(true)
        .set_rtp_mode(true)
        .set_stats_interval(None)
        .clear_codecs()
        .enable_opus(true, false)
        .build(now);
    for candidate in candidates {
        rtc.add_local_candidate(Candidate::host(*candidate, "udp").map_err(|error| malformed(&error))?);
    }
    let answer = rtc.sdp_api().accept_offer(offer).map_err(|error| malformed(&error))?;
    // What is polled now would be candidates and timers; nothing is known of the peer yet.
    while !matches!(rtc.poll_output().map_err(|error| malformed(&error))?, Output::Timeout(_)) {}
    let mid: Mid = mid.into();
    let media = rtc.media(mid).ok_or_else(|| OfferError::Malformed("its audio was not taken".to_owned()))?;
    if media.disabled() || media.remote_pts().is_empty() {
        return Err(OfferError::NoOpus);
    }
    // Our direction is the peer's, turned round.
    if !media.direction().is_receiving() {
        return Err(OfferError::NotSending);
    }
    Ok(Answered { rtc, mid, ufrag, sdp: answer.to_sdp_string() })
}

/// What can be said of an offer before the library reads it; the name of its audio line.
fn check(offer: &str) -> Result<&str, OfferError> {
    let malformed = |reason: &str| Err(OfferError::Malformed(reason.to_owned()));
    if !offer.starts_with("v=0") {
        return malformed("it does not begin with v=0");
    }
    if offer.lines().count() > LINES_MAX {
        return malformed("it has too many lines");
    }
    let (mut audio, mut opus, mut in_audio, mut mid) = (0, false, false, None);
    for line in offer.lines() {
        if let Some(media) = line.strip_prefix("m=") {
            // Port 0: the line is there and rejected (RFC 3264 section 5.1).
            in_audio = media.starts_with("audio ") && media.split(' ').nth(1) != Some("0");
            audio += usize::from(in_audio);
        } else if in_audio && line.starts_with("a=mid:") {
            mid = mid.or(line.strip_prefix("a=mid:")).map(str::trim);
        } else if in_audio && line.starts_with("a=rtpmap:") {
            let encoding = line.split_once(' ').map_or("", |(_, encoding)| encoding.trim());
            opus |= encoding.get(..10).is_some_and(|name| name.eq_ignore_ascii_case("opus/48000"));
        }
    }
    match (audio, opus) {
        (0, _) => Err(OfferError::NoAudio),
        (1, true) => mid.ok_or_else(|| OfferError::Malformed("its audio line has no a=mid".to_owned())),
        (1, false) => Err(OfferError::NoOpus),
        (many, _) => Err(OfferError::ManyAudio(many)),
    }
}

/// Any bytes as an offer and as a fragment: what is ours reads them without a panic; what the library makes of an
/// offer that passes is an answer or an error.
pub(super) fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(ufrag) = ice_ufrag(&text) {
        assert!(text.contains(ufrag) && !ufrag.contains('\n'), "it is a piece of one line");
    }
    if let Ok(mid) = check(&text) {
        assert!(text.contains(mid), "the name is the offer's own");
        let candidate = SocketAddr::from(([127, 0, 0, 1], 8_082));
        if let Ok(answered) = answer(&text, &[candidate], Instant::now()) {
            assert!(answered.sdp.contains("m=audio"), "what was taken is answered");
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use str0m::media::{Direction, MediaKind};

    pub(crate) fn offer(direction: Direction) -> String {
        let mut rtc = Rtc::builder().clear_codecs().enable_opus(true, false).build(Instant::now());
        rtc.add_local_candidate(Candidate::host("127.0.0.1:5000".parse().unwrap(), "udp").unwrap());
        let mut changes = rtc.sdp_api();
        changes.add_media(MediaKind::Audio, direction, None, None, None);
        changes.apply().unwrap().0.to_sdp_string()
    }

    fn answered(offer: &str) -> Result<String, OfferError> {
        answer(offer, &["127.0.0.1:8082".parse().unwrap()], Instant::now()).map(|answered| answered.sdp)
    }

    fn check_error(offer: &str, expected: &OfferError) {
        assert_eq!(answered(offer).as_ref(), Err(expected), "{offer}");
    }

    #[test]
    fn the_answer_turns_the_direction_round() {
        for (offered, expected) in [(Direction::SendRecv, "a=sendrecv"), (Direction::SendOnly, "a=recvonly")]
        {
            let answer = answered(&offer(offered)).unwrap();
            assert!(answer.contains(expected), "{answer}");
            assert!(answer.contains("a=ice-lite"), "{answer}");
            assert!(answer.contains("127.0.0.1 8082 typ host"), "{answer}");
            assert!(answer.contains("useinbandfec=1"), "{answer}");
        }
        check_error(&offer(Direction::RecvOnly), &OfferError::NotSending);
    }

    #[test]
    fn video_beside_audio_is_declined_and_the_audio_taken() {
        let video = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:v\r\na=sendonly\r\na=rtcp-mux\r\n\
                     a=rtpmap:96 VP8/90000\r\n";
        let offer = offer(Direction::SendRecv);
        let group = offer.lines().find(|line| line.starts_with("a=group:BUNDLE")).unwrap().to_owned();
        let offer = offer.replace(&group, &format!("{group} v"));
        // Video without what the session level lacks: credentials are of the audio line, as in a bundle.
        let credentials: String = offer
            .lines()
            .filter(|l| l.starts_with("a=ice-") || l.starts_with("a=fingerprint") || l.starts_with("a=setup"))
            .map(|line| format!("{line}\r\n"))
            .collect();
        let answer = answered(&format!("{offer}{video}{credentials}")).unwrap();
        assert!(answer.contains("m=audio 9"), "{answer}");
        assert!(answer.contains("m=video 0") || answer.contains("a=inactive"), "{answer}");
    }

    #[test]
    fn offers_that_cannot_be_answered_say_why() {
        let good = offer(Direction::SendRecv);
        check_error(&good.replace("m=audio 9", "m=video 9"), &OfferError::NoAudio);
        check_error(&good.replace("opus/48000/2", "PCMU/8000"), &OfferError::NoOpus);
        check_error(&good.replace("m=audio 9", "m=audio 0"), &OfferError::NoAudio);
        let (session, media) = good.split_at(good.find("m=audio").unwrap());
        check_error(&format!("{session}{media}{media}"), &OfferError::ManyAudio(2));
        for broken in ["", "hello", "v=0", "v=0\r\n", &good[..good.len() / 2], "\0\0\0"] {
            assert!(answered(broken).is_err(), "{broken}");
        }
        assert!(matches!(answered(&good.replace("a=fingerprint", "a=x")), Err(OfferError::Malformed(_))));
        assert!(matches!(answered(&good.replace("a=ice-ufrag", "a=x")), Err(OfferError::Malformed(_))));
    }

    #[test]
    fn mutated_offers_never_panic() {
        use rand::SeedableRng as _;
        let good = offer(Direction::SendRecv);
        let mut rng = rand::rngs::StdRng::seed_from_u64(7);
        for _ in 0..2_000 {
            let mut bytes = good.clone().into_bytes();
            for _ in 0..rng.random_range(1..6) {
                let at = rng.random_range(0..bytes.len());
                match rng.random_range(0..4) {
                    0 => bytes[at] = rng.random(),
                    1 => _ = bytes.remove(at),
                    2 => bytes.insert(at, b"0:;/= \r\n"[rng.random_range(0..8)]),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            // The library's panics would be caught; ours would not.
            fuzz(&bytes);
        }
    }
}
