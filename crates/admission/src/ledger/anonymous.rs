//! Histograms that point at nobody.
//!
//! A published group stands for at least [`K`] arrivals, and the types here cannot be built otherwise, neither by
//! counting nor by reading. What that means, and what was thought of:
//!
//! * **No address.** A process counts arrivals by the [`PrefixTag`] of the network they come from (IPv4 /24,
//!   IPv6 /48): an HMAC under a secret of this event that is in memory only and dropped after it. Tags travel between
//!   our processes; what is published has no tags, only sizes of groups.
//! * **Small groups.** Prefixes with fewer than `K` arrivals are in one rest. If the rest itself is smaller, the
//!   smallest published group joins it until it is not, so that total minus groups is never the size of a small group.
//! * **Differences between bins.** Every arrival is counted in one bin only; bins are flows, never running totals or
//!   sliding windows. So the difference of two bins is the size of no set of people. Totals over a time are to be made
//!   by adding published groups ([`Prefixes`] and [`Fingerprints`] of bins), never from raw counts: a raw total minus
//!   the published groups would be the small ones.
//! * **Differences between processes.** Only the merged bin is published. [`super::ProcessBin`] holds raw counts and
//!   cannot be appended to a ledger; with one process's histogram beside the merged one the other's would be known.
//! * **Fingerprints.** A JA4 names a TLS program, not a person, but a rare one may come close. It is published when at
//!   least `K` arrivals had it; fewer are carried over to the next bins until they are `K`, and those never published
//!   are forgotten. Published groups stay disjoint. What a crossing of the threshold says is that one of at least `K`
//!   arrived in that bin, not which.
//! * **Whom `K` counts.** Arrivals, not people, since telling people apart would take keeping something about each. Who
//!   arrives twenty times from one prefix makes a group of that prefix; it has no label, so it says that somewhere a
//!   prefix sent twenty. Other JA4+ fingerprints (of TCP, HTTP and so on) are never taken.
//! * **Not promised.** If everybody in a bin had the same fingerprint, the ledger says so; if all but three had it, that
//!   three had none or another (not which). Plain counters (refused: 3) are sums over everybody and are not groups by
//!   anything a person is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// Fewest arrivals in a published group.
pub const K: u64 = 20;
/// Most prefixes whose sizes are published one by one.
pub const TOP_MAX: usize = 16;
/// Most fingerprints published in a bin.
pub const FINGERPRINTS_MAX: usize = 32;
/// Most fingerprints waiting to become [`K`].
pub const CARRIED_MAX: usize = 4_096;

const DOMAIN: &[u8] = b"minassa prefix 1\0";

/// The secret of one event under which prefixes are counted. Made at random before doors, never written anywhere,
/// dropped after the end.
pub struct PrefixKey([u8; 32]);

/// A network that arrivals come from, without its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PrefixTag(pub u64);

impl PrefixKey {
    /// From 32 random bytes.
    pub const fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// The tag of the network of `address`: IPv4 /24, IPv6 /48. IPv4 inside IPv6 is IPv4.
    pub fn tag(&self, address: IpAddr) -> PrefixTag {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("an HMAC takes keys of any length");
        mac.update(DOMAIN);
        match address.to_canonical() {
            IpAddr::V4(v4) => mac.update(&v4.octets()[..3]),
            IpAddr::V6(v6) => mac.update(&v6.octets()[..6]),
        }
        let mac = mac.finalize().into_bytes();
        PrefixTag(u64::from_be_bytes(*mac.first_chunk().expect("SHA-256 has 32 bytes")))
    }
}

impl fmt::Debug for PrefixKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrefixKey").finish_non_exhaustive()
    }
}

/// The fingerprint of a TLS client hello: `t13d1516h2_8daaf6152771_02713d6af862`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ja4([u8; Self::LEN]);

/// A text that is no JA4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a JA4 is 10 letters and digits and twice 12 hexadecimal digits, joined by _")]
pub struct NoJa4;

impl Ja4 {
    const LEN: usize = 36;

    /// Its text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a JA4 is ASCII")
    }
}

impl FromStr for Ja4 {
    type Err = NoJa4;

    fn from_str(text: &str) -> Result<Self, NoJa4> {
        let bytes: [u8; Self::LEN] = text.as_bytes().try_into().map_err(|_| NoJa4)?;
        let fits = bytes.iter().enumerate().all(|(at, byte)| match at {
            0..10 => byte.is_ascii_alphanumeric(),
            10 | 23 => *byte == b'_',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(byte),
        });
        if fits { Ok(Self(bytes)) } else { Err(NoJa4) }
    }
}

impl TryFrom<String> for Ja4 {
    type Error = NoJa4;

