//! One directory with one recording in it: writing, and recovery.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use formats::mp4;
use model::{ChainRecord, EventSlug, Part, PartNumber, Payload, Rendition};
use packager::TailPart;
use packager::chain::{self, Record};

use crate::index::{self, RECORD_LEN};
use crate::log::{self, Frame};
use crate::marks::{self, Marks};
use crate::{ArchiveError, File, Files, IndexEntry, RING_PARTS};

/// Name of the chain log.
pub(crate) const LOG_NAME: &str = "chain.log";
/// Bytes of content of the `free` box in the header of a recording: a C2PA manifest of 13 KB fits.
const FREE_LEN: u32 = 16 * 1024;
/// Longest index and chain log that are read: ten times a day of parts.
const INDEX_LEN_MAX: u64 = 160_000_000;
/// What is cut away beyond this is copied first: a crash tears a part, never a megabyte.
const CUT_BYTES_MAX: u64 = 1 << 20;
/// Most copies kept of what was cut.
const COPIES_MAX: u32 = 4;

/// Where the recording of an event lies in a data directory: `recordings/{event}`.
pub fn event_directory(data: &Path, event: &EventSlug) -> PathBuf {
    data.join("recordings").join(event.as_str())
}

/// Name of the file of a rendition.
pub(crate) fn data_name(rendition: Rendition) -> String {
    let extension = if rendition.is_cmaf() { "mp4" } else { "mp3" };
    format!("{rendition}.{extension}")
}

/// Name of the index of a rendition.
pub(crate) fn index_name(rendition: Rendition) -> String {
    format!("{rendition}.index")
}

/// What a rendition's file begins with.
pub(crate) fn header(rendition: Rendition) -> Bytes {
    if rendition.is_cmaf() {
        Bytes::from([mp4::opus_init(), mp4::write_free(FREE_LEN)].concat())
    } else {
        Bytes::new()
    }
}

/// Bytes of [`header`].
pub(crate) fn header_len(rendition: Rendition) -> u64 {
    header(rendition).len() as u64
}

/// Bytes of an Ogg page with these packets (RFC 3533 §6).
pub(crate) fn ogg_page_len<'a>(packets: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    packets.into_iter().map(|packet| (packet.len() / 255 + 1 + packet.len()) as u64).sum::<u64>() + 27
}

/// What recovery found, beside the volume itself.
#[derive(Debug)]
pub(crate) struct Found {
    /// Index entries cut off.
    pub(crate) cut: u64,
    /// The last parts that are there, with their records.
    pub(crate) tail: Vec<Part>,
    /// All chain records.
    pub(crate) records: Vec<ChainRecord>,
    /// The last parts as the chain wants them.
    pub(crate) chain_tail: Vec<TailPart>,
    pub(crate) marks: Option<Marks>,
}

/// How much of each file is known to be good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lengths {
    data: [u64; 3],
    index: u64,
    log: u64,
    ogg: [u64; 3],
    last: Option<PartNumber>,
}

/// The open files of a recording in one directory. Held by the one recorder.
pub(crate) struct Volume {
    directory: PathBuf,
    data: [Box<dyn File>; 3],
    index: [Box<dyn File>; 3],
    log: Box<dyn File>,
    good: Lengths,
    /// Whether something behind the good lengths may have been written.
    torn: bool,
    /// Whether the event is closed in this volume.
    finished: bool,
    _lock: Box<dyn fmt::Debug + Send>,
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume").field("directory", &self.directory).field("good", &self.good).finish()
    }
}

