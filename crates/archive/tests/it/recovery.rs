//! Killed anywhere, the recording is a prefix of what was aired, and goes on.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Origin, event, ffmpeg_bare, marks, part, verify_all};
use minassa_archive::{ArchiveError, RING_PARTS, Recorder, Recording, event_directory};
use model::{Epoch, PartKind, PartNumber, Rendition};

const FILES: [&str; 7] = [
    "opus-24.mp4",
    "opus-48.mp4",
    "mp3-64.mp3",
    "opus-24.index",
    "opus-48.index",
    "mp3-64.index",
    "chain.log",
];

fn files_of(data: &Path) -> Vec<PathBuf> {
    FILES.iter().map(|name| event_directory(data, &event()).join(name)).collect()
}

fn copy(from: &Path, to: &Path) {
    let directory = event_directory(to, &event());
    fs::create_dir_all(&directory).unwrap();
    for (file, name) in files_of(from).iter().zip(FILES) {
        fs::copy(file, directory.join(name)).unwrap();
    }
}

fn cut(file: &Path, length: u64) {
    fs::OpenOptions::new().write(true).open(file).unwrap().set_len(length).unwrap();
}

fn length(file: &Path) -> u64 {
    fs::metadata(file).unwrap().len()
}

/// A small generator: the cases are the same in every run.
struct Cases(u64);

