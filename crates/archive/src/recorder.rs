//! The recorder.

use std::collections::VecDeque;
use std::path::PathBuf;

use model::{Epoch, EventSlug, Part, PartNumber};
use packager::{ClosingRecords, Resume};

use crate::volume::{Found, Volume, event_directory};
use crate::{ArchiveError, DiskFiles, Files, Marks};

/// Parts kept in memory for writing them again elsewhere: 61.44 s.
pub const RING_PARTS: usize = 128;

/// When written parts are made to survive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sync {
    /// `fdatasync` of every file at every part.
    #[default]
    EveryPart,
    /// Never before [`Recorder::finish`]: for virtual time and tests. A kill of the process loses nothing even so.
    Never,
}

/// How to record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecorderConfig {
    /// Data directories, the preferred one first. One at least.
    pub directories: Vec<PathBuf>,
    /// When to synchronise.
    pub sync: Sync,
}

/// What was found on the disk.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// The last part that is whole in every rendition.
    pub last: Option<PartNumber>,
    /// The highest epoch recorded; the next incarnation takes a higher one.
    pub epoch: Option<Epoch>,
    /// Where the packager goes on, if nothing is adopted from edges.
    pub resume: Resume,
    /// The last parts, up to [`RING_PARTS`] of them, ascending, with their records: for the publisher's window.
    pub tail: Vec<Part>,
    /// Marks, if there are any.
    pub marks: Option<Marks>,
    /// Whether the event was closed. Then nothing can be appended.
    pub finished: bool,
    /// Parts that were begun or damaged and have been cut off.
    pub cut: u64,
    /// Directories that could not be opened. If there are any, more may have been recorded than was found; then no
    /// number below the clock's may be used, not even for a gap.
    pub unread: usize,
}

/// Counters since the recorder was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Parts on the disk, those found when it was opened not counted.
    pub parts: u64,
    /// Bytes of media written, parts written again included.
    pub bytes: u64,
    /// Errors of the disk.
    pub errors: u64,
    /// Moves to another directory.
    pub moves: u64,
    /// Parts that fell out of the ring before any directory took them: missing in the recording.
    pub lost: u64,
}

/// Writes parts to disk as they are made. Blocking; one thread of its own.
#[derive(Debug)]
pub struct Recorder {
    event: EventSlug,
    files: Box<dyn Files>,
    sync: Sync,
    /// One for each data directory, in their order.
    slots: Vec<Slot>,
    /// The slot that is written to.
    current: usize,
    /// The last parts, written or not.
    ring: VecDeque<Part>,
    through: Option<PartNumber>,
    marks: Option<Marks>,
    /// Whether the marks are not on the disk yet.
    marks_wait: bool,
    /// Whether the event was closed when the recorder was opened.
    was_finished: bool,
    /// Whether it was closed, or closing it was tried: nothing is appended any more.
    finished: bool,
    statistics: Statistics,
}

#[derive(Debug)]
struct Slot {
    directory: PathBuf,
    /// Open unless nothing was ever recorded here, or it could not even be mended.
    volume: Option<Volume>,
}

impl Recorder {
    /// Opens the recording of an event, or begins one, on the real file system, synchronising every part.
    ///
    /// # Errors
    /// As [`Self::open_with`].
    pub fn open(directories: &[PathBuf], event: &EventSlug) -> Result<(Self, Recovered), ArchiveError> {
        let config = RecorderConfig { directories: directories.to_vec(), sync: Sync::EveryPart };
        Self::open_with(config, event, Box::new(DiskFiles))
    }

