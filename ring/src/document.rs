//! The ring document: the one thing that operator and nodes agree about.
//!
//! A [`RingDocument`] that came through [`RingDocument::from_json`] is valid: every slot has one owner, every
//! token and handoff names a member, a handoff moves slots away from their owner. It is JSON in camelCase;
//! fields that a later version adds are ignored, so that nodes and operator can be upgraded in any order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    ClusterUid, Epoch, HashRing, Incarnation, NodeId, RingError, Slot, SlotRange, SlotSet, Weight, Zone,
};

/// The document's key in the ConfigMap `<cluster>-ring`, and its file name where that is mounted.
pub const RING_DOCUMENT_KEY: &str = "ring.json";

/// What is wrong with a ring document.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is not JSON of the right shape.
    #[error("the ring document cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// Two documents, or a document and a node, belong to different clusters.
    #[error("the ring document belongs to cluster {found}, not to {expected}")]
    OtherCluster {
        /// The cluster that was expected.
        expected: ClusterUid,
        /// The document's.
        found: ClusterUid,
    },
    /// Epochs start at 1.
    #[error("epoch 0 means that there is no ring, a document's epoch is at least 1")]
    NoEpoch,
    /// One copy is the least.
    #[error("replicationFactor must be at least 1, the owner's own copy")]
    NoCopies,
    /// Members are in strict order, so that there is one way to write a document down.
    #[error("members must be sorted by id and named once, {0} is out of place")]
    MembersOutOfOrder(NodeId),
    /// One life of a process is one member.
    #[error("{first} and {second} have the same incarnation, each process draws its own")]
    SharedIncarnation {
        /// The first by name.
        first: NodeId,
        /// The other.
        second: NodeId,
    },
    /// A member without a host can't be reached.
    #[error("{0} has no host, write its IP address or name")]
    NoHost(NodeId),
    /// A token or handoff of somebody who is not in the document.
    #[error("{what} name {id}, which is not a member")]
    NotAMember {
        /// Where the name stands.
        what: &'static str,
        /// The name.
        id: NodeId,
    },
    /// The tokens contradict one another.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A ring is complete.
    #[error("no member has a token, so nobody owns any slot")]
    NobodyOwns,
    /// A handoff that moves nothing.
    #[error("the handoff of slots {slots} goes from {id} to itself")]
    HandoffToItself {
        /// Its slots.
        slots: SlotRange,
        /// Both ends of it.
        id: NodeId,
    },
    /// A member does not hold a copy beside itself.
    #[error("replicas say that {id} has a copy of slot {slot}, which it owns")]
    ReplicaOfItself {
        /// The member.
        id: NodeId,
        /// A slot that it owns.
        slot: Slot,
    },
    /// Only the owner can hand over.
    #[error("the handoff of slots {slots} is from {from}, which does not own all of them")]
    HandoffFromStranger {
        /// Its slots.
        slots: SlotRange,
        /// Its source.
        from: NodeId,
    },
    /// One slot in two handoffs.
    #[error("slot {0} is in more than one handoff")]
    HandoffsOverlap(Slot),
}

/// The whole ring at one epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RingDocument {
    /// Whose ring this is.
    pub cluster_uid: ClusterUid,
    /// Its version, at least 1.
    pub epoch: Epoch,
    /// How many copies of each slot there are to be, the owner's included; at least 1.
    pub replication_factor: u8,
    /// What members follow while they run.
    #[serde(default, skip_serializing_if = "RingSettings::are_default")]
    pub settings: RingSettings,
    /// Everyone who takes part, sorted by id.
    pub members: Vec<Member>,
    /// The tokens of each member that has some; all together they give every slot an owner.
    pub tokens: BTreeMap<NodeId, Vec<Slot>>,
    /// The slots of which each member has a whole copy, beside the owner: every write that was acknowledged is in
    /// it, since owners acknowledge none without it. Members without any are left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub replicas: BTreeMap<NodeId, SlotSet>,
    /// Slots that are to leave their owner at this epoch; no slot is in two.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handoffs: Vec<Handoff>,
}

