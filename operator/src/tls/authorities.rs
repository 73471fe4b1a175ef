//! What stands in the Secret, and when it is renewed. Pure but for the making of keys.

use anyhow::Context;
use k8s_openapi::ByteString;
use runtime::stream::tls::Pair;
use std::collections::BTreeMap;
use std::time::Duration;

/// A new authority is trusted for so long before anything is signed by it: processes have its certificate by then.
pub const NOTICE: Duration = Duration::from_secs(86_400);

type Data = BTreeMap<String, ByteString>;

/// Keys of the Secret: the authority that signs, the one that will, and certificates of those that did.
const CURRENT: [&str; 2] = ["ca.crt", "ca.key"];
const NEXT: [&str; 2] = ["next.crt", "next.key"];
const FORMER: &str = "former.crt";

/// The authorities of an installation.
#[derive(Debug, Clone)]
pub(super) struct Authorities {
    current: Pair,
    next: Option<Pair>,
    /// The certificate of the one before, until the next is made.
    former: Option<String>,
}

impl Authorities {
    fn new(now: Duration) -> anyhow::Result<Self> {
        Ok(Self { current: Pair::authority(now)?, next: None, former: None })
    }

    /// The one that signs.
    pub(super) fn signing(&self) -> &Pair {
        &self.current
    }

    /// All that are to be trusted, as PEM.
    pub(super) fn trust(&self) -> String {
        let next = self.next.as_ref().map(|pair| &pair.certificate);
        let all = [Some(&self.current.certificate), next, self.former.as_ref()];
        all.into_iter().flatten().map(String::as_str).collect()
    }

    /// As the Secret has it.
    pub(super) fn data(&self) -> Data {
        let mut out = Data::new();
        let mut put = |key: &str, text: &str| out.insert(key.to_owned(), ByteString(text.as_bytes().to_vec()));
        for (keys, pair) in [(CURRENT, Some(&self.current)), (NEXT, self.next.as_ref())] {
            if let Some(pair) = pair {
                put(keys[0], &pair.certificate);
                put(keys[1], &pair.key);
            }
        }
        if let Some(former) = &self.former {
            put(FORMER, former);
        }
        out
    }

    fn read(data: &Data, now: Duration) -> anyhow::Result<Self> {
        let text = |key: &str| data.get(key).map(|bytes| String::from_utf8(bytes.0.clone())).transpose();
        let pair = |keys: [&str; 2]| {
            let (certificate, key) = (text(keys[0])?.unwrap_or_default(), text(keys[1])?.unwrap_or_default());
            let pair = Pair { certificate, key: key.into() };
            // That it can sign shows that it is whole.
            pair.issue(&["localhost".into()], now)?;
            anyhow::Ok(pair)
        };
        let next = data.contains_key(NEXT[0]).then(|| pair(NEXT)).transpose().context(NEXT[0])?;
        Ok(Self { current: pair(CURRENT).context(CURRENT[0])?, next, former: text(FORMER)? })
    }

    /// What they become at `now`; `None`: they stay.
    fn renewed(&self, now: Duration) -> anyhow::Result<Option<Self>> {
        match &self.next {
            Some(next) if next.made().is_none_or(|made| now >= made + NOTICE) => {
                let former = Some(self.current.certificate.clone());
                Ok(Some(Self { current: next.clone(), next: None, former }))
            }
            None if self.current.renew_needed(now) => {
                Ok(Some(Self { next: Some(Pair::authority(now)?), former: None, ..self.clone() }))
            }
            _ => Ok(None),
        }
    }
}

/// What the authorities are, out of what the Secret has (`None`: there is none) and what this process had; and whether
/// that is to be written. A Secret that is gone or spoilt is written again as it was, so that nobody loses trust.
pub(super) fn settle(
    stored: Option<&Data>,
    had: Option<&Authorities>,
    now: Duration,
) -> anyhow::Result<(Authorities, bool)> {
    let read = stored.map(|data| Authorities::read(data, now));
    if let Some(Err(error)) = &read {
        tracing::warn!(error = format!("{error:#}"), "the Secret of the authority cannot be read: it is written anew");
    }
    let (authorities, is_new) = match (read, had) {
        (Some(Ok(stored)), _) => (stored, false),
        (_, Some(had)) => (had.clone(), true),
        (_, None) => (Authorities::new(now)?, true),
    };
    Ok(match authorities.renewed(now)? {
        Some(renewed) => (renewed, true),
        None => (authorities, is_new),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::stream::tls::AUTHORITY_LIFE;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    #[test]
    fn the_first_makes_it_and_the_others_read_it() {
        let (first, is_new) = settle(None, None, NOW).unwrap();
        assert!(is_new);
        let (second, is_new) = settle(Some(&first.data()), None, NOW).unwrap();
        assert!(!is_new);
        assert_eq!((second.trust(), second.data()), (first.trust(), first.data()));
        assert_eq!(first.trust().matches("BEGIN CERTIFICATE").count(), 1);
        assert!(!first.trust().contains("PRIVATE"));
    }

    #[test]
    fn a_secret_that_is_gone_or_spoilt_is_written_again_as_it_was() {
        let (had, _) = settle(None, None, NOW).unwrap();
        let (other, _) = settle(None, None, NOW).unwrap();
        let mut mixed = had.data();
        mixed.insert("ca.key".into(), other.data()["ca.key"].clone());
        for spoilt in [None, Some(Data::new()), Some(mixed)] {
            let (again, is_new) = settle(spoilt.as_ref(), Some(&had), NOW).unwrap();
            assert_eq!((again.data(), is_new), (had.data(), true));
            let (another, is_new) = settle(spoilt.as_ref(), None, NOW).unwrap();
            assert!(is_new && another.trust() != had.trust());
        }
        // One that somebody else put there is taken.
        let (theirs, is_new) = settle(Some(&other.data()), Some(&had), NOW).unwrap();
        assert_eq!((theirs.trust(), is_new), (other.trust(), false));
    }

    #[test]
    fn a_new_authority_is_trusted_before_it_signs_and_the_old_one_for_as_long_after() {
        let (first, _) = settle(None, None, NOW).unwrap();
        let late = NOW + AUTHORITY_LIFE * 3 / 4;
        let step = |from: &Authorities, at: Duration| settle(Some(&from.data()), None, at).unwrap();
        let (both, is_new) = step(&first, late);
        assert!(is_new && both.trust().starts_with(&first.trust()));
        assert_eq!(both.signing().certificate, first.signing().certificate);
        assert_eq!(both.trust().matches("BEGIN CERTIFICATE").count(), 2);
        assert!(!step(&both, late + NOTICE / 2).1, "it waits");
        let (signs, is_new) = step(&both, late + NOTICE * 2);
        assert!(is_new);
        assert_ne!(signs.signing().certificate, first.signing().certificate);
        let mut certificates: Vec<_> = [&both, &signs]
            .map(|a| {
                let trust = a.trust();
                let mut all: Vec<_> = trust.split_inclusive("-----END CERTIFICATE-----\n").map(str::to_owned).collect();
                all.sort();
                all
            })
            .into();
        assert_eq!(certificates.pop(), certificates.pop(), "the same are trusted");
        assert!(!step(&signs, late + NOTICE * 3).1, "then it rests");
        assert!(signs.data().keys().all(|key| !key.starts_with("next")));
    }
}
