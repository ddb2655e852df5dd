//! What the API is told about events, read field by field.

use std::time::Duration;

use axum::body::Body;
use backend::problem::Problem;
use http::HeaderMap;
use model::{Bilingual, Event, EventSlug, GreenRoom, Role, SeatId, UnixTime, clean_line};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::fields::Fields;

/// Longest title, characters.
const TITLE_CHARS_MAX: usize = 200;
/// Longest name of a speaker, characters.
const NAME_CHARS_MAX: usize = 80;
/// Speakers named when an event is made, at most.
const SPEAKERS_MAX: usize = 32;
/// Longest announced length: a week.
const DURATION_S_MAX: u64 = 7 * 86_400;
/// Earliest doors before the start: a day.
const DOORS_BEFORE_S_MAX: u64 = 86_400;
const DOORS_BEFORE_S: u64 = 900;
/// How far ahead an event can be announced: five years.
const AHEAD_MAX: Duration = Duration::from_secs(5 * 366 * 86_400);

const TITLE: &str =
    "a text of 1 to 200 characters, or {\"ar\": text, \"en\": text} with one of them at the least";
const STARTS_AT: &str = "an RFC 3339 time with an offset, to come within five years";
const DURATION: &str = "whole seconds, 1 to 604800";
const DOORS_BEFORE: &str = "whole seconds, 0 to 86400";
const GREEN_ROOM: &str = "\"open\" or \"attended\"";
const NAME: &str = "a text of at most 80 characters";
const BOOL: &str = "true or false";

// What the API's document describes; the functions below read it field by field, and a test compares them.

/// A new event.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewEvent)]
pub(crate) struct NewEventBody {
    /// `[a-z0-9-]{1,64}`. Default: made from the title.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, pattern = "^[a-z0-9-]{1,64}$")]
    pub(crate) slug: Option<String>,
    /// A text of 1 to 200 characters, its language told by its script, or `{"ar","en"}`.
    #[schema(value_type = TitleBody)]
    pub(crate) title: Value,
    /// The title in Arabic; `title` is the English one then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) title_ar: Option<String>,
    /// RFC 3339 with an offset, to come within five years.
    #[schema(format = DateTime)]
    pub(crate) starts_at: String,
    /// The announced length, seconds. Nothing ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 604800)]
    pub(crate) duration_s: Option<u64>,
    /// How long before the start the slate begins, seconds. Default 900.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, maximum = 86400)]
    pub(crate) doors_before_s: Option<u64>,
    /// Whether it goes live by itself at its start when a speaker is there. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) auto_live: Option<bool>,
    /// `open` (default) or `attended`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) green_room: Option<String>,
    /// Whether the hold slate plays when nobody is heard for five seconds. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) hold_on_silence: Option<bool>,
    /// Names of the speakers beside the host, at most 32; a name may be empty. Default: two without a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) speakers: Option<Vec<String>>,
}

/// A change of an event: any of its fields; `duration_s: null` takes the announced length back.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EventChange)]
pub(crate) struct EventChangeBody {
    /// As in a new event.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<TitleBody>)]
    pub(crate) title: Option<Value>,
    /// As in a new event. Alone it leaves the English title as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) title_ar: Option<String>,
    /// As in a new event. Not after the event went live.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub(crate) starts_at: Option<String>,
    /// As in a new event, or null.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) duration_s: Option<u64>,
    /// As in a new event.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) doors_before_s: Option<u64>,
    /// As in a new event.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) auto_live: Option<bool>,
    /// As in a new event.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) green_room: Option<String>,
    /// As in a new event.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) hold_on_silence: Option<bool>,
}

/// A title.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Title)]
#[allow(dead_code, reason = "describes what read_title reads")]
pub(crate) enum TitleBody {
    /// In one language, told by its script.
    Text(String),
    /// In both, or one of them.
    Both {
        /// Arabic.
        ar: Option<String>,
        /// English.
        en: Option<String>,
    },
}

/// A new invitation.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewInvite)]
pub(crate) struct NewInviteBody {
    /// `speaker` (default), `co-host`, or `host`, which the operator alone may invite.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) role: Option<String>,
    /// Shown to the others, at most 80 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) name: Option<String>,
    /// A seat there is: it gets a new invitation, and the one it had stops working. Its role and name stay unless
    /// they are given. Default: a new seat.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) seat: Option<u16>,
}

