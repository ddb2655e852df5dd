//! Downloads: files that exist only as a list of pieces of the recording.
//!
//! ```text
//! recording.opus-48.mp4    init · free · [skip: digests of parts cut away] · [sidx] · parts … · [skip: last records]
//! recording.ogg            two header pages · one page a part …
//! recording.mp3            Info frame · frames …
//! ```
//!
//! Players know the duration of each and seek in it: of Ogg by its pages, of MP3 by the `Info` frame (192 bytes that
//! are not played: sample n of the file stays sample n of the span), of MP4 by the `sidx`. Only a finished recording
//! has a `sidx`, an entry a segment: it would be longer with every segment, and until the end every part keeps its
//! place in the file for those who come back for more of it.
//!
//! Their exact length is known from the index alone; a byte range is read from where it lies. Pages of Ogg are made
//! from the part when they are read: a header around the same packets. Parts in an MP4 are the bytes that were aired,
//! and everything that is needed to verify them is with them.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use formats::{mp3, mp4, ogg};
use model::{
    Digest, MP3_FRAMES_PER_PART, MediaTime, OPUS_FRAME_SAMPLES, OPUS_FRAMES_PER_PART, PART_SAMPLES,
    PartNumber, Rendition,
};
use packager::chain::{self, AbsentParts};

use crate::reader::Run;
use crate::{ArchiveError, IndexEntry, Location, Recording, clip, volume};

/// Most bytes that one call of [`Download::read`] returns.
pub const READ_MAX: usize = 1 << 20;

/// Which parts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Span {
    /// From `live_at` to `ended_at`; during the event to what is recorded so far. Before it is live, nothing.
    #[default]
    Show,
    /// From doors (with the slate) to the end.
    Everything,
    /// These, as far as they are there.
    Parts(Range<PartNumber>),
}

impl Span {
    /// The parts of a recording it means. Empty if there are none.
    pub(crate) fn of(&self, recording: &Recording) -> Range<PartNumber> {
        let recorded = recording.parts();
        match self {
            Self::Show => recording.marks().map_or(recorded.end..recorded.end, |marks| marks.show(&recorded)),
            Self::Everything => recorded,
            Self::Parts(parts) => {
                let start = parts.start.max(recorded.start);
                start..parts.end.min(recorded.end).max(start)
            }
        }
    }
}

/// A file that is never written: exact length, strong validator, any byte range. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Download {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Where each piece begins, and the piece.
    pieces: Vec<(u64, Piece)>,
    length: u64,
    etag: String,
    content_type: &'static str,
    parts: Range<PartNumber>,
}

#[derive(Debug)]
enum Piece {
    Bytes(Bytes),
    File(Location),
    Pages(Pages),
}

/// Parts that are read as Ogg pages.
#[derive(Debug)]
struct Pages {
    media: Location,
    entries: Arc<Vec<IndexEntry>>,
    /// Places in `entries`.
    at: Range<usize>,
    serial: u32,
    /// Sequence number of the first page.
    sequence: u32,
    /// Where granule positions begin.
    zero: MediaTime,
    /// Whether the last page ends the stream.
    eos: bool,
}

/// A stretch of time, from the moment the show went live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clip {
    /// Its beginning, rounded down to 20 ms.
    pub from: Duration,
    /// Its end, rounded up to 20 ms.
    pub to: Duration,
}

impl Download {
    /// `recording.{rendition}.mp4`: `init` and parts, with the records needed to verify it offline; of a finished
    /// recording also a `sidx` for its duration and for seeking. For the Opus renditions.
    ///
    /// # Errors
    /// [`ArchiveError::NoPart`] if the span is empty or the rendition is MP3.
    pub fn mp4(recording: &Recording, rendition: Rendition, span: &Span) -> Result<Self, ArchiveError> {
        let parts = cmaf_parts(recording, rendition, span)?;
        Mp4::new(recording, rendition, parts).build(volume::header(rendition), None, None)
    }

