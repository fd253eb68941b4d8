//! Who may talk to a cluster's pods, and to whom they may talk, where the network plugin enforces it.
//!
//! | port | from |
//! | --- | --- |
//! | client, with TLS and without | pods of the cluster's namespace and of those with a bound tenant; with `tenancy.networkPolicy: Allowed` of all that may have one; everybody with `Open`, or when the Service reaches outside; operators, which see whether clients get through |
//! | peer | the cluster's own pods, and operators |
//! | http (health, metrics) | pods of the cluster's namespace and of those that `tenancy.metricsFrom` names, since metrics tell of all tenants; operators; everybody with `Open` |
//!
//! Nodes themselves open connections to their peers and to DNS, and to the origins of groups. Namespaces with a bound tenant
//! are in a policy of their own, `<cluster>-tenants`, and origins in `<cluster>-groups`, so that each is written by one
//! controller: policies add up.

use std::collections::BTreeSet;

use annulus_crds::v1alpha1::{AllowedNamespaces, NamespacesFrom, NetworkPolicyMode, ServiceType, defaults};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{metadata, pod_selector, selects};
use crate::groups::origin::Destinations;
use crate::validate::ValidCluster;

const DNS_PORT: u16 = 53;
/// Labels of the operator's pods, as the chart gives them.
const OPERATOR_LABELS: [(&str, &str); 2] = [
    ("app.kubernetes.io/name", "annulus"),
    ("app.kubernetes.io/component", "operator"),
];
/// Every namespace has its name as this label.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

pub(super) fn build(cluster: &ValidCluster) -> NetworkPolicy {
    let own = || NetworkPolicyPeer {
        pod_selector: Some(selects(pod_selector(&cluster.key.name))),
        ..NetworkPolicyPeer::default()
    };
    let from =
        |ports: Vec<NetworkPolicyPort>, from: Option<Vec<NetworkPolicyPeer>>| NetworkPolicyIngressRule {
            ports: Some(ports),
            from,
        };
    NetworkPolicy {
        // Not the cluster's own name, which a policy of its users may have.
        metadata: metadata(cluster, format!("{}-annulus", cluster.key.name)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selects(pod_selector(&cluster.key.name))),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(vec![
                from(
                    client_ports(cluster),
                    clients(cluster).map(|mut peers| {
                        peers.push(operators(cluster.operator_namespace.as_deref()));
                        peers
                    }),
                ),
                from(
                    vec![port("TCP", defaults::PEER_PORT)],
                    Some(vec![own(), operators(cluster.operator_namespace.as_deref())]),
                ),
                from(vec![port("TCP", defaults::HTTP_PORT)], scrapers(cluster)),
            ]),
            egress: Some(vec![
                NetworkPolicyEgressRule {
                    ports: Some(vec![port("TCP", defaults::PEER_PORT)]),
                    to: Some(vec![own()]),
                },
                NetworkPolicyEgressRule {
                    ports: Some(vec![port("UDP", DNS_PORT), port("TCP", DNS_PORT)]),
                    to: None,
                },
            ]),
        }),
    }
}

/// Name of the policy that admits tenants.
pub fn tenants_name(cluster: &str) -> String {
    format!("{cluster}-tenants")
}

/// Admits the pods of namespaces that have a bound tenant; nobody's where there are none.
pub fn for_tenants(cluster: &ValidCluster, namespaces: &BTreeSet<String>) -> NetworkPolicy {
    let bound = LabelSelectorRequirement {
        key: NAMESPACE_LABEL.to_owned(),
        operator: "In".to_owned(),
        values: Some(namespaces.iter().cloned().collect()),
    };
    let rule = NetworkPolicyIngressRule {
        ports: Some(client_ports(cluster)),
        from: Some(vec![pods_of(Some(LabelSelector {
            match_expressions: Some(vec![bound]),
            match_labels: None,
        }))]),
    };
    NetworkPolicy {
        metadata: metadata(cluster, tenants_name(&cluster.key.name)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selects(pod_selector(&cluster.key.name))),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(if namespaces.is_empty() {
                Vec::new()
            } else {
                vec![rule]
            }),
            egress: None,
        }),
    }
}

