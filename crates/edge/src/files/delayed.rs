//! The delayed feed: what any HTTP cache can carry. Its addresses have neither tickets nor queries, each names one
//! thing for everybody, and nobody is made to wait: what is not there is said at once, for caches to keep a moment.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use archive::ArchiveError;
use axum::body::Body;
use axum::response::Response;
use backend::clock;
use bytes::Bytes;
use fanout::Window;
use formats::hls::{DELAY_MOST, Variant, delayed_segments};
use http::request::Parts;
use http::{HeaderValue, Method, header};
use model::{Digest, EventSlug, PartNumber, Rendition};

use super::live::{absent, anchored_doors, come, init, media_type};
use super::playlists::Coding;
use super::{PLAYLIST, index, origin_of, ranged, refuse, wrapped};
use crate::address::DelayedItem;
use crate::answer::{self, DELAYED, FOR_EVER, MINUTES, SECONDS, SOON};
use crate::channel::{Channel, Phase};
use crate::recordings::{ReadError, Replay};
use crate::shared::Shared;

/// For how long after the end the playlist has the last segments and the end, before it names the whole recording: every
/// player has reloaded it by then, even one that has it from a cache. All the time it takes to play what is listed.
const LAST_RELOAD: Duration = DELAY_MOST.saturating_add(Duration::from_secs(16));

/// Joined segments of one programme that are kept for who asks next: those listed and one that is not any more, in every
/// rendition; 1.1 MB at most.
const KEPT: usize = 4 * Rendition::ALL.len();

/// Something in memory, with its validator.
#[derive(Clone, Debug)]
pub(crate) struct Tagged {
    pub(crate) bytes: Bytes,
    /// Strong: of equal bytes only, and so the same at all edges.
    etag: Arc<str>,
}

impl Tagged {
    pub(crate) fn of(bytes: Bytes) -> Self {
        let etag = format!("\"{}\"", &Digest::of(&bytes).to_string()[..32]);
        Self { bytes, etag: etag.into() }
    }
}

/// Segments joined lately, newest last.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    kept: VecDeque<(Rendition, u64, Tagged)>,
}

impl Joined {
    /// A segment of the window, joined once for all who ask for it.
    pub(crate) fn get(&mut self, window: &Window, rendition: Rendition, number: u64) -> Option<Tagged> {
        if let Some((.., found)) = self.kept.iter().find(|(r, n, _)| (*r, *n) == (rendition, number)) {
            return Some(found.clone());
        }
        let parts = window.delayed_segment(number)?;
        let firsts: Vec<_> =
            parts.iter().copied().filter(|part| part.number.index_in_segment() == 0).collect();
        let bytes: Vec<Bytes> = parts.iter().map(|part| part.payload(rendition).bytes.clone()).collect();
        let made = Tagged::of(wrapped::join_several(rendition, &firsts, &bytes));
        if self.kept.len() >= KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((rendition, number, made.clone()));
        Some(made)
    }
}

/// Answers a request for something below `/live/{event}/delayed`. What goes wrong with us is kept by caches for a moment
/// too: a crowd that is told to come back must not come through to the edge.
pub(super) async fn answer(
    shared: &Shared,
    head: &Parts,
    event: &EventSlug,
    channel: Option<&Channel>,
    item: DelayedItem<'_>,
) -> Response {
    let answered = match item {
        // Of an event that cannot be heard there is nothing to choose from.
        DelayedItem::Index => match media_playlist(shared, event, channel, Rendition::Opus48).await {
            Ok(_) => {
                let of = |rendition: Rendition| Variant::of(rendition, format!("delayed/{rendition}.m3u8"));
                Ok(sent(head, PLAYLIST, &Tagged::of(index(of).render().into()), SECONDS))
            }
            Err(refusal) => Err(refusal),
        },
        DelayedItem::Init { name } => {
            init(name).map(|init| sent(head, "audio/mp4", &Tagged::of(init), FOR_EVER))
        }
        DelayedItem::Playlist(rendition) => media_playlist(shared, event, channel, rendition)
            .await
            .map(|(text, control)| sent(head, PLAYLIST, &text, control)),
        DelayedItem::Segment { rendition, number } => {
            segment(shared, head, event, channel, rendition, number)
                .await
                .map(|found| sent(head, media_type(rendition), &found, FOR_EVER))
        }
    };
    answered.unwrap_or_else(for_a_moment)
}

