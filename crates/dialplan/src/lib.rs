//! Dialplan patterns, substitution and steps, shared by the compiler and the router.
//!
//! A [`Plan`] is one context: what it includes and its extensions, each a [`Pattern`] and the [`Step`]s that run when it
//! matches. The compiler builds plans and turns an [`Error`] into a finding. A call is a [`Walk`] through plans: each
//! [`Walk::step`] runs one step and says by an [`Action`] what whoever has the call is to do; the router does it, and
//! `kubepbx route` prints it. Nothing here knows SIP or IO; the time is a fact that is given.
//!
//! ```
//! use dialplan::{Extension, Pattern, Plan, Step, Dial, DialOptions, Template, find};
//! let dial = Step::Dial(Dial { to: vec![Template::parse("PJSIP/${EXTEN}")?], timeout: None, options: DialOptions::default() });
//! let plan = Plan::new("from-external", vec![], vec![Extension::new(Pattern::parse("_80XX")?, vec![dial])])?;
//! let found = find(&plan, "8006", &|_| None).expect("8006 matches _80XX");
//! let Step::Dial(dial) = &found.extension.steps[0] else { panic!("a dial step") };
//! let target = dial.to[0].expand(&|name| (name == "EXTEN").then(|| "8006".into()))?;
//! assert_eq!(dialplan::Target::parse_list(&target)?, [dialplan::Target::Endpoint("8006".into())]);
//! # Ok::<(), dialplan::Error>(())
//! ```

mod analysis;
mod cause;
mod condition;
mod dial;
mod error;
mod facts;
mod jump;
mod millis;
mod pattern;
mod plan;
mod prompt;
mod step;
mod template;
mod walk;
mod zone;

pub use cause::{Cause, DialStatus};
pub use condition::{Condition, FACTS, Value};
pub use dial::{Dial, DialOptions, Target};
pub use error::{Error, ErrorKind};
pub use facts::{Caller, Facts};
pub use jump::{Gosub, Goto, GotoIf};
pub use pattern::Pattern;
pub use plan::{Extension, Found, Plan, find, limits};
pub use prompt::{Playback, Prompt};
pub use step::{Assigned, Step};
pub use template::Template;
pub use walk::{Action, Dialled, Digits, Taken, Walk};
pub use zone::Zone;
