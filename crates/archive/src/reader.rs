//! Reading a recording while another process writes it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use model::{
    ChainRecord, EventSlug, PARTS_PER_SEGMENT, Part, PartKind, PartNumber, Payload, Rendition, SegmentNumber,
};
use packager::chain::{self, Record};

use crate::index::{self, RECORD_LEN};
use crate::log::{self, Frame};
use crate::marks::{self, Marks};
use crate::volume::{LOG_NAME, data_name, event_directory, header_len, index_name};
use crate::{ArchiveError, IndexEntry};

/// Bytes of an index that are read at once.
const READ_LEN: usize = RECORD_LEN * 4_096;

/// Where the bytes of a part (or of several, one after another) lie.
#[derive(Debug, Clone)]
pub struct Location {
    /// The file, open for reading.
    pub file: Arc<File>,
    /// Its path.
    pub path: Arc<Path>,
    /// Offset of the first byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// A recording, for readers in any process. Opening reads the indexes (80 bytes a part and rendition, a few
/// milliseconds for two hours); refreshing reads what was added to them. Media is read only when asked for.
#[derive(Debug)]
pub struct Recording {
    event: EventSlug,
    directories: Vec<PathBuf>,
    /// In the order of their last parts: what is in several is taken from the one that was written last.
    volumes: Vec<ReadVolume>,
    /// Where which parts are, ascending.
    runs: Vec<Run>,
    marks: Option<Marks>,
    finished: bool,
}

/// Parts with consecutive numbers that are one after another in one volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// Numbers, from the first to after the last.
    pub(crate) first: u64,
    pub(crate) end: u64,
    /// Place of the volume in `volumes`.
    pub(crate) volume: usize,
    /// Place of the first in the volume's index.
    pub(crate) at: usize,
}

impl Run {
    fn cut(self, first: u64, end: u64) -> Option<Self> {
        let (first, end) = (first.max(self.first), end.min(self.end));
        (first < end).then(|| Self { first, end, at: self.at + (first - self.first) as usize, ..self })
    }
}

/// One directory's files.
#[derive(Debug)]
pub(crate) struct ReadVolume {
    directory: PathBuf,
    data: [(Arc<File>, Arc<Path>); 3],
    index: [File; 3],
    log: File,
    /// Shared with downloads, which go on reading what they began with.
    entries: [Arc<Vec<IndexEntry>>; 3],
    /// Runs of the parts that are in all renditions; `volume` is not set in them.
    runs: Vec<Run>,
    /// Length of the log when it was last looked at behind the last part.
    log_seen: u64,
    closing: Vec<Frame>,
}

impl Recording {
    /// Opens the recording of an event that lies in some of these data directories.
    ///
    /// # Errors
    /// [`ArchiveError::NotFound`] if none of them has one; otherwise what reading failed with.
    pub fn open(directories: &[PathBuf], event: &EventSlug) -> Result<Self, ArchiveError> {
        let directories = directories.iter().map(|data| event_directory(data, event)).collect();
        let mut recording = Self {
            event: event.clone(),
            directories,
            volumes: Vec::new(),
            runs: Vec::new(),
            marks: None,
            finished: false,
        };
        recording.refresh()?;
        if recording.volumes.is_empty() { Err(ArchiveError::NotFound(event.clone())) } else { Ok(recording) }
    }

    /// Takes in what was written since. Returns whether anything changed. Cheap enough for every second.
    ///
    /// # Errors
    /// What reading failed with; what was known stays.
    pub fn refresh(&mut self) -> Result<bool, ArchiveError> {
        let mut changed = false;
        let mut failed = None;
        for directory in &self.directories {
            if self.volumes.iter().all(|volume| volume.directory != *directory) {
                match ReadVolume::open(directory) {
                    Ok(Some(volume)) => {
                        self.volumes.push(volume);
                        changed = true;
                    }
                    Ok(None) => {}
                    // One directory that cannot be read does not hide the others.
                    Err(error) => failed = Some(error),
                }
            }
        }
        for volume in &mut self.volumes {
            match volume.refresh() {
                Ok(more) => changed |= more,
                Err(error) => failed = Some(error),
            }
        }
        let marks = self.read_marks();
        changed |= marks.is_some() && marks != self.marks;
        self.marks = marks.or(self.marks);
        if changed {
            self.volumes.sort_by_key(|volume| volume.runs.last().map(|run| run.end));
            self.runs = merge(&self.volumes);
            // The recorder writes the marks last.
            self.finished = self.marks.is_some_and(|marks| marks.ended_at.is_some())
                && self.volumes.last().is_some_and(ReadVolume::is_closed);
        }
        match failed {
            Some(error) if self.runs.is_empty() => Err(error),
            _ => Ok(changed),
        }
    }

