//! Icecast sources: `PUT|SOURCE /ingest/{event}` with Ogg/Opus, as ffmpeg, butt and Liquidsoap send it.
//!
//! What the stream is shows in its first page, whatever its `Content-Type` claims (ffmpeg says `audio/mpeg` unless
//! told otherwise). Packets go to the media thread through a bounded channel that it drains at the programme's pace,
//! so a sender faster than its clock is slowed down by TCP.

use std::sync::Arc;
use std::time::Duration;

use axum::response::IntoResponse as _;
use backend::clock;
use backend::http::{Connection, Prefixed};
use backend::problem::Problem;
use bytes::{Bytes, BytesMut};
use formats::ogg::{OggError, OggItem, OggReader};
use http::StatusCode;
use stage::invite::{self, Invite};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::head::{self, HEAD_MAX, Head, Unframer};
use super::{Door, problems};
use crate::counters;
use crate::media::{Order, StreamPacket};

/// Packets on their way to the media thread: 5 s of 20 ms packets.
const PACKETS_MAX: usize = 256;
/// Longest time for the head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest pause of a sender before its connection is given up; the stage has called it dead long before.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;
/// Longest time for an answer to go out.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// What an Ogg page begins with.
const CAPTURE: &[u8] = b"OggS";

type Source = Prefixed<Connection>;

/// Why a source is sent away.
enum Ending {
    /// It ended as it should.
    Over,
    /// Answer it with this.
    Refused(Problem),
    /// The connection is gone; there is nobody to answer.
    Gone,
}

impl From<Problem> for Ending {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

/// Reads a source's connection from its first byte to its last.
pub(super) async fn serve(mut stream: Source, door: Arc<Door>) {
    let mut answered = false;
    let shutdown = door.shutdown.clone();
    let ending = tokio::select! {
        ending = receive(&mut stream, &door, &mut answered) => ending,
        () = shutdown.cancelled() => Ending::Gone,
    };
    match ending {
        Ending::Over if !answered => {
            respond(&mut stream, b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await
        }
        Ending::Refused(problem) if !answered => respond(&mut stream, &raw_response(problem).await).await,
        // A source of the old protocol got its 200 before its first byte; all that is left is to hang up.
        Ending::Over | Ending::Refused(_) | Ending::Gone => {}
    }
    // The peer may still be sending: closing at once would reset the connection, and with it the answer.
    let _ = timeout(WRITE_TIMEOUT, stream.shutdown()).await;
    let mut rest = [0; 4_096];
    for _ in 0..64 {
        match timeout(Duration::from_millis(200), stream.read(&mut rest)).await {
            Ok(Ok(1..)) => {}
            _ => break,
        }
    }
}

async fn receive(stream: &mut Source, door: &Arc<Door>, answered: &mut bool) -> Ending {
    let mut input = BytesMut::with_capacity(HEAD_MAX);
    let head = match timeout(HEAD_TIMEOUT, read_head(stream, &mut input)).await {
        Ok(Ok(head)) => head,
        Ok(Err(ending)) => return ending,
        Err(_) => return Ending::Gone,
    };
    match stream_in(stream, door, head, input, answered).await {
        Ok(()) => Ending::Over,
        Err(ending) => ending,
    }
}

/// Reads the head; what follows it stays in `input`.
async fn read_head(stream: &mut Source, input: &mut BytesMut) -> Result<Head, Ending> {
    loop {
        match head::parse(input) {
            Ok(Some((head, length))) => {
                let _ = input.split_to(length);
                return Ok(head);
            }
            Ok(None) => {}
            Err(head::HeadError::Address) => return Err(Problem::not_found().into()),
            Err(head::HeadError::TooLong) => return Err(problems::head_too_long(HEAD_MAX).into()),
            Err(error) => return Err(problems::bad_request(error.to_string()).into()),
        }
        match stream.read_buf(input).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return Err(Ending::Gone),
        }
    }
}

async fn stream_in(
    stream: &mut Source,
    door: &Arc<Door>,
    head: Head,
    rest: BytesMut,
    answered: &mut bool,
) -> Result<(), Ending> {
    let invite = admit(door, &head)?;
    let _place = door
        .streams
        .clone()
        .try_acquire_owned()
        .map_err(|_| Problem::unavailable("Too many sources are connected.", 5))?;
    if head.expects_continue {
        respond(stream, b"HTTP/1.1 100 Continue\r\n\r\n").await;
    } else if head.legacy || head.framing == head::Framing::UntilClose {
        // The old protocol waits for this before it sends; and who ends with the connection reads nothing later.
        respond(stream, b"HTTP/1.0 200 OK\r\n\r\n").await;
        *answered = true;
    }
    let mut listener = Listener {
        door: door.clone(),
        event: head.event.clone(),
        invite,
        standby: head.standby,
        reader: OggReader::new(),
        first: BytesMut::new(),
        packets: None,
    };
    let mut unframer = Unframer::new(head.framing);
    unframer.push(&rest);
    drop(rest);
    let mut input = BytesMut::with_capacity(READ_BYTES);
    loop {
        loop {
            let piece = unframer.next().map_err(|error| problems::bad_request(error.to_string()))?;
            match piece {
                Some(bytes) => listener.take(bytes).await?,
                None => break,
            }
        }
        if unframer.is_ended() {
            return listener.end();
        }
        input.clear();
        input.reserve(READ_BYTES);
        match timeout(PAUSE_MAX, stream.read_buf(&mut input)).await {
            Ok(Ok(1..)) => unframer.push(&input),
            Ok(Ok(0)) => return listener.end(),
            Ok(Err(_)) | Err(_) => return Err(Ending::Gone),
        }
    }
}

fn admit(door: &Door, head: &Head) -> Result<Invite, Problem> {
    const SCHEME: &str = "Basic realm=\"minassa\"";
    let view = door.event(&head.event)?;
    let invite = match &head.invite {
        None => Err(problems::unauthorized(SCHEME, "The user is source, the password an invitation.")),
        Some(token) => {
            invite::verify(token, &view.event, view.now()).map_err(|error| problems::invite(error, SCHEME))
        }
    };
    invite.inspect_err(|_| counters::INVITES_REFUSED.increment())
}

/// Takes the stream apart and hands packets on. It joins the stage with its first packet, so that a stream of
/// something else never takes a seat.
struct Listener {
    door: Arc<Door>,
    event: String,
    invite: Invite,
    standby: bool,
    reader: OggReader,
    /// The first bytes, until there are enough to see what this is.
    first: BytesMut,
    packets: Option<mpsc::Sender<StreamPacket>>,
}

impl Listener {
    async fn take(&mut self, bytes: Bytes) -> Result<(), Ending> {
        if self.first.len() < CAPTURE.len() {
            self.first.extend_from_slice(&bytes[..bytes.len().min(CAPTURE.len() - self.first.len())]);
            // The reader would look for a page further on; a stream that is Ogg begins with one.
            if !CAPTURE.starts_with(&self.first) {
                return Err(self.refuse(&OggError::NotOgg).into());
            }
        }
        self.reader.push(&bytes);
        loop {
            match self.reader.next() {
                Ok(None) => return Ok(()),
                Ok(Some(OggItem::Packet(packet))) => self.packet(packet.position, packet.data).await?,
                // What is missing or broken shows as a hole in the positions, and is concealed as one.
                Ok(Some(OggItem::Lost { pages, bytes })) => {
                    tracing::debug!(
                        event = self.event,
                        seat = self.invite.seat.0,
                        pages,
                        bytes,
                        "Ogg pages lost"
                    );
                }
                Ok(Some(OggItem::BadPacket(error))) => {
                    tracing::debug!(event = self.event, seat = self.invite.seat.0, %error, "an Opus packet is broken");
                }
                Ok(Some(OggItem::Head(_) | OggItem::Tags(_) | OggItem::End)) => {}
                Err(error) => return Err(self.refuse(&error).into()),
            }
        }
    }

