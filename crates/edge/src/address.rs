//! What a request's address asks for: parsed once, into types that cannot be wrong.

use std::time::Duration;

use fanout::{Container, Reload, Tier};
use model::{EventSlug, PartNumber, Rendition, SegmentNumber};

/// Longest text taken from an address into an answer.
const QUOTED: usize = 80;

/// Why an address asks for nothing that could exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AddressError {
    /// No such place.
    Nothing,
    /// A place in an event whose name is none.
    Event(String),
    /// A rendition there is not, or not in this form.
    Rendition(String),
    /// A value of the query or a number in the path that is none.
    Value {
        /// Its key.
        key: &'static str,
        /// What was given.
        given: String,
        /// What is allowed.
        allowed: &'static str,
    },
}

/// A place behind the push door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PushAddress<'a> {
    pub(crate) ticket: Option<&'a str>,
    pub(crate) event: EventSlug,
    pub(crate) rendition: Rendition,
    pub(crate) container: Container,
    pub(crate) from: Option<PartNumber>,
    pub(crate) tier: Option<Tier>,
}

/// A place behind the files door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FilesAddress<'a> {
    Live {
        ticket: Option<&'a str>,
        event: EventSlug,
        item: LiveItem<'a>,
    },
    /// No ticket opens these, and none is in them: a cache must find one thing under one address.
    Delayed {
        event: EventSlug,
        item: DelayedItem<'a>,
    },
    Recording {
        event: EventSlug,
        item: RecordingItem,
    },
    Metrics,
    Alive,
    Ready,
}

/// Something below `/live/{event}/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LiveItem<'a> {
    Index,
    Playlist(PlaylistItem),
    Init {
        name: &'a str,
    },
    /// `tagged`: of MP3, with the tag that HLS wants before it.
    Part {
        rendition: Rendition,
        number: PartNumber,
        tagged: bool,
    },
    Segment {
        rendition: Rendition,
        number: SegmentNumber,
    },
}

/// Something of the delayed feed: `/live/{event}/delayed.m3u8` and what is below `/live/{event}/delayed/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DelayedItem<'a> {
    Index,
    Playlist(Rendition),
    Init {
        name: &'a str,
    },
    /// Of the delayed feed's own, longer ones.
    Segment {
        rendition: Rendition,
        number: u64,
    },
}

/// A media playlist below `/live/{event}/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlaylistItem {
    pub(crate) rendition: Rendition,
    /// What comes after the end, at once.
    pub(crate) whole: bool,
    /// What it has to have before it is wanted.
    pub(crate) reload: Option<Reload>,
}

/// Something below `/e/{event}/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RecordingItem {
    Index,
    Playlist(Rendition),
    Mp4(Rendition),
    Ogg,
    Mp3,
    Clip { rendition: Rendition, from: Duration, to: Duration },
}

/// Reads the address of a request at the push door.
pub(crate) fn push<'a>(path: &'a str, query: Option<&'a str>) -> Result<PushAddress<'a>, AddressError> {
    let (ticket, path) = split_ticket(path)?;
    let (event, file) = split_event(path, "/live/")?;
    let (name, extension) = file.rsplit_once('.').ok_or(AddressError::Nothing)?;
    if name.contains('/') {
        return Err(AddressError::Nothing);
    }
    let container = match extension {
        "mp4" => Container::Mp4,
        "ogg" => Container::Ogg,
        "mp3" => Container::Mp3,
        _ => return Err(AddressError::Nothing),
    };
    let event = slug(event)?;
    let rendition = rendition_in(name, |rendition| container.carries(rendition))?;
    let from = value(query, "from").map(|text| part_number("from", text)).transpose()?;
    let tier = value(query, "tier")
        .map(|text| {
            let wrong = || invalid("tier", text, "1, 2, 4 or 8");
            text.parse().ok().and_then(Tier::new).filter(|_| text.len() == 1).ok_or_else(wrong)
        })
        .transpose()?;
    Ok(PushAddress { ticket, event, rendition, container, from, tier })
}

