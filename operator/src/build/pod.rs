//! The pod template of a pool. It satisfies the `restricted` pod security standard.

use annulus_crds::v1alpha1::{EvictionPolicy, ImagePullPolicy, defaults};
use annulus_proto::tenants::TENANTS_DOCUMENT_KEY;
use annulus_ring::RING_DOCUMENT_KEY;
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar,
    EnvVarSource, HTTPGetAction, KeyToPath, ObjectFieldSelector, PodAffinityTerm, PodAntiAffinity,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, SeccompProfile, SecretVolumeSource, SecurityContext,
    TopologySpreadConstraint, Volume, VolumeMount, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

mod tls;

use super::{POOL_LABEL, labels, pod_selector, ring_config_map_name, selects, tenants_secret_name};
use crate::validate::{ValidCluster, ValidPool};

const CONTAINER: &str = "node";
/// The user and group of the node's image.
const USER: i64 = 65_532;
const RING_DIR: &str = "/etc/annulus/ring";
const AUTH_DIR: &str = "/etc/annulus/auth";
const TENANTS_DIR: &str = "/etc/annulus/tenants";
const DATA_DIR: &str = "/var/lib/annulus";
/// The data folder holds the last ring document alone.
const DATA_SIZE_MAX: &str = "16Mi";
/// For connections to end, and for what comes after.
const TERMINATION_GRACE_SECONDS: u64 = 15;
/// A node that was told to end gives its slots away, which takes a moment where there are copies, and stays until what
/// it has copies of has them elsewhere. That takes as long as sending them: slower than this, a second, is a sick network.
/// The rest is for the slots themselves, without copies some 5000 one by one: on a machine without a processor to spare 15 s
/// were too few. Longer than needed is no good either: Kubernetes looks at a namespace that ends again after half of this time.
const HAND_OVER_SECONDS: u64 = 30;
const HAND_OVER_BYTES_PER_SECOND: u64 = 32 << 20;
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

pub(super) fn template(cluster: &ValidCluster, pool: &ValidPool) -> PodTemplateSpec {
    let mut pod_labels = cluster.pod_labels.clone();
    pod_labels.extend(labels(&cluster.key.name));
    pod_labels.insert(POOL_LABEL.to_owned(), pool.name.clone());
    let annotations = Some(cluster.pod_annotations.clone()).filter(|annotations| !annotations.is_empty());
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(pod_labels),
            annotations,
            ..ObjectMeta::default()
        }),
        spec: Some(pod(cluster, pool)),
    }
}

