//! Secrets that something refers to: which version of which is wanted, at hand, or being fetched. Pure but for [`fetch`].

use api::SecretValue;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::Api;
use std::collections::BTreeMap;

/// The values of a Secret by key.
pub type Values = BTreeMap<String, SecretValue>;

/// What fetching a Secret gave.
#[derive(Debug, Clone, PartialEq)]
pub enum Fetched {
    /// Its values, in this resource version.
    Values(String, Values),
    /// There is none of that name, or it may not be read.
    Absent,
    /// Nobody answered, or not well: to be asked again.
    Failed(String),
}

/// Fetches a Secret by name.
pub async fn fetch(client: &Client, namespace: &str, name: &str) -> Fetched {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    match secrets.get_opt(name).await {
        Ok(None) => Fetched::Absent,
        Ok(Some(secret)) => {
            let version = secret.metadata.resource_version.unwrap_or_default();
            let values = secret.data.unwrap_or_default().into_iter();
            Fetched::Values(version, values.map(|(key, value)| (key, SecretValue::new(value.0))).collect())
        }
        Err(kube::Error::Api(status)) if status.code == 403 => {
            tracing::warn!(namespace, name, "a Secret that is referred to may not be read");
            Fetched::Absent
        }
        Err(error) => Fetched::Failed(error.to_string()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be fetched.
    Wanted,
    /// Asked for.
    Asked,
    /// Asked for, and changed since.
    AskedStale,
    /// Known: there, or not.
    Settled,
}

/// The Secrets of one namespace.
#[derive(Debug, Default)]
pub struct Secrets {
    /// The resource version of each that there is, by its metadata.
    there: BTreeMap<String, String>,
    /// Those that are referred to.
    wanted: BTreeMap<String, State>,
    /// The version of which the values were given on.
    have: BTreeMap<String, String>,
}

impl Secrets {
    /// Its metadata says that it is there, in this version.
    pub fn seen(&mut self, name: &str, version: String) {
        let new = self.have.get(name) != Some(&version);
        self.there.insert(name.to_owned(), version);
        if new {
            self.stale(name);
        }
    }

    /// It is gone; true if values of it had been given on.
    pub fn gone(&mut self, name: &str) -> bool {
        self.there.remove(name);
        if let Some(state) = self.wanted.get_mut(name) {
            *state = match state {
                State::Asked | State::AskedStale => State::AskedStale,
                State::Wanted | State::Settled => State::Settled,
            };
        }
        self.have.remove(name).is_some()
    }

    fn stale(&mut self, name: &str) {
        if let Some(state) = self.wanted.get_mut(name) {
            *state = match state {
                State::Asked | State::AskedStale => State::AskedStale,
                State::Wanted | State::Settled => State::Wanted,
            };
        }
    }

    /// It is referred to.
    pub fn want(&mut self, name: &str) {
        if !self.wanted.contains_key(name) {
            let state = if self.there.contains_key(name) { State::Wanted } else { State::Settled };
            self.wanted.insert(name.to_owned(), state);
        }
    }

    /// Nothing refers to it any longer.
    pub fn drop(&mut self, name: &str) {
        self.wanted.remove(name);
        self.have.remove(name);
    }

    /// Whether there is one of this name.
    pub fn is_there(&self, name: &str) -> bool {
        self.there.contains_key(name)
    }

    /// The resource version of one that is there.
    pub fn version(&self, name: &str) -> Option<&str> {
        self.there.get(name).map(String::as_str)
    }

    /// Everything that is referred to is to be fetched anew: for a compiler that has nothing yet.
    pub fn forget(&mut self) {
        self.have.clear();
        let there: Vec<String> = self.there.keys().cloned().collect();
        there.iter().for_each(|name| self.stale(name));
    }

    /// What is to be fetched now; [`Secrets::fetched`] tells of each what came.
    pub fn ask(&mut self) -> Vec<String> {
        let wanted = self.wanted.iter_mut().filter(|(_, state)| **state == State::Wanted);
        wanted
            .map(|(name, state)| {
                *state = State::Asked;
                name.clone()
            })
            .collect()
    }

    /// Whether this one may still become known by itself.
    pub fn is_pending(&self, name: &str) -> bool {
        self.wanted.get(name).is_some_and(|state| *state != State::Settled)
    }

    /// Whether any is.
    pub fn any_pending(&self) -> bool {
        self.wanted.values().any(|state| *state != State::Settled)
    }

    /// What came of fetching one. Gives what the compiler is to be told: values, or that there are none any longer.
    pub fn fetched(&mut self, name: &str, fetched: Fetched) -> Option<Option<Values>> {
        let state = self.wanted.get_mut(name)?;
        let again = *state == State::AskedStale;
        match fetched {
            // Gone while it was fetched: that has been told.
            _ if !self.there.contains_key(name) => {
                *state = State::Settled;
                None
            }
            Fetched::Failed(_) => {
                *state = State::Wanted;
                None
            }
            Fetched::Absent => {
                *state = if again { State::Wanted } else { State::Settled };
                self.have.remove(name).map(|_| None)
            }
            Fetched::Values(version, values) => {
                // What was fetched may be newer than its metadata here: then that is on its way.
                let current = self.there.get(name) == Some(&version);
                *state = if again && !current { State::Wanted } else { State::Settled };
                self.have.insert(name.to_owned(), version);
                Some(Some(values))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(version: &str) -> Fetched {
        Fetched::Values(version.into(), [("8005".to_owned(), SecretValue::new(version))].into())
    }

    #[test]
    fn only_what_is_referred_to_and_there_is_fetched_and_once_a_version() {
        let mut secrets = Secrets::default();
        secrets.seen("phones", "1".into());
        secrets.seen("other", "1".into());
        assert!(secrets.ask().is_empty());
        secrets.want("phones");
        secrets.want("missing");
        assert!(secrets.is_pending("phones") && !secrets.is_pending("missing") && secrets.any_pending());
        assert_eq!(secrets.ask(), ["phones"]);
        assert!(secrets.ask().is_empty() && secrets.any_pending());
        assert!(secrets.fetched("phones", values("1")).unwrap().is_some());
        assert!(!secrets.any_pending());
        secrets.seen("phones", "1".into());
        assert!(secrets.ask().is_empty());
        secrets.seen("phones", "2".into());
        secrets.seen("missing", "1".into());
        assert_eq!(secrets.ask(), ["missing", "phones"]);
    }

    #[test]
    fn one_that_changes_while_it_is_fetched_is_fetched_again() {
        let mut secrets = Secrets::default();
        secrets.want("phones");
        secrets.seen("phones", "1".into());
        assert_eq!(secrets.ask(), ["phones"]);
        secrets.seen("phones", "2".into());
        assert!(secrets.ask().is_empty());
        assert!(secrets.fetched("phones", values("1")).is_some());
        assert_eq!(secrets.ask(), ["phones"]);
        assert!(secrets.fetched("phones", values("2")).is_some() && !secrets.any_pending());
        // Newer than its metadata: nothing to fetch when that comes.
        secrets.seen("phones", "3".into());
        assert_eq!(secrets.ask(), ["phones"]);
        assert!(secrets.fetched("phones", values("4")).is_some());
        secrets.seen("phones", "4".into());
        assert!(secrets.ask().is_empty());
    }

    #[test]
    fn one_that_is_gone_is_told_once_and_failures_are_tried_again() {
        let mut secrets = Secrets::default();
        secrets.seen("phones", "1".into());
        secrets.want("phones");
        assert_eq!(secrets.ask(), ["phones"]);
        assert!(secrets.fetched("phones", Fetched::Failed("timed out".into())).is_none());
        assert_eq!(secrets.ask(), ["phones"]);
        secrets.fetched("phones", values("1"));
        assert!(secrets.gone("phones") && !secrets.gone("phones"));
        assert!(!secrets.any_pending());
        secrets.seen("phones", "5".into());
        assert_eq!(secrets.ask(), ["phones"]);
        assert!(!secrets.gone("phones"));
        assert_eq!(secrets.fetched("phones", values("5")), None);
        assert!(!secrets.any_pending());
        secrets.seen("phones", "6".into());
        assert_eq!(secrets.ask(), ["phones"]);
        assert!(secrets.fetched("phones", values("6")).is_some());
    }

    #[test]
    fn a_new_compiler_is_given_everything_again() {
        let mut secrets = Secrets::default();
        secrets.seen("phones", "1".into());
        secrets.want("phones");
        secrets.ask();
        secrets.fetched("phones", values("1"));
        secrets.forget();
        assert_eq!(secrets.ask(), ["phones"]);
        secrets.drop("phones");
        assert_eq!(secrets.fetched("phones", values("1")), None);
    }
}
