//! One challenge: made, solved, checked.

use std::net::IpAddr;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use model::{EventSlug, UnixTime};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::room::MintCost;
use crate::room::prefix::network;

/// The only algorithm there is, by ALTCHA's name.
pub const ALGORITHM: &str = "SHA-256";
/// How long a challenge may be answered, seconds.
pub const LIFE_S: u64 = 120;
/// After how many seconds it is taken unsolved: ten times what an old phone computes, and short beside any wait at L4.
pub const PATIENCE_S: u64 = 20;
const _: () = assert!(PATIENCE_S * 3 < LIFE_S, "a page that reloads late still finds it good");
/// Most characters of a solution: four times what ours are.
pub const SOLUTION_CHARS_MAX: usize = 2_048;

const DOMAIN: &[u8] = b"minassa challenge 1\0";
const NUMBER_DOMAIN: &[u8] = b"minassa challenge number 1\0";

/// Solutions are base64 as `btoa` writes it; who leaves the padding out is understood too.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What challenges are signed with: random, and as short-lived as the process, because what was handed in is remembered
/// no longer than that.
#[derive(Clone)]
pub struct ChallengeKey(pub [u8; 32]);

impl std::fmt::Debug for ChallengeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChallengeKey(..)")
    }
}

/// What is asked of a newcomer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// What the number is appended to. It says by itself until when it is good.
    pub salt: String,
    /// SHA-256 of salt and number, hex.
    pub challenge: String,
    /// The greatest the number can be.
    pub maxnumber: u32,
    /// Hex.
    pub signature: String,
    /// Until when it may be answered, seconds of UNIX time.
    pub expires_s: u64,
    /// From when on it is taken unsolved, seconds of UNIX time.
    pub after_s: u64,
}

/// What comes back: the fields of a challenge, and the number if it was searched for. On the wire it is the base64 of
/// ALTCHA's JSON; fields that its clients add (`took`, `test`) are not looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Solution {
    /// [`ALGORITHM`].
    pub algorithm: String,
    /// As it was given.
    pub challenge: String,
    /// What was found; missing where somebody waited instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// As it was given.
    pub salt: String,
    /// As it was given.
    pub signature: String,
}

/// Why a solution is none. Whoever gets one of these is as far as who showed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not of the form of a solution.
    #[error("this is no solution of a challenge")]
    Malformed,
    /// Not one of ours; or given for another event, to another network, or by a process that is no more.
    #[error("the challenge was not given here, for this event and to this network")]
    Forged,
    /// Too late.
    #[error("the challenge has expired")]
    Expired,
    /// The number is another one.
    #[error("the number does not solve the challenge")]
    Wrong,
    /// Not solved, and not waited for long enough.
    #[error("the challenge is taken unsolved in {seconds} s")]
    Early {
        /// How much longer to wait.
        seconds: u64,
    },
    /// It was handed in before.
    #[error("the challenge was used before")]
    Replayed,
}

impl Refusal {
    /// How many there are.
    pub const COUNT: usize = 6;

    /// Names, in the order of [`Self::index`].
    pub const NAMES: [&'static str; Self::COUNT] =
        ["malformed", "forged", "expired", "wrong", "early", "replayed"];

    /// Its place among [`Self::NAMES`].
    pub const fn index(self) -> usize {
        match self {
            Self::Malformed => 0,
            Self::Forged => 1,
            Self::Expired => 2,
            Self::Wrong => 3,
            Self::Early { .. } => 4,
            Self::Replayed => 5,
        }
    }
}

/// With what was paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paid {
    /// With work: so many bits of it, rounded down.
    Work(MintCost),
    /// With [`PATIENCE_S`].
    Patience,
}

/// Who handed it in twice is found by this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProofId(pub u64);

/// A solution that holds. It is worth something once: see [`super::Spent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// What tells it from every other.
    pub id: ProofId,
    /// Until when it must be remembered, seconds of UNIX time.
    pub expires_s: u64,
    /// When it was given, seconds of UNIX time.
    pub given_s: u64,
    /// With what was paid.
    pub paid: Paid,
}

impl ChallengeKey {
    /// Makes a challenge for who asks from `address`, with numbers up to `maxnumber`. `nonce` is 16 random bytes.
    pub fn challenge(
        &self,
        event: &EventSlug,
        address: IpAddr,
        maxnumber: u32,
        nonce: [u8; 16],
        now: UnixTime,
    ) -> Challenge {
        let now_s = seconds(now);
        let (expires_s, after_s) = (now_s.saturating_add(LIFE_S), now_s.saturating_add(PATIENCE_S));
        let nonce = hex(&nonce);
        let salt = format!("{nonce}?expires={expires_s}&after={after_s}&max={maxnumber}&");
        let challenge = hex(&hash(&salt, self.number(&salt, maxnumber)));
        let signature = hex(&self.sign(event, address, &salt, &challenge));
        Challenge { salt, challenge, maxnumber, signature, expires_s, after_s }
    }

