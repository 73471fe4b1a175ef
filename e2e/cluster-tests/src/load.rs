//! Many calls with audio at once, by `kubepbx phone`, and what became of them.

use crate::space::Space;
use anyhow::{Context, Result, ensure};
use e2e::{Phone, eventually};
use serde_json::Value;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// Calls from 8005 to 8006 that are up.
#[derive(Debug)]
pub struct Calls {
    caller: Phone,
    /// `None`: that of other calls.
    callee: Option<Phone>,
    count: usize,
}

/// Shorter ones are not of these calls, seconds: somebody calls and hangs up all the while, and while a balancer is replaced
/// a BYE over UDP comes when it is sent again.
const SHORT: f64 = 4.0;

/// How long phones talk if nobody ends them, seconds.
const LONG: &str = "1200";

/// What phones say of their calls.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// How many were begun.
    pub begun: usize,
    /// How many went on until the caller ended them, heard by both sides to the last.
    pub kept: usize,
    /// The longest time without audio of any leg, ms.
    pub gap_ms: f64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} calls before, {} after, longest gap of audio {:.0} ms", self.begun, self.kept, self.gap_ms)
    }
}

impl Calls {
    /// Begins `count` calls through two nodes, and waits until they are up. They go on until [`Calls::end`].
    pub fn begin(space: &Space, count: usize) -> Result<Self> {
        Self::begin_at(space, [space.server(0), space.server(1)], count)
    }

    /// The same where the callee registers at the first server and the caller calls through the second.
    pub fn begin_at(space: &Space, servers: [SocketAddr; 2], count: usize) -> Result<Self> {
        // The callee takes whatever else comes too, until it is told to end.
        let options = ["--calls", "100000", "--play", "tone:880", "--patience", LONG];
        let callee = space.cluster.outside(|| Phone::answering(servers[0], "8006", &options))?;
        Self::with(space, Some(callee), servers[1], count)
    }

    /// More calls to the callee of others, which tells of all when those end.
    pub fn more(space: &Space, count: usize) -> Result<Self> {
        Self::with(space, None, space.server(1), count)
    }

    fn with(space: &Space, callee: Option<Phone>, server: SocketAddr, count: usize) -> Result<Self> {
        let answered = || space.sum("router", "kubepbx_router_events_total{reason=\"answered\"}");
        let before = answered()?;
        let calls = count.to_string();
        let options = ["--to", "8006", "--calls", &calls, "--seconds", LONG, "--patience", LONG, "--play", "tone:440"];
        let caller = space.cluster.outside(|| Phone::start("call", server, "8005", &options))?;
        let mut last = 0;
        let up = eventually("all calls are answered", Duration::from_secs(20), || {
            last = answered().ok()?.saturating_sub(before);
            (last >= count as u64).then_some(())
        });
        up.with_context(|| format!("{last} of {count} are answered"))?;
        Ok(Self { caller, callee, count })
    }

    /// The caller hangs up all of them; what became of them.
    pub fn end(mut self) -> Result<Figures> {
        let told = |phone: &mut Phone| {
            phone.process().signal("TERM").ok();
            calls(&phone.report(Duration::from_secs(20))?.1)
        };
        let callers = told(&mut self.caller)?;
        let mut callees = self.callee.as_mut().map(told).transpose()?.unwrap_or_default();
        callees.retain(|call| call["seconds"].as_f64().is_some_and(|seconds| seconds > SHORT));
        let kept = callers.iter().filter(|call| went_on(call, 880.0) && call["ended_by_remote"] == false).count();
        let answered = callees.iter().filter(|call| went_on(call, 440.0)).count();
        let gaps = callers.iter().chain(&callees).filter_map(|call| call["longest_gap_ms"].as_f64());
        let kept = if self.callee.is_some() { kept.min(answered) } else { kept };
        Ok(Figures { begun: self.count, kept, gap_ms: gaps.fold(0.0, f64::max) })
    }
}

impl Figures {
    /// Fails unless every call went on and no leg was without audio for longer.
    pub fn all_kept(&self, gap_ms: f64) -> Result<()> {
        ensure!(self.kept == self.begun && self.gap_ms <= gap_ms, "{self}; {gap_ms} ms were allowed");
        Ok(())
    }
}

fn calls(report: &Value) -> Result<Vec<Value>> {
    report["calls"].as_array().cloned().context("a report without calls")
}

/// Ended in good order, and heard the other side in its last two seconds.
fn went_on(call: &Value, hz: f64) -> bool {
    call["status"] == 200 && call["tone_hz"].as_f64().is_some_and(|heard| (heard - hz).abs() < 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_call_that_fell_silent_was_not_kept() {
        assert!(went_on(&json!({"status": 200, "tone_hz": 881.0}), 880.0));
        assert!(!went_on(&json!({"status": 200, "tone_hz": null}), 880.0));
        assert!(!went_on(&json!({"status": 481, "tone_hz": 880.0}), 880.0));
        assert!(Figures { begun: 5, kept: 4, gap_ms: 20.0 }.all_kept(100.0).is_err());
        assert!(Figures { begun: 5, kept: 5, gap_ms: 200.0 }.all_kept(100.0).is_err());
        assert!(Figures { begun: 5, kept: 5, gap_ms: 20.0 }.all_kept(100.0).is_ok());
    }
}
