//! Addresses of a server's doors, and how long to wait before knocking again.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;

/// Waits between attempts: each twice the last, up to `most`, and every one drawn between half and one and a half of
/// that, so that a crowd that was cut off together does not come back together.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// Something went well: begin anew.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }

    pub(crate) fn wait(&mut self, chance: &mut StdRng) -> Duration {
        let wait = self.next.mul_f64(0.5 + chance.random::<f64>());
        self.next = (self.next * 2).min(self.most);
        wait
    }
}

/// `address`, resolved against `base` if it is only a path (RFC 9110 section 10.2.2, `Location`).
pub(crate) fn resolve(base: &str, address: &str) -> String {
    if !address.starts_with('/') || address.starts_with("//") {
        return address.to_owned();
    }
    let authority_end = base
        .find("://")
        .and_then(|scheme| base[scheme + 3..].find('/').map(|path| scheme + 3 + path))
        .unwrap_or(base.len());
    format!("{}{address}", &base[..authority_end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn waits_double_with_chance_and_a_limit() {
        let mut chance = StdRng::seed_from_u64(1);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(400));
        for nominal in [100, 200, 400, 400] {
            let wait = backoff.wait(&mut chance).as_millis();
            assert!((nominal / 2..=nominal * 3 / 2).contains(&wait), "{wait} of {nominal}");
        }
        backoff.reset();
        assert!(backoff.wait(&mut chance) <= Duration::from_millis(150));
    }

    #[test]
    fn locations_are_resolved() {
        assert_eq!(resolve("http://a:1/whip/x", "/whip/x/7"), "http://a:1/whip/x/7");
        assert_eq!(resolve("http://a:1", "/whip/x/7"), "http://a:1/whip/x/7");
        assert_eq!(resolve("http://a:1/whip/x", "http://b/7"), "http://b/7");
    }
}
