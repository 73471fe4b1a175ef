//! Randomness: where drivers take the generator that they hand to cores.

use rand::SeedableRng;
use rand::rngs::{OsRng, StdRng};

/// A cryptographically secure generator, seeded by the operating system. One a driver; cores are given `&mut` of it.
pub fn entropy() -> StdRng {
    StdRng::try_from_rng(&mut OsRng).unwrap_or_else(|_| StdRng::from_os_rng())
}

/// A new process's name: random, unique in an installation with overwhelming likelihood, never zero.
pub fn process_id() -> contract::ProcessId {
    use rand::RngCore;
    contract::ProcessId(entropy().next_u64().max(1))
}