    /// `recording.ogg`: Ogg pages, one a part, of an Opus rendition. `title` goes into its tags.
    ///
    /// # Errors
    /// As [`Self::mp4`].
    pub fn ogg(
        recording: &Recording,
        rendition: Rendition,
        span: &Span,
        title: &str,
    ) -> Result<Self, ArchiveError> {
        let parts = cmaf_parts(recording, rendition, span)?;
        let serial = Digest::of(format!("{} {rendition}", recording.event()).as_bytes());
        let serial = u32::from_be_bytes([serial.0[0], serial.0[1], serial.0[2], serial.0[3]]);
        let tags = [("TITLE", title)];
        let tags = if title.is_empty() { &[][..] } else { &tags[..] };
        let mut build = Build::new(recording, rendition, "ogg", parts.clone());
        build.bytes(ogg::opus_headers(serial, "Minassa", tags));
        let runs = recording.runs_of(&parts);
        let mut sequence = ogg::HEADER_PAGES;
        for (index, run) in runs.iter().enumerate() {
            let volume = recording.volume(run);
            let entries = volume.entries(rendition);
            let at = run.at..run.at + (run.end - run.first) as usize;
            let count = at.len() as u32;
            let eos = recording.is_finished() && index + 1 == runs.len();
            let pages = Pages {
                media: volume.location(rendition, 0, 0),
                entries: Arc::clone(entries),
                at,
                serial,
                sequence,
                zero: parts.start.start(),
                eos,
            };
            build.hash(&[u8::from(eos)]);
            build.hash_entries(&entries[pages.at.clone()]);
            let length = pages.length();
            build.piece(Piece::Pages(pages), length);
            sequence = sequence.wrapping_add(count);
        }
        Ok(build.finish("audio/ogg; codecs=opus"))
    }

    /// `recording.mp3`: the frames as they were aired, after one that says how many they are
    /// ([`mp3::info_frame`]).
    ///
    /// # Errors
    /// [`ArchiveError::NoPart`] if the span is empty.
    pub fn mp3(recording: &Recording, span: &Span) -> Result<Self, ArchiveError> {
        let parts = span.of(recording);
        let runs = recording.runs_of(&parts);
        if runs.is_empty() {
            return Err(ArchiveError::NoPart(parts.start));
        }
        let mut build = Build::new(recording, Rendition::Mp3_64, "mp3", parts);
        let entries = || runs.iter().flat_map(|run| build.entries(run));
        let frames = entries().count() * MP3_FRAMES_PER_PART;
        let bytes = entries().map(|entry| u64::from(entry.length)).sum::<u64>();
        // 149 hours fit; beyond them players have to estimate.
        if let (Ok(frames), Ok(bytes)) = (frames.try_into(), bytes.try_into()) {
            build.bytes(mp3::info_frame(frames, bytes));
        }
        runs.iter().for_each(|run| build.run(run));
        Ok(build.finish("audio/mpeg"))
    }