impl Volume {
    /// Opens the recording in `directory`, or begins one, and cuts what is not whole.
    pub(crate) fn open(files: &dyn Files, directory: PathBuf) -> Result<(Self, Found), ArchiveError> {
        make_directory(files, &directory)?;
        let lock_path = directory.join("lock");
        let lock = files.lock(&lock_path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => ArchiveError::Locked { path: lock_path.clone() },
            _ => ArchiveError::io(&lock_path, error),
        })?;
        let open = |name: String| {
            let path = directory.join(name);
            files.open(&path).map_err(|error| ArchiveError::io(&path, error))
        };
        let [a, b, c] = Rendition::ALL.map(data_name);
        let data = [open(a)?, open(b)?, open(c)?];
        let [a, b, c] = Rendition::ALL.map(index_name);
        let index = [open(a)?, open(b)?, open(c)?];
        let log = open(LOG_NAME.to_owned())?;
        files.sync_dir(&directory).map_err(|error| ArchiveError::io(&directory, error))?;
        let good = Lengths {
            data: Rendition::ALL.map(header_len),
            index: RECORD_LEN as u64,
            log: 0,
            ogg: [0; 3],
            last: None,
        };
        let mut volume = Self { directory, data, index, log, good, torn: true, finished: false, _lock: lock };
        let found = volume.recover(files)?;
        Ok((volume, found))
    }

    /// The last part written whole.
    pub(crate) fn last(&self) -> Option<PartNumber> {
        self.good.last
    }

    /// Whether the event is closed in this volume.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Appends parts, in ascending order, to a volume that is mended; all of them are good afterwards, or none.
    pub(crate) fn append<'a>(
        &mut self,
        parts: impl IntoIterator<Item = &'a Part>,
        sync: bool,
    ) -> Result<u64, ArchiveError> {
        let mut good = self.good;
        let mut entries: [Vec<u8>; 3] = Default::default();
        let mut frames = Vec::new();
        let log_start = good.log;
        let mut written = 0;
        self.torn = true;
        for part in parts {
            for record in &part.records {
                log::write_frame(part.number, record, &mut frames);
            }
            good.log = log_start + frames.len() as u64;
            let log_end =
                u32::try_from(good.log).map_err(|_| self.malformed(LOG_NAME, "longer than 4 GiB"))?;
            for rendition in Rendition::ALL {
                let index = rendition.index();
                let bytes = &part.payload(rendition).bytes;
                if rendition.is_cmaf() {
                    let parsed = mp4::parse_part(bytes)
                        .map_err(|error| self.malformed(&data_name(rendition), &error.to_string()))?;
                    good.ogg[index] += ogg_page_len(parsed.frames);
                }
                let entry = IndexEntry::of(part, rendition, good.data[index], log_end, good.ogg[index]);
                entries[index].extend(entry.write());
                let file = &mut self.data[index];
                file.write_all_at(bytes, good.data[index])
                    .map_err(|error| self.error(data_name(rendition), error))?;
                good.data[index] = entry.end();
                written += u64::from(entry.length);
            }
            good.last = Some(part.number);
            good.index += RECORD_LEN as u64;
        }
        // Readers believe the index; so it is written when what it describes is there.
        if !frames.is_empty() {
            let result = self.log.write_all_at(&frames, log_start);
            result.map_err(|error| self.error(LOG_NAME.to_owned(), error))?;
        }
        for rendition in Rendition::ALL {
            let index = rendition.index();
            let result = self.index[index].write_all_at(&entries[index], self.good.index);
            result.map_err(|error| self.error(index_name(rendition), error))?;
        }
        if sync {
            self.sync(!frames.is_empty())?;
        }
        self.good = good;
        self.torn = false;
        Ok(written)
    }

    /// To a volume that is mended: appends the last records, to the log and behind the parts of the Opus files, and synchronises everything.
    pub(crate) fn finish(&mut self, end: PartNumber, records: &[ChainRecord]) -> Result<(), ArchiveError> {
        if !self.finished {
            self.torn = true;
            let mut frames = Vec::new();
            records.iter().for_each(|record| log::write_frame(end, record, &mut frames));
            let result = self.log.write_all_at(&frames, self.good.log);
            result.map_err(|error| self.error(LOG_NAME.to_owned(), error))?;
            self.sync(true)?;
            self.good.log += frames.len() as u64;
            self.finished = true;
        }
        self.write_trailers(records)
    }

    pub(crate) fn write_marks(&self, files: &dyn Files, marks: &Marks) -> Result<(), ArchiveError> {
        let path = self.directory.join(marks::NAME);
        files.replace(&path, &marks.write()).map_err(|error| ArchiveError::io(&path, error))
    }

    /// Behind the last part of an Opus file come the records that no part carries: so the file alone can be verified.
    fn write_trailers(&mut self, records: &[ChainRecord]) -> Result<(), ArchiveError> {
        self.torn = true;
        for rendition in Rendition::ALL.into_iter().filter(|rendition| rendition.is_cmaf()) {
            let index = rendition.index();
            let trailer = trailer(rendition, records);
            let (file, end) = (&mut self.data[index], self.good.data[index]);
            let result = file
                .write_all_at(&trailer, end)
                .and_then(|()| file.set_len(end + trailer.len() as u64))
                .and_then(|()| file.sync_data());
            result.map_err(|error| self.error(data_name(rendition), error))?;
        }
        self.torn = false;
        Ok(())
    }

    fn sync(&mut self, log: bool) -> Result<(), ArchiveError> {
        for rendition in Rendition::ALL {
            let result = self.data[rendition.index()].sync_data();
            result.map_err(|error| self.error(data_name(rendition), error))?;
            let result = self.index[rendition.index()].sync_data();
            result.map_err(|error| self.error(index_name(rendition), error))?;
        }
        if log {
            let result = self.log.sync_data();
            result.map_err(|error| self.error(LOG_NAME.to_owned(), error))?;
        }
        Ok(())
    }

    /// After a failed write: cuts every file to what is good. What follows is written from memory again, since pages
    /// whose synchronisation failed once may be reported as clean the next time.
    pub(crate) fn mend(&mut self) -> Result<(), ArchiveError> {
        if !self.torn {
            return Ok(());
        }
        for rendition in Rendition::ALL {
            // The index first: no entry may stand for bytes that are gone.
            let result = self.index[rendition.index()].set_len(self.good.index);
            result.map_err(|error| self.error(index_name(rendition), error))?;
        }
        for rendition in Rendition::ALL {
            let result = self.data[rendition.index()].set_len(self.good.data[rendition.index()]);
            result.map_err(|error| self.error(data_name(rendition), error))?;
        }
        let result = self.log.set_len(self.good.log);
        result.map_err(|error| self.error(LOG_NAME.to_owned(), error))?;
        self.torn = false;
        Ok(())
    }

    fn recover(&mut self, files: &dyn Files) -> Result<Found, ArchiveError> {
        let log = self.read_from_start(&*self.log, LOG_NAME)?;
        let mut frames = log::read_frames(&log, 0);
        let log_end = frames.last().map_or(0, |frame| frame.end);

        let mut entries: [Vec<IndexEntry>; 3] = Default::default();
        let mut indexed = 0;
        for rendition in Rendition::ALL {
            let bytes = self.read_from_start(&*self.index[rendition.index()], &index_name(rendition))?;
            indexed = indexed.max(bytes.len() / RECORD_LEN);
            if bytes.get(..RECORD_LEN) == Some(&index::header(rendition)[..]) {
                let start = header_len(rendition);
                index::read_entries(&bytes[RECORD_LEN..], start, &mut entries[rendition.index()]);
            }
        }
        let count = self.whole_parts(&entries, log_end)?;
        entries.iter_mut().for_each(|entries| entries.truncate(count));
        let last = entries[0].last().copied();

        // Behind the last part's there are records only if the event was closed.
        let parts_log_end = last.map_or(0, |entry| u64::from(entry.log_end));
        let behind = frames.iter().filter(|frame| frame.end > parts_log_end);
        let end = last.map_or(PartNumber::ZERO, |entry| entry.number.next());
        self.finished = behind.clone().any(|frame| {
            frame.number == end
                && matches!(chain::parse(&frame.record), Ok(Record::Closing(c)) if c.end == end)
        });
        let closing: Vec<_> = behind.map(|frame| frame.record.clone()).collect();
        if !self.finished {
            frames.retain(|frame| frame.end <= parts_log_end);
        }

        self.good = Lengths {
            data: Rendition::ALL.map(|rendition| {
                entries[rendition.index()].last().map_or(header_len(rendition), IndexEntry::end)
            }),
            index: (RECORD_LEN * (count + 1)) as u64,
            log: frames.last().map_or(0, |frame| frame.end),
            ogg: [0, 1, 2].map(|index| entries[index].last().map_or(0, |entry| entry.ogg_end)),
            last: last.map(|entry| entry.number),
        };
        let cut = indexed.saturating_sub(1 + count) as u64;
        if cut > RING_PARTS as u64 || self.overhang()? > CUT_BYTES_MAX {
            self.keep_copy(files)?;
        }
        self.write_headers()?;
        self.torn = true;
        self.mend()?;
        if self.finished {
            self.write_trailers(&closing)?;
        } else {
            self.sync(true)?;
        }

        let from = count.saturating_sub(RING_PARTS);
        let tail =
            (from..count).map(|at| self.read_part(&entries, at, &frames)).collect::<Result<Vec<_>, _>>()?;
        let chain_tail = tail.iter().map(TailPart::of).collect();
        let marks_path = self.directory.join(marks::NAME);
        let marks = match files.read(&marks_path, marks::LENGTH_MAX) {
            Ok(Some(text)) => Marks::read(&text).ok(),
            Ok(None) => None,
            Err(error) => return Err(ArchiveError::io(&marks_path, error)),
        };
        let records = frames.into_iter().map(|frame| frame.record).collect();
        Ok(Found { cut, tail, records, chain_tail, marks })
    }

    /// How many parts are whole in all renditions: indexed alike, within their files, their records in the log, and
    /// the last [`RING_PARTS`] of them with the right checksum.
    fn whole_parts(&self, entries: &[Vec<IndexEntry>; 3], log_end: u64) -> Result<usize, ArchiveError> {
        let [a, b, c] = entries;
        let alike = a.iter().zip(b).zip(c).take_while(|((a, b), c)| {
            let same = |other: &IndexEntry| {
                (a.number, a.epoch, a.kind, a.log_end)
                    == (other.number, other.epoch, other.kind, other.log_end)
            };
            same(b) && same(c)
        });
        let mut count = alike.count();
        let lengths = [
            self.data_len(Rendition::Opus24)?,
            self.data_len(Rendition::Opus48)?,
            self.data_len(Rendition::Mp3_64)?,
        ];
        let within = |at: usize| {
            u64::from(a[at].log_end) <= log_end
                && entries.iter().zip(lengths).all(|(entries, length)| entries[at].end() <= length)
        };
        while count > 0 && !within(count - 1) {
            count -= 1;
        }
        // Each pass either ends or lowers the count to before the first damaged part it saw.
        loop {
            let damaged = |at: &usize| {
                Rendition::ALL
                    .into_iter()
                    .any(|rendition| self.read(rendition, &entries[rendition.index()][*at]).is_err())
            };
            match (count.saturating_sub(RING_PARTS)..count).find(damaged) {
                Some(at) => count = at,
                None => return Ok(count),
            }
        }
    }

    fn read(&self, rendition: Rendition, entry: &IndexEntry) -> Result<Bytes, ArchiveError> {
        let mut bytes = vec![0; entry.length as usize];
        let result = self.data[rendition.index()].read_exact_at(&mut bytes, entry.offset);
        result.map_err(|error| self.error(data_name(rendition), error))?;
        if entry.matches(&bytes) {
            Ok(Bytes::from(bytes))
        } else {
            Err(ArchiveError::Damaged {
                path: self.directory.join(data_name(rendition)),
                number: entry.number,
            })
        }
    }

    fn read_part(
        &self,
        entries: &[Vec<IndexEntry>; 3],
        at: usize,
        frames: &[Frame],
    ) -> Result<Part, ArchiveError> {
        let payload = |rendition: Rendition| {
            let entry = &entries[rendition.index()][at];
            Ok(Payload { bytes: self.read(rendition, entry)?, digest: entry.digest })
        };
        let entry = &entries[0][at];
        let log_end = u64::from(entry.log_end);
        let log_start = at.checked_sub(1).map_or(0, |before| u64::from(entries[0][before].log_end));
        let records = frames.iter().filter(|frame| log_start < frame.end && frame.end <= log_end);
        Ok(Part {
            number: entry.number,
            epoch: entry.epoch,
            kind: entry.kind,
            payloads: [payload(Rendition::Opus24)?, payload(Rendition::Opus48)?, payload(Rendition::Mp3_64)?],
            records: records.map(|frame| frame.record.clone()).collect(),
        })
    }

    fn write_headers(&mut self) -> Result<(), ArchiveError> {
        for rendition in Rendition::ALL {
            let index = rendition.index();
            // What is right is not written again: the disk may be full, and what may by now be in the `free` box of a
            // recording is not ours to overwrite.
            let wanted = index::header(rendition);
            if !begins_with(&*self.index[index], &wanted) {
                let result = self.index[index].write_all_at(&wanted, 0);
                result.map_err(|error| self.error(index_name(rendition), error))?;
            }
            let header = header(rendition);
            let init = if rendition.is_cmaf() { mp4::opus_init() } else { Bytes::new() };
            if self.data_len(rendition)? < header.len() as u64 || !begins_with(&*self.data[index], &init) {
                let result = self.data[index].write_all_at(&header, 0);
                result.map_err(|error| self.error(data_name(rendition), error))?;
            }
        }
        Ok(())
    }

    /// Bytes of media behind what is good, in the rendition that has most of them.
    fn overhang(&self) -> Result<u64, ArchiveError> {
        Rendition::ALL.into_iter().try_fold(0, |most, rendition| {
            let over = self.data_len(rendition)?.saturating_sub(self.good.data[rendition.index()]);
            Ok(most.max(over))
        })
    }

    /// Before more is cut than a crash can have torn, everything is copied as it was found.
    fn keep_copy(&self, files: &dyn Files) -> Result<(), ArchiveError> {
        let names =
            Rendition::ALL.into_iter().flat_map(|rendition| [data_name(rendition), index_name(rendition)]);
        for copy in 1..=COPIES_MAX {
            let directory = self.directory.join(format!("before-cut-{copy}"));
            if files.exists(&directory).map_err(|error| ArchiveError::io(&directory, error))? {
                continue;
            }
            make_directory(files, &directory)?;
            for name in names.chain([LOG_NAME.to_owned()]) {
                let copied = files.copy(&self.directory.join(&name), &directory.join(&name));
                copied.map_err(|error| ArchiveError::io(&directory, error))?;
            }
            break;
        }
        Ok(())
    }

    fn data_len(&self, rendition: Rendition) -> Result<u64, ArchiveError> {
        self.data[rendition.index()].len().map_err(|error| self.error(data_name(rendition), error))
    }

    fn read_from_start(&self, file: &dyn File, name: &str) -> Result<Vec<u8>, ArchiveError> {
        let length = file.len().map_err(|error| self.error(name.to_owned(), error))?;
        if length > INDEX_LEN_MAX {
            return Err(self.malformed(name, "longer than any that we write"));
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, 0).map_err(|error| self.error(name.to_owned(), error))?;
        Ok(bytes)
    }

    fn error(&self, name: String, error: io::Error) -> ArchiveError {
        ArchiveError::io(&self.directory.join(name), error)
    }

    fn malformed(&self, name: &str, what: &str) -> ArchiveError {
        ArchiveError::Malformed { path: self.directory.join(name), what: what.to_owned() }
    }
}

