//! How many are held, and what that takes.

use super::*;
use crate::Limits;

#[test]
fn no_more_are_held_than_there_is_room_for() {
    let limits = Limits { max_holds: 1, ..Limits::default() };
    let mut lab = Lab::with(limits, steps(&[("_80XX", vec![dial(&["PJSIP/${EXTEN}"], None)])]));
    lab.put(wakeable("8006", false));
    lab.held_call();
    lab.call("8007", "8006");
    lab.response(480, "INVITE");
    assert_eq!(lab.core.counters().overflow, 1);
    lab.seconds(90);
    lab.empty();
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn ten_thousand_are_held_in_less_than_200_mb() {
    let mut lab = asleep();
    let before = resident();
    for _ in 0..10_000 {
        lab.call("8005", "8006");
        lab.wire.clear();
        lab.notices.clear();
        lab.events.clear();
    }
    // With what the challenges leave behind for half a minute, and with what stands in the store.
    assert_eq!(lab.core.load().holds, 10_000);
    let used = resident().saturating_sub(before);
    println!("{} kB a held caller", used / 10_000 / 1024);
    assert!((10_000_000..200_000_000).contains(&used), "{used}");
    lab.seconds(90);
    assert_eq!((lab.core.load().holds, lab.core.load().calls), (0, 0));
    lab.wire.clear();
    lab.empty();
}
