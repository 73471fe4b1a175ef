//! Who follows a stream: service-account tokens, reviewed by the API server, each answer kept for a while.

use contract::Now;
use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::Client;
use kube::api::{Api, PostParams};
use runtime::Clock;
use runtime::stream::server::{Authorise, Denied, Identity};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// The audience that tokens are to be made for.
pub const AUDIENCE: &str = "kubepbx";

/// How long a token that was found good is good without asking again, and one that was not is not.
const KEPT: Duration = Duration::from_secs(60);
const KEPT_DENIED: Duration = Duration::from_secs(5);

/// Answers that are kept.
const MAX_KEPT: usize = 4096;

/// Questions to the API server at a time; more wait.
const MAX_QUESTIONS: usize = 16;

/// The extra attribute that names the pod that a token is bound to.
const POD: &str = "authentication.kubernetes.io/pod-name";

/// Reviews tokens by the API server.
pub struct Reviews {
    reviews: Api<TokenReview>,
    kept: Mutex<Kept>,
    questions: Semaphore,
    clock: Clock,
}

impl Reviews {
    /// Asks this API server.
    pub fn new(client: Client) -> Self {
        Self {
            reviews: Api::all(client),
            kept: Mutex::default(),
            questions: Semaphore::new(MAX_QUESTIONS),
            clock: Clock::new(),
        }
    }

    fn kept<T>(&self, with: impl FnOnce(&mut Kept, Now) -> T) -> T {
        with(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner), self.clock.now())
    }

    async fn review(&self, token: &str) -> Result<Identity, Denied> {
        if !looks_like_one(token) {
            return Err(Denied::Invalid("not a service account's token".into()));
        }
        let key: Key = Sha256::digest(token).into();
        if let Some(answer) = self.kept(|kept, now| kept.get(&key, now.mono)) {
            return answer;
        }
        let unavailable = |_| Denied::Unavailable("no more tokens are reviewed".into());
        let _question = self.questions.acquire().await.map_err(unavailable)?;
        // Somebody may have asked the same meanwhile.
        if let Some(answer) = self.kept(|kept, now| kept.get(&key, now.mono)) {
            return answer;
        }
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![AUDIENCE.into()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let review = self.reviews.create(&PostParams::default(), &review).await.map_err(|error| {
            tracing::warn!(%error, "a token could not be reviewed");
            Denied::Unavailable("the API server does not review the token".into())
        })?;
        let answer = identity(review.status.unwrap_or_default());
        self.kept(|kept, now| kept.put(key, answer.clone(), now.mono));
        answer
    }
}

impl Authorise for Reviews {
    fn authorise<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, Denied>> {
        Box::pin(self.review(token))
    }
}

/// Three parts of base64url, as a JSON web token has: other text is not worth a question.
fn looks_like_one(token: &str) -> bool {
    let part = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    token.split('.').count() == 3 && token.split('.').all(part)
}

/// Who a review found, if it is a service account and the token is for us.
fn identity(status: TokenReviewStatus) -> Result<Identity, Denied> {
    let invalid = |why: &str| Denied::Invalid(why.to_owned());
    if status.authenticated != Some(true) {
        // What the API server says is of no use to the caller and may quote the token.
        return Err(invalid("the token is not valid, or not any longer"));
    }
    if !status.audiences.unwrap_or_default().iter().any(|audience| audience == AUDIENCE) {
        return Err(invalid("the token is for another audience: it must be for kubepbx"));
    }
    let user = status.user.unwrap_or_default();
    let name = user.username.unwrap_or_default();
    let parts = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let (namespace, account) = parts.ok_or_else(|| invalid("the token is not a service account's"))?;
    let pod = user.extra.and_then(|mut extra| extra.remove(POD)?.pop());
    Ok(Identity { namespace: namespace.to_owned(), account: account.to_owned(), pod })
}

/// The hash of a token: the token itself is not kept.
type Key = [u8; 32];

#[derive(Default)]
struct Kept {
    answers: HashMap<Key, (Result<Identity, Denied>, Duration)>,
}

