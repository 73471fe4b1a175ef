//! DTMF as RTP events (RFC 4733): payload, sending with its repeats, receiving once a digit.

use std::collections::VecDeque;

/// Digits by event number 0..=15.
const DIGITS: &[u8; 16] = b"0123456789*#ABCD";

/// The digit of an event number.
pub fn digit(event: u8) -> Option<char> {
    DIGITS.get(usize::from(event)).map(|b| char::from(*b))
}

/// The event number of a digit, any case.
pub fn event(digit: char) -> Option<u8> {
    let upper = u8::try_from(digit).ok()?.to_ascii_uppercase();
    DIGITS.iter().position(|d| *d == upper).and_then(|i| u8::try_from(i).ok())
}

/// One payload (2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Event number; 0..=15 are digits.
    pub event: u8,
    /// The event has ended.
    pub end: bool,
    /// Power in -dBm0, 0..=63.
    pub volume: u8,
    /// Duration so far, in clock units.
    pub duration: u16,
}

impl Event {
    /// Reads a payload; of a redundant one (several events) the first.
    pub fn parse(payload: &[u8]) -> Option<Event> {
        let [event, flags, high, low] = *payload.first_chunk::<4>()?;
        Some(Event { event, end: flags & 0x80 != 0, volume: flags & 0x3f, duration: u16::from_be_bytes([high, low]) })
    }

    /// The payload's bytes.
    pub fn to_bytes(self) -> [u8; 4] {
        let [high, low] = self.duration.to_be_bytes();
        [self.event, if self.end { 0x80 } else { 0 } | (self.volume & 0x3f), high, low]
    }
}

/// A digit being sent: one payload a packet interval, all under the timestamp of its beginning, the last three times.
#[derive(Debug, Clone)]
pub struct Sending {
    event: u8,
    step: u16,
    total: u16,
    sent: u16,
    ends: u8,
}

impl Sending {
    /// Sends `digit` for `duration` clock units, a payload every `step` units. `None` when it is no digit.
    pub fn new(digit: char, duration: u16, step: u16) -> Option<Sending> {
        let step = step.max(1);
        Some(Sending { event: event(digit)?, step, total: duration.max(step), sent: 0, ends: 0 })
    }

    /// The next payload and whether it is the first (which carries the marker); `None` when done.
    pub fn next_payload(&mut self) -> Option<([u8; 4], bool)> {
        if self.ends == 3 {
            return None;
        }
        let first = self.sent == 0;
        self.sent = self.sent.saturating_add(self.step).min(self.total);
        let end = self.sent == self.total;
        self.ends += u8::from(end);
        Some((Event { event: self.event, end, volume: 10, duration: self.sent }.to_bytes(), first))
    }
}

/// A digit that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digit {
    /// `0-9*#A-D`.
    pub digit: char,
    /// Clock units.
    pub duration: u16,
}

/// Turns payloads into digits: each once, however often it is repeated, also when its end is lost.
#[derive(Debug, Clone, Default)]
pub struct Receiving {
    /// The event under way, by timestamp.
    current: Option<(u32, Event)>,
    /// Timestamps of events that were told; late repeats come after the next has begun.
    told: VecDeque<u32>,
}

impl Receiving {
    /// Nothing received yet.
    pub fn new() -> Receiving {
        Receiving::default()
    }

    /// A payload came under `timestamp`. Tells a digit at its end, or when the next begins without one.
    pub fn receive(&mut self, timestamp: u32, payload: &[u8]) -> Option<Digit> {
        let event = Event::parse(payload)?;
        digit(event.event)?;
        if self.told.contains(&timestamp) {
            return None;
        }
        let mut done = None;
        match &mut self.current {
            Some((at, known)) if *at == timestamp => {
                known.duration = known.duration.max(event.duration);
                known.end |= event.end;
            }
            _ => {
                done = self.flush();
                self.current = Some((timestamp, event));
            }
        }
        if self.current.is_some_and(|(_, e)| e.end) { done.or_else(|| self.flush()) } else { done }
    }

    /// Tells the digit under way, if any: when audio goes on, or nothing came for a while.
    pub fn flush(&mut self) -> Option<Digit> {
        let (timestamp, event) = self.current.take()?;
        if self.told.len() == 4 {
            self.told.pop_front();
        }
        self.told.push_back(timestamp);
        Some(Digit { digit: digit(event.event)?, duration: event.duration })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_a_payload() {
        let e = Event::parse(&[11, 0x8a, 0x03, 0x20]).unwrap();
        assert_eq!(e, Event { event: 11, end: true, volume: 10, duration: 800 });
        assert_eq!(e.to_bytes(), [11, 0x8a, 0x03, 0x20]);
        assert_eq!(Event::parse(&[1, 2, 3]), None);
        assert_eq!(
            "0123456789*#ABCDd".chars().map(|c| event(c).unwrap()).collect::<Vec<_>>(),
            (0..16).chain([15]).collect::<Vec<_>>()
        );
        assert_eq!((event('x'), digit(16)), (None, None));
    }

    #[test]
    fn sends_growing_durations_and_three_ends() {
        let mut s = Sending::new('5', 480, 160).unwrap();
        let sent: Vec<_> =
            std::iter::from_fn(|| s.next_payload()).map(|(p, first)| (Event::parse(&p).unwrap(), first)).collect();
        let want =
            [(160, false, true), (320, false, false), (480, true, false), (480, true, false), (480, true, false)];
        assert_eq!(sent.iter().map(|(e, first)| (e.duration, e.end, *first)).collect::<Vec<_>>(), want);
        assert!(Sending::new('x', 480, 160).is_none());
    }

    proptest! {
        /// Whatever is lost or comes twice: a digit of which anything arrived is told exactly once, in order.
        #[test]
        fn each_digit_once(digits in "[0-9*#A-D]{1,6}", fate in proptest::collection::vec(0u8..4, 64)) {
            let (mut receiver, mut told, mut arrived) = (Receiving::new(), String::new(), String::new());
            let mut fate = fate.iter().cycle();
            for (i, d) in digits.chars().enumerate() {
                let mut sending = Sending::new(d, 800, 160).unwrap();
                let mut any = false;
                while let Some((payload, _)) = sending.next_payload() {
                    // 0: lost, 3: twice
                    let copies = match fate.next() { Some(0) => 0, Some(3) => 2, _ => 1 };
                    for _ in 0..copies {
                        any = true;
                        told.extend(receiver.receive(i as u32 * 4000, &payload).map(|d| d.digit));
                    }
                }
                if any { arrived.push(d); }
            }
            told.extend(receiver.flush().map(|d| d.digit));
            prop_assert_eq!(told, arrived);
        }
    }
}
