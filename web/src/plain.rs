//! The listener's page for a browser that runs no code: made by the server each time, and asked for again by itself.

use std::fmt::Write as _;

use crate::Language;
use crate::pages::{escape, fill, text};

/// What the page says and offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainPage<'a> {
    /// The event's title and its language (`ar`, `en`).
    pub title: (&'a str, &'a str),
    /// State by its name: `scheduled`, `doors`, `live`, `hold`, `ended`.
    pub state: &'a str,
    /// The announced start, RFC 3339.
    pub starts_at: &'a str,
    /// What there is for whoever asks.
    pub offer: PlainOffer<'a>,
    /// What the ladder is doing, as listeners read it; empty if nothing.
    pub sentence: &'a str,
    /// Address of the event's status and report; empty while there is none.
    pub report: &'a str,
}

/// What there is for whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlainOffer<'a> {
    /// The sound.
    Listen {
        /// Address of an endless stream that any browser plays.
        mp3: &'a str,
        /// Address of the playlist for players of HLS.
        hls: &'a str,
    },
    /// A place in the waiting room.
    Wait {
        /// People ahead; unknown before the draw.
        ahead: Option<u64>,
        /// Seconds to wait, at least and at most, if anything can be said.
        seconds: Option<(u64, u64)>,
        /// When the page asks again, seconds.
        again_s: u64,
        /// Playlist of the delayed feed, where there is one.
        delayed: Option<&'a str>,
    },
    /// No place yet: the price of one is paid by waiting, where pages with code pay with work.
    Patience {
        /// When the page asks again, and joins the line, seconds.
        again_s: u64,
    },
    /// Neither, for now.
    Later {
        /// When the page asks again, seconds.
        again_s: u64,
    },
    /// The recording.
    Recording {
        /// Its address.
        mp3: &'a str,
    },
}

/// Makes the page.
pub fn plain_page(page: &PlainPage<'_>, language: Language) -> String {
    let of = |key: &str| text(language, key);
    let (words, again_s) = match page.offer {
        PlainOffer::Listen { .. } => (of("plain.listen").to_owned(), None),
        PlainOffer::Recording { .. } => (of("plain.recording").to_owned(), None),
        PlainOffer::Patience { again_s } => (of("plain.patience").to_owned(), Some(again_s)),
        PlainOffer::Later { again_s } => (of("plain.later").to_owned(), Some(again_s)),
        PlainOffer::Wait { ahead, seconds, again_s, .. } => {
            (waiting(language, ahead, seconds), Some(again_s))
        }
    };
    let words = if page.sentence.is_empty() { words } else { format!("{words} {}", page.sentence) };
    let mut refresh = String::new();
    if let Some(seconds) = again_s {
        writeln!(refresh, "<meta http-equiv=\"refresh\" content=\"{seconds}\">")
            .expect("a String takes everything");
    }
    let mut player = String::new();
    match page.offer {
        PlainOffer::Listen { mp3, hls } => {
            audio(&mut player, mp3);
            link(&mut player, hls, of("plain.hls"));
        }
        PlainOffer::Recording { mp3 } => audio(&mut player, mp3),
        // Opened beside this page, which loads itself anew.
        PlainOffer::Wait { delayed: Some(delayed), .. } => link(&mut player, delayed, of("plain.delayed")),
        PlainOffer::Wait { .. } | PlainOffer::Patience { .. } | PlainOffer::Later { .. } => {}
    }
    if !page.report.is_empty() {
        link(&mut player, page.report, of("plain.report"));
    }
    // Without code in the page nobody knows the reader's zone.
    let starts = page.starts_at.trim_end_matches('Z').split('.').next().unwrap_or_default().replace('T', " ");
    let when = of("plain.when").replace("{time}", &format!("{starts} UTC"));
    fill(include_str!("../pages/plain.html"), language, |name| {
        let mut escaped = String::new();
        match name {
            "title" => escape(&mut escaped, page.title.0),
            "title-lang" => escape(&mut escaped, page.title.1),
            "state" => escape(&mut escaped, page.state),
            "state-words" => escape(&mut escaped, of(&format!("state.{}", page.state))),
            "when" => escape(&mut escaped, &when),
            "words" => escape(&mut escaped, &words),
            "refresh" => escaped.push_str(&refresh),
            "player" => escaped.push_str(&player),
            _ => unreachable!("a test fills every slot of the page"),
        }
        escaped
    })
}

