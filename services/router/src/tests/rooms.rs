//! Rooms: all who dial one land in the process that has it.

use super::lab::*;
use super::steps::{answer_from, request_at};
use contract::peers::Peer;
use contract::records::{Owner, ROOM};
use contract::{ProcessId, Service};
use dialplan::{ConfBridge, Step, Template};

const OTHER: ProcessId = ProcessId(0xcccd);
const GONE: ProcessId = ProcessId(0xccce);

fn bridge() -> ConfBridge {
    ConfBridge {
        room: Template::parse("r/${EXTEN}").unwrap(),
        pin: Template::parse("12").ok(),
        admin_pin: None,
        admin: false,
        start_muted: true,
        music_on_hold_when_empty: true,
        quiet: false,
        max_members: Some(5),
        max_duration: Some(std::time::Duration::from_secs(60)),
        record_conference: false,
    }
}

fn lab() -> Lab {
    let mut lab = Lab::plan(steps(&[("100", vec![Step::ConfBridge(bridge())])]));
    lab.peers.0.push(Peer::new(Service::Conference, OTHER));
    lab
}

fn owned_by(lab: &mut Lab, process: ProcessId) {
    lab.owners.insert((ROOM.into(), "r/100".into()), Owner { process, epoch: 1 });
}

#[test]
fn a_room_is_dialled_where_its_record_says() {
    for process in [CONFERENCE, OTHER] {
        let mut lab = lab();
        owned_by(&mut lab, process);
        lab.call("8005", "100");
        let invite = request_at(&mut lab, process, "INVITE");
        let line = b"INVITE sip:room-r%2F100@conference.invalid;pin=12;muted;music;max=5;duration=60 SIP/2.0\r\n";
        assert!(invite.starts_with(line), "{}", String::from_utf8_lossy(&invite));
        lab.quiet();
    }
}

#[test]
fn where_nobody_has_it_the_name_decides_and_who_was_second_is_asked_again() {
    // Two calls, whatever their ids, choose the same; so they do where the store does not answer.
    let mut lab = lab();
    lab.call("8005", "100");
    let (first, invite) = lab.wire.pop_front().unwrap();
    let second = if first == OTHER { CONFERENCE } else { OTHER };
    // Meanwhile the other one got it.
    owned_by(&mut lab, second);
    answer_from(&mut lab, first, &invite, (503, "x"), None);
    request_at(&mut lab, first, "ACK");
    request_at(&mut lab, second, "INVITE");
    lab.quiet();
    let mut again = self::lab();
    again.call("8006", "100");
    assert_eq!(again.wire.pop_front().map(|(process, _)| process), Some(first));
}

#[test]
fn one_that_is_gone_is_not_asked_and_its_records_are_removed() {
    let mut lab = lab();
    owned_by(&mut lab, GONE);
    lab.call("8005", "100");
    let (asked, _) = lab.wire.pop_front().unwrap();
    assert!(asked == CONFERENCE || asked == OTHER);
    lab.seconds(30);
    assert_eq!(lab.owners.keys().filter(|(kind, _)| kind == ROOM).count(), 0);
}
