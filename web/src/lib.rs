//! The pages, plain modules without a build step, compiled into the binary.
//!
//! This crate holds bytes and two small decisions: which language a visitor reads, and which headers keep a page to
//! its own code. It opens no socket; control serves the listener's page and the list of events, origin the stage's:
//!
//! | Address | Answer |
//! | --- | --- |
//! | a page | [`page`], [`plain_page`] or [`report_page`] with [`PAGE_HEADERS`] and `Content-Language: {language}` |
//! | `/assets/{path}` | [`asset`] with its `Content-Type`, `ETag`, `Cache-Control` and `X-Content-Type-Options: nosniff` |
//!
//! A page names its modules as `/assets/{build}/{file}`, so relative imports stay under the same prefix and are
//! cacheable for ever; a prefix of another build is answered with this build's bytes, not cacheable.
//!
//! # The modules
//!
//! Types stand in JSDoc comments. Protocol is apart from presentation; what has no document in it is tested by
//! `web/tests/unit.js`, which a browser imports (feature `tests`).
//!
//! ```text
//!  page        presentation     protocol
//!  index       index.js         api.js
//!  listener    listener.js      listening.js ─┬─ tickets.js   control: a ticket, or the plain doors without one
//!                               replay.js     ├─ stream.js    push door: boxes.js → ring.js, comes back by itself
//!                                             ├─ player.js    Media Source Extensions, fed from the ring
//!                                             └─ plain.js     where those are missing: HLS, endless MP3
//!  stage       stage.js         whip.js, watch.js, microphone.js
//!  report      report.js        (made by the server, as is the plain page)
//!  all         text.js, dom.js  event.js, api.js, backoff.js
//! ```
//!
//! # What tests may look into
//!
//! `window.minassa` (listener): `audio`, `event`, `phase`, `part` (heard), `newest` (received), `delay` (seconds),
//! `wallclock(mediaTime)` (ms), `has(part)`, `replay`, and `counters`: `parts_received`, `parts_appended`,
//! `parts_missed`, `parts_asked`, `parts_recovered`, `duplicates`, `bytes`, `connects`, `reconnects`, `stalls`,
//! `jumps`, `jumped_ms`, `live_jumps`, `rebuilds`, `quota`. `window.minassaStage`: `state` (the last snapshot),
//! `phase`, `pc`, `track`, `remote` (the element that plays the others), `informed`, and `counters`: `offers`,
//! `silences`, `revivals`, `failures`.
//!
//! Addresses take `?lang=ar|en`; the listener's page `?mms` (allow ManagedMediaSource) and `#t=SECONDS` (where the
//! recording begins); the stage's `?raw` (no treatment of the microphone) and `?standby` (a seat's second source).

mod assets;
mod language;

#[cfg(feature = "tests")]
pub use assets::test_asset;
pub use assets::{Asset, asset, build};
pub use language::{Language, negotiate_language};

mod pages;
mod plain;
mod report;
pub use pages::{PAGE_HEADERS, Page, csp, page};
pub use plain::{PlainOffer, PlainPage, plain_page};
pub use report::{ReportForm, ReportPage, ReportPhase, no_report_page, report_page};