/// A new event as it was read.
#[derive(Debug, PartialEq)]
pub(crate) struct NewEvent {
    pub(crate) slug: Option<EventSlug>,
    pub(crate) title: Bilingual,
    pub(crate) starts_at: UnixTime,
    pub(crate) duration: Option<Duration>,
    pub(crate) doors_before: Duration,
    pub(crate) auto_live: bool,
    pub(crate) green_room: GreenRoom,
    pub(crate) hold_on_silence: bool,
    pub(crate) speakers: Vec<String>,
}

/// A change of an event as it was read.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct EventChange {
    title: Option<Bilingual>,
    title_ar: Option<String>,
    pub(crate) starts_at: Option<UnixTime>,
    duration: Option<Option<Duration>>,
    doors_before: Option<Duration>,
    auto_live: Option<bool>,
    green_room: Option<GreenRoom>,
    hold_on_silence: Option<bool>,
}

/// A new invitation as it was read.
#[derive(Debug, PartialEq)]
pub(crate) struct NewInvite {
    pub(crate) role: Option<Role>,
    pub(crate) name: Option<String>,
    pub(crate) seat: Option<SeatId>,
}

/// Reads the body of `POST /api/events`.
pub(crate) async fn read_new(headers: &HeaderMap, body: Body, now: UnixTime) -> Result<NewEvent, Problem> {
    let mut fields = Fields::of(headers, body).await?;
    let slug = fields.take("slug", "1 to 64 of a-z, 0-9 and -", |value| value.as_str()?.parse().ok());
    let has_title = fields.has("title");
    let title = take_title(&mut fields);
    let title_ar = take_title_ar(&mut fields);
    if !has_title {
        fields.miss("title", TITLE);
    }
    let has_start = fields.has("starts_at");
    let starts_at = take_start(&mut fields, now);
    if !has_start {
        fields.miss("starts_at", STARTS_AT);
    }
    let duration = fields.take_nullable("duration_s", DURATION, seconds(1, DURATION_S_MAX)).flatten();
    let doors_before = fields.take("doors_before_s", DOORS_BEFORE, seconds(0, DOORS_BEFORE_S_MAX));
    let auto_live = fields.take("auto_live", BOOL, Value::as_bool);
    let green_room = fields.take("green_room", GREEN_ROOM, green_room);
    let hold_on_silence = fields.take("hold_on_silence", BOOL, Value::as_bool);
    let allowed = "at most 32 texts of at most 80 characters";
    let speakers = fields.take("speakers", allowed, |value| {
        let names = value.as_array()?;
        (names.len() <= SPEAKERS_MAX).then_some(())?;
        names.iter().map(name).collect::<Option<Vec<_>>>()
    });
    fields.finish()?;
    let (Some(mut title), Some(starts_at)) = (title, starts_at) else {
        unreachable!("what is missing or wrong was noted, and finish has refused it")
    };
    if let Some(ar) = title_ar {
        title = with_arabic(title, ar);
    }
    Ok(NewEvent {
        slug,
        title,
        starts_at,
        duration,
        doors_before: doors_before.unwrap_or(Duration::from_secs(DOORS_BEFORE_S)),
        auto_live: auto_live.unwrap_or(true),
        green_room: green_room.unwrap_or_default(),
        hold_on_silence: hold_on_silence.unwrap_or(false),
        speakers: speakers.unwrap_or_else(|| vec![String::new(); 2]),
    })
}

/// Reads the body of `PATCH /api/events/{event}`.
pub(crate) async fn read_change(
    headers: &HeaderMap,
    body: Body,
    now: UnixTime,
) -> Result<EventChange, Problem> {
    let mut fields = Fields::of(headers, body).await?;
    let change = EventChange {
        title: take_title(&mut fields),
        title_ar: take_title_ar(&mut fields),
        starts_at: take_start(&mut fields, now),
        duration: fields.take_nullable("duration_s", DURATION, seconds(1, DURATION_S_MAX)),
        doors_before: fields.take("doors_before_s", DOORS_BEFORE, seconds(0, DOORS_BEFORE_S_MAX)),
        auto_live: fields.take("auto_live", BOOL, Value::as_bool),
        green_room: fields.take("green_room", GREEN_ROOM, green_room),
        hold_on_silence: fields.take("hold_on_silence", BOOL, Value::as_bool),
    };
    fields.finish()?;
    Ok(change)
}

/// Reads the body of `POST /api/events/{event}/invites`.
pub(crate) async fn read_invite(headers: &HeaderMap, body: Body) -> Result<NewInvite, Problem> {
    let mut fields = Fields::of(headers, body).await?;
    let invite = NewInvite {
        role: fields
            .take("role", "\"host\", \"co-host\" or \"speaker\"", |value| Role::from_name(value.as_str()?)),
        name: fields.take("name", NAME, name),
        seat: fields
            .take("seat", "the number of a seat", |value| u16::try_from(value.as_u64()?).ok().map(SeatId)),
    };
    fields.finish()?;
    Ok(invite)
}

