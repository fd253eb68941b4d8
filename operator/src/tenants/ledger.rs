//! What is stored of a cluster's tenants: the document for nodes, and what only the operator must know.
//!
//! Both are in one Secret and change in one write, so that what was promised to a tenant that is deleted, or which rotation
//! was done, can't be lost apart from it.

use std::collections::BTreeMap;

use annulus_proto::tenants::{TENANTS_DOCUMENT_KEY, TenantId, TenantsDocument, TenantsError};
use annulus_ring::ClusterUid;
use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};

/// The notes' key in the Secret. Nodes don't mount it.
pub const NOTES_KEY: &str = "notes.json";

/// The document and the notes.
#[derive(Debug, Clone, PartialEq)]
pub struct Ledger {
    /// What nodes know.
    pub document: TenantsDocument,
    /// What they need not know, by tenant.
    pub notes: BTreeMap<TenantId, Note>,
}

/// What is remembered of a tenant beside the document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Note {
    /// The UID of its `CacheTenant`.
    pub uid: String,
    /// Its data is kept when that is deleted.
    pub retain: bool,
    /// The value of the annotation that asked for the last rotation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate: Option<String>,
    /// When a password was last replaced, in milliseconds since 1970.
    pub passwords_since_ms: u64,
}

impl Ledger {
    /// Without tenants.
    pub fn empty(cluster: ClusterUid) -> Self {
        Self {
            document: TenantsDocument::empty(cluster),
            notes: BTreeMap::new(),
        }
    }

    /// Reads the Secret's data; `None` if it has no document. Notes that can't be read are forgotten: they can be made
    /// again, a document can't.
    pub fn read(data: &BTreeMap<String, ByteString>) -> Result<Option<Self>, TenantsError> {
        let Some(document) = data.get(TENANTS_DOCUMENT_KEY) else {
            return Ok(None);
        };
        let document = TenantsDocument::from_json(&document.0)?;
        let notes = data
            .get(NOTES_KEY)
            .and_then(|notes| serde_json::from_slice(&notes.0).ok());
        Ok(Some(Self {
            document,
            notes: notes.unwrap_or_default(),
        }))
    }

    /// The notes as they are stored.
    pub fn notes_json(&self) -> Vec<u8> {
        // Numbers as keys and plain values always serialize.
        serde_json::to_vec(&self.notes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_reads_as_it_was_written_and_survives_spoilt_notes() {
        let mut ledger = Ledger::empty("u-1".parse().unwrap());
        ledger.document.next_id = TenantId(4);
        ledger.notes.insert(
            TenantId(3),
            Note {
                uid: "t-1".to_owned(),
                retain: true,
                rotate: Some("1".to_owned()),
                passwords_since_ms: 7,
            },
        );
        let mut data = BTreeMap::from([
            (
                TENANTS_DOCUMENT_KEY.to_owned(),
                ByteString(ledger.document.to_json()),
            ),
            (NOTES_KEY.to_owned(), ByteString(ledger.notes_json())),
        ]);
        assert_eq!(Ledger::read(&data).unwrap().as_ref(), Some(&ledger));
        data.insert(NOTES_KEY.to_owned(), ByteString(b"[".to_vec()));
        let without = Ledger {
            notes: BTreeMap::new(),
            ..ledger
        };
        assert_eq!(Ledger::read(&data).unwrap(), Some(without));
        data.insert(TENANTS_DOCUMENT_KEY.to_owned(), ByteString(b"{}".to_vec()));
        assert!(Ledger::read(&data).is_err());
        assert_eq!(Ledger::read(&BTreeMap::new()).unwrap(), None);
    }
}
