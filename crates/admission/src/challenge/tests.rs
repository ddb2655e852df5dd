//! What holds of challenges, in time that the tests set.

use model::{EventSlug, UnixTime};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::net::IpAddr;

use super::*;
use crate::ladder::{Level, Priority};
use crate::ledger::BinStart;
use crate::room::MintCost;
use crate::verdict::{Class, Direction, Feature, Reason, Sign, Verdict};

const START_S: i64 = 2_000_000_000;

fn at(second: i64) -> UnixTime {
    UnixTime::from_millis((START_S + second) * 1_000)
}

fn key() -> ChallengeKey {
    ChallengeKey([7; 32])
}

fn talk() -> EventSlug {
    "a-talk".parse().unwrap()
}

fn home() -> IpAddr {
    "192.0.2.1".parse().unwrap()
}

fn given() -> Challenge {
    key().challenge(&talk(), home(), 1_000, *b"sixteen bytes id", at(0))
}

fn solved(challenge: &Challenge) -> Solution {
    challenge.answer(solve(&challenge.salt, &challenge.challenge, challenge.maxnumber))
}

fn check(text: &str, second: i64) -> Result<Proof, Refusal> {
    key().check(text, &talk(), home(), at(second))
}

// One challenge.

#[test]
fn a_challenge_is_what_others_compute() {
    // Python's hmac and hashlib.
    let challenge = given();
    assert_eq!(
        challenge.salt,
        "7369787465656e206279746573206964?expires=2000000120&after=2000000020&max=1000&"
    );
    assert_eq!(challenge.challenge, "05fbeadfa1dbfe472761725a327fd31049a062b8b62b8b6d75d54369be142bcf");
    assert_eq!(challenge.signature, "739124b8e098f5a6f77caab4729b2eb0144db50a396f6aaa9d4f04f7cc33f503");
    assert_eq!(solved(&challenge).number, Some(798));
    assert_eq!((challenge.expires_s, challenge.after_s), (2_000_000_120, 2_000_000_020));
    // From the tests of ALTCHA's libraries.
    let theirs = "aa9c8ec8057413dd8220e21e15ab54b095fb3c840601d44c39bece8d9df34529";
    assert_eq!(solve("3065d108b2314f5ecc7e1207", theirs, 1_000_000), Some(971_813));
    assert_eq!(solve("3065d108b2314f5ecc7e1207", theirs, 971_812), None);
    assert_eq!(format!("{:?}", key()), "ChallengeKey(..)");
}

#[test]
fn numbers_are_spread_over_their_range() {
    let numbers: Vec<u64> = (0..400_u32)
        .map(|n| {
            let mut nonce = [0; 16];
            nonce[..4].copy_from_slice(&n.to_be_bytes());
            let challenge = key().challenge(&talk(), home(), 99, nonce, at(0));
            solved(&challenge).number.unwrap()
        })
        .collect();
    let mean = numbers.iter().sum::<u64>() as f64 / 400.0;
    assert!(
        (45.0..54.0).contains(&mean) && numbers.iter().any(|n| *n < 5) && numbers.iter().any(|n| *n > 94)
    );
    let none = key().challenge(&talk(), home(), 0, [0; 16], at(0));
    assert_eq!(solved(&none).number, Some(0));
}

#[test]
fn a_solution_holds_until_it_expires() {
    let text = solved(&given()).encode();
    let proof = check(&text, 0).unwrap();
    assert_eq!(proof.paid, Paid::Work(MintCost(8)));
    assert_eq!((proof.given_s, proof.expires_s), (START_S as u64, START_S as u64 + LIFE_S));
    assert_eq!(check(&text, LIFE_S as i64), Ok(proof));
    assert_eq!(check(&text, LIFE_S as i64 + 1), Err(Refusal::Expired));
    // Everything in the same network is the same.
    let neighbour: IpAddr = "::ffff:192.0.2.200".parse().unwrap();
    assert_eq!(key().check(&text, &talk(), neighbour, at(1)), Ok(proof));
}

#[test]
fn what_altchas_clients_send_is_understood() {
    use base64::Engine as _;
    let Solution { challenge, number, salt, signature, .. } = solved(&given());
    let json = serde_json::json!({
        "algorithm": "SHA-256", "challenge": challenge, "number": number, "salt": salt, "signature": signature,
        "took": 113, "test": false,
    });
    let text = base64::engine::general_purpose::STANDARD.encode(json.to_string());
    assert!(check(&text, 1).is_ok());
    assert!(check(text.trim_end_matches('='), 1).is_ok());
}