    /// Whose recording.
    pub fn event(&self) -> &EventSlug {
        &self.event
    }

    /// From the first part to after the last that is there in every rendition. Numbers within may be missing if
    /// the recorder lost parts (no directory could be written to for more than a minute).
    pub fn parts(&self) -> Range<PartNumber> {
        let first = self.runs.first().map_or(0, |run| run.first);
        let end = self.runs.last().map_or(0, |run| run.end);
        PartNumber::new(first)..PartNumber::new(end)
    }

    /// How many parts there are.
    pub fn count(&self) -> usize {
        self.runs.iter().map(|run| (run.end - run.first) as usize).sum()
    }

    /// What is known of a part in one rendition; `None` if it is not there.
    pub fn entry(&self, rendition: Rendition, number: PartNumber) -> Option<&IndexEntry> {
        let (volume, at) = self.find(number)?;
        volume.entries[rendition.index()].get(at)
    }

    /// What a part carries; `None` if it is not there.
    pub fn kind(&self, number: PartNumber) -> Option<PartKind> {
        self.entry(Rendition::Opus24, number).map(|entry| entry.kind)
    }

    /// Where a part's bytes lie; `None` if it is not there.
    pub fn part_location(&self, rendition: Rendition, number: PartNumber) -> Option<Location> {
        let (volume, at) = self.find(number)?;
        let entry = volume.entries[rendition.index()].get(at)?;
        Some(volume.location(rendition, entry.offset, entry.length.into()))
    }

    /// A part's bytes, checked against their checksum. Reads the disk.
    ///
    /// # Errors
    /// [`ArchiveError::NoPart`], [`ArchiveError::Damaged`], or what reading failed with.
    pub fn read_part(&self, rendition: Rendition, number: PartNumber) -> Result<Bytes, ArchiveError> {
        let (volume, at) = self.find(number).ok_or(ArchiveError::NoPart(number))?;
        let entry = &volume.entries[rendition.index()][at];
        let location = volume.location(rendition, entry.offset, entry.length.into());
        let bytes = location.read().map_err(|error| ArchiveError::io(&location.path, error))?;
        if entry.matches(&bytes) {
            Ok(bytes)
        } else {
            Err(ArchiveError::Damaged { path: location.path.to_path_buf(), number })
        }
    }

    /// A whole part: every rendition, and the chain records that came with it. Reads the disk.
    ///
    /// # Errors
    /// As [`Self::read_part`].
    pub fn read_whole_part(&self, number: PartNumber) -> Result<Part, ArchiveError> {
        let (volume, at) = self.find(number).ok_or(ArchiveError::NoPart(number))?;
        let entry = volume.entries[0][at];
        let payload = |rendition: Rendition| {
            let digest = volume.entries[rendition.index()][at].digest;
            Ok(Payload { bytes: self.read_part(rendition, number)?, digest })
        };
        Ok(Part {
            number,
            epoch: entry.epoch,
            kind: entry.kind,
            payloads: [payload(Rendition::Opus24)?, payload(Rendition::Opus48)?, payload(Rendition::Mp3_64)?],
            records: volume.frames_of(at)?.into_iter().map(|frame| frame.record).collect(),
        })
    }