    async fn packet(&mut self, position: u64, data: Bytes) -> Result<(), Ending> {
        let packets = match &self.packets {
            Some(packets) => packets,
            None => {
                let packets = self.join().await?;
                self.packets.insert(packets)
            }
        };
        let packet = StreamPacket { position, data, arrival: clock::boot_now() };
        // The stage has closed this source: revoked, replaced or over.
        packets.send(packet).await.map_err(|_| Ending::Over)
    }

    async fn join(&self) -> Result<mpsc::Sender<StreamPacket>, Problem> {
        let (sender, packets) = mpsc::channel(PACKETS_MAX);
        let (reply, result) = oneshot::channel();
        let order = Order::Stream {
            event: self.invite.event.clone(),
            seat: self.invite.seat,
            standby: self.standby,
            packets,
            reply,
        };
        self.door.ask(order, result).await?.map_err(|error| {
            counters::REFUSED.increment();
            problems::refusal(error, &self.event)
        })?;
        Ok(sender)
    }

    /// The stream is over. One in which no packet was found was none, however it began.
    fn end(&self) -> Result<(), Ending> {
        if self.packets.is_some() {
            return Ok(());
        }
        counters::INGEST_BROKEN.increment();
        tracing::warn!(event = self.event, seat = self.invite.seat.0, "an Icecast source sent no Opus");
        Err(wrong_stream(StatusCode::BAD_REQUEST, "It ended before any Opus was found in it.").into())
    }

    fn refuse(&self, error: &OggError) -> Problem {
        let wrong = matches!(
            error,
            OggError::NotOgg
                | OggError::WrongCodec(_)
                | OggError::Multiplexed
                | OggError::UnsupportedChannels { .. }
        );
        if wrong {
            counters::INGEST_WRONG_CODEC.increment();
        } else {
            counters::INGEST_BROKEN.increment();
        }
        tracing::warn!(event = self.event, seat = self.invite.seat.0, %error, "an Icecast source is dropped");
        let status = if wrong { StatusCode::UNSUPPORTED_MEDIA_TYPE } else { StatusCode::BAD_REQUEST };
        wrong_stream(status, &format!("This stream cannot be taken: {error}."))
    }
}

fn wrong_stream(status: StatusCode, detail: &str) -> Problem {
    Problem::new(status, "wrong-stream", "Ogg with one stream of Opus is wanted here").detail(detail)
}

async fn respond(stream: &mut Source, bytes: &[u8]) {
    // Who does not read its answer does not get it.
    let _ = timeout(WRITE_TIMEOUT, async {
        stream.write_all(bytes).await?;
        stream.flush().await
    })
    .await;
}

/// A problem as it goes over a connection that no HTTP server reads.
async fn raw_response(problem: Problem) -> Vec<u8> {
    let response = problem.into_response();
    let (head, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 64 * 1024).await.unwrap_or_default();
    let mut bytes = format!(
        "HTTP/1.1 {} {}\r\nconnection: close\r\ncontent-length: {}\r\n",
        head.status.as_u16(),
        head.status.canonical_reason().unwrap_or("Error"),
        body.len()
    )
    .into_bytes();
    for (name, value) in head.headers.iter().filter(|(name, _)| **name != http::header::CONTENT_LENGTH) {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&body);
    bytes
}
