//! A recording of two hours, fed in virtual time: how long after the end its replay can be played.
//!
//! `cargo test -p minassa-archive --test it two_hours -- --nocapture` prints the figures; nothing is asserted of
//! them, since machines differ.
#![allow(clippy::disallowed_methods, reason = "what is measured here is the time a reader waits")]

use std::time::Instant;

use crate::support::{Origin, event, marks, part, verify_all};
use minassa_archive::{Download, Recording, Span, playlist};
use model::Rendition;
use packager::{PartFrames, SilentFrames};

/// Two hours and a quarter of an hour of slate before.
const PARTS: u64 = 15_000 + 1_875;
const LIVE: u64 = 1_875;

#[test]
fn a_replay_of_two_hours_is_there_at_once() {
    let data = tempfile::tempdir().unwrap();
    let mut origin = Origin::on(data.path());
    let silence = SilentFrames::standard();
    let opus24 = bytes::Bytes::from(vec![0xF8; 60]);
    for number in 0..PARTS {
        // A crash every half hour.
        if number % 3_750 == 1_234 {
            drop(origin);
            let begun = Instant::now();
            origin = Origin::on(data.path());
            eprintln!("recovery at part {number}: {:?}", begun.elapsed());
            assert_eq!(origin.recovered.last, Some(part(number - 1)));
        }
        let mut frames = PartFrames {
            number: part(number),
            kind: if number < LIVE { model::PartKind::Slate } else { model::PartKind::Live },
            opus24: vec![opus24.clone(); 24],
            opus48: vec![silence.opus48.clone(); 24],
            mp3: vec![silence.mp3.clone(); 20],
        };
        let mut marked = frames.mp3[0].to_vec();
        marked[180..188].copy_from_slice(&number.to_be_bytes());
        frames.mp3[0] = marked.into();
        let part = origin.packager.push(frames).unwrap();
        origin.recorder.append(&part).unwrap();
    }
    let mut reader = Recording::open(&[data.path().to_owned()], &event()).unwrap();

    let marks = marks(Some(LIVE), Some(PARTS));
    let closing = origin.packager.close(crate::support::clock(9_000).unix).unwrap();
    let ended = Instant::now();
    origin.recorder.finish(&closing, &marks).unwrap();
    let finished = ended.elapsed();
    reader.refresh().unwrap();
    assert!(reader.is_finished());
    let playlist = playlist::replay(&reader, Rendition::Opus48, &Span::Show, "").unwrap();
    let text = playlist.render();
    let listed = ended.elapsed();
    let segment = reader.read_segment(Rendition::Opus48, part(LIVE).segment()).unwrap();
    let playing = ended.elapsed();
    assert_eq!(playlist.segments.len() as u64, (PARTS - LIVE).div_ceil(8) + 1);
    assert!(text.contains("#EXT-X-ENDLIST") && segment.len() > 8 * 24 * 120);
    eprintln!("end to finished {finished:?}, to the playlist {listed:?}, to the first segment {playing:?}");

    // The same for an edge that never saw the event before.
    let begun = Instant::now();
    let fresh = Recording::open(&[data.path().to_owned()], &event()).unwrap();
    let opened = begun.elapsed();
    let downloads = [
        Download::mp4(&fresh, Rendition::Opus24, &Span::Show).unwrap(),
        Download::mp4(&fresh, Rendition::Opus48, &Span::Show).unwrap(),
        Download::ogg(&fresh, Rendition::Opus48, &Span::Show, "Two hours").unwrap(),
        Download::mp3(&fresh, &Span::Show).unwrap(),
    ];
    let first: Vec<_> = downloads.iter().map(|download| download.read(0, 65_536).unwrap()).collect();
    let read = begun.elapsed();
    eprintln!("fresh reader: {} parts opened in {opened:?}, four downloads begun by {read:?}", fresh.count());
    assert!(first.iter().all(|bytes| !bytes.is_empty()));
    for download in &downloads {
        let last = download.read(download.length() - 1, 1).unwrap();
        assert_eq!(last.len(), 1);
        eprintln!("{}: {} bytes", download.content_type(), download.length());
    }

    let begun = Instant::now();
    for report in verify_all(&fresh) {
        assert!(report.complete(), "{:?}", report.malformed);
        assert_eq!(report.segments.len() as u64, PARTS.div_ceil(8));
        assert_eq!(report.epochs.len(), 6);
    }
    eprintln!("everything read and verified in {:?}", begun.elapsed());
}