    /// A clip as MP4, cut at Opus frames: whole parts as they are, the first and last written anew if the cut goes
    /// through them. Reads the disk for those.
    ///
    /// # Errors
    /// [`ArchiveError::NoPart`] if nothing of it is there, otherwise as [`Recording::read_part`].
    pub fn clip(recording: &Recording, rendition: Rendition, clip: Clip) -> Result<Self, ArchiveError> {
        const FRAME: u64 = OPUS_FRAME_SAMPLES as u64;
        let show = cmaf_parts(recording, rendition, &Span::Show)?;
        let live = recording.marks().and_then(|marks| marks.live_at);
        let live = live.map_or(show.start.start(), |moment| moment.media);
        let samples = |time: Duration| MediaTime::from_duration(time).samples();
        let from = live.plus(samples(clip.from)).samples().max(show.start.start().samples()) / FRAME * FRAME;
        let to =
            live.plus(samples(clip.to)).samples().min(show.end.start().samples()).div_ceil(FRAME) * FRAME;
        let nothing = || ArchiveError::NoPart(PartNumber::new(from / PART_SAMPLES));
        if from >= to {
            return Err(nothing());
        }
        let whole = PartNumber::new(from.div_ceil(PART_SAMPLES))..PartNumber::new(to / PART_SAMPLES);
        let cut = |from: u64, to: u64| -> Result<Option<Fragment>, ArchiveError> {
            let number = PartNumber::new(from / PART_SAMPLES);
            if from >= to || recording.entry(rendition, number).is_none() {
                return Ok(None);
            }
            let bytes = recording.read_part(rendition, number)?;
            let damaged = |_| ArchiveError::NoPart(number);
            let frames = mp4::parse_part(&bytes).map_err(damaged)?.frames;
            let place = |sample: u64| ((sample - number.start().samples()) / FRAME) as usize;
            let (first, last) = (place(from), place(to).min(OPUS_FRAMES_PER_PART));
            let sequence = number.get().wrapping_add(1) as u32;
            let start = MediaTime::from_samples(from);
            let bytes = clip::write_fragment(sequence, start, &frames[first..last]);
            Ok(Some(Fragment { bytes, start, samples: (to - from) as u32 }))
        };
        let (lead, trail) = if whole.start > whole.end {
            // It lies within one part.
            (cut(from, to)?, None)
        } else {
            (cut(from, whole.start.start().samples())?, cut(whole.end.start().samples(), to)?)
        };
        let whole = whole.start..whole.end.max(whole.start);
        Mp4::new(recording, rendition, whole).build(mp4::opus_init(), lead, trail)
    }

    /// Its exact length in bytes.
    pub fn length(&self) -> u64 {
        self.inner.length
    }

    /// A strong validator, in quotes, as `ETag` wants it: equal only for equal bytes.
    pub fn etag(&self) -> &str {
        &self.inner.etag
    }

    /// Its media type.
    pub fn content_type(&self) -> &'static str {
        self.inner.content_type
    }

    /// The whole parts it holds, from the first to after the last.
    pub fn parts(&self) -> Range<PartNumber> {
        self.inner.parts.clone()
    }

    /// Reads at most `limit` bytes (and [`READ_MAX`]) from `offset`; fewer at the end of a piece, none at the end.
    /// Reads the disk.
    ///
    /// # Errors
    /// What reading failed with.
    pub fn read(&self, offset: u64, limit: usize) -> io::Result<Bytes> {
        if offset >= self.inner.length || limit == 0 {
            return Ok(Bytes::new());
        }
        let limit = limit.min(READ_MAX);
        let at = self.inner.pieces.partition_point(|(start, _)| *start <= offset) - 1;
        let (start, piece) = &self.inner.pieces[at];
        let within = offset - start;
        match piece {
            Piece::Bytes(bytes) => {
                let from = within as usize;
                Ok(bytes.slice(from..bytes.len().min(from + limit)))
            }
            Piece::File(location) => {
                let length = (location.length - within).min(limit as u64);
                Location { offset: location.offset + within, length, ..location.clone() }.read()
            }
            Piece::Pages(pages) => pages.read(within, limit),
        }
    }
}

fn cmaf_parts(
    recording: &Recording,
    rendition: Rendition,
    span: &Span,
) -> Result<Range<PartNumber>, ArchiveError> {
    let parts = span.of(recording);
    if !rendition.is_cmaf() || recording.runs_of(&parts).is_empty() {
        return Err(ArchiveError::NoPart(parts.start));
    }
    Ok(parts)
}

impl Pages {
    fn start_of(&self, at: usize) -> u64 {
        at.checked_sub(1).map_or(0, |before| self.entries[before].ogg_end)
    }

    fn length(&self) -> u64 {
        self.start_of(self.at.end) - self.start_of(self.at.start)
    }

    fn read(&self, within: u64, limit: usize) -> io::Result<Bytes> {
        let offset = self.start_of(self.at.start) + within;
        let first = self.entries.partition_point(|entry| entry.ogg_end <= offset);
        let mut skip = (offset - self.start_of(first)) as usize;
        let mut out = BytesMut::with_capacity(limit + 4_096);
        for at in first..self.at.end {
            let page = self.page(at)?;
            out.extend_from_slice(&page[skip..]);
            skip = 0;
            if out.len() >= limit {
                out.truncate(limit);
                break;
            }
        }
        Ok(out.freeze())
    }

