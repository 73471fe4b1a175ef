//! `Programmed` says what is live, and where not.

use crate::calls::{first_call_example, first_call_is, talk};
use anyhow::{Context, Result, ensure};
use cluster_tests::Space;
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);

/// A process that is frozen keeps what was changed meanwhile at False, by its pod's name, and only that.
#[test]
fn a_frozen_process_is_named_until_it_has_caught_up() -> Result<()> {
    Space::test("frozen", |space| {
        first_call_example(space)?;
        let pod = space.pods("router")?.into_iter().next().context("no router")?;
        space.signal(&pod, "STOP")?;
        let changed = space.patch(
            "Dialplan",
            "from-external",
            json!({"spec": {"extensions": [
                {"pattern": "_80XX", "steps": [{"answer": {}}, {"dial": {"to": ["PJSIP/${EXTEN}"]}}]}
            ]}}),
        );
        let named = changed.and_then(|_| {
            space.until("Dialplan", "from-external", "Programmed=False with the pod's name", SOON, |dialplan| {
                let condition = dialplan.condition("Programmed");
                let message = condition.and_then(|c| c["message"].as_str()).unwrap_or_default();
                dialplan.is("Programmed", "False") && message.contains(pod.name())
            })
        });
        let other = space.get("PbxEndpoint", "8005");
        space.signal(&pod, "CONT")?;
        named?;
        ensure!(
            other?.is_some_and(|endpoint| endpoint.is("Programmed", "True")),
            "what was not changed is no longer live"
        );
        space.wait("Dialplan", "from-external", "Programmed", SOON)?;
        talk(space, "1")
    })
}

/// Where no node will have any of a PBX's pods, nothing is live, and it says for want of whose; once there are some, it is.
#[test]
fn no_pod_at_all() -> Result<()> {
    Space::test("no-pod", |space| {
        // Helm would wait for the chart's Pbx, which is not to be ready yet.
        space.helm("install", &["pbx: {create: false}".into()])?;
        let listener = |transport: &str| json!({"transport": transport, "port": space.port});
        let mut pbx = json!({
            "apiVersion": "kubepbx.io/v1alpha1", "kind": "Pbx", "metadata": {"name": "pbx"},
            "spec": {"realm": "kubepbx", "listeners": [listener("UDP"), listener("TCP")]},
        });
        for service in ["balancer", "registrar", "router", "media", "conference"] {
            pbx["spec"]["services"][service]["nodeSelector"] = json!({"kubepbx.io/e2e": "nowhere"});
        }
        space.apply_object(&pbx)?;
        space.apply_path("examples/first-call")?;
        // A DaemonSet that fits no node is to have no pods: balancers are not waited for.
        for (kind, name, without) in [
            ("PbxEndpoint", "8005", "registrar, router"),
            ("PbxEndpoint", "8006", "registrar, router"),
            ("Dialplan", "from-external", "router"),
            ("Pbx", "pbx", "registrar, router, media, conference"),
        ] {
            let message = format!("no pod is ready: {without}");
            space.until(kind, name, &format!("Programmed=False/NoPods {message:?}"), SOON * 4, |object| {
                object.condition("Programmed").is_some_and(|condition| {
                    condition["status"] == "False" && condition["reason"] == "NoPods" && condition["message"] == message
                })
            })?;
        }
        for service in ["registrar", "router", "media", "conference"] {
            let running = space.pods(service)?.iter().filter(|pod| !pod.0["spec"]["nodeName"].is_null()).count();
            ensure!(running == 0, "{running} pods of {service} have a node");
        }
        pbx["spec"].as_object_mut().context("spec")?.remove("services");
        space.apply_object(&pbx)?;
        space.wait("Pbx", "pbx", "Ready", Duration::from_secs(120))?;
        first_call_is(space, "Programmed", SOON)?;
        talk(space, "1")
    })
}
