//! The conference service: answers a leg with its own media. An echo test, tones and prompts; rooms, music on hold
//! and callback come here later. What an address asks for stands in [`program`].

pub mod core;
pub mod driver;
pub mod negotiate;
pub mod program;
pub mod prompt;
mod speech;
pub mod stream;

pub use crate::core::{ENDED, Settings};
pub use crate::driver::{Config, build};
