//! The recorder thread: everything that waits for the disk while a show runs.
//!
//! Jobs come through a bounded queue in the order of the programme, so an event's anchor is on the disk before its
//! first part, and a state of the show before the parts that follow it. The media thread never waits: a job that
//! finds the queue full is dropped and counted, and the recorder's alarm rings. A disk that hangs or fills up costs
//! the recording, never the programme.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use archive::{ArchiveError, Marks, RING_PARTS, Recorder};
use model::{Anchor, EventSlug, Part, PartNumber};
use packager::ClosingRecords;

use crate::counters;
use crate::files::{EventFiles, EventLog, Line};

/// Pause before a recording that could not be opened or finished is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// What is to be done for one event.
pub(crate) enum Task {
    /// Write where media time 0 lies.
    Anchor(Anchor),
    /// Append to the event's log.
    Log(Vec<Line>),
    /// Parts will come. With the recorder that recovery opened, if it did.
    Open(Option<Box<Recorder>>),
    /// Append a part.
    Part(Part),
    /// Write where the show began and ended.
    Marks(Marks),
    /// End the recording.
    Finish(ClosingRecords, Marks),
}

/// A task for one event; nothing is the order to stop.
type Job = Option<(EventSlug, Arc<RecordingState>, Task)>;

/// What the recorder says of one event; read by anyone at any time.
#[derive(Debug, Default)]
pub(crate) struct RecordingState {
    /// The number after the last part that is on the disk.
    end: AtomicU64,
    /// Whether the anchor is on the disk.
    anchored: AtomicBool,
    /// Whether writing fails or lags behind.
    failing: AtomicBool,
    finished: AtomicBool,
}

impl RecordingState {
    /// The last part that is on the disk.
    pub(crate) fn recorded_through(&self) -> Option<PartNumber> {
        self.end.load(Ordering::Acquire).checked_sub(1).map(PartNumber::new)
    }

    pub(crate) fn set_recorded_through(&self, through: Option<PartNumber>) {
        self.end.store(through.map_or(0, |part| part.get() + 1), Ordering::Release);
    }

    pub(crate) fn is_anchored(&self) -> bool {
        self.anchored.load(Ordering::Acquire)
    }

    pub(crate) fn set_anchored(&self) {
        self.anchored.store(true, Ordering::Release);
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    pub(crate) fn set_finished(&self) {
        self.finished.store(true, Ordering::Release);
    }

    fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::Release);
    }
}

/// The way to the recorder thread.
#[derive(Clone)]
pub(crate) struct RecorderQueue {
    jobs: SyncSender<Job>,
    waiting: Arc<AtomicUsize>,
    room: usize,
}

impl RecorderQueue {
    /// Queues a task. Never waits; says whether it was taken.
    pub(crate) fn push(&self, slug: &EventSlug, state: &Arc<RecordingState>, task: Task) -> bool {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        match self.jobs.try_send(Some((slug.clone(), state.clone(), task))) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                state.set_failing(true);
                counters::RECORDER_DROPPED.increment();
                false
            }
        }
    }

    /// How many more tasks the queue takes.
    pub(crate) fn free(&self) -> usize {
        self.room.saturating_sub(self.waiting.load(Ordering::Relaxed))
    }
}

/// The running thread.
pub(crate) struct RecorderThread {
    queue: RecorderQueue,
    thread: JoinHandle<()>,
}

impl RecorderThread {
    /// Starts the thread. `directories` are those for recordings, the preferred one first.
    pub(crate) fn start(directories: Vec<PathBuf>, files: EventFiles, room: usize) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(room);
        let waiting = Arc::new(AtomicUsize::new(0));
        let queue = RecorderQueue { jobs: sender, waiting: waiting.clone(), room };
        let desk = Desk { directories, files, events: BTreeMap::new() };
        let thread = std::thread::Builder::new()
            .name("recorder".into())
            .spawn(move || desk.run(&receiver, &waiting))?;
        Ok(Self { queue, thread })
    }

    pub(crate) fn queue(&self) -> RecorderQueue {
        self.queue.clone()
    }

    /// Lets the thread do what it has been told, and waits for that, but not longer than `patience`. Says whether
    /// everything is on the disk.
    pub(crate) fn stop(self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        // A full queue is being worked off, or the disk hangs.
        while matches!(self.queue.jobs.try_send(None), Err(TrySendError::Full(_))) {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        while !self.thread.is_finished() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.thread.join().is_ok()
    }
}

/// The thread's own.
struct Desk {
    directories: Vec<PathBuf>,
    files: EventFiles,
    events: BTreeMap<EventSlug, Entry>,
}

/// One event on the desk.
struct Entry {
    state: Arc<RecordingState>,
    log: Option<EventLog>,
    recorder: Option<Box<Recorder>>,
    /// Parts that came while there was no recorder; the newest [`RING_PARTS`].
    waiting: VecDeque<Part>,
    marks: Option<Marks>,
    closing: Option<ClosingRecords>,
    wanted: bool,
    retry_at: Instant,
    lost: u64,
}