fn pod(cluster: &ValidCluster, pool: &ValidPool) -> PodSpec {
    let scheduling = &cluster.scheduling;
    let mut node_selector = pool.node_selector.clone();
    if let Some(zone) = &pool.zone {
        node_selector.insert(ZONE_LABEL.to_owned(), zone.clone());
    }
    let spread = &scheduling.topology_spread_constraints;
    PodSpec {
        service_account_name: Some(cluster.key.name.clone()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: i64::try_from(TERMINATION_GRACE_SECONDS + hand_over_seconds(pool))
            .ok(),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        image_pull_secrets: some(cluster.image_pull_secrets.clone()),
        node_selector: Some(node_selector).filter(|selector| !selector.is_empty()),
        tolerations: some(scheduling.tolerations.clone()),
        affinity: Some(
            scheduling
                .affinity
                .clone()
                .unwrap_or_else(|| apart_by_host(cluster)),
        ),
        topology_spread_constraints: Some(if spread.is_empty() {
            vec![even_over_zones(cluster)]
        } else {
            spread.clone()
        }),
        priority_class_name: scheduling.priority_class_name.clone(),
        volumes: Some(volumes(cluster)),
        containers: vec![container(cluster, pool)],
        ..PodSpec::default()
    }
}

/// How long a node that is told to end may take to hand over what it has.
fn hand_over_seconds(pool: &ValidPool) -> u64 {
    HAND_OVER_SECONDS + pool.memory_limit_bytes / HAND_OVER_BYTES_PER_SECOND
}

fn container(cluster: &ValidCluster, pool: &ValidPool) -> Container {
    let pull_policy = match cluster.image_pull_policy {
        ImagePullPolicy::Always => "Always",
        ImagePullPolicy::IfNotPresent => "IfNotPresent",
        ImagePullPolicy::Never => "Never",
    };
    let mut mounts = vec![
        mount("ring", RING_DIR, true),
        mount("tenants", TENANTS_DIR, true),
        mount("data", DATA_DIR, false),
    ];
    if cluster.auth.secret().is_some() {
        mounts.push(mount("auth", AUTH_DIR, true));
    }
    mounts.extend(tls::mounts(cluster));
    Container {
        name: CONTAINER.to_owned(),
        image: Some(cluster.image.clone()),
        image_pull_policy: Some(pull_policy.to_owned()),
        args: Some(arguments(pool)),
        env: Some(environment(cluster, pool)),
        ports: Some(
            cluster
                .tls
                .client_ports()
                .into_iter()
                .chain(cluster.tls.api_ports())
                .chain([("peer", defaults::PEER_PORT), ("http", defaults::HTTP_PORT)])
                .map(|(name, number)| port(name, number))
                .collect(),
        ),
        resources: Some(pool.resources.clone()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        // A node that waits for its ring or is being filled is alive, not ready.
        startup_probe: Some(probe("/healthz", 1, 60)),
        liveness_probe: Some(probe("/healthz", 10, 6)),
        readiness_probe: Some(probe("/readyz", 1, 2)),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

fn arguments(pool: &ValidPool) -> Vec<String> {
    let hand_over_ms = (hand_over_seconds(pool) * 1000).to_string();
    vec!["serve".to_owned(), "--hand-over-ms".to_owned(), hand_over_ms]
}

fn environment(cluster: &ValidCluster, pool: &ValidPool) -> Vec<EnvVar> {
    let any = |port| format!("0.0.0.0:{port}");
    let eviction = match cluster.eviction_policy {
        EvictionPolicy::TinyLfu => "tinylfu",
        EvictionPolicy::S3Fifo => "s3fifo",
        EvictionPolicy::Lru => "lru",
        EvictionPolicy::Ttl => "ttl",
        EvictionPolicy::NoEviction => "noeviction",
    };
    let mut variables = vec![
        field("ANNULUS_NODE_ID", "metadata.name"),
        field("ANNULUS_ANNOUNCE_HOST", "status.podIP"),
        text("ANNULUS_CLUSTER_UID", cluster.uid.to_string()),
        text(
            "ANNULUS_BIND",
            if cluster.tls.has_plain_port() {
                any(defaults::CLIENT_PORT)
            } else {
                "off".to_owned()
            },
        ),
        text("ANNULUS_PEER_BIND", any(defaults::PEER_PORT)),
        text("ANNULUS_HTTP_BIND", any(defaults::HTTP_PORT)),
        text("ANNULUS_RING_FILE", format!("{RING_DIR}/{RING_DOCUMENT_KEY}")),
        text(
            "ANNULUS_TENANTS_FILE",
            format!("{TENANTS_DIR}/{TENANTS_DOCUMENT_KEY}"),
        ),
        text("ANNULUS_DATA_DIR", DATA_DIR.to_owned()),
        text("ANNULUS_EVICTION_POLICY", eviction.to_owned()),
    ];
    if cluster.tls.has_plain_port() {
        variables.push(text("ANNULUS_API_BIND", any(defaults::API_PORT)));
    }
    if cluster.auth.secret().is_some() {
        variables.push(text(
            "ANNULUS_PASSWORD_FILE",
            format!("{AUTH_DIR}/{}", defaults::AUTH_SECRET_KEY),
        ));
    }
    variables.extend(tls::variables(cluster));
    if let Some(bytes) = pool.memory_max_bytes {
        variables.push(text("ANNULUS_MAX_MEMORY", bytes.to_string()));
    }
    if let Some(threads) = cluster.threads {
        variables.push(text("ANNULUS_THREADS", threads.to_string()));
    }
    variables
}

fn volumes(cluster: &ValidCluster) -> Vec<Volume> {
    let mut volumes = vec![
        Volume {
            name: "ring".to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: ring_config_map_name(&cluster.key.name),
                optional: Some(true),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        // It may come after the pods, with the first tenant.
        secret(
            "tenants",
            tenants_secret_name(&cluster.key.name),
            TENANTS_DOCUMENT_KEY,
            Some(true),
        ),
        Volume {
            name: "data".to_owned(),
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: Some(Quantity(DATA_SIZE_MAX.to_owned())),
                medium: None,
            }),
            ..Volume::default()
        },
    ];
    if let Some(name) = cluster.auth.secret() {
        volumes.push(secret("auth", name.to_owned(), defaults::AUTH_SECRET_KEY, None));
    }
    volumes.extend(tls::volumes(cluster));
    volumes
}

/// One key of a Secret as a file.
fn secret(volume: &str, name: String, key: &str, optional: Option<bool>) -> Volume {
    Volume {
        name: volume.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(name),
            items: Some(vec![KeyToPath {
                path: key.to_owned(),
                key: key.to_owned(),
                mode: None,
            }]),
            default_mode: Some(0o440),
            optional,
        }),
        ..Volume::default()
    }
}

fn apart_by_host(cluster: &ValidCluster) -> Affinity {
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![WeightedPodAffinityTerm {
                weight: 100,
                pod_affinity_term: PodAffinityTerm {
                    topology_key: "kubernetes.io/hostname".to_owned(),
                    label_selector: Some(selects(pod_selector(&cluster.key.name))),
                    ..PodAffinityTerm::default()
                },
            }]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}

fn even_over_zones(cluster: &ValidCluster) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: ZONE_LABEL.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(selects(pod_selector(&cluster.key.name))),
        ..TopologySpreadConstraint::default()
    }
}

fn probe(path: &str, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("http".to_owned()),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(2),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn port(name: &str, port: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: port.into(),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn text(name: &str, value: String) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value),
        value_from: None,
    }
}

fn field(name: &str, path: &str) -> EnvVar {
    let source = ObjectFieldSelector {
        api_version: Some("v1".to_owned()),
        field_path: path.to_owned(),
    };
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(source),
            ..EnvVarSource::default()
        }),
    }
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
}
