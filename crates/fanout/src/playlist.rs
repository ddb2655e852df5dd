//! Live playlists as functions of the window, and what a request for one has to wait for.
//!
//! ```text
//!   segments  │ 110 │ 111 │ … │ 122 │ 123 │ 124 │   of which each is named, at most LIVE_SEGMENTS
//!   parts                     │││││││││││││││││││││  at most LISTED_PARTS, one by one
//!                                                ▲
//!                                              hint: the part after the newest, which may be asked for already
//! ```

use std::ops::Range;
use std::time::Duration;

use formats::hls::{
    DELAYED_BEHIND, DELAYED_JOIN, LowLatency, MediaPlaylist, PartialSegment, PlaylistType, RenditionReport,
    Segment, TARGET_DURATION_S, delayed_segments,
};
use formats::mp4;
use model::{PART_DURATION, PARTS_PER_SEGMENT, Part, PartNumber, Rendition, SegmentNumber, UnixTime};

use crate::{WINDOW_PARTS, Window};

/// Most segments in a live playlist: 57.6 s, so that what was named stays in the window for as long again.
pub const LIVE_SEGMENTS: usize = 15;

/// Most parts that a live playlist lists one by one: three target durations (RFC 8216bis section 6.2.2).
pub const LISTED_PARTS: u64 = 3 * TARGET_DURATION_S as u64 * 1_000 / PART_DURATION.as_millis() as u64;

/// How far from the end of a playlist players of parts should stay, in parts. The draft asks for two at least and
/// advises three (section 4.4.3.8). Two more let a part come late by its own length, and its player be late by as much;
/// hls.js is then about three seconds behind what is spoken.
pub const HOLD_BACK_PARTS: u32 = 5;

/// Parts beyond the newest that may be asked for: the one that the playlist hints at, and one more, since edges get a
/// part some milliseconds apart and a hint may come from another.
pub const HINTED_PARTS: u64 = 2;

const _: () = assert!(
    // RFC 8216 section 6.2.2, as for the live playlist: it leaves the list when as many are whole after it.
    (2 * DELAYED_BEHIND as usize + 2) * DELAYED_JOIN * PARTS_PER_SEGMENT as usize <= WINDOW_PARTS,
    "what a delayed playlist named stays in the window for as long as the playlist and itself together"
);

/// A request for a media playlist that has this part, or a later one: a blocking reload (RFC 8216bis section 6.2.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reload {
    segment: u64,
    part: u64,
}

impl Reload {
    /// `_HLS_msn` and `_HLS_part`. Without a part the whole segment is asked for; a part that its segment does not
    /// have means the first of the next.
    pub fn new(segment: u64, part: Option<u64>) -> Self {
        match part {
            None => Self { segment, part: PARTS_PER_SEGMENT - 1 },
            Some(part) if part < PARTS_PER_SEGMENT => Self { segment, part },
            Some(_) => Self { segment: segment.saturating_add(1), part: 0 },
        }
    }

    /// Whether it asks for the last part of a segment. Every player does so about once a segment, whether it plays
    /// parts or segments.
    pub fn ends_segment(self) -> bool {
        self.part == PARTS_PER_SEGMENT - 1
    }

    /// The segment of the part asked for.
    pub fn segment(self) -> u64 {
        self.segment
    }

    fn number(self) -> PartNumber {
        SegmentNumber::new(self.segment).first_part().plus(self.part)
    }
}

/// Whether a request can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Yes, with what there is.
    Ready,
    /// Not yet: look again when the window has changed.
    Wait,
    /// It asks for more than is to come soon.
    TooFar,
}

impl Window {
    /// Whether the live playlist can be given, and has what a blocking reload asks for. Before the window is settled it
    /// is not given: the first parts after a start of the edge are old ones, and no playlist may go back.
    ///
    /// A reload is too far if it asks for a segment after the next two. The draft would also have the part refused that
    /// is 3 s beyond the newest, which is not done here: hls.js, when it plays whole segments, asks for the last part of
    /// the next segment. What is waited for comes within three segments, the draft's limit of waiting.
    pub fn playlist_readiness(&self, reload: Option<Reload>) -> Readiness {
        if self.has_ended() {
            return Readiness::Ready;
        }
        let Some(newest) = self.newest().filter(|_| self.is_settled()) else { return Readiness::Wait };
        if let Some(reload) = reload {
            if reload.segment > self.last_reload(newest) {
                return Readiness::TooFar;
            }
            if reload.number() > newest {
                return Readiness::Wait;
            }
        }
        if self.listed().is_some() { Readiness::Ready } else { Readiness::Wait }
    }

