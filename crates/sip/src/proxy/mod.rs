//! What RFC 3261 16 asks of a proxy, as pure functions over messages: validation, route preprocessing, forwarding values, loop
//! detection, and the choice of the best response. Transactions and sockets are the caller's.

mod disposition;
mod loops;
mod response;
mod route;
#[cfg(test)]
mod tests;
mod validate;

pub use disposition::{Disposition, disposition};
pub use loops::{LoopKind, detect_loop, loop_hash, stable_hash, stateless_branch, with_loop_hash};
pub use response::{Action, Best, ResponseContext, has_next_via};
pub use route::{Forward, RouteInfo, forward, preprocess, record_route};
pub use validate::{Policy, Refusal, validate};
