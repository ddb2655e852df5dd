//! Where tokens come from, told apart just enough to share places fairly between address prefixes.
//!
//! An address prefix (IPv4 /24, IPv6 /48) is hashed with a key of the event into one of 2^18 *tags*; the census
//! counts the tokens of each tag in an array of that size, and that is all that is ever kept of an address. One array
//! instead of a sketch of the heaviest prefixes has four merits: its size does not depend on who comes, nothing can be
//! evicted by a flood of prefixes, every count and every sum is exact, and it can be recomputed from the tokens alone.
//! Its price: an honest prefix shares its tag with one of `k` attacking prefixes with a probability of `k / 2^18`,
//! and then shares that tag's places too; it waits longer and still gets in. Without the key nobody can look for such
//! neighbours.
//!
//! A tag stands for about 64 of the IPv4 /24s there are, and without the key (dropped after the event) for anything.
//!
//! IPv6 is counted by /48, the most that one site is given (RFC 6177, section 2); a /56, one household's share, would
//! make 256 of a single /48. Households that share a /48 share its allowance, as those behind one IPv4 address do.

use std::net::IpAddr;

use model::EventSlug;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::hmac_sha256;

/// How many tags there are.
pub const PREFIX_TAGS: u32 = 1 << 18;
/// Most tokens of a tag that take part in a draw. With it, a token's number times its tag's count is below 2^53.
pub const COUNT_MAX: u32 = (1 << 21) - 1;
/// Smallest allowance of a tag.
pub const ALLOWANCE_MIN: u32 = 2;
/// Most objects a table of heavy tags is published in.
pub const SHARDS_MAX: u32 = 64;
/// Heavy tags that an object of the table holds on average before the table is cut in more.
const SHARD_ENTRIES: usize = 256;

const TAG_DOMAIN: &[u8] = b"minassa room prefix 1\0";
const TABLE_DOMAIN: &[u8] = b"minassa draw table 1\0";

/// A group of address prefixes: a number below [`PREFIX_TAGS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct PrefixTag(u32);

impl PrefixTag {
    /// From its number, if that is below [`PREFIX_TAGS`].
    pub const fn new(number: u32) -> Option<Self> {
        if number < PREFIX_TAGS { Some(Self(number)) } else { None }
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for PrefixTag {
    type Error = &'static str;

    fn try_from(number: u32) -> Result<Self, Self::Error> {
        Self::new(number).ok_or("a prefix tag is below 262144")
    }
}

impl From<PrefixTag> for u32 {
    fn from(tag: PrefixTag) -> Self {
        tag.0
    }
}

/// The key of an event's tags, drawn at random and dropped after the event.
#[derive(Clone, PartialEq, Eq)]
pub struct PrefixKey(pub [u8; 32]);

impl std::fmt::Debug for PrefixKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrefixKey(..)")
    }
}

impl PrefixKey {
    /// The tag of an address: of its /24 for IPv4, also where it is written as an IPv6 address, of its /48 for IPv6.
    pub fn tag(&self, event: &EventSlug, address: IpAddr) -> PrefixTag {
        let (family, prefix) = network(address);
        let hash = hmac_sha256(&self.0, &[TAG_DOMAIN, event.as_str().as_bytes(), &[0, family], &prefix]);
        let [a, b, c, d, ..] = hash;
        PrefixTag(u32::from_be_bytes([a, b, c, d]) % PREFIX_TAGS)
    }
}

/// The network that an address counts for: 4 and the /24 for IPv4, also where it is written as an IPv6 address; 6 and the
/// /48 for IPv6.
pub(crate) fn network(address: IpAddr) -> (u8, [u8; 6]) {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            (4, [a, b, c, 0, 0, 0])
        }
        IpAddr::V6(address) => (6, *address.octets().first_chunk().expect("an address has 16 bytes")),
    }
}

/// Counts early tokens by tag: 1 MiB, whoever comes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(PrefixTag, u32)>", into = "Vec<(PrefixTag, u32)>")]
pub struct Census {
    counts: Box<[u32]>,
    tokens: u64,
}

impl Default for Census {
    fn default() -> Self {
        Self { counts: vec![0; PREFIX_TAGS as usize].into(), tokens: 0 }
    }
}

