//! What belongs to the running programme: playlists, parts and segments from the window, and from the recording what
//! the window has let go.

use std::time::Duration;

use admission::doorstep::Prefix;
use archive::ArchiveError;
use axum::response::{IntoResponse as _, Response};
use backend::clock;
use backend::problem::Problem;
use bytes::Bytes;
use fanout::Reload;
use formats::hls::{TARGET_DURATION_S, Variant};
use formats::mp4;
use http::StatusCode;
use model::{EventSlug, PARTS_PER_SEGMENT, PartNumber, Rendition, SegmentNumber, UnixTime};

use super::hold::{self, Held};
use super::playlists::Coding;
use super::{PLAYLIST, file, index, playlist, refuse, wrapped};
use crate::address::{LiveItem, PlaylistItem};
use crate::answer::{self, A_SECOND, AWAITED, FOR_EVER, MINUTES, SECONDS, cached};
use crate::channel::{Channel, Facts, Live, Phase};
use crate::recordings::{ReadError, Replay};
use crate::shared::Shared;

/// Longest time a request for a live playlist is held until there is a segment to name: in a running programme the
/// first is there after one target duration, and a second is for the way.
const FIRST_SEGMENT: Duration = Duration::from_secs(TARGET_DURATION_S as u64 + 1);

/// For how long after the end the live playlist has the last segments and the end: three target durations, within which
/// every player has reloaded it.
const LAST_RELOAD: Duration = Duration::from_secs(3 * TARGET_DURATION_S as u64);

/// Answers a request for something below `/live/{event}/`.
pub(super) async fn answer(
    shared: &Shared,
    event: &EventSlug,
    channel: Option<&Channel>,
    item: LiveItem<'_>,
    coding: Coding,
    from: Prefix,
) -> Result<Response, Response> {
    match item {
        LiveItem::Index => {
            let running = match channel {
                Some(channel) => match channel.live() {
                    Some(live) => !live.window().has_ended(),
                    None => channel.facts().phase(clock::unix_now()) != Phase::Over,
                },
                None => false,
            };
            let query = if running { "" } else { "?replay" };
            let of = |rendition: Rendition| Variant::of(rendition, format!("{rendition}.m3u8{query}"));
            Ok(file(PLAYLIST, SECONDS, index(of).render()))
        }
        LiveItem::Init { name } => Ok(file("audio/mp4", FOR_EVER, init(name)?)),
        LiveItem::Playlist(item) => media_playlist(shared, event, channel, item, coding, from).await,
        LiveItem::Part { rendition, number, tagged } => {
            come(shared, channel, number, from).await?;
            if let Some(bytes) = held_part(channel, rendition, number, tagged) {
                return Ok(file(media_type(rendition), FOR_EVER, bytes));
            }
            match shared.recordings.part(event, rendition, number, tagged).await {
                Ok(bytes) => Ok(file(media_type(rendition), FOR_EVER, bytes)),
                Err(error) => Err(absent(shared, event, channel, number, error).await),
            }
        }
        LiveItem::Segment { rendition, number } => {
            let last = number.first_part().plus(PARTS_PER_SEGMENT - 1);
            come(shared, channel, last, from).await?;
            if let Some(bytes) = held_segment(channel, rendition, number) {
                return Ok(file(media_type(rendition), FOR_EVER, bytes));
            }
            match shared.recordings.segment(event, rendition, number).await {
                Ok(bytes) => Ok(file(media_type(rendition), FOR_EVER, bytes)),
                Err(error) => Err(absent(shared, event, channel, last, error).await),
            }
        }
    }
}

/// The `init` of all events, if that is its name.
#[expect(clippy::result_large_err, reason = "a refusal is an answer like any other, made once a request")]
pub(super) fn init(name: &str) -> Result<Bytes, Response> {
    let init = mp4::opus_init();
    if mp4::init_name(&init) == name {
        Ok(init)
    } else {
        Err(cached(Problem::not_found().detail("no event has this init"), MINUTES))
    }
}

pub(super) const fn media_type(rendition: Rendition) -> &'static str {
    if rendition.is_cmaf() { "audio/mp4" } else { "audio/mpeg" }
}

// ---- playlists -----------------------------------------------------------------------------------------------------

/// While the programme runs, the newest segments and parts; after the end the whole recording.
///
/// Before the first segment is whole the request is held: players give up at a `503`, and those who come in the first
/// seconds are the most eager. A blocking reload is held until what it names is there.
///
/// After the end, for a few seconds, the newest segments and the end: the number of a playlist's first segment must not
/// decrease (RFC 8216bis section 6.2.2), and who plays it has to see that it has ended before it may name everything.
/// Who comes after the end is sent to the whole (`?replay`) at once.
async fn media_playlist(
    shared: &Shared,
    event: &EventSlug,
    channel: Option<&Channel>,
    item: PlaylistItem,
    coding: Coding,
    from: Prefix,
) -> Result<Response, Response> {
    let PlaylistItem { rendition, whole, reload } = item;
    let live = channel.and_then(Channel::live);
    if let (Some(channel), Some(live)) = (channel, &live)
        && (live.window().newest().is_some() || doors_are_open(&channel.facts()))
    {
        wait_for_playlist(shared, live, reload, from).await?;
    }
    let facts = channel.map(Channel::facts).unwrap_or_default();
    let mut held = None;
    if let Some(live) = &live
        && live.window().newest().is_some()
        && let Some(doors) = anchored_doors(shared, event, &facts).await
    {
        held =
            live.playlists.get(&live.window(), rendition, doors, coding, &shared.counters.playlists_rendered);
        if let (Some((text, ended)), Some(channel)) = (&held, channel)
            && (!ended || (live.ended_within(LAST_RELOAD) && !whole))
        {
            if reload.is_none_or(Reload::ends_segment) {
                channel.count_reload(rendition);
            }
            let control = if reload.is_some() && !ended { AWAITED } else { A_SECOND };
            return Ok(playlist(control, text.clone(), coding));
        }
    }
    let now = clock::unix_now();
    let phase = facts.phase(now);
    if live.as_ref().is_some_and(|live| !live.window().has_ended()) {
        return Err(refuse(answer::not_yet(phase, now)));
    }
    match (shared.recordings.replay(event, rendition, Replay::Everything, coding).await, held) {
        (Ok((text, true)), _) => Ok(playlist(MINUTES, text, coding)),
        // Origin has not finished the recording: what the window says of the end comes first.
        (Ok(_) | Err(ReadError::Archive(ArchiveError::NotFound(_))), Some((held, _))) => {
            Ok(playlist(A_SECOND, held, coding))
        }
        (Ok((text, false)), None) => Ok(playlist(A_SECOND, text, coding)),
        (Err(error @ ReadError::Archive(ArchiveError::NotFound(_))), None) => Err(match phase {
            Phase::Over => refuse(error),
            Phase::Before { .. } | Phase::Running => refuse(answer::not_yet(phase, now)),
        }),
        (Err(error), _) => Err(refuse(error)),
    }
}