impl Desk {
    fn run(mut self, jobs: &Receiver<Job>, waiting: &AtomicUsize) {
        loop {
            match jobs.recv_timeout(RETRY / 4) {
                Ok(Some((slug, state, task))) => {
                    waiting.fetch_sub(1, Ordering::Relaxed);
                    self.perform(&slug, state, task);
                }
                Ok(None) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.retry();
        }
    }

    fn perform(&mut self, slug: &EventSlug, state: Arc<RecordingState>, task: Task) {
        let entry = self.events.entry(slug.clone()).or_insert_with(|| Entry {
            state,
            log: None,
            recorder: None,
            waiting: VecDeque::new(),
            marks: None,
            closing: None,
            wanted: false,
            retry_at: Instant::now(),
            lost: 0,
        });
        match task {
            Task::Anchor(anchor) => {
                let written = self.files.write_anchor(slug, anchor);
                entry.report(slug, "the anchor", written.err());
                // Whether or not it could be written: the show goes on.
                entry.state.set_anchored();
            }
            Task::Log(lines) => {
                let written = entry.append_log(&self.files, slug, &lines);
                entry.report(slug, "the event's log", written.err());
            }
            Task::Open(recorder) => {
                entry.wanted = true;
                entry.recorder = recorder;
                entry.open(slug, &self.directories);
            }
            Task::Part(part) => entry.append(slug, part),
            Task::Marks(marks) => {
                entry.marks = Some(marks);
                if let Some(recorder) = &mut entry.recorder {
                    let written = recorder.set_marks(&marks);
                    entry.report(slug, "the marks", written.err());
                }
            }
            Task::Finish(closing, marks) => {
                entry.marks = Some(marks);
                entry.closing = Some(closing);
                entry.finish(&self.files, slug);
            }
        }
    }

    fn retry(&mut self) {
        let now = Instant::now();
        for (slug, entry) in &mut self.events {
            if now < entry.retry_at || entry.state.is_finished() {
                continue;
            }
            if entry.wanted && entry.recorder.is_none() {
                entry.open(slug, &self.directories);
            }
            if entry.closing.is_some() {
                entry.finish(&self.files, slug);
            }
        }
    }
}

impl Entry {
    fn open(&mut self, slug: &EventSlug, directories: &[PathBuf]) {
        self.retry_at = Instant::now() + RETRY;
        if self.recorder.is_none() {
            match Recorder::open(directories, slug) {
                Ok((recorder, _)) => self.recorder = Some(Box::new(recorder)),
                Err(error) => return self.report(slug, "the recording", Some(error)),
            }
        }
        let recorder = self.recorder.as_mut().expect("it was just opened");
        self.state.set_recorded_through(recorder.recorded_through());
        if let Some(marks) = self.marks {
            let written = recorder.set_marks(&marks);
            self.report(slug, "the marks", written.err());
        }
        for part in std::mem::take(&mut self.waiting) {
            self.append(slug, part);
        }
    }

    fn append(&mut self, slug: &EventSlug, part: Part) {
        let Some(recorder) = &mut self.recorder else {
            if self.waiting.len() == RING_PARTS {
                self.waiting.pop_front();
                self.lost += 1;
                counters::RECORDER_LOST.increment();
            }
            self.waiting.push_back(part);
            self.state.set_failing(true);
            return;
        };
        let appended = recorder.append(&part);
        self.state.set_recorded_through(recorder.recorded_through());
        let lost = recorder.statistics().lost;
        counters::RECORDER_LOST.add(lost.saturating_sub(self.lost));
        self.lost = self.lost.max(lost);
        counters::RECORDED_PARTS.increment();
        match appended {
            Ok(()) => self.state.set_failing(false),
            Err(error) => self.report(slug, "a part", Some(error)),
        }
    }

    fn finish(&mut self, files: &EventFiles, slug: &EventSlug) {
        self.retry_at = Instant::now() + RETRY;
        let (Some(recorder), Some(closing), Some(marks)) = (&mut self.recorder, &self.closing, &self.marks)
        else {
            return;
        };
        match recorder.finish(closing, marks) {
            Ok(()) | Err(ArchiveError::Finished(_)) => {
                self.state.set_recorded_through(recorder.recorded_through());
                tracing::info!(event = %slug, parts = closing.end.get(), "the recording is finished");
                let line = Line::finished(marks.ended_at.map_or(marks.doors, |ended| ended.unix));
                let logged = self.append_log(files, slug, &[line]);
                self.report(slug, "the event's log", logged.err());
                self.recorder = None;
                self.closing = None;
                self.wanted = false;
                self.state.set_failing(false);
                self.state.set_finished();
            }
            Err(error) => self.report(slug, "the end of the recording", Some(error)),
        }
    }

    fn append_log(&mut self, files: &EventFiles, slug: &EventSlug, lines: &[Line]) -> io::Result<()> {
        let log = match &mut self.log {
            Some(log) => log,
            none => none.insert(files.log(slug)?),
        };
        // A log whose file failed is opened anew next time.
        log.append(lines).inspect_err(|_| self.log = None)
    }

    fn report(&mut self, slug: &EventSlug, what: &str, error: Option<impl std::fmt::Display>) {
        let Some(error) = error else { return };
        counters::RECORDER_ERRORS.increment();
        if !self.state.is_failing() {
            tracing::error!(event = %slug, %error, "{what} could not be written");
        }
        self.state.set_failing(true);
    }
}
