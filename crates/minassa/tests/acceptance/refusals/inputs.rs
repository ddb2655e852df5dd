//! Bad input, made to order: offers, datagrams, streams.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// SplitMix64: a generator that is its own description.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// An offer as a browser makes it, of these media sections.
pub(crate) fn offer(sections: &[&str]) -> String {
    let names: Vec<String> = (0..sections.len()).map(|index| index.to_string()).collect();
    let mut offer = format!(
        "v=0\no=- 4611731400430051336 2 IN IP4 127.0.0.1\ns=-\nt=0 0\na=group:BUNDLE {}\na=msid-semantic: WMS\n",
        names.join(" ")
    );
    let fingerprint = ["4F"; 32].join(":");
    for (name, section) in names.iter().zip(sections) {
        let (media, attributes) = section.split_once('\n').unwrap_or((section, ""));
        offer.push_str(&format!(
            "{media}\nc=IN IP4 0.0.0.0\na=ice-ufrag:4ZcD\na=ice-pwd:2/1muCWoOi3uLifh0NuRHlgk\n\
             a=fingerprint:sha-256 {fingerprint}\na=setup:actpass\na=mid:{name}\na=rtcp-mux\n{attributes}\n"
        ));
    }
    offer.replace('\n', "\r\n")
}

pub(crate) const AUDIO: &str = "m=audio 9 UDP/TLS/RTP/SAVPF 111\na=sendrecv\na=rtpmap:111 opus/48000/2\n\
                         a=fmtp:111 minptime=10;useinbandfec=1";
pub(crate) const VIDEO: &str = "m=video 9 UDP/TLS/RTP/SAVPF 96\na=sendrecv\na=rtpmap:96 VP8/90000";
pub(crate) const DATA: &str = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\na=sctp-port:5000";

/// A datagram for the media port that nobody asked for: noise, RTP, RTCP, DTLS or STUN of every sort.
pub(crate) fn datagram(chance: &mut Chance) -> Vec<u8> {
    let count = chance.below(1_200);
    let mut rest = chance.bytes(count);
    match chance.below(8) {
        0 => rest,
        // Opus as browsers send it, from nobody.
        1 | 2 => [&[0x80, 111][..], &rest].concat(),
        3 => [&[0x80, 200, 0, 6][..], &rest].concat(),
        // A DTLS 1.2 ClientHello's first bytes.
        4 => [&[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0][..], &rest].concat(),
        // STUN: binding requests with a user name nobody has, whole, cut, of a wrong length, and other methods.
        kind => {
            let username = format!("{:016x}:peer", chance.next());
            let mut attributes = vec![0, 6, 0, username.len() as u8];
            attributes.extend(username.as_bytes());
            attributes.resize(attributes.len().next_multiple_of(4), 0);
            attributes.extend([0, 8, 0, 20]);
            attributes.extend(chance.bytes(20));
            let length = if kind == 5 { chance.next() as u16 } else { attributes.len() as u16 };
            let method = if kind == 6 { chance.next() as u8 } else { 1 };
            let mut message = vec![0, method];
            message.extend(length.to_be_bytes());
            message.extend([0x21, 0x12, 0xA4, 0x42]);
            message.extend(chance.bytes(12));
            message.extend(attributes);
            if chance.below(4) == 0 {
                message.truncate(chance.below(message.len()));
            }
            rest.clear();
            message
        }
    }
}

/// What ffmpeg makes of a source of its own (`lavfi`), encoded with these options.
pub(crate) fn ffmpeg(source: &str, options: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-hide_banner", "-loglevel", "error", "-f", "lavfi", "-i", source])
        .args(options)
        .arg("pipe:1")
        .stdin(Stdio::null())
        .output()
        .context("ffmpeg is needed: `cargo xtask test` installs it")?;
    ensure!(
        output.status.success() && !output.stdout.is_empty(),
        "ffmpeg {options:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

/// A WAV file of silence that says in its head that it has `seconds`, and has this many bytes.
pub(crate) fn boasting_wav(seconds: u32, bytes: usize) -> Vec<u8> {
    let mut file = b"RIFF".to_vec();
    file.extend((36 + seconds * 16_000).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data");
    file.extend((seconds * 16_000).to_le_bytes());
    file.resize(file.len() + bytes, 0);
    file
}

/// Base64 with padding (RFC 4648 section 4).
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let word =
            three.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= three.len() { char::from(digit) } else { '=' });
        }
    }
    text
}
