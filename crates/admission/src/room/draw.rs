//! The draw: one order of all who came early, that nobody could choose and everybody can compute again.
//!
//! ```text
//! weeks before   seed, 32 random bytes           commitment = SHA-256(domain ‖ event ‖ 0 ‖ seed ‖ allowance), published
//! until doors    tokens are counted by tag
//! at doors       ledger's head is witnessed      key  = HMAC(seed, domain ‖ event ‖ 0 ‖ head ‖ SHA-256(table))
//!                seed, table, key: published     u    = first 32 bits of HMAC(key, domain ‖ token's id)
//!                                                rank = u                              a light tag's token
//!                                                rank = floor(u · count / allowance)   a heavy tag's
//! ```
//!
//! The lowest rank comes in first. Let `r = rank / 2^32`. A light tag's tokens (at most `allowance` of them) draw in
//! `[0, 1)`, those of a tag with `count` tokens in `[0, count / allowance)`: at every `r` each tag has got in
//! `r · min(count, allowance)` of its tokens, until it has no more. So a tag's fair share among the first who enter
//! does not grow with tokens above the allowance; and everybody's turn comes.
//!
//! Who can bend it? Listeners: no, they know neither seed nor key while tokens are given out. The publisher knows the
//! seed, counts the tokens and writes the ledger's last bin: they could try counts and contents of that bin until
//! friends come out well. With the table's digest in the ledger, and behind it something that nobody can foresee, such
//! as a round of a public randomness beacon, they could not. Another seed they cannot take: the commitment stands in the
//! opening of the ledger, which every segment of audio witnesses.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::EventSlug;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::prefix::{self, PrefixTag, Table};
use super::token::TokenId;
use super::{hmac_sha256, slug};

const COMMITMENT_DOMAIN: &[u8] = b"minassa draw commitment 1\0";
const SEED_DOMAIN: &[u8] = b"minassa draw seed 1\0";
const KEY_DOMAIN: &[u8] = b"minassa draw key 1\0";
const NUMBER_DOMAIN: &[u8] = b"minassa draw number 1\0";
/// What 1 is in ranks: 2^32.
const ONE: u64 = 1 << 32;

/// 32 bytes that are published, as base64url without padding.
macro_rules! published {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub [u8; 32]);

        impl From<$name> for String {
            fn from(bytes: $name) -> Self {
                URL_SAFE_NO_PAD.encode(bytes.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = &'static str;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
                bytes.map(Self).ok_or("not 32 bytes in base64url")
            }
        }
    };
}

/// Shows the value of what is public in any case.
macro_rules! shown {
    ($name:ident) => {
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({})", stringify!($name), String::from(*self))
            }
        }
    };
}

published! {
    /// The secret of a draw: random, kept until doors, published then.
    Seed
}
published! {
    /// What is published of a seed and an allowance beforehand.
    Commitment
}
published! {
    /// The head of the ledger at doors.
    LedgerHead
}
published! {
    /// What gives every token its number; published with the seed.
    DrawKey
}
shown!(Commitment);
shown!(LedgerHead);
shown!(DrawKey);

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(..)")
    }
}

impl Seed {
    /// The seed of an event's draw, from an installation's secret: the same whenever it is asked for, so that what was
    /// committed to is kept whatever happens to a process.
    pub fn derive(secret: &[u8; 32], event: &EventSlug) -> Self {
        Self(hmac_sha256(secret, &[SEED_DOMAIN, event.as_str().as_bytes()]))
    }

    /// What to publish of it, and of the allowance (big-endian), beforehand.
    pub fn commitment(&self, event: &EventSlug, allowance: u32) -> Commitment {
        let mut hash = Sha256::new();
        hash.update(COMMITMENT_DOMAIN);
        hash.update(event.as_str());
        hash.update([0]);
        hash.update(self.0);
        hash.update(prefix::allowance(allowance).to_be_bytes());
        Commitment(hash.finalize().into())
    }

    /// The key of the draw over `table`, at this head of the ledger.
    pub fn key(&self, event: &EventSlug, head: &LedgerHead, table: &Table) -> DrawKey {
        let event = event.as_str().as_bytes();
        DrawKey(hmac_sha256(&self.0, &[KEY_DOMAIN, event, &[0], &head.0, &table.digest()]))
    }
}

