//! The installation's keys of a namespace: a Secret that is made once and never deleted.

use crate::apply::text;
use crate::build::KEYS_SECRET;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, PostParams};

/// Makes it, unless somebody has.
///
/// # Errors
/// What the API server said.
pub async fn make(client: &Client, namespace: &str) -> Result<(), String> {
    let labels = [("app.kubernetes.io/name", "kubepbx"), ("app.kubernetes.io/managed-by", "kubepbx-operator")];
    let keys = runtime::keys::fresh().map_err(|error| error.to_string())?;
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(KEYS_SECRET.to_owned()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..ObjectMeta::default()
        },
        data: Some([(runtime::keys::FILE.to_owned(), ByteString(keys))].into()),
        ..Secret::default()
    };
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    match secrets.create(&PostParams::default(), &secret).await {
        Ok(_) => Ok(()),
        // Somebody was faster: theirs counts.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(text(&error)),
    }
}
