//! What the messages of the bus and the frozen files say: serialisable mirrors of the model's types.
//!
//! A message is one byte of version and then [postcard](https://docs.rs/postcard); a part is laid out by hand so
//! that reading it copies nothing:
//!
//! ```text
//! ┌─────────┬────────────────────────────────────────────┬──────────┬──────────┬────────┬──────────┬───
//! │ version │ head: number, epoch, kind, lengths         │ opus-24  │ opus-48  │ mp3-64 │ record 0 │ …
//! │ 1 byte  │ postcard                                   │          │          │        │          │
//! └─────────┴────────────────────────────────────────────┴──────────┴──────────┴────────┴──────────┴───
//! ```

mod event;
mod ladder;
mod part;
mod serial;
mod sessions;
mod status;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use event::{BilingualRecord, EventRecord, Events, SeatRecord, StateRecord};
pub use ladder::{AdmissionRecord, LoadRecord, MeasuresRecord, UsedRecord};
pub use part::{decode_part, encode_part};
pub use sessions::{SessionChanges, SessionLimits};
pub use status::{
    Alarm, AnchorRecord, Audience, AudienceTotal, EdgeEvent, EventStatus, Form, Heartbeat, ListenerCount,
    OriginStatus, SeatStatus,
};

/// Version of every message of today.
pub const VERSION: u8 = 1;

/// A message that is none of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Nothing in it.
    #[error("the message is empty")]
    Empty,
    /// Written by another version.
    #[error("the message has version {0}, this is {VERSION}")]
    Version(u8),
    /// It does not read as what it should be.
    #[error("the message is damaged: {0}")]
    Damaged(String),
}

/// A value as a message.
pub fn encode<T: Serialize>(value: &T) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(VERSION);
    let body = postcard::to_allocvec(value).expect("our own types serialise, and memory is not bounded here");
    bytes.extend_from_slice(&body);
    bytes.freeze()
}

/// The value in a message.
///
/// # Errors
/// [`WireError`].
pub fn decode<T: DeserializeOwned>(message: &[u8]) -> Result<T, WireError> {
    match message.split_first() {
        None => Err(WireError::Empty),
        Some((&VERSION, body)) => {
            postcard::from_bytes(body).map_err(|error| WireError::Damaged(error.to_string()))
        }
        Some((&version, _)) => Err(WireError::Version(version)),
    }
}

