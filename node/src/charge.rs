//! Memory that is held for clients beside the buffers of their connections, and counted like those: bodies on their way from
//! origins, and replies on their way between nodes.

use std::sync::Arc;

use bytes::Bytes;

use crate::clock;
use crate::node::Node;
use crate::stats::ThreadStats;
use crate::store::{Keyspace, Space};

/// What is held for one load or one command. It counts until this is dropped.
pub struct Charge {
    node: Arc<Node>,
    space: Option<Arc<Space>>,
    bytes: u64,
}

impl Charge {
    /// Nothing yet, for a client of that keyspace.
    pub fn new(node: Arc<Node>, keyspace: &Keyspace) -> Self {
        Self {
            node,
            space: keyspace.tenant().cloned(),
            bytes: 0,
        }
    }

    /// So much is held from now on, for which entries make room. `false` when there is none: it is to be given up.
    pub fn set(&mut self, bytes: usize, stats: &ThreadStats) -> bool {
        let now = bytes as u64;
        let before = std::mem::replace(&mut self.bytes, now);
        let store = &self.node.store;
        let mut has_room = store.note_connection_bytes(before, now);
        if let Some(space) = &self.space {
            let all = space.note_connection_bytes(before, now);
            has_room &= now <= before || all <= store.connection_bytes_max_of(space);
        }
        if has_room && now > before && store.is_over_budget() {
            stats.evicted_keys.add(store.evict(clock::now_ms()));
        }
        has_room
    }

    /// The bytes that it is for, which count for as long as any part of them is there.
    pub fn around(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Charged { bytes, _charge: self })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.node.store.note_connection_bytes(self.bytes, 0);
        if let Some(space) = &self.space {
            space.note_connection_bytes(self.bytes, 0);
        }
    }
}

struct Charged {
    bytes: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
