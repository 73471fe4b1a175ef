//! Dispatchers: sets of outside destinations, picked by an algorithm, probed by OPTIONS (Kamailio: dispatcher).

pub mod algorithm;
pub mod probe;
pub mod set;
