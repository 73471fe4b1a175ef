//! Shared harness of the end-to-end tests: a PBX under test, and the real phones that call through it.
//!
//! Everything runs on loopback with ports that the kernel gives, and ends with the test, by its process id. A program
//! that is missing fails the test and says what installs it.

pub mod baresip;
pub mod forwarder;
pub mod http;
pub mod installation;
pub mod netns;
pub mod operator;
pub mod pbx;
pub mod phone;
pub mod process;
pub mod sipp;
pub mod spectrum;

pub use baresip::Baresip;
pub use installation::{Installation, Member, SERVICES};
pub use pbx::{FIRST_CALL, Pbx};
pub use phone::Phone;
pub use process::{Process, eventually, free_port};