/// Waits until the window can answer, has ended, or the time is over. Who only waits for a first segment is told how
/// the event stands if that does not come.
async fn wait_for_playlist(
    shared: &Shared,
    live: &Live,
    reload: Option<Reload>,
    from: Prefix,
) -> Result<(), Response> {
    let limit = if reload.is_some() { hold::LONGEST } else { FIRST_SEGMENT };
    let held = shared.holds.hold(from, live, limit, |window| window.playlist_readiness(reload)).await;
    match (held, reload) {
        (Held::Ready, _) | (_, None) => Ok(()),
        (Held::TooFar, Some(reload)) => {
            let allowed = format!("0 to {}", live.window().reload_limit());
            let problem =
                Problem::new(StatusCode::BAD_REQUEST, "future-part", "This part will not exist for long");
            Err(cached(problem.invalid("_HLS_msn", &reload.segment().to_string(), &allowed), A_SECOND))
        }
        (Held::Late | Held::Full | Held::Closing, Some(_)) => Err(held.refusal()),
    }
}

/// Whether the first part is about to be there: origin says so, or will at any moment.
fn doors_are_open(facts: &Facts) -> bool {
    let now = clock::unix_now();
    match facts.phase(now) {
        Phase::Running => true,
        Phase::Before { doors } => doors.is_some_and(|doors| doors <= now),
        Phase::Over => false,
    }
}

/// When part 0 begins: from origin, or from the recording while origin is silent.
pub(super) async fn anchored_doors(shared: &Shared, event: &EventSlug, facts: &Facts) -> Option<UnixTime> {
    if let Some(doors) = facts.anchored_doors() {
        return Some(doors);
    }
    shared.recordings.with(event, |recording| Ok(recording.marks().map(|marks| marks.doors))).await.ok()?
}

// ---- parts and segments --------------------------------------------------------------------------------------------

/// Waits for a part that is about to come: the playlist hints at it, or this edge gets it some milliseconds after
/// another whose playlist lists it.
pub(super) async fn come(
    shared: &Shared,
    channel: Option<&Channel>,
    number: PartNumber,
    from: Prefix,
) -> Result<(), Response> {
    let Some(live) = channel.and_then(Channel::live) else { return Ok(()) };
    match shared.holds.hold(from, &live, hold::LONGEST, |window| window.part_readiness(number)).await {
        // What is too far for the window may be on the disk; otherwise it is said there what it is.
        Held::Ready | Held::TooFar => Ok(()),
        held @ (Held::Late | Held::Full | Held::Closing) => Err(held.refusal()),
    }
}

fn held_part(
    channel: Option<&Channel>,
    rendition: Rendition,
    number: PartNumber,
    tagged: bool,
) -> Option<Bytes> {
    let live = channel?.live()?;
    let window = live.window();
    let part = window.get(number)?;
    let bytes = &part.payload(rendition).bytes;
    Some(if tagged { wrapped::join(rendition, part, std::slice::from_ref(bytes)) } else { bytes.clone() })
}

/// A segment from the window, in the bytes that every edge makes of it.
fn held_segment(channel: Option<&Channel>, rendition: Rendition, number: SegmentNumber) -> Option<Bytes> {
    let live = channel?.live()?;
    let window = live.window();
    let parts = window.segment(number, rendition)?;
    let first = window.get(number.first_part())?;
    Some(wrapped::join(rendition, first, &parts))
}

/// What to say of a part that is neither in the window nor recorded.
pub(super) async fn absent(
    shared: &Shared,
    event: &EventSlug,
    channel: Option<&Channel>,
    number: PartNumber,
    error: ReadError,
) -> Response {
    if !matches!(error, ReadError::Archive(ArchiveError::NotFound(_) | ArchiveError::NoPart(_))) {
        return Problem::from(error).into_response();
    }
    let held = channel.and_then(Channel::live).and_then(|live| live.window().newest()).map(PartNumber::next);
    let recorded = shared.recordings.with(event, |recording| Ok(recording.parts().end)).await.ok();
    let end = held.max(recorded).unwrap_or(PartNumber::ZERO);
    if number >= end {
        let problem = Problem::new(StatusCode::NOT_FOUND, "future-part", "This part does not exist yet")
            .detail(format!("parts before {end} exist"));
        cached(problem, A_SECOND)
    } else {
        let problem = Problem::new(StatusCode::GONE, "part-gone", "This part is not kept here");
        cached(problem, A_SECOND)
    }
}
