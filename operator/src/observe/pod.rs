//! A pod as the pure steps see it.

use annulus_ring::Zone;
use k8s_openapi::api::core::v1::{Pod, PodStatus, Service};

use crate::validate::{PLAIN_PORT, TLS_PORT};
use crate::view::{ClientPorts, PodView};

/// Longest trouble that is told.
const TROUBLE_CHARS_MAX: usize = 240;
/// Set by the StatefulSet controller: the revision of the template that a pod was made from.
const REVISION_LABEL: &str = "controller-revision-hash";

pub(super) fn view(pod: &Pod, service: Option<&Service>, zone: Option<Zone>) -> PodView {
    let status = pod.status.as_ref();
    let labels = pod.metadata.labels.as_ref();
    PodView {
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        ip: status.and_then(|status| status.pod_ip.as_deref()?.parse().ok()),
        service_ip: service.and_then(|service| service.spec.as_ref()?.cluster_ip.as_deref()?.parse().ok()),
        service_open: false,
        zone,
        ready: status.is_some_and(|status| condition(status, "Ready").is_some_and(|(holds, _)| holds)),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        revision: labels.and_then(|labels| labels.get(REVISION_LABEL)).cloned(),
        trouble: status.and_then(trouble),
        ports: ports(pod),
    }
}

fn ports(pod: &Pod) -> ClientPorts {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let names: Vec<&str> = ports.filter_map(|port| port.name.as_deref()).collect();
    let tls = names.contains(&TLS_PORT);
    ClientPorts {
        plain: names.contains(&PLAIN_PORT) || !tls,
        tls,
    }
}

fn condition<'a>(status: &'a PodStatus, type_: &str) -> Option<(bool, Option<&'a str>)> {
    let condition = status
        .conditions
        .as_ref()?
        .iter()
        .find(|condition| condition.type_ == type_)?;
    Some((condition.status == "True", condition.message.as_deref()))
}

/// Why the pod does not run. Said in a way that stays the same while the cause does: kubelet alternates between
/// reasons, and counts seconds in messages, and each change would be a write.
fn trouble(status: &PodStatus) -> Option<String> {
    if let Some((false, message)) = condition(status, "PodScheduled") {
        return Some(shorten(&format!(
            "can't be scheduled: {}",
            message.unwrap_or("no reason given")
        )));
    }
    let container = status.container_statuses.as_ref()?.first()?;
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    Some(match waiting.reason.as_deref()? {
        "ContainerCreating" | "PodInitializing" => return None,
        "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" => {
            shorten(&format!("can't pull image {}", container.image))
        }
        "CrashLoopBackOff" => "crashes again and again, see kubectl logs --previous".to_owned(),
        "CreateContainerConfigError" => shorten(&format!(
            "can't be started: {}",
            waiting.message.as_deref().unwrap_or("no reason given")
        )),
        other => other.to_owned(),
    })
}

fn shorten(text: &str) -> String {
    text.chars().take(TROUBLE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What the cache keeps of a pod is enough.
    #[test]
    fn a_pod_tells_its_ports() {
        for (names, plain, tls) in [
            (vec!["client", "peer"], true, false),
            (vec!["client-tls", "peer"], false, true),
            (vec!["client", "client-tls"], true, true),
            (vec![], true, false),
        ] {
            let ports: Vec<_> = names
                .iter()
                .map(|name| json!({"name": name, "containerPort": 1}))
                .collect();
            let spec = json!({"nodeName": "node-1", "containers": [{"name": "node", "ports": ports}]});
            let mut pod: Pod =
                serde_json::from_value(json!({"metadata": {"name": "c-0"}, "spec": spec})).unwrap();
            crate::caches::slim_pod(&mut pod);
            let found = view(&pod, None, None).ports;
            assert_eq!((found.plain, found.tls), (plain, tls), "{names:?}");
        }
    }

    #[test]
    fn trouble_is_told_in_stable_words() {
        let waiting = |reason: &str, message: &str| {
            json!({"containerStatuses": [{"name": "node", "image": "x:1", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": reason, "message": message}}}]})
        };
        let rows = [
            (waiting("ContainerCreating", ""), None),
            (
                waiting("ErrImagePull", "rpc error 1"),
                Some("can't pull image x:1"),
            ),
            (
                waiting("ImagePullBackOff", "Back-off pulling"),
                Some("can't pull image x:1"),
            ),
            (
                waiting("CrashLoopBackOff", "back-off 20s"),
                Some("crashes again and again, see kubectl logs --previous"),
            ),
            (
                json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]}),
                Some("can't be scheduled: 0/1 nodes"),
            ),
            (
                json!({"conditions": [{"type": "PodScheduled", "status": "True"}]}),
                None,
            ),
        ];
        for (status, expected) in rows {
            let pod: Pod =
                serde_json::from_value(json!({"metadata": {"name": "c-0"}, "status": status})).unwrap();
            assert_eq!(view(&pod, None, None).trouble.as_deref(), expected, "{status}");
        }
    }
}