impl EventChange {
    /// Makes the change.
    pub(crate) fn apply(self, event: &mut Event) {
        let Self {
            title,
            title_ar,
            starts_at,
            duration,
            doors_before,
            auto_live,
            green_room,
            hold_on_silence,
        } = self;
        if let Some(title) = title {
            event.title = title;
        }
        if let Some(ar) = title_ar {
            event.title = with_arabic(std::mem::take(&mut event.title), ar);
        }
        event.starts_at = starts_at.unwrap_or(event.starts_at);
        event.duration = duration.unwrap_or(event.duration);
        event.doors_before = doors_before.unwrap_or(event.doors_before);
        event.auto_live = auto_live.unwrap_or(event.auto_live);
        event.green_room = green_room.unwrap_or(event.green_room);
        event.hold_on_silence = hold_on_silence.unwrap_or(event.hold_on_silence);
    }
}

fn take_title(fields: &mut Fields) -> Option<Bilingual> {
    let title = fields.take("title", TITLE, |value| Some(value.clone()))?;
    let read = match &title {
        Value::String(text) => line(text, TITLE_CHARS_MAX).map(|text| {
            if is_arabic(&text) {
                Bilingual { ar: text, en: String::new() }
            } else {
                Bilingual { ar: String::new(), en: text }
            }
        }),
        Value::Object(both) => both_languages(both),
        _ => Err(TITLE.to_owned()),
    };
    read.map_err(|why| fields.refuse("title", &title, &why)).ok()
}

fn both_languages(both: &serde_json::Map<String, Value>) -> Result<Bilingual, String> {
    if both.keys().any(|key| !matches!(key.as_str(), "ar" | "en")) {
        return Err(TITLE.to_owned());
    }
    let one = |key: &str| match both.get(key) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) if text.is_empty() => Ok(String::new()),
        Some(Value::String(text)) => line(text, TITLE_CHARS_MAX),
        Some(_) => Err(TITLE.to_owned()),
    };
    let title = Bilingual { ar: one("ar")?, en: one("en")? };
    if title == Bilingual::default() { Err(TITLE.to_owned()) } else { Ok(title) }
}

fn take_title_ar(fields: &mut Fields) -> Option<String> {
    fields.take("title_ar", "a text of 1 to 200 characters", |value| {
        line(value.as_str()?, TITLE_CHARS_MAX).ok()
    })
}

/// A title whose Arabic form was named by itself: what was taken for Arabic by its script is the other form then.
fn with_arabic(title: Bilingual, ar: String) -> Bilingual {
    let en = if title.en.is_empty() { title.ar } else { title.en };
    Bilingual { ar, en }
}

fn take_start(fields: &mut Fields, now: UnixTime) -> Option<UnixTime> {
    let given = fields.take("starts_at", STARTS_AT, |value| Some(value.clone()))?;
    let read = given.as_str().ok_or_else(|| STARTS_AT.to_owned()).and_then(|text| {
        let time = UnixTime::parse(text).map_err(|error| error.to_string())?;
        if time < now {
            return Err(format!("a time to come; it is {now} now"));
        }
        if time > now.plus(AHEAD_MAX) { Err(STARTS_AT.to_owned()) } else { Ok(time) }
    });
    read.map_err(|why| fields.refuse("starts_at", &given, &why)).ok()
}

fn seconds(least: u64, most: u64) -> impl Fn(&Value) -> Option<Duration> {
    move |value| value.as_u64().filter(|s| (least..=most).contains(s)).map(Duration::from_secs)
}

fn green_room(value: &Value) -> Option<GreenRoom> {
    match value.as_str()? {
        "open" => Some(GreenRoom::Open),
        "attended" => Some(GreenRoom::Attended),
        _ => None,
    }
}

fn name(value: &Value) -> Option<String> {
    match clean_line(value.as_str()?, NAME_CHARS_MAX) {
        Ok(name) => Some(name),
        Err(model::InvalidTitle::Empty) => Some(String::new()),
        Err(model::InvalidTitle::TooLong { .. }) => None,
    }
}

fn line(text: &str, allowed: usize) -> Result<String, String> {
    clean_line(text, allowed).map_err(|error| format!("{TITLE}; {error}"))
}

