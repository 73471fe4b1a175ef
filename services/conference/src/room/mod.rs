//! Rooms: legs that hear one another. [`state`] decides who may do what, [`mixing`] makes the sound of 20 ms,
//! [`thread`] has the sockets and the clock.

pub mod mixing;
pub mod options;
pub mod recording;
pub mod sounds;
pub mod state;
pub mod thread;

pub use mixing::Voice;
pub use options::Options;
pub use sounds::Sound;
