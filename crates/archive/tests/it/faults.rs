//! Disks that fill up, break, or never allowed writing.

use std::io;
use std::path::{Path, PathBuf};

use crate::support::{FaultyFiles, Origin, event, ffmpeg_bare, marks, part, verify_all};
use minassa_archive::{ArchiveError, RING_PARTS, Recorder, RecorderConfig, Recording, Sync, event_directory};
use model::{Part, PartNumber};

/// Bytes of one part in all renditions with index and log, roughly; enough for a few of them.
const FEW_PARTS: u64 = 60_000;

struct Disks {
    _directories: [tempfile::TempDir; 2],
    paths: [PathBuf; 2],
    files: FaultyFiles,
}

fn disks() -> Disks {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let paths = [directories[0].path().to_owned(), directories[1].path().to_owned()];
    Disks { _directories: directories, paths, files: FaultyFiles::default() }
}

fn start(directories: &[PathBuf], files: &FaultyFiles) -> Origin {
    Origin::start(directories, Box::new(files.clone())).unwrap()
}

fn check_all(directories: &[PathBuf], aired: &[Part]) -> Recording {
    let recording = Recording::open(directories, &event()).unwrap();
    assert_eq!(recording.parts(), part(0)..part(aired.len() as u64));
    assert_eq!(recording.count(), aired.len());
    for part in aired {
        assert_eq!(recording.read_whole_part(part.number).unwrap(), *part);
    }
    for report in verify_all(&recording) {
        assert!(report.intact(), "{report:#?}");
        assert!(report.from_beginning);
    }
    recording
}

fn plays(directory: &Path, parts: u64) {
    for file in ["opus-24.mp4", "opus-48.mp4", "mp3-64.mp3"] {
        let file = event_directory(directory, &event()).join(file);
        assert_eq!(ffmpeg_bare(&file), (parts * 23_040, String::new()), "{}", file.display());
    }
}

#[test]
fn a_full_disk_moves_the_recording_to_the_second_and_nothing_is_lost() {
    let Disks { paths, files, .. } = &disks();
    let mut origin = start(paths, files);
    let mut aired = origin.record(200);
    files.set(|faults| {
        faults.space.insert(paths[0].clone(), FEW_PARTS);
    });
    aired.extend(origin.record(100));
    let statistics = origin.recorder.statistics();
    assert_eq!((statistics.parts, statistics.moves, statistics.errors, statistics.lost), (300, 1, 1, 0));
    assert_eq!(origin.recorder.recorded_through(), Some(part(299)));
    check_all(paths, &aired);

    // Each directory holds a recording that stands for itself; the second begins a minute before the move.
    let first = Recording::open(&paths[..1], &event()).unwrap();
    let second = Recording::open(&paths[1..], &event()).unwrap();
    let moved = first.parts().end;
    assert!(moved > part(200) && moved < part(215));
    assert_eq!(second.parts(), moved.minus(RING_PARTS as u64 - 1)..part(300));
    plays(&paths[1], second.count() as u64);

    // After a crash it goes on where it was.
    drop(origin);
    let mut origin = start(paths, files);
    assert_eq!(origin.recovered.last, Some(part(299)));
    assert_eq!(origin.recovered.tail.len(), RING_PARTS);
    aired.extend(origin.record(20));
    origin.end(&marks(Some(0), Some(320)));
    let recording = check_all(paths, &aired);
    assert!(recording.is_finished());
    assert!(verify_all(&recording).iter().all(|report| report.complete()));
    plays(&paths[0], moved.get());
}

#[test]
fn writes_and_synchronising_that_fail_move_it_as_well() {
    for fault in 0..2 {
        let Disks { paths, files, .. } = &disks();
        let mut origin = Origin::start_with(
            RecorderConfig { directories: paths.to_vec(), sync: Sync::EveryPart },
            Box::new(files.clone()),
        )
        .unwrap();
        let mut aired = origin.record(20);
        files.set(|faults| {
            let list = if fault == 0 { &mut faults.broken_writes } else { &mut faults.broken_syncs };
            list.push(paths[0].clone());
        });
        aired.extend(origin.record(10));
        assert_eq!(origin.recorder.statistics().moves, 1);
        check_all(paths, &aired);
    }
}

