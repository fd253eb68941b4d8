//! What connections see of the ring: one atomic a slot, and the members that they are sent to.
//!
//! The atomics are written under the slot's lock by [`super::ClusterState`] alone, and read under the same lock by
//! the data path, so an answer holds for as long as the reader holds the lock. No order between atomics is
//! needed: the lock gives it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use annulus_ring::{
    Access, Address, Incarnation, Member, NodeId, RingDocument, SLOT_COUNT, Slot, SlotRange, SlotTable,
};

use crate::routing::{ClusterView, Tenure};

/// Every slot's access, and whether there is a copy here that may be read.
pub(super) struct AccessTable {
    codes: Box<[AtomicU8]>,
    tenures: Box<[AtomicU32]>,
    /// How many slots are served here.
    served: AtomicU32,
}

const DOWN: u8 = 0;
const ELSEWHERE: u8 = 1;
const READ_ONLY: u8 = 2;
const READ_WRITE: u8 = 3;
/// Elsewhere, with a copy here that may be read.
const COPIED: u8 = 4;

impl AccessTable {
    /// Without a ring nothing is served.
    pub(super) fn new() -> Self {
        Self {
            codes: (0..SLOT_COUNT).map(|_| AtomicU8::new(DOWN)).collect(),
            tenures: (0..SLOT_COUNT).map(|_| AtomicU32::new(0)).collect(),
            served: AtomicU32::new(0),
        }
    }

    #[inline]
    pub(super) fn get(&self, slot: Slot) -> Access {
        match self.codes[slot.index()].load(Ordering::Relaxed) {
            READ_WRITE => Access::ReadWrite,
            READ_ONLY => Access::ReadOnly,
            ELSEWHERE | COPIED => Access::Elsewhere,
            _ => Access::Down,
        }
    }

    /// Which time it is that the slot is served here.
    pub(super) fn tenure(&self, slot: Slot) -> Tenure {
        Tenure(self.tenures[slot.index()].load(Ordering::Relaxed))
    }

    /// How many tenures have begun. Looks at every slot.
    pub(super) fn gains(&self) -> u64 {
        let tenures = self.tenures.iter();
        tenures
            .map(|tenure| u64::from(tenure.load(Ordering::Relaxed)))
            .sum()
    }

