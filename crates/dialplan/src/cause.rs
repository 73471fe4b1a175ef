//! Causes of the end of a call (ITU-T Q.850), their SIP statuses, and what became of a dial.
//!
//! The table is Asterisk's (its PJSIP channel), so that `HANGUPCAUSE` and the final answers read as there. It differs from
//! RFC 3398 8.2.6.1 and 7.2.4.1 where Asterisk does: cause 16 on an unanswered call is 603 (RFC 3398: 480 by way of 31),
//! cause 21 is 403 in both (RFC 3398: 603 when the user refused), 401/402/403/407 are 21, 410 is 22, 480 is 19 (RFC 3398: 18),
//! 487 is 127 (RFC 3398: no mapping). One deviation from Asterisk: 503 for 34, 38, 41, 42 and 44 alike, where Asterisk
//! answers 500 for 38 and 603 for 41 and 44: they all mean "try elsewhere", which only 503 says in SIP.

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind};

/// A Q.850 cause, 1 to 127.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "u8")]
pub struct Cause(u8);

impl Cause {
    /// 1: unallocated number.
    pub const UNALLOCATED: Cause = Cause(1);
    /// 3: no route to destination.
    pub const NO_ROUTE: Cause = Cause(3);
    /// 16: normal call clearing.
    pub const NORMAL: Cause = Cause(16);
    /// 17: user busy.
    pub const BUSY: Cause = Cause(17);
    /// 18: no user responding.
    pub const NO_RESPONSE: Cause = Cause(18);
    /// 19: no answer from user.
    pub const NO_ANSWER: Cause = Cause(19);
    /// 20: subscriber absent, which is an endpoint that is not registered.
    pub const ABSENT: Cause = Cause(20);
    /// 21: call rejected.
    pub const REJECTED: Cause = Cause(21);
    /// 34: no circuit available.
    pub const CONGESTION: Cause = Cause(34);
    /// 38: network out of order.
    pub const FAILURE: Cause = Cause(38);
    /// 58: bearer capability not available, which is no common codec.
    pub const BEARER_NOT_AVAILABLE: Cause = Cause(58);
    /// 102: recovery on timer expiry.
    pub const TIMER: Cause = Cause(102);
    /// 127: interworking.
    pub const INTERWORKING: Cause = Cause(127);

    /// # Errors
    /// [`ErrorKind::Cause`] outside 1 to 127.
    pub fn new(number: i64) -> Result<Cause, Error> {
        match u8::try_from(number) {
            Ok(number @ 1..=127) => Ok(Cause(number)),
            _ => Err(ErrorKind::Cause(number).into()),
        }
    }

    /// The cause's number, 1 to 127.
    pub fn number(self) -> u8 {
        self.0
    }

    /// The final answer to a call that was not answered and ends for this cause.
    pub fn status(self) -> u16 {
        match self.0 {
            1..=3 => 404,
            17 => 486,
            18 => 408,
            19 | 20 | 31 => 480,
            21 => 403,
            22 => 410,
            27 => 502,
            28 => 484,
            29 => 501,
            34 | 38 | 41 | 42 | 44 | 66 => 503,
            58 => 488,
            102 => 504,
            127 => 500,
            // Asterisk too declines what it has no word for, normal clearing among it.
            _ => 603,
        }
    }

    /// The cause that a final answer stands for: `HANGUPCAUSE` after a dial.
    pub fn of_status(status: u16) -> Cause {
        Cause(match status {
            401..=403 | 407 | 603 => 21,
            404 | 485 | 604 => 1,
            408 => 18,
            409 => 41,
            410 => 22,
            420 => 3,
            480 | 483 => 19,
            484 => 28,
            486 | 600 => 17,
            488 | 606 => 58,
            500 => 38,
            501 => 29,
            502 => 27,
            503 => 34,
            504 => 102,
            505 => 127,
            506..=599 => 34,
            400..=499 | 605..=699 | 601 | 602 => 127,
            _ => 16,
        })
    }

