//! Heads of requests as they come in, and of answers as they go out (RFC 9112).

use axum::body::HttpBody as _;
use axum::response::{IntoResponse as _, Response};
use backend::problem::Problem;
use futures_util::FutureExt as _;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version, request};
use http_body_util::BodyExt as _;

/// Longest head of a request, bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most fields in it.
const FIELDS_MAX: usize = 100;

/// What the bytes received so far are.
#[derive(Debug)]
pub(crate) enum Received {
    /// The beginning of a head.
    Part,
    /// A head. What follows it is of no interest: every answer closes its connection.
    Whole(Box<request::Parts>),
    /// Nothing that can be answered but with this.
    Refused(Problem),
}

/// Reads the head of a request.
pub(crate) fn receive(bytes: &[u8]) -> Received {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD_BYTES_MAX => {}
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Received::Part,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {
            let allowed = format!("{HEAD_BYTES_MAX} bytes and {FIELDS_MAX} fields are allowed");
            let problem = Problem::new(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "too-large",
                "The head is too large",
            );
            return Received::Refused(problem.detail(allowed));
        }
        Err(error) => return Received::Refused(no_http(&error.to_string())),
    }
    match build(&parsed) {
        Some(parts) if has_body(&parts.headers) => Received::Refused(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "A request at this door has no body",
        )),
        Some(parts) if lacks_host(&parts) => Received::Refused(no_http("HTTP/1.1 asks for one Host")),
        Some(parts) => Received::Whole(Box::new(parts)),
        None => Received::Refused(no_http("a method, an address or a field is none")),
    }
}

fn no_http(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-request", "This is no request of HTTP/1.1").detail(detail)
}

fn build(parsed: &httparse::Request<'_, '_>) -> Option<request::Parts> {
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
    parts.uri = parsed.path?.parse::<Uri>().ok()?;
    parts.version = if parsed.version? == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    parts.headers = headers;
    Some(parts)
}

/// RFC 9112 section 3.2.
fn lacks_host(parts: &request::Parts) -> bool {
    let hosts = parts.headers.get_all(HOST).iter().count();
    hosts > 1 || (hosts == 0 && parts.version == Version::HTTP_11)
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0")
}

/// An answer with its body, if it is no answer to `HEAD`. The connection is closed after it.
pub(crate) fn whole(response: Response, date: &HeaderValue, of_head: bool) -> Vec<u8> {
    let (mut head, body) = response.into_parts();
    let exact = body.size_hint().exact();
    // Bodies at this door are a few bytes that are there already.
    let body =
        body.collect().now_or_never().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
    if head.status != StatusCode::NO_CONTENT && exact.is_some() {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let mut bytes = Vec::with_capacity(1_024 + body.len());
    write_head(&mut bytes, head.status, &mut head.headers, date);
    if !of_head {
        bytes.extend_from_slice(&body);
    }
    bytes
}

/// The head of an endless answer. `chunked` as RFC 9112 section 7.1, so that its end can be told from a connection that
/// broke; HTTP/1.0 knows only the latter.
pub(crate) fn endless(response: Response, date: &HeaderValue, chunked: bool) -> Vec<u8> {
    let (mut head, _) = response.into_parts();
    if chunked {
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let mut bytes = Vec::with_capacity(1_024);
    write_head(&mut bytes, head.status, &mut head.headers, date);
    bytes
}

fn write_head(bytes: &mut Vec<u8>, status: StatusCode, headers: &mut HeaderMap, date: &HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(DATE, date.clone());
    bytes.extend_from_slice(b"HTTP/1.1 ");
    bytes.extend_from_slice(status.as_str().as_bytes());
    bytes.push(b' ');
    bytes.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    for (name, value) in headers.iter() {
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
    }
    bytes.extend_from_slice(b"\r\n\r\n");
}

/// Bytes before the content of a chunk: its size in four digits, whatever it is, so that it can be filled in later.
const CHUNK_HEAD: usize = 6;
/// Most bytes in one chunk.
const CHUNK_MAX: usize = 0xffff;

/// Appends a body to a buffer, in chunks if it is `chunked`.
#[derive(Debug)]
pub(crate) struct BodyWriter<'b> {
    out: &'b mut Vec<u8>,
    chunked: bool,
    /// Where the open chunk begins.
    chunk: Option<usize>,
}

impl<'b> BodyWriter<'b> {
    pub(crate) fn new(out: &'b mut Vec<u8>, chunked: bool) -> Self {
        Self { out, chunked, chunk: None }
    }

    pub(crate) fn push(&mut self, mut content: &[u8]) {
        if !self.chunked {
            self.out.extend_from_slice(content);
            return;
        }
        while !content.is_empty() {
            let start = *self.chunk.get_or_insert_with(|| {
                self.out.extend_from_slice(&[0; CHUNK_HEAD]);
                self.out.len() - CHUNK_HEAD
            });
            let room = CHUNK_MAX - (self.out.len() - start - CHUNK_HEAD);
            let (fits, rest) = content.split_at(content.len().min(room));
            self.out.extend_from_slice(fits);
            content = rest;
            if !content.is_empty() {
                self.close();
            }
        }
    }

    /// Bytes in the buffer.
    pub(crate) fn len(&self) -> usize {
        self.out.len()
    }

    /// Nothing more for now; with `last`, ever.
    pub(crate) fn finish(mut self, last: bool) {
        self.close();
        if last && self.chunked {
            self.out.extend_from_slice(b"0\r\n\r\n");
        }
    }

    fn close(&mut self) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let Some(start) = self.chunk.take() else { return };
        let length = self.out.len() - start - CHUNK_HEAD;
        for (place, digit) in self.out[start..start + 4].iter_mut().enumerate() {
            *digit = DIGITS[(length >> (12 - 4 * place)) & 15];
        }
        self.out[start + 4..start + CHUNK_HEAD].copy_from_slice(b"\r\n");
        self.out.extend_from_slice(b"\r\n");
    }
}

