//! Reports of events: while an event runs its public status, afterwards what happened.
//!
//! A report is made from the ledger alone, which is read as it grows and never from its beginning twice. However many
//! ask, one report at a time is made, of each event at most every few seconds, and making them takes at most a fifth of
//! one core; who asks meanwhile gets the one there is.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use admission::report::{KeyFrom, Reader, Report};
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use backend::problem::Problem;
use ed25519_dalek::VerifyingKey;
use http::{HeaderName, HeaderValue, StatusCode, header, request};
use model::{Bilingual, EventSlug, ShowState};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep_until, timeout};
use web::{
    Language, PAGE_HEADERS, ReportForm, ReportPage, ReportPhase, negotiate_language, no_report_page,
    report_page,
};

use crate::api::At;
use crate::pages;
use crate::state::{Control, Known};
use crate::verdicts::Verdicts;

/// Events whose reports are kept.
const SLOTS_MAX: usize = 32;
/// How long a report is good for: bins come every ten seconds.
const FRESH: Duration = Duration::from_secs(5);
/// How long one is that is final.
const FRESH_FINAL: Duration = Duration::from_secs(60);
/// What a report takes to make, so many times is rested before the next is made.
const REST: u32 = 4;
/// Requests that wait for a report of which there is none yet, and how long.
const WAITING_MAX: usize = 32;
const WAIT: Duration = Duration::from_secs(10);
/// Lines read for one report: three weeks of bins. What is beyond is read for the next.
const LINES_MAX: usize = 200_000;

/// Makes and keeps reports.
pub(crate) struct Incidents {
    place: PathBuf,
    slots: Mutex<BTreeMap<EventSlug, Slot>>,
    working: Arc<Semaphore>,
    waiting: Semaphore,
    /// When the next report may be made.
    rested: Arc<Mutex<Instant>>,
}

struct Slot {
    asked: Instant,
    kept: Arc<Kept>,
}

/// What is kept of one event.
#[derive(Default)]
struct Kept {
    made: Mutex<Option<Arc<Made>>>,
    follower: Mutex<Option<Follower>>,
}

/// What was made.
pub(crate) struct Made {
    at: Instant,
    phase: ReportPhase,
    title: Bilingual,
    pub(crate) answer: Answer,
}

/// What there is to answer.
#[derive(Clone)]
pub(crate) enum Answer {
    /// The report, ready to be sent.
    Report { json: Bytes, ar: Bytes, en: Bytes },
    /// Nothing was written yet.
    Nothing,
    /// Not even the first line holds.
    Broken,
}

/// What is asked about.
struct Subject {
    slug: EventSlug,
    title: Bilingual,
    key: [u8; 32],
    /// It has not ended: a ledger begins before the doors open.
    runs: bool,
}

struct Follower {
    reader: Reader,
    key: [u8; 32],
}

/// The report with what the ledger does not know.
#[derive(Serialize)]
struct View<'a> {
    title: TitleView<'a>,
    /// `running`, `closing` or `final`.
    phase: &'static str,
    #[serde(flatten)]
    report: &'a Report,
}

#[derive(Serialize)]
struct TitleView<'a> {
    ar: &'a str,
    en: &'a str,
}

impl Incidents {
    /// Of the ledgers in this directory.
    pub(crate) fn new(place: PathBuf) -> Self {
        Self {
            place,
            slots: Mutex::default(),
            working: Arc::new(Semaphore::new(1)),
            waiting: Semaphore::new(WAITING_MAX),
            rested: Arc::new(Mutex::new(Instant::now())),
        }
    }

