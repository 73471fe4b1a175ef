//! A network of a test's own: a new network namespace, with loopback up and nothing else.

use crate::process::tool;
use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, unshare};
use std::process::Command;

/// Runs `test` on a thread in a new network namespace; programs that it starts are in it too. The namespace is gone
/// with the last of them. Needs root.
pub fn alone(test: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace of its own needs root")?;
        run("ip", &["link", "set", "lo", "up"])?;
        test()
    });
    thread.join().map_err(|_| anyhow!("the test panicked"))?
}

/// Drops so many hundredths, at random, of the UDP datagrams from and to `port`, in this thread's namespace.
pub fn lose(port: u16, hundredths: u32) -> Result<()> {
    let rule = |end: &str| format!("udp {end} {port} numgen random mod 100 < {hundredths} counter drop");
    let rules = format!(
        "table inet loss {{\nchain in {{\ntype filter hook input priority 0;\n{}\n{}\n}}\n}}",
        rule("dport"),
        rule("sport")
    );
    run("nft", &[&rules])
}

/// How many datagrams [`lose`] has dropped.
pub fn lost() -> Result<u64> {
    let out = Command::new(tool("nft")?).args(["list", "table", "inet", "loss"]).output()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let counts = text.split("counter packets ").skip(1).filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    Ok(counts.sum())
}

fn run(name: &str, args: &[&str]) -> Result<()> {
    let out = Command::new(tool(name)?).args(args).output()?;
    ensure!(out.status.success(), "{name} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}
