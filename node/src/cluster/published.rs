//! What connections see of the ring: one atomic a slot, and the members that they are sent to.
//!
//! The atomics are written under the slot's lock by [`super::ClusterState`] alone, and read under the same lock by
//! the data path, so an answer holds for as long as the reader holds the lock. No order between atomics is
//! needed: the lock gives it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

use annulus_ring::{Access, Address, RingDocument, SLOT_COUNT, Slot, SlotTable};

use crate::routing::ClusterView;

/// Every slot's access.
pub(super) struct AccessTable(Box<[AtomicU8]>);

const DOWN: u8 = 0;
const ELSEWHERE: u8 = 1;
const READ_ONLY: u8 = 2;
const READ_WRITE: u8 = 3;

impl AccessTable {
    /// Without a ring nothing is served.
    pub(super) fn new() -> Self {
        Self((0..SLOT_COUNT).map(|_| AtomicU8::new(DOWN)).collect())
    }

    #[inline]
    pub(super) fn get(&self, slot: Slot) -> Access {
        match self.0[slot.index()].load(Ordering::Relaxed) {
            READ_WRITE => Access::ReadWrite,
            READ_ONLY => Access::ReadOnly,
            ELSEWHERE => Access::Elsewhere,
            _ => Access::Down,
        }
    }

    /// The caller holds the slot's lock.
    pub(super) fn set(&self, slot: Slot, access: Access) {
        let code = match access {
            Access::ReadWrite => READ_WRITE,
            Access::ReadOnly => READ_ONLY,
            Access::Elsewhere => ELSEWHERE,
            Access::Down => DOWN,
        };
        self.0[slot.index()].store(code, Ordering::Relaxed);
    }
}

/// What one document says. It is replaced as a whole; only `servers` follows the handoffs within one.
pub(super) struct Published {
    pub(super) view: Arc<ClusterView>,
    addresses: Vec<Address>,
    /// By slot the index in `addresses` of who serves it, or [`NOBODY`].
    servers: Box<[AtomicU16]>,
}

const NOBODY: u16 = u16::MAX;

impl Published {
    pub(super) fn without_ring(view: ClusterView) -> Self {
        let servers = (0..SLOT_COUNT).map(|_| AtomicU16::new(NOBODY)).collect();
        Self {
            view: Arc::new(view),
            addresses: Vec::new(),
            servers,
        }
    }

    pub(super) fn of(table: &SlotTable, document: &RingDocument) -> Self {
        let published = Self {
            view: Arc::new(ClusterView::from_document(document, table.id().clone())),
            addresses: document
                .members
                .iter()
                .map(|member| member.address.clone())
                .collect(),
            servers: (0..SLOT_COUNT).map(|_| AtomicU16::new(NOBODY)).collect(),
        };
        for slot in Slot::all() {
            published.follow(table, slot);
        }
        published
    }

    /// Notes who serves the slot now. A slot of this node's own gets its own address: between the change of the
    /// document and that of the slot a client may still be sent on, and comes back in the next moment.
    pub(super) fn follow(&self, table: &SlotTable, slot: Slot) {
        let server = table
            .moved_to(slot)
            .or_else(|| table.member())
            .map(|member| &member.id);
        let index = table.document().zip(server).and_then(|(document, server)| {
            let index = document
                .members
                .binary_search_by(|member| member.id.cmp(server))
                .ok()?;
            u16::try_from(index).ok()
        });
        self.servers[slot.index()].store(index.unwrap_or(NOBODY), Ordering::Relaxed);
    }

    pub(super) fn moved_to(&self, slot: Slot) -> Option<Address> {
        self.addresses
            .get(usize::from(self.servers[slot.index()].load(Ordering::Relaxed)))
            .cloned()
    }
}
