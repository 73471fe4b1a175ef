//! The five services and what their pods are by default.

// The schema derive repeats each struct inside a function, where `pub` reaches nobody.
#![allow(unreachable_pub)]

use contract::Service;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::exposure::{Exposure, ExposureType, MediaExposure};
use super::pods::Tier;
use crate::duration::Duration;

/// The pods of the five services. Each runs at least once; what is left out has its default.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct Services {
    /// The edge: all SIP from outside enters and leaves here.
    #[serde(default)]
    pub balancer: BalancerTier,

    /// Answers REGISTER.
    #[serde(default)]
    pub registrar: Tier,

    /// Runs the dialplan and owns the calls.
    #[serde(default)]
    pub router: Tier,

    /// Relays RTP.
    #[serde(default)]
    pub media: MediaTier,

    /// Answers calls with media of its own: prompts, tones, echo.
    #[serde(default)]
    pub conference: Tier,
}

/// The balancers' pods.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[x_kube(validation = Rule::new("self.exposure.type != 'HostNetwork' || !has(self.replicas)").message("with HostNetwork there is one balancer a node: leave replicas out and choose nodes by nodeSelector"))]
pub struct BalancerTier {
    /// What all services have.
    #[serde(flatten)]
    pub tier: Tier,

    /// How phones reach them.
    #[serde(default)]
    pub exposure: Exposure,
}

/// The relays' pods.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct MediaTier {
    /// What all services have.
    #[serde(flatten)]
    pub tier: Tier,

    /// How phones reach them.
    #[serde(default)]
    pub exposure: MediaExposure,
}

impl Services {
    /// What is said of a service's pods.
    pub fn tier(&self, service: Service) -> &Tier {
        match service {
            Service::Balancer => &self.balancer.tier,
            Service::Registrar => &self.registrar,
            Service::Router => &self.router,
            Service::Media => &self.media.tier,
            Service::Conference => &self.conference,
        }
    }

    /// How many pods a service is to have; `None`: one a node.
    pub fn replicas(&self, service: Service) -> Option<u32> {
        let default = match service {
            Service::Balancer if self.balancer.exposure.kind == ExposureType::HostNetwork => return None,
            Service::Balancer | Service::Registrar | Service::Router | Service::Media => 2,
            Service::Conference => 1,
        };
        Some(self.tier(service).replicas.unwrap_or(default))
    }

    /// How long a service's pods have to end by themselves.
    pub fn drain(&self, service: Service) -> Duration {
        let default = match service {
            Service::Registrar => 10,
            Service::Balancer | Service::Router => 60,
            Service::Media | Service::Conference => 300,
        };
        self.tier(service).drain.unwrap_or(Duration::from_secs(default))
    }
}
