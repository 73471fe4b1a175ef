//! Dialplan patterns, substitution and steps, shared by the compiler and the router.
//!
//! A [`Plan`] is one context: what it includes and its extensions, each a [`Pattern`] and the [`Step`]s that run when it
//! matches. The compiler builds plans and turns an [`Error`] into a finding; the router looks an extension up with
//! [`find`], keeps the extension's steps and walks them by index. Nothing here knows SIP, time or IO.
//!
//! ```
//! use dialplan::{Extension, Pattern, Plan, Step, Dial, Template, find};
//! let dial = Step::Dial(Dial { to: vec![Template::parse("PJSIP/${EXTEN}")?], timeout: None });
//! let plan = Plan::new("from-external", vec![], vec![Extension::new(Pattern::parse("_80XX")?, vec![dial])])?;
//! let found = find(&plan, "8006", &|_| None).expect("8006 matches _80XX");
//! let Step::Dial(dial) = &found.extension.steps[0] else { panic!("a dial step") };
//! let target = dial.to[0].expand(&|name| (name == "EXTEN").then(|| "8006".into()))?;
//! assert_eq!(dialplan::Target::parse_list(&target)?, [dialplan::Target::Endpoint("8006".into())]);
//! # Ok::<(), dialplan::Error>(())
//! ```

mod cause;
mod error;
mod pattern;
mod plan;
mod room;
mod step;
mod template;

pub use cause::{Cause, DialStatus};
pub use error::{Error, ErrorKind};
pub use pattern::Pattern;
pub use plan::{Extension, Found, Plan, find, limits};
pub use room::{ConfBridge, Room};
pub use step::{Dial, Playback, Prompt, Step, Target};
pub use template::Template;
