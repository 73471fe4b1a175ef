//! An installation of the chart on a real Kubernetes, called by real phones from outside of it. Tests run one at a time, in
//! the order of their names, each with a namespace and an installation of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod calls;
mod chart;
mod command;
mod isolation;
mod operator;
mod programmed;
mod rollout;
mod scaling;
mod survival;
mod verdicts;
mod virtual_ip;