impl std::fmt::Debug for Census {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Census").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

impl Census {
    /// Counts one token. `false` if its tag has [`COUNT_MAX`] already: then there is no token.
    pub fn count(&mut self, tag: PrefixTag) -> bool {
        let count = &mut self.counts[tag.0 as usize];
        let room = *count < COUNT_MAX;
        if room {
            *count += 1;
            self.tokens += 1;
        }
        room
    }

    /// Tokens counted.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Counters held: always [`PREFIX_TAGS`].
    pub fn entries(&self) -> usize {
        self.counts.len()
    }

    /// What is published of it for a draw with this allowance.
    pub fn close(&self, allowance: u32) -> Table {
        let allowance = self::allowance(allowance);
        let heavy: Vec<_> = self.counted().into_iter().filter(|&(_, count)| count > allowance).collect();
        let light = self.tokens - heavy.iter().map(|&(_, count)| u64::from(count)).sum::<u64>();
        Table { allowance, light, heavy }
    }

    /// Tags that were counted, ascending.
    fn counted(&self) -> Vec<(PrefixTag, u32)> {
        (0..).map(PrefixTag).zip(self.counts.iter().copied()).filter(|&(_, count)| count > 0).collect()
    }
}

impl From<Census> for Vec<(PrefixTag, u32)> {
    fn from(census: Census) -> Self {
        census.counted()
    }
}

impl TryFrom<Vec<(PrefixTag, u32)>> for Census {
    type Error = TableError;

    fn try_from(counted: Vec<(PrefixTag, u32)>) -> Result<Self, TableError> {
        ascending(&counted)?;
        let mut census = Self::default();
        for (tag, count) in counted {
            if count > COUNT_MAX {
                return Err(TableError::Count { tag });
            }
            census.counts[tag.0 as usize] = count;
            census.tokens += u64::from(count);
        }
        Ok(census)
    }
}

/// What the draw needs to know of the census, published at doors: tags with more tokens than the allowance, each with
/// its count, and how many tokens there are of all others together (which all have the same chance).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawTable")]
pub struct Table {
    allowance: u32,
    light: u64,
    heavy: Vec<(PrefixTag, u32)>,
}

#[derive(Deserialize)]
struct RawTable {
    allowance: u32,
    light: u64,
    heavy: Vec<(PrefixTag, u32)>,
}

/// Why numbers make no table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The allowance is out of range.
    #[error("the allowance {0} is not from 2 to 2097151")]
    Allowance(u32),
    /// More tokens than all light tags can have.
    #[error("{0} tokens are more than light tags can have")]
    Light(u64),
    /// Tags are not in ascending order, each once.
    #[error("tags are not ascending at {tag:?}")]
    Order {
        /// The first that is out of order.
        tag: PrefixTag,
    },
    /// A count that its tag cannot have.
    #[error("{tag:?} cannot have this count")]
    Count {
        /// The tag.
        tag: PrefixTag,
    },
}

impl TryFrom<RawTable> for Table {
    type Error = TableError;

    fn try_from(RawTable { allowance, light, heavy }: RawTable) -> Result<Self, TableError> {
        Self::new(allowance, light, heavy)
    }
}

impl Table {
    /// From its numbers: `light` tokens of tags with at most `allowance`, `heavy` tags ascending with their counts.
    ///
    /// # Errors
    /// [`TableError`] if no census gives these numbers.
    pub fn new(allowance: u32, light: u64, heavy: Vec<(PrefixTag, u32)>) -> Result<Self, TableError> {
        if !(ALLOWANCE_MIN..=COUNT_MAX).contains(&allowance) {
            return Err(TableError::Allowance(allowance));
        }
        ascending(&heavy)?;
        if let Some(&(tag, _)) =
            heavy.iter().find(|&&(_, count)| !(allowance + 1..=COUNT_MAX).contains(&count))
        {
            return Err(TableError::Count { tag });
        }
        let tags = u64::from(PREFIX_TAGS) - heavy.len() as u64;
        if light > tags * u64::from(allowance) {
            return Err(TableError::Light(light));
        }
        Ok(Self { allowance, light, heavy })
    }