    /// The slot is served anew: somebody else may have served it in between, even if it never looked so from here. The caller
    /// holds the slot's lock.
    pub(super) fn begin_tenure(&self, slot: Slot) {
        self.tenures[slot.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// How many slots are served here.
    pub(super) fn served(&self) -> u32 {
        self.served.load(Ordering::Relaxed)
    }

    /// Whether there is a copy here that may be read.
    pub(super) fn is_copied(&self, slot: Slot) -> bool {
        self.codes[slot.index()].load(Ordering::Relaxed) == COPIED
    }

    /// Shows what the table says. The caller holds the slot's lock. Whether the slot was frozen, and whether it is.
    pub(super) fn follow(&self, table: &SlotTable, slot: Slot) -> (bool, bool) {
        let code = match table.access(slot) {
            Access::ReadWrite => READ_WRITE,
            Access::ReadOnly => READ_ONLY,
            Access::Elsewhere if table.may_read_copy(slot) => COPIED,
            Access::Elsewhere => ELSEWHERE,
            Access::Down => DOWN,
        };
        let before = self.codes[slot.index()].swap(code, Ordering::Relaxed);
        let is_served = |code| code == READ_ONLY || code == READ_WRITE;
        match (is_served(before), is_served(code)) {
            (false, true) => {
                self.begin_tenure(slot);
                self.served.fetch_add(1, Ordering::Relaxed)
            }
            (true, false) => self.served.fetch_sub(1, Ordering::Relaxed),
            (true, true) | (false, false) => 0,
        };
        (before == READ_ONLY, code == READ_ONLY)
    }
}

/// What one document says. It is replaced as a whole; within one, `servers` follows the handoffs, and the senders what
/// they say.
pub(super) struct Published {
    pub(super) view: Arc<ClusterView>,
    senders: Vec<Sender>,
    /// By slot the index in `senders` of who serves it, or [`NOBODY`].
    servers: Box<[AtomicU16]>,
    /// Who may begin to serve what while this document stands.
    targets: Vec<(SlotRange, NodeId)>,
    /// 0 for no limit.
    pub(super) transfer_bytes_per_second: u64,
}

/// A member of the ring, as a sender of changes.
struct Sender {
    id: NodeId,
    incarnation: Incarnation,
    address: Address,
    /// Every change that it had made by then has come, on this node's clock; 0 until that is known.
    covered_ms: AtomicU64,
}

impl Sender {
    fn of(member: &Member) -> Self {
        Self {
            id: member.id.clone(),
            incarnation: member.incarnation,
            address: member.address.clone(),
            covered_ms: AtomicU64::new(0),
        }
    }

    fn life(&self) -> (NodeId, Incarnation, Address) {
        (self.id.clone(), self.incarnation, self.address.clone())
    }
}

const NOBODY: u16 = u16::MAX;

impl Published {
    pub(super) fn without_ring(view: ClusterView) -> Self {
        let servers = (0..SLOT_COUNT).map(|_| AtomicU16::new(NOBODY)).collect();
        Self {
            view: Arc::new(view),
            senders: Vec::new(),
            servers,
            targets: Vec::new(),
            transfer_bytes_per_second: 0,
        }
    }

    pub(super) fn of(table: &SlotTable, document: &RingDocument) -> Self {
        let published = Self {
            view: Arc::new(ClusterView::from_document(document, table.id().clone())),
            senders: document.members.iter().map(Sender::of).collect(),
            servers: (0..SLOT_COUNT).map(|_| AtomicU16::new(NOBODY)).collect(),
            targets: document
                .handoffs
                .iter()
                .map(|handoff| (handoff.slots, handoff.to.clone()))
                .collect(),
            transfer_bytes_per_second: document.settings.transfer_bytes_per_second,
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

    fn server(&self, slot: Slot) -> Option<&Sender> {
        self.senders
            .get(usize::from(self.servers[slot.index()].load(Ordering::Relaxed)))
    }

    fn sender(&self, id: &NodeId) -> Option<&Sender> {
        let index = self.senders.binary_search_by(|sender| sender.id.cmp(id)).ok()?;
        self.senders.get(index)
    }

    pub(super) fn moved_to(&self, slot: Slot) -> Option<Address> {
        self.server(slot).map(|server| server.address.clone())
    }

    pub(super) fn life_of_server(&self, slot: Slot) -> Option<(NodeId, Incarnation, Address)> {
        self.server(slot).map(Sender::life)
    }

    pub(super) fn life_at(&self, address: &str) -> Option<(NodeId, Incarnation, Address)> {
        let (host, port) = address.rsplit_once(':')?;
        let port: u16 = port.parse().ok()?;
        let mut senders = self.senders.iter();
        let found = senders.find(|sender| {
            let address = &sender.address;
            address.client_host() == host && address.port_for(false) == port
        });
        found.map(Sender::life)
    }

    /// Every change that this life of the member had made by then has come.
    pub(super) fn note_covered(&self, id: &NodeId, incarnation: Incarnation, covered_ms: u64) {
        if let Some(sender) = self.sender(id).filter(|sender| sender.incarnation == incarnation) {
            sender.covered_ms.fetch_max(covered_ms, Ordering::Relaxed);
        }
    }

    /// Every change of the slot that was made by then has come, whoever of those made it who may serve it under this
    /// document. 0 when that is not known.
    pub(super) fn covered_ms(&self, slot: Slot) -> u64 {
        let mut targets = self.targets.iter().filter(|(slots, _)| slots.contains(slot));
        let target = targets.next().map(|(_, id)| self.sender(id));
        let servers = [Some(self.server(slot)), target];
        let covered_ms = servers
            .into_iter()
            .flatten()
            .map(|sender| sender.map_or(0, |sender| sender.covered_ms.load(Ordering::Relaxed)));
        covered_ms.min().unwrap_or_default()
    }
}
