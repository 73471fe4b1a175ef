//! The conference service: answers a leg with its own media. An echo test, tones, prompts, music on hold, and rooms.
//! What an address asks for stands in [`program`].

pub mod core;
pub mod driver;
pub mod negotiate;
mod owner;
pub mod program;
pub mod prompt;
mod requests;
pub mod room;
mod speech;
pub mod stream;

pub use crate::core::{ENDED, Settings};
pub use crate::driver::{Config, build};