impl Cases {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn check_prefix(data: &Path, aired: &[model::Part]) -> Option<PartNumber> {
    let (recorder, recovered) = Recorder::open(&[data.to_owned()], &event()).unwrap();
    drop(recorder);
    let count = recovered.last.map_or(0, |last| last.get() as usize + 1);
    assert_eq!(recovered.resume.next.get() as usize, count);
    let tail = &aired[count.saturating_sub(RING_PARTS)..count];
    assert!(recovered.tail == tail, "the recovered tail is what was aired, records included");
    let recording = Recording::open(&[data.to_owned()], &event()).unwrap();
    assert_eq!(recording.count(), count);
    for part in &aired[..count] {
        assert_eq!(recording.read_whole_part(part.number).unwrap(), *part);
    }
    recovered.last
}

#[test]
fn cut_anywhere_a_prefix_is_recovered_and_the_chain_goes_on() {
    let original = tempfile::tempdir().unwrap();
    let mut origin = Origin::on(original.path());
    let mut aired = origin.record(21);
    drop(origin);
    let mut origin = Origin::on(original.path());
    aired.extend(origin.record(19));
    drop(origin);
    let lengths: Vec<_> = files_of(original.path()).iter().map(|file| length(file)).collect();

    let mut cases = Cases(1);
    let mut counts = std::collections::BTreeSet::new();
    for case in 0..120 {
        let data = tempfile::tempdir().unwrap();
        copy(original.path(), data.path());
        for (file, length) in files_of(data.path()).iter().zip(&lengths) {
            // Most often only the tail is gone, of some files; sometimes much of all.
            match case % 4 {
                0 => cut(file, cases.below(length + 1)),
                1 if cases.below(2) == 0 => cut(file, length - cases.below(*length.min(&6_000))),
                2 => cut(file, length - cases.below(*length.min(&600))),
                _ => {}
            }
        }
        let last = check_prefix(data.path(), &aired);
        counts.insert(last);

        // It goes on after a gap, and ends.
        let mut origin = Origin::on(data.path());
        let next = last.map_or(0, |last| last.get() + 1);
        assert_eq!(origin.recovered.cut, 0, "the second recovery finds nothing to cut");
        assert_eq!(origin.packager.next(), part(next));
        origin.record_gaps(3);
        origin.record(10);
        origin.end(&marks(Some(0), Some(next + 13)));
        let recording = Recording::open(&[data.path().to_owned()], &event()).unwrap();
        assert_eq!(recording.parts(), part(0)..part(next + 13));
        assert!(recording.is_finished());
        for report in verify_all(&recording) {
            assert!(report.complete(), "case {case}: {report:#?}");
        }
        if case % 30 == 0 {
            for file in &files_of(data.path())[..3] {
                assert_eq!(ffmpeg_bare(file), ((next + 13) * 23_040, String::new()), "{}", file.display());
            }
        }
    }
    assert!(counts.len() > 20, "the cases are different ones: {counts:?}");
}

#[test]
fn a_damaged_byte_in_the_last_minute_cuts_there() {
    let original = tempfile::tempdir().unwrap();
    let mut origin = Origin::on(original.path());
    let aired = origin.record(30);
    drop(origin);
    let recording = Recording::open(&[original.path().to_owned()], &event()).unwrap();
    for (rendition, number) in [(Rendition::Opus24, 29), (Rendition::Mp3_64, 17), (Rendition::Opus48, 0)] {
        let data = tempfile::tempdir().unwrap();
        copy(original.path(), data.path());
        let file = &files_of(data.path())[rendition.index()];
        let mut bytes = fs::read(file).unwrap();
        let entry = recording.entry(rendition, part(number)).unwrap();
        bytes[entry.offset as usize + 99] ^= 1;
        fs::write(file, bytes).unwrap();
        // Readers say so meanwhile.
        let damaged = Recording::open(&[data.path().to_owned()], &event()).unwrap();
        assert!(matches!(damaged.read_part(rendition, part(number)), Err(ArchiveError::Damaged { .. })));
        let last = check_prefix(data.path(), &aired);
        assert_eq!(last, number.checked_sub(1).map(part));
    }
}

#[test]
fn before_a_cut_deeper_than_a_crash_can_tear_a_copy_is_kept() {
    let data = tempfile::tempdir().unwrap();
    let mut origin = Origin::on(data.path());
    origin.record(200);
    drop(origin);
    let files = files_of(data.path());
    let before = fs::read(&files[1]).unwrap();
    cut(&files[3], 80 * 11 + 5);
    let origin = Origin::on(data.path());
    assert_eq!((origin.recovered.last, origin.recovered.cut), (Some(part(9)), 190));
    let kept = event_directory(data.path(), &event()).join("before-cut-1").join("opus-48.mp4");
    assert_eq!(fs::read(kept).unwrap(), before);
}

#[test]
fn what_was_adopted_from_edges_goes_where_it_was() {
    let data = tempfile::tempdir().unwrap();
    let mut origin = Origin::on(data.path());
    let mut aired = origin.record(20);
    // Published, but never on the disk.
    aired.extend((0..7).map(|_| origin.make()));
    drop(origin);
    let mut origin = Origin::on(data.path());
    assert_eq!(origin.recovered.last, Some(part(19)));
    for part in &aired[20..] {
        origin.packager.adopt(part).unwrap();
    }
    origin.recorder.append_all(&aired[20..]).unwrap();
    // And a gap longer than the ring.
    let gaps: Vec<_> = (27..327).map(|number| origin.packager.gap(part(number)).unwrap()).collect();
    origin.recorder.append_all(&gaps).unwrap();
    assert_eq!(origin.recorder.recorded_through(), Some(part(326)));
    assert_eq!(origin.recorder.statistics().lost, 0);
    origin.record(30);
    origin.end(&marks(Some(3), Some(357)));
    let recording = Recording::open(&[data.path().to_owned()], &event()).unwrap();
    for part in &aired {
        assert_eq!(recording.read_whole_part(part.number).unwrap(), *part);
    }
    assert_eq!(recording.entry(Rendition::Mp3_64, part(26)).unwrap().epoch, Epoch(1));
    assert_eq!(recording.entry(Rendition::Mp3_64, part(27)).unwrap().epoch, Epoch(2));
    for report in verify_all(&recording) {
        assert!(report.complete(), "{report:#?}");
    }
}

#[test]
fn the_file_plays_while_it_grows_and_through_all_restarts() {
    let data = tempfile::tempdir().unwrap();
    let mut parts = 0;
    for _ in 0..4 {
        let mut origin = Origin::on(data.path());
        origin.record(5);
        origin.record_gaps(2);
        origin.record(4);
        parts += 11;
        // The recorder holds its files open.
        for file in &files_of(data.path())[..3] {
            assert_eq!(ffmpeg_bare(file), (parts * 23_040, String::new()), "{}", file.display());
        }
        drop(origin);
    }
}

#[test]
fn a_reader_follows_what_is_written_and_what_is_cut() {
    let data = tempfile::tempdir().unwrap();
    let directories = [data.path().to_owned()];
    assert!(matches!(Recording::open(&directories, &event()), Err(ArchiveError::NotFound(_))));
    let mut origin = Origin::on(data.path());
    let mut reader = Recording::open(&directories, &event()).unwrap();
    assert_eq!((reader.count(), reader.refresh().unwrap()), (0, false));
    let aired = origin.record(12);
    assert!(reader.refresh().unwrap());
    assert!(!reader.refresh().unwrap());
    assert_eq!(reader.parts(), part(0)..part(12));
    assert_eq!(reader.kind(part(11)), Some(PartKind::Live));
    assert_eq!(reader.kind(part(12)), None);
    assert_eq!(reader.read_whole_part(part(8)).unwrap(), aired[8]);
    let segment = reader.read_segment(Rendition::Opus24, part(8).segment()).unwrap();
    let expected = aired[8..].iter().flat_map(|part| part.payloads[0].bytes.to_vec()).collect::<Vec<_>>();
    assert_eq!(segment, expected);
    assert!(matches!(
        reader.read_segment(Rendition::Opus24, part(16).segment()),
        Err(ArchiveError::NoPart(number)) if number == part(16)
    ));
    assert!(reader.segment_record(Rendition::Mp3_64, part(0).segment()).unwrap().is_some());
    assert!(reader.segment_record(Rendition::Mp3_64, part(8).segment()).unwrap().is_none());

    // A power cut takes two parts and half of one; what comes in their place is something else.
    drop(origin);
    let mp3 = &files_of(data.path())[2];
    cut(mp3, 3_840 * 9 + 1_000);
    let mut origin = Origin::on(data.path());
    assert!(reader.refresh().unwrap());
    assert_eq!(reader.parts().end, part(9));
    let other = origin.record(3);
    assert!(reader.refresh().unwrap());
    assert_eq!(reader.read_whole_part(part(10)).unwrap(), other[1]);
    let location = reader.part_location(Rendition::Opus48, part(10)).unwrap();
    assert_eq!(location.read().unwrap(), other[1].payloads[1].bytes);
    assert!(location.path.ends_with("recordings/night-talk/opus-48.mp4"));

    assert!(reader.marks().is_none());
    origin.recorder.set_marks(&marks(None, None)).unwrap();
    assert!(reader.refresh().unwrap());
    assert_eq!(reader.marks(), Some(&marks(None, None)));
    assert!(!reader.is_finished());
    origin.end(&marks(Some(2), Some(12)));
    assert!(reader.refresh().unwrap());
    assert!(reader.is_finished());
    assert!(reader.segment_record(Rendition::Mp3_64, part(8).segment()).unwrap().is_some());
    assert!(verify_all(&reader).iter().all(|report| report.complete()));
}

#[test]
fn only_one_recorder_has_an_event() {
    let data = tempfile::tempdir().unwrap();
    let directories = [data.path().to_owned()];
    let origin = Origin::on(data.path());
    assert!(matches!(Recorder::open(&directories, &event()), Err(ArchiveError::Locked { .. })));
    // Another event is another matter.
    Recorder::open(&directories, &"other".parse().unwrap()).unwrap();
    drop(origin);
    Recorder::open(&directories, &event()).unwrap();
}

#[test]
fn a_finished_recording_stays_as_it_is() {
    let data = tempfile::tempdir().unwrap();
    let mut origin = Origin::on(data.path());
    origin.record(10);
    let closing = origin.end(&marks(Some(0), Some(10)));
    let beyond = origin.packager.gap(part(10));
    assert!(beyond.is_err());
    drop(origin);
    let before: Vec<_> = files_of(data.path()).iter().map(|file| fs::read(file).unwrap()).collect();
    // Also if the crash came between the log and the trailers.
    cut(&files_of(data.path())[0], before[0].len() as u64 - 7);
    let (mut recorder, recovered) = Recorder::open(&[data.path().to_owned()], &event()).unwrap();
    assert!(recovered.finished);
    assert_eq!(recovered.marks, Some(marks(Some(0), Some(10))));
    let part = recovered.tail.last().unwrap();
    assert!(matches!(recorder.append(part), Err(ArchiveError::Finished(_))));
    assert!(matches!(recorder.finish(&closing, &marks(None, None)), Err(ArchiveError::Finished(_))));
    drop(recorder);
    let after: Vec<_> = files_of(data.path()).iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(before == after);
}

#[test]
fn a_crash_while_finishing_leaves_an_event_that_can_be_finished() {
    let data = tempfile::tempdir().unwrap();
    let mut origin = Origin::on(data.path());
    origin.record(13);
    origin.end(&marks(Some(0), Some(13)));
    drop(origin);
    // The closing record never reached the disk.
    let log = &files_of(data.path())[6];
    cut(log, length(log) - 1);
    fs::remove_file(event_directory(data.path(), &event()).join("marks.json")).unwrap();
    let mut origin = Origin::on(data.path());
    assert!(!origin.recovered.finished);
    assert_eq!(origin.recovered.last, Some(part(12)));
    origin.end(&marks(Some(0), Some(13)));
    let recording = Recording::open(&[data.path().to_owned()], &event()).unwrap();
    assert!(verify_all(&recording).iter().all(|report| report.complete()));
}

#[test]
fn parts_come_in_ascending_order() {
    let data = tempfile::tempdir().unwrap();
    let mut origin = Origin::on(data.path());
    let aired = origin.record(3);
    assert!(matches!(
        origin.recorder.append(&aired[1]),
        Err(ArchiveError::Order { last, given }) if (last, given) == (part(2), part(1))
    ));
    assert_eq!(origin.recorder.recorded_through(), Some(part(2)));
}