    /// The greatest `_HLS_msn` that is waited for at present.
    pub fn reload_limit(&self) -> u64 {
        self.newest().map_or(0, |newest| self.last_reload(newest))
    }

    /// The last whole segment plus two.
    fn last_reload(&self, newest: PartNumber) -> u64 {
        newest.next().segment().get().saturating_add(1)
    }

    /// Whether it is known what became of a part: it is there, or lost, or will be soon because the playlist hints at
    /// it (RFC 8216bis section 6.2.6).
    pub fn part_readiness(&self, number: PartNumber) -> Readiness {
        match self.newest() {
            _ if self.has_ended() => Readiness::Ready,
            None => Readiness::TooFar,
            Some(newest) if number <= newest => Readiness::Ready,
            Some(newest) if number <= newest.plus(HINTED_PARTS) || !self.is_settled() => Readiness::Wait,
            Some(_) => Readiness::TooFar,
        }
    }

    /// The live playlist of a rendition: the newest segments, the parts of the last three target durations, and the
    /// address of the part that comes next, relative to `/live/{event}/{rendition}.m3u8`. `doors` is the anchored time
    /// of part 0. `None` before there is a whole segment, and while the window is being filled.
    ///
    /// A segment of which a part never arrived is named and marked `EXT-X-GAP`, for the numbers after it to stay
    /// right; so is the part. Our own gap parts are silent audio like any other. There is no discontinuity in a
    /// programme: restarts of origin are filled, and all its epochs share one `init` and one timeline.
    pub fn media_playlist(&self, rendition: Rendition, doors: UnixTime) -> Option<MediaPlaylist> {
        let numbers = self.listed()?;
        let newest = self.newest()?;
        let after = SegmentNumber::new(numbers.end);
        let low_latency = LowLatency {
            part_target: PART_DURATION,
            part_hold_back: HOLD_BACK_PARTS * PART_DURATION,
            parts: self
                .listed_parts(numbers.start, newest)
                .map(|number| self.part(rendition, number))
                .collect(),
            next_date: (after.first_part() <= newest).then(|| date_of(after, doors)),
            preload_hint: (!self.has_ended()).then(|| part_uri(rendition, newest.next())),
            reports: if self.has_ended() { Vec::new() } else { reports(rendition, newest) },
        };
        let plain = self.plain_playlist(rendition, doors, numbers, newest);
        Some(MediaPlaylist { low_latency: Some(low_latency), ..plain })
    }

    /// Segments, all of which have begun, and nothing beside them.
    fn plain_playlist(
        &self,
        rendition: Rendition,
        doors: UnixTime,
        numbers: Range<u64>,
        newest: PartNumber,
    ) -> MediaPlaylist {
        let segment = |number: SegmentNumber| {
            let due = newest.next().min(number.next().first_part());
            Segment {
                uri: segment_uri(rendition, number),
                duration: parts_duration(due.get() - number.first_part().get()),
                program_date_time: date_of(number, doors),
                gap: self.segment_parts(number).is_none(),
                discontinuity: false,
                byte_range: None,
            }
        };
        MediaPlaylist {
            init_uri: rendition.is_cmaf().then(|| init_uri(rendition)),
            kind: PlaylistType::Sliding,
            target_duration: TARGET_DURATION_S,
            media_sequence: numbers.start,
            discontinuity_sequence: 0,
            start_offset: None,
            segments: numbers.map(SegmentNumber::new).map(segment).collect(),
            ended: self.has_ended(),
            low_latency: None,
        }
    }

    /// The playlist of the delayed feed: its last three whole segments, and after the end the one that was begun, which
    /// takes the place of none. It changes when a segment has become whole, every [`formats::hls::DELAYED_DURATION`].
    /// Addresses are relative to `/live/{event}/delayed/{rendition}.m3u8`. `None` before there is a whole segment that
    /// can be had, while the window is being filled, and whenever there is no live playlist.
    pub fn delayed_playlist(&self, rendition: Rendition, doors: UnixTime) -> Option<MediaPlaylist> {
        let (live, begun, newest) = (self.listed()?, self.begun()?, self.newest()?);
        let join = DELAYED_JOIN as u64;
        let whole = newest.next().segment().get() / join * join;
        let begun = begun.plus(PARTS_PER_SEGMENT - 1).segment().get();
        let first = begun.max(whole.saturating_sub(u64::from(DELAYED_BEHIND) * join));
        // What is not whole is left out of the list by itself, unless nothing more comes.
        let numbers = first..live.end.max(first);
        let playlist = self.plain_playlist(rendition, doors, numbers, newest).delayed(rendition)?;
        playlist.segments.iter().any(|segment| !segment.gap).then_some(playlist)
    }

