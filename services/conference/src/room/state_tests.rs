//! Rooms in virtual time.

use super::*;

fn at(seconds: u64) -> Now {
    Now { mono: Duration::from_secs(seconds), wall: Duration::from_secs(1_700_000_000 + seconds) }
}

fn options() -> Options {
    Options { name: "100".into(), ..Options::default() }
}

fn done(rooms: &mut Rooms) -> Vec<Act> {
    std::iter::from_fn(|| rooms.poll()).collect()
}

fn keys(rooms: &mut Rooms, id: u64, keys: &str, seconds: u64) -> Vec<Act> {
    keys.chars().for_each(|key| rooms.digit(LegId(id), key, at(seconds)));
    done(rooms)
}

/// A room of so many members, numbered from 1.
fn room_of(members: u64, options: &Options) -> Rooms {
    let mut rooms = Rooms::default();
    for id in 1..=members {
        rooms.join(LegId(id), options.clone(), format!("800{id}"), at(1));
    }
    done(&mut rooms);
    rooms
}

const IN: Voice = Voice { joined: true, muted: false, deaf: false, music: false, hear: 0, talk: 0 };

#[test]
fn who_comes_is_heard_and_all_are_told() {
    let mut rooms = room_of(1, &options());
    rooms.join(LegId(2), options(), "8002".into(), at(2));
    let sound = |id| Act::Play(LegId(id), Sound::Join);
    assert_eq!(done(&mut rooms), [Act::Voice(LegId(2), IN), sound(1), sound(2)]);
    rooms.leave(LegId(1));
    assert_eq!(done(&mut rooms), [Act::Play(LegId(2), Sound::Leave)]);
    rooms.leave(LegId(2));
    assert!(!rooms.has("100") && done(&mut rooms).is_empty());
}

#[test]
fn music_plays_while_one_is_alone() {
    let music = Options { music: true, quiet: true, ..options() };
    let mut rooms = Rooms::default();
    rooms.join(LegId(1), music.clone(), "a".into(), at(1));
    assert_eq!(done(&mut rooms).last(), Some(&Act::Voice(LegId(1), Voice { music: true, ..IN })));
    rooms.join(LegId(2), music, "b".into(), at(1));
    assert!(done(&mut rooms).contains(&Act::Voice(LegId(1), IN)));
    rooms.leave(LegId(1));
    assert_eq!(done(&mut rooms), [Act::Voice(LegId(2), Voice { music: true, ..IN })]);
}

#[test]
fn a_pin_lets_in_and_three_wrong_ones_send_away() {
    let asked = Options { pin: Some("12".into()), admin_pin: Some("99".into()), ..options() };
    let mut rooms = Rooms::default();
    rooms.join(LegId(1), asked.clone(), "a".into(), at(1));
    assert_eq!(done(&mut rooms), [Act::Play(LegId(1), Sound::Pin)]);
    assert_eq!(keys(&mut rooms, 1, "13#", 2), [Act::Play(LegId(1), Sound::Wrong), Act::Play(LegId(1), Sound::Pin)]);
    assert_eq!(keys(&mut rooms, 1, "12#", 3)[0], Act::Voice(LegId(1), IN));
    assert!(!rooms.member(LegId(1)).unwrap().admin);
    rooms.join(LegId(2), asked.clone(), "b".into(), at(4));
    keys(&mut rooms, 2, "99#", 5);
    assert!(rooms.member(LegId(2)).unwrap().admin);
    rooms.join(LegId(3), asked, "c".into(), at(6));
    done(&mut rooms);
    // Who keys in nothing is as who keys in something wrong; nobody in the room hears of either.
    for (seconds, last) in [(16, false), (26, false), (36, true)] {
        assert_eq!(rooms.deadline(), Some(Duration::from_secs(seconds)));
        rooms.timers(at(seconds));
        assert_eq!(done(&mut rooms).contains(&Act::End(LegId(3), "wrong_pin")), last);
    }
    rooms.leave(LegId(3));
    assert_eq!(done(&mut rooms), []);
}