/// Entry point for fuzzing: takes any bytes as every message there is.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    let _ = decode_part(Bytes::copy_from_slice(data));
    let _ = decode::<OriginStatus>(data);
    let _ = decode::<Heartbeat>(data);
    let _ = decode::<Audience>(data);
    let _ = decode::<SessionChanges>(data);
    let _ = decode::<SessionLimits>(data);
    for record in decode::<Events>(data).into_iter().flat_map(|events| events.events) {
        let _ = model::Event::try_from(record);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use model::*;

    fn event() -> Event {
        Event {
            slug: "a-talk".parse().unwrap(),
            revision: 3,
            title: Bilingual { ar: "حديث".into(), en: "Talk".into() },
            starts_at: UnixTime::parse("2026-11-22T20:00:00Z").unwrap(),
            duration: Some(Duration::from_secs(3_600)),
            doors_before: Duration::from_secs(900),
            auto_live: true,
            green_room: GreenRoom::Attended,
            hold_on_silence: false,
            slate: Some(Digest::of(b"slate")),
            invite_key: [1; 32],
            signing_key: [2; 32],
            seats: vec![Seat {
                id: SeatId(0),
                role: Role::CoHost,
                name: "Someone".into(),
                invite: InviteId([9; 8]),
                revoked: true,
            }],
            created_at: UnixTime::from_millis(5),
        }
    }

    fn part() -> Part {
        let payload = |length| Payload::new(Bytes::from(vec![length as u8; length]));
        Part {
            number: PartNumber::new(77),
            epoch: Epoch(2),
            kind: PartKind::Hold,
            payloads: [payload(1_500), payload(3_000), payload(3_840)],
            records: vec![ChainRecord(Bytes::from_static(b"record")), ChainRecord(Bytes::new())],
        }
    }

    #[test]
    fn an_event_comes_back_as_it_was() {
        let event = event();
        let events = Events { events: vec![EventRecord::from(&event)] };
        let decoded: Events = decode(&encode(&events)).unwrap();
        assert_eq!(decoded, events);
        let json = serde_json::to_string(&events.events[0]).unwrap();
        let record: EventRecord = serde_json::from_str(&json).unwrap();
        assert_eq!(Event::try_from(record).unwrap(), event);
    }

    #[test]
    fn states_come_back_as_they_were() {
        let hold = ShowState::Hold { until: Some(UnixTime::from_millis(7)), message: event().title };
        for state in [ShowState::Scheduled, ShowState::Doors, ShowState::Live, hold, ShowState::Ended] {
            let record: StateRecord = decode(&encode(&StateRecord::from(&state))).unwrap();
            assert_eq!(ShowState::from(record), state);
        }
    }

    #[test]
    fn reports_come_back_as_they_were() {
        let anchor = Anchor {
            doors: UnixTime::from_millis(9),
            doors_boot: BootTime::from_nanos(8),
            boot_id: BootId([7; 16]),
        };
        let seat = SeatStatus { seat: 1, sources: 2, connected: true, on_stage: true, muted: false };
        let status = OriginStatus {
            pid: 5,
            at: UnixTime::from_millis(1),
            events: vec![EventStatus {
                event: event().slug,
                revision: 3,
                state: StateRecord::Live,
                epoch: Some(1),
                anchor: Some(anchor.into()),
                live_at: Some(UnixTime::from_millis(3)),
                ended_at: None,
                newest_part: Some(PartNumber::new(8)),
                recorded_through: None,
                alarms: Alarm::ALL.to_vec(),
                late: true,
                seats: vec![seat],
            }],
        };
        let decoded: OriginStatus = decode(&encode(&status)).unwrap();
        assert_eq!(decoded, status);
        assert_eq!(Anchor::from(decoded.events[0].anchor.unwrap()), anchor);
        let count = ListenerCount { rendition: Rendition::Mp3_64, form: Form::Hls, tier: 4, count: 9 };
        let edge = EdgeEvent { event: event().slug, newest_part: None, listeners: vec![count] };
        let heartbeat = Heartbeat { index: 1, events: vec![edge], bytes: u64::MAX, ..Heartbeat::default() };
        assert_eq!(decode::<Heartbeat>(&encode(&heartbeat)).unwrap(), heartbeat);
        let total = AudienceTotal { event: event().slug, listeners: 1 << 40 };
        let audience = Audience { level: 2, totals: vec![total], ..Audience::default() };
        assert_eq!(decode::<Audience>(&encode(&audience)).unwrap(), audience);
    }

    #[test]
    fn a_part_comes_back_without_being_copied() {
        let part = part();
        let message = encode_part(&part);
        let decoded = decode_part(message.clone()).unwrap();
        assert_eq!(decoded, part);
        let inside = message.as_ptr_range();
        assert!(inside.contains(&decoded.payload(Rendition::Mp3_64).bytes.as_ptr()));
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let message = encode_part(&part());
        for length in 0..message.len() {
            assert!(decode_part(message.slice(..length)).is_err(), "{length}");
        }
        let mut longer = message.to_vec();
        longer.push(0);
        assert!(decode_part(longer.into()).is_err());
        assert_eq!(decode::<Events>(&[]), Err(WireError::Empty));
        assert_eq!(decode::<Events>(&[9, 0]), Err(WireError::Version(9)));
        let mut record = EventRecord::from(&event());
        record.seats[0].role = "king".into();
        assert!(Event::try_from(record).is_err());
        // A slug that is none does not decode, whatever wrote it.
        let json = serde_json::to_string(&EventRecord::from(&event())).unwrap().replace("a-talk", "A/talk");
        assert!(serde_json::from_str::<EventRecord>(&json).is_err());
        for start in 0..message.len().min(200) {
            let mut bytes = message.to_vec();
            bytes[start] ^= 0x80;
            fuzz(&bytes);
        }
    }
}
