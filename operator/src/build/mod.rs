//! What a `Pbx` is in the cluster: its spec and a few facts in, objects out. Pure.
//!
//! A pod's template holds only what a process reads once, at its start; domains, realm, endpoints and all else that
//! processes follow by stream is not in it, so that a change of these restarts nobody.

mod network;
mod pods;
mod policies;
mod virtual_ip;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::{ExposureType, MediaExposureType, PbxSpec, SecretRef};
use contract::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::core::{DynamicObject, TypeMeta};
use serde_json::{Value, json};

pub use network::own_hosts;

/// The five services, in the order in which objects are given.
const SERVICES: [Service; 5] =
    [Service::Registrar, Service::Conference, Service::Media, Service::Router, Service::Balancer];

/// The Secret of the installation's keys.
pub const KEYS_SECRET: &str = "kubepbx-keys";
/// The ConfigMap of the certificates that the operator is known by.
pub const CA_CONFIG_MAP: &str = "kubepbx-ca";
/// For whom the tokens of the services are.
pub const AUDIENCE: &str = "kubepbx";
/// The TCP port of inside hops of pods that have an address of their own.
pub(crate) const INSIDE: u16 = 7000;
/// The UDP port of NG of pods that have an address of their own.
pub(crate) const NG: u16 = 2223;
/// The TCP port of probes and metrics of pods that have an address of their own.
pub(crate) const PROBES: u16 = 9090;

/// A `Pbx` and what the operator knows beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct Installation {
    /// The namespace.
    pub namespace: String,
    /// metadata.name of the `Pbx`, the first part of all names.
    pub name: String,
    /// metadata.uid of the `Pbx`, which owns all that is built.
    pub uid: String,
    /// Its spec, defaults filled in.
    pub spec: PbxSpec,
    /// What the operator was given at its start.
    pub defaults: Defaults,
    /// What was seen in the cluster.
    pub facts: Facts,
}

/// What holds where a `Pbx` says nothing: flags of the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// Registry and path of images: `docker.io/kubepbx`.
    pub registry: String,
    /// Their tag.
    pub tag: String,
    /// When nodes pull them: IfNotPresent, Always or Never.
    pub pull_policy: String,
    /// Where services reach the operator: `https://kubepbx-operator.NAMESPACE.svc:8443`.
    pub operator_url: String,
    /// The operator's namespace.
    pub operator_namespace: String,
    /// The store's URL: a Secret of the namespace of the `Pbx`.
    pub store: SecretRef,
}

/// What was seen in the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The addresses of nodes where a service's pods are on HostNetwork (`status.hostIP` of its pods). A node stays among
    /// them while its pod is only being replaced.
    pub nodes: BTreeMap<Service, BTreeSet<IpAddr>>,
    /// With LoadBalancer, the address or name that the Service was given.
    pub ingress: Option<String>,
    /// How many relays the operator's autoscaling has decided for. None: it has not yet.
    pub relays: Option<u32>,
    /// The TCP port of the store's URL. None: 6379.
    pub store_port: Option<u16>,
}

/// The objects of a `Pbx`, those first that others need.
pub fn build(pbx: &Installation) -> Vec<DynamicObject> {
    let mut objects: Vec<DynamicObject> = SERVICES.iter().map(|service| pods::account(pbx, *service)).collect();
    objects.extend(network::service(pbx));
    objects.extend(virtual_ip::config(pbx));
    objects.extend(SERVICES.iter().filter_map(|service| policies::policy(pbx, *service)));
    objects.extend(SERVICES.iter().filter_map(|service| workloads::budget(pbx, *service)));
    objects.extend(SERVICES.iter().map(|service| workloads::workload(pbx, *service)));
    objects
}

impl Installation {
    /// What the objects of a service are called.
    pub(crate) fn of(&self, service: Service) -> String {
        format!("{}-{}", self.name, service.as_str())
    }

    /// Whether the pods of a service are on the addresses of their nodes.
    pub(crate) fn on_host(&self, service: Service) -> bool {
        match service {
            Service::Balancer => self.spec.services.balancer.exposure.kind == ExposureType::HostNetwork,
            Service::Media => self.spec.services.media.exposure.kind == MediaExposureType::HostNetwork,
            Service::Registrar | Service::Router | Service::Conference => false,
        }
    }

    /// The image of a program.
    fn image(&self, program: &str) -> String {
        let image = &self.spec.image;
        let registry = image.registry.as_ref().unwrap_or(&self.defaults.registry);
        format!("{registry}/{program}:{}", image.tag.as_ref().unwrap_or(&self.defaults.tag))
    }

    /// The labels by which the pods of a service are found; they never change.
    fn selector(&self, service: Service) -> Value {
        json!({
            "app.kubernetes.io/name": "kubepbx",
            "app.kubernetes.io/instance": self.name,
            "app.kubernetes.io/component": service.as_str(),
        })
    }

    /// The labels of all that is built; `service` where it belongs to one.
    fn labels(&self, service: Option<Service>) -> BTreeMap<String, String> {
        let component = service.map(|service| ("component", service.as_str()));
        [("name", "kubepbx"), ("instance", &self.name), ("managed-by", "kubepbx-operator")]
            .into_iter()
            .chain(component)
            .map(|(key, value)| (format!("app.kubernetes.io/{key}"), value.to_owned()))
            .collect()
    }

    /// An object of this `Pbx`. `rest` is an object with all but apiVersion, kind and metadata.
    fn object(
        &self,
        api_version: &str,
        kind: &str,
        name: String,
        service: Option<Service>,
        rest: Value,
    ) -> DynamicObject {
        let owner = OwnerReference {
            api_version: api::crds::API_VERSION.into(),
            kind: "Pbx".into(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: None,
        };
        DynamicObject {
            types: Some(TypeMeta { api_version: api_version.into(), kind: kind.into() }),
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(self.namespace.clone()),
                labels: Some(self.labels(service)),
                owner_references: Some(vec![owner]),
                ..ObjectMeta::default()
            },
            data: rest,
        }
    }
}

#[cfg(test)]
mod tests;