#[test]
fn patience_pays_too() {
    let text = given().answer(None).encode();
    for second in [0, 1, 19] {
        assert_eq!(check(&text, second), Err(Refusal::Early { seconds: PATIENCE_S - second as u64 }));
    }
    let proof = check(&text, PATIENCE_S as i64).unwrap();
    assert_eq!(proof.paid, Paid::Patience);
    // Solved or not, it is one and the same.
    assert_eq!(proof.id, check(&solved(&given()).encode(), 0).unwrap().id);
    assert_eq!(check(&text, LIFE_S as i64 + 1), Err(Refusal::Expired));
}

#[test]
fn it_is_for_one_event_and_one_network() {
    let text = solved(&given()).encode();
    let other = "another".parse().unwrap();
    assert_eq!(key().check(&text, &other, home(), at(0)), Err(Refusal::Forged));
    for foreign in ["192.0.3.1", "2001:db8::1", "c000:200::"] {
        let foreign = foreign.parse().unwrap();
        assert_eq!(key().check(&text, &talk(), foreign, at(0)), Err(Refusal::Forged), "{foreign}");
    }
    // After a restart there is another key.
    assert_eq!(ChallengeKey([8; 32]).check(&text, &talk(), home(), at(0)), Err(Refusal::Forged));
    let six: IpAddr = "2001:db8:1:2::3".parse().unwrap();
    let challenge = key().challenge(&talk(), six, 10, [1; 16], at(0));
    let text = solved(&challenge).encode();
    assert!(key().check(&text, &talk(), "2001:db8:1:ffff::".parse().unwrap(), at(0)).is_ok());
    assert_eq!(key().check(&text, &talk(), "2001:db8:2::".parse().unwrap(), at(0)), Err(Refusal::Forged));
}

#[test]
fn nobody_makes_one_up_or_makes_one_easier() {
    let good = solved(&given());
    let with = |change: &dyn Fn(&mut Solution)| {
        let mut solution = good.clone();
        change(&mut solution);
        check(&solution.encode(), 1)
    };
    assert!(with(&|_| {}).is_ok());
    let number = good.number.unwrap();
    assert_eq!(with(&|s| s.number = Some(number + 1)), Err(Refusal::Wrong));
    assert_eq!(with(&|s| s.number = Some(u64::MAX)), Err(Refusal::Wrong));
    assert_eq!(with(&|s| s.salt = s.salt.replace("max=1000", "max=1")), Err(Refusal::Forged));
    assert_eq!(with(&|s| s.salt = s.salt.replace("after=20000000", "after=10000000")), Err(Refusal::Forged));
    assert_eq!(with(&|s| s.salt = s.salt.replace("expires=2", "expires=9")), Err(Refusal::Forged));
    // Digits of the number moved into the salt: the same hash, another text.
    let digits = number.to_string();
    let (first, rest) = digits.split_at(1);
    assert_eq!(
        with(&|s| {
            s.salt.push_str(first);
            s.number = rest.parse().ok();
        }),
        Err(Refusal::Malformed)
    );
    assert_eq!(with(&|s| s.challenge = "0".repeat(64)), Err(Refusal::Forged));
    assert_eq!(with(&|s| s.signature = "0".repeat(64)), Err(Refusal::Forged));
    assert_eq!(with(&|s| s.signature.make_ascii_uppercase()), Err(Refusal::Malformed));
    assert_eq!(with(&|s| s.signature.truncate(32)), Err(Refusal::Malformed));
    assert_eq!(with(&|s| s.algorithm = "SHA-1".into()), Err(Refusal::Malformed));
    for bit in 0..256 {
        let flipped = with(&|s| {
            let at = bit / 4;
            let digit = u8::from_str_radix(&s.signature[at..=at], 16).unwrap() ^ (1 << (bit % 4));
            s.signature.replace_range(at..=at, &format!("{digit:x}"));
        });
        assert_eq!(flipped, Err(Refusal::Forged), "{bit}");
    }
    let long = "A".repeat(SOLUTION_CHARS_MAX + 4);
    for text in ["", "e30=", "bnVsbA==", "W10=", "{}", "ت", "====", &long, "eyJhbGdvcml0aG0iOiJTSEEtMjU2In0="]
    {
        assert_eq!(check(text, 0), Err(Refusal::Malformed), "{text:.20}");
    }
}

// What was handed in.