/// A refusal of ours, kept for a moment.
pub(super) fn for_a_moment(mut refusal: Response) -> Response {
    if refusal.status().is_server_error() {
        refusal.headers_mut().insert(header::CACHE_CONTROL, SOON);
    }
    refusal
}

/// While the programme runs, three segments; for some time after it the last ones and the end, and then the whole
/// recording, in segments of the same length under the numbers that they had.
async fn media_playlist(
    shared: &Shared,
    event: &EventSlug,
    channel: Option<&Channel>,
    rendition: Rendition,
) -> Result<(Tagged, HeaderValue), Response> {
    let facts = channel.map(Channel::facts).unwrap_or_default();
    let live = channel.and_then(Channel::live);
    let mut held = None;
    if let Some(live) = &live
        && live.window().newest().is_some()
        && let Some(doors) = anchored_doors(shared, event, &facts).await
    {
        let made = &shared.counters.playlists_rendered;
        held = live.playlists.delayed(&live.window(), rendition, doors, made);
        if let Some((text, ended)) = &held
            && (!ended || live.ended_within(LAST_RELOAD))
        {
            return Ok((text.clone(), DELAYED));
        }
    }
    let now = clock::unix_now();
    let phase = facts.phase(now);
    if live.as_ref().is_some_and(|live| !live.window().has_ended()) {
        return Err(refuse(answer::not_yet(phase, now)));
    }
    let recorded = shared.recordings.replay(event, rendition, Replay::Delayed, Coding::Plain).await;
    let recorded = recorded.map(|(text, finished)| (Tagged::of(text), finished));
    match (recorded, held) {
        (Ok((text, true)), _) => Ok((text, MINUTES)),
        // Origin has not finished the recording: what the window says of the end comes first.
        (Ok(_) | Err(ReadError::Archive(ArchiveError::NotFound(_))), Some((held, _))) => Ok((held, DELAYED)),
        (Ok((text, false)), None) => Ok((text, DELAYED)),
        (Err(error @ ReadError::Archive(ArchiveError::NotFound(_))), None) => Err(match phase {
            Phase::Over => refuse(error),
            Phase::Before { .. } | Phase::Running => refuse(answer::not_yet(phase, now)),
        }),
        (Err(error), _) => Err(refuse(error)),
    }
}

async fn segment(
    shared: &Shared,
    head: &Parts,
    event: &EventSlug,
    channel: Option<&Channel>,
    rendition: Rendition,
    number: u64,
) -> Result<Tagged, Response> {
    let last = PartNumber::new(delayed_segments(number).end.first_part().get().saturating_sub(1));
    // Another edge's playlist may name it some milliseconds before it is whole here.
    come(shared, channel, last, origin_of(head)).await?;
    let held = channel.and_then(Channel::live).and_then(|live| {
        let window = live.window();
        live.playlists.joined(&window, rendition, number)
    });
    if let Some(found) = held {
        return Ok(found);
    }
    match shared.recordings.delayed_segment(event, rendition, number).await {
        Ok(bytes) => Ok(Tagged::of(bytes)),
        Err(error) => Err(absent(shared, event, channel, last, error).await),
    }
}