/// Reads the address of a request at the files door.
pub(crate) fn files<'a>(path: &'a str, query: Option<&'a str>) -> Result<FilesAddress<'a>, AddressError> {
    match path {
        "/metrics" => return Ok(FilesAddress::Metrics),
        "/healthz" => return Ok(FilesAddress::Alive),
        "/readyz" => return Ok(FilesAddress::Ready),
        _ => {}
    }
    if path.starts_with("/e/") {
        let (event, file) = split_event(path, "/e/")?;
        let item = recording_item(file, query);
        // What is no place at all is so in any event.
        let event = if item == Err(AddressError::Nothing) { Err(AddressError::Nothing) } else { slug(event) };
        return Ok(FilesAddress::Recording { event: event?, item: item? });
    }
    let (ticket, path) = split_ticket(path)?;
    let (event, file) = split_event(path, "/live/")?;
    if let Some(item) = delayed_item(file) {
        if ticket.is_some() || item == Err(AddressError::Nothing) {
            return Err(AddressError::Nothing);
        }
        return Ok(FilesAddress::Delayed { event: slug(event)?, item: item? });
    }
    let item = live_item(file, query);
    let event = if item == Err(AddressError::Nothing) { Err(AddressError::Nothing) } else { slug(event) };
    Ok(FilesAddress::Live { ticket, event: event?, item: item? })
}

fn live_item<'a>(file: &'a str, query: Option<&str>) -> Result<LiveItem<'a>, AddressError> {
    if let Some(name) = file.strip_suffix(".m3u8") {
        return match name {
            "index" => Ok(LiveItem::Index),
            _ => {
                let whole = query.is_some_and(|query| query.split('&').any(|pair| pair == "replay"));
                let (rendition, reload) = (rendition_in(name, |_| true)?, reload(query)?);
                Ok(LiveItem::Playlist(PlaylistItem { rendition, whole, reload }))
            }
        };
    }
    let (folder, name) = file.split_once('/').ok_or(AddressError::Nothing)?;
    let (stem, extension) = name.rsplit_once('.').ok_or(AddressError::Nothing)?;
    if !matches!(extension, "mp4" | "m4s" | "mp3") || stem.contains('/') {
        return Err(AddressError::Nothing);
    }
    let rendition = rendition_in(folder, |_| true)?;
    match (extension, rendition.is_cmaf()) {
        ("mp4", true) if stem.starts_with("init-") => Ok(LiveItem::Init { name }),
        ("m4s", true) | ("mp3", false) => match stem.strip_prefix('s') {
            Some(number) => {
                let number = SegmentNumber::new(part_number("segment", number)?.get());
                Ok(LiveItem::Segment { rendition, number })
            }
            None => {
                let name = if rendition.is_cmaf() { None } else { stem.strip_prefix('p') };
                let number = part_number("part", name.unwrap_or(stem))?;
                Ok(LiveItem::Part { rendition, number, tagged: name.is_some() })
            }
        },
        _ => Err(AddressError::Nothing),
    }
}

/// Whatever there is of the delayed feed under this name; `None` if it is not of the delayed feed. The query does not
/// count: whatever is in it, it is the same file.
fn delayed_item(file: &str) -> Option<Result<DelayedItem<'_>, AddressError>> {
    if file == "delayed.m3u8" {
        return Some(Ok(DelayedItem::Index));
    }
    let file = file.strip_prefix("delayed/")?;
    let item = || {
        if let Some(name) = file.strip_suffix(".m3u8") {
            return rendition_in(name, |_| true).map(DelayedItem::Playlist);
        }
        let (folder, name) = file.split_once('/').ok_or(AddressError::Nothing)?;
        let (stem, extension) = name.rsplit_once('.').ok_or(AddressError::Nothing)?;
        if !matches!(extension, "mp4" | "m4s" | "mp3") || stem.contains('/') {
            return Err(AddressError::Nothing);
        }
        let rendition = rendition_in(folder, |_| true)?;
        match (extension, rendition.is_cmaf()) {
            ("mp4", true) if stem.starts_with("init-") => Ok(DelayedItem::Init { name }),
            ("m4s", true) | ("mp3", false) => {
                let number = part_number("segment", stem)?.get();
                Ok(DelayedItem::Segment { rendition, number })
            }
            _ => Err(AddressError::Nothing),
        }
    };
    Some(item())
}

