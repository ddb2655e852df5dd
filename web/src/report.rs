//! The incident report as a page, and while the event runs, its public status.
//!
//! Made by the server as a whole, so it needs no code in the browser and can be saved, printed and mailed: plots are
//! SVG inside the page, coloured by the sheet alone (light and dark), each with a title, a description and its figures
//! as a table. What people wrote goes through [`html::Html::text`] and nothing else gets into the markup.
//!
//! The words are in tables of their own (`web/text/report.*.json`): every listener's page carries the other table, and
//! nobody who only wants to listen needs these.
//!
//! Time runs from left to right in both languages, as it does in print in Arabic too, and the page says so.

mod html;
mod plot;
mod sections;
mod words;

#[cfg(test)]
mod tests;

use admission::report::Report;

use crate::pages::fill;
use crate::{Language, build};
use html::Html;
use words::Words;

/// How often a page that is not final asks again, seconds.
const EVERY_S: u64 = 10;

/// What the page says.
#[derive(Clone, Copy, Debug)]
pub struct ReportPage<'a> {
    /// The event's title and its language (`ar`, `en`).
    pub title: (&'a str, &'a str),
    /// What the ledger says.
    pub report: &'a Report,
    /// Whether more is to come.
    pub phase: ReportPhase,
}

/// Whether more is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportPhase {
    /// The event runs.
    Running,
    /// It is over, but its ledger is not closed.
    Closing,
    /// Nothing more comes.
    Final,
}

/// How the page is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportForm {
    /// From the server: with links, and asking again by itself while more is to come.
    Served,
    /// As a file: without links and code, with its style inside.
    Alone,
}

/// Makes the page.
pub fn report_page(page: &ReportPage<'_>, form: ReportForm, language: Language) -> String {
    let words = Words::of(language);
    let more_comes = form == ReportForm::Served && page.phase != ReportPhase::Final;
    let title = words.get(match page.phase {
        ReportPhase::Running => "title.running",
        ReportPhase::Closing => "title.closing",
        ReportPhase::Final => "title.final",
    });
    let body = sections::body(page, form, &words, title);
    let head = Head { title, event_title: page.title.0, event: &page.report.event, form, more_comes };
    whole(&head, body, language)
}

/// The page of an event about which nothing can be said: nothing was written yet, or its ledger `is_broken` from the
/// first line. `event` is its slug.
pub fn no_report_page(title: (&str, &str), event: &str, is_broken: bool, language: Language) -> String {
    let words = Words::of(language);
    let mut body = Html::default();
    sections::masthead(&mut body, title, words.get("title.none"), "scheduled");
    body.raw("<p>").text(words.get(if is_broken { "none.broken" } else { "none" })).raw("</p>\n");
    sections::back(&mut body, event, &words);
    let form = ReportForm::Served;
    let more_comes = !is_broken;
    let head = Head { title: words.get("title.none"), event_title: title.0, event, form, more_comes };
    whole(&head, body, language)
}

struct Head<'a> {
    title: &'a str,
    event_title: &'a str,
    event: &'a str,
    form: ReportForm,
    more_comes: bool,
}

fn whole(head: &Head<'_>, body: Html, language: Language) -> String {
    let served = head.form == ReportForm::Served;
    let body = body.into_string();
    fill(include_str!("../pages/report.html"), language, |name| {
        let mut out = Html::default();
        match name {
            "title" => {
                out.text(head.title).raw(" · ").text(&without_overrides(head.event_title));
            }
            "refresh" if head.more_comes => {
                out.raw("<noscript><meta http-equiv=\"refresh\" content=\"").number(EVERY_S);
                out.raw("\"></noscript>\n");
            }
            "style" if served => {
                for sheet in ["style.css", "report.css"] {
                    out.raw("<link rel=\"stylesheet\" href=\"").asset(sheet).raw("\">\n");
                }
                out.raw("<link rel=\"icon\" href=\"").asset("icon.svg").raw("\" type=\"image/svg+xml\">\n");
                out.raw("<link rel=\"alternate\" type=\"application/json\" href=\"/api/events/");
                out.text(head.event).raw("/report.json\">\n");
                out.raw("<link rel=\"modulepreload\" href=\"").asset("text.js").raw("\">\n");
                out.raw("<script type=\"module\" src=\"").asset("report.js").raw("\"></script>\n");
            }
            // A file loads nothing, wherever it is opened.
            "style" => {
                out.raw("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; ");
                out.raw("style-src 'unsafe-inline'\">\n<style>\n").raw(include_str!("../static/style.css"));
                out.raw(include_str!("../static/report.css")).raw("</style>\n");
            }
            "home" if served => {
                out.raw(" href=\"/\"");
            }
            "switch" if served => {
                for (tag, name) in [("ar", "العربية"), ("en", "English")] {
                    out.raw("<a href=\"?lang=").text(tag).raw("\" hreflang=\"").text(tag);
                    out.raw("\" lang=\"").text(tag).raw("\" data-switch=\"").text(tag).raw("\">");
                    out.text(name).raw("</a>\n");
                }
            }
            "every" if head.more_comes => {
                out.raw(" data-every=\"").number(EVERY_S).raw("\"");
            }
            "body" => return body.clone(),
            "refresh" | "home" | "switch" | "every" => {}
            _ => unreachable!("a test fills every slot of the page"),
        }
        out.into_string()
    })
}

/// Text without the characters that turn the direction of what follows them: inside `<title>` nothing isolates it.
fn without_overrides(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')).collect()
}

impl Html {
    /// The address of one of our files.
    fn asset(&mut self, name: &'static str) -> &mut Self {
        self.raw("/assets/").text(build()).raw("/").raw(name)
    }
}
