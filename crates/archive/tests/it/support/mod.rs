//! What the tests of the archive share: an event that is packaged and recorded in virtual time, and a file system
//! that can be told to fail.
#![allow(dead_code, unreachable_pub, reason = "each test takes what it needs of it")]

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use minassa_archive::{
    ArchiveError, DiskFiles, File, Files, Marks, Moment, Recorder, RecorderConfig, Recording, Recovered, Sync,
};
use model::{
    BootId, BootTime, ChainRecord, ClockReading, Epoch, EventSlug, Part, PartKind, PartNumber, Rendition,
    UnixTime,
};
use packager::verify::{FoundPart, Report, verify};
use packager::{ClosingRecords, Opening, Packager, PartFrames, SilentFrames};

pub const DOORS: UnixTime = UnixTime::from_millis(1_795_000_000_000);

pub fn event() -> EventSlug {
    "night-talk".parse().unwrap()
}

pub fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

pub fn part(number: u64) -> PartNumber {
    PartNumber::new(number)
}

/// Frames that any player decodes (to silence), of real sizes; what tells parts apart is in their padding.
pub fn frames(number: u64, salt: u8, kind: PartKind) -> PartFrames {
    let mark = |bytes: &mut [u8], index: usize| {
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        bytes[8..11].copy_from_slice(&[salt, index as u8, 0]);
    };
    let opus = |index: usize, length: usize| {
        let mut packet = vec![0; length];
        packet[..5].copy_from_slice(&[31 << 3 | 3, 0x41, (length - 5) as u8, 0xFF, 0xFE]);
        mark(&mut packet[length - 11..], index);
        Bytes::from(packet)
    };
    let mp3 = |index: usize| {
        let mut frame = vec![0; 192];
        frame[..4].copy_from_slice(&[0xFF, 0xFB, 0x54, 0xC4]);
        mark(&mut frame[181..], index);
        Bytes::from(frame)
    };
    PartFrames {
        number: part(number),
        kind,
        opus24: (0..24).map(|index| opus(index, 50 + (number as usize * 7 + index) % 20)).collect(),
        opus48: (0..24).map(|index| opus(index, 120)).collect(),
        mp3: (0..20).map(mp3).collect(),
    }
}

pub fn clock(seconds: u64) -> ClockReading {
    ClockReading {
        unix: DOORS.plus(Duration::from_secs(seconds)),
        boot: BootTime::from_nanos(seconds * 1_000_000_000),
        boot_id: BootId([3; 16]),
    }
}

pub fn moment(number: u64) -> Moment {
    let media = part(number).start();
    Moment { unix: DOORS.plus(media.to_duration()), media }
}

pub fn marks(live: Option<u64>, ended: Option<u64>) -> Marks {
    Marks { doors: DOORS, live_at: live.map(moment), ended_at: ended.map(moment) }
}

/// One incarnation of origin: packager and recorder.
pub struct Origin {
    pub packager: Packager,
    pub recorder: Recorder,
    pub recovered: Recovered,
}

impl Origin {
    pub fn start(directories: &[PathBuf], files: Box<dyn Files>) -> Result<Self, ArchiveError> {
        let config = RecorderConfig { directories: directories.to_vec(), sync: Sync::Never };
        Self::start_with(config, files)
    }

    pub fn start_with(config: RecorderConfig, files: Box<dyn Files>) -> Result<Self, ArchiveError> {
        let (recorder, recovered) = Recorder::open_with(config, &event(), files)?;
        let epoch = Epoch(recovered.epoch.map_or(1, |Epoch(epoch)| epoch + 1));
        let packager = Packager::open(Opening {
            event: &event(),
            key: &key(),
            epoch,
            doors: DOORS,
            now: clock(u64::from(epoch.0)),
            resume: recovered.resume.clone(),
            silence: SilentFrames::standard(),
        })
        .unwrap();
        Ok(Self { packager, recorder, recovered })
    }

    pub fn on(directory: &Path) -> Self {
        Self::start(&[directory.to_owned()], Box::new(DiskFiles)).unwrap()
    }

    /// The next part.
    pub fn make(&mut self) -> Part {
        let number = self.packager.next().get();
        let kind = if number % 50 == 49 { PartKind::Hold } else { PartKind::Live };
        self.packager.push(frames(number, self.packager.epoch().0 as u8, kind)).unwrap()
    }

    pub fn record(&mut self, count: u64) -> Vec<Part> {
        (0..count)
            .map(|_| {
                let part = self.make();
                self.recorder.append(&part).unwrap();
                part
            })
            .collect()
    }

    pub fn record_gaps(&mut self, count: u64) {
        for _ in 0..count {
            let part = self.packager.gap(self.packager.next()).unwrap();
            self.recorder.append(&part).unwrap();
        }
    }

    pub fn end(&mut self, marks: &Marks) -> ClosingRecords {
        let closing = self.packager.close(clock(100_000).unix).unwrap();
        self.recorder.finish(&closing, marks).unwrap();
        closing
    }
}

/// Verifies everything a recording holds, from its disk.
pub fn verify_all(recording: &Recording) -> [Report; 3] {
    let chain = recording.chain().unwrap();
    Rendition::ALL.map(|rendition| verify_rendition(recording, rendition, &chain))
}