    /// The parts of a segment of the delayed feed that is whole, or of the last one after the end, if all are present.
    pub fn delayed_segment(&self, number: u64) -> Option<Vec<&Part>> {
        let (segments, newest) = (delayed_segments(number), self.newest()?);
        let whole = segments.end.first_part();
        let end = if self.has_ended() { whole.min(newest.next()) } else { whole };
        let numbers = segments.start.first_part().get()..end.get();
        if numbers.is_empty() || end > newest.next() {
            return None;
        }
        numbers.map(|number| self.get(PartNumber::new(number))).collect()
    }

    /// The segments of the live playlist, from the first to after the last, if it can be given and there is anything to
    /// play in it. Both follow from the newest part alone, but for a window that began late: neither ever goes back,
    /// and edges agree. What was lost stays in the list as a gap.
    fn listed(&self) -> Option<Range<u64>> {
        let (begun, newest) = (self.begun()?, self.newest()?);
        if !self.is_settled() {
            return None;
        }
        let whole = newest.next().segment().get();
        let cut_short = u64::from(self.has_ended() && newest.next().index_in_segment() != 0);
        let end = whole + cut_short;
        let first = begun.plus(PARTS_PER_SEGMENT - 1).segment().get();
        let numbers = first.max(end.saturating_sub(LIVE_SEGMENTS as u64))..end;
        let playable = numbers.clone().rev().any(|n| self.segment_parts(SegmentNumber::new(n)).is_some());
        playable.then_some(numbers)
    }

    /// Those of the segments that begin within the last [`LISTED_PARTS`], and of the one that is not whole yet. They
    /// go a whole segment at a time: players tell a part's place in its segment by counting.
    fn listed_parts(&self, first: u64, newest: PartNumber) -> impl Iterator<Item = PartNumber> {
        let end = newest.next();
        let begin = end.minus(LISTED_PARTS).plus(PARTS_PER_SEGMENT - 1).segment();
        let begin = begin.max(SegmentNumber::new(first)).first_part();
        (begin.get()..end.get()).map(PartNumber::new)
    }

    fn part(&self, rendition: Rendition, number: PartNumber) -> PartialSegment {
        let present = self.get(number).is_some();
        PartialSegment {
            segment: number.segment().get(),
            uri: part_uri(rendition, number),
            duration: PART_DURATION,
            // Every frame of ours decodes without another.
            independent: present,
            gap: !present,
        }
    }
}

/// When a segment's first sample is due, with doors at this time.
fn date_of(number: SegmentNumber, doors: UnixTime) -> UnixTime {
    doors.plus(number.first_part().start().to_duration())
}

/// The others stand where this one does: a part comes in all renditions at once.
fn reports(but: Rendition, newest: PartNumber) -> Vec<RenditionReport> {
    let others = Rendition::ALL.into_iter().filter(|other| *other != but);
    let report = |other| RenditionReport {
        uri: format!("{other}.m3u8"),
        last_segment: newest.segment().get(),
        last_part: newest.index_in_segment(),
    };
    others.map(report).collect()
}

/// A part as players of HLS want it: of MP3 with the tag that tells its time, under a name of its own.
fn part_uri(rendition: Rendition, number: PartNumber) -> String {
    if rendition.is_cmaf() {
        format!("{rendition}/{number}.m4s")
    } else {
        format!("{rendition}/p{number}.mp3")
    }
}

fn segment_uri(rendition: Rendition, number: SegmentNumber) -> String {
    let extension = if rendition.is_cmaf() { "m4s" } else { "mp3" };
    format!("{rendition}/s{number}.{extension}")
}

fn init_uri(rendition: Rendition) -> String {
    format!("{rendition}/{}", mp4::init_name(&mp4::opus_init()))
}

fn parts_duration(count: u64) -> Duration {
    PART_DURATION.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
}