    /// The report of an event as it is now, or was a few seconds ago.
    ///
    /// # Errors
    /// [`Problem`] if there is none yet and too many wait for one.
    pub(crate) async fn ask(&self, control: &Control, known: &Known) -> Result<Arc<Made>, Problem> {
        let event = &known.event;
        let state = control.standing(event).state;
        let subject = Subject {
            slug: event.slug.clone(),
            title: event.title.clone(),
            key: event.signing_key,
            runs: state != ShowState::Ended,
        };
        let kept = self.kept(&subject.slug);
        let latest = kept.latest();
        if let Some(made) = &latest
            && made.is_fresh()
        {
            return Ok(made.clone());
        }
        let permit = match latest {
            Some(made) => match self.at_once() {
                Some(permit) => permit,
                None => return Ok(made),
            },
            None => self.in_turn().await?,
        };
        if let Some(made) = kept.latest()
            && made.is_fresh()
        {
            // Somebody had it made in the meantime.
            return Ok(made);
        }
        let (place, rested) = (self.place.clone(), self.rested.clone());
        let making = tokio::task::spawn_blocking(move || {
            // Held until it is made, even if who asked is gone.
            let _permit = permit;
            let begun = Instant::now();
            let made = kept.make(&place, &subject);
            let rest = begun.elapsed().saturating_mul(REST);
            *lock(&rested) = Instant::now() + rest;
            made
        });
        making.await.map_err(|error| {
            tracing::error!(%error, "a report could not be made");
            Problem::internal()
        })
    }

    /// What is kept of an event; the one that was asked for longest ago makes room.
    fn kept(&self, slug: &EventSlug) -> Arc<Kept> {
        let mut slots = lock(&self.slots);
        if slots.len() >= SLOTS_MAX
            && !slots.contains_key(slug)
            && let Some(oldest) =
                slots.iter().min_by_key(|(_, slot)| slot.asked).map(|(slug, _)| slug.clone())
        {
            slots.remove(&oldest);
        }
        let now = Instant::now();
        let slot = slots.entry(slug.clone()).or_insert_with(|| Slot { asked: now, kept: Arc::default() });
        slot.asked = now;
        slot.kept.clone()
    }

    /// Leave to make a report, if nobody makes one and there was rest enough.
    fn at_once(&self) -> Option<OwnedSemaphorePermit> {
        let permit = self.working.clone().try_acquire_owned().ok()?;
        (*lock(&self.rested) <= Instant::now()).then_some(permit)
    }

    /// Likewise, after those who came before.
    async fn in_turn(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let later = || Problem::unavailable("the report is being made", 5);
        let _waiting = self.waiting.try_acquire().map_err(|_| later())?;
        let turn = async {
            let permit = self.working.clone().acquire_owned().await.ok()?;
            let rested = *lock(&self.rested);
            sleep_until(rested.into()).await;
            Some(permit)
        };
        timeout(WAIT, turn).await.ok().flatten().ok_or_else(later)
    }
}

impl Kept {
    fn latest(&self) -> Option<Arc<Made>> {
        lock(&self.made).clone()
    }

    fn make(&self, place: &Path, subject: &Subject) -> Arc<Made> {
        let mut follower = lock(&self.follower);
        if follower.as_ref().is_some_and(|follower| follower.key != subject.key) {
            *follower = None;
        }
        let before = self.latest();
        let new = || VerifyingKey::from_bytes(&subject.key).ok().map(|key| Follower::new(&key));
        if follower.is_none() {
            *follower = new();
        }
        let mut answer = Answer::Broken;
        let mut phase = ReportPhase::Closing;
        if let Some(follower) = follower.as_mut() {
            let has_news = follower.read(&Verdicts::path(place, &subject.slug), &subject.slug);
            phase = match (follower.reader.is_closed(), subject.runs) {
                (true, _) => ReportPhase::Final,
                (false, true) => ReportPhase::Running,
                (false, false) => ReportPhase::Closing,
            };
            answer = match &before {
                Some(made) if !has_news && made.phase == phase && made.title == subject.title => {
                    made.answer.clone()
                }
                _ => follower.answer(subject, phase),
            };
        }
        let made = Arc::new(Made { at: Instant::now(), phase, title: subject.title.clone(), answer });
        *lock(&self.made) = Some(made.clone());
        made
    }
}

