//! The listener's page without code: the waiting room by reloading, the place in a cookie of its own.

use std::net::{IpAddr, Ipv4Addr};

use admission::challenge::{PATIENCE_S, Refusal};
use admission::room::{MintCost, RoomState, Wait};
use admission::ticket::Class;
use axum::response::{IntoResponse, Response};
use backend::clock;
use backend::http::{Client, Peer};
use http::{HeaderName, HeaderValue, Method, header, request};
use model::{EventSlug, ShowState};
use web::{Language, PAGE_HEADERS, PlainOffer, PlainPage, negotiate_language, plain_page};

use crate::api::{bases, issue_ticket};
use crate::challenges::{Gate, Newcomer};
use crate::doors::Door;
use crate::ladder::sentence;
use crate::rooms::{Answer, Ask, DoorState};
use crate::state::{Control, Counters, Known};

/// Where the place is kept: a cookie that only this event's address gets, and no script.
const COOKIE: &str = "minassa_room";
const COOKIE_S: u64 = 86_400;
/// Where a challenge is kept that is waited for: such a page cannot compute, so it pays with patience. Until then it has no
/// place in the line, and arrives as much later.
const WAIT_COOKIE: &str = "minassa_wait";
/// When a page that could not be answered asks again, seconds: longer than a page with code would wait.
const LATER_S: u64 = 15;
/// What a page without code waits beyond what is advised, so that being without costs something.
const EXTRA_S: u64 = 5;