#[test]
fn keys_do_what_they_say() {
    let mut rooms = room_of(2, &options());
    assert_eq!(keys(&mut rooms, 1, "*1", 2)[1], Act::Voice(LegId(1), Voice { muted: true, ..IN }));
    assert_eq!(keys(&mut rooms, 1, "*1", 2)[1], Act::Voice(LegId(1), IN));
    assert_eq!(keys(&mut rooms, 1, "5*6*9*9", 2).pop(), Some(Act::Voice(LegId(1), Voice { hear: 1, talk: 2, ..IN })));
    assert_eq!(keys(&mut rooms, 1, "*2*3", 2), [Act::Play(LegId(1), Sound::Menu), Act::Play(LegId(1), Sound::Menu)]);
    assert_eq!(keys(&mut rooms, 2, "*8", 2), [Act::End(LegId(2), "left")]);
    assert_eq!(keys(&mut rooms, 1, "*", 2), []);
    assert_eq!(rooms.deadline(), Some(Duration::from_secs(6)));
    rooms.timers(at(6));
    assert_eq!(done(&mut rooms), [Act::Play(LegId(1), Sound::Menu)]);
    assert_eq!(rooms.deadline(), None);
}

#[test]
fn a_locked_room_takes_admins_only_and_a_full_one_nobody() {
    let admin = Options { admin: true, ..options() };
    let mut rooms = room_of(1, &Options { most: Some(3), ..admin.clone() });
    assert_eq!(keys(&mut rooms, 1, "*2", 2), [Act::Play(LegId(1), Sound::Locked)]);
    assert_eq!(rooms.admits(&options()), Err(Closed::Locked));
    assert_eq!(rooms.admits(&admin), Ok(()));
    keys(&mut rooms, 1, "*2", 2);
    assert_eq!(rooms.admits(&options()), Ok(()));
    rooms.join(LegId(2), options(), "b".into(), at(3));
    rooms.join(LegId(3), options(), "c".into(), at(3));
    assert_eq!(rooms.admits(&admin), Err(Closed::Full));
    done(&mut rooms);
    assert_eq!(keys(&mut rooms, 1, "*3", 4), [Act::End(LegId(3), "kicked")]);
}

#[test]
fn a_room_ends_and_is_recorded_once() {
    let mut rooms = Rooms::default();
    let options = Options { duration: Some(Duration::from_secs(60)), record: true, ..options() };
    rooms.join(LegId(1), options.clone(), "a".into(), at(1));
    assert!(done(&mut rooms).contains(&Act::Record("100".into(), true)));
    rooms.join(LegId(2), options, "b".into(), at(2));
    rooms.order("100", Order::Record);
    assert!(!done(&mut rooms).iter().any(|act| matches!(act, Act::Record(..))));
    rooms.order("100", Order::StopRecording);
    assert_eq!(done(&mut rooms), [Act::Record("100".into(), false)]);
    assert_eq!(rooms.deadline(), Some(Duration::from_secs(61)));
    rooms.timers(at(61));
    assert_eq!(done(&mut rooms), [Act::End(LegId(1), "room_over"), Act::End(LegId(2), "room_over")]);
    assert_eq!(rooms.deadline(), None);
}

#[test]
fn a_member_is_told_what_to_do() {
    let mut rooms = room_of(2, &options());
    rooms.member_order(LegId(2), MemberOrder::Deafen);
    assert_eq!(done(&mut rooms), [Act::Voice(LegId(2), Voice { deaf: true, ..IN })]);
    rooms.member_order(LegId(2), MemberOrder::Kick);
    rooms.member_order(LegId(9), MemberOrder::Kick);
    assert_eq!(done(&mut rooms), [Act::End(LegId(2), "kicked")]);
}
