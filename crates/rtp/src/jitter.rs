//! A jitter buffer: packets in as they come, frames out at the pace of who plays them. Adaptive within bounds.

use std::collections::VecDeque;

/// Bounds, in frames (packets).
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Frames gathered before playing starts, at least. The same as `most` makes the delay fixed.
    pub least: usize,
    /// Frames gathered before playing starts, at most.
    pub most: usize,
    /// Frames kept; what comes beyond pushes playing ahead.
    pub capacity: usize,
}

impl Default for Config {
    /// 40 to 200 ms of 20 ms frames, half a second kept.
    fn default() -> Config {
        Config { least: 2, most: 10, capacity: 25 }
    }
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It will be played.
    Stored,
    /// Its turn had passed.
    Late,
    /// It was there already.
    Duplicate,
    /// It was so far ahead that older frames were given up (or a new stream begins).
    Skipped,
}

/// What to play now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// This payload.
    Payload(Vec<u8>),
    /// The frame was lost: conceal.
    Missing,
    /// Still gathering, or nothing comes: silence.
    Waiting,
}

/// The buffer. `pop` is called once a frame's time; the caller's pace is the clock.
#[derive(Debug, Clone)]
pub struct Buffer {
    config: Config,
    /// Slots from `next` on.
    slots: VecDeque<Option<Vec<u8>>>,
    next: u16,
    started: bool,
    playing: bool,
    target: usize,
    /// Frames played since anything was late or missing.
    calm: u32,
    late: u64,
    missing: u64,
}

/// Frames without a late one after which the delay may shrink by one: 10 s of 20 ms.
const CALM: u32 = 500;

impl Buffer {
    /// An empty buffer.
    pub fn new(config: Config) -> Buffer {
        let capacity = config.capacity.clamp(1, 1000);
        let most = config.most.clamp(1, capacity);
        let config = Config { least: config.least.clamp(1, most), most, capacity };
        Buffer {
            slots: VecDeque::with_capacity(capacity),
            next: 0,
            started: false,
            playing: false,
            target: config.least,
            calm: 0,
            late: 0,
            missing: 0,
            config,
        }
    }

    /// A packet came.
    pub fn push(&mut self, sequence: u16, payload: &[u8]) -> Pushed {
        if !self.started {
            (self.started, self.next) = (true, sequence);
        }
        let ahead = sequence.wrapping_sub(self.next);
        if ahead >= 0x8000 {
            let behind = usize::from(self.next.wrapping_sub(sequence));
            if behind > 100 {
                return self.restart(sequence, payload);
            }
            if !self.playing && behind + self.slots.len() <= self.config.capacity {
                // The stream's first packets came out of order.
                (0..behind).for_each(|_| self.slots.push_front(None));
                self.next = sequence;
                return self.store(0, payload);
            }
            self.late += 1;
            self.calm = 0;
            self.target = (self.target + 1).min(self.config.most);
            return Pushed::Late;
        }
        let ahead = usize::from(ahead);
        if ahead >= self.config.capacity {
            if ahead > 3000 {
                return self.restart(sequence, payload);
            }
            let skip = ahead + 1 - self.config.capacity;
            self.slots.drain(..skip.min(self.slots.len()));
            self.next = self.next.wrapping_add(skip as u16);
            self.store(self.config.capacity - 1, payload);
            return Pushed::Skipped;
        }
        self.store(ahead, payload)
    }

    fn restart(&mut self, sequence: u16, payload: &[u8]) -> Pushed {
        self.slots.clear();
        (self.next, self.playing) = (sequence, false);
        self.store(0, payload);
        Pushed::Skipped
    }

    fn store(&mut self, at: usize, payload: &[u8]) -> Pushed {
        while self.slots.len() <= at {
            self.slots.push_back(None);
        }
        match self.slots.get_mut(at) {
            Some(slot @ None) => {
                *slot = Some(payload.to_vec());
                Pushed::Stored
            }
            _ => Pushed::Duplicate,
        }
    }

