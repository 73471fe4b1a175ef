//! Digits that a caller presses while the plan waits for an extension, and the star that ends a talk. The relay hears them
//! (RFC 4733) and tells them one by one.

use crate::call::{Call, CallKey, Far};
use crate::core::{Core, Turn};
use dialplan::{Digits, Step, limits};
use std::time::Duration;

/// How long to wait for a further digit (Asterisk: `TIMEOUT(digit)`).
const NEXT_DIGIT: Duration = Duration::from_secs(5);

impl Call {
    /// The plan goes on when its callee hangs up.
    pub(crate) fn goes_on(&self) -> bool {
        matches!(self.walk.current(), Some(Step::Dial(dial)) if dial.options.go_on)
    }
}

impl Core {
    /// A leg of this id pressed a digit.
    pub(crate) fn digit(&mut self, turn: &mut Turn<'_>, key: CallKey, leg: &str, digit: char) {
        let Some(call) = self.calls.get_mut(&key).filter(|call| call.dialing.is_none()) else { return };
        let by_caller = self.legs.get(&call.leg).is_some_and(|near| near.id == leg);
        match call.walk.current() {
            Some(Step::Dial(dial)) if digit == '*' && dial.options.hangup_by_star && call.far == Some(Far::Dial) => {
                self.hang_up_far(turn, key, "ended by *");
            }
            Some(Step::Background(_) | Step::WaitExten { .. }) if by_caller => {
                if call.digits.len() < limits::EXTENSION {
                    call.digits.push(digit);
                }
                self.stop_prompts(turn, key);
                let digits = self.calls.get(&key).map(|call| call.digits.clone()).unwrap_or_default();
                match self.walk(turn, key, None, |walk, facts| walk.digits(&digits, facts)) {
                    Some(Digits::More) => self.plan_later(turn, key, NEXT_DIGIT),
                    Some(Digits::Done) => self.entered(turn, key),
                    None => {}
                }
            }
            _ => {}
        }
    }

    /// No more digits come: the plan goes on at what they are.
    pub(crate) fn entered(&mut self, turn: &mut Turn<'_>, key: CallKey) {
        self.timers.disarm(crate::timers::Timer::Plan(key));
        let digits = self.calls.get_mut(&key).map(|call| std::mem::take(&mut call.digits)).unwrap_or_default();
        match self.walk(turn, key, None, |walk, facts| walk.enter(&digits, facts)) {
            Some(true) => self.run(turn, key),
            Some(false) => {
                let why = match digits.as_str() {
                    "" => "no digits, and no extension t".to_owned(),
                    digits => format!("no extension {digits}, and no i"),
                };
                self.finish(turn, key, None, Some(why));
            }
            None => {}
        }
    }

    /// Whatever is played to the caller ends.
    fn stop_prompts(&mut self, turn: &mut Turn<'_>, key: CallKey) {
        let Some(call) = self.calls.get(&key).filter(|call| call.far == Some(Far::Play)) else { return };
        let far = call.bridge.and_then(|b| self.bridges.get(&b)).map(|b| b.other(call.leg));
        if let Some(far) = far {
            self.unbridge(key, far);
            self.bye(turn, far, None);
        }
    }
}
