//! SIP without IO: messages, transactions, dialogs, digest, proxy rules.
//!
//! Nothing here opens a socket, reads a clock or draws a random number: bytes, time and entropy are arguments.

mod breaks;
pub mod build;
pub mod dialog;
pub mod digest;
pub mod edit;
pub mod error;
pub mod framer;
pub mod header;
pub mod intake;
pub mod message;
mod method;
mod name;
#[cfg(any(test, feature = "testing"))]
pub mod net_emulator;
mod params;
pub mod proxy;
mod scan;
pub mod status;
pub mod transaction;
pub mod typed;
pub mod uri;
mod validate;

pub use error::ParseError;
pub use message::{Message, Method, Name};
