//! The two Services: one for clients, which leads to ready pods alone, and one that names every pod, ready or
//! not, since nodes must find each other before they are ready.

use annulus_crds::v1alpha1::{ServiceType, defaults};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{metadata, pod_selector};
use crate::validate::ValidCluster;

pub(super) fn client(cluster: &ValidCluster) -> Service {
    let type_ = match cluster.service_type {
        ServiceType::ClusterIp => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
    };
    let mut metadata = metadata(cluster, cluster.key.name.clone());
    if !cluster.service_annotations.is_empty() {
        metadata.annotations = Some(cluster.service_annotations.clone());
    }
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(type_.to_owned()),
            selector: Some(pod_selector(&cluster.key.name)),
            ports: Some(client_ports(cluster)),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// Name of the headless Service.
pub(super) fn nodes_name(cluster: &ValidCluster) -> String {
    format!("{}-nodes", cluster.key.name)
}

pub(super) fn nodes(cluster: &ValidCluster) -> Service {
    Service {
        metadata: metadata(cluster, nodes_name(cluster)),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(pod_selector(&cluster.key.name)),
            ports: Some(
                client_ports(cluster)
                    .into_iter()
                    .chain([
                        port("peer", defaults::PEER_PORT),
                        port("http", defaults::HTTP_PORT),
                    ])
                    .collect(),
            ),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn client_ports(cluster: &ValidCluster) -> Vec<ServicePort> {
    let ports = cluster.tls.client_ports().into_iter();
    ports.map(|(name, number)| port(name, number)).collect()
}

fn port(name: &str, port: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: port.into(),
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::String(name.to_owned())),
        ..ServicePort::default()
    }
}