/// What all members follow alike, and what can change while they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RingSettings {
    /// How many copies beside the owner's must have a write before it is acknowledged; with 0, none is waited for.
    pub acks: u8,
    /// How many bytes of entries a member sends a second, to fill copies and to hand slots over; 0 is without a limit.
    pub transfer_bytes_per_second: u64,
    /// How old a copy may be at most that is read by clients which asked for that, in milliseconds; 0 is however old.
    pub copy_staleness_max_ms: u64,
    /// A member mirrors keys of others' slots that it is asked for so often by clients that take old values; 0 is never.
    pub mirror_reads_per_second: u64,
    /// So long after it has asked a key's owner a member serves what it was told, in milliseconds.
    pub mirror_staleness_max_ms: u64,
}

impl RingSettings {
    fn are_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One member of the ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Its stable name.
    pub id: NodeId,
    /// The one life of its process that this document speaks of; another life serves nothing.
    pub incarnation: Incarnation,
    /// Where it is.
    pub address: Address,
    /// Its failure domain, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Zone>,
    /// Its share relative to the others'.
    pub weight: Weight,
    /// What it is here for.
    pub state: MemberState,
}

/// Where a member is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// An IP address or a name, without a port.
    pub host: String,
    /// The same for clients, where they are to use another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_host: Option<String>,
    /// For clients without TLS; 0 for a member that takes none.
    pub client_port: u16,
    /// For clients with TLS, where there is such a port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_tls_port: Option<u16>,
    /// For the other members and the operator.
    pub peer_port: u16,
}

impl Address {
    /// The host that clients use.
    pub fn client_host(&self) -> &str {
        self.client_host.as_deref().unwrap_or(&self.host)
    }

    /// The port for a client that is connected with TLS or without; the other one where that is the only one.
    pub fn port_for(&self, secure: bool) -> u16 {
        match self.client_tls_port {
            Some(port) if secure || self.client_port == 0 => port,
            _ => self.client_port,
        }
    }
}

/// What a member is here for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MemberState {
    /// New: it is still being given its share.
    Joining,
    /// It has its share.
    Active,
    /// It is leaving: its slots are being moved to the others.
    Draining,
    /// It is known to be gone; it serves nothing even if it should live.
    Down,
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Joining => "joining",
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Down => "down",
        })
    }
}

/// Slots on their way, with their data, from their owner to another member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Handoff {
    /// Which slots.
    pub slots: SlotRange,
    /// Their owner.
    pub from: NodeId,
    /// Who is to own them; it owns a slot from the moment that it activated it.
    pub to: NodeId,
    /// No longer wanted: the target finishes what it has begun and begins no other slot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancelled: bool,
}

impl RingDocument {
    /// Reads and validates a document.
    pub fn from_json(json: &[u8]) -> Result<Self, DocumentError> {
        let document: Self = serde_json::from_slice(json)?;
        document.validate()?;
        Ok(document)
    }

