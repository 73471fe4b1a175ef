//! Whole calls in virtual time: the core between phones, a store and a relay that the test plays.

mod acks;
mod answers;
mod astray;
mod basic;
mod callback;
mod changes;
mod driver;
mod fleet;
mod forks;
mod frozen;
mod lab;
mod leave;
mod loss;
mod lost_conferences;
mod noise;
mod phones;
mod refusals;
mod relays;
mod rooms;
mod steps;
mod takeover;
mod timers;
