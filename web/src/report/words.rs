//! What the report says, in the reader's language.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use admission::report::Moment;
use admission::verdict::Class;
use serde::Serialize;

use super::html::{Html, isolated};
use crate::Language;

const AR: &str = include_str!("../../text/report.ar.json");
const EN: &str = include_str!("../../text/report.en.json");

/// The words of a language.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    pub(super) language: Language,
    table: &'static BTreeMap<String, String>,
}

impl Words {
    pub(super) fn of(language: Language) -> Self {
        static TABLES: LazyLock<[BTreeMap<String, String>; 2]> = LazyLock::new(|| {
            [AR, EN].map(|source| serde_json::from_str(source).expect("a test reads both tables"))
        });
        let [ar, en] = &*TABLES;
        let table = if language == Language::Ar { ar } else { en };
        Self { language, table }
    }

    /// The text of a key. A test looks up every key that is used.
    pub(super) fn get(&self, key: &str) -> &'static str {
        debug_assert!(self.table.contains_key(key), "there is no text {key}");
        self.table.get(key).map_or("", String::as_str)
    }

    /// The text of a key in which `{name}` are values.
    pub(super) fn say(&self, key: &str, values: &[(&str, Html)]) -> Html {
        let mut html = Html::default();
        self.parts(key, |part| match part {
            Part::Text(text) => {
                html.text(text);
            }
            Part::Value(name) => {
                if let Some((_, value)) = values.iter().find(|(known, _)| *known == name) {
                    html.add(value);
                }
            }
        });
        html
    }

    /// Likewise as plain text, for where no markup can be.
    pub(super) fn say_plainly(&self, key: &str, values: &[(&str, &str)]) -> String {
        let mut said = String::new();
        self.parts(key, |part| match part {
            Part::Text(text) => said.push_str(text),
            Part::Value(name) => {
                said.extend(values.iter().find(|(known, _)| *known == name).map(|(_, value)| *value));
            }
        });
        said
    }

    fn parts(&self, key: &str, mut take: impl FnMut(Part<'static>)) {
        let mut rest = self.get(key);
        while let Some((before, after)) = rest.split_once('{') {
            let Some((name, after)) = after.split_once('}') else { break };
            take(Part::Text(before));
            take(Part::Value(name));
            rest = after;
        }
        take(Part::Text(rest));
    }

    /// A length of time as one would say it, in at most two units.
    pub(super) fn duration(&self, millis: u64) -> String {
        let unit = |key: &str, n: String| self.say_plainly(key, &[("n", &n)]);
        let (seconds, minutes, hours) = (millis / 1_000, millis / 60_000, millis / 3_600_000);
        let two = |first: String, rest: u64, key: &str| {
            if rest == 0 { first } else { format!("{first} {}", unit(key, rest.to_string())) }
        };
        match millis {
            0..1_000 => unit("duration.ms", millis.to_string()),
            1_000..10_000 if millis % 1_000 >= 100 => {
                unit("duration.s", format!("{seconds}.{}", millis % 1_000 / 100))
            }
            1_000..60_000 => unit("duration.s", seconds.to_string()),
            60_000..3_600_000 => two(unit("duration.min", minutes.to_string()), seconds % 60, "duration.s"),
            _ => two(unit("duration.h", count(hours)), minutes % 60, "duration.min"),
        }
    }

    /// Likewise, within a sentence.
    pub(super) fn lasting(&self, millis: u64) -> Html {
        isolated(&self.duration(millis))
    }

    /// What a class is called.
    pub(super) fn class(&self, class: Class) -> &'static str {
        self.get(&format!("class.{}", class_name(class)))
    }
}

enum Part<'a> {
    Text(&'a str),
    Value(&'a str),
}

/// A class as keys and the sheet name it.
pub(super) fn class_name(class: Class) -> &'static str {
    match class {
        Class::Crowd => "crowd",
        Class::L7 => "l7",
        Class::L34 => "l34",
        Class::SelfInflicted => "self",
        Class::Mixed => "mixed",
        Class::Insufficient => "insufficient",
    }
}

/// What a value is called in JSON: the end of its key.
pub(super) fn name(value: impl Serialize) -> String {
    let named = serde_json::to_value(value).ok();
    named.as_ref().and_then(|name| name.as_str()).unwrap_or_default().to_owned()
}

/// A number as people read it: 1,234,567. Digits are the same in both languages, as on the page without code.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Likewise, within a sentence.
pub(super) fn counted(number: u64) -> Html {
    isolated(&count(number))
}

/// Basis points as a percentage: 95 %, 0.5 %.
pub(super) fn percent(basis_points: u64) -> String {
    let (whole, tenths) = (basis_points / 100, basis_points % 100 / 10);
    if whole < 10 && tenths > 0 { format!("{whole}.{tenths} %") } else { format!("{} %", count(whole)) }
}

/// How times are written: with their date where the figures cover more than a day.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) dated: bool,
}

impl Clock {
    /// `20:00:05`, or with the date before it.
    pub(super) fn write(self, moment: Moment) -> String {
        let text = moment.to_string();
        let time = text.get(11..19).unwrap_or_default();
        if self.dated { format!("{} {time}", text.get(..10).unwrap_or_default()) } else { time.to_owned() }
    }

    /// Likewise with the zone, for where no markup can be.
    pub(super) fn write_utc(self, moment: Moment) -> String {
        format!("{} UTC", self.write(moment))
    }

    /// Likewise as HTML that says which moment it is; the page adds the reader's own time.
    pub(super) fn show(self, moment: Moment) -> Html {
        let mut html = Html::default();
        html.raw("<time dir=\"ltr\" datetime=\"").text(&moment.to_string()).raw("\">");
        html.text(&self.write_utc(moment)).raw("</time>");
        html
    }
}

/// With its date.
pub(super) const DATED: Clock = Clock { dated: true };
