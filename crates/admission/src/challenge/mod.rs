//! The challenge: a little work, or a little patience, from newcomers while evidence says that programs ask for tickets.
//!
//! ```text
//!  newcomer asks ──► Policy: L4 or above, and a verdict that names requests as the attack?
//!                      │ no ──────────────────────────────────────────────► into the room
//!                      │ yes
//!                      ▼
//!                    a challenge ──► solved: a second of arithmetic ───────► into the room
//!                                └─► not solved: shown again after 20 s ───► into the room, later
//! ```
//!
//! It is a price and no wall. Nobody is kept out by it: who cannot compute, or does not want to, waits [`PATIENCE_S`]
//! seconds longer before the line begins for them. It never concerns the stage, hosts, operators, who listens, who holds
//! a ticket or who has a place in the room: [`Policy::asks`] has one case that is asked, and all others are not.
//!
//! # The format
//!
//! That of ALTCHA's proof of work, version 1, so that its clients can solve it: find the number `n` from 0 to `maxnumber`
//! for which the SHA-256 of `salt` followed by `n` in decimal is `challenge`. Unlike asking for leading zero bits, this
//! has an end: nobody ever computes more than `maxnumber + 1` hashes, and the mean is half of it.
//!
//! ```text
//! salt      = {16 random bytes, hex}?expires={s}&after={s}&max={maxnumber}&
//! number    = first 64 bits of HMAC(key, "minassa challenge number 1\0" ‖ salt) mod (maxnumber + 1)
//! challenge = SHA-256(salt ‖ number), hex
//! signature = HMAC(key, "minassa challenge 1\0" ‖ event ‖ 0 ‖ family ‖ prefix ‖ salt ‖ 0 ‖ challenge), hex
//! ```
//!
//! `expires` is when it is good for nothing any more, `after` from when on it is taken unsolved, both in seconds of UNIX
//! time. `family` is 4 or 6, `prefix` the /24 or /48 that it was given to. The `&` at the end keeps digits of the number
//! from being moved into the salt (CVE-2025-68113, a fault of ALTCHA's libraries until then).
//!
//! What an attacker can do: solve many (that is the price), wait with many (likewise), ask for many without answering
//! (they cost us three hashes each and no memory). What they cannot: use one for another event, from another network, after
//! its end or twice; make one up, make one easier, or learn from an answer or its timing how close a forgery came. Every
//! text of the right shape costs two HMACs, whatever becomes of it.
//!
//! # What is kept
//!
//! [`Spent`] remembers what was handed in until it expires, and nothing else is kept of a challenge.

mod answers;
mod policy;
mod puzzle;
mod spent;
#[cfg(test)]
mod tests;

pub use answers::{ADDRESS_GROUPS, Answers, EXCUSED, PERIOD_S};
pub use policy::{EASIER_BELOW, HARDER_FROM, HOLD, NUMBERS_MAX, ON_BP, Policy, STALE, STAY_BP, Traffic};
pub use puzzle::{
    ALGORITHM, Challenge, ChallengeKey, LIFE_S, PATIENCE_S, Paid, Proof, ProofId, Refusal,
    SOLUTION_CHARS_MAX, Solution, solve,
};
pub use spent::{SPENT_MAX, Spent};