impl Made {
    fn is_fresh(&self) -> bool {
        let fresh = if self.phase == ReportPhase::Final { FRESH_FINAL } else { FRESH };
        self.at.elapsed() < fresh
    }

    /// What caches may do with it.
    fn freshness(&self) -> HeaderValue {
        let final_one = self.phase == ReportPhase::Final;
        HeaderValue::from_static(if final_one { "public, max-age=60" } else { "public, max-age=5" })
    }

    /// The report as JSON.
    pub(crate) fn json(&self) -> Result<Response, Problem> {
        let detail = match &self.answer {
            Answer::Report { json, .. } => {
                let headers = [
                    (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
                    (header::CACHE_CONTROL, self.freshness()),
                ];
                return Ok((headers, json.clone()).into_response());
            }
            Answer::Nothing => "the figures begin shortly before the doors open",
            Answer::Broken => "its ledger does not hold from the first line on",
        };
        let title = "Nothing can be said about this event";
        Err(Problem::new(StatusCode::NOT_FOUND, "no-report", title).detail(detail))
    }

    fn page(&self, slug: &EventSlug, language: Language) -> Response {
        let none = |is_broken| {
            let page = no_report_page(titled(&self.title, language), slug.as_str(), is_broken, language);
            (StatusCode::NOT_FOUND, page).into_response()
        };
        let mut response = match (&self.answer, language) {
            (Answer::Report { ar, .. }, Language::Ar) => ar.clone().into_response(),
            (Answer::Report { en, .. }, Language::En) => en.clone().into_response(),
            (Answer::Nothing, _) => none(false),
            (Answer::Broken, _) => none(true),
        };
        let headers = response.headers_mut();
        for (name, value) in PAGE_HEADERS {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers.insert(header::CONTENT_LANGUAGE, HeaderValue::from_static(Language::tag(language)));
        headers.insert(header::CACHE_CONTROL, self.freshness());
        response
    }
}

impl Follower {
    fn new(key: &VerifyingKey) -> Self {
        Self { reader: Reader::new(*key, KeyFrom::Publisher), key: key.to_bytes() }
    }

    /// Reads what is new; whether there was anything.
    fn read(&mut self, path: &Path, slug: &EventSlug) -> bool {
        if self.reader.fault().is_some() || self.reader.is_closed() {
            return false;
        }
        let before = self.reader.offset();
        if let Err(error) = self.read_on(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(event = %slug, %error, "a ledger cannot be read on");
        }
        if let Some(fault) = self.reader.fault() {
            tracing::error!(event = %slug, %fault, "a ledger does not hold");
        }
        self.reader.offset() != before || self.reader.fault().is_some()
    }

    fn read_on(&mut self, path: &Path) -> io::Result<()> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(self.reader.offset()))?;
        let mut lines = BufReader::new(file);
        let mut line = Vec::new();
        for _ in 0..LINES_MAX {
            line.clear();
            let most = Reader::LINE_MAX as u64 + 1;
            let length = lines.by_ref().take(most).read_until(b'\n', &mut line)?;
            let taken = match line.pop() {
                Some(b'\n') => self.reader.line(&line),
                _ if length as u64 == most => self.reader.too_long(),
                // The end, or a line that is being written.
                _ => return Ok(()),
            };
            if taken.is_err() {
                // The reader keeps the fault, and says so in the report.
                return Ok(());
            }
        }
        Ok(())
    }