    fn try_from(text: String) -> Result<Self, NoJa4> {
        text.parse()
    }
}

impl From<Ja4> for String {
    fn from(ja4: Ja4) -> Self {
        ja4.as_str().to_owned()
    }
}

impl fmt::Display for Ja4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Ja4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A histogram with a group smaller than [`K`], or one that no counting makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no histogram of ours: {0}")]
pub struct NotAnonymous(&'static str);

/// Arrivals by prefix: sizes of groups, without names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedPrefixes")]
pub struct Prefixes {
    top: Vec<u64>,
    rest: Rest,
    familiar: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rest {
    prefixes: u64,
    arrivals: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedPrefixes {
    top: Vec<u64>,
    rest: Rest,
    familiar: Option<u64>,
}

impl Prefixes {
    /// Publishes counts of arrivals. `uncounted` arrived when there was no room left for more prefixes; `seen` are the
    /// prefixes of earlier bins, where they are known. Nothing if fewer than [`K`] arrived.
    pub(super) fn publish(
        counts: &BTreeMap<PrefixTag, u64>,
        uncounted: u64,
        seen: Option<&BTreeSet<PrefixTag>>,
    ) -> Option<Self> {
        let sum = |sum: u64, count: &u64| sum.saturating_add(*count);
        let total = counts.values().fold(uncounted, sum);
        if total < K {
            return None;
        }
        let mut sizes: Vec<u64> = counts.values().copied().filter(|&count| count > 0).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let mut top: Vec<u64> = sizes.iter().copied().take(TOP_MAX).take_while(|&count| count >= K).collect();
        let mut rest = Rest {
            prefixes: (sizes.len() - top.len()) as u64 + u64::from(uncounted > 0),
            arrivals: total.saturating_sub(top.iter().fold(0, sum)),
        };
        while (1..K).contains(&rest.arrivals)
            && let Some(smallest) = top.pop()
        {
            rest = Rest { prefixes: rest.prefixes + 1, arrivals: rest.arrivals + smallest };
        }
        let known = |seen: &BTreeSet<PrefixTag>| {
            counts.iter().filter(|(tag, _)| seen.contains(tag)).map(|(_, count)| count).fold(0, sum)
        };
        let familiar = seen.map(known).filter(|&known| uncounted == 0 && splits(total, known));
        Some(Self { top, rest, familiar })
    }

    /// Arrivals from each of the prefixes that sent most, the greatest first; at most [`TOP_MAX`].
    pub fn top(&self) -> &[u64] {
        &self.top
    }

    /// How many other prefixes there were (those for which there was no room count as one).
    pub fn rest_prefixes(&self) -> u64 {
        self.rest.prefixes
    }

    /// Arrivals from the other prefixes.
    pub fn rest(&self) -> u64 {
        self.rest.arrivals
    }

    /// Arrivals from prefixes that were seen in an earlier bin of the event; unknown in the first minute, and where
    /// saying it would tell of a small group.
    pub fn familiar(&self) -> Option<u64> {
        self.familiar
    }

    /// All arrivals.
    pub fn total(&self) -> u64 {
        self.top.iter().fold(self.rest.arrivals, |sum, &count| sum.saturating_add(count))
    }
}

impl TryFrom<UncheckedPrefixes> for Prefixes {
    type Error = NotAnonymous;

    fn try_from(UncheckedPrefixes { top, rest, familiar }: UncheckedPrefixes) -> Result<Self, NotAnonymous> {
        let total = top.iter().try_fold(rest.arrivals, |sum, &count| sum.checked_add(count));
        let total = total.ok_or(NotAnonymous("prefixes: a sum beyond 64 bits"))?;
        if top.len() > TOP_MAX || !top.is_sorted_by(|a, b| a >= b) {
            Err(NotAnonymous("prefixes: too many, or not in order"))
        } else if total < K || top.iter().any(|&count| count < K) || (1..K).contains(&rest.arrivals) {
            Err(NotAnonymous("prefixes: a group of fewer than 20"))
        } else if rest.prefixes > rest.arrivals || (rest.prefixes == 0) != (rest.arrivals == 0) {
            Err(NotAnonymous("prefixes: a prefix without arrivals"))
        } else if familiar.is_some_and(|known| known > total || !splits(total, known)) {
            Err(NotAnonymous("prefixes: fewer than 20 familiar or new"))
        } else {
            Ok(Self { top, rest, familiar })
        }
    }
}

/// Whether both sides of a division in two are nothing or at least [`K`].
fn splits(total: u64, part: u64) -> bool {
    let whole = |side: u64| side == 0 || side >= K;
    whole(part) && whole(total.saturating_sub(part))
}

/// Arrivals by TLS fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedFingerprints")]
pub struct Fingerprints {
    mix: Vec<(Ja4, u64)>,
    rest: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedFingerprints {
    mix: Vec<(Ja4, u64)>,
    rest: u64,
}

impl Fingerprints {
    /// A mix to compare with, for an [`super::Opening`]: what former events or a rehearsal counted. Groups smaller than
    /// [`K`] are left out.
    pub fn reference(counts: &BTreeMap<Ja4, u64>) -> Option<Self> {
        Carried { counts: counts.clone(), rest: 0 }.publish()
    }

    /// Arrivals by fingerprint: the greatest first, equals by name; at most [`FINGERPRINTS_MAX`].
    pub fn mix(&self) -> &[(Ja4, u64)] {
        &self.mix
    }

    /// Arrivals with fingerprints for which there was no room.
    pub fn rest(&self) -> u64 {
        self.rest
    }
}

impl TryFrom<UncheckedFingerprints> for Fingerprints {
    type Error = NotAnonymous;

    fn try_from(UncheckedFingerprints { mix, rest }: UncheckedFingerprints) -> Result<Self, NotAnonymous> {
        let total = mix.iter().try_fold(rest, |sum, (_, count)| sum.checked_add(*count));
        if total.is_none() {
            Err(NotAnonymous("fingerprints: a sum beyond 64 bits"))
        } else if mix.len() > FINGERPRINTS_MAX || !mix.is_sorted_by(|a, b| (b.1, a.0) < (a.1, b.0)) {
            Err(NotAnonymous("fingerprints: too many, or not in order"))
        } else if total == Some(0) || mix.iter().any(|&(_, count)| count < K) || (1..K).contains(&rest) {
            Err(NotAnonymous("fingerprints: a group of fewer than 20"))
        } else {
            Ok(Self { mix, rest })
        }
    }
}

/// Fingerprints not published yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Carried {
    counts: BTreeMap<Ja4, u64>,
    rest: u64,
}

impl Carried {
    pub(super) fn add(&mut self, ja4: Ja4, arrivals: u64) {
        if self.counts.len() < CARRIED_MAX || self.counts.contains_key(&ja4) {
            let count = self.counts.entry(ja4).or_default();
            *count = count.saturating_add(arrivals);
        } else {
            self.rest = self.rest.saturating_add(arrivals);
        }
    }

    pub(super) fn add_rest(&mut self, arrivals: u64) {
        self.rest = self.rest.saturating_add(arrivals);
    }

    /// Takes out what may be published.
    pub(super) fn publish(&mut self) -> Option<Fingerprints> {
        let mut mix: Vec<(Ja4, u64)> =
            self.counts.iter().filter(|(_, count)| **count >= K).map(|(ja4, count)| (*ja4, *count)).collect();
        mix.sort_unstable_by(|a, b| (b.1, a.0).cmp(&(a.1, b.0)));
        mix.truncate(FINGERPRINTS_MAX);
        for (ja4, _) in &mix {
            self.counts.remove(ja4);
        }
        let rest = if self.rest >= K { std::mem::take(&mut self.rest) } else { 0 };
        (!mix.is_empty() || rest > 0).then_some(Fingerprints { mix, rest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(sizes: &[u64]) -> BTreeMap<PrefixTag, u64> {
        sizes.iter().enumerate().map(|(tag, size)| (PrefixTag(tag as u64), *size)).collect()
    }

    fn publish(sizes: &[u64]) -> Option<(Vec<u64>, u64, u64)> {
        let published = Prefixes::publish(&counts(sizes), 0, None)?;
        Some((published.top, published.rest.prefixes, published.rest.arrivals))
    }

    #[test]
    fn no_group_is_smaller_than_k() {
        assert_eq!(publish(&[]), None);
        assert_eq!(publish(&[19]), None);
        assert_eq!(publish(&[20]), Some((vec![20], 0, 0)));
        assert_eq!(publish(&[1; 20]), Some((vec![], 20, 20)));
        assert_eq!(publish(&[50, 30, 20, 19, 1]), Some((vec![50, 30, 20], 2, 20)));
        // A rest of 19 would be known from the total: the smallest group joins it.
        assert_eq!(publish(&[50, 30, 20, 19]), Some((vec![50, 30], 2, 39)));
        assert_eq!(publish(&[25, 3]), Some((vec![], 2, 28)));
        let many = publish(&[40; 30]).unwrap();
        assert_eq!((many.0.len(), many.1, many.2), (TOP_MAX, 14, 560));
    }

    #[test]
    fn familiar_is_said_where_neither_side_is_small() {
        let seen = |below: u64| (0..below).map(PrefixTag).collect::<BTreeSet<_>>();
        let publish = |sizes: &[u64], uncounted: u64, below: u64| {
            Prefixes::publish(&counts(sizes), uncounted, Some(&seen(below))).unwrap()
        };
        let familiar = |below: u64| publish(&[30, 10, 9, 51], 0, below).familiar();
        assert_eq!(familiar(0), Some(0));
        assert_eq!(familiar(1), Some(30));
        assert_eq!(familiar(3), Some(49));
        assert_eq!(familiar(4), Some(100));
        assert_eq!(publish(&[85, 10, 5], 0, 1).familiar(), None, "15 new ones");
        let published = publish(&[85], 30, 1);
        assert_eq!((published.familiar(), published.rest_prefixes(), published.rest()), (None, 1, 30));
    }

    #[test]
    fn a_histogram_that_tells_too_much_cannot_be_read() {
        let read = |text: &str| serde_json::from_str::<Prefixes>(text).is_ok();
        assert!(read(r#"{"top":[20],"rest":{"prefixes":3,"arrivals":20},"familiar":20}"#));
        for text in [
            r#"{"top":[19],"rest":{"prefixes":3,"arrivals":20},"familiar":null}"#,
            r#"{"top":[20],"rest":{"prefixes":3,"arrivals":19},"familiar":null}"#,
            r#"{"top":[20,30],"rest":{"prefixes":0,"arrivals":0},"familiar":null}"#,
            r#"{"top":[],"rest":{"prefixes":0,"arrivals":0},"familiar":null}"#,
            r#"{"top":[20],"rest":{"prefixes":21,"arrivals":20},"familiar":null}"#,
            r#"{"top":[20],"rest":{"prefixes":0,"arrivals":20},"familiar":null}"#,
            r#"{"top":[40],"rest":{"prefixes":0,"arrivals":0},"familiar":39}"#,
            r#"{"top":[40],"rest":{"prefixes":0,"arrivals":0},"familiar":60}"#,
            r#"{"top":[18446744073709551615,20],"rest":{"prefixes":0,"arrivals":0},"familiar":null}"#,
            r#"{"top":[40],"rest":{"prefixes":0,"arrivals":0},"familiar":null,"x":1}"#,
        ] {
            assert!(!read(text), "{text}");
        }
        let a = "t13d1516h2_8daaf6152771_02713d6af862";
        let read = |mix: &str, rest| {
            serde_json::from_str::<Fingerprints>(&format!(r#"{{"mix":[{mix}],"rest":{rest}}}"#)).is_ok()
        };
        assert!(read(&format!(r#"["{a}",20]"#), 0));
        assert!(!read(&format!(r#"["{a}",19]"#), 0));
        assert!(!read(&format!(r#"["{a}",20]"#), 19));
        assert!(!read(&format!(r#"["{a}",20],["{a}",20]"#), 0));
        assert!(!read("", 0));
        assert!(!read(r#"["t13d1516h2_8daaf6152771_02713d6af86g",20]"#, 0));
    }

    #[test]
    fn a_rare_fingerprint_waits_until_it_is_not_alone() {
        let ja4 = |n: u8| format!("t13d1516h2_8daaf6152771_02713d6af8{n:02x}").parse::<Ja4>().unwrap();
        let mut carried = Carried::default();
        carried.add(ja4(1), 19);
        carried.add(ja4(2), 40);
        let first = carried.publish().unwrap();
        assert_eq!(first.mix(), [(ja4(2), 40)]);
        carried.add(ja4(1), 1);
        assert_eq!(carried.publish().unwrap().mix(), [(ja4(1), 20)]);
        assert_eq!(carried.publish(), None);
        for n in 0..40 {
            carried.add(ja4(n), 20 + u64::from(n));
        }
        assert_eq!(carried.publish().unwrap().mix().len(), FINGERPRINTS_MAX);
        assert_eq!(carried.publish().unwrap().mix().len(), 40 - FINGERPRINTS_MAX, "the others follow");
    }

    #[test]
    fn a_tag_is_of_the_network_and_of_the_event() {
        let key = PrefixKey::new([1; 32]);
        let tag = |text: &str| key.tag(text.parse().unwrap());
        assert_eq!(tag("192.0.2.1"), tag("192.0.2.200"));
        assert_eq!(tag("192.0.2.1"), tag("::ffff:192.0.2.9"));
        assert_ne!(tag("192.0.2.1"), tag("192.0.3.1"));
        assert_eq!(tag("2001:db8:1::1"), tag("2001:db8:1:ffff::2"));
        assert_ne!(tag("2001:db8:1::1"), tag("2001:db8:2::1"));
        assert_ne!(tag("192.0.2.1"), PrefixKey::new([2; 32]).tag("192.0.2.1".parse().unwrap()));
    }
}
