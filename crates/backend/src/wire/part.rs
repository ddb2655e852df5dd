//! Parts.

use bytes::{BufMut as _, Bytes, BytesMut};
use model::{ChainRecord, Epoch, Part, PartKind, PartNumber, Payload};
use serde::{Deserialize, Serialize};

use super::{VERSION, WireError};

/// Chain records with one part, at most: the epoch's and one a rendition, with room to spare.
const RECORDS_MAX: usize = 16;

#[derive(Serialize, Deserialize)]
struct Head {
    number: u64,
    epoch: u32,
    kind: Kind,
    payloads: [u32; 3],
    records: Vec<u32>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Kind {
    Slate,
    Live,
    Hold,
    Gap,
}

/// A part as a message.
pub fn encode_part(part: &Part) -> Bytes {
    let length = |bytes: &Bytes| u32::try_from(bytes.len()).expect("a part is a few kilobytes");
    let head = Head {
        number: part.number.get(),
        epoch: part.epoch.0,
        kind: match part.kind {
            PartKind::Slate => Kind::Slate,
            PartKind::Live => Kind::Live,
            PartKind::Hold => Kind::Hold,
            PartKind::Gap => Kind::Gap,
        },
        payloads: [0, 1, 2].map(|i| length(&part.payloads[i].bytes)),
        records: part.records.iter().map(|record| length(&record.0)).collect(),
    };
    let head = postcard::to_allocvec(&head).expect("our own types serialise");
    let pieces = || part.payloads.iter().map(|p| &p.bytes).chain(part.records.iter().map(|r| &r.0));
    let total = 1 + head.len() + pieces().map(Bytes::len).sum::<usize>();
    let mut bytes = BytesMut::with_capacity(total);
    bytes.put_u8(VERSION);
    bytes.extend_from_slice(&head);
    for piece in pieces() {
        bytes.extend_from_slice(piece);
    }
    bytes.freeze()
}

/// The part in a message; its bytes share the message's memory, its digests are computed anew.
///
/// # Errors
/// [`WireError`].
pub fn decode_part(message: Bytes) -> Result<Part, WireError> {
    let body = match message.first() {
        None => return Err(WireError::Empty),
        Some(&VERSION) => message.slice(1..),
        Some(&version) => return Err(WireError::Version(version)),
    };
    let damaged = |reason: &str| WireError::Damaged(reason.to_owned());
    let (head, rest) =
        postcard::take_from_bytes::<Head>(&body).map_err(|error| WireError::Damaged(error.to_string()))?;
    if head.records.len() > RECORDS_MAX {
        return Err(damaged("too many chain records"));
    }
    let mut rest = body.slice(body.len() - rest.len()..);
    let mut take = |length: u32| {
        let length = length as usize;
        if rest.len() < length { Err(damaged("it ends early")) } else { Ok(rest.split_to(length)) }
    };
    let [a, b, c] = head.payloads;
    let payloads = [Payload::new(take(a)?), Payload::new(take(b)?), Payload::new(take(c)?)];
    let records =
        head.records.iter().map(|length| take(*length).map(ChainRecord)).collect::<Result<Vec<_>, _>>()?;
    if !rest.is_empty() {
        return Err(damaged("it goes on after its end"));
    }
    Ok(Part {
        number: PartNumber::new(head.number),
        epoch: Epoch(head.epoch),
        kind: match head.kind {
            Kind::Slate => PartKind::Slate,
            Kind::Live => PartKind::Live,
            Kind::Hold => PartKind::Hold,
            Kind::Gap => PartKind::Gap,
        },
        payloads,
        records,
    })
}
