//! Applying: the objects that `build` made, by server-side apply, and nothing when nothing differs.
//!
//! [`Site`] decides, [`Applier`] does. What was applied is remembered by two hashes: that of the object as it was sent, and
//! that of the fields that the API server then said are ours. Whoever changes or removes one of them takes it from us, so
//! that the second no longer agrees with what is there: that is drift, and the object is applied again. What others add is
//! theirs. After a restart everything is applied once, which writes nothing where nothing differs.
//!
//! Workloads that exist are changed one tier after the other: the next only once those before it are available.

mod live;
mod plan;

pub use live::{Live, Pods, version};
pub use plan::{Action, Done, Site, TIERS};

use crate::engine::Mark;
use crate::watch::ObjectKey;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::ApiResource;
use kube::{Client, Error};

/// The field manager of objects.
pub const MANAGER: &str = "kubepbx";

/// The field manager of replicas that are left to others.
const HANDED_OVER: &str = "kubepbx-replicas";

/// Does what a [`Site`] decides.
#[derive(Clone)]
pub struct Applier {
    client: Client,
}

impl Applier {
    /// By this API server.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    fn api(&self, namespace: &str, resource: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, resource)
    }

    /// Does one thing and says what came of it.
    pub async fn act(&self, namespace: &str, action: Action) -> Done {
        match action {
            Action::Apply { object, hash, .. } => match self.apply(namespace, &object).await {
                Ok(live) => Done::Applied { hash, live },
                Err(error) => Done::Failed(text(&error)),
            },
            Action::Delete { key, uid } => match self.delete(namespace, &key, uid).await {
                Ok(()) => Done::Deleted,
                Err(error) => Done::Failed(text(&error)),
            },
        }
    }

    async fn apply(&self, namespace: &str, object: &DynamicObject) -> Result<Live, Error> {
        let types = object.types.clone().unwrap_or_default();
        let name = object.metadata.name.clone().unwrap_or_default();
        let resource = resource(&types.kind).unwrap_or_else(|| {
            // What is not made here has a regular plural.
            let (group, version) = types.api_version.rsplit_once('/').unwrap_or(("", &types.api_version));
            ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(group, version, &types.kind))
        });
        let api = self.api(namespace, &resource);
        if types.kind == "Deployment" && object.data.pointer("/spec/replicas").is_none() {
            hand_over_replicas(&api, &name).await?;
        }
        let params = PatchParams::apply(MANAGER).force();
        let applied = api.patch(&name, &params, &Patch::Apply(object)).await?;
        Ok(Live::of(&types.kind, &applied))
    }

    async fn delete(&self, namespace: &str, key: &ObjectKey, uid: String) -> Result<(), Error> {
        let Some(resource) = resource(&key.kind) else { return Ok(()) };
        let preconditions = Preconditions { uid: Some(uid), resource_version: None };
        let params = DeleteParams::background().preconditions(preconditions);
        match self.api(namespace, &resource).delete(&key.name, &params).await {
            // Gone, or another one by now.
            Err(Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

/// What a field manager no longer says of a field that nobody else has is taken away: a Deployment whose replicas somebody
/// else counts from now on would fall to one. So they are said once more, as they are, in another name.
async fn hand_over_replicas(api: &Api<DynamicObject>, name: &str) -> Result<(), Error> {
    let there = api.get_opt(name).await?;
    let Some(replicas) = there.as_ref().and_then(|there| there.data.pointer("/spec/replicas")) else { return Ok(()) };
    let patch = serde_json::json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {"replicas": replicas},
    });
    match api.patch(name, &PatchParams::apply(HANDED_OVER), &Patch::Apply(patch)).await {
        // Another number by now: it is somebody's.
        Err(Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Marks a pod by an annotation; one that is gone needs none.
///
/// # Errors
/// What the API server said.
pub async fn mark(client: &Client, namespace: &str, pod: &str, mark: Mark) -> Result<(), String> {
    let (key, value) = mark.annotation();
    let patch = serde_json::json!({"metadata": {"annotations": {key: value}}});
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match pods.patch(pod, &params, &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(text(&error)),
    }
}

fn resource(kind: &str) -> Option<ApiResource> {
    crate::watch::made().into_iter().find(|(made, _)| *made == kind).map(|(_, resource)| resource)
}

/// An error in the API server's words alone.
pub fn text(error: &Error) -> String {
    match error {
        Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
