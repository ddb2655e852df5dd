//! Every fuzz entry point over valid inputs and mutations of them, so that they compile, run and hold on any machine.
//! `fuzz/` takes them further where there is a fuzzer.

use minassa_formats::fuzz;

/// Mutated inputs for each entry point.
const ROUNDS: u64 = 20_000;

/// SplitMix64: a generator that is its own description.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// One to four changes such as a fuzzer makes.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], chance: &mut Chance) {
    const TELLING: [u8; 8] = [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff, b':'];
    for _ in 0..=chance.below(4) {
        let at = chance.below(bytes.len());
        match chance.below(8) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, chance.next() as u8),
            2 => {
                let end = at + chance.below(9).min(bytes.len() - at);
                bytes.drain(at..end);
            }
            3 => {
                let end = at + chance.below(64).min(bytes.len() - at);
                bytes.extend_from_within(at..end);
            }
            4 => {
                let from = chance.below(other.len());
                let length = chance.below(64).min(other.len() - from);
                bytes.splice(at..at, other[from..from + length].iter().copied());
            }
            5 | 6 if at < bytes.len() => bytes[at] = TELLING[chance.below(TELLING.len())],
            _ if at < bytes.len() => bytes[at] ^= 1 << chance.below(8),
            _ => (),
        }
    }
}

fn check(name: &str, target: fn(&[u8])) {
    let seeds = fuzz::seeds(name);
    assert!(!seeds.is_empty());
    target(&[]);
    seeds.iter().for_each(|seed| target(seed));
    let mut chance = Chance(1);
    for _ in 0..ROUNDS {
        let mut bytes = seeds[chance.below(seeds.len())].clone();
        mutate(&mut bytes, &seeds[chance.below(seeds.len())], &mut chance);
        target(&bytes);
    }
}

#[test]
fn mp4() {
    check("mp4", fuzz::mp4);
}

#[test]
fn ogg() {
    check("ogg", fuzz::ogg);
}

#[test]
fn mp3() {
    check("mp3", fuzz::mp3);
}

#[test]
fn hls() {
    check("hls", fuzz::hls);
}

#[test]
fn ogg_sealed() {
    check("ogg_sealed", fuzz::ogg_sealed);
}

/// Writes the valid inputs where cargo-fuzz looks for its corpus: `fuzz/corpus/{target}/seed-{n}`.
#[test]
#[ignore = "writes files; run it before fuzzing (fuzz/README.md)"]
fn write_seeds() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for target in ["mp4", "ogg", "ogg_sealed", "mp3", "hls"] {
        let folder = corpus.join(target);
        std::fs::create_dir_all(&folder).unwrap();
        for (n, seed) in fuzz::seeds(target).iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{n}")), seed).unwrap();
        }
    }
}
