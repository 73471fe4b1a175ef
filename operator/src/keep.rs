//! Keeps what is held in Secrets of the namespace, for the next leader; see [`crate::held`].

use crate::apply::text;
use crate::engine::Owner;
use crate::held::{Found, LABEL, Part, pack, unpack};
use crate::objects::owner_reference;
use api::Held;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use std::time::Duration;

/// How long a failure rests.
const REST: Duration = Duration::from_secs(1);

fn selector() -> ListParams {
    ListParams::default().labels(&format!("{LABEL}=held"))
}

/// What was held in a namespace. Tries until the API server answers; what cannot be read is said and is as nothing.
pub async fn load(client: &Client, namespace: &str) -> Found {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let list = loop {
        match secrets.list(&selector()).await {
            Ok(list) => break list,
            Err(error) => tracing::warn!(namespace, error = text(&error), "what was held cannot be read yet"),
        }
        tokio::time::sleep(REST).await;
    };
    match unpack(list.items.iter().filter_map(|secret| secret.data.as_ref())) {
        Ok(found) => found,
        Err(error) => {
            tracing::error!(namespace, error = format!("{error:#}"), "what was held is lost");
            // The next writing has a number that no Secret there has.
            let numbers = list.items.iter().filter_map(|s| s.metadata.name.as_ref()?.split('-').nth(2)?.parse().ok());
            Found { number: numbers.max().unwrap_or_default(), held: Held::default() }
        }
    }
}

/// Stores what is held as the writing of this number, in the name of a Pbx, and then deletes all others.
///
/// # Errors
/// Why it could not be stored, or what was there before not be deleted.
pub async fn store(client: &Client, namespace: &str, owner: &Owner, held: &Held, number: u64) -> Result<(), String> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let parts = pack(held, number).map_err(|error| format!("{error:#}"))?;
    for part in &parts {
        match secrets.create(&PostParams::default(), &secret(part, owner)).await {
            Ok(_) => {}
            // Of an attempt before, which was cut off and may have been another text.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                secrets.delete(&part.name, &DeleteParams::default()).await.map_err(|error| text(&error))?;
                secrets.create(&PostParams::default(), &secret(part, owner)).await.map_err(|error| text(&error))?;
            }
            Err(error) => return Err(text(&error)),
        }
    }
    let all = secrets.list_metadata(&selector()).await.map_err(|error| text(&error))?;
    let names = all.items.into_iter().filter_map(|secret| secret.metadata.name);
    for name in names.filter(|name| parts.iter().all(|part| part.name != *name)) {
        match secrets.delete(&name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(text(&error)),
        }
    }
    Ok(())
}

fn secret(part: &Part, owner: &Owner) -> Secret {
    let labels = [
        ("app.kubernetes.io/name", "kubepbx"),
        ("app.kubernetes.io/instance", owner.name.as_str()),
        ("app.kubernetes.io/managed-by", "kubepbx-operator"),
        (LABEL, "held"),
    ];
    Secret {
        metadata: ObjectMeta {
            name: Some(part.name.clone()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            owner_references: Some(vec![owner_reference(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(part.data.clone()),
        ..Secret::default()
    }
}