    /// Checks what was handed in, as a text, by who asks from `address`. Whether it was handed in before is for
    /// [`super::Spent`] to say.
    ///
    /// # Errors
    /// [`Refusal`], the first that applies in the order of its variants.
    pub fn check(
        &self,
        text: &str,
        event: &EventSlug,
        address: IpAddr,
        now: UnixTime,
    ) -> Result<Proof, Refusal> {
        let solution = Solution::parse(text).ok_or(Refusal::Malformed)?;
        let said = Salt::parse(&solution.salt).ok_or(Refusal::Malformed)?;
        let given = bytes(&solution.signature).ok_or(Refusal::Malformed)?;
        // Both before the first look at what they say: nothing is cheaper for who was further off.
        let expected = self.sign(event, address, &solution.salt, &solution.challenge);
        let number = self.number(&solution.salt, said.maxnumber);
        if !bool::from(expected.ct_eq(&given)) {
            return Err(Refusal::Forged);
        }
        let now_s = seconds(now);
        if now_s > said.expires_s {
            return Err(Refusal::Expired);
        }
        let paid = match solution.number {
            Some(found) if found == number => Paid::Work(work(said.maxnumber)),
            Some(_) => return Err(Refusal::Wrong),
            None if now_s >= said.after_s => Paid::Patience,
            None => return Err(Refusal::Early { seconds: said.after_s - now_s }),
        };
        let (id, _) = expected.split_first_chunk::<8>().expect("an HMAC has 32 bytes");
        Ok(Proof {
            id: ProofId(u64::from_be_bytes(*id)),
            expires_s: said.expires_s,
            given_s: said.after_s.saturating_sub(PATIENCE_S),
            paid,
        })
    }

    /// The group of an address, from 0 to `groups - 1`, which nobody without the key can tell.
    pub(super) fn group(&self, address: IpAddr, groups: usize) -> usize {
        let octets = match address.to_canonical() {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            // Of IPv6 the /64, inside of which a machine takes what addresses it likes.
            IpAddr::V6(address) => {
                let mut octets = address.octets();
                octets[8..].fill(0);
                octets
            }
        };
        let hash = crate::room::hmac_sha256(&self.0, &[b"minassa challenge group 1\0", &octets]);
        below(&hash, groups as u64) as usize
    }

    fn number(&self, salt: &str, maxnumber: u32) -> u64 {
        let hash = crate::room::hmac_sha256(&self.0, &[NUMBER_DOMAIN, salt.as_bytes()]);
        below(&hash, u64::from(maxnumber) + 1)
    }

    fn sign(&self, event: &EventSlug, address: IpAddr, salt: &str, challenge: &str) -> [u8; 32] {
        let (family, prefix) = network(address);
        let (event, salt, challenge) = (event.as_str().as_bytes(), salt.as_bytes(), challenge.as_bytes());
        crate::room::hmac_sha256(&self.0, &[DOMAIN, event, &[0, family], &prefix, salt, &[0], challenge])
    }
}

impl Challenge {
    /// What is handed in: with the number that was found, or without one by who waits.
    pub fn answer(&self, number: Option<u64>) -> Solution {
        Solution {
            algorithm: ALGORITHM.to_owned(),
            challenge: self.challenge.clone(),
            number,
            salt: self.salt.clone(),
            signature: self.signature.clone(),
        }
    }
}

impl Solution {
    /// Reads the base64 of a JSON object. `None` for anything else, or more than [`SOLUTION_CHARS_MAX`] characters.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > SOLUTION_CHARS_MAX {
            return None;
        }
        let json = BASE64.decode(text).ok()?;
        let solution: Self = serde_json::from_slice(&json).ok()?;
        (solution.algorithm == ALGORITHM).then_some(solution)
    }

    /// As [`Self::parse`] reads it.
    pub fn encode(&self) -> String {
        BASE64.encode(serde_json::to_vec(self).expect("texts and a number are JSON"))
    }
}

/// What a salt says, true or not.
struct Salt {
    expires_s: u64,
    after_s: u64,
    maxnumber: u32,
}

impl Salt {
    fn parse(salt: &str) -> Option<Self> {
        let (_, said) = salt.split_once("?expires=")?;
        let (expires, said) = said.split_once("&after=")?;
        let (after, maxnumber) = said.split_once("&max=")?;
        let maxnumber = maxnumber.strip_suffix('&')?;
        Some(Self {
            expires_s: expires.parse().ok()?,
            after_s: after.parse().ok()?,
            maxnumber: maxnumber.parse().ok()?,
        })
    }
}

/// Searches for the number, as a client does; for load generators and tests. `None` if there is none up to `maxnumber`.
pub fn solve(salt: &str, challenge: &str, maxnumber: u32) -> Option<u64> {
    let wanted = bytes(challenge)?;
    // The salt's first block is the same for all: it is taken in once.
    let salted = Sha256::new_with_prefix(salt);
    (0..=u64::from(maxnumber)).find(|number| finish(salted.clone(), *number) == wanted)
}

fn hash(salt: &str, number: u64) -> [u8; 32] {
    finish(Sha256::new_with_prefix(salt), number)
}

/// With the number in decimal.
fn finish(mut salted: Sha256, number: u64) -> [u8; 32] {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut left = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    salted.update(&digits[at..]);
    salted.finalize().into()
}

/// Bits of work on average: half of the numbers are tried.
fn work(maxnumber: u32) -> MintCost {
    let tried = (maxnumber / 2).max(1);
    MintCost(u8::try_from(tried.ilog2()).unwrap_or(u8::MAX))
}

/// A number below `bound`, from the first 64 bits; what it leans to small ones is below 2^-30 for our bounds.
fn below(hash: &[u8; 32], bound: u64) -> u64 {
    let (first, _) = hash.split_first_chunk::<8>().expect("an HMAC has 32 bytes");
    u64::from_be_bytes(*first) % bound.max(1)
}

/// Seconds since 1970; 0 before it.
pub(super) fn seconds(time: UnixTime) -> u64 {
    u64::try_from(time.as_millis() / 1_000).unwrap_or(0)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

/// 32 bytes written as lower-case hex.
fn bytes(hex: &str) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = hex.as_bytes().try_into().ok()?;
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}