impl DrawKey {
    /// The token's number, evenly spread from 0 to 2^32 - 1.
    pub fn number(&self, token: TokenId) -> u32 {
        let [a, b, c, d, ..] = hmac_sha256(&self.0, &[NUMBER_DOMAIN, &token.0]);
        u32::from_be_bytes([a, b, c, d])
    }
}

/// A position in the order of everybody who waits: lower comes in first. Early tokens have their rank in the draw,
/// late ones [`Self::LATE`] and their place. Below 2^53, so that every language can compare two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rank(pub u64);

impl Rank {
    /// Nobody's yet.
    pub const FIRST: Self = Self(0);
    /// Where late ones begin: 2^52, above every early one's.
    pub const LATE: Self = Self(1 << 52);
    /// The last there is: 2^53 - 1.
    pub const LAST: Self = Self((1 << 53) - 1);

    /// Of an early token with this number, whose tag has `count` tokens if it is heavy.
    pub fn early(number: u32, count: Option<u32>, allowance: u32) -> Self {
        let number = u64::from(number);
        match count {
            Some(count) => Self(number * u64::from(count) / u64::from(allowance.max(1))).min(Self::LATE),
            None => Self(number),
        }
    }

    /// Of a late token with so many people before it.
    pub fn late(place: u64) -> Self {
        Self(Self::LATE.0.saturating_add(place)).min(Self::LAST)
    }

    /// How many are before a late one; 0 of an early one.
    pub(super) fn late_place(self) -> u64 {
        self.0.saturating_sub(Self::LATE.0)
    }
}

/// A knot of the curve: once every heavy tag has had up to `.0` of its tokens in, `.1` heavy tokens are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knot(pub u32, pub u64);

/// Most knots of a curve.
pub const KNOTS_MAX: usize = 160;

/// How many are in at each rank of the draw, in a few numbers: what pages, server and verifier all compute places by.
///
/// ```text
/// place(rank) = light · min(r, 1) + heavy(r · allowance),  r = rank / 2^32, rounded down
/// heavy(y)    = Σ over heavy tags of min(count, y), read off the knots by straight lines between them, from (0, 0)
/// ```
///
/// Knots are at the counts of heavy tags; one is left out if the next count is at most 6/5 of the last knot. What the
/// lines cut off is below 5 % of the heavy tokens that are in, everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Curve {
    allowance: u32,
    light: u64,
    knots: Vec<Knot>,
}

impl Curve {
    /// The curve of a table.
    pub fn of(table: &Table) -> Self {
        let mut counts: Vec<u32> = table.heavy().iter().map(|&(_, count)| count).collect();
        counts.sort_unstable();
        let mut knots = Vec::<Knot>::new();
        let (mut through, mut greater) = (0, counts.len() as u64);
        let mut groups = counts.chunk_by(|a, b| a == b).peekable();
        while let Some(same) = groups.next() {
            let (count, tags) = (same[0], same.len() as u64);
            through += u64::from(count) * tags;
            greater -= tags;
            // Left out if the line over it stays short.
            let short = match (knots.last(), groups.peek()) {
                (Some(knot), Some(next)) => u64::from(next[0]) * 5 <= u64::from(knot.0) * 6,
                _ => false,
            };
            if !short {
                knots.push(Knot(count, through + u64::from(count) * greater));
            }
        }
        Self { allowance: table.allowance(), light: table.light(), knots }
    }

    /// The knots, ascending; at most [`KNOTS_MAX`].
    pub fn knots(&self) -> &[Knot] {
        &self.knots
    }

    /// Everybody in the draw.
    pub fn tokens(&self) -> u64 {
        self.light + self.knots.last().map_or(0, |knot| knot.1)
    }

    /// How many are before this rank, on average over all draws.
    pub fn place(&self, rank: Rank) -> u64 {
        // Everything in 2^-32 of a token. At most 2^39 tokens and a y below 2^53 (ranks stop there): all within 2^96.
        let rank = rank.0.min(Rank::LATE.0);
        let light = u128::from(self.light) * u128::from(rank.min(ONE));
        let y = u128::from(rank) * u128::from(self.allowance);
        let next = self.knots.partition_point(|knot| u128::from(knot.0) << 32 <= y);
        let Knot(from, before) = next.checked_sub(1).map_or(Knot(0, 0), |last| self.knots[last]);
        let heavy = (u128::from(before) << 32)
            + self.knots.get(next).map_or(0, |&Knot(to, then)| {
                u128::from(then - before) * (y - (u128::from(from) << 32)) / u128::from(to - from)
            });
        u64::try_from((light + heavy) >> 32).unwrap_or(u64::MAX)
    }