    fn page(&self, at: usize) -> io::Result<Bytes> {
        let entry = &self.entries[at];
        let damaged =
            || io::Error::new(io::ErrorKind::InvalidData, format!("part {} is damaged", entry.number));
        let bytes =
            Location { offset: entry.offset, length: entry.length.into(), ..self.media.clone() }.read()?;
        let part = mp4::parse_part(&bytes).map_err(|_| damaged())?;
        let page = ogg::page_for_part(
            self.serial,
            self.sequence.wrapping_add((at - self.at.start) as u32),
            entry.number.next().start().since(self.zero),
            &part.frames,
            self.eos && at + 1 == self.at.end,
        );
        // Another length would shift everything behind it.
        if page.len() as u64 == entry.ogg_end - self.start_of(at) { Ok(page) } else { Err(damaged()) }
    }
}

/// Pieces being put together, and the digest that becomes the validator.
struct Build<'a> {
    recording: &'a Recording,
    rendition: Rendition,
    parts: Range<PartNumber>,
    pieces: Vec<(u64, Piece)>,
    length: u64,
    /// What tells this download from every other.
    identity: Vec<u8>,
}

impl<'a> Build<'a> {
    fn new(recording: &'a Recording, rendition: Rendition, kind: &str, parts: Range<PartNumber>) -> Self {
        let identity = format!("1 {kind} {} {rendition} {}-{}", recording.event(), parts.start, parts.end);
        Self { recording, rendition, parts, pieces: Vec::new(), length: 0, identity: identity.into_bytes() }
    }

    fn hash(&mut self, bytes: &[u8]) {
        self.identity.extend_from_slice(bytes);
    }

    /// Every part's digest counts. Two hours of them are 480 KB to hash, once a download.
    fn hash_entries(&mut self, entries: &[IndexEntry]) {
        entries.iter().for_each(|entry| self.identity.extend_from_slice(&entry.digest.0));
    }

    fn piece(&mut self, piece: Piece, length: u64) {
        if length > 0 {
            self.pieces.push((self.length, piece));
            self.length += length;
        }
    }

    fn bytes(&mut self, bytes: Bytes) {
        self.hash(&(bytes.len() as u64).to_be_bytes());
        self.hash(&bytes);
        let length = bytes.len() as u64;
        self.piece(Piece::Bytes(bytes), length);
    }

    /// The parts of a run.
    fn entries(&self, run: &Run) -> &'a [IndexEntry] {
        let entries = self.recording.volume(run).entries(self.rendition);
        &entries[run.at..run.at + (run.end - run.first) as usize]
    }

    /// The parts of a run, as they lie in the file.
    fn run(&mut self, run: &Run) {
        let volume = self.recording.volume(run);
        let entries = self.entries(run);
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
        let length = last.end() - first.offset;
        self.hash_entries(entries);
        self.piece(Piece::File(volume.location(self.rendition, first.offset, length)), length);
    }

    fn finish(self, content_type: &'static str) -> Download {
        let Self { parts, pieces, length, identity, .. } = self;
        let etag = format!("\"{}\"", &Digest::of(&identity).to_string()[..32]);
        Download { inner: Arc::new(Inner { pieces, length, etag, content_type, parts }) }
    }
}

/// Some frames of a part, written anew.
struct Fragment {
    bytes: Bytes,
    start: MediaTime,
    samples: u32,
}

/// An MP4 being laid out.
struct Mp4<'a> {
    recording: &'a Recording,
    rendition: Rendition,
    /// The whole parts.
    parts: Range<PartNumber>,
    build: Build<'a>,
}

impl<'a> Mp4<'a> {
    fn new(recording: &'a Recording, rendition: Rendition, parts: Range<PartNumber>) -> Self {
        let build = Build::new(recording, rendition, "mp4", parts.clone());
        Self { recording, rendition, parts, build }
    }