#[test]
fn a_proof_is_taken_once() {
    let mut spent = Spent::default();
    let proof = check(&solved(&given()).encode(), 0).unwrap();
    assert!(spent.take(&proof, at(0)));
    assert!(!spent.take(&proof, at(0)));
    assert!(!spent.take(&proof, at(LIFE_S as i64)));
    // As patience it would be the same one.
    let waited = check(&given().answer(None).encode(), PATIENCE_S as i64).unwrap();
    assert!(!spent.take(&waited, at(PATIENCE_S as i64)));
    assert_eq!((spent.len(), spent.forgotten()), (1, 0));
}

#[test]
fn what_is_remembered_is_bounded_and_ends() {
    let proof =
        |n: u64| Proof { id: ProofId(n), expires_s: START_S as u64 + n, given_s: 0, paid: Paid::Patience };
    let mut spent = Spent::new(3);
    for n in 1..=3 {
        assert!(spent.take(&proof(n), at(0)));
    }
    // Full: the one that expires first is forgotten, and counted.
    assert!(spent.take(&proof(4), at(0)));
    assert_eq!((spent.len(), spent.forgotten()), (3, 1));
    assert!(!spent.take(&proof(2), at(0)) && !spent.take(&proof(4), at(0)));
    assert!(spent.take(&proof(1), at(0)), "that is what is lost");
    assert_eq!(spent.forgotten(), 2);
    // What has expired makes room.
    assert!(spent.take(&proof(9), at(5)));
    assert_eq!((spent.len(), spent.forgotten()), (1, 2));
    assert!(!spent.is_empty());
}

// Who did not answer.

#[test]
fn who_does_not_answer_and_asks_again_is_counted() {
    let key = key();
    let proof = |given: i64| Proof {
        id: ProofId(1),
        expires_s: 0,
        given_s: (START_S + given) as u64,
        paid: Paid::Patience,
    };
    let [program, people, reloader]: [IpAddr; 3] =
        ["192.0.2.1", "198.51.100.1", "203.0.113.1"].map(|text| text.parse().unwrap());
    let mut answers = Answers::new(at(0));
    for _ in 0..100 {
        answers.give(&key, program, at(1));
        answers.give(&key, people, at(1));
    }
    (0..3).for_each(|_| answers.give(&key, reloader, at(1)));
    // Behind one address most answer, some at once, others by waiting; the rest went away.
    (0..40).for_each(|_| answers.answer(&key, people, &proof(1), at(2)));
    (0..40).for_each(|_| answers.answer(&key, people, &proof(1), at(25)));
    assert_eq!(answers.ignored(at(39)), 0, "they may yet answer");
    assert_eq!(answers.ignored(at(40)), 97);
    assert_eq!(answers.ignored(at(41)), 0, "told once");
    // Answers to what is long over count for nothing, nor do those from the future; clocks may leap.
    answers.answer(&key, program, &proof(1), at(60));
    answers.answer(&key, program, &proof(900), at(60));
    answers.give(&key, program, at(61));
    assert_eq!(answers.ignored(at(1_000_000)), 0);
    (0..9).for_each(|_| answers.give(&key, program, at(-1_000)));
    assert_eq!(answers.ignored(at(2_000_000)), 6);
    let groups: std::collections::BTreeSet<usize> =
        (0..=255).map(|n| key.group(IpAddr::from([192, 0, 2, n]), ADDRESS_GROUPS)).collect();
    assert!(groups.len() > 230, "{}", groups.len());
    let of = |text: &str| key.group(text.parse().unwrap(), ADDRESS_GROUPS);
    assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
    assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
    assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
}

// When it is asked.

fn bin(n: u64) -> BinStart {
    BinStart::try_from(START_S as u64 * 1_000 + n * 10_000).unwrap()
}

fn verdict(n: u64, class: Class, confidence_bp: u64, signs: &[Sign]) -> Verdict {
    let reason = |sign: &Sign| Reason {
        feature: Feature::UnusedTickets,
        sign: *sign,
        value: 9_000,
        threshold: 5_000,
        direction: Direction::Above,
    };
    let reasons = signs.iter().map(reason).collect();
    Verdict { at_ms: bin(n), class, confidence_bp, since_ms: bin(n), reasons }
}

fn attack(n: u64, confidence_bp: u64) -> Verdict {
    verdict(n, Class::L7, confidence_bp, &[Sign::L7])
}

fn newcomer(policy: &Policy, second: i64) -> Option<u32> {
    policy.asks(Priority::Newcomer, false, Level::L4, at(second))
}