/// Name of the policy that lets nodes connect to origins.
pub fn groups_name(cluster: &str) -> String {
    format!("{cluster}-groups")
}

/// Lets nodes connect to where groups have their values from; nowhere where there are none.
pub fn for_groups(cluster: &ValidCluster, destinations: &Destinations) -> NetworkPolicy {
    let mut egress = Vec::new();
    if !destinations.namespaces.is_empty() {
        let named = LabelSelectorRequirement {
            key: NAMESPACE_LABEL.to_owned(),
            operator: "In".to_owned(),
            values: Some(destinations.namespaces.iter().cloned().collect()),
        };
        egress.push(NetworkPolicyEgressRule {
            ports: None,
            to: Some(vec![pods_of(Some(LabelSelector {
                match_expressions: Some(vec![named]),
                match_labels: None,
            }))]),
        });
    }
    if !destinations.ports.is_empty() {
        let ports = destinations.ports.iter();
        egress.push(NetworkPolicyEgressRule {
            ports: Some(ports.map(|number| port("TCP", *number)).collect()),
            to: None,
        });
    }
    NetworkPolicy {
        metadata: metadata(cluster, groups_name(&cluster.key.name)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selects(pod_selector(&cluster.key.name))),
            policy_types: Some(vec!["Egress".to_owned()]),
            ingress: None,
            egress: Some(egress),
        }),
    }
}

fn client_ports(cluster: &ValidCluster) -> Vec<NetworkPolicyPort> {
    let ports = cluster
        .tls
        .client_ports()
        .into_iter()
        .chain(cluster.tls.api_ports());
    ports.map(|(_, number)| port("TCP", number)).collect()
}

fn pods_of(namespaces: Option<LabelSelector>) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        pod_selector: Some(LabelSelector::default()),
        namespace_selector: namespaces,
        ip_block: None,
    }
}

/// Where readers of metrics may be; `None` for anywhere.
fn scrapers(cluster: &ValidCluster) -> Option<Vec<NetworkPolicyPeer>> {
    let tenancy = &cluster.tenancy;
    if tenancy.network_policy == NetworkPolicyMode::Open {
        return None;
    }
    let chosen = tenancy.metrics_from.clone();
    let chosen = chosen.unwrap_or_else(|| named(defaults::MONITORING_NAMESPACE));
    Some(vec![
        pods_of(None),
        pods_of(Some(chosen)),
        operators(cluster.operator_namespace.as_deref()),
    ])
}

/// The namespace of that name.
fn named(namespace: &str) -> LabelSelector {
    selects([(NAMESPACE_LABEL.to_owned(), namespace.to_owned())].into())
}

/// Where clients may be; `None` for anywhere.
fn clients(cluster: &ValidCluster) -> Option<Vec<NetworkPolicyPeer>> {
    let tenancy = &cluster.tenancy;
    if cluster.service_type != ServiceType::ClusterIp || tenancy.network_policy == NetworkPolicyMode::Open {
        return None;
    }
    let mut peers = vec![pods_of(None)];
    if tenancy.network_policy == NetworkPolicyMode::Enforce {
        return Some(peers);
    }
    match &tenancy.allowed_namespaces {
        AllowedNamespaces {
            from: NamespacesFrom::Same,
            ..
        } => {}
        AllowedNamespaces {
            from: NamespacesFrom::All,
            ..
        } => return None,
        AllowedNamespaces {
            from: NamespacesFrom::Selector,
            selector,
        } => peers.push(pods_of(selector.clone())),
    }
    Some(peers)
}

/// The operator's pods: those of its namespace, where that is known.
fn operators(namespace: Option<&str>) -> NetworkPolicyPeer {
    let labels = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter();
        selects(
            pairs
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        )
    };
    NetworkPolicyPeer {
        pod_selector: Some(labels(&OPERATOR_LABELS)),
        namespace_selector: Some(match namespace {
            Some(namespace) => named(namespace),
            None => LabelSelector::default(),
        }),
        ip_block: None,
    }
}

fn port(protocol: &str, port: u16) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: Some(IntOrString::Int(port.into())),
        end_port: None,
    }
}
