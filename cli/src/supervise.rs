//! `kubepbx supervise`: runs a program that reads its configuration again on SIGHUP, and sends that when the file changes.
//!
//! A ConfigMap's file is swapped by a link, and nobody tells the program: keepalived, beside each balancer with a virtual
//! address, runs under this.

use anyhow::Context;
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// Arguments of `kubepbx supervise`.
#[derive(Debug, Args)]
pub struct SuperviseArgs {
    /// The file that the program reads
    #[arg(long)]
    file: PathBuf,
    /// Milliseconds between two looks at the file
    #[arg(long, default_value_t = 1000)]
    every: u64,
    /// The program and its arguments
    #[arg(required = true, last = true)]
    command: Vec<String>,
}

/// Runs the program until it ends, and ends as it did. SIGTERM and SIGINT are passed on.
pub async fn run(args: SuperviseArgs) -> ExitCode {
    match supervise(&args).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("kubepbx supervise: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn supervise(args: &SuperviseArgs) -> anyhow::Result<ExitCode> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut looks = tokio::time::interval(Duration::from_millis(args.every.max(1)));
    let [program, rest @ ..] = args.command.as_slice() else { anyhow::bail!("no program") };
    let mut content = read(&args.file).await;
    let mut child = Command::new(program).args(rest).kill_on_drop(true).spawn().with_context(|| program.clone())?;
    loop {
        tokio::select! {
            status = child.wait() => {
                let code = status?.code().and_then(|code| u8::try_from(code).ok());
                return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
            }
            _ = looks.tick() => {
                let now = read(&args.file).await;
                // A file that cannot be read is one that is being written.
                if now.is_some() && now != content {
                    content = now;
                    send(&child, Signal::SIGHUP);
                }
            }
            _ = terminate.recv() => send(&child, Signal::SIGTERM),
            _ = interrupt.recv() => send(&child, Signal::SIGTERM),
        }
    }
}

async fn read(file: &Path) -> Option<Vec<u8>> {
    tokio::fs::read(file).await.ok()
}

/// To a program that has not been waited for yet, so that its number is nobody else's.
fn send(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(Err(error)) = pid.map(|pid| kill(Pid::from_raw(pid), signal)) {
        eprintln!("kubepbx supervise: {signal}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_changed_file_is_a_sighup_and_the_exit_is_the_programs() {
        let folder = tempfile::tempdir().unwrap();
        let (file, log) = (folder.path().join("conf"), folder.path().join("log"));
        std::fs::write(&file, "one").unwrap();
        // It ends by itself at the second SIGHUP, having counted them.
        let script = format!(
            "n=0; trap 'n=$((n+1)); echo $n >>{log}; [ $n = 2 ] && exit 7' HUP; echo up >{log}; while :; do sleep 0.05; done",
            log = log.display()
        );
        // A shell does not trap what was ignored when it began: tests may run under nohup.
        let command = ["env", "--default-signal=HUP", "sh", "-c", &script].map(str::to_owned).to_vec();
        let args = SuperviseArgs { file: file.clone(), every: 10, command };
        let supervised = tokio::spawn(async move { run(args).await });
        for (seen, next) in [("up\n", "two"), ("up\n1\n", "three")] {
            tokio::time::timeout(Duration::from_secs(30), async {
                while std::fs::read_to_string(&log).unwrap_or_default() != seen {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await
            .unwrap();
            // As a ConfigMap does it: at once.
            let new = folder.path().join("new");
            std::fs::write(&new, next).unwrap();
            std::fs::rename(&new, &file).unwrap();
        }
        let code = tokio::time::timeout(Duration::from_secs(30), supervised).await.unwrap().unwrap();
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(7)));
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "up\n1\n2\n");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_told() {
        let args = SuperviseArgs { file: "/nowhere".into(), every: 10, command: vec!["/no/such/program".into()] };
        assert!(format!("{:#}", supervise(&args).await.unwrap_err()).contains("/no/such/program"));
    }
}
