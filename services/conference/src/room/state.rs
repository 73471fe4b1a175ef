//! Who is in which room and may do what: PINs, keys, locks and limits, without sound.
//!
//! Keys, as Asterisk's sample menus have them: `*1` mutes oneself, `*4` and `*6` make the room softer and louder, `*7`
//! and `*9` oneself, `*8` leaves, `*` alone plays the menu. Of an admin also `*2` locks and opens the room and `*3` sends
//! away who came last, if that is no admin.

use super::mixing::Voice;
use super::options::Options;
use super::sounds::Sound;
use crate::core::LegId;
use contract::Now;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

/// Wrong PINs until one is sent away.
const TRIES: u8 = 3;
/// How long a PIN may take, each time.
const PIN_TIME: Duration = Duration::from_secs(10);
/// How long the key after `*` may take.
const KEY_TIME: Duration = Duration::from_secs(4);
/// Digits of a PIN that are looked at.
const DIGITS: usize = 32;
/// Loudest and softest, in steps of 3 dB.
const LOUD: i8 = 5;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// What a leg may do and hears now.
    Voice(LegId, Voice),
    /// Play a sound to a leg.
    Play(LegId, Sound),
    /// Begin or end the recording of a room.
    Record(String, bool),
    /// End a leg, by a word of a small fixed set.
    End(LegId, &'static str),
}

/// A command from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Nobody comes in but admins.
    Lock,
    /// Everybody comes in.
    Unlock,
    /// Begin to record.
    Record,
    /// End the recording.
    StopRecording,
    /// All members are sent away.
    End,
}

/// A command to one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberOrder {
    /// Is not heard.
    Mute,
    /// Is heard.
    Unmute,
    /// Hears nothing.
    Deafen,
    /// Hears the room.
    Undeafen,
    /// Is sent away.
    Kick,
}

/// Why a leg does not come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// As many members as there may be.
    Full,
    /// An admin locked it.
    Locked,
}

/// One room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Its legs in the order of their coming, those at the PIN among them.
    pub members: Vec<LegId>,
    /// Only admins come in.
    pub locked: bool,
    /// It is being recorded.
    pub recording: bool,
    /// When it began, Unix time.
    pub since: Duration,
    until: Option<Duration>,
    most: Option<usize>,
    quiet: bool,
    record: bool,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its room.
    pub room: String,
    /// Who it is, as its From says.
    pub from: String,
    /// May do what admins may.
    pub admin: bool,
    /// Talks now.
    pub talking: bool,
    /// When it came, Unix time.
    pub since: Duration,
    /// See [`Voice`].
    pub voice: Voice,
    options: Options,
    entry: Option<Entry>,
    /// `*` was keyed in, and until when its second key counts.
    star: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    digits: String,
    wrong: u8,
    until: Duration,
}

/// All rooms of a process.
#[derive(Debug, Default)]
pub struct Rooms {
    rooms: BTreeMap<String, Room>,
    members: HashMap<LegId, Member>,
    out: VecDeque<Act>,
}

impl Rooms {
    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Act> {
        self.out.pop_front()
    }

    /// The rooms by name.
    pub fn rooms(&self) -> impl Iterator<Item = (&str, &Room)> {
        self.rooms.iter().map(|(name, room)| (name.as_str(), room))
    }

