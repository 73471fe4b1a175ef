//! A bounded, deterministic run of a fuzz target over its seeds and their mutations: an ordinary test on a stable
//! compiler. libFuzzer finds more in hours; this finds in seconds what a change has just broken.

use std::path::Path;

/// How many mutations a target gets without `FUZZ_RUNS` in the environment.
const RUNS: usize = 100_000;
/// The longest input that mutation makes of a seed.
const LONGEST: usize = 8192;

/// splitmix64: small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Every seed of the folders, by name, so that the run is the same everywhere.
fn seeds(folders: &[&Path]) -> Vec<Vec<u8>> {
    let mut files: Vec<_> = folders
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())))
        .map(|entry| entry.expect("a folder's entry").path())
        .filter(|path| path.is_file() && !path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.')))
        .collect();
    files.sort();
    files.iter().map(|path| std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).collect()
}

/// One change: of a bit, a byte, a piece, or a word that means something to the parser.
fn mutate(input: &mut Vec<u8>, words: &[&str], others: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let end = (at + 1 + random.below(16)).min(input.len());
    match random.below(9) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.next() as u8,
        2 => drop(input.drain(at.min(end)..end)),
        3 => {
            let piece = input[at.min(end)..end].to_vec();
            let to = random.below(input.len() + 1);
            input.splice(to..to, piece);
        }
        4 | 5 => {
            let word = words[random.below(words.len())].bytes();
            input.splice(at..at, word);
        }
        6 => {
            let word = words[random.below(words.len())].bytes();
            input.splice(at.min(end)..end, word);
        }
        7 => input.truncate(at),
        _ => {
            let other = &others[random.below(others.len())];
            let from = random.below(other.len() + 1);
            let to = (from + random.below(256)).min(other.len());
            input.splice(at..at, other[from..to].iter().copied());
        }
    }
    input.truncate(LONGEST);
}

/// Runs `target` on every seed and on their mutations. A panic is caught once, to print the input that made it.
pub(crate) fn run(folders: &[&Path], words: &[&str], target: fn(&[u8])) {
    let seeds = seeds(folders);
    assert!(!seeds.is_empty(), "no seeds in {folders:?}");
    let runs = std::env::var("FUZZ_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(RUNS);
    let mut random = Random(0x5eed);
    let check = |input: &[u8]| {
        if let Err(panic) = std::panic::catch_unwind(|| target(input)) {
            eprintln!("input: {}", input.escape_ascii());
            std::panic::resume_unwind(panic);
        }
    };
    seeds.iter().for_each(|seed| check(seed));
    for n in 0..runs {
        let mut input = seeds[n % seeds.len()].clone();
        for _ in 0..=random.below(4) {
            mutate(&mut input, words, &seeds, &mut random);
        }
        check(&input);
    }
}