    /// The cause's name in Q.850, for logs and the `Reason` header's text; empty for numbers without one here.
    pub fn text(self) -> &'static str {
        match self.0 {
            1 => "Unallocated number",
            2 => "No route to transit network",
            3 => "No route to destination",
            16 => "Normal call clearing",
            17 => "User busy",
            18 => "No user responding",
            19 => "No answer from user",
            20 => "Subscriber absent",
            21 => "Call rejected",
            22 => "Number changed",
            26 => "Non-selected user clearing",
            27 => "Destination out of order",
            28 => "Invalid number format",
            29 => "Facility rejected",
            31 => "Normal, unspecified",
            34 => "No circuit available",
            38 => "Network out of order",
            41 => "Temporary failure",
            42 => "Switching equipment congestion",
            44 => "Requested circuit not available",
            58 => "Bearer capability not available",
            66 => "Channel type not implemented",
            102 => "Recovery on timer expiry",
            127 => "Interworking",
            _ => "",
        }
    }
}

impl TryFrom<i64> for Cause {
    type Error = Error;
    fn try_from(number: i64) -> Result<Self, Error> {
        Cause::new(number)
    }
}

impl From<Cause> for u8 {
    fn from(cause: Cause) -> u8 {
        cause.0
    }
}

/// `DIALSTATUS`: what became of a dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
pub enum DialStatus {
    /// Somebody answered.
    Answer,
    /// Everybody who said something was busy.
    Busy,
    /// It rang, nobody answered in time.
    NoAnswer,
    /// The caller gave up.
    Cancel,
    /// The way there failed.
    Congestion,
    /// Nobody could be rung: unknown or not registered.
    ChanUnavail,
}

impl DialStatus {
    /// The value of `DIALSTATUS`, as Asterisk writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            DialStatus::Answer => "ANSWER",
            DialStatus::Busy => "BUSY",
            DialStatus::NoAnswer => "NOANSWER",
            DialStatus::Cancel => "CANCEL",
            DialStatus::Congestion => "CONGESTION",
            DialStatus::ChanUnavail => "CHANUNAVAIL",
        }
    }

    /// What a dial came to whose best final answer was this status. Who is unregistered was never asked: that is
    /// [`DialStatus::ChanUnavail`], and the router knows it without a status.
    pub fn of_status(status: u16) -> DialStatus {
        match status {
            200..=299 => DialStatus::Answer,
            486 | 600 => DialStatus::Busy,
            408 | 480 => DialStatus::NoAnswer,
            487 => DialStatus::Cancel,
            404 | 410 | 484 | 485 | 604 => DialStatus::ChanUnavail,
            _ => DialStatus::Congestion,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_a_status_and_back() {
        for (cause, status) in [
            (1, 404),
            (17, 486),
            (18, 408),
            (19, 480),
            (21, 403),
            (22, 410),
            (27, 502),
            (28, 484),
            (29, 501),
            (34, 503),
            (58, 488),
            (102, 504),
        ] {
            let cause = Cause::new(cause).unwrap();
            assert_eq!(cause.status(), status);
            assert_eq!(Cause::of_status(status), cause);
        }
    }

    #[test]
    fn one_way() {
        for (cause, status) in [(2, 404), (3, 404), (16, 603), (20, 480), (31, 480), (38, 503), (127, 500), (99, 603)] {
            assert_eq!(Cause::new(cause).unwrap().status(), status, "cause {cause}");
        }
        for (status, cause) in
            [(401, 21), (487, 127), (600, 17), (603, 21), (604, 1), (606, 58), (500, 38), (580, 34), (499, 127)]
        {
            assert_eq!(i64::from(Cause::of_status(status).number()), cause, "status {status}");
        }
    }

    #[test]
    fn every_number_has_a_final_status() {
        for number in 1..=127 {
            assert!((400..700).contains(&Cause::new(number).unwrap().status()));
        }
        for number in [-1, 0, 128, 300] {
            assert!(Cause::new(number).is_err());
        }
        for status in 100..700 {
            assert!((1..=127).contains(&Cause::of_status(status).number()));
        }
    }
}