#[test]
fn only_newcomers_only_from_l4_and_only_where_evidence_asks() {
    let mut policy = Policy::default();
    for who in Priority::ALL {
        assert_eq!(policy.asks(who, false, Level::L6, at(0)), None, "nobody without a verdict");
    }
    policy.observe(Some(&attack(0, 9_500)), Traffic::default(), at(10));
    for who in Priority::ALL {
        for placed in [false, true] {
            for level in Level::ALL {
                let expected = who == Priority::Newcomer && !placed && level >= Level::L4;
                let asks = policy.asks(who, placed, level, at(11));
                assert_eq!(asks.is_some(), expected, "{who:?} {placed} {level:?}");
            }
        }
    }
    assert_eq!(newcomer(&policy, 11), Some(NUMBERS_MAX[0]), "it begins easy");
}

#[test]
fn verdicts_that_ask_for_it() {
    use Class::{Crowd, Insufficient, L7, L34, Mixed, SelfInflicted};
    for (class, confidence, signs, expected) in [
        (L7, 9_500, &[Sign::L7][..], true),
        (L7, 7_500, &[Sign::L7, Sign::Doubt], true),
        (L7, 7_499, &[Sign::L7], false),
        (L7, 7_000, &[Sign::L7], false),
        (Mixed, 8_000, &[Sign::L34, Sign::L7], true),
        (Mixed, 8_000, &[Sign::L7, Sign::Own], true),
        (Mixed, 8_000, &[Sign::L34, Sign::Own], false),
        (Mixed, 7_000, &[Sign::L7, Sign::People], false),
        (L34, 9_500, &[Sign::L34], false),
        (SelfInflicted, 9_500, &[Sign::Own], false),
        (Insufficient, 0, &[Sign::Doubt, Sign::Doubt], false),
        (Crowd, 9_500, &[Sign::People], false),
    ] {
        let mut policy = Policy::default();
        policy.observe(Some(&verdict(0, class, confidence, signs)), Traffic::default(), at(10));
        assert_eq!(policy.is_on(at(10)), expected, "{class:?} {confidence} {signs:?}");
    }
}

#[test]
fn it_stays_for_a_minute_after_the_last_verdict_that_asked() {
    let mut policy = Policy::default();
    policy.observe(Some(&attack(0, ON_BP)), Traffic::default(), at(10));
    // One rule alone keeps it up, though it would not begin it.
    policy.observe(Some(&attack(1, STAY_BP)), Traffic::default(), at(20));
    assert!(policy.is_on(at(79)) && !policy.is_on(at(80)));
    policy.observe(Some(&attack(2, STAY_BP - 1)), Traffic::default(), at(30));
    policy.observe(Some(&verdict(3, Class::Crowd, 9_500, &[])), Traffic::default(), at(40));
    policy.observe(None, Traffic::default(), at(50));
    assert!(policy.is_on(at(79)) && !policy.is_on(at(80)));
    policy.observe(Some(&attack(8, STAY_BP)), Traffic::default(), at(90));
    assert!(!policy.is_on(at(90)), "it does not begin again by less");
    policy.observe(Some(&attack(9, ON_BP)), Traffic::default(), at(100));
    assert!(policy.is_on(at(100)));
    // The same verdict, read again and again because nobody writes another, prolongs nothing.
    for second in 101..170 {
        policy.observe(Some(&attack(9, ON_BP)), Traffic::default(), at(second));
    }
    assert!(!policy.is_on(at(160)));
    // Nor does one that is old, or a clock that is set back.
    policy.observe(Some(&attack(10, 9_500)), Traffic::default(), at(300));
    assert!(!policy.is_on(at(300)));
    policy.observe(Some(&attack(40, 9_500)), Traffic::default(), at(410));
    assert!(policy.is_on(at(410)) && !policy.is_on(at(300)));
}

