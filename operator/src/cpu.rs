//! The CPU that relays use, as the metrics API tells it: PodMetrics of `metrics.k8s.io`, which a cluster need not have.

use crate::apply::text;
use crate::observe::News;
use api::Quantity;
use contract::Service;
use futures::future::BoxFuture;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Client, Error};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often it is asked for: metrics-server itself looks every 15 seconds.
const EVERY: Duration = Duration::from_secs(20);

/// An answer that takes longer is none.
const LIMIT: Duration = Duration::from_secs(10);

/// What relays use, in billionths of a core by pod; or why nobody says so.
pub type Used = Result<BTreeMap<String, u64>, String>;

/// What is read of a PodMetrics.
#[derive(Deserialize)]
struct Measured {
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    name: String,
    usage: Usage,
}

#[derive(Deserialize)]
struct Usage {
    cpu: Option<Quantity>,
}

/// Tells what the relays of a Pbx use, now and then, until it is dropped or nobody listens.
pub async fn follow(client: Client, namespace: String, pbx: String, tell: impl Fn(News) -> BoxFuture<'static, bool>) {
    loop {
        let used = tokio::time::timeout(LIMIT, read(&client, &namespace, &pbx)).await;
        if !tell(News::Cpu(used.unwrap_or_else(|_| Err("the metrics API does not answer".into())))).await {
            return;
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn read(client: &Client, namespace: &str, pbx: &str) -> Used {
    let kind =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("metrics.k8s.io", "v1beta1", "PodMetrics"), "pods");
    let metrics: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind);
    let component = Service::Media.as_str();
    let labels = format!("app.kubernetes.io/instance={pbx},app.kubernetes.io/component={component}");
    match metrics.list(&ListParams::default().labels(&labels)).await {
        Ok(list) => Ok(list.items.into_iter().filter_map(used).collect()),
        Err(Error::Api(status)) if status.code == 404 => {
            Err("the cluster has no metrics.k8s.io, such as metrics-server".into())
        }
        Err(error) => Err(text(&error)),
    }
}

/// What a relay's pod uses: its own container, not what else is in the pod.
fn used(object: DynamicObject) -> Option<(String, u64)> {
    let Measured { containers } = serde_json::from_value(object.data).ok()?;
    let own = containers.into_iter().find(|container| container.name == Service::Media.as_str())?;
    Some((object.metadata.name?, own.usage.cpu?.nano()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    /// What an API server that answers like this has to say, and what it was asked.
    async fn asked(status: &str, kind: &str, body: &str) -> (Used, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let length = body.len();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}");
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]);
            request.lines().next().unwrap().to_owned()
        });
        let client = Client::try_from(kube::Config::new(format!("http://{address}").parse().unwrap())).unwrap();
        let (tell, mut told) = mpsc::channel(1);
        let tell = move |news| {
            let tell = tell.clone();
            async move { tell.send(news).await.is_ok() }.boxed()
        };
        let following = tokio::spawn(follow(client, "tel".into(), "pbx".into(), tell));
        let Some(News::Cpu(used)) = told.recv().await else { panic!("nothing was told") };
        following.abort();
        (used, server.await.unwrap())
    }

    #[tokio::test]
    async fn what_metrics_server_says_is_read() {
        let recorded = include_str!("../testdata/pod-metrics.json");
        let (used, request) = asked("200 OK", "application/json", recorded).await;
        let want = [("pbx-media-7c9d5c9f6-2xk9p", 70_204_612), ("pbx-media-7c9d5c9f6-q8r7z", 1_250_000_000)];
        assert_eq!(used.unwrap(), want.map(|(pod, nano)| (pod.to_owned(), nano)).into());
        assert!(request.starts_with("GET /apis/metrics.k8s.io/v1beta1/namespaces/tel/pods?"), "{request}");
        assert!(request.contains("instance%3Dpbx%2Capp.kubernetes.io%2Fcomponent%3Dmedia"), "{request}");
    }

    #[tokio::test]
    async fn a_cluster_without_metrics_says_so_and_other_errors_are_the_servers_words() {
        let (used, _) = asked("404 Not Found", "text/plain; charset=utf-8", "404 page not found\n").await;
        assert_eq!(used.unwrap_err(), "the cluster has no metrics.k8s.io, such as metrics-server");
        let message = r#"pods.metrics.k8s.io is forbidden: User \"x\" cannot list resource \"pods\""#;
        let status = format!(
            r#"{{"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "{message}", "reason": "Forbidden", "code": 403}}"#
        );
        let (used, _) = asked("403 Forbidden", "application/json", &status).await;
        let said = used.unwrap_err();
        assert!(said.starts_with("pods.metrics.k8s.io is forbidden"), "{said}");
    }
}
