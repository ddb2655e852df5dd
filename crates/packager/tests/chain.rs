//! The chain over whole events with crashes, and what becomes of it when bytes are changed.

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use minassa_packager as packager;
use model::{
    BootId, BootTime, ChainRecord, ClockReading, Digest, Epoch, EventSlug, Part, PartKind, PartNumber,
    Payload, Rendition, UnixTime,
};
use packager::chain::{self, Record};
use packager::verify::{Fault, FoundPart, Report, verify};
use packager::{ClosingRecords, Opening, PackError, Packager, PartFrames, Resume, SilentFrames, TailPart};
use proptest::prelude::*;

const DOORS: UnixTime = UnixTime::from_millis(1_795_000_000_000);

fn event() -> EventSlug {
    "night-talk".parse().unwrap()
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn now(seconds: u64) -> ClockReading {
    ClockReading {
        unix: DOORS.plus(std::time::Duration::from_secs(seconds)),
        boot: BootTime::from_nanos(seconds * 1_000_000_000),
        boot_id: BootId([3; 16]),
    }
}

/// Frames of real sizes whose content tells them apart.
fn frames(number: u64, salt: u8, kind: PartKind) -> PartFrames {
    let frame = |index: usize, length: usize| {
        let mut bytes = vec![salt; length];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        bytes[8] = index as u8;
        Bytes::from(bytes)
    };
    PartFrames {
        number: PartNumber::new(number),
        kind,
        // Variable bitrate.
        opus24: (0..24).map(|index| frame(index, 50 + (number as usize + index) % 20)).collect(),
        opus48: (0..24).map(|index| frame(index, 120)).collect(),
        mp3: (0..20).map(|index| frame(index, 192)).collect(),
    }
}

fn open(epoch: u32, resume: Resume) -> Packager {
    Packager::open(Opening {
        event: &event(),
        key: &key(),
        epoch: Epoch(epoch),
        doors: DOORS,
        now: now(u64::from(epoch) * 100),
        resume,
        silence: SilentFrames::standard(),
    })
    .unwrap()
}

fn resume(recording: &[Part]) -> Resume {
    let records = recording.iter().flat_map(|part| &part.records);
    Resume::from_recording(records, recording.iter().map(TailPart::of))
}

/// One incarnation of origin: what it adopts of what its predecessor published, the gap it fills, what it makes.
#[derive(Debug, Clone)]
struct Life {
    /// Parts at the end of the predecessor's that the recording lost.
    lost: usize,
    /// How many of those an edge still held, in order.
    adopted: usize,
    /// Parts of silence before going on.
    gaps: u64,
    /// Parts made.
    made: u64,
}

/// Plays incarnations one after another and closes the event.
fn play(lives: &[Life]) -> (Vec<Part>, ClosingRecords) {
    let mut recording: Vec<Part> = Vec::new();
    let mut last = None;
    for (life, epoch) in lives.iter().zip(1..) {
        let lost = recording.split_off(recording.len().saturating_sub(life.lost));
        let mut packager = open(epoch, resume(&recording));
        for part in lost.into_iter().take(life.adopted) {
            packager.adopt(&part).unwrap();
            recording.push(part);
        }
        packager.set_ledger_head(Digest([epoch as u8; 32]));
        for _ in 0..life.gaps {
            recording.push(packager.gap(packager.next()).unwrap());
        }
        for made in 0..life.made {
            let kind = [PartKind::Slate, PartKind::Live, PartKind::Hold][(made / 5 % 3) as usize];
            recording.push(packager.push(frames(packager.next().get(), epoch as u8, kind)).unwrap());
        }
        last = Some(packager);
    }
    let closing = last.unwrap().close(now(10_000).unix).unwrap();
    (recording, closing)
}

fn all_records(recording: &[Part], closing: &ClosingRecords) -> Vec<ChainRecord> {
    recording.iter().flat_map(|part| &part.records).chain(&closing.records).cloned().collect()
}

fn found(recording: &[Part], rendition: Rendition) -> Vec<FoundPart> {
    let found = |part: &Part| FoundPart {
        kind: Some(part.kind),
        ..FoundPart::hash(part.number, &part.payload(rendition).bytes)
    };
    recording.iter().map(found).collect()
}

fn check(rendition: Rendition, parts: &[FoundPart], records: &[ChainRecord]) -> Report {
    verify(&event(), rendition, &key().verifying_key(), parts, records)
}

fn one_life(made: u64) -> [Life; 1] {
    [Life { lost: 0, adopted: 0, gaps: 0, made }]
}

#[test]
fn an_event_with_crashes_adopted_tails_gaps_and_a_partial_last_segment_verifies() {
    let lives = [
        Life { lost: 0, adopted: 0, gaps: 0, made: 19 },
        Life { lost: 2, adopted: 2, gaps: 6, made: 30 },
        // The whole way through a segment boundary, with the records that the adopted parts carry.
        Life { lost: 13, adopted: 13, gaps: 2, made: 0 },
        // An incarnation that only ever lost parts and filled them.
        Life { lost: 1, adopted: 0, gaps: 40, made: 3 },
        // One that only closes.
        Life { lost: 0, adopted: 0, gaps: 0, made: 0 },
    ];
    let (recording, closing) = play(&lives);
    let records = all_records(&recording, &closing);
    for rendition in Rendition::ALL {
        let report = check(rendition, &found(&recording, rendition), &records);
        assert!(report.complete(), "{rendition}: {report:#?}");
        assert_eq!(report.epochs.len(), 5);
        assert_eq!(report.closing.as_ref().unwrap().end.get(), recording.len() as u64);
        let kinds: Vec<_> = report.segments.iter().flat_map(|segment| segment.kinds.clone()).collect();
        assert!(kinds.iter().eq(recording.iter().map(|part| &part.kind)));
        let last = report.segments.last().unwrap();
        assert_eq!(last.kinds.len(), recording.len() % 8);
    }
}

#[test]
fn a_stream_captured_in_the_middle_verifies_from_what_it_carries() {
    let (recording, _) = play(&[
        Life { lost: 0, adopted: 0, gaps: 0, made: 30 },
        Life { lost: 0, adopted: 0, gaps: 4, made: 30 },
    ]);
    let read = |part: &Part| FoundPart::read_cmaf(&part.payload(Rendition::Opus24).bytes).unwrap();
    let (parts, records): (Vec<_>, Vec<_>) = recording[13..].iter().map(read).unzip();
    let records = records.concat();
    let report = check(Rendition::Opus24, &parts, &records);
    // Of the first segment three parts are missing; of the last no record is out yet.
    assert_eq!(report.segments[0].faults, [Fault::MissingParts((8..13).map(PartNumber::new).collect())]);
    assert!(report.segments[1..].iter().all(|segment| segment.faults.is_empty()));
    assert_eq!(
        report.unsigned,
        [13, 14, 15].into_iter().chain(56..64).map(PartNumber::new).collect::<Vec<_>>()
    );

    // With the digests of the parts that were cut away the first one verifies as well.
    let absent = chain::AbsentParts {
        rendition: Rendition::Opus24,
        first: PartNumber::new(8),
        digests: recording[8..13].iter().map(|part| part.payloads[0].digest).collect(),
    };
    let detached = chain::detached_box(&absent.to_chain_record());
    let with = [vec![chain::from_detached_box(&detached).unwrap()], records].concat();
    let report = check(Rendition::Opus24, &parts, &with);
    assert!(report.intact() && !report.complete(), "{report:#?}");
}

#[test]
fn records_are_small_and_carried_where_they_belong() {
    let (recording, closing) = play(&one_life(17));
    let sizes: Vec<_> = recording
        .iter()
        .map(|part| {
            let parsed = formats::mp4::parse_part(&part.payload(Rendition::Opus48).bytes).unwrap();
            parsed.uuids.iter().map(|(_, content)| content.len() + 24).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(sizes[0], [280]);
    assert_eq!(sizes[8], [180]);
    assert_eq!(sizes[16], [180]);
    // The rest are slate, live and hold; only hold parts say so inside.
    assert!(sizes[1..8].iter().flatten().all(|&size| size == 26));
    assert_eq!(closing.records.len(), 4);
    let mp3 = Rendition::Mp3_64;
    assert!(packager::segment_record_for(&recording[7], mp3).is_none());
    let record = packager::segment_record_for(&recording[8], mp3).unwrap();
    assert!(
        matches!(chain::parse(record), Ok(Record::Segment(s)) if s.rendition == mp3 && s.first.get() == 0)
    );
    assert_eq!(packager::records_for(&recording[0], mp3).count(), 1);
    assert_eq!(recording[8].records.len(), 3);
}

#[test]
fn both_opus_renditions_and_gaps_are_parts_like_any_other() {
    let mut packager = open(1, Resume::fresh());
    let gap = packager.gap(PartNumber::ZERO).unwrap();
    assert_eq!(gap.kind, PartKind::Gap);
    for rendition in [Rendition::Opus24, Rendition::Opus48] {
        let bytes = &gap.payload(rendition).bytes;
        let parsed = formats::mp4::parse_part(bytes).unwrap();
        assert_eq!((parsed.sequence, parsed.decode_time.samples()), (1, 0));
        assert_eq!(FoundPart::read_cmaf(bytes).unwrap().0.kind, Some(PartKind::Gap));
    }
    assert_eq!(gap.payload(Rendition::Mp3_64).bytes.len(), 20 * 192);
    for frame in formats::mp3::Frames::new(&gap.payload(Rendition::Mp3_64).bytes) {
        let frame = frame.unwrap();
        assert_eq!((frame.header.bit_rate, frame.header.sample_rate), (64_000, 48_000));
        assert_eq!((frame.header.channels, frame.main_data_begin()), (1, 0));
    }
    for packet in [&SilentFrames::standard().opus24, &SilentFrames::standard().opus48] {
        assert_eq!(formats::opus::packet_samples(packet), Ok(960));
    }
}

#[test]
fn what_cannot_follow_is_refused_and_changes_nothing() {
    let mut packager = open(1, Resume::fresh());
    let wrong = packager.push(frames(1, 0, PartKind::Live)).unwrap_err();
    assert_eq!(wrong, PackError::Number { expected: PartNumber::ZERO, given: PartNumber::new(1) });
    let mut short = frames(0, 0, PartKind::Live);
    short.mp3.pop();
    assert!(matches!(packager.push(short).unwrap_err(), PackError::FrameCount { given: 19, .. }));
    let mut long = frames(0, 0, PartKind::Live);
    long.opus48[3] = Bytes::from(vec![0; 1_277]);
    assert!(matches!(packager.push(long).unwrap_err(), PackError::FrameLength { length: 1_277, .. }));
    let part = packager.push(frames(0, 0, PartKind::Live)).unwrap();
    assert_eq!(
        packager.adopt(&part).unwrap_err(),
        PackError::Number { expected: PartNumber::new(1), given: PartNumber::ZERO }
    );
    packager.close(now(9).unix).unwrap();
    assert_eq!(packager.gap(PartNumber::new(1)).unwrap_err(), PackError::Closed);
    assert_eq!(packager.close(now(9).unix).unwrap_err(), PackError::Closed);

    let tail = vec![TailPart::of(&part)];
    let hole = Resume { next: PartNumber::new(2), heads: [Digest::default(); 3], tail };
    let opening = Opening {
        event: &event(),
        key: &key(),
        epoch: Epoch(2),
        doors: DOORS,
        now: now(0),
        resume: hole,
        silence: SilentFrames::standard(),
    };
    assert_eq!(Packager::open(opening).unwrap_err(), PackError::Resume { next: PartNumber::new(2) });
}

#[test]
fn only_what_continues_the_chain_is_adopted() {
    let (recording, _) = play(&one_life(20));
    let kept = &recording[..14];
    let fresh = || open(2, resume(kept));
    let refused = |part: &Part| {
        let mut packager = fresh();
        (recording[14..].iter().take_while(|other| other.number < part.number))
            .for_each(|other| packager.adopt(other).unwrap());
        packager.adopt(part).unwrap_err()
    };
    let mut other = recording[14].clone();
    other.epoch = Epoch(2);
    assert!(matches!(refused(&other), PackError::AdoptedEpoch { claimed: 2, .. }));
    let mut other = recording[14].clone();
    other.payloads[1].bytes = Bytes::from_static(b"other");
    assert!(matches!(refused(&other), PackError::AdoptedForeign { .. }));
    // Changed before its segment's record comes: that record is then no longer of these parts.
    let mut packager = fresh();
    let mut other = recording[14].clone();
    other.payloads[1] = Payload::new(Bytes::from_static(b"other"));
    packager.adopt(&other).unwrap();
    packager.adopt(&recording[15]).unwrap();
    assert!(matches!(packager.adopt(&recording[16]).unwrap_err(), PackError::AdoptedForeign { .. }));
    // Refusing it leaves everything as it was: the number becomes a gap.
    packager.gap(PartNumber::new(16)).unwrap();
    assert_eq!(packager.adopt(&recording[17]).unwrap_err(), PackError::AdoptedLate(PartNumber::new(17)));

    let mut without = recording[16].clone();
    without.records.pop();
    assert!(matches!(refused(&without), PackError::AdoptedForeign { .. }));
    let mut with = recording[15].clone();
    with.records = recording[16].records.clone();
    assert!(matches!(refused(&with), PackError::AdoptedForeign { .. }));
    let mut forged = recording[16].clone();
    let Ok(Record::Segment(mut record)) = chain::parse(&forged.records[0]) else {
        panic!("a segment record")
    };
    record.signature[5] ^= 1;
    forged.records[0] = record.to_chain_record();
    assert!(matches!(refused(&forged), PackError::AdoptedForeign { .. }));
}

#[test]
fn the_same_input_makes_the_same_bytes() {
    let lives =
        [Life { lost: 0, adopted: 0, gaps: 0, made: 9 }, Life { lost: 3, adopted: 1, gaps: 2, made: 9 }];
    assert_eq!(play(&lives), play(&lives));
}

#[test]
fn numbers_that_cannot_be_counted_from_are_refused() {
    let (recording, closing) = play(&one_life(9));
    for record in all_records(&recording, &closing) {
        let at = if matches!(chain::parse(&record), Ok(Record::Segment(_))) { 12 } else { 8 };
        let mut bytes = record.0.to_vec();
        bytes[at..at + 8].fill(0xFF);
        assert!(matches!(Record::parse(&bytes), Err(chain::RecordError::Field(_))));
    }
}

#[test]
fn another_event_or_key_signs_nothing() {
    let (recording, closing) = play(&one_life(10));
    let records = all_records(&recording, &closing);
    let parts = found(&recording, Rendition::Opus24);
    let other: EventSlug = "night-talk2".parse().unwrap();
    let report = verify(&other, Rendition::Opus24, &key().verifying_key(), &parts, &records);
    assert!(report.segments.iter().all(|segment| segment.faults == [Fault::Signature]));
    let stranger = SigningKey::from_bytes(&[8; 32]).verifying_key();
    let report = verify(&event(), Rendition::Opus24, &stranger, &parts, &records);
    assert!(report.segments.iter().all(|segment| segment.faults == [Fault::OtherKey]));
    assert_eq!(report.unsigned.len(), 10);
}

fn some_lives() -> impl Strategy<Value = Vec<Life>> {
    let life = (0usize..20, 0usize..20, 0u64..12, 0u64..30).prop_map(|(lost, adopted, gaps, made)| Life {
        lost,
        adopted,
        gaps,
        made,
    });
    let first = (1u64..30).prop_map(|made| Life { lost: 0, adopted: 0, gaps: 0, made });
    (first, prop::collection::vec(life, 0..4)).prop_map(|(first, rest)| [vec![first], rest].concat())
}

fn some_rendition() -> impl Strategy<Value = Rendition> {
    prop::sample::select(Rendition::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_event_verifies(lives in some_lives()) {
        let (recording, closing) = play(&lives);
        let records = all_records(&recording, &closing);
        for rendition in Rendition::ALL {
            let report = check(rendition, &found(&recording, rendition), &records);
            prop_assert!(report.complete(), "{report:#?}");
        }
    }

    #[test]
    fn any_flipped_bit_of_a_part_is_found(
        lives in some_lives(),
        rendition in some_rendition(),
        which in any::<prop::sample::Index>(),
        byte in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let (mut recording, closing) = play(&lives);
        let records = all_records(&recording, &closing);
        prop_assume!(!recording.is_empty());
        let which = which.index(recording.len());
        let number = recording[which].number;
        let payload = &mut recording[which].payloads[rendition.index()];
        let mut bytes = payload.bytes.to_vec();
        bytes[byte.index(payload.bytes.len())] ^= 1 << bit;
        payload.bytes = Bytes::from(bytes);
        let report = check(rendition, &found(&recording, rendition), &records);
        // Exactly the segment it lies in fails.
        for segment in &report.segments {
            prop_assert_eq!(segment.verified(), !segment.parts.contains(&number));
        }
        prop_assert!(report.unsigned.contains(&number));
        // The others are untouched.
        for other in Rendition::ALL.into_iter().filter(|other| *other != rendition) {
            prop_assert!(check(other, &found(&recording, other), &records).complete());
        }
    }

    #[test]
    fn any_flipped_bit_of_a_record_is_found(
        lives in some_lives(),
        which in any::<prop::sample::Index>(),
        byte in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let (recording, closing) = play(&lives);
        let mut records = all_records(&recording, &closing);
        let which = which.index(records.len());
        let record = &mut records[which];
        let mut bytes = record.0.to_vec();
        let length = bytes.len();
        bytes[byte.index(length)] ^= 1 << bit;
        *record = ChainRecord(Bytes::from(bytes));
        let complete = Rendition::ALL
            .into_iter()
            .filter(|&rendition| check(rendition, &found(&recording, rendition), &records).complete())
            .count();
        // A segment's record belongs to one rendition, the others to all.
        prop_assert!(complete < 3);
    }

    #[test]
    fn parts_removed_exchanged_or_put_in_are_found(
        lives in some_lives(),
        rendition in some_rendition(),
        a in any::<prop::sample::Index>(),
        b in any::<prop::sample::Index>(),
    ) {
        let (recording, closing) = play(&lives);
        prop_assume!(recording.len() > 1);
        let records = all_records(&recording, &closing);
        let parts = found(&recording, rendition);
        let (a, b) = (a.index(parts.len()), b.index(parts.len()));

        let mut removed = parts.clone();
        removed.remove(a);
        prop_assert!(!check(rendition, &removed, &records).intact());

        let mut put_in = parts.clone();
        put_in.push(FoundPart { number: parts[a].number, digest: Digest([9; 32]), kind: None });
        prop_assert!(!check(rendition, &put_in, &records).intact());

        let mut beyond = parts.clone();
        beyond.push(FoundPart { number: closing.end, digest: Digest([9; 32]), kind: None });
        prop_assert!(!check(rendition, &beyond, &records).complete());

        // Gap parts of MP3 have the same bytes; exchanging those changes nothing.
        if parts[a].digest != parts[b].digest {
            let mut exchanged = parts.clone();
            exchanged[a].digest = parts[b].digest;
            exchanged[b].digest = parts[a].digest;
            prop_assert!(!check(rendition, &exchanged, &records).intact());
        }
    }

    #[test]
    fn records_removed_or_exchanged_are_found(
        lives in some_lives(),
        a in any::<prop::sample::Index>(),
        b in any::<prop::sample::Index>(),
    ) {
        let (recording, closing) = play(&lives);
        let records = all_records(&recording, &closing);
        let (a, b) = (a.index(records.len()), b.index(records.len()));
        let fails = |records: &[ChainRecord]| {
            Rendition::ALL
                .into_iter()
                .any(|rendition| !check(rendition, &found(&recording, rendition), records).complete())
        };
        let mut removed = records.clone();
        removed.remove(a);
        prop_assert!(fails(&removed));
        let rendition = |index: usize| match chain::parse(&records[index]) {
            Ok(Record::Segment(segment)) => Some(segment.rendition),
            _ => None,
        };
        // Segment records of two renditions stand side by side; their order among themselves says nothing.
        let (low, high) = (a.min(b), a.max(b));
        let counts = (low..=high).any(|index| {
            (index != low && (rendition(index) == rendition(low) || rendition(index).is_none() || rendition(low).is_none()))
                || (index != high && (rendition(index) == rendition(high) || rendition(high).is_none()))
        });
        if low != high && counts {
            let mut exchanged = records.clone();
            exchanged.swap(low, high);
            prop_assert!(fails(&exchanged));
        }
    }

    #[test]
    fn bytes_are_read_in_one_form_only(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        packager::fuzz::chain(&bytes);
    }

    #[test]
    fn changed_records_are_read_in_one_form_only(
        lives in some_lives(),
        which in any::<prop::sample::Index>(),
        byte in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let (recording, closing) = play(&lives);
        let records = all_records(&recording, &closing);
        let mut bytes = records[which.index(records.len())].0.to_vec();
        // Headers are where the decisions are.
        let length = bytes.len().min(28);
        bytes[byte.index(length)] = value;
        packager::fuzz::chain(&bytes);
    }
}