/// `GET /e/{event}?plain`.
pub(crate) fn page(control: &Control, known: &Known, head: &request::Parts) -> Response {
    let accept = head.headers.get(header::ACCEPT_LANGUAGE).and_then(|accept| accept.to_str().ok());
    let language = negotiate_language(head.uri.query(), accept);
    let (event, now) = (&known.event, clock::unix_now());
    let standing = control.standing(event);
    let bases = bases(control, head);
    let address = head.extensions.get::<Peer>().map_or(IpAddr::from(Ipv4Addr::LOCALHOST), |peer| peer.0.ip());
    let doors = DoorState::of(&standing, now);
    let kept = cookie(head, COOKIE);
    let mut set_cookie = None;
    let mut ask = Ask {
        token: kept.as_deref(),
        address,
        paid: MintCost::default(),
        id: rand::random(),
        jitter: rand::random(),
    };
    // Whoever only looks at the head takes no place.
    let mut answer = (head.method == Method::HEAD).then_some(Answer::Full);
    if answer.is_none() && ask.token.is_some() {
        // A place of another night is none: then a new one.
        answer = Some(control.rooms().ask(&event.slug, ask, doors, now));
        if matches!(answer, Some(Answer::Refused(_))) {
            (ask.token, answer) = (None, None);
        }
    }
    let answer = match answer {
        Some(answer) => Ok(answer),
        None => {
            let waited = cookie(head, WAIT_COOKIE);
            let newcomer = Newcomer { address, placed: false, solution: waited.as_deref() };
            let gate = match doors {
                DoorState::Over => Gate::Open,
                _ => control.challenges.gate(&event.slug, newcomer, standing.level, now),
            };
            // Who comes back to pay was counted when they were asked.
            let returns =
                matches!(gate, Gate::Paid(_) | Gate::Closed { refusal: Some(Refusal::Early { .. }), .. });
            if !returns && kept.is_none() {
                Counters::add(&control.counters.asked);
                control
                    .arrivals
                    .count(address, head.extensions.get().map(|Client(fingerprint)| *fingerprint));
            }
            match gate {
                Gate::Open | Gate::Paid(_) => Ok(control.rooms().ask(&event.slug, ask, doors, now)),
                // It came back too soon, and has what to wait with.
                Gate::Closed { refusal: Some(Refusal::Early { seconds }), .. } => Err(seconds + EXTRA_S),
                Gate::Closed { maxnumber, .. } => {
                    let challenge =
                        control.challenges.ask(&event.slug, address, maxnumber, rand::random(), now);
                    set_cookie = Some((WAIT_COOKIE, challenge.answer(None).encode()));
                    Err(PATIENCE_S + EXTRA_S)
                }
            }
        }
    };
    let delayed;
    let (push, files) = (bases.door(Door::Push).ok(), bases.door(Door::Files).ok());
    let live = |base: &str, text: &str, file: &str| format!("{base}/t/{text}/live/{}/{file}", event.slug);
    let (mp3, hls) = match (&answer, push, files) {
        (&Ok(Answer::Enter(id)), Some(push), Some(files)) => {
            let (_, text) = issue_ticket(control, &event.slug, id, Class::Holder, now);
            (live(push, &text, "mp3-64.mp3"), live(files, &text, "mp3-64.m3u8"))
        }
        (&Ok(Answer::Ended), _, Some(files)) => {
            (format!("{files}/e/{}/recording.mp3", event.slug), String::new())
        }
        _ => <_>::default(),
    };
    let offer = match &answer {
        Ok(Answer::Ended) if !mp3.is_empty() => PlainOffer::Recording { mp3: &mp3 },
        Ok(Answer::Enter(_)) if !mp3.is_empty() => PlainOffer::Listen { mp3: &mp3, hls: &hls },
        Ok(Answer::Wait(place)) => {
            set_cookie = Some((COOKIE, place.token.clone()));
            let seconds = match place.estimate.wait {
                Wait::Between { low_s, high_s } => Some((low_s, high_s)),
                Wait::Unknown => None,
            };
            let again_s = place.delay.as_secs() + EXTRA_S;
            let waits = place.queue.state != RoomState::Gathering;
            delayed = waits.then(|| control.config.delayed(&event.slug)).flatten();
            PlainOffer::Wait { ahead: place.estimate.ahead, seconds, again_s, delayed: delayed.as_deref() }
        }
        Ok(_) => PlainOffer::Later { again_s: LATER_S },
        Err(again_s) => PlainOffer::Patience { again_s: *again_s },
    };
    let [ar, en] = sentence(standing.level, &standing.measures);
    let (title, said) = match language {
        Language::Ar => (&event.title.ar, ar),
        Language::En => (&event.title.en, en),
    };
    let title = match (title.is_empty(), language) {
        (false, language) => (title.as_str(), language.tag()),
        (true, Language::Ar) => (event.title.en.as_str(), Language::En.tag()),
        (true, Language::En) => (event.title.ar.as_str(), Language::Ar.tag()),
    };
    let shows_ladder = standing.level.number() > 0 && standing.state != ShowState::Ended;
    let report = match standing.state {
        ShowState::Scheduled => String::new(),
        _ => format!("/e/{}/report?lang={}", event.slug, language.tag()),
    };
    let page = PlainPage {
        title,
        state: standing.state.name(),
        starts_at: &event.starts_at.to_string(),
        offer,
        sentence: if shows_ladder { said } else { "" },
        report: &report,
    };
    let mut response = plain_page(&page, language).into_response();
    let headers = response.headers_mut();
    for (name, value) in PAGE_HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.insert(header::CONTENT_LANGUAGE, HeaderValue::from_static(Language::tag(language)));
    // A ticket may be in it.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some((name, value)) = set_cookie {
        let cookie = cookie_for(&event.slug, name, &value, control.scheme);
        headers.extend(HeaderValue::try_from(cookie).ok().map(|cookie| (header::SET_COOKIE, cookie)));
    }
    response
}

fn cookie_for(event: &EventSlug, name: &str, value: &str, scheme: &str) -> String {
    let secure = if scheme == "https" { "; Secure" } else { "" };
    format!("{name}={value}; Path=/e/{event}; Max-Age={COOKIE_S}; HttpOnly; SameSite=Lax{secure}")
}

fn cookie(head: &request::Parts, wanted: &str) -> Option<String> {
    let cookies = head.headers.get_all(header::COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
    let mut pairs =
        cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == wanted).map(|(_, value)| value.to_owned())
}