    /// One frame's time has passed: what to play.
    pub fn pop(&mut self) -> Frame {
        if !self.playing {
            if self.slots.len() < self.target {
                return Frame::Waiting;
            }
            self.playing = true;
        }
        if self.calm >= CALM && self.target > self.config.least && self.slots.len() > self.target {
            // Long calm and more than wanted in hand: give up one frame of delay.
            self.target -= 1;
            self.calm = 0;
            self.slots.pop_front();
            self.next = self.next.wrapping_add(1);
        }
        match self.slots.pop_front() {
            None => {
                self.playing = false;
                Frame::Waiting
            }
            Some(slot) => {
                self.next = self.next.wrapping_add(1);
                self.calm = self.calm.saturating_add(1);
                match slot {
                    Some(payload) => Frame::Payload(payload),
                    None => {
                        self.missing += 1;
                        Frame::Missing
                    }
                }
            }
        }
    }

    /// Frames in hand, gaps included.
    pub fn depth(&self) -> usize {
        self.slots.len()
    }

    /// Frames that are gathered before playing starts, as of now.
    pub fn target(&self) -> usize {
        self.target
    }

    /// Packets that came after their turn.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// Frames that were missing at their turn.
    pub fn missing(&self) -> u64 {
        self.missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payload(n: u16) -> Vec<u8> {
        n.to_be_bytes().to_vec()
    }

    fn fixed(delay: usize) -> Buffer {
        Buffer::new(Config { least: delay, most: delay, capacity: 8 })
    }

    #[test]
    fn orders_fills_gaps_and_drops_duplicates() {
        let mut b = fixed(3);
        assert_eq!(b.pop(), Frame::Waiting);
        assert_eq!(b.push(65535, &payload(1)), Pushed::Stored);
        assert_eq!(b.push(65534, &payload(0)), Pushed::Stored, "came after its successor, before playing");
        assert_eq!(b.pop(), Frame::Waiting);
        assert_eq!(b.push(1, &payload(3)), Pushed::Stored);
        assert_eq!(b.push(1, &payload(9)), Pushed::Duplicate);
        assert_eq!(b.pop(), Frame::Payload(payload(0)));
        assert_eq!(b.pop(), Frame::Payload(payload(1)));
        assert_eq!(b.pop(), Frame::Missing);
        assert_eq!(b.push(0, &payload(2)), Pushed::Late);
        assert_eq!(b.pop(), Frame::Payload(payload(3)));
        assert_eq!(b.pop(), Frame::Waiting);
        assert_eq!((b.late(), b.missing(), b.depth()), (1, 1, 0));
    }

    #[test]
    fn is_bounded_and_follows_a_new_stream() {
        let mut b = fixed(2);
        for n in 0..100 {
            b.push(n, &payload(n));
            assert!(b.depth() <= 8);
        }
        assert_eq!(b.pop(), Frame::Payload(payload(92)), "the newest eight are left");
        assert_eq!(b.push(40_000, &payload(7)), Pushed::Skipped);
        b.push(40_001, &payload(8));
        assert_eq!(b.pop(), Frame::Payload(payload(7)));
    }

    #[test]
    fn delay_grows_with_late_packets_and_shrinks_in_calm() {
        let mut b = Buffer::new(Config { least: 1, most: 4, capacity: 20 });
        b.push(0, &payload(0));
        b.push(2, &payload(2));
        b.pop();
        b.pop();
        assert_eq!(b.push(1, &payload(1)), Pushed::Late);
        assert_eq!(b.target(), 2);
        for n in 3..1200 {
            b.push(n, &payload(n));
            if n > 5 {
                assert!(matches!(b.pop(), Frame::Payload(_)));
            }
        }
        assert_eq!(b.target(), 1);
    }

    proptest! {
        /// Shuffled within the delay, nothing is lost and all is in order.
        #[test]
        fn reordering_within_the_delay_is_healed(start: u16, swaps in proptest::collection::vec(any::<bool>(), 60)) {
            let mut order: Vec<u16> = (0..60).collect();
            let mut i = 0;
            while i + 1 < 60 {
                if swaps[i] { order.swap(i, i + 1); i += 1; }
                i += 1;
            }
            let mut b = Buffer::new(Config { least: 4, most: 4, capacity: 16 });
            let mut heard = Vec::new();
            for n in order {
                b.push(start.wrapping_add(n), &payload(n));
                if let Frame::Payload(p) = b.pop() { heard.push(p); }
            }
            while let Frame::Payload(p) = b.pop() { heard.push(p); }
            prop_assert_eq!(heard, (0..60).map(payload).collect::<Vec<_>>());
        }
    }
}
