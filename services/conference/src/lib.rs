//! The conference service: answers a leg with its own media. An echo test, tones and prompts; there are
//! no rooms, no music on hold and no callback yet. What an address asks for stands in [`program`].

pub mod core;
pub mod driver;
pub mod negotiate;
pub mod program;
pub mod prompt;
mod speech;
pub mod stream;

pub use crate::core::{ENDED, Settings};
pub use crate::driver::{Config, build};
