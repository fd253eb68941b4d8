//! The Secret `<cluster>-tenants`: the tenants document, which nodes mount, and the operator's notes beside it. It is written
//! by the tenants' controller alone, against the resourceVersion, so that both change together or not at all.

use annulus_proto::tenants::TENANTS_DOCUMENT_KEY;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::{metadata, tenants_secret_name};
use crate::tenants::ledger::{Ledger, NOTES_KEY};
use crate::validate::ValidCluster;

/// The Secret with the ledger, to create it where it is missing.
pub fn build(cluster: &ValidCluster, ledger: &Ledger) -> Secret {
    let mut secret = Secret {
        metadata: metadata(cluster, tenants_secret_name(&cluster.key.name)),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    };
    set_ledger(&mut secret, ledger);
    secret
}

/// Puts the ledger in, whatever was there.
pub fn set_ledger(secret: &mut Secret, ledger: &Ledger) {
    let entries = [
        (TENANTS_DOCUMENT_KEY, ledger.document.to_json()),
        (NOTES_KEY, ledger.notes_json()),
    ];
    secret.data = Some(
        entries
            .into_iter()
            .map(|(key, value)| (key.to_owned(), ByteString(value)))
            .collect(),
    );
}
