//! The peer protocol: messages and service stubs generated from `peer.proto`, and how they map to ring types.
//!
//! Nothing here decides anything; a message that can't be mapped is refused with the reason.

pub mod certificate;
pub mod credentials;
pub mod groups;
pub mod identity;
pub mod tenants;

use annulus_ring::{ClusterUid, Epoch, IdError, Incarnation, NodeId, Slot, SlotError, SlotRange};

/// Generated from `peer.proto`, package `annulus.peer.v1`.
#[expect(
    missing_docs,
    clippy::pedantic,
    clippy::allow_attributes,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("annulus.peer.v1");
}

/// Who sent a message, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The cluster that the sender belongs to.
    pub cluster_uid: ClusterUid,
    /// The epoch that the sender has; [`Epoch::NONE`] before its first ring.
    pub epoch: Epoch,
    /// The sending node's life; `None` when the operator speaks.
    pub node: Option<(NodeId, Incarnation)>,
}

/// Why a message can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Every message says who sends it.
    #[error("the message has no sender")]
    NoSender,
    /// A node names itself wholly or, for the operator, not at all.
    #[error("the sender's incarnation must be 16 bytes, not {0}")]
    NotAnIncarnation(usize),
    /// An identity is malformed.
    #[error(transparent)]
    Id(#[from] IdError),
    /// A slot is out of range.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// A range runs backwards.
    #[error("slot range {0}-{1} runs backwards")]
    BackwardRange(u32, u32),
}

impl TryFrom<Option<v1::Sender>> for Sender {
    type Error = MessageError;

    fn try_from(message: Option<v1::Sender>) -> Result<Self, MessageError> {
        let message = message.ok_or(MessageError::NoSender)?;
        let node = if message.node_id.is_empty() && message.incarnation.is_empty() {
            None
        } else {
            let incarnation = Incarnation::from_bytes(&message.incarnation)
                .ok_or(MessageError::NotAnIncarnation(message.incarnation.len()))?;
            Some((message.node_id.parse()?, incarnation))
        };
        Ok(Self {
            cluster_uid: message.cluster_uid.parse()?,
            epoch: Epoch(message.epoch),
            node,
        })
    }
}

impl From<&Sender> for v1::Sender {
    fn from(sender: &Sender) -> Self {
        let (node_id, incarnation) = sender.node.as_ref().map_or_else(Default::default, |(id, life)| {
            (id.to_string(), life.to_bytes().to_vec().into())
        });
        Self {
            cluster_uid: sender.cluster_uid.to_string(),
            epoch: sender.epoch.0,
            node_id,
            incarnation,
        }
    }
}

impl TryFrom<v1::SlotRange> for SlotRange {
    type Error = MessageError;

    fn try_from(range: v1::SlotRange) -> Result<Self, MessageError> {
        let (first, last) = (Slot::try_from(range.first)?, Slot::try_from(range.last)?);
        if first <= last {
            Ok(Self { first, last })
        } else {
            Err(MessageError::BackwardRange(range.first, range.last))
        }
    }
}

impl From<SlotRange> for v1::SlotRange {
    fn from(range: SlotRange) -> Self {
        Self {
            first: range.first.number().into(),
            last: range.last.number().into(),
        }
    }
}