    /// `lead` and `trail` come before and after the whole parts.
    fn build(
        mut self,
        header: Bytes,
        lead: Option<Fragment>,
        trail: Option<Fragment>,
    ) -> Result<Download, ArchiveError> {
        let runs = self.recording.runs_of(&self.parts);
        if runs.is_empty() && lead.is_none() && trail.is_none() {
            return Err(ArchiveError::NoPart(self.parts.start));
        }
        self.build.bytes(header);
        if !runs.is_empty() {
            self.build.bytes(self.absent(self.parts.start.segment().first_part()..self.parts.start));
        }
        if self.recording.is_finished() {
            let sidx = self.sidx(&runs, lead.as_ref(), trail.as_ref());
            self.build.bytes(sidx);
        }
        if let Some(lead) = lead {
            self.build.bytes(lead.bytes);
        }
        runs.iter().for_each(|run| self.build.run(run));
        if let Some(trail) = trail {
            self.build.bytes(trail.bytes);
        }
        if !runs.is_empty() {
            let last_records = self.last_records()?;
            self.build.bytes(last_records);
        }
        Ok(self.build.finish("audio/mp4"))
    }

    /// One entry a segment, as far as it is there; nothing if they are more than one box holds (69 hours).
    fn sidx(&self, runs: &[Run], lead: Option<&Fragment>, trail: Option<&Fragment>) -> Bytes {
        let mut entries: Vec<mp4::IndexEntry> = Vec::new();
        let written_anew = |fragment: &Fragment| mp4::IndexEntry {
            bytes: fragment.bytes.len() as u32,
            samples: fragment.samples,
        };
        entries.extend(lead.map(written_anew));
        let mut open: Option<(PartNumber, usize)> = None;
        for run in runs {
            for entry in self.build.entries(run) {
                match open {
                    Some((first, at)) if first.segment() == entry.number.segment() => {
                        entries[at].bytes += entry.length;
                        entries[at].samples = entry.number.next().start().since(first.start()) as u32;
                    }
                    before => {
                        // A hole is counted to the segment before it, so that those behind keep their times.
                        if let Some((first, at)) = before {
                            entries[at].samples = entry.number.start().since(first.start()) as u32;
                        }
                        open = Some((entry.number, entries.len()));
                        entries.push(mp4::IndexEntry { bytes: entry.length, samples: PART_SAMPLES as u32 });
                    }
                }
            }
        }
        entries.extend(trail.map(written_anew));
        let first = lead.map(|lead| lead.start);
        let first = first.or_else(|| runs.first().map(|run| PartNumber::new(run.first).start()));
        let first = first.or_else(|| trail.map(|trail| trail.start)).unwrap_or_default();
        if entries.len() > usize::from(u16::MAX) {
            return Bytes::new();
        }
        mp4::write_sidx(first, &entries)
    }

    /// A box with the digests of parts that are recorded and not in this file, for verifying the segment they are
    /// of; nothing if there are none.
    fn absent(&self, parts: Range<PartNumber>) -> Bytes {
        let numbers = (parts.start.get()..parts.end.get()).map(PartNumber::new);
        let digests: Vec<_> =
            numbers.map_while(|number| Some(self.recording.entry(self.rendition, number)?.digest)).collect();
        if digests.is_empty() {
            return Bytes::new();
        }
        let absent = AbsentParts { rendition: self.rendition, first: parts.start, digests };
        chain::detached_box(&absent.to_chain_record())
    }

    /// Boxes with what signs the last segment: the digests of its parts that are not in this file, and the records
    /// that come after, up to its own; at the end of the event, the closing record.
    fn last_records(&self) -> Result<Bytes, ArchiveError> {
        let end = self.parts.end;
        let absent = self.absent(end..end.minus(1).segment().next().first_part());
        let records = self.recording.records_that_sign_up_to(end)?;
        Ok(Bytes::from([&absent[..], &volume::trailer(self.rendition, &records)].concat()))
    }
}
