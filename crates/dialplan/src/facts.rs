//! What a plan may know of the call that it runs for.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::condition::Value;
use crate::{Cause, DialStatus, Plan, Walk};

/// Who calls, as callees see it: `CALLERID(num)` and `CALLERID(name)`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The number.
    pub number: String,
    /// The name, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Caller {
    /// `"Name" <number>`, or the number alone.
    pub fn all(&self) -> String {
        match &self.name {
            Some(name) => format!("\"{name}\" <{}>", self.number),
            None => self.number.clone(),
        }
    }
}

/// What is known of a call from outside of its plan.
pub struct Facts<'a> {
    /// A context by its name.
    pub plan: &'a dyn Fn(&str) -> Option<&'a Plan>,
    /// The call id.
    pub id: &'a str,
    /// The calling endpoint.
    pub endpoint: &'a str,
    /// Header fields of the caller's INVITE that speak of the call.
    pub headers: &'a [(String, String)],
    /// What the last dial came to.
    pub outcome: Option<(DialStatus, Cause)>,
    /// Why the call ended, once it has: `HANGUPCAUSE` in `h`.
    pub ended: Option<Cause>,
    /// The caller is answered.
    pub answered: bool,
    /// Time since the UNIX epoch.
    pub wall: Duration,
}

impl std::fmt::Debug for Facts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Facts({} of {})", self.id, self.endpoint)
    }
}

impl Facts<'_> {
    fn cause(&self) -> Option<Cause> {
        self.ended.or(self.outcome.map(|(_, cause)| cause))
    }
}

impl Walk {
    /// A variable's or function's value, by Asterisk's name.
    pub fn value<'v>(&'v self, facts: &'v Facts<'_>, name: &str) -> Option<Cow<'v, str>> {
        Some(match name {
            "EXTEN" => Cow::Borrowed(self.exten()),
            "CONTEXT" => Cow::Borrowed(self.context()),
            "PRIORITY" => Cow::Owned(self.priority().to_string()),
            "CALLERID(num)" | "CALLERIDNUM" => Cow::Borrowed(self.caller().number.as_str()),
            "CALLERID(name)" | "CALLERIDNAME" => Cow::Borrowed(self.caller().name.as_deref()?),
            "CALLERID(all)" => Cow::Owned(self.caller().all()),
            "UNIQUEID" | "CHANNEL(uniqueid)" => Cow::Borrowed(facts.id),
            "CHANNEL" | "CHANNEL(name)" => {
                Cow::Owned(format!("PJSIP/{}-{}", facts.endpoint, facts.id.get(..8).unwrap_or(facts.id)))
            }
            "CHANNEL(channeltype)" => Cow::Borrowed("PJSIP"),
            "CHANNEL(endpoint)" => Cow::Borrowed(facts.endpoint),
            "CHANNEL(context)" => Cow::Borrowed(self.context()),
            "CHANNEL(exten)" => Cow::Borrowed(self.exten()),
            "CHANNEL(state)" => Cow::Borrowed(if facts.answered { "Up" } else { "Ring" }),
            "EPOCH" => Cow::Owned(facts.wall.as_secs().to_string()),
            "DIALSTATUS" => Cow::Borrowed(facts.outcome?.0.as_str()),
            "HANGUPCAUSE" => Cow::Owned(facts.cause()?.number().to_string()),
            _ => match name.strip_prefix("PJSIP_HEADER(").and_then(|rest| rest.strip_suffix(')')) {
                Some(read) => Cow::Borrowed(header(facts.headers, read)?),
                None => Cow::Borrowed(self.variables().get(name)?),
            },
        })
    }

    /// A fact for a condition.
    pub(crate) fn fact(&self, facts: &Facts<'_>, name: &str) -> Value {
        let texts = |all: &BTreeMap<String, String>| {
            Value::Map(all.iter().map(|(name, value)| (name.clone(), Value::Text(value.clone()))).collect())
        };
        match name {
            "answered" => Value::Bool(facts.answered),
            "caller" => Value::Map(BTreeMap::from([
                ("number".to_owned(), Value::Text(self.caller().number.clone())),
                ("name".to_owned(), Value::Text(self.caller().name.clone().unwrap_or_default())),
            ])),
            "context" => self.context().into(),
            "dialStatus" => facts.outcome.map_or("", |(status, _)| status.as_str()).into(),
            "endpoint" => facts.endpoint.into(),
            "extension" => self.exten().into(),
            "hangupCause" => facts.cause().map_or(0, |cause| i64::from(cause.number())).into(),
            "headers" => {
                let mut fields = BTreeMap::new();
                for (name, value) in facts.headers {
                    fields.entry(name.to_ascii_lowercase()).or_insert_with(|| value.clone());
                }
                Value::Fields(fields)
            }
            "time" => (facts.plan)(self.context()).map(Plan::time_zone).cloned().unwrap_or_default().time(facts.wall),
            "variables" => texts(self.variables()),
            _ => Value::Null,
        }
    }
}

/// The header field that `read,NAME[,N]` asks for.
fn header<'a>(headers: &'a [(String, String)], read: &str) -> Option<&'a str> {
    let mut fields = read.split(',').map(str::trim);
    let (_, name) = (fields.next()?, fields.next()?);
    let number: usize = fields.next().map_or(Some(1), |number| number.parse().ok())?;
    let mut named = headers.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
    named.nth(number.checked_sub(1)?).map(|(_, value)| value.as_str())
}
