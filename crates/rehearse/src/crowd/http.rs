//! Reading HTTP/1.1 responses (RFC 9112) one after the other, in whatever pieces they arrive, without keeping a body.

/// Largest head of a response, bytes.
const HEAD_MAX: usize = 16 * 1024;
/// Longest line of a chunk's size, or of a trailer, bytes.
const LINE_MAX: u32 = 4 * 1024;

/// What is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("no HTTP response")]
    NotHttp,
    #[error("a head of over 16 KiB")]
    LongHead,
    #[error("a broken chunk")]
    Chunk,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// Bytes left of a body of known length.
    Length(u64),
    UntilClose,
    /// The line before a chunk: its size so far, and whether digits are still read.
    Size {
        size: u64,
        digits: bool,
        length: u32,
    },
    /// Bytes left of a chunk and of the line end after it.
    Data(u64),
    /// After the last chunk: length of the line, and of all of them.
    Trailer {
        line: u32,
        all: u32,
    },
    Done,
}

/// One response.
#[derive(Debug)]
pub(crate) struct Response {
    state: State,
    head: Vec<u8>,
    status: u16,
    /// Bytes of the whole representation behind a range, if the response says so.
    complete_length: Option<u64>,
    retry_after_s: Option<u64>,
}

impl Response {
    pub(crate) fn new() -> Self {
        Self { state: State::Head, head: Vec::new(), status: 0, complete_length: None, retry_after_s: None }
    }

    /// Its status, 0 before its head is there.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Of `Content-Range`.
    pub(crate) fn complete_length(&self) -> Option<u64> {
        self.complete_length
    }

    /// Of `Retry-After`, if it is a number of seconds (RFC 9110 section 10.2.3).
    pub(crate) fn retry_after_s(&self) -> Option<u64> {
        self.retry_after_s
    }

    /// Whether it is all there.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes bytes; `body` gets those of the body, if the server says that this is what was asked for (2xx): what
    /// explains an error is no audio. Returns how many were taken: fewer than all only once it is done.
    pub(crate) fn feed(&mut self, bytes: &[u8], body: &mut impl FnMut(&[u8])) -> Result<usize, HttpError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.state {
                State::Head => rest = self.feed_head(rest)?,
                State::UntilClose => {
                    if self.is_success() {
                        body(rest);
                    }
                    rest = &[];
                }
                State::Length(left) => {
                    let (now, later) = split(rest, left);
                    if self.is_success() {
                        body(now);
                    }
                    rest = later;
                    let left = left - now.len() as u64;
                    self.state = if left == 0 { State::Done } else { State::Length(left) };
                }
                State::Data(left) => {
                    // The last two bytes are the line end after the data.
                    let (data, _) = split(rest, left.saturating_sub(2));
                    if !data.is_empty() && self.is_success() {
                        body(data);
                    }
                    let (now, later) = split(rest, left);
                    rest = later;
                    let left = left - now.len() as u64;
                    self.state = if left == 0 { State::size() } else { State::Data(left) };
                }
                State::Size { .. } | State::Trailer { .. } => {
                    self.feed_line_byte(rest[0])?;
                    rest = &rest[1..];
                }
                State::Done => break,
            }
        }
        Ok(bytes.len() - rest.len())
    }

    fn feed_line_byte(&mut self, byte: u8) -> Result<(), HttpError> {
        self.state = match (self.state, byte) {
            (State::Size { digits: true, length: 0, .. }, b'\n' | b'\r') => return Err(HttpError::Chunk),
            (State::Size { size: 0, .. }, b'\n') => State::Trailer { line: 0, all: 0 },
            (State::Size { size, .. }, b'\n') => State::Data(size + 2),
            (State::Size { length: LINE_MAX.., .. }, _) => return Err(HttpError::Chunk),
            (State::Size { size, digits: true, length }, byte) if byte.is_ascii_hexdigit() => {
                let digit = u64::from((byte as char).to_digit(16).unwrap_or(0));
                // A chunk of 2^56 bytes is no audio.
                if size >> 52 != 0 {
                    return Err(HttpError::Chunk);
                }
                State::Size { size: size << 4 | digit, digits: true, length: length + 1 }
            }
            (State::Size { digits: true, length: 0, .. }, _) => return Err(HttpError::Chunk),
            (State::Size { size, length, .. }, _) => State::Size { size, digits: false, length: length + 1 },
            (State::Trailer { line: 0, .. }, b'\n') => State::Done,
            (State::Trailer { all: LINE_MAX.., .. }, _) => return Err(HttpError::Chunk),
            (State::Trailer { all, .. }, b'\n') => State::Trailer { line: 0, all: all + 1 },
            (State::Trailer { line, all }, b'\r') => State::Trailer { line, all: all + 1 },
            (State::Trailer { line, all }, _) => State::Trailer { line: line + 1, all: all + 1 },
            (state, _) => state,
        };
        Ok(())
    }

    fn feed_head<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], HttpError> {
        let searched = self.head.len().saturating_sub(3);
        let before = self.head.len();
        let room = HEAD_MAX + 4 - before;
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let Some(found) = self.head[searched..].windows(4).position(|four| four == b"\r\n\r\n") else {
            return if self.head.len() >= HEAD_MAX { Err(HttpError::LongHead) } else { Ok(&[]) };
        };
        let end = searched + found + 4;
        self.head.truncate(end);
        self.state = self.read_head()?;
        // Nobody asks for it again, and there are many responses.
        self.head = Vec::new();
        Ok(&bytes[end - before..])
    }

    fn read_head(&mut self) -> Result<State, HttpError> {
        let text = std::str::from_utf8(&self.head).map_err(|_| HttpError::NotHttp)?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")).ok_or(HttpError::NotHttp)?;
        let status = status.get(2..5).and_then(|code| code.parse().ok()).ok_or(HttpError::NotHttp)?;
        // RFC 9110 section 15.2: an interim response is followed by the real one.
        if (100..200).contains(&status) {
            return Ok(State::Head);
        }
        self.status = status;
        let (mut length, mut chunked) = (None, false);
        for line in lines {
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.parse().map_err(|_| HttpError::NotHttp)?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = value.to_ascii_lowercase().ends_with("chunked");
            } else if name.eq_ignore_ascii_case("content-range") {
                self.complete_length = value.rsplit_once('/').and_then(|(_, length)| length.parse().ok());
            } else if name.eq_ignore_ascii_case("retry-after") {
                self.retry_after_s = value.parse().ok();
            }
        }
        // RFC 9112 section 6.3, in its order.
        Ok(match (status, chunked, length) {
            (204 | 304, _, _) | (_, false, Some(0)) => State::Done,
            (_, true, _) => State::size(),
            (_, false, Some(length)) => State::Length(length),
            (_, false, None) => State::UntilClose,
        })
    }
}