/// The delivery directives of a blocking reload (RFC 8216bis section 6.2.5.2). Others are passed over.
fn reload(query: Option<&str>) -> Result<Option<Reload>, AddressError> {
    let number = |key| value(query, key).map(|text| Ok(part_number(key, text)?.get())).transpose();
    match (number("_HLS_msn")?, number("_HLS_part")?) {
        (Some(segment), part) => Ok(Some(Reload::new(segment, part))),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(invalid("_HLS_msn", "", "a whole number beside _HLS_part")),
    }
}

fn recording_item(file: &str, query: Option<&str>) -> Result<RecordingItem, AddressError> {
    match file {
        "recording.m3u8" => return Ok(RecordingItem::Index),
        "recording.ogg" => return Ok(RecordingItem::Ogg),
        "recording.mp3" => return Ok(RecordingItem::Mp3),
        "clip" => {
            let rendition = match value(query, "rendition") {
                Some(name) => rendition_in(name, Rendition::is_cmaf)?,
                None => Rendition::Opus48,
            };
            let (from, to) = (seconds(query, "from")?, seconds(query, "to")?);
            if from >= to {
                return Err(invalid("to", value(query, "to").unwrap_or_default(), "more than from"));
            }
            return Ok(RecordingItem::Clip { rendition, from, to });
        }
        _ => {}
    }
    let rest = file.strip_prefix("recording.").ok_or(AddressError::Nothing)?;
    if let Some(name) = rest.strip_suffix(".m3u8") {
        return rendition_in(name, |_| true).map(RecordingItem::Playlist);
    }
    let name = rest.strip_suffix(".mp4").ok_or(AddressError::Nothing)?;
    rendition_in(name, Rendition::is_cmaf).map(RecordingItem::Mp4)
}

/// Cuts `/t/{ticket}` off.
fn split_ticket(path: &str) -> Result<(Option<&str>, &str), AddressError> {
    let Some(rest) = path.strip_prefix("/t/") else { return Ok((None, path)) };
    let slash = rest.find('/').ok_or(AddressError::Nothing)?;
    Ok((Some(&rest[..slash]), &rest[slash..]))
}

fn split_event<'a>(path: &'a str, prefix: &str) -> Result<(&'a str, &'a str), AddressError> {
    path.strip_prefix(prefix).and_then(|rest| rest.split_once('/')).ok_or(AddressError::Nothing)
}

fn slug(text: &str) -> Result<EventSlug, AddressError> {
    text.parse().map_err(|_| AddressError::Event(quoted(text)))
}

fn rendition_in(name: &str, fits: impl Fn(Rendition) -> bool) -> Result<Rendition, AddressError> {
    name.parse()
        .ok()
        .filter(|rendition| fits(*rendition))
        .ok_or_else(|| AddressError::Rendition(quoted(name)))
}

/// A number in its one form: digits only, no zeros before. Anything else would give one thing many addresses.
fn part_number(key: &'static str, text: &str) -> Result<PartNumber, AddressError> {
    let canonical = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse()
        .ok()
        .filter(|_| canonical)
        .map(PartNumber::new)
        .ok_or_else(|| invalid(key, text, "a whole number, 0 to 18446744073709551615"))
}

/// Seconds with up to nine decimals.
fn seconds(query: Option<&str>, key: &'static str) -> Result<Duration, AddressError> {
    const ALLOWED: &str = "seconds from the moment the event went live, such as 90 or 90.25";
    let text = value(query, key).unwrap_or_default();
    let wrong = || invalid(key, text, ALLOWED);
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| (1..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(decimals) {
        return Err(wrong());
    }
    let nanos = decimals.parse::<u32>().map_err(|_| wrong())? * 10u32.pow(9 - decimals.len() as u32);
    Ok(Duration::new(whole.parse().map_err(|_| wrong())?, nanos))
}

/// The first value of a key of the query. Nothing we ask for needs escaping, so an escape is just a wrong value.
fn value<'a>(query: Option<&'a str>, key: &str) -> Option<&'a str> {
    query?.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
}