    /// The lowest rank with so many before it; [`Rank::LATE`] if there are not so many.
    pub fn through(&self, place: u64) -> Rank {
        if place >= self.tokens() {
            return Rank::LATE;
        }
        let (mut low, mut high) = (0, Rank::LATE.0);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.place(Rank(middle)) < place {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Rank(low)
    }
}

/// Everything that makes a draw, published at doors and kept: whoever has it can draw again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrawRecord {
    /// Whose draw it is.
    #[serde(with = "slug")]
    pub event: EventSlug,
    /// What was committed to beforehand.
    pub seed: Seed,
    /// The ledger's head at doors.
    pub ledger_head: LedgerHead,
    /// The census of those who came early.
    pub table: Table,
}

/// The draw, as a page needs it: cacheable for ever, at most a few kilobytes. With the shard of the table that its
/// tag may be in, a page computes rank and place of its own token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrawPage {
    /// Gives tokens their numbers.
    pub key: DrawKey,
    /// See [`Table::allowance`].
    pub allowance: u32,
    /// See [`Table::light`].
    pub light: u64,
    /// See [`Curve::knots`].
    pub knots: Vec<Knot>,
    /// See [`Table::shards`].
    pub shards: u32,
}

/// A draw that was held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "DrawRecord", into = "DrawRecord")]
pub struct Draw {
    record: DrawRecord,
    key: DrawKey,
    curve: Curve,
}

impl From<DrawRecord> for Draw {
    fn from(record: DrawRecord) -> Self {
        let key = record.seed.key(&record.event, &record.ledger_head, &record.table);
        let curve = Curve::of(&record.table);
        Self { record, key, curve }
    }
}

impl From<Draw> for DrawRecord {
    fn from(draw: Draw) -> Self {
        draw.record
    }
}

impl Draw {
    /// What it was made of.
    pub fn record(&self) -> &DrawRecord {
        &self.record
    }

    /// Places by rank.
    pub fn curve(&self) -> &Curve {
        &self.curve
    }

    /// The rank of an early token.
    pub fn rank(&self, token: TokenId, tag: PrefixTag) -> Rank {
        let table = &self.record.table;
        Rank::early(self.key.number(token), table.count(tag), table.allowance())
    }

    /// What pages need of it.
    pub fn page(&self) -> DrawPage {
        let table = &self.record.table;
        DrawPage {
            key: self.key,
            allowance: table.allowance(),
            light: table.light(),
            knots: self.curve.knots.clone(),
            shards: table.shards(),
        }
    }
}

/// A token and the rank it was treated by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The token.
    pub token: TokenId,
    /// Where it came from.
    pub tag: PrefixTag,
    /// Its rank as published, or as its holder was told.
    pub rank: Rank,
}

/// What does not agree in a draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DrawError {
    /// Seed or allowance are other than those committed to.
    #[error("the seed or the allowance is not the one that was committed to")]
    Commitment,
    /// The draw was made at another head of the ledger than its witnesses saw.
    #[error("the ledger's head is not the one that was witnessed")]
    LedgerHead,
    /// Key, curve or number of shards given to pages do not follow from the record.
    #[error("what pages were given does not follow from seed, ledger and table")]
    Page,
    /// A token was treated by another rank than it drew.
    #[error("claim {claim}: the token's rank is {}", .rank.0)]
    Rank {
        /// Its number among the claims, from 0.
        claim: usize,
        /// What it drew.
        rank: Rank,
    },
    /// A token is earlier in the published order than one of lower rank.
    #[error("claim {claim} stands after one of higher rank")]
    Order {
        /// The number of the one that should have been before, from 0.
        claim: usize,
    },
    /// More tokens than the table has.
    #[error("claim {claim} is one more than the table has")]
    Uncounted {
        /// The first that was not counted, from 0.
        claim: usize,
    },
}

