//! The head of an Icecast source's request, and the framing of its body. Pure.
//!
//! What arrives here (observed of ffmpeg 5.1 and written down for libshout):
//!
//! ```text
//! ffmpeg                   PUT /ingest/talk HTTP/1.1 · Expect: 100-continue · no length, ends with the connection
//! ffmpeg -legacy_icecast   SOURCE /ingest/talk HTTP/1.1 · no Expect, waits for 200 · ends with the connection
//! libshout (butt, Liquidsoap, DarkIce)
//!                          SOURCE /ingest/talk HTTP/1.0 · waits for 200 · ends with the connection, or
//!                          PUT … HTTP/1.1 · Expect: 100-continue · Transfer-Encoding: chunked
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, Bytes, BytesMut};

/// Longest head.
pub(super) const HEAD_MAX: usize = 8 * 1024;
/// Most header fields.
const FIELDS_MAX: usize = 64;
/// Longest line that gives a chunk's size.
const SIZE_LINE_MAX: usize = 64;
/// Largest chunk believed.
const CHUNK_MAX: u64 = 1 << 30;

const STARTS: [&[u8]; 2] = [b"PUT /ingest/", b"SOURCE "];

/// Whether a connection that begins so is an Icecast source's; `None` while that is open.
pub(super) fn is_source(bytes: &[u8]) -> Option<bool> {
    let mut open = false;
    for start in STARTS {
        let known = bytes.len().min(start.len());
        if bytes[..known] == start[..known] {
            if known == start.len() {
                return Some(true);
            }
            open = true;
        }
    }
    if open { None } else { Some(false) }
}

/// What a source's request says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The event, as it stands in the address.
    pub(super) event: String,
    /// The invitation: the password of `Authorization: Basic`, whose user is `source`.
    pub(super) invite: Option<String>,
    /// Whether the client waits for `100 Continue`.
    pub(super) expects_continue: bool,
    pub(super) framing: Framing,
    /// Whether it means to be the seat's standby (`?standby=1`).
    pub(super) standby: bool,
    /// Whether it speaks the old protocol, which wants its 200 before it sends.
    pub(super) legacy: bool,
}

/// How the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// With the connection.
    UntilClose,
    /// After so many bytes.
    Length(u64),
    /// In chunks (RFC 9112 section 7.1).
    Chunked,
}

/// Why a head is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeadError {
    #[error("the request line is malformed")]
    RequestLine,
    #[error("a header field is malformed")]
    Field,
    #[error("the head is too long")]
    TooLong,
    #[error("the body's length is malformed or given twice")]
    Length,
    #[error("this address is no source's mount point")]
    Address,
}

/// Reads a head if it is complete: what it says, and how many bytes it has.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, HeadError> {
    let end = bytes.windows(4).take(HEAD_MAX).position(|four| four == b"\r\n\r\n");
    let Some(end) = end else {
        return if bytes.len() >= HEAD_MAX { Err(HeadError::TooLong) } else { Ok(None) };
    };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| HeadError::Field)?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(HeadError::RequestLine);
    };
    // Old sources call their protocol ICE/1.0.
    if !["HTTP/1.0", "HTTP/1.1", "ICE/1.0"].contains(&version) {
        return Err(HeadError::RequestLine);
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let event = path.strip_prefix("/ingest/").filter(|event| !event.is_empty()).ok_or(HeadError::Address)?;
    let mut parsed = Head {
        event: event.to_owned(),
        invite: None,
        expects_continue: false,
        framing: Framing::UntilClose,
        standby: query.split('&').any(|pair| pair == "standby=1"),
        legacy: method == "SOURCE",
    };
    let (mut length, mut chunked) = (None, false);
    for (count, line) in lines.enumerate() {
        let (name, value) = line.split_once(':').ok_or(HeadError::Field)?;
        if count >= FIELDS_MAX || name.is_empty() || name.contains([' ', '\t']) {
            return Err(HeadError::Field);
        }
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "authorization" => parsed.invite = password(value),
            "expect" => parsed.expects_continue = value.eq_ignore_ascii_case("100-continue"),
            "content-length" if length.is_none() => {
                // `u64::from_str` would take a sign.
                let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                length = Some(value.parse().ok().filter(|_| digits).ok_or(HeadError::Length)?);
            }
            "content-length" => return Err(HeadError::Length),
            "transfer-encoding" if value.eq_ignore_ascii_case("chunked") && !chunked => chunked = true,
            "transfer-encoding" => return Err(HeadError::Length),
            _ => {}
        }
    }
    parsed.framing = match (chunked, length) {
        (true, None) => Framing::Chunked,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::UntilClose,
        // Two lengths are how requests are smuggled (RFC 9112 section 6.3).
        (true, Some(_)) => return Err(HeadError::Length),
    };
    Ok(Some((parsed, end + 4)))
}

