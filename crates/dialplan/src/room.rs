//! The `confBridge` step: which room, and as what.

use crate::{Error, ErrorKind, Template, limits};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::time::Duration;

/// What the confBridge step joins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfBridge {
    /// The room's name: all that join one of the same name hear one another.
    pub room: Template,
    /// Digits that a member keys in before it is let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Template>,
    /// Digits that make a member an admin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_pin: Option<Template>,
    /// An admin, without any PIN.
    #[serde(default)]
    pub admin: bool,
    /// Comes in muted.
    #[serde(default)]
    pub start_muted: bool,
    /// Hears music while alone.
    #[serde(default)]
    pub music_on_hold_when_empty: bool,
    /// No sounds when somebody comes or leaves. Of this and what follows the room takes what its first member says.
    #[serde(default)]
    pub quiet: bool,
    /// Members at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_members: Option<u32>,
    /// How long the room lasts. In JSON whole milliseconds.
    #[serde(default, with = "crate::step::millis", skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<Duration>,
    /// The room is recorded.
    #[serde(default)]
    pub record_conference: bool,
}

/// Texts of a call's own room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// The room's name.
    pub name: String,
    /// See [`ConfBridge::pin`].
    pub pin: Option<String>,
    /// See [`ConfBridge::admin_pin`].
    pub admin_pin: Option<String>,
}

impl ConfBridge {
    pub(crate) fn check(&self) -> Result<(), Error> {
        if let Some(name) = self.room.literal() {
            check_name(name).map_err(|e| e.at("room"))?;
        }
        for (pin, field) in [(&self.pin, "pin"), (&self.admin_pin, "adminPin")] {
            if let Some(pin) = pin.as_ref().and_then(Template::literal) {
                check_pin(pin).map_err(|e| e.at(field))?;
            }
        }
        Ok(())
    }

    /// The room with the variables put in.
    ///
    /// # Errors
    /// As [`Template::expand`], and [`ErrorKind::Room`] for a name or a PIN that is none, with the field's path.
    pub fn room<'v>(&self, value: &dyn Fn(&str) -> Option<Cow<'v, str>>) -> Result<Room, Error> {
        let name = self.room.expand(value).and_then(|name| check_name(&name).map(|()| name));
        let pin = |template: &Option<Template>, field: &str| {
            let pin = template.as_ref().map(|t| t.expand(value).and_then(|pin| check_pin(&pin).map(|()| pin)));
            pin.transpose().map_err(|e| e.at(field))
        };
        Ok(Room {
            name: name.map_err(|e| e.at("room"))?,
            pin: pin(&self.pin, "pin")?,
            admin_pin: pin(&self.admin_pin, "adminPin")?,
        })
    }
}

fn bad(text: &str, why: &'static str) -> Result<(), Error> {
    Err(ErrorKind::Room { text: text.chars().take(limits::TEXT).collect(), why }.into())
}

fn check_name(name: &str) -> Result<(), Error> {
    if name.is_empty() || name.len() > limits::ROOM || name.chars().any(char::is_control) {
        return bad(name, "a room's name is 1 to 128 bytes on one line, such as ${EXTEN}");
    }
    Ok(())
}

fn check_pin(pin: &str) -> Result<(), Error> {
    if pin.is_empty() || pin.len() > limits::PIN || !pin.bytes().all(|b| b.is_ascii_digit()) {
        return bad(pin, "a PIN is 1 to 32 digits");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Step;

    fn step(room: &str, pin: Option<&str>) -> ConfBridge {
        let template = |text: &str| Template::parse(text).unwrap();
        ConfBridge {
            room: template(room),
            pin: pin.map(template),
            admin_pin: None,
            admin: false,
            start_muted: false,
            music_on_hold_when_empty: false,
            quiet: false,
            max_members: None,
            max_duration: None,
            record_conference: false,
        }
    }

    #[test]
    fn what_makes_no_room_is_said_before_and_in_a_call() {
        let check = |room: &str, pin| Step::ConfBridge(step(room, pin)).check().map_err(|e| e.to_string());
        assert_eq!(check("${EXTEN}", Some("${PIN}")), Ok(()));
        assert!(check("", None).unwrap_err().starts_with("confBridge.room: bad room"));
        assert!(check("1", Some("12a")).unwrap_err().starts_with("confBridge.pin: bad room \"12a\": a PIN is"));
        let room = |value: &'static str| step("r${EXTEN}", Some("${EXTEN}")).room(&|_| Some(value.into()));
        let want = Room { name: "r100".into(), pin: Some("100".into()), admin_pin: None };
        assert_eq!(room("100"), Ok(want));
        assert!(room("1a").unwrap_err().to_string().starts_with("pin: bad room"));
    }

    #[test]
    fn its_json_is_short_and_kept() {
        let step = Step::ConfBridge(step("${EXTEN}", None));
        let golden = r#"{"confBridge":{"room":"${EXTEN}"}}"#;
        assert_eq!(serde_json::from_str::<Step>(golden).unwrap(), step);
        assert_eq!(serde_json::from_str::<Step>(&serde_json::to_string(&step).unwrap()).unwrap(), step);
        assert_eq!(serde_json::to_string(&Step::MusicOnHold {}).unwrap(), r#"{"musicOnHold":{}}"#);
    }
}