impl Kept {
    fn get(&self, key: &Key, now: Duration) -> Option<Result<Identity, Denied>> {
        self.answers.get(key).filter(|(_, until)| now < *until).map(|(answer, _)| answer.clone())
    }

    fn put(&mut self, key: Key, answer: Result<Identity, Denied>, now: Duration) {
        let until = now + if answer.is_ok() { KEPT } else { KEPT_DENIED };
        if self.answers.len() >= MAX_KEPT {
            self.answers.retain(|_, (_, until)| now < *until);
        }
        if self.answers.len() >= MAX_KEPT {
            let first = self.answers.iter().min_by_key(|(_, (_, until))| *until).map(|(key, _)| *key);
            first.map(|key| self.answers.remove(&key));
        }
        self.answers.insert(key, (answer, until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::authentication::v1::UserInfo;

    fn status(user: &str, audience: &str, pod: Option<&str>) -> TokenReviewStatus {
        let extra = pod.map(|pod| [(POD.to_owned(), vec![pod.to_owned()])].into());
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec![audience.into()]),
            user: Some(UserInfo { username: Some(user.into()), extra, ..UserInfo::default() }),
            error: None,
        }
    }

    #[test]
    fn only_a_service_account_with_a_token_for_us_is_somebody() {
        let good = identity(status("system:serviceaccount:tel:pbx-router", AUDIENCE, Some("pbx-router-x"))).unwrap();
        let want = Identity { namespace: "tel".into(), account: "pbx-router".into(), pod: Some("pbx-router-x".into()) };
        assert_eq!(good, want);
        let unbound = identity(status("system:serviceaccount:tel:pbx-router", AUDIENCE, None)).unwrap();
        assert_eq!(unbound.pod, None);
        let refused = TokenReviewStatus { error: Some("secret".into()), ..TokenReviewStatus::default() };
        let no_audience =
            TokenReviewStatus { audiences: None, ..status("system:serviceaccount:tel:pbx-router", AUDIENCE, None) };
        for (status, why) in [
            (refused, "not valid"),
            (
                status("system:serviceaccount:tel:pbx-router", "https://kubernetes.default.svc", None),
                "another audience",
            ),
            (no_audience, "another audience"),
            (status("system:node:one", AUDIENCE, None), "not a service account"),
            (status("system:serviceaccount:tel", AUDIENCE, None), "not a service account"),
        ] {
            let Err(Denied::Invalid(said)) = identity(status) else { panic!("{why}") };
            assert!(said.contains(why) && !said.contains("secret"), "{said}");
        }
    }

    #[test]
    fn answers_are_kept_for_a_while_and_within_bounds() {
        let mut kept = Kept::default();
        let s = Duration::from_secs;
        let good = identity(status("system:serviceaccount:tel:pbx-router", AUDIENCE, None));
        let bad: Result<Identity, Denied> = Err(Denied::Invalid("no".into()));
        kept.put([1; 32], good.clone(), s(10));
        kept.put([2; 32], bad.clone(), s(10));
        assert_eq!((kept.get(&[1; 32], s(69)), kept.get(&[2; 32], s(14))), (Some(good.clone()), Some(bad.clone())));
        assert_eq!((kept.get(&[1; 32], s(70)), kept.get(&[2; 32], s(15))), (None, None));
        let key = |n: usize| Key::from(Sha256::digest(n.to_be_bytes()));
        for n in 0..3 * MAX_KEPT {
            kept.put(key(n), good.clone(), s(100) + Duration::from_millis(n as u64));
        }
        assert_eq!(kept.answers.len(), MAX_KEPT);
        assert!(kept.get(&key(3 * MAX_KEPT - 1), s(115)).is_some() && kept.get(&key(0), s(115)).is_none());
        kept.put(key(0), bad, s(1000));
        assert_eq!(kept.answers.len(), 1, "what is over makes room first");
    }

    #[test]
    fn text_that_is_no_token_is_not_asked_about() {
        assert!(looks_like_one("eyJh.eyJp.c2ln-_"));
        for text in ["", "a", "a.b", "a..c", "a.b.c.d", "a.b.c d", "a.b.ü"] {
            assert!(!looks_like_one(text), "{text}");
        }
    }
}