    /// Most tokens of a tag that have the chances of a tag of their own.
    pub fn allowance(&self) -> u32 {
        self.allowance
    }

    /// Tokens of tags that keep to the allowance.
    pub fn light(&self) -> u64 {
        self.light
    }

    /// Tags above the allowance, ascending, with their counts.
    pub fn heavy(&self) -> &[(PrefixTag, u32)] {
        &self.heavy
    }

    /// The count of a tag that is above the allowance.
    pub fn count(&self, tag: PrefixTag) -> Option<u32> {
        let at = self.heavy.binary_search_by_key(&tag, |&(tag, _)| tag).ok()?;
        Some(self.heavy[at].1)
    }

    /// Tokens that take part in the draw.
    pub fn tokens(&self) -> u64 {
        self.light + self.heavy.iter().map(|&(_, count)| u64::from(count)).sum::<u64>()
    }

    /// How many objects the heavy tags are published in, so that a page fetches only the one its tag may be in: a
    /// power of two, at most [`SHARDS_MAX`].
    pub fn shards(&self) -> u32 {
        let wanted = self.heavy.len().div_ceil(SHARD_ENTRIES).next_power_of_two();
        u32::try_from(wanted).unwrap_or(SHARDS_MAX).min(SHARDS_MAX)
    }

    /// The heavy tags of one of the [`Self::shards`], which holds those with `floor(tag * shards / 2^18)` equal to
    /// `shard`: at most 2^18 / 64 where there are 64 of them. Empty if there is no such shard.
    pub fn shard(&self, shard: u32) -> &[(PrefixTag, u32)] {
        let width = PREFIX_TAGS / self.shards();
        let from = |shard: u64| {
            let first = shard * u64::from(width);
            self.heavy.partition_point(|&(tag, _)| u64::from(tag.0) < first)
        };
        &self.heavy[from(shard.into())..from(u64::from(shard) + 1)]
    }

    /// SHA-256 of the table, which the draw is bound to: a domain text, then allowance (u32), light (u64), number of
    /// heavy tags (u32), and tag and count (u32 each) of every one, big-endian.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(TABLE_DOMAIN);
        hash.update(self.allowance.to_be_bytes());
        hash.update(self.light.to_be_bytes());
        hash.update(u32::try_from(self.heavy.len()).unwrap_or(u32::MAX).to_be_bytes());
        for (tag, count) in &self.heavy {
            hash.update(tag.0.to_be_bytes());
            hash.update(count.to_be_bytes());
        }
        hash.finalize().into()
    }
}

/// The nearest allowance in range.
pub(super) fn allowance(wanted: u32) -> u32 {
    wanted.clamp(ALLOWANCE_MIN, COUNT_MAX)
}