#[test]
fn every_part_is_synchronised_before_it_counts() {
    let Disks { paths, files, .. } = &disks();
    let config = RecorderConfig { directories: paths[..1].to_vec(), sync: Sync::EveryPart };
    let mut origin = Origin::start_with(config, Box::new(files.clone())).unwrap();
    let syncs = || files.0.lock().unwrap().syncs;
    let before = syncs();
    origin.record(1);
    // Three of media, three of index, and the log because of the epoch's record.
    assert_eq!(syncs() - before, 7);
    origin.record(1);
    assert_eq!(syncs() - before, 13);
    files.set(|faults| faults.broken_syncs.push(paths[0].clone()));
    let waiting = origin.make();
    assert!(matches!(origin.recorder.append(&waiting), Err(ArchiveError::Io { .. })));
    assert_eq!(origin.recorder.recorded_through(), Some(part(1)));
}

#[test]
fn a_single_disk_that_recovers_within_a_minute_loses_nothing() {
    let Disks { paths, files, .. } = &disks();
    let mut origin = start(&paths[..1], files);
    let mut aired = origin.record(30);
    files.set(|faults| {
        faults.space.insert(paths[0].clone(), FEW_PARTS);
    });
    for _ in 0..RING_PARTS {
        let part = origin.make();
        match origin.recorder.append(&part) {
            Ok(()) => {}
            Err(error) => assert!(matches!(error, ArchiveError::Full { .. }), "{error}"),
        }
        aired.push(part);
    }
    // Marks wait like parts.
    assert!(origin.recorder.set_marks(&marks(Some(7), None)).is_err());
    let through = origin.recorder.recorded_through().unwrap();
    assert!(through > part(30) && through < part(60));
    files.set(|faults| faults.space.clear());
    aired.extend(origin.record(5));
    assert_eq!(origin.recorder.statistics().lost, 0);
    let recording = check_all(&paths[..1], &aired);
    assert_eq!(recording.marks(), Some(&marks(Some(7), None)));
    plays(&paths[0], aired.len() as u64);
}

#[test]
fn what_no_disk_took_for_a_minute_is_lost_and_counted() {
    let Disks { paths, files, .. } = &disks();
    let mut origin = start(&paths[..1], files);
    origin.record(30);
    files.set(|faults| faults.broken_writes.push(paths[0].clone()));
    for _ in 0..200 {
        let part = origin.make();
        assert!(origin.recorder.append(&part).is_err());
    }
    files.set(|faults| faults.broken_writes.clear());
    origin.record(20);
    let lost = 200 + 1 - RING_PARTS as u64;
    assert_eq!(origin.recorder.statistics().lost, lost);
    let recording = Recording::open(&paths[..1], &event()).unwrap();
    assert_eq!(recording.count() as u64, 250 - lost);
    assert_eq!(recording.parts(), part(0)..part(250));
    for number in (0..250).map(PartNumber::new) {
        let there = number < part(30) || number >= part(30 + lost);
        assert_eq!(recording.entry(model::Rendition::Mp3_64, number).is_some(), there);
    }
    // The hole is found, what is there is verified.
    for report in verify_all(&recording) {
        assert!(!report.intact());
        let verified = report.segments.iter().filter(|segment| segment.verified()).count();
        // Of segment 3 (24..32) and the one the hole ends in, parts are missing; the last has no record yet.
        assert_eq!(verified, 3 + (250 / 8 - (30 + lost as usize).div_ceil(8)));
    }
    // And the event can go on after a crash.
    drop(origin);
    let mut origin = start(&paths[..1], files);
    origin.record(10);
    origin.end(&marks(Some(0), Some(260)));
}