pub fn verify_rendition(recording: &Recording, rendition: Rendition, chain: &[ChainRecord]) -> Report {
    let range = recording.parts();
    let numbers = (range.start.get()..range.end.get()).map(PartNumber::new);
    let parts: Vec<_> = numbers
        .filter(|&number| recording.entry(rendition, number).is_some())
        .map(|number| {
            let bytes = recording.read_part(rendition, number).unwrap();
            FoundPart { kind: recording.kind(number), ..FoundPart::hash(number, &bytes) }
        })
        .collect();
    verify(&event(), rendition, &key().verifying_key(), &parts, chain)
}

/// Decodes a file with ffmpeg: samples at 48 kHz, and what it had to say.
pub fn ffmpeg(file: &Path) -> (u64, String) {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-hide_banner", "-v", "warning", "-i"])
        .arg(file)
        .args(["-f", "s16le", "-ac", "1", "-ar", "48000", "-"])
        .output()
        .expect("ffmpeg is needed by this test: install it and have it on PATH");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.stdout.len() as u64 / 2, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The same for a file as it lies in the archive. That of MP3 is bare frames, with nothing before them that says how
/// long they are; ffmpeg remarks on that.
pub fn ffmpeg_bare(file: &Path) -> (u64, String) {
    let (samples, said) = ffmpeg(file);
    let said = said.lines().filter(|line| !line.contains("Estimating duration from bitrate"));
    (samples, said.collect())
}

/// How long a file says it is, in samples at 48 kHz, without being read through; `None` if it does not say.
pub fn ffprobe(file: &Path) -> Option<u64> {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"])
        .arg(file)
        .output()
        .expect("ffprobe is needed by this test: install ffmpeg and have it on PATH");
    let seconds = String::from_utf8_lossy(&output.stdout).trim().parse::<f64>().ok()?;
    Some((seconds * 48_000.0).round() as u64)
}

/// What is to fail, by the beginning of the path.
#[derive(Debug, Default)]
pub struct Faults {
    /// Bytes that can still be written below a directory; after them `ENOSPC`, in the middle of a write.
    pub space: BTreeMap<PathBuf, u64>,
    /// Nothing below can be made or opened for writing: `EROFS`.
    pub read_only: Vec<PathBuf>,
    /// Writes below fail with `EIO`.
    pub broken_writes: Vec<PathBuf>,
    /// Synchronising below fails with `EIO`.
    pub broken_syncs: Vec<PathBuf>,
    /// Cutting files below fails with `EIO`.
    pub broken_cuts: Vec<PathBuf>,
    /// Calls of `sync_data` that succeeded.
    pub syncs: u64,
}

impl Faults {
    fn check(&self, list: &[PathBuf], path: &Path, code: i32) -> io::Result<()> {
        if list.iter().any(|prefix| path.starts_with(prefix)) {
            return Err(io::Error::from_raw_os_error(code));
        }
        Ok(())
    }
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

/// The real file system, with faults.
#[derive(Debug, Clone, Default)]
pub struct FaultyFiles(pub Arc<Mutex<Faults>>);

impl FaultyFiles {
    pub fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.0.lock().unwrap());
    }

    fn writable(&self, path: &Path) -> io::Result<()> {
        let faults = self.0.lock().unwrap();
        faults.check(&faults.read_only, path, EROFS)
    }
}

impl Files for FaultyFiles {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.writable(path)?;
        DiskFiles.create_dir_all(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.writable(path)?;
        Ok(Box::new(FaultyFile {
            path: path.to_owned(),
            file: DiskFiles.open(path)?,
            faults: self.0.clone(),
        }))
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        DiskFiles.read(path, limit)
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.writable(path)?;
        let mut faults = self.0.lock().unwrap();
        faults.check(&faults.broken_writes, path, EIO)?;
        if take_space(&mut faults, path, content.len()) < content.len() {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        DiskFiles.replace(path, content)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        DiskFiles.exists(path)
    }

    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.writable(to)?;
        DiskFiles.copy(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        DiskFiles.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn fmt::Debug + Send>> {
        self.writable(path)?;
        DiskFiles.lock(path)
    }
}

#[derive(Debug)]
struct FaultyFile {
    path: PathBuf,
    file: Box<dyn File>,
    faults: Arc<Mutex<Faults>>,
}

impl File for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut faults = self.faults.lock().unwrap();
        faults.check(&faults.broken_writes, &self.path, EIO)?;
        let fits = take_space(&mut faults, &self.path, bytes.len());
        self.file.write_all_at(&bytes[..fits], offset)?;
        if fits < bytes.len() { Err(io::Error::from_raw_os_error(ENOSPC)) } else { Ok(()) }
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn set_len(&mut self, length: u64) -> io::Result<()> {
        let faults = self.faults.lock().unwrap();
        faults.check(&faults.broken_cuts, &self.path, EIO)?;
        self.file.set_len(length)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let mut faults = self.faults.lock().unwrap();
        faults.check(&faults.broken_syncs, &self.path, EIO)?;
        faults.syncs += 1;
        self.file.sync_data()
    }
}

/// How many of `wanted` bytes there is room for; they are taken.
fn take_space(faults: &mut Faults, path: &Path, wanted: usize) -> usize {
    match faults.space.iter_mut().find(|(prefix, _)| path.starts_with(prefix)) {
        Some((_, left)) => {
            let fits = (*left).min(wanted as u64);
            *left -= fits;
            fits as usize
        }
        None => wanted,
    }
}
