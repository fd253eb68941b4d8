//! The ConfigMap `<cluster>-ring`. Its document is written by the ring step alone, against the resourceVersion;
//! what is built here is the place for it, so that labels and ownership are repaired without touching data.

use std::collections::BTreeMap;

use annulus_ring::{RING_DOCUMENT_KEY, RingDocument};
use k8s_openapi::api::core::v1::ConfigMap;

use super::{metadata, ring_config_map_name};
use crate::validate::ValidCluster;

pub(super) fn empty(cluster: &ValidCluster) -> ConfigMap {
    ConfigMap {
        metadata: metadata(cluster, ring_config_map_name(&cluster.key.name)),
        ..ConfigMap::default()
    }
}

/// The ConfigMap with the document, to create it where it is missing.
pub fn with_document(cluster: &ValidCluster, document: &RingDocument) -> ConfigMap {
    let mut config_map = empty(cluster);
    set_document(&mut config_map, document);
    config_map
}

/// Puts the document in, whatever was there.
pub fn set_document(config_map: &mut ConfigMap, document: &RingDocument) {
    config_map.binary_data = None;
    config_map.data = Some(BTreeMap::from([(
        RING_DOCUMENT_KEY.to_owned(),
        document.to_json(),
    )]));
}