/// An answer with something in memory: whole, in part, or that it has not changed.
fn sent(head: &Parts, kind: &'static str, what: &Tagged, control: HeaderValue) -> Response {
    let length = what.bytes.len() as u64;
    let (mut response, range) = ranged(head, length, &what.etag, control);
    let Some(range) = range else { return response };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    if head.method != Method::HEAD {
        // Both ends lie within the bytes.
        *response.body_mut() = Body::from(what.bytes.slice(range.start as usize..range.end as usize));
    }
    response
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use model::{Epoch, Part, PartKind, Payload};

    use super::*;

    fn part(number: u64) -> Part {
        let [low, middle, mp3] =
            [1u8, 2, 3].map(|rendition| Payload::new(Bytes::from(vec![rendition, number as u8])));
        let (number, epoch, kind) = (PartNumber::new(number), Epoch(1), PartKind::Live);
        Part { number, epoch, kind, payloads: [low, middle, mp3], records: Vec::new() }
    }

    #[test]
    fn a_segment_is_joined_once_and_only_so_many_are_kept() {
        let (mut window, mut joined) = (Window::new(), Joined::default());
        (0..224).for_each(|n| _ = window.push(part(n)));
        let first = joined.get(&window, Rendition::Opus48, 0).unwrap();
        let expected: Vec<u8> = (0..32).flat_map(|n| [2, n]).collect();
        assert_eq!(first.bytes, expected);
        assert_eq!(first.etag.len(), 34);
        assert!(joined.get(&window, Rendition::Opus48, 7).is_none(), "it is not whole");
        // The same bytes, not the same again.
        let again = joined.get(&window, Rendition::Opus48, 0).unwrap();
        assert_eq!(again.bytes.as_ptr(), first.bytes.as_ptr());
        for number in 0..7 {
            for rendition in Rendition::ALL {
                assert!(joined.get(&window, rendition, number).is_some());
            }
        }
        assert_eq!(joined.kept.len(), KEPT);
        let fresh = joined.get(&window, Rendition::Opus48, 0).unwrap();
        assert_ne!(fresh.bytes.as_ptr(), first.bytes.as_ptr());
        assert_eq!((fresh.bytes, fresh.etag), (first.bytes, first.etag), "equal bytes have one validator");
    }

    #[test]
    fn answers_have_ranges_and_validators() {
        let what = Tagged::of(Bytes::from_static(b"0123456789"));
        let ask = |method: Method, name: header::HeaderName, value: &str| {
            let request = http::Request::builder().method(method).header(name, value);
            let (head, ()) = request.body(()).unwrap().into_parts();
            sent(&head, "audio/mp4", &what, FOR_EVER)
        };
        let length =
            |response: &Response| response.headers()[header::CONTENT_LENGTH].to_str().unwrap().to_owned();
        for method in [Method::GET, Method::HEAD] {
            let whole = ask(method.clone(), header::ACCEPT, "*/*");
            assert_eq!((whole.status(), length(&whole).as_str()), (StatusCode::OK, "10"));
            assert_eq!(whole.headers()[header::ETAG], *what.etag);
            assert_eq!(whole.headers()[header::CACHE_CONTROL], FOR_EVER);
            assert!(!whole.headers().contains_key(header::VARY));
            let same = ask(method, header::IF_NONE_MATCH, &what.etag);
            assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
            assert_eq!(same.headers()[header::CACHE_CONTROL], FOR_EVER);
            assert_eq!(same.headers()[header::ETAG], *what.etag);
        }
        let some = ask(Method::GET, header::RANGE, "bytes=2-4");
        assert_eq!((some.status(), length(&some).as_str()), (StatusCode::PARTIAL_CONTENT, "3"));
        assert_eq!(some.headers()[header::CONTENT_RANGE], "bytes 2-4/10");
        let none = ask(Method::GET, header::RANGE, "bytes=10-");
        assert_eq!(none.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(none.headers()[header::CONTENT_RANGE], "bytes */10");
        // Only a GET has ranges.
        let whole = ask(Method::HEAD, header::RANGE, "bytes=2-4");
        assert_eq!((whole.status(), length(&whole).as_str()), (StatusCode::OK, "10"));
    }

    #[test]
    fn what_goes_wrong_with_us_is_kept_for_a_moment() {
        use backend::problem::Problem;
        let control =
            |problem: Problem| for_a_moment(refuse(problem)).headers()[header::CACHE_CONTROL].clone();
        assert_eq!(control(Problem::unavailable("not yet", 2)), SOON);
        assert_eq!(control(Problem::internal()), SOON);
        assert_eq!(control(Problem::not_found()), "no-store");
        assert_eq!(
            for_a_moment(refuse(Problem::unavailable("not yet", 7))).headers()[header::RETRY_AFTER],
            "7"
        );
    }
}