/// Boxes with those of the last records of an event that concern a rendition.
pub(crate) fn trailer(rendition: Rendition, records: &[ChainRecord]) -> Vec<u8> {
    let concerns = |record: &&ChainRecord| match chain::parse(record) {
        Ok(Record::Segment(segment)) => segment.rendition == rendition,
        Ok(Record::Epoch(_) | Record::Closing(_)) => true,
        Ok(Record::Absent(_)) | Err(_) => false,
    };
    records.iter().filter(concerns).flat_map(chain::detached_box).collect()
}

fn begins_with(file: &dyn File, wanted: &[u8]) -> bool {
    let mut bytes = vec![0; wanted.len()];
    file.read_exact_at(&mut bytes, 0).is_ok() && bytes == wanted
}

/// Makes a directory and makes sure that a power cut does not unmake it.
fn make_directory(files: &dyn Files, directory: &Path) -> Result<(), ArchiveError> {
    let known = |path: &Path| files.exists(path).map_err(|error| ArchiveError::io(path, error));
    if known(directory)? {
        return Ok(());
    }
    // The parents that this makes are synchronised from the top down, each in the one above.
    let mut made = vec![directory];
    while let Some(parent) = made.last().and_then(|path| path.parent()) {
        if parent.as_os_str().is_empty() || known(parent)? {
            break;
        }
        made.push(parent);
    }
    files.create_dir_all(directory).map_err(|error| ArchiveError::io(directory, error))?;
    for parent in made.iter().rev().filter_map(|path| path.parent()) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        files.sync_dir(parent).map_err(|error| ArchiveError::io(parent, error))?;
    }
    Ok(())
}
