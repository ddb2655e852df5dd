//! The pages themselves, and the headers that keep them to their own code.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use crate::{Language, build};

pub(crate) const TEXT_AR: &str = include_str!("../text/ar.json");
pub(crate) const TEXT_EN: &str = include_str!("../text/en.json");

/// A page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Page {
    /// `GET /` at control: the list of events.
    Index,
    /// `GET /e/{event}` at control: listening, and the replay afterwards.
    Listener,
    /// `GET /e/{event}/stage` at origin: green room and stage.
    Stage,
    /// `404` of a page's address.
    NotFound,
}

impl Page {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Index, Self::Listener, Self::Stage, Self::NotFound];

    /// The page of a file name with or without `.html`: `index`, `listener`, `stage`, `missing`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.strip_suffix(".html").unwrap_or(name) {
            "index" => Some(Self::Index),
            "listener" => Some(Self::Listener),
            "stage" => Some(Self::Stage),
            "missing" => Some(Self::NotFound),
            _ => None,
        }
    }
}

/// Content security policy of every page: code, style and text only from the page's own origin, nothing inline;
/// requests and media from anywhere, because the push and files doors are origins of their own whose ports are
/// known only at run time.
pub const fn csp() -> &'static str {
    "default-src 'self'; connect-src *; media-src * blob:; img-src 'self' data:; object-src 'none'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

/// Headers of every page, besides `Content-Language`. Names are lower case.
pub const PAGE_HEADERS: &[(&str, &str)] = &[
    ("content-type", "text/html; charset=utf-8"),
    ("content-security-policy", csp()),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-cache"),
    ("vary", "accept-language"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=(self)"),
];

/// The page in a language, complete: what it shows of an event it fetches by itself.
pub fn page(page: Page, language: Language) -> String {
    fill(source(page), language, |_| unreachable!("only the plain page has slots"))
}

/// One text of a language.
pub(crate) fn text(language: Language, key: &str) -> &'static str {
    texts(language).get(key).map_or("", String::as_str)
}

/// A page's source with its texts, and with what `slot` gives, as HTML, for each `{{=name}}`.
pub(crate) fn fill(source: &str, language: Language, slot: impl Fn(&str) -> String) -> String {
    let table = texts(language);
    let mut out = String::with_capacity(source.len() + table_source(language).len() + 1024);
    let mut rest = source;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").expect("every placeholder of a page ends");
        out.push_str(before);
        match name {
            "lang" => out.push_str(language.tag()),
            "dir" => out.push_str(language.direction()),
            "assets" => write!(out, "/assets/{}", build()).expect("a String takes everything"),
            // Data inside a script element: `<` is the one letter that could end it.
            "text" => out.push_str(&table_source(language).trim_end().replace('<', "\\u003c")),
            name if name.starts_with('=') => out.push_str(&slot(&name[1..])),
            key => escape(&mut out, table.get(key).expect("a test looks up every key that a page names")),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The text table of a language, by key.
fn texts(language: Language) -> &'static BTreeMap<String, String> {
    static TABLES: LazyLock<[BTreeMap<String, String>; 2]> = LazyLock::new(|| {
        Language::ALL
            .map(|language| serde_json::from_str(table_source(language)).expect("a test reads both tables"))
    });
    let [ar, en] = &*TABLES;
    match language {
        Language::Ar => ar,
        Language::En => en,
    }
}

const fn table_source(language: Language) -> &'static str {
    match language {
        Language::Ar => TEXT_AR,
        Language::En => TEXT_EN,
    }
}

const fn source(page: Page) -> &'static str {
    match page {
        Page::Index => include_str!("../pages/index.html"),
        Page::Listener => include_str!("../pages/listener.html"),
        Page::Stage => include_str!("../pages/stage.html"),
        Page::NotFound => include_str!("../pages/missing.html"),
    }
}

/// Appends text as HTML, fit for content and for attributes in double quotes.
pub(crate) fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests;