#[test]
fn a_disk_that_cannot_even_be_mended_is_opened_anew() {
    let Disks { paths, files, .. } = &disks();
    let mut origin = start(&paths[..1], files);
    let mut aired = origin.record(30);
    files.set(|faults| {
        faults.space.insert(paths[0].clone(), 5_000);
        faults.broken_cuts.push(paths[0].clone());
    });
    for _ in 0..5 {
        let part = origin.make();
        assert!(origin.recorder.append(&part).is_err());
        aired.push(part);
    }
    files.set(|faults| {
        faults.space.clear();
        faults.broken_cuts.clear();
    });
    aired.extend(origin.record(5));
    check_all(&paths[..1], &aired);
}

#[test]
fn it_moves_back_when_the_second_fails_too() {
    let Disks { paths, files, .. } = &disks();
    let mut origin = start(paths, files);
    let mut aired = origin.record(10);
    files.set(|faults| faults.broken_writes.push(paths[0].clone()));
    aired.extend(origin.record(200));
    files.set(|faults| faults.broken_writes = vec![paths[1].clone()]);
    aired.extend(origin.record(200));
    assert_eq!(origin.recorder.statistics().moves, 2);
    files.set(|faults| faults.broken_writes.clear());
    origin.end(&marks(Some(0), Some(410)));
    let recording = check_all(paths, &aired);
    assert!(verify_all(&recording).iter().all(|report| report.complete()));
    // A restart knows which of the two was written last.
    drop(origin);
    assert!(start(paths, files).recovered.finished);
}

#[test]
fn a_directory_that_cannot_be_written_to_is_named_as_such() {
    let Disks { paths, files, .. } = &disks();
    files.set(|faults| faults.read_only.push(paths[0].clone()));
    let open = |directories: &[PathBuf]| {
        let config = RecorderConfig { directories: directories.to_vec(), sync: Sync::EveryPart };
        Recorder::open_with(config, &event(), Box::new(files.clone()))
    };
    match open(&paths[..1]) {
        Err(ArchiveError::ReadOnly { path, source }) => {
            assert!(path.starts_with(&paths[0]));
            assert_eq!(source.kind(), io::ErrorKind::ReadOnlyFilesystem);
        }
        other => panic!("{other:?}"),
    }
    // With a second directory it is recorded there.
    let (recorder, recovered) = open(paths).unwrap();
    assert_eq!((recorder.statistics().errors, recovered.unread), (1, 1));
    drop(recorder);
    assert!(Recording::open(&paths[1..], &event()).is_ok());
    assert!(matches!(open(&[]), Err(ArchiveError::NoDirectory)));
    files.set(|faults| {
        faults.space.insert(paths[1].clone(), 10);
    });
    std::fs::remove_dir_all(event_directory(&paths[1], &event())).unwrap();
    assert!(matches!(open(&paths[1..]), Err(ArchiveError::Full { .. })));
}

#[test]
fn finishing_on_a_full_disk_finishes_on_the_second() {
    let Disks { paths, files, .. } = &disks();
    let mut origin = start(paths, files);
    let aired = origin.record(20);
    files.set(|faults| {
        faults.space.insert(paths[0].clone(), 100);
    });
    origin.end(&marks(Some(0), Some(20)));
    let recording = check_all(paths, &aired);
    assert!(recording.is_finished());
    assert!(verify_all(&recording).iter().all(|report| report.complete()));

    // With one disk it is tried again.
    let Disks { paths, files, .. } = &disks();
    let mut origin = start(&paths[..1], files);
    origin.record(20);
    files.set(|faults| {
        faults.space.insert(paths[0].clone(), 700);
    });
    let closing = origin.packager.close(crate::support::clock(9).unix).unwrap();
    let marks = marks(Some(0), Some(20));
    assert!(matches!(origin.recorder.finish(&closing, &marks), Err(ArchiveError::Full { .. })));
    files.set(|faults| faults.space.clear());
    origin.recorder.finish(&closing, &marks).unwrap();
    let recording = Recording::open(&paths[..1], &event()).unwrap();
    assert!(recording.is_finished());
    assert!(verify_all(&recording).iter().all(|report| report.complete()));
}