    /// Opens the recording of an event, or begins one. Torn tails are cut to the last part that is whole in all
    /// renditions.
    ///
    /// # Errors
    /// [`ArchiveError::ReadOnly`] or [`ArchiveError::Full`] if no directory can be written to,
    /// [`ArchiveError::Locked`] if another recorder has the event.
    pub fn open_with(
        config: RecorderConfig,
        event: &EventSlug,
        files: Box<dyn Files>,
    ) -> Result<(Self, Recovered), ArchiveError> {
        let mut slots = Vec::new();
        let mut found: Option<(usize, Found)> = None;
        let mut marks: Option<Marks> = None;
        let mut cut = 0;
        let mut failed = None;
        let mut unread = 0;
        for data in &config.directories {
            let directory = event_directory(data, event);
            let slot = slots.len();
            // The first that works begins the recording; in others there is something only after a move.
            let there = files.exists(&directory);
            let wanted = found.is_none() || there.as_ref().is_ok_and(|there| *there);
            unread += usize::from(!wanted && there.is_err());
            let opened = if wanted { Some(Volume::open(&*files, directory.clone())) } else { None };
            let volume = match opened {
                None => None,
                Some(Ok((volume, here))) => {
                    cut += here.cut;
                    if here.marks.is_some_and(|here| marks.is_none_or(|marks| here.say_more_than(&marks))) {
                        marks = here.marks;
                    }
                    let last = |slot: &Slot| slot.volume.as_ref().and_then(Volume::last);
                    if found.as_ref().is_none_or(|(best, _)| volume.last() > last(&slots[*best])) {
                        found = Some((slot, here));
                    }
                    Some(volume)
                }
                Some(Err(error @ ArchiveError::Locked { .. })) => return Err(error),
                Some(Err(error)) => {
                    unread += 1;
                    failed = failed.or(Some(error));
                    None
                }
            };
            slots.push(Slot { directory, volume });
        }
        let Some((current, found)) = found else { return Err(failed.unwrap_or(ArchiveError::NoDirectory)) };
        let volume = slots[current].volume.as_ref().expect("what was found was opened");
        let finished = volume.is_finished();
        let last = volume.last();
        let recovered = Recovered {
            last,
            epoch: found.tail.iter().map(|part| part.epoch).max(),
            resume: Resume::from_recording(&found.records, found.chain_tail),
            tail: found.tail.clone(),
            marks,
            finished,
            cut,
            unread,
        };
        let recorder = Self {
            event: event.clone(),
            files,
            sync: config.sync,
            slots,
            current,
            ring: found.tail.into(),
            through: last,
            marks,
            marks_wait: false,
            was_finished: finished,
            finished,
            statistics: Statistics { errors: unread as u64, ..Statistics::default() },
        };
        Ok((recorder, recovered))
    }

    /// Appends a part, and those before it that could not be written yet. When this returns without an error, they
    /// are on the disk.
    ///
    /// After an error the part waits in memory and is written with the next one; parts that wait for more than
    /// [`RING_PARTS`] are lost and counted. Every directory has been tried by then.
    ///
    /// # Errors
    /// [`ArchiveError::Order`] and [`ArchiveError::Finished`] for a part that cannot be taken; otherwise why the
    /// last directory tried could not be written to.
    pub fn append(&mut self, part: &Part) -> Result<(), ArchiveError> {
        self.append_all(std::slice::from_ref(part))
    }

    /// Appends several parts that are there at once (refilled from edges, or gaps), synchronising once for many.
    ///
    /// # Errors
    /// As [`Self::append`]; then all of them wait, as far as the ring holds them.
    pub fn append_all(&mut self, parts: &[Part]) -> Result<(), ArchiveError> {
        if self.finished {
            return Err(ArchiveError::Finished(self.event.clone()));
        }
        let mut result = Ok(());
        // Half a ring at a time leaves room for those that wait already.
        for chunk in parts.chunks(RING_PARTS / 2) {
            for part in chunk {
                self.take(part)?;
            }
            result = self.on_some_volume(|_, _| Ok(()));
        }
        result?;
        if let Some(marks) = self.marks.filter(|_| self.marks_wait) {
            self.set_marks(&marks)?;
        }
        Ok(())
    }

