//! What several tests need.

use std::time::Duration;

use model::{Bilingual, Event, GreenRoom, UnixTime};

/// An event without seats.
pub(crate) fn event(slug: &str) -> Event {
    Event {
        slug: slug.parse().unwrap(),
        revision: 1,
        title: Bilingual { ar: String::new(), en: "A talk".into() },
        starts_at: UnixTime::parse("2026-11-22T20:00:00Z").unwrap(),
        duration: None,
        doors_before: Duration::from_secs(900),
        auto_live: true,
        green_room: GreenRoom::Open,
        hold_on_silence: false,
        slate: None,
        invite_key: [1; 32],
        signing_key: [2; 32],
        seats: Vec::new(),
        created_at: UnixTime::parse("2026-11-01T00:00:00Z").unwrap(),
    }
}
