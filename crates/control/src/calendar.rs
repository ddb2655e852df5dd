//! An event as a calendar entry (RFC 5545).

use std::time::Duration;

use model::{Event, UnixTime};

/// The length that is shown when none was announced.
const USUAL_DURATION: Duration = Duration::from_secs(3_600);
/// Longest line, octets without its end (RFC 5545, 3.1).
const LINE_BYTES_MAX: usize = 75;

/// The whole file. `title` is the event's title in the language of the caller, `page` the listener's page.
pub(crate) fn render(event: &Event, title: &str, page: &str, host: &str, now: UnixTime) -> String {
    let end = event.starts_at.plus(event.duration.unwrap_or(USUAL_DURATION));
    let lines = [
        "BEGIN:VCALENDAR".to_owned(),
        "VERSION:2.0".to_owned(),
        "PRODID:-//Minassa//Minassa//EN".to_owned(),
        "METHOD:PUBLISH".to_owned(),
        "BEGIN:VEVENT".to_owned(),
        format!("UID:{}@{}", event.slug, text(host)),
        format!("DTSTAMP:{}", moment(now)),
        format!("DTSTART:{}", moment(event.starts_at)),
        format!("DTEND:{}", moment(end)),
        format!("SEQUENCE:{}", event.revision.saturating_sub(1)),
        format!("SUMMARY:{}", text(title)),
        format!("URL:{page}"),
        format!("DESCRIPTION:{}", text(page)),
        "END:VEVENT".to_owned(),
        "END:VCALENDAR".to_owned(),
    ];
    lines.iter().fold(String::new(), |mut file, line| {
        fold(line, &mut file);
        file
    })
}

/// `20261122T170000Z`: RFC 3339 without its punctuation and fraction.
fn moment(time: UnixTime) -> String {
    let text = time.to_string();
    let seconds = text.split('.').next().unwrap_or(&text);
    let digits = seconds.chars().filter(|c| !matches!(c, '-' | ':' | 'Z'));
    digits.chain(['Z']).collect()
}

/// A TEXT value (3.3.11). Control characters are gone from titles already.
fn text(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '\\' | ';' | ',') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// Folds a line between characters, never within one.
fn fold(line: &str, file: &mut String) {
    let mut room = LINE_BYTES_MAX;
    for c in line.chars() {
        if c.len_utf8() > room {
            file.push_str("\r\n ");
            room = LINE_BYTES_MAX - 1;
        }
        file.push(c);
        room -= c.len_utf8();
    }
    file.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::event;

    #[test]
    fn an_event_can_be_put_into_a_calendar() {
        let mut event = event("a-talk");
        event.duration = Some(Duration::from_secs(5_400));
        event.revision = 3;
        let now = UnixTime::parse("2026-11-01T08:09:10.5Z").unwrap();
        let title = format!("One; two, three \\ {}", "حديث ".repeat(20));
        let file = render(&event, title.trim_end(), "http://talk.example/e/a-talk", "talk.example", now);
        let unfolded = file.replace("\r\n ", "");
        for line in [
            "UID:a-talk@talk.example",
            "DTSTAMP:20261101T080910Z",
            "DTSTART:20261122T200000Z",
            "DTEND:20261122T213000Z",
            "SEQUENCE:2",
            "URL:http://talk.example/e/a-talk",
        ] {
            assert!(unfolded.contains(&format!("\r\n{line}\r\n")), "{line} in {unfolded}");
        }
        let summary = format!("\r\nSUMMARY:One\\; two\\, three \\\\ {}\r\n", "حديث ".repeat(20).trim_end());
        assert!(unfolded.contains(&summary), "{unfolded}");
        assert!(file.starts_with("BEGIN:VCALENDAR\r\n") && file.ends_with("END:VCALENDAR\r\n"));
        for line in file.split("\r\n") {
            assert!(line.len() <= LINE_BYTES_MAX, "{line}");
            assert!(!line.contains('\n'));
        }
    }
}