/// An answer that names a problem, with what all answers of this door carry.
pub(crate) fn problem(problem: Problem) -> Response {
    let mut response = problem.into_response();
    crate::answer::shared_headers(&mut response);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8]) -> u16 {
        match receive(bytes) {
            Received::Refused(problem) => problem.status().as_u16(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn heads_are_read_when_they_are_whole() {
        let whole = b"GET /live/a/opus-48.mp4?from=3 HTTP/1.1\r\nHost: a.example\r\nIcy-MetaData: 1\r\n\r\n";
        for end in 0..whole.len() {
            assert!(matches!(receive(&whole[..end]), Received::Part), "{end}");
        }
        let Received::Whole(parts) = receive(whole) else { panic!("a head") };
        assert_eq!((&parts.method, parts.version), (&Method::GET, Version::HTTP_11));
        assert_eq!((parts.uri.path(), parts.uri.query()), ("/live/a/opus-48.mp4", Some("from=3")));
        assert_eq!(parts.headers["icy-metadata"], "1");
    }

    #[test]
    fn what_is_no_head_is_refused_as_soon_as_that_is_clear() {
        assert_eq!(refused(b"\x16\x03\x01\x02\x00\x01\x00"), 400);
        assert_eq!(refused(b"GET / FTP/1.0\r\n\r\n"), 400);
        assert_eq!(refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 400);
        assert_eq!(refused(b"GET http://[ HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(refused(&[b'A'; HEAD_BYTES_MAX]), 431);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(FIELDS_MAX + 1));
        assert_eq!(refused(many.as_bytes()), 431);
        // One host is asked for since HTTP/1.1.
        assert_eq!(refused(b"GET / HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(refused(b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"), 400);
        assert!(matches!(receive(b"GET / HTTP/1.0\r\n\r\n"), Received::Whole(_)));
        let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(HEAD_BYTES_MAX));
        assert_eq!(refused(long.as_bytes()), 431, "also when it comes at once");
        assert_eq!(refused(b"POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\nabcd"), 413);
        assert_eq!(refused(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"), 413);
        assert!(matches!(
            receive(b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"),
            Received::Whole(_)
        ));
    }

    #[test]
    fn answers_say_how_long_they_are() {
        let date = HeaderValue::from_static("now");
        let answer = |of_head| {
            let bytes = whole(problem(Problem::not_found()), &date, of_head);
            String::from_utf8(bytes).unwrap()
        };
        let text = answer(false);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 404 Not Found\r\n"), "{head}");
        for field in [
            "connection: close".to_owned(),
            "date: now".to_owned(),
            format!("content-length: {}", body.len()),
        ] {
            assert!(head.contains(&field), "{field}: {head}");
        }
        assert_eq!(answer(true), format!("{head}\r\n\r\n"));
        let nothing = whole(StatusCode::NO_CONTENT.into_response(), &date, false);
        assert!(!String::from_utf8(nothing).unwrap().contains("content-length"));
    }

    #[test]
    fn a_body_is_in_chunks_that_say_how_long_they_are() {
        let mut bytes = b"before".to_vec();
        let mut body = BodyWriter::new(&mut bytes, true);
        body.push(&[b'x'; 0x1a2]);
        body.push(b"yy");
        assert_eq!(body.len(), 6 + 6 + 0x1a4);
        body.finish(false);
        assert_eq!(&bytes[..12], b"before01a4\r\n");
        assert_eq!(&bytes[bytes.len() - 4..], b"yy\r\n");

        bytes.clear();
        BodyWriter::new(&mut bytes, true).finish(true);
        assert_eq!(bytes, b"0\r\n\r\n");

        bytes.clear();
        let mut body = BodyWriter::new(&mut bytes, true);
        body.push(&vec![b'z'; CHUNK_MAX + 1]);
        body.finish(true);
        assert_eq!(&bytes[..6], b"ffff\r\n");
        assert_eq!(&bytes[6 + CHUNK_MAX..], b"\r\n0001\r\nz\r\n0\r\n\r\n");

        bytes.clear();
        let mut body = BodyWriter::new(&mut bytes, false);
        body.push(b"as it is");
        body.finish(true);
        assert_eq!(bytes, b"as it is");
    }
}