/// The password of Basic credentials (RFC 7617), if the user is `source`.
fn password(value: &str) -> Option<String> {
    let (scheme, credentials) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(credentials.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    (user == "source").then(|| password.to_owned())
}

/// Takes a body out of its frame.
#[derive(Debug)]
pub(super) struct Unframer {
    framing: Framing,
    input: BytesMut,
    /// Bytes left of the body or chunk.
    left: u64,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Size,
    Data,
    DataEnd,
    Ended,
}

/// A chunk's frame is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chunks of the body are malformed")]
pub(super) struct BrokenChunks;

impl Unframer {
    pub(super) fn new(framing: Framing) -> Self {
        let (left, stage) = match framing {
            Framing::UntilClose => (u64::MAX, Stage::Data),
            Framing::Length(0) => (0, Stage::Ended),
            Framing::Length(length) => (length, Stage::Data),
            Framing::Chunked => (0, Stage::Size),
        };
        Self { framing, input: BytesMut::new(), left, stage }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.stage != Stage::Ended {
            self.input.extend_from_slice(bytes);
        }
    }

    /// The next bytes of the body, if some have come.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, BrokenChunks> {
        loop {
            match self.stage {
                Stage::Ended => return Ok(None),
                Stage::Data => {
                    let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(self.input.len());
                    if count == 0 {
                        return Ok(None);
                    }
                    if self.framing != Framing::UntilClose {
                        self.left -= count as u64;
                    }
                    if self.left == 0 {
                        let chunked = self.framing == Framing::Chunked;
                        self.stage = if chunked { Stage::DataEnd } else { Stage::Ended };
                    }
                    return Ok(Some(self.input.split_to(count).freeze()));
                }
                Stage::DataEnd => {
                    if self.input.len() < 2 {
                        return Ok(None);
                    }
                    if &self.input[..2] != b"\r\n" {
                        return Err(BrokenChunks);
                    }
                    self.input.advance(2);
                    self.stage = Stage::Size;
                }
                Stage::Size => {
                    let end = self.input.windows(2).take(SIZE_LINE_MAX).position(|two| two == b"\r\n");
                    let Some(end) = end else {
                        return if self.input.len() > SIZE_LINE_MAX { Err(BrokenChunks) } else { Ok(None) };
                    };
                    let line = self.input.split_to(end + 2);
                    self.left = chunk_size(&line[..end]).ok_or(BrokenChunks)?;
                    // What may follow the last chunk (trailers) says nothing we need.
                    self.stage = if self.left == 0 { Stage::Ended } else { Stage::Data };
                }
            }
        }
    }

    /// Whether the body has ended by itself.
    pub(super) fn is_ended(&self) -> bool {
        self.stage == Stage::Ended
    }
}

