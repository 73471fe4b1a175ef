//! What a leg asks for when it dials a room: the parameters of `sip:room-NAME@...`.
//!
//! | parameter | means |
//! | --- | --- |
//! | `pin=DIGITS` | who comes must key it in, then `#` |
//! | `admin-pin=DIGITS` | who keys this one in is an admin |
//! | `admin` | is an admin without any PIN |
//! | `muted` | comes in muted |
//! | `music` | hears music while alone |
//! | `quiet` | no sounds when somebody comes or leaves; by who makes the room |
//! | `max=N` | members at most; by who makes the room |
//! | `duration=SECONDS` | the room ends after so long; by who makes it |
//! | `record` | the room is recorded; by who makes it |

use sip::uri::{Uri, unescape};
use std::time::Duration;

/// Bytes of a room's name.
const NAME: usize = 128;
/// Digits of a PIN.
const PIN: usize = 32;

/// See the module's description.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// The room.
    pub name: String,
    /// Of members.
    pub pin: Option<String>,
    /// Of admins.
    pub admin_pin: Option<String>,
    /// An admin without a PIN.
    pub admin: bool,
    /// Comes in muted.
    pub muted: bool,
    /// Music while alone.
    pub music: bool,
    /// No sounds of coming and leaving.
    pub quiet: bool,
    /// Members at most.
    pub most: Option<usize>,
    /// How long the room lasts.
    pub duration: Option<Duration>,
    /// The room is recorded.
    pub record: bool,
}

impl Options {
    /// Reads a room's URI, `name` being its user without `room-`. `None` where something of it makes no sense.
    pub fn of(name: &str, uri: &Uri<'_>) -> Option<Self> {
        let value = |key: &str| uri.params.get(key).flatten().map(unescape);
        let flag = |key: &str| uri.params.get(key).is_some();
        let pin = |key: &str| match uri.params.get(key) {
            None => Some(None),
            Some(_) => {
                let digits = value(key)?;
                let fits = (1..=PIN).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
                fits.then(|| Some(digits.into_owned()))
            }
        };
        let number = |key: &str| match uri.params.get(key) {
            None => Some(None),
            Some(_) => value(key)?.parse::<u32>().ok().filter(|n| *n > 0).map(Some),
        };
        let fits = (1..=NAME).contains(&name.len()) && !name.chars().any(char::is_control);
        fits.then_some(())?;
        Some(Self {
            name: name.to_owned(),
            pin: pin("pin")?,
            admin_pin: pin("admin-pin")?,
            admin: flag("admin"),
            muted: flag("muted"),
            music: flag("music"),
            quiet: flag("quiet"),
            most: number("max")?.map(|n| n as usize),
            duration: number("duration")?.map(|n| Duration::from_secs(n.into())),
            record: flag("record"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Options> {
        let uri = Uri::parse(text).ok()?;
        let user = uri.user_unescaped();
        Options::of(user.strip_prefix("room-")?, &uri)
    }

    #[test]
    fn parameters_are_read_and_nonsense_is_none() {
        let bare = Options { name: "100".into(), ..Options::default() };
        assert_eq!(read("sip:room-100@h"), Some(bare.clone()));
        let all = read("sip:room-100@h;pin=12;admin-pin=99;admin;muted;music;quiet;max=3;duration=60;record").unwrap();
        let want = Options {
            pin: Some("12".into()),
            admin_pin: Some("99".into()),
            admin: true,
            muted: true,
            music: true,
            quiet: true,
            most: Some(3),
            duration: Some(Duration::from_secs(60)),
            record: true,
            ..bare
        };
        assert_eq!(all, want);
        assert_eq!(read("sip:room-a%20b@h").unwrap().name, "a b");
        for bad in ["sip:room-@h", "sip:room-1@h;pin=x", "sip:room-1@h;pin", "sip:room-1@h;max=0", "sip:room-1@h;max=a"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