    /// The document as JSON, on one line; the same document always gives the same bytes.
    #[expect(
        clippy::expect_used,
        reason = "strings, numbers and maps with text keys always have a JSON form"
    )]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a ring document is representable in JSON")
    }

    /// Checks what the type alone does not say; see the module.
    pub fn validate(&self) -> Result<(), DocumentError> {
        if self.epoch == Epoch::NONE {
            return Err(DocumentError::NoEpoch);
        }
        if self.replication_factor == 0 {
            return Err(DocumentError::NoCopies);
        }
        self.validate_members()?;
        if let Some(id) = self.tokens.keys().find(|id| self.member(id).is_none()) {
            return Err(DocumentError::NotAMember {
                what: "tokens",
                id: id.clone(),
            });
        }
        let ring = HashRing::from_tokens(&self.tokens)?;
        if ring.is_empty() {
            return Err(DocumentError::NobodyOwns);
        }
        self.validate_replicas(&ring)?;
        self.validate_handoffs(&ring)
    }

    fn validate_replicas(&self, ring: &HashRing) -> Result<(), DocumentError> {
        for (id, slots) in &self.replicas {
            if self.member(id).is_none() {
                return Err(DocumentError::NotAMember {
                    what: "replicas",
                    id: id.clone(),
                });
            }
            if let Some(slot) = slots.intersection(&ring.slots_of(id)).iter().next() {
                return Err(DocumentError::ReplicaOfItself { id: id.clone(), slot });
            }
        }
        Ok(())
    }

    fn validate_members(&self) -> Result<(), DocumentError> {
        if let Some(pair) = self.members.windows(2).find(|pair| pair[0].id >= pair[1].id) {
            return Err(DocumentError::MembersOutOfOrder(pair[1].id.clone()));
        }
        if let Some(member) = self.members.iter().find(|member| member.address.host.is_empty()) {
            return Err(DocumentError::NoHost(member.id.clone()));
        }
        let mut lives: BTreeMap<Incarnation, &NodeId> = BTreeMap::new();
        for member in &self.members {
            if let Some(first) = lives.insert(member.incarnation, &member.id) {
                return Err(DocumentError::SharedIncarnation {
                    first: first.clone(),
                    second: member.id.clone(),
                });
            }
        }
        Ok(())
    }

    fn validate_handoffs(&self, ring: &HashRing) -> Result<(), DocumentError> {
        let sources: BTreeSet<&NodeId> = self.handoffs.iter().map(|handoff| &handoff.from).collect();
        let owned: BTreeMap<&NodeId, SlotSet> =
            sources.into_iter().map(|id| (id, ring.slots_of(id))).collect();
        let mut moving = SlotSet::new();
        for Handoff { slots, from, to, .. } in &self.handoffs {
            if let Some(id) = [from, to].into_iter().find(|id| self.member(id).is_none()) {
                return Err(DocumentError::NotAMember {
                    what: "handoffs",
                    id: id.clone(),
                });
            }
            if from == to {
                return Err(DocumentError::HandoffToItself {
                    slots: *slots,
                    id: from.clone(),
                });
            }
            if !slots.iter().all(|slot| owned[from].contains(slot)) {
                return Err(DocumentError::HandoffFromStranger {
                    slots: *slots,
                    from: from.clone(),
                });
            }
            if let Some(slot) = slots.iter().find(|&slot| !moving.insert(slot)) {
                return Err(DocumentError::HandoffsOverlap(slot));
            }
        }
        Ok(())
    }

    /// Who owns what by the tokens alone; empty when the tokens are not valid.
    pub fn ring(&self) -> HashRing {
        HashRing::from_tokens(&self.tokens).unwrap_or_default()
    }

    /// The member of that name.
    pub fn member(&self, id: &NodeId) -> Option<&Member> {
        self.members
            .binary_search_by(|member| member.id.cmp(id))
            .ok()
            .map(|index| &self.members[index])
    }

    /// The members' zones, as [`HashRing::replicas`] takes them.
    pub fn zones(&self) -> BTreeMap<NodeId, Option<Zone>> {
        self.members
            .iter()
            .map(|member| (member.id.clone(), member.zone.clone()))
            .collect()
    }

    /// Whether the member has a whole copy of a slot that another owns.
    pub fn is_replica(&self, id: &NodeId, slot: Slot) -> bool {
        self.replicas.get(id).is_some_and(|slots| slots.contains(slot))
    }

    /// Who is to have a copy of what another owns, by member: the next members clockwise of those that stay.
    pub fn wanted_replicas(&self) -> BTreeMap<NodeId, SlotSet> {
        wanted_replicas(&self.ring(), self.replication_factor, &self.members)
    }

    /// Whether this document replaces the other: its epoch is higher. An error when they are of two clusters.
    pub fn supersedes(&self, other: &Self) -> Result<bool, DocumentError> {
        if self.cluster_uid == other.cluster_uid {
            Ok(self.epoch > other.epoch)
        } else {
            Err(DocumentError::OtherCluster {
                expected: other.cluster_uid.clone(),
                found: self.cluster_uid.clone(),
            })
        }
    }
}

/// Who is to have a copy of what another owns, by member: the next members clockwise of those that stay.
pub(crate) fn wanted_replicas(ring: &HashRing, factor: u8, members: &[Member]) -> BTreeMap<NodeId, SlotSet> {
    let mut wanted: BTreeMap<NodeId, SlotSet> = BTreeMap::new();
    if factor < 2 {
        return wanted;
    }
    let stays = |member: &&Member| matches!(member.state, MemberState::Active | MemberState::Joining);
    let holders: BTreeMap<NodeId, Option<Zone>> = members
        .iter()
        .filter(stays)
        .map(|member| (member.id.clone(), member.zone.clone()))
        .collect();
    for (range, copies) in ring.copies_among(factor, &holders) {
        for id in &copies[1..] {
            wanted.entry((*id).clone()).or_default().insert_range(range);
        }
    }
    wanted
}
