//! `/v1/registrations`: who is registered, from where, for how long.

use contract::location::{Aor, StoreError};
use serde_json::{Value, json};

/// `{"registrations": [{aor, contact, expires, since, userAgent, flow, ...}]}`; `expires` in seconds from now, `since`
/// and `updated` in seconds since the UNIX epoch. With `error` if the store did not answer.
pub(crate) fn registrations(stored: Result<Vec<(String, Aor)>, StoreError>, unix_now: u64) -> Value {
    let all = match stored {
        Ok(all) => all,
        Err(error) => return json!({"registrations": [], "error": error.to_string()}),
    };
    let mut rows = Vec::new();
    for (name, aor) in &all {
        for binding in aor.bindings.iter().filter(|b| b.is_live(unix_now)) {
            rows.push(json!({
                "aor": name,
                "contact": binding.contact,
                "expires": binding.expires_at.saturating_sub(unix_now),
                "since": binding.since,
                "updated": binding.updated,
                "userAgent": binding.user_agent,
                "instance": binding.instance,
                "transport": binding.flow.map(|f| f.transport.as_param()),
                "flow": binding.flow.map(|f| f.remote.to_string()),
                "local": binding.flow.map(|f| f.local.to_string()),
                "balancer": binding.flow.map(|f| f.process.to_string()),
            }));
        }
    }
    json!({"registrations": rows})
}