#[test]
fn it_becomes_harder_only_for_those_who_pay() {
    let mut policy = Policy::default();
    let mut n = 0;
    let mut bins = |policy: &mut Policy, count: u64, asked: u64, solved: u64| {
        for _ in 0..count {
            let traffic = Traffic { asked, solved };
            policy.observe(Some(&attack(n, 8_000)), traffic, at(10 * n as i64 + 10));
            n += 1;
        }
        newcomer(policy, 10 * n as i64).unwrap()
    };
    assert_eq!(bins(&mut policy, 2, 100, 90), NUMBERS_MAX[0]);
    assert_eq!(bins(&mut policy, 1, 100, 90), NUMBERS_MAX[1]);
    assert_eq!(bins(&mut policy, 3, 100, 90), NUMBERS_MAX[2]);
    assert_eq!(bins(&mut policy, 9, 100, 90), NUMBERS_MAX[2], "there is a limit");
    assert_eq!(bins(&mut policy, 3, 100, 30), NUMBERS_MAX[2]);
    assert_eq!(bins(&mut policy, 3, 2, 0), NUMBERS_MAX[2], "six say nothing");
    assert_eq!(bins(&mut policy, 3, 100, 5), NUMBERS_MAX[1]);
    assert_eq!(bins(&mut policy, 9, 100, 0), NUMBERS_MAX[0]);
    assert_eq!(bins(&mut policy, 6, 100, 90), NUMBERS_MAX[2]);
    // Each bin without evidence makes it easier, before it ends.
    policy.observe(Some(&verdict(39, Class::Crowd, 9_000, &[])), Traffic::default(), at(400));
    assert_eq!(newcomer(&policy, 400), Some(NUMBERS_MAX[1]));
    policy.observe(None, Traffic::default(), at(600));
    policy.observe(Some(&attack(60, 8_000)), Traffic::default(), at(610));
    assert_eq!(newcomer(&policy, 610), Some(NUMBERS_MAX[0]), "and it begins easy again");
}

#[test]
fn the_page_about_it_says_what_holds() {
    let page = include_str!("../../../../docs/challenge.md");
    assert!(NUMBERS_MAX.is_sorted());
    for (step, most) in NUMBERS_MAX.iter().enumerate() {
        let row = format!("| {} | {},{:03} |", step + 1, most / 1_000, most % 1_000);
        assert!(page.contains(&row), "{row}");
    }
    for words in [
        format!("confidence ≥ {}", ON_BP as f64 / 10_000.0),
        format!("confidence ≥ {:.2}", STAY_BP as f64 / 10_000.0),
        format!("{} s after the last bin that asked for it", HOLD.as_secs()),
        format!("evidence older than {} s", STALE.as_secs()),
        format!("≥ {HARDER_FROM} % of those challenged"),
        format!("< {EASIER_BELOW} % solve it"),
        format!("\"waits_s\": {PATIENCE_S}"),
    ] {
        assert!(page.contains(&words), "{words}");
    }
    for reason in Refusal::NAMES {
        assert!(page.contains(&format!("`{reason}`")), "{reason}");
    }
    assert_eq!(Refusal::NAMES[Refusal::Early { seconds: 3 }.index()], "early");
    assert_eq!(Refusal::NAMES[Refusal::Replayed.index()], "replayed");
}

proptest! {
    // Chance has its bounds here: the same cases in every run.
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(4),
        ..ProptestConfig::default()
    })]

    /// Whatever comes, it is an answer; and only what was given here is taken.
    #[test]
    fn any_text_is_answered(text in "\\PC{0,300}", json in json(), bytes in any::<Vec<u8>>()) {
        crate::fuzz::challenge(text.as_bytes());
        crate::fuzz::challenge(json.as_bytes());
        crate::fuzz::challenge(&bytes);
    }

    /// A good solution with something changed in its bytes is either the same one or none.
    #[test]
    fn a_changed_solution_gains_nothing(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let good = solved(&given());
        let mut bytes = serde_json::to_vec(&good).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(&bytes);
        let checked = check(&text, 1);
        prop_assert!(checked.is_err() || Solution::parse(&text) == Some(good), "{:?}", checked);
    }
}

/// Something like a solution.
fn json() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        Just("SHA-256".to_owned()),
        Just("aa?expires=1&after=0&max=5&".to_owned()),
        Just("?expires=99999999999999999999&after=0&max=-5&".to_owned()),
        Just("0".repeat(64)),
        "\\PC{0,80}",
    ];
    let value = prop_oneof![
        text.prop_map(serde_json::Value::from),
        any::<u64>().prop_map(serde_json::Value::from),
        any::<f64>().prop_map(serde_json::Value::from),
        Just(serde_json::Value::Null),
    ];
    let key = prop_oneof![
        4 => prop::sample::select(vec!["algorithm", "challenge", "number", "salt", "signature"]).prop_map(str::to_owned),
        1 => "[a-z]{0,9}",
    ];
    prop::collection::btree_map(key, value, 0..8)
        .prop_map(|fields| serde_json::to_string(&fields).expect("a map of texts is JSON"))
}