    /// The parts of a segment that are there, one after another: what `s{segment}.m4s` is. For MP3 bare frames, to
    /// which the edge puts the ID3 tag. Reads the disk.
    ///
    /// # Errors
    /// [`ArchiveError::NoPart`] if none is there; otherwise as [`Self::read_part`].
    pub fn read_segment(&self, rendition: Rendition, segment: SegmentNumber) -> Result<Bytes, ArchiveError> {
        let first = segment.first_part();
        let mut out = BytesMut::new();
        for number in (0..PARTS_PER_SEGMENT).map(|index| first.plus(index)) {
            match self.read_part(rendition, number) {
                Ok(bytes) => out.extend_from_slice(&bytes),
                Err(ArchiveError::NoPart(_)) => {}
                Err(error) => return Err(error),
            }
        }
        if out.is_empty() { Err(ArchiveError::NoPart(first)) } else { Ok(out.freeze()) }
    }

    /// The record that signs a segment of a rendition: known with the part after it, or after the end. Reads the
    /// disk.
    ///
    /// # Errors
    /// What reading failed with.
    pub fn segment_record(
        &self,
        rendition: Rendition,
        segment: SegmentNumber,
    ) -> Result<Option<ChainRecord>, ArchiveError> {
        let after = segment.next().first_part().get();
        let run = self.runs.iter().find(|run| run.end > after);
        let frames = match run.and_then(|run| run.cut(after, run.end)) {
            Some(run) => self.volumes[run.volume].frames_of(run.at)?,
            None => self.volumes.last().map_or_else(Vec::new, |volume| volume.closing.clone()),
        };
        let signs = |record: &ChainRecord| matches!(chain::parse(record), Ok(Record::Segment(s)) if s.rendition == rendition && s.segment() == segment);
        Ok(frames.into_iter().map(|frame| frame.record).find(signs))
    }

    /// All chain records, in the order of the chain. Reads the disk.
    ///
    /// # Errors
    /// What reading failed with.
    pub fn chain(&self) -> Result<Vec<ChainRecord>, ArchiveError> {
        // What came with a part is the same in every volume that has the part.
        let mut by_part: BTreeMap<PartNumber, (usize, Vec<ChainRecord>)> = BTreeMap::new();
        for (at, volume) in self.volumes.iter().enumerate() {
            for frame in volume.all_frames()? {
                let (from, records) = by_part.entry(frame.number).or_insert_with(|| (at, Vec::new()));
                if *from == at {
                    records.push(frame.record);
                }
            }
        }
        Ok(by_part.into_values().flat_map(|(_, records)| records).collect())
    }

    /// The records that came after the parts before `end`, up to those that sign the last of them: with the parts
    /// that follow in its segment (an epoch may have begun there) and the first of the next, or at the end of the
    /// event.
    pub(crate) fn records_that_sign_up_to(&self, end: PartNumber) -> Result<Vec<ChainRecord>, ArchiveError> {
        let signed_with = end.minus(1).segment().next().first_part();
        let mut frames = Vec::new();
        for number in (end.get()..=signed_with.get()).map(PartNumber::new) {
            if let Some((volume, at)) = self.find(number) {
                frames.extend(volume.frames_of(at)?);
            }
        }
        if self.finished && self.parts().end <= signed_with {
            frames.extend(self.volumes.last().map_or(&[][..], |volume| &volume.closing).iter().cloned());
        }
        Ok(frames.into_iter().map(|frame| frame.record).collect())
    }

    /// Where the show began and ended; `None` before the recorder was told when doors are.
    pub fn marks(&self) -> Option<&Marks> {
        self.marks.as_ref()
    }

    /// Whether the event is over and the recording complete.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// The runs that hold these parts, ascending.
    pub(crate) fn runs_of(&self, parts: &Range<PartNumber>) -> Vec<Run> {
        self.runs.iter().filter_map(|run| run.cut(parts.start.get(), parts.end.get())).collect()
    }

    /// Whether none of these parts is missing.
    pub(crate) fn holds_all(&self, parts: &Range<PartNumber>) -> bool {
        let held: u64 = self.runs_of(parts).iter().map(|run| run.end - run.first).sum();
        held == parts.end.get().saturating_sub(parts.start.get())
    }

    pub(crate) fn volume(&self, run: &Run) -> &ReadVolume {
        &self.volumes[run.volume]
    }

    fn find(&self, number: PartNumber) -> Option<(&ReadVolume, usize)> {
        let number = number.get();
        let run = self.runs.get(self.runs.partition_point(|run| run.end <= number))?;
        (run.first <= number).then(|| (&self.volumes[run.volume], run.at + (number - run.first) as usize))
    }

