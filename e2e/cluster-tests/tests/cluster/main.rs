//! An installation of the chart on a real Kubernetes, called by real phones from outside of it: a namespace and an
//! installation a test. Two tests run at a time, but for those that want the cluster for themselves ([`Space::alone`]).
//!
//! [`Space::alone`]: cluster_tests::Space::alone
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod calls;
mod chart;
mod command;
mod isolation;
mod keys;
mod operator;
mod programmed;
mod rollout;
mod scaling;
mod service;
mod survival;
mod verdicts;
mod virtual_ip;