    /// One member.
    pub fn member(&self, id: LegId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// True where the room is here.
    pub fn has(&self, name: &str) -> bool {
        self.rooms.contains_key(name)
    }

    /// Whether a leg may come.
    ///
    /// # Errors
    /// Why not.
    pub fn admits(&self, options: &Options) -> Result<(), Closed> {
        let Some(room) = self.rooms.get(&options.name) else { return Ok(()) };
        if room.most.is_some_and(|most| room.members.len() >= most) {
            return Err(Closed::Full);
        }
        // Who may yet turn out to be an admin is asked for the PIN.
        if room.locked && !options.admin && options.admin_pin.is_none() { Err(Closed::Locked) } else { Ok(()) }
    }

    /// A leg came.
    pub fn join(&mut self, id: LegId, options: Options, from: String, now: Now) {
        let room = self.rooms.entry(options.name.clone()).or_insert_with(|| Room {
            members: Vec::new(),
            locked: false,
            recording: false,
            since: now.wall,
            until: options.duration.map(|d| now.mono + d),
            most: options.most,
            quiet: options.quiet,
            record: options.record,
        });
        room.members.push(id);
        let asked = !options.admin && (options.pin.is_some() || options.admin_pin.is_some());
        let entry = asked.then(|| Entry { digits: String::new(), wrong: 0, until: now.mono + PIN_TIME });
        let member = Member {
            room: options.name.clone(),
            from,
            admin: options.admin,
            talking: false,
            since: now.wall,
            voice: Voice { muted: options.muted, ..Voice::default() },
            options,
            entry,
            star: None,
        };
        self.members.insert(id, member);
        if asked {
            self.out.push_back(Act::Play(id, Sound::Pin));
        } else {
            self.enter(id);
        }
    }

    /// A member is let in.
    fn enter(&mut self, id: LegId) {
        let Some(member) = self.members.get_mut(&id) else { return };
        member.entry = None;
        member.voice.joined = true;
        let name = member.room.clone();
        self.out.push_back(Act::Voice(id, member.voice));
        self.tell(&name, Sound::Join);
        let begins = self.rooms.get_mut(&name).is_some_and(|room| std::mem::take(&mut room.record));
        if begins {
            self.order(&name, Order::Record);
        }
        self.music(&name);
    }

    /// A leg is gone.
    pub fn leave(&mut self, id: LegId) {
        let Some(member) = self.members.remove(&id) else { return };
        let Some(room) = self.rooms.get_mut(&member.room) else { return };
        room.members.retain(|other| *other != id);
        if room.members.is_empty() {
            self.rooms.remove(&member.room);
            return;
        }
        if member.voice.joined {
            self.tell(&member.room, Sound::Leave);
        }
        self.music(&member.room);
    }

    /// Those that are let in.
    fn joined(&self, room: &str) -> Vec<LegId> {
        let members = self.rooms.get(room).map(|room| room.members.as_slice()).unwrap_or_default();
        let joined = |id: &LegId| self.members.get(id).is_some_and(|member| member.voice.joined);
        members.iter().copied().filter(joined).collect()
    }

    /// Plays a sound to all that are in, unless the room is quiet.
    fn tell(&mut self, room: &str, sound: Sound) {
        if self.rooms.get(room).is_some_and(|room| !room.quiet) {
            self.out.extend(self.joined(room).into_iter().map(|id| Act::Play(id, sound)));
        }
    }

    /// Music for who is alone and wants it, for nobody else.
    fn music(&mut self, room: &str) {
        let joined = self.joined(room);
        for id in &joined {
            if let Some(member) = self.members.get_mut(id) {
                let music = joined.len() == 1 && member.options.music;
                if std::mem::replace(&mut member.voice.music, music) != music {
                    self.out.push_back(Act::Voice(*id, member.voice));
                }
            }
        }
    }

    /// A member began or ended to talk.
    pub fn talking(&mut self, id: LegId, talks: bool) {
        if let Some(member) = self.members.get_mut(&id) {
            member.talking = talks;
        }
    }

    /// A member keyed something in.
    pub fn digit(&mut self, id: LegId, digit: char, now: Now) {
        let Some(member) = self.members.get_mut(&id) else { return };
        if let Some(entry) = &mut member.entry {
            if digit != '#' {
                if entry.digits.len() < DIGITS {
                    entry.digits.push(digit);
                }
                return;
            }
            let digits = std::mem::take(&mut entry.digits);
            return self.keyed(id, &digits, now);
        }
        match (member.star.take(), digit) {
            (None, '*') => member.star = Some(now.mono + KEY_TIME),
            (Some(_), key) => self.key(id, key),
            (None, _) => {}
        }
    }

    /// A PIN is complete, or its time is over.
    fn keyed(&mut self, id: LegId, digits: &str, now: Now) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let Some(entry) = &mut member.entry else { return };
        let is = |pin: &Option<String>| pin.as_deref() == Some(digits);
        let locked = self.rooms.get(&member.room).is_some_and(|room| room.locked);
        let admin = is(&member.options.admin_pin);
        // Where there is an admin's PIN only, anything else is a plain member's.
        let plain = is(&member.options.pin) || (member.options.pin.is_none() && !digits.is_empty());
        if admin || (plain && !locked) {
            member.admin = admin;
            return self.enter(id);
        }
        entry.wrong += 1;
        entry.until = now.mono + PIN_TIME;
        if locked && plain {
            self.out.push_back(Act::End(id, "locked"));
        } else if entry.wrong >= TRIES {
            self.out.push_back(Act::End(id, "wrong_pin"));
        } else {
            self.out.extend([Act::Play(id, Sound::Wrong), Act::Play(id, Sound::Pin)]);
        }
    }

