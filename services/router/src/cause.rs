//! Final answers: what a dial came to, in SIP and in the dialplan's variables. The table stands in docs/rfc/router.md.

use dialplan::{Cause, DialStatus};

/// What became of a dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// `DIALSTATUS`.
    pub(crate) status: DialStatus,
    /// `HANGUPCAUSE`.
    pub(crate) cause: Cause,
    /// The final answer to the caller, should the plan end without a cause of its own.
    pub(crate) code: u16,
}

/// How one branch of a fork ended without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Branch {
    /// A final answer of the callee, or of ours for it (488 where no codec is left).
    Status(u16),
    /// Nothing came back at all.
    Silent,
    /// The endpoint was asleep, and did not wake in time.
    Asleep,
    /// The endpoint has no live contact.
    Absent,
    /// There is no such endpoint.
    Unknown,
}

impl Branch {
    /// Lower is preferred as the answer for all: a decline, what somebody said, busy (said only where nobody said
    /// something else), failures, silence, absence.
    fn rank(self) -> u8 {
        match self {
            Branch::Status(600..) => 0,
            Branch::Status(480) => 1,
            Branch::Status(486) => 2,
            Branch::Status(408) => 5,
            Branch::Status(400..=499) => 3,
            Branch::Status(_) => 4,
            Branch::Silent => 5,
            Branch::Asleep => 6,
            Branch::Absent => 7,
            Branch::Unknown => 8,
        }
    }

    fn outcome(self) -> Outcome {
        match self {
            Branch::Status(code) => {
                let code = passed_on(code);
                Outcome { status: DialStatus::of_status(code), cause: Cause::of_status(code), code }
            }
            Branch::Silent => Outcome {
                status: DialStatus::of_status(408),
                cause: Cause::NO_RESPONSE,
                code: Cause::NO_RESPONSE.status(),
            },
            Branch::Asleep => NO_ANSWER,
            Branch::Absent => {
                Outcome { status: DialStatus::ChanUnavail, cause: Cause::ABSENT, code: Cause::ABSENT.status() }
            }
            Branch::Unknown => {
                Outcome { status: DialStatus::ChanUnavail, cause: Cause::NO_ROUTE, code: Cause::NO_ROUTE.status() }
            }
        }
    }
}

/// The answer for all branches of a dial; none rang: nobody is there.
pub(crate) fn aggregate(branches: &[Branch]) -> Outcome {
    branches.iter().copied().min_by_key(|b| b.rank()).unwrap_or(Branch::Absent).outcome()
}

/// It rang, nobody answered in time.
pub(crate) const NO_ANSWER: Outcome = Outcome { status: DialStatus::NoAnswer, cause: Cause::NO_ANSWER, code: 480 };

/// Somebody answered.
pub(crate) const ANSWERED: Outcome = Outcome { status: DialStatus::Answer, cause: Cause::NORMAL, code: 480 };

/// What of a callee's final answer the caller hears. Those that speak of one hop only (authentication, extensions,
/// dialog state, redirection) would mean something else on the caller's leg, and a 503 would make the edge try another
/// router, which would ring the same callee again (RFC 3261 16.7 step 6 asks the same of proxies).
fn passed_on(code: u16) -> u16 {
    match code {
        300..=399 => 480,
        401 | 407 => 403,
        503 => 500,
        400 | 402 | 405 | 406 | 412..=416 | 420..=423 | 425..=439 | 440 | 481 | 487 | 489 | 491 | 493 | 494 => 500,
        code => code,
    }
}

/// The `Reason` value of a cause (RFC 3326).
pub(crate) fn reason(cause: Cause) -> String {
    format!("Q.850;cause={};text=\"{}\"", cause.number(), cause.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_for_all_branches() {
        use Branch::*;
        for (branches, status, cause, code) in [
            (vec![], "CHANUNAVAIL", 20, 480),
            (vec![Absent], "CHANUNAVAIL", 20, 480),
            (vec![Unknown], "CHANUNAVAIL", 3, 404),
            (vec![Absent, Unknown], "CHANUNAVAIL", 20, 480),
            (vec![Silent], "NOANSWER", 18, 408),
            (vec![Status(486)], "BUSY", 17, 486),
            (vec![Status(600)], "BUSY", 17, 600),
            (vec![Status(603)], "CONGESTION", 21, 603),
            (vec![Status(480)], "NOANSWER", 19, 480),
            (vec![Status(488)], "CONGESTION", 58, 488),
            (vec![Status(404)], "CHANUNAVAIL", 1, 404),
            (vec![Status(302)], "NOANSWER", 19, 480),
            (vec![Status(401)], "CONGESTION", 21, 403),
            (vec![Status(503)], "CONGESTION", 38, 500),
            (vec![Status(481)], "CONGESTION", 38, 500),
            (vec![Status(483)], "CONGESTION", 19, 483),
            (vec![Status(486), Absent], "BUSY", 17, 486),
            (vec![Silent, Status(486)], "BUSY", 17, 486),
            (vec![Status(486), Status(480)], "NOANSWER", 19, 480),
            (vec![Status(486), Status(603), Status(480)], "CONGESTION", 21, 603),
            (vec![Status(500), Status(486)], "BUSY", 17, 486),
            (vec![Status(408), Status(500)], "CONGESTION", 38, 500),
            (vec![Absent, Silent], "NOANSWER", 18, 408),
            (vec![Absent, Asleep], "NOANSWER", 19, 480),
            (vec![Asleep, Status(486)], "BUSY", 17, 486),
        ] {
            let got = aggregate(&branches);
            assert_eq!((got.status.as_str(), got.cause.number(), got.code), (status, cause, code), "{branches:?}");
        }
    }
}
