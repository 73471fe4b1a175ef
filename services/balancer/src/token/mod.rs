//! Tokens of the balancer's own: what a branch says about its owner, and the route of a dispatched dialog.
//!
//! Flow and leg tokens, which other services make or read too, stand in `contract`.

pub mod branch;
pub mod pair;