impl State {
    fn size() -> Self {
        Self::Size { size: 0, digits: true, length: 0 }
    }
}

/// The first `count` bytes, or all, and the rest.
fn split(bytes: &[u8], count: u64) -> (&[u8], &[u8]) {
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(bytes.len());
    bytes.split_at(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status, the body, and what was left over, read in pieces of every length.
    fn read(bytes: &[u8]) -> Result<(u16, Vec<u8>, usize, bool), HttpError> {
        let mut results = Vec::new();
        for step in [1, 2, 3, 7, bytes.len()] {
            let mut response = Response::new();
            let (mut body, mut taken) = (Vec::new(), 0);
            let mut all = || {
                for piece in bytes.chunks(step) {
                    taken += response.feed(piece, &mut |bytes| body.extend_from_slice(bytes))?;
                }
                Ok(())
            };
            let outcome = all();
            results.push(outcome.map(|()| (response.status(), body, taken, response.is_done())));
        }
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{results:?}");
        results.remove(0)
    }

    #[test]
    fn bodies_end_where_they_should() {
        type Case = (&'static [u8], u16, &'static [u8], usize, bool);
        let cases: [Case; 6] = [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP", 200, b"abc", 4, true),
            (b"HTTP/1.0 200 OK\r\n\r\nfor ever", 200, b"for ever", 0, false),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: v\r\n\r\nX",
                200,
                b"abc0123456789",
                1,
                true,
            ),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 None\r\n\r\n", 204, b"", 0, true),
            (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b"", 0, true),
            (b"HTTP/1.1 503 Full\r\nretry-after: 5\r\ncontent-length: 4\r\n\r\nfull", 503, b"", 0, true),
        ];
        for (bytes, status, body, left, done) in cases {
            assert_eq!(read(bytes), Ok((status, body.to_vec(), bytes.len() - left, done)));
        }
    }

    #[test]
    fn what_is_broken_is_named() {
        assert_eq!(read(b"ICY 200 OK\r\n\r\n"), Err(HttpError::NotHttp));
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"), Err(HttpError::NotHttp));
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for broken in ["\r\n", "xyz\r\n", "123456789abcdef0\r\n"] {
            assert_eq!(read(&[&chunked, broken.as_bytes()].concat()), Err(HttpError::Chunk), "{broken:?}");
        }
        let endless = [b"HTTP/1.1 200 OK\r\n".to_vec(), vec![b'a'; 2 * HEAD_MAX]].concat();
        assert_eq!(read(&endless), Err(HttpError::LongHead));
    }

    #[test]
    fn a_range_says_how_long_the_whole_is() {
        let mut response = Response::new();
        let head = b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-9/4711\r\nContent-Length: 10\r\n\r\n";
        response.feed(head, &mut |_| ()).unwrap();
        assert_eq!(response.complete_length(), Some(4_711));
    }
}