/// Any bytes as a request and its body, whole and byte by byte: nothing panics, and no byte of a body is made up.
pub(super) fn fuzz(data: &[u8]) {
    let _ = is_source(data);
    let Ok(Some((head, length))) = parse(data) else { return };
    let body = |step: usize| {
        let mut unframer = Unframer::new(head.framing);
        let mut out = Vec::new();
        for piece in data[length..].chunks(step.max(1)) {
            unframer.push(piece);
            while let Some(bytes) = unframer.next().ok()? {
                out.extend_from_slice(&bytes);
            }
        }
        Some(out)
    };
    let (whole, bytewise) = (body(data.len()), body(1));
    assert!(whole.as_ref().is_none_or(|out| out.len() <= data.len() - length));
    if let (Some(whole), Some(bytewise)) = (whole, bytewise) {
        assert_eq!(whole, bytewise, "how the bytes are cut must not matter");
    }
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| matches!(byte, b';' | b' ')).next()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let size = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    (size <= CHUNK_MAX).then_some(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_sources_from_others() {
        for (bytes, expected) in [
            (&b""[..], None),
            (b"P", None),
            (b"PUT /inges", None),
            (b"PUT /ingest/", Some(true)),
            (b"SOURCE ", Some(true)),
            (b"SOU", None),
            (b"PUT /api", Some(false)),
            (b"POST /whip/x", Some(false)),
            (b"GET ", Some(false)),
            (b"\x16\x03\x01", Some(false)),
            (b"PRI * HTTP/2.0", Some(false)),
        ] {
            assert_eq!(is_source(bytes), expected, "{bytes:?}");
        }
    }

    fn head(text: &str) -> Result<Option<Head>, HeadError> {
        parse(text.as_bytes()).map(|parsed| parsed.map(|(head, _)| head))
    }

    #[test]
    fn what_ffmpeg_and_libshout_send_is_read() {
        let put = "PUT /ingest/talk HTTP/1.1\r\nUser-Agent: Lavf/59\r\nAccept: */*\r\nExpect: 100-continue\r\n\
                   Connection: close\r\nHost: 127.0.0.1:8082\r\nContent-Type: audio/mpeg\r\n\
                   Authorization: Basic c291cmNlOkFCQw==\r\n\r\nOggS";
        let (parsed, length) = parse(put.as_bytes()).unwrap().unwrap();
        assert_eq!(&put[length..], "OggS");
        let expected = Head {
            event: "talk".into(),
            invite: Some("ABC".into()),
            expects_continue: true,
            framing: Framing::UntilClose,
            standby: false,
            legacy: false,
        };
        assert_eq!(parsed, expected);
        let source =
            "SOURCE /ingest/talk?standby=1 HTTP/1.0\r\nauthorization: basic c291cmNlOkFCQw==\r\n\r\n";
        let expected = Head { expects_continue: false, standby: true, legacy: true, ..expected };
        assert_eq!(head(source).unwrap().unwrap(), expected);
        let chunked = "PUT /ingest/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(head(chunked).unwrap().unwrap().framing, Framing::Chunked);
    }

    #[test]
    fn what_is_no_head_is_named() {
        let check = |text: &str, expected| assert_eq!(head(text), Err(expected), "{text:?}");
        check("SOURCE /ingest/a\r\n\r\n", HeadError::RequestLine);
        check("SOURCE /ingest/a HTTP/2.0\r\n\r\n", HeadError::RequestLine);
        check("SOURCE /elsewhere HTTP/1.0\r\n\r\n", HeadError::Address);
        check("SOURCE /ingest/ HTTP/1.0\r\n\r\n", HeadError::Address);
        check("SOURCE /ingest/a HTTP/1.0\r\nno colon\r\n\r\n", HeadError::Field);
        check("SOURCE /ingest/a HTTP/1.0\r\n folded: x\r\n\r\n", HeadError::Field);
        for length in ["x", "-1", "+5", "", "99999999999999999999", "1\r\nContent-Length: 2"] {
            check(&format!("PUT /ingest/a HTTP/1.1\r\nContent-Length: {length}\r\n\r\n"), HeadError::Length);
        }
        check(
            "PUT /ingest/a HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            HeadError::Length,
        );
        check("PUT /ingest/a HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", HeadError::Length);
        check(&format!("PUT /ingest/{} HTTP/1.1\r\n", "a".repeat(HEAD_MAX)), HeadError::TooLong);
        assert_eq!(head("SOURCE /ingest/a HTTP/1.0\r\n"), Ok(None));
    }

    #[test]
    fn whatever_comes_nothing_panics() {
        use rand::{RngExt as _, SeedableRng as _};
        let seeds: [&[u8]; 3] = [
            b"PUT /ingest/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nOggS\r\n0\r\n\r\n",
            b"SOURCE /ingest/a?standby=1 HTTP/1.0\r\nAuthorization: Basic c291cmNlOkFCQw==\r\n\r\nOggS",
            b"PUT /ingest/a HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabcdef",
        ];
        let mut rng = rand::rngs::StdRng::seed_from_u64(11);
        for round in 0..20_000 {
            let mut data = seeds[round % seeds.len()].to_vec();
            for _ in 0..rng.random_range(0..5) {
                let at = rng.random_range(0..data.len());
                match rng.random_range(0..3) {
                    0 => data[at] = rng.random(),
                    1 => data.insert(at, b"\r\n :;0f\xff"[rng.random_range(0..8)]),
                    _ => data.truncate(at.max(1)),
                }
            }
            fuzz(&data);
        }
    }

    #[test]
    fn credentials_must_be_a_sources() {
        let invite = |value: &str| {
            head(&format!("PUT /ingest/a HTTP/1.1\r\nAuthorization: {value}\r\n\r\n"))
                .unwrap()
                .unwrap()
                .invite
        };
        assert_eq!(invite("Basic c291cmNlOkFCQw=="), Some("ABC".into()));
        for bad in ["Basic", "Basic !", "Bearer c291cmNlOkFCQw==", "Basic YWRtaW46QUJD", "Basic c291cmNl"] {
            assert_eq!(invite(bad), None, "{bad}");
        }
    }

    #[test]
    fn chunks_come_out_whole_however_they_are_cut() {
        let framed = b"4\r\nOggS\r\nb;x=y\r\nhello world\r\n0\r\n\r\n";
        for cut in 1..framed.len() {
            let mut unframer = Unframer::new(Framing::Chunked);
            let mut body = Vec::new();
            for piece in framed.chunks(cut) {
                unframer.push(piece);
                while let Some(bytes) = unframer.next().unwrap() {
                    body.extend_from_slice(&bytes);
                }
            }
            assert_eq!(body, b"OggShello world");
            assert!(unframer.is_ended());
        }
        for broken in [&b"x\r\n"[..], b"4\r\nOggSxx", b"\r\n", b"123456789\r\n", &[b'1'; 100]] {
            let mut unframer = Unframer::new(Framing::Chunked);
            unframer.push(broken);
            let mut result = unframer.next();
            while let Ok(Some(_)) = result {
                result = unframer.next();
            }
            assert_eq!(result, Err(BrokenChunks), "{broken:?}");
        }
        let mut unframer = Unframer::new(Framing::Length(5));
        unframer.push(b"1234567");
        assert_eq!(unframer.next().unwrap().unwrap(), "12345");
        assert!(unframer.is_ended());
    }
}
