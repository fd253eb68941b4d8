//! What is stored of a cluster's tenants: the document for nodes, and what only the operator must know.
//!
//! Both are in one Secret and change in one write, so that what was promised to a tenant that is deleted, or which rotation
//! was done, can't be lost apart from it.

use std::collections::BTreeMap;

use annulus_proto::tenants::{
    PasswordDigest, TENANTS_DOCUMENT_KEY, Tenant, TenantId, TenantsDocument, TenantsError,
};
use annulus_ring::ClusterUid;
use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The notes' key in the Secret. Nodes don't mount it.
pub const NOTES_KEY: &str = "notes.json";

/// Bytes of a ledger as it is stored. A Secret holds at most 1 MiB; its own fields need some of it.
pub(super) const BYTES_MAX: usize = 900_000;
/// Bytes of the document without tenants, and of what is around the notes.
pub(super) const BYTES_WITHOUT_TENANTS: usize = 1_000;
/// A password's digest in the document, with quotes and comma.
const PASSWORD_BYTES: usize = 67;
/// How many passwords a user has at most.
const PASSWORDS_MAX: usize = 2;
/// The most that a note takes, its tenant's number included, beside the UID.
const NOTE_BYTES: usize = 200;

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
    /// The wish that the last rotation fulfilled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate: Option<RotationWish>,
    /// When a password was last replaced, in milliseconds since 1970.
    pub passwords_since_ms: u64,
    /// How long the old one works beside it, as the last usable spec said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlap_ms: Option<u64>,
}

/// Which wish for new passwords: a digest of the annotation's value, since that may be longer than what can be kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RotationWish(String);

impl RotationWish {
    /// That of an annotation with that value.
    pub fn of(value: &str) -> Self {
        let mut digest = String::from(PasswordDigest(Sha256::digest(value).into()));
        digest.truncate(32);
        Self(digest)
    }
}

/// The most bytes that a tenant takes in the ledger as long as its users and their rules are these: each with two
/// passwords, so that who is in can always have new ones.
pub(super) fn bytes_of(tenant: &Tenant, note: &Note) -> usize {
    let lacking = tenant
        .users
        .iter()
        .map(|user| PASSWORDS_MAX.saturating_sub(user.passwords.len()));
    // Numbers, texts and lists always serialize.
    let document = serde_json::to_vec(tenant).map_or(0, |json| json.len() + 1);
    document + lacking.sum::<usize>() * PASSWORD_BYTES + NOTE_BYTES + note.uid.len()
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
                rotate: Some(RotationWish::of("1")),
                passwords_since_ms: 7,
                overlap_ms: None,
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

    #[test]
    fn no_ledger_takes_more_bytes_than_were_counted() {
        let user = |number: u32| annulus_proto::tenants::User {
            name: format!("n.t.{number}"),
            passwords: vec![PasswordDigest([255; 32]); 2],
            rules: vec!["+@all".to_owned(); 3],
        };
        let mut ledger = Ledger::empty("u".repeat(36).parse().unwrap());
        ledger.document.version = u64::MAX;
        ledger.document.next_id = TenantId(u32::MAX);
        let mut counted = BYTES_WITHOUT_TENANTS;
        for id in u32::MAX - 40..u32::MAX {
            let tenant = Tenant {
                id: TenantId(id),
                namespace: "n".to_owned(),
                name: format!("t{id}"),
                quota: annulus_proto::tenants::Quota::default(),
                ttl: annulus_proto::tenants::TtlBounds::default(),
                users: (0..3).map(user).collect(),
            };
            let note = Note {
                uid: "t".repeat(36),
                retain: false,
                rotate: Some(RotationWish::of(&"1".repeat(200_000))),
                passwords_since_ms: u64::MAX,
                overlap_ms: Some(u64::MAX),
            };
            let bytes = bytes_of(&tenant, &note);
            counted += bytes;
            let mut with_one = tenant.clone();
            with_one
                .users
                .iter_mut()
                .for_each(|user| user.passwords.truncate(1));
            assert_eq!(
                bytes_of(
                    &with_one,
                    &Note {
                        uid: note.uid.clone(),
                        ..Note::default()
                    }
                ),
                bytes
            );
            ledger.document.tenants.push(tenant);
            ledger.notes.insert(TenantId(id), note);
        }
        assert!(ledger.document.to_json().len() + ledger.notes_json().len() <= counted);
    }
}
