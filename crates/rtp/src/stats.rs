//! What a receiver counts of one source: loss, jitter and extended sequence number (RFC 3550 6.4.1 and A.1, A.3, A.8).

use crate::rtcp::ReportBlock;
use std::time::Duration;

/// A jump forward of this many is a restart rather than loss (A.1).
const MAX_DROPOUT: u16 = 3000;
/// A step back of up to this many is a late packet rather than a restart (A.1).
const MAX_MISORDER: u16 = 100;

/// Counters of one source. There is no probation: which packets are of the stream is known by address already.
#[derive(Debug, Clone)]
pub struct Receiver {
    rate: u32,
    started: bool,
    base: u16,
    highest: u16,
    cycles: u32,
    /// The sequence number that would confirm a restart.
    restart: Option<u16>,
    received: u64,
    expected_before: u64,
    received_before: u64,
    transit: u32,
    /// Jitter times 16, in clock units.
    jitter: u32,
    last: Option<Duration>,
    gap: Duration,
}

impl Receiver {
    /// Nothing received yet; `rate` is the RTP clock in Hz.
    pub fn new(rate: u32) -> Receiver {
        Receiver {
            rate: rate.max(1),
            started: false,
            base: 0,
            highest: 0,
            cycles: 0,
            restart: None,
            received: 0,
            expected_before: 0,
            received_before: 0,
            transit: 0,
            jitter: 0,
            last: None,
            gap: Duration::ZERO,
        }
    }

    /// Counts a packet that came at `now`. False when it is far out of sequence and waits for its successor to
    /// confirm a restart.
    pub fn receive(&mut self, sequence: u16, timestamp: u32, now: Duration) -> bool {
        if !self.started {
            self.begin(sequence);
        } else {
            let ahead = sequence.wrapping_sub(self.highest);
            if ahead < MAX_DROPOUT {
                if sequence < self.highest {
                    self.cycles = self.cycles.wrapping_add(1 << 16);
                }
                self.highest = sequence;
                self.restart = None;
            } else if ahead <= u16::MAX - MAX_MISORDER {
                if self.restart == Some(sequence) {
                    self.begin(sequence);
                } else {
                    self.restart = Some(sequence.wrapping_add(1));
                    return false;
                }
            }
        }
        self.received += 1;
        if let Some(last) = self.last {
            self.gap = self.gap.max(now.saturating_sub(last));
        }
        self.arrival(timestamp, now);
        self.last = Some(now);
        true
    }

    fn begin(&mut self, sequence: u16) {
        (self.started, self.base, self.highest) = (true, sequence, sequence);
        (self.cycles, self.received, self.restart) = (0, 0, None);
        (self.expected_before, self.received_before) = (0, 0);
        // The new stream has a clock of its own.
        self.last = None;
    }

    /// A.8; differences of timestamps wrap.
    fn arrival(&mut self, timestamp: u32, now: Duration) {
        let arrival = (now.as_nanos() * u128::from(self.rate) / 1_000_000_000) as u32;
        let transit = arrival.wrapping_sub(timestamp);
        if self.last.is_some() {
            let d = (transit.wrapping_sub(self.transit) as i32).unsigned_abs();
            let sum = u64::from(self.jitter) + u64::from(d) - u64::from((self.jitter + 8) >> 4);
            self.jitter = u32::try_from(sum).unwrap_or(u32::MAX - 8).min(u32::MAX - 8);
        }
        self.transit = transit;
    }

    /// Packets received, duplicates included.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Packets that should have come by now.
    pub fn expected(&self) -> u64 {
        if self.started { u64::from(self.extended_highest().wrapping_sub(u32::from(self.base))) + 1 } else { 0 }
    }

    /// Packets lost; negative when duplicates outweigh (A.3).
    pub fn lost(&self) -> i64 {
        i64::try_from(self.expected()).unwrap_or(i64::MAX) - i64::try_from(self.received).unwrap_or(i64::MAX)
    }

    /// Highest sequence number with its cycles above.
    pub fn extended_highest(&self) -> u32 {
        self.cycles.wrapping_add(u32::from(self.highest))
    }

    /// Interarrival jitter in clock units.
    pub fn jitter(&self) -> u32 {
        self.jitter >> 4
    }

    /// Interarrival jitter in time.
    pub fn jitter_time(&self) -> Duration {
        Duration::from_nanos(u64::from(self.jitter >> 4) * 1_000_000_000 / u64::from(self.rate))
    }

    /// The longest time between two packets.
    pub fn longest_gap(&self) -> Duration {
        self.gap
    }

    /// The block for the next report; the fraction lost covers the time since the last call. The caller fills in
    /// `last_sr` and `delay`.
    pub fn report(&mut self, ssrc: u32) -> ReportBlock {
        let expected = self.expected() - self.expected_before;
        let received = self.received.saturating_sub(self.received_before);
        (self.expected_before, self.received_before) = (self.expected(), self.received);
        let lost = expected.saturating_sub(received);
        ReportBlock {
            ssrc,
            fraction_lost: (lost * 256).checked_div(expected).map_or(0, |f| f.min(255) as u8),
            lost: self.lost().clamp(-0x80_0000, 0x7f_ffff) as i32,
            highest: self.extended_highest(),
            jitter: self.jitter(),
            ..ReportBlock::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn counts_loss_over_the_wrap() {
        let mut r = Receiver::new(8000);
        let lost = [65534u16, 3];
        for i in 0..20u16 {
            let sequence = 65530u16.wrapping_add(i);
            if !lost.contains(&sequence) {
                assert!(r.receive(sequence, u32::from(i) * 160, ms(u64::from(i) * 20)));
            }
        }
        assert_eq!((r.expected(), r.received(), r.lost()), (20, 18, 2));
        assert_eq!(r.extended_highest(), (1 << 16) + 13);
        assert_eq!(r.jitter(), 0, "a lost packet is not jitter");
        assert_eq!(r.longest_gap(), ms(40));
        let block = r.report(5);
        assert_eq!((block.fraction_lost, block.lost), ((2 * 256 / 20) as u8, 2));
        assert_eq!(r.report(5).fraction_lost, 0, "nothing since");
    }

    #[test]
    fn late_and_duplicate_packets_are_counted_without_a_cycle() {
        let mut r = Receiver::new(8000);
        for (i, s) in [10u16, 12, 11, 11, 13].into_iter().enumerate() {
            assert!(r.receive(s, u32::from(s) * 160, ms(i as u64 * 20)));
        }
        assert_eq!((r.expected(), r.lost(), r.extended_highest()), (4, -1, 13));
    }

    #[test]
    fn a_restart_needs_two_in_a_row() {
        let mut r = Receiver::new(8000);
        assert!(r.receive(100, 0, ms(0)));
        assert!(!r.receive(20000, 0, ms(20)));
        assert!(!r.receive(30000, 0, ms(40)), "another stray");
        assert!(r.receive(30001, 0, ms(60)));
        assert_eq!((r.expected(), r.received()), (1, 1));
    }

    /// D = 80 units each second packet: J converges to 80 (each |D| is 80 against the one before).
    #[test]
    fn jitter_converges_as_a8_says() {
        let mut r = Receiver::new(8000);
        for i in 0..400u32 {
            let late = if i % 2 == 1 { 10 } else { 0 };
            r.receive(i as u16, i * 160, ms(u64::from(i) * 20 + late));
        }
        assert!((78..=80).contains(&r.jitter()), "{}", r.jitter());
        assert_eq!(r.jitter_time().as_millis(), 9);
    }
}