/// Draws again and compares: seed and allowance with the commitment seen beforehand, the ledger's head with the one that was
/// witnessed, what pages were given with what follows from the record, and tokens, listed in the published order,
/// with their ranks and with the table's counts. One token of one's own is a good list too.
///
/// # Errors
/// [`DrawError`], the first thing that does not agree.
pub fn verify_draw(
    record: &DrawRecord,
    page: &DrawPage,
    commitment: &Commitment,
    witnessed: &LedgerHead,
    claims: &[Claim],
) -> Result<(), DrawError> {
    if record.seed.commitment(&record.event, record.table.allowance()) != *commitment {
        return Err(DrawError::Commitment);
    }
    if record.ledger_head != *witnessed {
        return Err(DrawError::LedgerHead);
    }
    let draw = Draw::from(record.clone());
    if draw.page() != *page {
        return Err(DrawError::Page);
    }
    let mut counts = std::collections::BTreeMap::<PrefixTag, u32>::new();
    let (mut light, mut last) = (0, Rank::FIRST);
    for (claim, &Claim { token, tag, rank }) in claims.iter().enumerate() {
        let drawn = draw.rank(token, tag);
        if drawn != rank {
            return Err(DrawError::Rank { claim, rank: drawn });
        }
        if drawn < last {
            return Err(DrawError::Order { claim });
        }
        last = drawn;
        let count = counts.entry(tag).or_default();
        *count += 1;
        let heavy = record.table.count(tag);
        light += u64::from(heavy.is_none());
        if *count > heavy.unwrap_or(record.table.allowance()) || light > record.table.light() {
            return Err(DrawError::Uncounted { claim });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::room::prefix::{ALLOWANCE_MIN, COUNT_MAX, PREFIX_TAGS};

    fn tag(number: u32) -> PrefixTag {
        PrefixTag::new(number).unwrap()
    }

    fn id(number: u32) -> TokenId {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        TokenId(id)
    }

    fn record() -> DrawRecord {
        DrawRecord {
            event: "a-talk".parse().unwrap(),
            seed: Seed([1; 32]),
            ledger_head: LedgerHead([2; 32]),
            table: Table::new(64, 150, vec![(tag(7), 65), (tag(70_000), 1_000)]).unwrap(),
        }
    }

    /// Three tokens in each of 50 light tags, and all those of the heavy ones, in the order they drew.
    fn claims(draw: &Draw) -> Vec<Claim> {
        let tags = (0..150).map(|n| 100 + n / 3).chain([7; 65]).chain([70_000; 1_000]);
        let tokens = (0..).map(id).zip(tags.map(tag));
        let mut claims: Vec<_> =
            tokens.map(|(token, tag)| Claim { token, tag, rank: draw.rank(token, tag) }).collect();
        claims.sort_by_key(|claim| claim.rank);
        claims
    }

    fn verify(record: &DrawRecord, claims: &[Claim]) -> Result<(), DrawError> {
        let page = Draw::from(record.clone()).page();
        let honest = self::record();
        verify_draw(record, &page, &honest.seed.commitment(&honest.event, 64), &honest.ledger_head, claims)
    }

    #[test]
    fn a_draw_is_what_its_description_says() {
        let draw = Draw::from(record());
        // All computed by other means (Python's hmac and hashlib).
        let commitment = Seed([1; 32]).commitment(&record().event, 64);
        assert_eq!(String::from(commitment), "z_A2hc1PZc2oY6pbTtujN_3lTktyN1uVWkQpjZi00Eo");
        assert_eq!(
            URL_SAFE_NO_PAD.encode(record().table.digest()),
            "X6inr5JVrfZpxdb9xSJkAR_UojJeIUnmpij61mgEap8"
        );
        assert_eq!(String::from(draw.key), "EGyMnGYGXAyDA-1EKK7Wj56dRJYayZ9A-RExBP-fFEY");
        let numbers = [0, 1, 2].map(|n| draw.key.number(id(n)));
        assert_eq!(numbers, [2_997_733_390, 4_124_787_438, 3_199_995_105]);
        let ranks = [(0, 100), (1, 7), (2, 70_000)].map(|(n, t)| draw.rank(id(n), tag(t)).0);
        assert_eq!(ranks, [2_997_733_390, 4_189_237_241, 49_999_923_515]);
        let places = ranks.map(|rank| draw.curve().place(Rank(rank)));
        assert_eq!(places, [194, 271, 960]);
    }

    #[test]
    fn pages_are_given_little() {
        let json = serde_json::to_string(&Draw::from(record()).page()).unwrap();
        assert_eq!(
            json,
            r#"{"key":"EGyMnGYGXAyDA-1EKK7Wj56dRJYayZ9A-RExBP-fFEY","allowance":64,"light":150,"knots":[[65,130],[1000,1065]],"shards":1}"#
        );
    }

    #[test]
    fn records_survive_being_written() {
        let draw = Draw::from(record());
        let json = serde_json::to_string(&draw).unwrap();
        assert_eq!(serde_json::from_str::<Draw>(&json).unwrap(), draw);
        assert!(serde_json::from_str::<Seed>(r#""AAAA""#).is_err());
        assert!(serde_json::from_str::<Seed>(r#""????""#).is_err());
    }

    #[test]
    fn whoever_has_the_record_draws_again() {
        let claims = claims(&Draw::from(record()));
        assert_eq!(verify(&record(), &claims), Ok(()));
        assert_eq!(verify(&record(), &claims[500..501]), Ok(()), "one's own token is enough");
    }

    #[test]
    fn a_bent_draw_is_found() {
        let honest = claims(&Draw::from(record()));
        let other_seed = DrawRecord { seed: Seed([3; 32]), ..record() };
        assert_eq!(verify(&other_seed, &claims(&Draw::from(other_seed.clone()))), Err(DrawError::Commitment));
        let other_head = DrawRecord { ledger_head: LedgerHead([3; 32]), ..record() };
        assert_eq!(verify(&other_head, &claims(&Draw::from(other_head.clone()))), Err(DrawError::LedgerHead));
        let table = Table::new(65, 150, vec![(tag(70_000), 1_000)]).unwrap();
        assert_eq!(verify(&DrawRecord { table, ..record() }, &[]), Err(DrawError::Commitment));
        let other_event = DrawRecord { event: "b".parse().unwrap(), ..record() };
        assert_eq!(verify(&other_event, &[]), Err(DrawError::Commitment));

        // A table that was changed afterwards draws other numbers.
        let table = Table::new(64, 151, record().table.heavy().to_vec()).unwrap();
        let other_table = DrawRecord { table, ..record() };
        assert!(matches!(verify(&other_table, &honest), Err(DrawError::Rank { claim: 0, .. })));
        let page = Draw::from(record()).page();
        let commitment = record().seed.commitment(&record().event, 64);
        let head = record().ledger_head;
        assert_eq!(verify_draw(&other_table, &page, &commitment, &head, &[]), Err(DrawError::Page));
        let bent = DrawPage { light: 1, ..page };
        assert_eq!(verify_draw(&record(), &bent, &commitment, &head, &[]), Err(DrawError::Page));

        let mut favoured = honest.clone();
        favoured[900].rank = Rank(0);
        let expected = DrawError::Rank { claim: 900, rank: honest[900].rank };
        assert_eq!(verify(&record(), &favoured), Err(expected));
        let mut swapped = honest.clone();
        swapped.swap(10, 11);
        assert_eq!(verify(&record(), &swapped), Err(DrawError::Order { claim: 11 }));

        // Tokens that were made after the table was closed.
        let draw = Draw::from(record());
        for tag in [7, 100_000].map(tag) {
            let token = id(1_000_000);
            let mut more = honest.clone();
            more.push(Claim { token, tag, rank: draw.rank(token, tag) });
            more.sort_by_key(|claim| claim.rank);
            assert!(matches!(verify(&record(), &more), Err(DrawError::Uncounted { .. })));
        }
    }

    #[test]
    fn seeds_are_not_printed() {
        assert_eq!(format!("{:?}", Seed([1; 32])), "Seed(..)");
        assert_eq!(
            format!("{:?}", LedgerHead([0; 32])),
            "LedgerHead(AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA)"
        );
    }

    #[test]
    fn the_greatest_numbers_stay_in_range() {
        let highest = Rank::early(u32::MAX, Some(COUNT_MAX), ALLOWANCE_MIN);
        assert!(highest < Rank::LATE);
        assert!(u64::from(u32::MAX) * u64::from(COUNT_MAX) < 1 << 53);
        assert_eq!(Rank::late(u64::MAX), Rank::LAST);
        assert_eq!((Rank::late(5).late_place(), highest.late_place()), (5, 0));
        let heavy = (0..PREFIX_TAGS).map(|n| (tag(n), COUNT_MAX)).collect();
        let curve = Curve::of(&Table::new(ALLOWANCE_MIN, 0, heavy).unwrap());
        let all = u64::from(PREFIX_TAGS) * u64::from(COUNT_MAX);
        assert_eq!((curve.tokens(), curve.place(Rank::LATE)), (all, all));
        assert!(curve.place(highest) < all && curve.place(highest) > all - u64::from(PREFIX_TAGS));
        // Many counts, and counts in pairs as near as makes each a knot.
        let many: Vec<u32> = (0..PREFIX_TAGS).map(|n| 3 + n * 7).collect();
        let pairs = std::iter::successors(Some(3), |&count| Some(count * 6 / 5 + 1));
        let pairs: Vec<u32> = pairs.take_while(|&count| count <= COUNT_MAX).collect();
        for counts in [many, pairs] {
            let heavy = (0..).map(tag).zip(counts).collect();
            let knots = Curve::of(&Table::new(ALLOWANCE_MIN, 0, heavy).unwrap()).knots().len();
            assert!(knots <= KNOTS_MAX, "{knots}");
        }
    }

    fn tables() -> impl Strategy<Value = Table> {
        let heavy = prop::collection::vec((1u32..20, 65u32..3_000), 0..300);
        (0u64..50_000, heavy).prop_map(|(light, heavy)| {
            let mut last = 0;
            let heavy = heavy.into_iter().map(|(step, count)| {
                last += step;
                (tag(last), count)
            });
            Table::new(64, light, heavy.collect()).unwrap()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn places_agree_with_the_sum_over_all_tags(table in tables(), ranks in prop::collection::vec(0f64..50.0, 20)) {
            let curve = Curve::of(&table);
            prop_assert_eq!(curve.tokens(), table.tokens());
            prop_assert_eq!(curve.place(Rank::LATE), table.tokens());
            for r in ranks {
                let exact = table.light() as f64 * r.min(1.0)
                    + table.heavy().iter().map(|&(_, count)| f64::from(count).min(r * 64.0)).sum::<f64>();
                let place = curve.place(Rank((r * ONE as f64) as u64)) as f64;
                prop_assert!(place <= exact + 1.0 && place >= exact * 0.95 - 1.0, "{} {}", place, exact);
            }
        }

        /// What the page does, in doubles, as the room's documentation writes it.
        #[test]
        fn a_page_computes_the_same(table in tables(), ids in prop::collection::vec(any::<u32>(), 20)) {
            let draw = Draw::from(DrawRecord { table, ..record() });
            let page = draw.page();
            let allowance = f64::from(page.allowance);
            for (n, token) in ids.into_iter().map(id).enumerate() {
                let tag = draw.record.table.heavy().get(n * 10).map_or(tag(PREFIX_TAGS - 1), |&(tag, _)| tag);
                let shard = tag.number() * page.shards / PREFIX_TAGS;
                let heavy = draw.record.table.shard(shard).iter().find(|&&(heavy, _)| heavy == tag);
                let u = f64::from(page.key.number(token));
                let rank = heavy.map_or(u, |&(_, count)| (u * f64::from(count) / allowance).floor());
                prop_assert_eq!(rank, draw.rank(token, tag).0 as f64);

                let y = rank * allowance / ONE as f64;
                let (mut x0, mut s0) = (0.0, 0.0);
                for &Knot(x, s) in &page.knots {
                    let (x, s) = (f64::from(x), s as f64);
                    if y < x {
                        s0 += (s - s0) * (y - x0) / (x - x0);
                        break;
                    }
                    (x0, s0) = (x, s);
                }
                let place = (page.light as f64 * (rank / ONE as f64).min(1.0) + s0).floor();
                let exact = draw.curve().place(draw.rank(token, tag)) as f64;
                prop_assert!((place - exact).abs() <= 1.0, "{} {}", place, exact);
            }
        }

        #[test]
        fn ranks_and_places_are_inverse(table in tables(), part in 0f64..1.1) {
            let curve = Curve::of(&table);
            let place = (curve.tokens() as f64 * part) as u64;
            let rank = curve.through(place);
            if place < curve.tokens() {
                prop_assert!(curve.place(rank) >= place);
                prop_assert!(rank.0 == 0 || curve.place(Rank(rank.0 - 1)) < place);
                // Ranks are finer than places.
                prop_assert!(curve.place(rank) <= place + 1);
            } else {
                prop_assert_eq!(rank, Rank::LATE);
            }
        }
    }
}
