//! `kubepbx ping` beside the real sipsak: scripts that look at the exit status see the same.

use e2e::process::{kubepbx, tool};
use e2e::{Pbx, Phone, eventually, free_port};
use std::process::Command;
use std::time::Duration;

/// The exit status of each: ours, sipsak's.
fn both(uri: &str) -> [Option<i32>; 2] {
    let mut ours = Command::new(kubepbx().unwrap());
    ours.args(["ping", "--quiet", "--timeout", "1000", uri]);
    let mut theirs = Command::new(tool("sipsak").unwrap());
    theirs.args(["-D", "2", "-s", uri]);
    [ours, theirs].map(|mut command| command.output().unwrap().status.code())
}

#[test]
fn the_exit_status_is_sipsaks() {
    let pbx = Pbx::first_call(&[]).unwrap();
    let uri = format!("sip:s@{}", pbx.sip);
    assert_eq!(both(&uri), [Some(0); 2], "a PBX that serves");

    let _callee = Phone::answering(pbx.sip, "8006", &[]).unwrap();
    let _caller = Phone::start("call", pbx.sip, "8005", &["--to", "8006", "--seconds", "60"]).unwrap();
    pbx.talking(1).unwrap();
    pbx.process.signal("TERM").unwrap();
    let draining = || (both(&uri)[0] == Some(1)).then_some(());
    eventually("a PBX that drains says so", Duration::from_secs(5), draining).unwrap();
    assert_eq!(both(&uri), [Some(1); 2], "a PBX that drains");

    assert_eq!(both("nonsense"), [Some(2); 2], "no URI");
    assert_eq!(both("sip:s@name.invalid"), [Some(2); 2], "a name that does not resolve");
    assert_eq!(both(&format!("sip:s@127.0.0.1:{}", free_port())), [Some(3); 2], "nobody there");
}