    fn take(&mut self, part: &Part) -> Result<(), ArchiveError> {
        if let Some(last) = self.ring.back().map(|last| last.number).filter(|last| part.number <= *last) {
            return Err(ArchiveError::Order { last, given: part.number });
        }
        if self.ring.len() == RING_PARTS {
            let oldest = self.ring.pop_front().expect("the ring is full");
            self.statistics.lost += u64::from(Some(oldest.number) > self.through);
        }
        self.ring.push_back(part.clone());
        Ok(())
    }

    /// The last part that is on the disk.
    pub fn recorded_through(&self) -> Option<PartNumber> {
        self.through
    }

    /// Writes the marks, at doors, when the show goes live and when it ends. Atomic. After an error they are written
    /// with the next part.
    ///
    /// # Errors
    /// What writing failed with.
    pub fn set_marks(&mut self, marks: &Marks) -> Result<(), ArchiveError> {
        self.marks = Some(*marks);
        self.marks_wait = true;
        self.on_some_volume(|volume, files| volume.write_marks(files, marks))?;
        self.marks_wait = false;
        Ok(())
    }

    /// Ends the recording: last chain records, marks. No copy, no encoding: well under a second, whatever the length.
    ///
    /// # Errors
    /// [`ArchiveError::Finished`] if it was finished when it was opened; otherwise what writing failed with, and then
    /// it may be called again with the same.
    pub fn finish(&mut self, closing: &ClosingRecords, marks: &Marks) -> Result<(), ArchiveError> {
        if self.was_finished {
            return Err(ArchiveError::Finished(self.event.clone()));
        }
        self.finished = true;
        self.marks = Some(*marks);
        self.marks_wait = true;
        self.on_some_volume(|volume, files| {
            volume.finish(closing.end, &closing.records)?;
            volume.write_marks(files, marks)
        })?;
        self.marks_wait = false;
        Ok(())
    }

    /// Whose recording.
    pub fn event(&self) -> &EventSlug {
        &self.event
    }

    /// Counters.
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// Brings a volume up to date and does something with it: the current one, or else the next that works.
    fn on_some_volume(
        &mut self,
        action: impl Fn(&mut Volume, &dyn Files) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let mut failed = None;
        for step in 0..self.slots.len() {
            let slot = (self.current + step) % self.slots.len();
            match self.on_volume(slot, &action) {
                Ok(()) => {
                    self.statistics.moves += u64::from(step > 0);
                    self.current = slot;
                    return Ok(());
                }
                Err(error) => {
                    self.statistics.errors += 1;
                    failed = Some(error);
                }
            }
        }
        Err(failed.unwrap_or(ArchiveError::NoDirectory))
    }

    fn on_volume(
        &mut self,
        slot: usize,
        action: impl Fn(&mut Volume, &dyn Files) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let Slot { directory, volume } = &mut self.slots[slot];
        // A volume that cannot even be mended is opened anew: its file system may have gone and come back.
        let opened = match volume.take().map(|mut volume| volume.mend().map(|()| volume)) {
            Some(mended) => mended?,
            None => Volume::open(&*self.files, directory.clone())?.0,
        };
        let opened = volume.insert(opened);
        let last = opened.last();
        let waiting = self.ring.len() - self.ring.partition_point(|part| Some(part.number) <= last);
        let parts = self.ring.range(self.ring.len() - waiting..);
        let result = match waiting {
            0 => Ok(0),
            _ => opened.append(parts, self.sync == Sync::EveryPart),
        };
        let result = result.and_then(|bytes| {
            self.statistics.bytes += bytes;
            let new = self.ring.iter().filter(|part| Some(part.number) > self.through).count();
            self.statistics.parts += new as u64;
            self.through = self.ring.back().map(|part| part.number).max(self.through);
            action(opened, &*self.files)
        });
        if result.is_err() {
            // Now if possible, otherwise before the next write.
            let _ = opened.mend();
        }
        result
    }
}