    /// The marks that say most, of those that can be read.
    fn read_marks(&self) -> Option<Marks> {
        let read = |directory: &PathBuf| {
            let path = directory.join(marks::NAME);
            let length = path.metadata().ok()?.len();
            (length <= marks::LENGTH_MAX).then(|| std::fs::read(&path).ok()).flatten()
        };
        let all = self.directories.iter().filter_map(read).filter_map(|text| Marks::read(&text).ok());
        all.reduce(|best, other| if other.say_more_than(&best) { other } else { best })
    }
}

/// Joins the volumes' runs; where several have a part, the later volume is taken.
fn merge(volumes: &[ReadVolume]) -> Vec<Run> {
    let mut merged: Vec<Run> = Vec::new();
    for (at, volume) in volumes.iter().enumerate().rev() {
        let mut free = Vec::new();
        for run in &volume.runs {
            let mut from = run.first;
            for taken in &merged {
                free.extend(run.cut(from, taken.first));
                from = from.max(taken.end);
            }
            free.extend(run.cut(from, run.end));
        }
        merged.extend(free.into_iter().map(|run| Run { volume: at, ..run }));
        merged.sort_by_key(|run| run.first);
    }
    merged
}

impl ReadVolume {
    /// `None` if nothing was recorded in this directory.
    fn open(directory: &Path) -> Result<Option<Self>, ArchiveError> {
        let open = |name: String| {
            let path = directory.join(name);
            match File::open(&path) {
                Ok(file) => Ok(Some((file, path))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(ArchiveError::io(&path, error)),
            }
        };
        let data = |rendition| {
            Ok(open(data_name(rendition))?.map(|(file, path)| (Arc::new(file), Arc::from(path.as_path()))))
        };
        let index = |rendition| Ok(open(index_name(rendition))?.map(|(file, _)| file));
        let [a, b, c] = Rendition::ALL;
        let (Some(data_a), Some(data_b), Some(data_c)) = (data(a)?, data(b)?, data(c)?) else {
            return Ok(None);
        };
        let (Some(index_a), Some(index_b), Some(index_c)) = (index(a)?, index(b)?, index(c)?) else {
            return Ok(None);
        };
        let Some((log, _)) = open(LOG_NAME.to_owned())? else { return Ok(None) };
        Ok(Some(Self {
            directory: directory.to_owned(),
            data: [data_a, data_b, data_c],
            index: [index_a, index_b, index_c],
            log,
            entries: Default::default(),
            runs: Vec::new(),
            log_seen: 0,
            closing: Vec::new(),
        }))
    }

    fn refresh(&mut self) -> Result<bool, ArchiveError> {
        let mut changed = false;
        for rendition in Rendition::ALL {
            changed |= self.refresh_index(rendition)?;
        }
        if changed {
            self.find_runs();
        }
        Ok(self.refresh_closing(changed)? || changed)
    }

    fn refresh_index(&mut self, rendition: Rendition) -> Result<bool, ArchiveError> {
        let path = self.directory.join(index_name(rendition));
        let failed = |error| ArchiveError::io(&path, error);
        let file = &self.index[rendition.index()];
        let length = file.metadata().map_err(failed)?.len();
        let known = &mut self.entries[rendition.index()];
        // A recorder that recovers cuts the tail; what was cut may come again differently only in its place.
        let still_last = match known.last() {
            None => true,
            Some(last) => {
                let mut record = [0; RECORD_LEN];
                let at = (RECORD_LEN * known.len()) as u64;
                file.read_exact_at(&mut record, at).is_ok() && record == last.write()
            }
        };
        if !still_last {
            *known = Arc::default();
        }
        if known.is_empty() {
            let mut header = [0; RECORD_LEN];
            let sound = length >= RECORD_LEN as u64
                && file.read_exact_at(&mut header, 0).is_ok()
                && header == index::header(rendition);
            if !sound {
                return Ok(!still_last);
            }
        }
        let mut buffer = vec![0; READ_LEN.min((length as usize).next_multiple_of(RECORD_LEN))];
        let mut changed = !still_last;
        loop {
            let at = (RECORD_LEN * (known.len() + 1)) as u64;
            let wanted = usize::try_from(length.saturating_sub(at)).unwrap_or(usize::MAX).min(buffer.len());
            let wanted = wanted - wanted % RECORD_LEN;
            if wanted == 0 || file.read_exact_at(&mut buffer[..wanted], at).is_err() {
                return Ok(changed);
            }
            let before = known.len();
            index::read_entries(&buffer[..wanted], header_len(rendition), Arc::make_mut(known));
            changed |= known.len() > before;
            if known.len() - before < wanted / RECORD_LEN {
                return Ok(changed);
            }
        }
    }

    /// Finds the runs of the parts that are in all renditions.
    fn find_runs(&mut self) {
        let [a, b, c] = &self.entries;
        self.runs.clear();
        for (at, ((a, b), c)) in a.iter().zip(&**b).zip(&**c).enumerate() {
            if a.number != b.number || a.number != c.number {
                break;
            }
            let number = a.number.get();
            match self.runs.last_mut() {
                Some(run) if run.end == number => run.end += 1,
                _ => self.runs.push(Run { first: number, end: number + 1, volume: 0, at }),
            }
        }
    }

    /// Looks behind the last part's records, where those of the end are.
    fn refresh_closing(&mut self, parts_changed: bool) -> Result<bool, ArchiveError> {
        let length = self.log_len()?;
        if length == self.log_seen && !parts_changed {
            return Ok(false);
        }
        self.log_seen = length;
        let count = self.runs.last().map_or(0, |run| run.at + (run.end - run.first) as usize);
        let start = count.checked_sub(1).map_or(0, |last| u64::from(self.entries[0][last].log_end));
        let end = self.runs.last().map_or(0, |run| run.end);
        let mut closing = self.read_log(start..length)?;
        closing.retain(|frame| frame.number.get() == end);
        let changed = closing != self.closing;
        self.closing = closing;
        Ok(changed)
    }

    fn is_closed(&self) -> bool {
        self.closing.iter().any(|frame| matches!(chain::parse(&frame.record), Ok(Record::Closing(_))))
    }

    fn log_len(&self) -> Result<u64, ArchiveError> {
        let metadata = self.log.metadata();
        metadata.map(|metadata| metadata.len()).map_err(|error| self.log_error(error))
    }

    /// The records that came with the part at this place of the index.
    fn frames_of(&self, at: usize) -> Result<Vec<Frame>, ArchiveError> {
        let log_end = |at: usize| u64::from(self.entries[0][at].log_end);
        self.read_log(at.checked_sub(1).map_or(0, log_end)..log_end(at))
    }

    /// All records that belong to parts known here, and those of the end.
    fn all_frames(&self) -> Result<Vec<Frame>, ArchiveError> {
        let mut frames = self.read_log(0..self.log_seen)?;
        let end = self.runs.last().map_or(0, |run| run.end);
        frames.retain(|frame| frame.number.get() < end || self.closing.contains(frame));
        Ok(frames)
    }

    fn read_log(&self, range: Range<u64>) -> Result<Vec<Frame>, ArchiveError> {
        let mut bytes = vec![0; (range.end.saturating_sub(range.start)) as usize];
        self.log.read_exact_at(&mut bytes, range.start).map_err(|error| self.log_error(error))?;
        Ok(log::read_frames(&bytes, range.start))
    }

    fn log_error(&self, error: io::Error) -> ArchiveError {
        ArchiveError::io(&self.directory.join(LOG_NAME), error)
    }

    pub(crate) fn location(&self, rendition: Rendition, offset: u64, length: u64) -> Location {
        let (file, path) = &self.data[rendition.index()];
        Location { file: Arc::clone(file), path: Arc::clone(path), offset, length }
    }

    pub(crate) fn entries(&self, rendition: Rendition) -> &Arc<Vec<IndexEntry>> {
        &self.entries[rendition.index()]
    }
}

impl Location {
    /// Reads all of it.
    ///
    /// # Errors
    /// What reading failed with.
    pub fn read(&self) -> io::Result<Bytes> {
        let mut bytes = BytesMut::zeroed(self.length as usize);
        self.file.read_exact_at(&mut bytes, self.offset)?;
        Ok(bytes.freeze())
    }
}