fn ascending(tags: &[(PrefixTag, u32)]) -> Result<(), TableError> {
    match tags.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
        Some(pair) => Err(TableError::Order { tag: pair[1].0 }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn tag(number: u32) -> PrefixTag {
        PrefixTag::new(number).unwrap()
    }

    fn tag_of(address: &str) -> PrefixTag {
        PrefixKey([9; 32]).tag(&"a-talk".parse().unwrap(), address.parse().unwrap())
    }

    #[test]
    fn an_address_is_known_by_its_prefix_only() {
        for (same, other) in [
            (["192.0.2.1", "192.0.2.254"], "192.0.3.1"),
            (["192.0.2.1", "::ffff:192.0.2.9"], "::ffff:192.0.3.9"),
            (["2001:db8:1:2::3", "2001:db8:1:ffff::"], "2001:db8:2::"),
        ] {
            assert_eq!(tag_of(same[0]), tag_of(same[1]));
            assert_ne!(tag_of(same[0]), tag_of(other));
        }
        // Computed by other means (Python's hmac).
        assert_eq!(tag_of("192.0.2.1"), tag(45_612));
        assert_eq!(tag_of("2001:db8:1:2::3"), tag(11_424));
        // Another event, another key: other tags.
        let address = "192.0.2.1".parse().unwrap();
        assert_ne!(PrefixKey([9; 32]).tag(&"b".parse().unwrap(), address), tag_of("192.0.2.1"));
        assert_ne!(PrefixKey([8; 32]).tag(&"a-talk".parse().unwrap(), address), tag_of("192.0.2.1"));
        assert_eq!(format!("{:?}", PrefixKey([9; 32])), "PrefixKey(..)");
    }

    #[test]
    fn tags_are_spread_evenly() {
        let tags: BTreeSet<_> =
            (0..20_000u32).map(|n| tag_of(&format!("10.{}.{}.1", n >> 8, n & 255))).collect();
        // 20,000 balls in 2^18 urns leave 19,256 urns filled on average.
        assert!((19_100..=19_400).contains(&tags.len()), "{}", tags.len());
    }

    #[test]
    fn the_table_sums_up_the_census() {
        let mut census = Census::default();
        for (number, count) in [(3, 2), (5, 64), (7, 65), (PREFIX_TAGS - 1, 1_000)] {
            for _ in 0..count {
                assert!(census.count(tag(number)));
            }
        }
        let table = census.close(64);
        assert_eq!(table, Table::new(64, 66, vec![(tag(7), 65), (tag(PREFIX_TAGS - 1), 1_000)]).unwrap());
        assert_eq!((table.tokens(), census.tokens()), (1_131, 1_131));
        assert_eq!([3, 7, PREFIX_TAGS - 1].map(|n| table.count(tag(n))), [None, Some(65), Some(1_000)]);
        let json = serde_json::to_string(&table).unwrap();
        assert_eq!(json, r#"{"allowance":64,"light":66,"heavy":[[7,65],[262143,1000]]}"#);
        assert_eq!(serde_json::from_str::<Table>(&json).unwrap(), table);
        let frozen = serde_json::to_string(&census).unwrap();
        assert_eq!(serde_json::from_str::<Census>(&frozen).unwrap(), census);
    }

    #[test]
    fn a_full_tag_takes_no_more() {
        let mut census: Census = vec![(tag(1), COUNT_MAX - 1)].try_into().unwrap();
        assert!(census.count(tag(1)));
        assert!(!census.count(tag(1)));
        assert_eq!(census.tokens(), u64::from(COUNT_MAX));
    }

    #[test]
    fn numbers_of_no_census_are_refused() {
        for json in [
            r#"{"allowance":1,"light":0,"heavy":[]}"#,
            r#"{"allowance":2097152,"light":0,"heavy":[]}"#,
            r#"{"allowance":2,"light":524289,"heavy":[]}"#,
            r#"{"allowance":64,"light":0,"heavy":[[1,64]]}"#,
            r#"{"allowance":64,"light":0,"heavy":[[1,2097152]]}"#,
            r#"{"allowance":64,"light":0,"heavy":[[262144,65]]}"#,
            r#"{"allowance":64,"light":0,"heavy":[[2,65],[2,65]]}"#,
            r#"{"allowance":64,"light":-1,"heavy":[]}"#,
        ] {
            assert!(serde_json::from_str::<Table>(json).is_err(), "{json}");
        }
        for json in ["[[2,1],[1,1]]", "[[1,2097152]]", "[[262144,1]]"] {
            assert!(serde_json::from_str::<Census>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn shards_hold_every_heavy_tag_once() {
        for heavy in [0, 1, 256, 257, 5_000, 40_000, PREFIX_TAGS] {
            let step = PREFIX_TAGS / heavy.max(1);
            let entries: Vec<_> = (0..heavy).map(|n| (tag(n * step), 65)).collect();
            let table = Table::new(64, 0, entries.clone()).unwrap();
            let shards = table.shards();
            assert!(shards.is_power_of_two() && shards <= SHARDS_MAX);
            let all: Vec<_> = (0..shards).flat_map(|shard| table.shard(shard)).copied().collect();
            assert_eq!(all, entries);
            assert!(table.shard(shards).is_empty() && table.shard(u32::MAX).is_empty());
            for shard in 0..shards {
                let here = |&(tag, _): &(PrefixTag, u32)| tag.number() * shards / PREFIX_TAGS == shard;
                assert!(table.shard(shard).iter().all(here));
                assert!(table.shard(shard).len() <= 4_096);
            }
        }
    }
}