/// In numbers that need no plural: this page has no code that knows the forms.
fn waiting(language: Language, ahead: Option<u64>, seconds: Option<(u64, u64)>) -> String {
    let of = |key: &str| text(language, key);
    let Some(ahead) = ahead else { return of("words.room_draw").to_owned() };
    let mut words = of("plain.ahead").replace("{ahead}", &ahead.to_string());
    words.push(' ');
    match seconds {
        Some((low, high)) => {
            let [low, high] = [low / 60, high.div_ceil(60)].map(|minutes| minutes.to_string());
            words.push_str(&of("plain.minutes").replace("{low}", &low).replace("{high}", &high));
        }
        None => words.push_str(of("plain.unknown")),
    }
    words
}

fn audio(out: &mut String, address: &str) {
    out.push_str("<p><audio controls preload=\"none\" src=\"");
    escape(out, address);
    out.push_str("\"></audio></p>\n");
}

fn link(out: &mut String, address: &str, words: &str) {
    out.push_str("<p><a href=\"");
    escape(out, address);
    out.push_str("\">");
    escape(out, words);
    out.push_str("</a></p>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(offer: PlainOffer<'_>, language: Language) -> String {
        let page = PlainPage {
            title: ("A <b>talk</b>", "en"),
            state: "live",
            starts_at: "2026-11-22T20:00:00.000Z",
            offer,
            sentence: "",
            report: "/e/a/report?lang=ar&x",
        };
        plain_page(&page, language)
    }

    #[test]
    fn every_offer_has_its_page_in_both_languages() {
        let wait = PlainOffer::Wait {
            ahead: Some(17),
            seconds: Some((61, 130)),
            again_s: 9,
            delayed: Some("http://c/d.m3u8"),
        };
        let page = made(wait.clone(), Language::En);
        assert!(
            page.contains("<meta http-equiv=\"refresh\" content=\"9\">") && page.contains("17"),
            "{page}"
        );
        assert!(page.contains("1 to 3 minutes") && page.contains("A &lt;b&gt;talk"), "{page}");
        assert!(page.contains("2026-11-22 20:00:00 UTC") && page.contains("href=\"http://c/d.m3u8\""));
        assert!(page.contains("<a href=\"/e/a/report?lang=ar&amp;x\">"), "{page}");
        let page = made(wait, Language::Ar);
        assert!(page.contains("dir=\"rtl\"") && page.contains("17"));

        let draw = PlainOffer::Wait { ahead: None, seconds: None, again_s: 9, delayed: None };
        assert!(made(draw, Language::En).contains("drawn by lot"));
        let still = PlainOffer::Wait { ahead: Some(3), seconds: None, again_s: 9, delayed: None };
        assert!(made(still, Language::En).contains("unknown"));

        let listen = PlainOffer::Listen { mp3: "http://h/t/\"x/live/a/mp3-64.mp3", hls: "http://h/x.m3u8" };
        let page = made(listen, Language::En);
        assert!(page.contains("src=\"http://h/t/&quot;x/live/a/mp3-64.mp3\"") && !page.contains("refresh"));
        for language in Language::ALL {
            let patience = PlainOffer::Patience { again_s: 25 };
            assert!(made(patience.clone(), language).contains("content=\"25\""));
            for offer in [patience, PlainOffer::Later { again_s: 5 }, PlainOffer::Recording { mp3: "m" }] {
                let page = made(offer, language);
                assert!(!page.contains("{{") && page.ends_with("</html>\n"));
            }
        }
    }
}