/// Whether most letters of a text are Arabic.
fn is_arabic(text: &str) -> bool {
    let arabic = |c: &char| {
        matches!(c, '\u{0600}'..='\u{06FF}' | '\u{0750}'..='\u{077F}' | '\u{08A0}'..='\u{08FF}'
            | '\u{FB50}'..='\u{FDFF}' | '\u{FE70}'..='\u{FEFC}')
    };
    let letters = text.chars().filter(|c| c.is_alphabetic());
    let (ours, all) = letters.fold((0, 0), |(ours, all), c| (ours + usize::from(arabic(&c)), all + 1));
    2 * ours > all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> UnixTime {
        UnixTime::parse("2026-11-22T20:00:00Z").unwrap()
    }

    async fn read(body: &Value) -> Result<NewEvent, Problem> {
        read_new(&HeaderMap::new(), Body::from(body.to_string()), now()).await
    }

    #[tokio::test]
    async fn what_the_document_describes_is_what_is_read() {
        let full = NewEventBody {
            slug: Some("a".into()),
            title: "A talk".into(),
            title_ar: Some("حديث".into()),
            starts_at: "2026-11-22T23:00:00+02:00".into(),
            duration_s: Some(60),
            doors_before_s: Some(0),
            auto_live: Some(false),
            green_room: Some("attended".into()),
            hold_on_silence: Some(true),
            speakers: Some(vec!["One".into(), String::new()]),
        };
        let event = read(&serde_json::to_value(&full).unwrap()).await.unwrap();
        let expected = NewEvent {
            slug: Some("a".parse().unwrap()),
            title: Bilingual { ar: "حديث".into(), en: "A talk".into() },
            starts_at: UnixTime::parse("2026-11-22T21:00:00Z").unwrap(),
            duration: Some(Duration::from_secs(60)),
            doors_before: Duration::ZERO,
            auto_live: false,
            green_room: GreenRoom::Attended,
            hold_on_silence: true,
            speakers: vec!["One".into(), String::new()],
        };
        assert_eq!(event, expected);
        let change = EventChangeBody {
            title: Some("A talk".into()),
            title_ar: full.title_ar,
            starts_at: Some(full.starts_at),
            duration_s: full.duration_s,
            doors_before_s: full.doors_before_s,
            auto_live: full.auto_live,
            green_room: full.green_room,
            hold_on_silence: full.hold_on_silence,
        };
        let body = Body::from(serde_json::to_string(&change).unwrap());
        let change = read_change(&HeaderMap::new(), body, now()).await.unwrap();
        let mut changed = crate::testing::event("a");
        change.apply(&mut changed);
        assert_eq!((changed.title, changed.duration), (expected.title, expected.duration));
        assert_eq!((changed.auto_live, changed.green_room), (false, GreenRoom::Attended));
        let invite = NewInviteBody { role: Some("co-host".into()), name: Some(" A ".into()), seat: Some(2) };
        let body = Body::from(serde_json::to_string(&invite).unwrap());
        let expected = NewInvite { role: Some(Role::CoHost), name: Some("A".into()), seat: Some(SeatId(2)) };
        assert_eq!(read_invite(&HeaderMap::new(), body).await.unwrap(), expected);
    }

    #[tokio::test]
    async fn titles_find_their_language() {
        let check = async |title: Value, title_ar: Option<&str>, ar: &str, en: &str| {
            let mut body = serde_json::json!({ "title": title, "starts_at": "2026-11-22T21:00:00Z" });
            if let Some(title_ar) = title_ar {
                body["title_ar"] = title_ar.into();
            }
            assert_eq!(read(&body).await.unwrap().title, Bilingual { ar: ar.into(), en: en.into() });
        };
        check("A talk".into(), None, "", "A talk").await;
        check("حديث المساء (live)".into(), None, "حديث المساء (live)", "").await;
        check("2026".into(), None, "", "2026").await;
        check("A talk".into(), Some("حديث"), "حديث", "A talk").await;
        check(serde_json::json!({"ar": "حديث"}), None, "حديث", "").await;
        check(serde_json::json!({"ar": "حديث", "en": "A talk"}), None, "حديث", "A talk").await;
        check("a\u{202E}b\u{2066}c <i>".into(), None, "", "abc <i>").await;
    }

    #[tokio::test]
    async fn defaults_are_those_of_the_document() {
        let event =
            read(&serde_json::json!({ "title": "A", "starts_at": "2026-11-22T20:00:00Z" })).await.unwrap();
        assert_eq!(event.doors_before, Duration::from_secs(900));
        assert!(event.auto_live && !event.hold_on_silence && event.slug.is_none());
        assert_eq!(event.speakers, ["", ""]);
    }
}