fn invalid(key: &'static str, given: &str, allowed: &'static str) -> AddressError {
    AddressError::Value { key, given: quoted(given), allowed }
}

fn quoted(text: &str) -> String {
    text.chars().take(QUOTED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> EventSlug {
        text.parse().unwrap()
    }

    #[test]
    fn places_behind_the_push_door() {
        let plain = PushAddress {
            ticket: None,
            event: name("talk"),
            rendition: Rendition::Opus48,
            container: Container::Mp4,
            from: None,
            tier: None,
        };
        let cases = [
            ("/live/talk/opus-48.mp4", None, plain.clone()),
            (
                "/t/abc_-9/live/talk/opus-48.mp4",
                None,
                PushAddress { ticket: Some("abc_-9"), ..plain.clone() },
            ),
            ("/t//live/talk/opus-48.mp4", None, PushAddress { ticket: Some(""), ..plain.clone() }),
            (
                "/live/talk/opus-24.ogg",
                Some("x=1&from=12&tier=4"),
                PushAddress {
                    rendition: Rendition::Opus24,
                    container: Container::Ogg,
                    from: Some(PartNumber::new(12)),
                    tier: Some(Tier::FOUR),
                    ..plain.clone()
                },
            ),
            (
                "/live/talk/mp3-64.mp3",
                Some("from=18446744073709551615"),
                PushAddress {
                    rendition: Rendition::Mp3_64,
                    container: Container::Mp3,
                    from: Some(PartNumber::new(u64::MAX)),
                    ..plain
                },
            ),
        ];
        for (path, query, expected) in cases {
            assert_eq!(push(path, query), Ok(expected), "{path} {query:?}");
        }
    }

    #[test]
    fn no_places_behind_the_push_door() {
        for path in [
            "/",
            "",
            "/live",
            "/live/talk",
            "/live/talk/",
            "/live/talk/opus-48",
            "/live/talk/opus-48.webm",
            "/t/abc",
            "/t/abc/e/talk/recording.mp3",
            "/metrics",
        ] {
            assert_eq!(push(path, None), Err(AddressError::Nothing), "{path}");
        }
        assert_eq!(push("/live/Talk/opus-48.mp4", None), Err(AddressError::Event("Talk".to_owned())));
        assert_eq!(push("/live/../opus-48.mp4", None), Err(AddressError::Event("..".to_owned())));
        for (file, rendition) in
            [("opus-96.mp4", "opus-96"), ("mp3-64.mp4", "mp3-64"), ("opus-48.mp3", "opus-48")]
        {
            let path = format!("/live/talk/{file}");
            assert_eq!(push(&path, None), Err(AddressError::Rendition(rendition.to_owned())), "{file}");
        }
        for (query, key) in [
            ("from=", "from"),
            ("from=-1", "from"),
            ("from=+1", "from"),
            ("from=01", "from"),
            ("from=1.5", "from"),
            ("from=18446744073709551616", "from"),
            ("from=%31", "from"),
            ("from=latest", "from"),
            ("tier=3", "tier"),
            ("tier=0", "tier"),
            ("tier=", "tier"),
            ("tier=+1", "tier"),
            ("tier=16", "tier"),
        ] {
            match push("/live/talk/opus-48.mp4", Some(query)) {
                Err(AddressError::Value { key: found, .. }) => assert_eq!(found, key),
                other => panic!("{query}: {other:?}"),
            }
        }
    }

    #[test]
    fn places_behind_the_files_door() {
        let live = |item| FilesAddress::Live { ticket: None, event: name("talk"), item };
        let recorded = |item| FilesAddress::Recording { event: name("talk"), item };
        let awaited =
            |whole, reload| LiveItem::Playlist(PlaylistItem { rendition: Rendition::Mp3_64, whole, reload });
        let listed = |whole| awaited(whole, None);
        let clip = |from_ms, to_ms, rendition| RecordingItem::Clip {
            rendition,
            from: Duration::from_millis(from_ms),
            to: Duration::from_millis(to_ms),
        };
        let any_part =
            |rendition, n, tagged| LiveItem::Part { rendition, number: PartNumber::new(n), tagged };
        let part = |rendition, n| any_part(rendition, n, false);
        let segment = |rendition, n| LiveItem::Segment { rendition, number: SegmentNumber::new(n) };
        for (path, query, expected) in [
            ("/metrics", None, FilesAddress::Metrics),
            ("/live/talk/index.m3u8", None, live(LiveItem::Index)),
            ("/live/talk/mp3-64.m3u8", None, live(listed(false))),
            ("/live/talk/mp3-64.m3u8", Some("replay"), live(listed(true))),
            (
                "/live/talk/mp3-64.m3u8",
                Some("_HLS_msn=12&_HLS_part=3"),
                live(awaited(false, Some(Reload::new(12, Some(3))))),
            ),
            (
                "/live/talk/mp3-64.m3u8",
                Some("_HLS_skip=YES&_HLS_msn=18446744073709551615&x"),
                live(awaited(false, Some(Reload::new(u64::MAX, None)))),
            ),
            ("/live/talk/opus-24/init-0.mp4", None, live(LiveItem::Init { name: "init-0.mp4" })),
            ("/live/talk/opus-24/0.m4s", None, live(part(Rendition::Opus24, 0))),
            ("/live/talk/mp3-64/17.mp3", None, live(part(Rendition::Mp3_64, 17))),
            ("/live/talk/mp3-64/p17.mp3", None, live(any_part(Rendition::Mp3_64, 17, true))),
            ("/live/talk/mp3-64/s17.mp3", None, live(segment(Rendition::Mp3_64, 17))),
            ("/e/talk/recording.m3u8", None, recorded(RecordingItem::Index)),
            ("/e/talk/recording.mp3-64.m3u8", None, recorded(RecordingItem::Playlist(Rendition::Mp3_64))),
            ("/e/talk/recording.opus-48.mp4", None, recorded(RecordingItem::Mp4(Rendition::Opus48))),
            ("/e/talk/recording.ogg", Some("from=zero"), recorded(RecordingItem::Ogg)),
            ("/e/talk/recording.mp3", None, recorded(RecordingItem::Mp3)),
            ("/e/talk/clip", Some("from=1&to=2.5"), recorded(clip(1_000, 2_500, Rendition::Opus48))),
            (
                "/e/talk/clip",
                Some("rendition=opus-24&from=0.04&to=60"),
                recorded(clip(40, 60_000, Rendition::Opus24)),
            ),
        ] {
            assert_eq!(files(path, query), Ok(expected), "{path} {query:?}");
        }
        assert_eq!(
            files("/t/abc/live/talk/index.m3u8", None),
            Ok(FilesAddress::Live { ticket: Some("abc"), event: name("talk"), item: LiveItem::Index })
        );
    }

    #[test]
    fn places_of_the_delayed_feed() {
        let of = |item| Ok(FilesAddress::Delayed { event: name("talk"), item });
        let segment = |rendition, number| DelayedItem::Segment { rendition, number };
        for (file, expected) in [
            ("delayed.m3u8", DelayedItem::Index),
            ("delayed/mp3-64.m3u8", DelayedItem::Playlist(Rendition::Mp3_64)),
            ("delayed/opus-24.m3u8", DelayedItem::Playlist(Rendition::Opus24)),
            ("delayed/opus-24/init-0.mp4", DelayedItem::Init { name: "init-0.mp4" }),
            ("delayed/opus-48/0.m4s", segment(Rendition::Opus48, 0)),
            ("delayed/mp3-64/18446744073709551615.mp3", segment(Rendition::Mp3_64, u64::MAX)),
        ] {
            let path = format!("/live/talk/{file}");
            for query in [None, Some("replay"), Some("_HLS_msn=-1"), Some("x=%%")] {
                assert_eq!(files(&path, query), of(expected), "{path} {query:?}");
            }
            // A ticket would make an address of its own of it.
            assert_eq!(files(&format!("/t/abc{path}"), None), Err(AddressError::Nothing), "{path}");
            assert_eq!(push(&path, None), Err(AddressError::Nothing), "{path}");
        }
        for file in [
            "delayed",
            "delayed/",
            "delayed/index",
            "delayed/opus-48",
            "delayed/opus-48/0.mp3",
            "delayed/opus-48/0.mp4",
            "delayed/mp3-64/init-0.mp4",
            "delayed/opus-48/1/0.m4s",
            "delayed/opus-48/init-0.m4s.exe",
        ] {
            assert_eq!(files(&format!("/live/talk/{file}"), None), Err(AddressError::Nothing), "{file}");
        }
        for file in ["delayed/flac.m3u8", "delayed/flac/0.m4s", "delayed/.m3u8", "delayed/delayed.m3u8"] {
            let address = format!("/live/talk/{file}");
            let found = files(&address, None);
            assert!(matches!(found, Err(AddressError::Rendition(_))), "{file}: {found:?}");
        }
        for stem in ["latest", "00", "-1", "s1", "p1", "", "+1", "18446744073709551616"] {
            let address = format!("/live/talk/delayed/opus-48/{stem}.m4s");
            let found = files(&address, None);
            assert!(matches!(found, Err(AddressError::Value { .. })), "{stem}: {found:?}");
        }
        assert_eq!(files("/live/Talk/delayed.m3u8", None), Err(AddressError::Event("Talk".to_owned())));
    }

    #[test]
    fn no_places_behind_the_files_door() {
        for path in [
            "/",
            "/e/talk",
            "/e/talk/",
            "/e/talk/recording.wav",
            "/e/TALK/nothing",
            "/live/talk/opus-48.mp4",
            "/live/talk/opus-48/init-0.m4s.exe",
            "/live/talk/opus-48/0.mp3",
            "/live/talk/mp3-64/init-0.mp4",
            "/live/talk/opus-48/x/0.m4s",
            "/t/abc/e/talk/recording.mp3",
        ] {
            assert_eq!(files(path, None), Err(AddressError::Nothing), "{path}");
        }
        for path in ["/live/talk/flac.m3u8", "/live/talk/flac/0.m4s", "/e/talk/recording.mp3-64.mp4"] {
            assert!(matches!(files(path, None), Err(AddressError::Rendition(_))), "{path}");
        }
        assert!(matches!(files("/e/T/recording.mp3", None), Err(AddressError::Event(_))));
        for (path, query) in [
            ("/live/talk/opus-48/latest.m4s", None),
            ("/live/talk/opus-48/00.m4s", None),
            ("/live/talk/opus-48/p0.m4s", None),
            ("/live/talk/mp3-64/p.mp3", None),
            ("/live/talk/mp3-64/ps1.mp3", None),
            ("/live/talk/opus-48.m3u8", Some("_HLS_part=1")),
            ("/live/talk/opus-48.m3u8", Some("_HLS_msn=1&_HLS_part=")),
            ("/live/talk/opus-48.m3u8", Some("_HLS_msn=-1")),
            ("/live/talk/opus-48.m3u8", Some("_HLS_msn=18446744073709551616")),
            ("/live/talk/opus-48/s.m4s", None),
            ("/live/talk/opus-48/s-1.m4s", None),
            ("/live/talk/opus-48/99999999999999999999999.m4s", None),
            ("/e/talk/clip", None),
            ("/e/talk/clip", Some("from=1")),
            ("/e/talk/clip", Some("from=2&to=2")),
            ("/e/talk/clip", Some("from=NaN&to=inf")),
            ("/e/talk/clip", Some("from=-1&to=2")),
            ("/e/talk/clip", Some("from=1e3&to=2e3")),
            ("/e/talk/clip", Some("from=1.&to=2")),
        ] {
            assert!(matches!(files(path, query), Err(AddressError::Value { .. })), "{path} {query:?}");
        }
    }
}