    /// The key after `*`.
    fn key(&mut self, id: LegId, key: char) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let room = member.room.clone();
        let step = |value: i8, by: i8| (value + by).clamp(-LOUD, LOUD);
        match key {
            '1' => {
                let order = if member.voice.muted { MemberOrder::Unmute } else { MemberOrder::Mute };
                return self.member_order(id, order);
            }
            '4' => member.voice.hear = step(member.voice.hear, -1),
            '6' => member.voice.hear = step(member.voice.hear, 1),
            '7' => member.voice.talk = step(member.voice.talk, -1),
            '9' => member.voice.talk = step(member.voice.talk, 1),
            '8' => return self.out.push_back(Act::End(id, "left")),
            '2' if member.admin => {
                let locked = self.rooms.get(&room).is_some_and(|room| room.locked);
                return self.order(&room, if locked { Order::Unlock } else { Order::Lock });
            }
            '3' if member.admin => {
                let members = self.rooms.get(&room).map(|r| r.members.clone()).unwrap_or_default();
                let last = members.into_iter().next_back().filter(|id| self.member(*id).is_some_and(|m| !m.admin));
                return self.out.extend(last.map(|id| Act::End(id, "kicked")));
            }
            _ => return self.out.push_back(Act::Play(id, Sound::Menu)),
        }
        self.out.push_back(Act::Voice(id, member.voice));
    }

    /// Does something to a room; nothing where it is not.
    pub fn order(&mut self, name: &str, order: Order) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        match order {
            Order::Lock | Order::Unlock => {
                room.locked = order == Order::Lock;
                let sound = if room.locked { Sound::Locked } else { Sound::Unlocked };
                let admins: Vec<LegId> =
                    self.joined(name).into_iter().filter(|id| self.member(*id).is_some_and(|m| m.admin)).collect();
                self.out.extend(admins.into_iter().map(|id| Act::Play(id, sound)));
            }
            Order::Record | Order::StopRecording => {
                let on = order == Order::Record;
                if std::mem::replace(&mut room.recording, on) != on {
                    self.out.push_back(Act::Record(name.to_owned(), on));
                }
            }
            Order::End => self.out.extend(room.members.iter().map(|id| Act::End(*id, "kicked"))),
        }
    }

    /// Does something to a member; nothing where it is not.
    pub fn member_order(&mut self, id: LegId, order: MemberOrder) {
        let Some(member) = self.members.get_mut(&id) else { return };
        match order {
            MemberOrder::Mute | MemberOrder::Unmute => {
                member.voice.muted = order == MemberOrder::Mute;
                let sound = if member.voice.muted { Sound::Muted } else { Sound::Unmuted };
                self.out.push_back(Act::Play(id, sound));
            }
            MemberOrder::Deafen => member.voice.deaf = true,
            MemberOrder::Undeafen => member.voice.deaf = false,
            MemberOrder::Kick => return self.out.push_back(Act::End(id, "kicked")),
        }
        self.out.push_back(Act::Voice(id, member.voice));
    }

    /// When [`Rooms::timers`] is due, on the monotonic clock.
    pub fn deadline(&self) -> Option<Duration> {
        let rooms = self.rooms.values().filter_map(|room| room.until);
        let due = |m: &Member| [m.star, m.entry.as_ref().map(|e| e.until)].into_iter().flatten().min();
        rooms.chain(self.members.values().filter_map(due)).min()
    }

    /// Does what time asks for.
    pub fn timers(&mut self, now: Now) {
        for room in self.rooms.values_mut() {
            if room.until.take_if(|until| *until <= now.mono).is_some() {
                self.out.extend(room.members.iter().map(|id| Act::End(*id, "room_over")));
            }
        }
        let late = |m: &Member| m.entry.as_ref().is_some_and(|e| e.until <= now.mono);
        let slow: Vec<LegId> = self.members.iter().filter(|(_, m)| late(m)).map(|(id, _)| *id).collect();
        for id in slow {
            let digits =
                self.members.get_mut(&id).and_then(|m| m.entry.as_mut()).map(|e| std::mem::take(&mut e.digits));
            self.keyed(id, &digits.unwrap_or_default(), now);
        }
        for (id, member) in &mut self.members {
            if member.star.take_if(|until| *until <= now.mono).is_some() {
                self.out.push_back(Act::Play(*id, Sound::Menu));
            }
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