    fn answer(&self, subject: &Subject, phase: ReportPhase) -> Answer {
        let Some(report) = self.reader.report() else {
            return if self.reader.fault().is_some() { Answer::Broken } else { Answer::Nothing };
        };
        let title = TitleView { ar: &subject.title.ar, en: &subject.title.en };
        let named = match phase {
            ReportPhase::Running => "running",
            ReportPhase::Closing => "closing",
            ReportPhase::Final => "final",
        };
        let json = serde_json::to_vec(&View { title, phase: named, report: &report });
        let page = |language| {
            let title = titled(&subject.title, language);
            let page = ReportPage { title, report: &report, phase };
            Bytes::from(report_page(&page, ReportForm::Served, language))
        };
        Answer::Report {
            json: Bytes::from(json.expect("our types have names for keys and write to memory")),
            ar: page(Language::Ar),
            en: page(Language::En),
        }
    }
}

/// `GET /e/{event}/report`.
pub(crate) async fn page(
    State(control): State<Arc<Control>>,
    event: Result<At, Problem>,
    request: Request,
) -> Response {
    let head: request::Parts = request.into_parts().0;
    let known = match event {
        Ok(At(known)) => known,
        Err(problem) => return pages::missing(&head, problem),
    };
    let accept = head.headers.get(header::ACCEPT_LANGUAGE).and_then(|accept| accept.to_str().ok());
    let language = negotiate_language(head.uri.query(), accept);
    match control.incidents.ask(&control, &known).await {
        Ok(made) => made.page(&known.event.slug, language),
        Err(problem) => problem.into_response(),
    }
}

