//! The registrar service: answers REGISTER. Digest from the snapshot's HA1s, the rules of an address of record,
//! bindings into the store, expired ones out of it.

pub mod auth;
pub mod core;
pub mod directory;
pub mod driver;
pub mod read;
pub mod recent;
pub mod refill;
pub mod reply;
pub mod save;
pub mod sweep;
#[cfg(test)]
mod testing;
mod view;

pub use crate::core::Settings;
pub use crate::driver::{Config, build};
