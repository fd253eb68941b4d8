//! The pods' `ServiceAccount`: an identity without any right. Nodes never speak to the Kubernetes API.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::metadata;
use crate::validate::ValidCluster;

pub(super) fn build(cluster: &ValidCluster) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(cluster, cluster.key.name.clone()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