/// The title for a reader of `language`, or else in the other language, and which it is.
fn titled(title: &Bilingual, language: Language) -> (&str, &'static str) {
    let (own, other, foreign) = match language {
        Language::Ar => (&title.ar, &title.en, Language::En),
        Language::En => (&title.en, &title.ar, Language::Ar),
    };
    if own.is_empty() { (other, foreign.tag()) } else { (own, language.tag()) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use admission::ledger::{
        BIN_MS, BinStart, Closing, Entry, Head, Mark, Merger, Opening, ProcessBin, append,
    };
    use ed25519_dalek::SigningKey;
    use std::io::Write as _;

    struct Pen {
        key: SigningKey,
        head: Head,
        merger: Merger,
        file: File,
    }

    impl Pen {
        fn new(place: &Path, slug: &EventSlug) -> Self {
            let key = SigningKey::from_bytes(&[4; 32]);
            let file = File::create(Verdicts::path(place, slug)).unwrap();
            let mut pen = Self { key, head: Head::EMPTY, merger: Merger::new(), file };
            let opening = Opening::new(slug, &pen.key.verifying_key(), 0, 20_000, None);
            pen.write(&Entry::Open(Box::new(opening)));
            pen
        }

        fn write(&mut self, entry: &Entry) {
            let (line, head) = append(&self.head, entry, &self.key).unwrap();
            self.head = head;
            writeln!(self.file, "{line}").unwrap();
        }

        fn bin(&mut self, number: u64, listeners: u64) {
            let start = BinStart::try_from(number * BIN_MS).unwrap();
            let mut bin = ProcessBin::new(start, 0, 0);
            bin.counts.audio.listeners = listeners;
            if number == 2 {
                bin.mark(Mark::Live, 0);
            }
            let bin = self.merger.merge(start, 1, &[bin]);
            self.write(&Entry::Bin(Box::new(bin)));
        }
    }

    fn subject(slug: &EventSlug, runs: bool) -> Subject {
        let title = Bilingual { ar: String::new(), en: "A <b>talk</b>".into() };
        let key = SigningKey::from_bytes(&[4; 32]).verifying_key().to_bytes();
        Subject { slug: slug.clone(), title, key, runs }
    }

    fn texts(made: &Made) -> [String; 3] {
        let Answer::Report { json, ar, en } = &made.answer else { panic!("there is no report") };
        [json, ar, en].map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[test]
    fn a_report_grows_with_its_ledger_and_is_made_anew_only_then() {
        let directory = tempfile::tempdir().unwrap();
        let (place, slug): (_, EventSlug) = (directory.path(), "talk".parse().unwrap());
        let kept = Kept::default();
        assert!(matches!(kept.make(place, &subject(&slug, false)).answer, Answer::Nothing));

        let mut pen = Pen::new(place, &slug);
        pen.bin(1, 100);
        let made = kept.make(place, &subject(&slug, true));
        let [json, ar, en] = texts(&made);
        assert!(json.contains("\"phase\":\"running\"") && json.contains("\"value\":100,"), "{json}");
        assert!(en.contains("Live status") && en.contains("A &lt;b&gt;talk&lt;/b&gt;"));
        assert!(ar.contains("dir=\"rtl\"") && ar.contains("<bdi lang=\"en\">A &lt;b&gt;"));
        let again = kept.make(place, &subject(&slug, true));
        let (Answer::Report { en: first, .. }, Answer::Report { en: second, .. }) =
            (&made.answer, &again.answer)
        else {
            panic!("there are reports")
        };
        assert_eq!(first.as_ptr(), second.as_ptr(), "nothing new: the same bytes");

        // A line that is being written is waited for.
        pen.file.write_all(b"{\"v\":1").unwrap();
        assert!(texts(&kept.make(place, &subject(&slug, true)))[0].contains("\"holds\":true"));
        let length = pen.file.metadata().unwrap().len();
        pen.file.set_len(length - 6).unwrap();
        pen.file.seek(SeekFrom::End(0)).unwrap();
        pen.bin(2, 150);
        pen.write(&Entry::Close(Closing { closed_ms: 30_000 }));
        let made = kept.make(place, &subject(&slug, false));
        let [json, _, en] = texts(&made);
        assert!(json.contains("\"phase\":\"final\"") && json.contains("\"late_ms\":0"), "{json}");
        assert!(en.contains("Incident report") && !en.contains("http-equiv=\"refresh\""));
        assert_eq!(made.freshness(), "public, max-age=60");
    }

    #[test]
    fn a_ledger_that_does_not_hold_is_told_with_what_does() {
        let directory = tempfile::tempdir().unwrap();
        let (place, slug): (_, EventSlug) = (directory.path(), "talk".parse().unwrap());
        let mut pen = Pen::new(place, &slug);
        pen.bin(1, 100);
        pen.file.write_all(b"{\"v\":1}\n").unwrap();
        let kept = Kept::default();
        let [json, _, en] = texts(&kept.make(place, &subject(&slug, true)));
        assert!(json.contains("\"holds\":false") && json.contains("\"line\":3"), "{json}");
        assert!(en.contains("does not hold"));
        // Longer than a line can be, without an end.
        let mut pen = Pen::new(place, &slug);
        pen.file.write_all(&vec![b'a'; Reader::LINE_MAX + 1]).unwrap();
        let [json, ..] = texts(&Kept::default().make(place, &subject(&slug, true)));
        assert!(json.contains("\"holds\":false") && json.contains("\"line\":2"), "{json}");
        // Not even the first.
        std::fs::write(Verdicts::path(place, &slug), b"nothing\n").unwrap();
        let made = Kept::default().make(place, &subject(&slug, true));
        assert!(matches!(made.answer, Answer::Broken) && made.json().is_err());
        assert_eq!(made.page(&slug, Language::En).status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn so_many_events_are_kept_and_the_one_asked_for_longest_ago_goes() {
        let incidents = Incidents::new(PathBuf::new());
        let slug = |n: usize| format!("talk-{n}").parse::<EventSlug>().unwrap();
        let first = incidents.kept(&slug(0));
        for n in 1..SLOTS_MAX {
            incidents.kept(&slug(n));
        }
        assert!(Arc::ptr_eq(&first, &incidents.kept(&slug(0))), "and is now the latest");
        incidents.kept(&slug(SLOTS_MAX));
        let slots = lock(&incidents.slots);
        assert_eq!(slots.len(), SLOTS_MAX);
        assert!(slots.contains_key(&slug(0)) && !slots.contains_key(&slug(1)));
    }
}
