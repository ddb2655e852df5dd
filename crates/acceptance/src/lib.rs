//! What acceptance tests stand on: a server started as a user starts it ([`server`]), real browsers ([`browser`]),
//! ffmpeg as an independent player ([`ffmpeg`]), pages of others ([`site`]), and ears made of numbers ([`signal`]).
//!
//! Nothing here reaches into the server: tests see what listeners, speakers and operators see.

// This is a harness around real processes: it waits on the real clock, always for a condition and with a deadline.
#![allow(clippy::disallowed_methods)]

pub mod browser;
pub mod ffmpeg;
pub mod server;
pub mod signal;
pub mod site;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Calls `condition` until it yields a value, at most for `within`.
///
/// # Errors
/// If the time is up, naming `what` and the last reason given.
pub fn wait_for<T>(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    let mut last = String::from("not yet");
    loop {
        match condition() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => {}
            Err(error) => last = format!("{error:#}"),
        }
        if Instant::now() >= deadline {
            bail!("waited {within:?} for {what}: {last}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How often a repeated trial runs: `MINASSA_REPEAT`, else `default`. The closing figures of an issue are made with
/// the full number; every run of the tests makes some.
pub fn repeats(default: usize) -> usize {
    std::env::var("MINASSA_REPEAT").ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Whether this is one of the long trials, on a machine that does nothing else.
pub fn is_trial() -> bool {
    std::env::var_os("MINASSA_REPEAT").is_some()
}

/// Holds a delay against its bound. The long trials (`cargo xtask trials`, on a machine that does nothing else) hold it
/// exactly; an ordinary run of the tests, which may share its machine, prints it and fails only at four times the bound.
///
/// # Panics
/// If the bound is broken.
pub fn hold_delay(what: &str, value: f64, bound: f64) {
    let limit = if is_trial() { bound } else { 4.0 * bound };
    assert!(value <= limit, "{what}: {value:.3} is over {limit:.3} (the bound is {bound:.3})");
}

/// The value at `quantile` (0 to 1) of `values`, by the nearest rank.
pub fn quantile(values: &[f64], quantile: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (quantile * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank.min(sorted.len()).saturating_sub(1)).copied().unwrap_or(f64::NAN)
}
