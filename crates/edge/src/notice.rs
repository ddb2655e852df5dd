//! What listeners of the pushed stream are told between parts: an `emsg` box with a short JSON text.
//!
//! ```text
//! {"s":"hold","n":1234,"l":0,"t":1795374000480,"u":1795374300000,"m":{"ar":"…","en":"…"}}
//!   │          │        │     │                 │                 └ message of a hold, if there is one
//!   │          │        │     │                 └ when a hold is expected to end, if that is known, UNIX ms
//!   │          │        │     └ end of the newest part in anchored civil time, UNIX ms, if the anchor is known
//!   │          │        └ ladder level, 0 to 6
//!   │          └ listeners on all edges; on this one alone while control is silent
//!   └ scheduled, doors, live, hold, ended
//! ```

use backend::wire::StateRecord;
use model::{PartNumber, ShowState};
use serde::Serialize;

use crate::channel::Facts;

/// `scheme_id_uri` of the box.
pub(crate) const SCHEME: &str = "urn:minassa:status:1";

#[derive(Serialize)]
struct Words<'a> {
    s: &'a str,
    n: u64,
    l: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    t: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    u: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    m: Option<Message<'a>>,
}

#[derive(Serialize)]
struct Message<'a> {
    ar: &'a str,
    en: &'a str,
}

/// What is to be said now. `here` is the number of listeners of this edge.
pub(crate) fn words(facts: &Facts, newest: Option<PartNumber>, here: u64) -> String {
    // Without a word from origin the programme is heard all the same, if there is one.
    let silent = if newest.is_some() { StateRecord::Live } else { StateRecord::Scheduled };
    let state = facts.status.as_ref().map_or(&silent, |status| &status.state);
    let (until, message) = match state {
        StateRecord::Hold { until, message } => {
            let said = !message.ar.is_empty() || !message.en.is_empty();
            (
                until.map(|until| until.as_millis()),
                said.then_some(Message { ar: &message.ar, en: &message.en }),
            )
        }
        _ => (None, None),
    };
    let end = newest.zip(facts.anchored_doors());
    let words = Words {
        s: ShowState::from(state.clone()).name(),
        n: facts.audience.unwrap_or(here),
        l: facts.level,
        t: end.map(|(newest, doors)| doors.plus(newest.next().start().to_duration()).as_millis()),
        u: until,
        m: message,
    };
    serde_json::to_string(&words).expect("texts and numbers serialise")
}

/// The last of them.
pub(crate) fn last_words() -> String {
    r#"{"s":"ended"}"#.to_owned()
}
