//! The Services: one for clients, which leads to ready pods alone; one that names every pod, ready or not, since
//! nodes must find each other before they are ready; and one for each pod, which cluster clients are sent to.
//!
//! Some clients ask any address that they knew in the last minute for the ring, go-redis among them, and wait for
//! seconds for one that is gone. The address of a Service is still there, and refuses at once.

use std::collections::BTreeMap;

use annulus_crds::v1alpha1::{NodeAddresses, ServiceType, defaults};
use annulus_ring::NodeId;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{NODE_LABEL, metadata, pod_selector};
use crate::plan::PoolPlan;
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
            ports: Some(
                client_ports(cluster)
                    .into_iter()
                    .chain(api_ports(cluster))
                    .collect(),
            ),
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
                    .chain(api_ports(cluster))
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

/// Label of a pod, by its StatefulSet's controller: its name.
const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";

/// Name of the Service of that node. It is not the pod's name, which another cluster may have.
pub fn node_name(node: &NodeId) -> String {
    format!("{node}-node")
}

pub(super) fn of_each_node(cluster: &ValidCluster, pools: &[PoolPlan]) -> Vec<Service> {
    if cluster.node_addresses == NodeAddresses::Pod {
        return Vec::new();
    }
    let nodes = pools.iter().flat_map(|plan| plan.pool.first_nodes(plan.replicas));
    nodes.map(|node| of_node(cluster, &node)).collect()
}

fn of_node(cluster: &ValidCluster, node: &NodeId) -> Service {
    let mut metadata = metadata(cluster, node_name(node));
    if let Some(labels) = &mut metadata.labels {
        labels.insert(NODE_LABEL.to_owned(), node.to_string());
    }
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            // A node that is told to end sends its clients on to others, though it is not ready any more.
            publish_not_ready_addresses: Some(true),
            selector: Some(BTreeMap::from([(POD_NAME_LABEL.to_owned(), node.to_string())])),
            ports: Some(client_ports(cluster)),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn client_ports(cluster: &ValidCluster) -> Vec<ServicePort> {
    let ports = cluster.tls.client_ports().into_iter();
    ports.map(|(name, number)| port(name, number)).collect()
}

fn api_ports(cluster: &ValidCluster) -> Vec<ServicePort> {
    let ports = cluster.tls.api_ports().into_iter();
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
