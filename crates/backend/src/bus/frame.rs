//! Frames on a bus socket.
//!
//! ```text
//! subscriber → publisher, once                publisher → subscriber
//! ┌────────┬─────────┬───────────────────┐    ┌────────┬──────┬──────────┬─────────┐
//! │ length │ version │ topic, from       │    │ length │ kind │ sequence │ payload │
//! │ u32    │ u8      │ postcard          │    │ u32    │ u8   │ u64      │         │
//! └────────┴─────────┴───────────────────┘    └────────┴──────┴──────────┴─────────┘
//! ```
//!
//! Numbers are little-endian; a length counts what follows it.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio_util::codec::LengthDelimitedCodec;

use super::{Message, PAYLOAD_BYTES_MAX};
use crate::wire;

/// Kind and sequence number.
const HEAD_BYTES: usize = 1 + 8;
/// Longest request of a subscriber.
const HELLO_BYTES_MAX: usize = 1_024;
/// Longest name of a topic, bytes.
pub(super) const TOPIC_BYTES_MAX: usize = 128;

const KIND_MESSAGE: u8 = 0;
const KIND_CAUGHT_UP: u8 = 1;

/// What a subscriber asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) topic: String,
    pub(super) from: Option<u64>,
}

/// What a publisher sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Message(Message),
    /// Everything retained has been sent; on a log topic the next message will have at least this number.
    CaughtUp {
        next: u64,
    },
}

pub(super) fn hello_codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().little_endian().max_frame_length(HELLO_BYTES_MAX).new_codec()
}

pub(super) fn frame_codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .little_endian()
        .max_frame_length(HEAD_BYTES + PAYLOAD_BYTES_MAX)
        .new_codec()
}

impl Hello {
    pub(super) fn encode(&self) -> Bytes {
        let body = wire::encode(self);
        let mut bytes = BytesMut::with_capacity(4 + body.len());
        bytes.put_u32_le(u32::try_from(body.len()).expect("a topic's name is short"));
        bytes.extend_from_slice(&body);
        bytes.freeze()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let hello: Self = wire::decode(bytes).ok()?;
        (hello.topic.len() <= TOPIC_BYTES_MAX).then_some(hello)
    }
}

/// What precedes a message's payload.
pub(super) fn message_head(message: &Message) -> Bytes {
    head(KIND_MESSAGE, message.sequence, message.payload.len())
}

/// The frame that says [`Frame::CaughtUp`].
pub(super) fn caught_up(next: u64) -> Bytes {
    head(KIND_CAUGHT_UP, next, 0)
}

fn head(kind: u8, sequence: u64, payload: usize) -> Bytes {
    let mut bytes = BytesMut::with_capacity(4 + HEAD_BYTES);
    bytes.put_u32_le(
        u32::try_from(HEAD_BYTES + payload).expect("payloads are limited where they are published"),
    );
    bytes.put_u8(kind);
    bytes.put_u64_le(sequence);
    bytes.freeze()
}

impl Frame {
    /// Reads a frame without its length. `None` if it is none of ours.
    pub(super) fn decode(mut bytes: Bytes) -> Option<Self> {
        if bytes.len() < HEAD_BYTES {
            return None;
        }
        let (kind, sequence) = (bytes.get_u8(), bytes.get_u64_le());
        match kind {
            KIND_MESSAGE => Some(Self::Message(Message { sequence, payload: bytes })),
            KIND_CAUGHT_UP if bytes.is_empty() => Some(Self::CaughtUp { next: sequence }),
            _ => None,
        }
    }
}

/// Entry point for fuzzing.
pub(super) fn fuzz(data: &[u8]) {
    if let Some(hello) = Hello::decode(data) {
        assert_eq!(Hello::decode(&hello.encode()[4..]), Some(hello), "what was read can be written");
    }
    let written = match Frame::decode(Bytes::copy_from_slice(data)) {
        Some(Frame::Message(message)) => [message_head(&message), message.payload].concat(),
        Some(Frame::CaughtUp { next }) => caught_up(next).to_vec(),
        None => return,
    };
    assert_eq!(&written[4..], data, "a frame has one form only");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_read_as_they_were_written() {
        let message = Message { sequence: 7, payload: Bytes::from_static(b"abc") };
        let mut bytes = message_head(&message).to_vec();
        bytes.extend_from_slice(&message.payload);
        assert_eq!(bytes[..4], 12u32.to_le_bytes());
        assert_eq!(Frame::decode(Bytes::from(bytes).slice(4..)), Some(Frame::Message(message)));
        assert_eq!(Frame::decode(caught_up(9).slice(4..)), Some(Frame::CaughtUp { next: 9 }));
        let hello = Hello { topic: "parts/a".into(), from: Some(3) };
        assert_eq!(Hello::decode(&hello.encode()[4..]), Some(hello));
    }

    #[test]
    fn mutated_frames_never_panic() {
        let message = Message { sequence: 7, payload: Bytes::from_static(b"abc") };
        let hello = Hello { topic: "parts/a".into(), from: Some(3) }.encode().slice(4..);
        let frame = [message_head(&message).slice(4..), message.payload].concat();
        for seed in [&hello[..], &frame, &caught_up(9)[4..]] {
            for at in 0..seed.len() {
                fuzz(&seed[..at]);
                for value in 0..=u8::MAX {
                    let mut data = seed.to_vec();
                    data[at] = value;
                    fuzz(&data);
                    data.insert(at, value);
                    fuzz(&data);
                }
            }
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for bytes in [&b""[..], b"\0\0\0", b"\x07\0\0\0\0\0\0\0\0", b"\x01\0\0\0\0\0\0\0\0x"] {
            assert_eq!(Frame::decode(Bytes::copy_from_slice(bytes)), None, "{bytes:?}");
        }
        let long = Hello { topic: "t".repeat(TOPIC_BYTES_MAX + 1), from: None };
        assert_eq!(Hello::decode(&long.encode()[4..]), None);
        assert_eq!(Hello::decode(&[2, 0, 0]), None);
    }
}
