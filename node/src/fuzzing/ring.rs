//! Ring documents: any bytes as JSON, and documents that are nearly valid, one after the other into one node.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;

use annulus_ring::{
    Access, Address, Epoch, Handoff, Incarnation, Member, MemberState, NodeId, Refusal, RingDocument,
    RingSettings, Slot, SlotRange, Weight, Zone,
};

use super::{BUDGET_BYTES, check_replies};
use crate::clients::Clients;
use crate::cluster::{ClusterState, Identity};
use crate::connection::Pipeline;
use crate::node::{Node, NodeOptions};
use crate::routing::Routing;
use crate::store::{EvictionPolicy, Store, StoreOptions};

const OWN_LIFE: Incarnation = Incarnation(1);
const MEMBERS: u8 = 5;

/// A document as bytes, in JSON: it is refused, or it says the same when it is written and read again, and a node
/// serves by it.
pub fn ring_document(json: &[u8]) {
    let Ok(document) = RingDocument::from_json(json) else {
        return;
    };
    let again = RingDocument::from_json(document.to_json().as_bytes());
    assert_eq!(again.ok().as_ref(), Some(&document), "it reads as another one");
    let mut world = World::new(&document.cluster_uid.clone());
    world.adopt(document);
}

/// Documents drawn from bytes, most of them valid, that one node adopts or refuses one after the other.
pub fn ring_documents(data: &[u8]) {
    let Ok(cluster) = "fuzz".parse() else {
        unreachable!("it is a valid name")
    };
    let mut draws = Draws(data.iter());
    let mut world = World::new(&cluster);
    let mut epoch: u64 = 0;
    while !draws.0.as_slice().is_empty() {
        epoch = (epoch + u64::from(draws.below(4))).saturating_sub(1);
        let mut document = draws.document(epoch, &cluster);
        if document.validate().is_err() {
            // Most often a handoff doesn't fit; what is left is another document.
            document.handoffs.clear();
        }
        ring_document(document.to_json().as_bytes());
        world.adopt(document);
        world.work(draws.slot());
    }
}

/// Numbers from the input; at its end all of them are 0.
struct Draws<'a>(std::slice::Iter<'a, u8>);

impl Draws<'_> {
    fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or_default()
    }

    fn below(&mut self, end: u8) -> u8 {
        self.byte() % end
    }

    fn slot(&mut self) -> Slot {
        let number = u16::from_be_bytes([self.byte(), self.byte()]);
        Slot::new(number % annulus_ring::SLOT_COUNT).unwrap_or(Slot::ZERO)
    }

    fn id(&mut self) -> NodeId {
        node_id(self.below(MEMBERS))
    }

    fn document(&mut self, epoch: u64, cluster: &annulus_ring::ClusterUid) -> RingDocument {
        let mask = self.byte();
        let members: Vec<Member> = (0..MEMBERS)
            .filter(|number| mask & (1 << number) != 0)
            .map(|number| self.member(number))
            .collect();
        let mut tokens: BTreeMap<NodeId, Vec<Slot>> = BTreeMap::new();
        for _ in 0..self.below(6) {
            let id = self.id();
            let slots = tokens.entry(id).or_default();
            slots.push(self.slot());
            slots.sort_unstable();
        }
        let handoffs = (0..self.below(3)).map(|_| self.handoff()).collect();
        let mut replicas: BTreeMap<NodeId, annulus_ring::SlotSet> = BTreeMap::new();
        for _ in 0..self.below(4) {
            let id = self.id();
            replicas.entry(id).or_default().insert(self.slot());
        }
        RingDocument {
            cluster_uid: cluster.clone(),
            epoch: Epoch(epoch),
            replication_factor: self.below(4),
            settings: RingSettings::default(),
            members,
            tokens,
            replicas,
            handoffs,
        }
    }

    fn member(&mut self, number: u8) -> Member {
        let how = self.byte();
        Member {
            id: node_id(number),
            // Mostly each its own life, sometimes another or somebody else's.
            incarnation: Incarnation(
                u128::from(number) + 1 + u128::from(how >> 6 == 3) * u128::from(how & 7),
            ),
            address: Address {
                host: ["127.0.0.1", "::1", "node.example", ""][usize::from(self.byte() % 16 / 5)].to_owned(),
                client_host: None,
                client_port: u16::from(how),
                client_tls_port: None,
                peer_port: 1,
            },
            zone: (how & 8 != 0).then(|| Zone("a b\r\n".to_owned())),
            weight: Weight(NonZeroU16::MIN.saturating_add(u16::from(how))),
            state: [
                MemberState::Active,
                MemberState::Joining,
                MemberState::Draining,
                MemberState::Down,
            ][usize::from(how & 3)],
        }
    }

    fn handoff(&mut self) -> Handoff {
        let (one, other) = (self.slot(), self.slot());
        Handoff {
            slots: SlotRange {
                first: one.min(other),
                last: one.max(other),
            },
            from: self.id(),
            to: self.id(),
            cancelled: self.below(4) == 0,
        }
    }
}

fn node_id(number: u8) -> NodeId {
    let Ok(id) = format!("node-{number}").parse() else {
        unreachable!("it is a valid name")
    };
    id
}

/// One node, and a client of it.
struct World {
    state: Arc<ClusterState>,
    node: Arc<Node>,
}

impl World {
    fn new(cluster: &annulus_ring::ClusterUid) -> Self {
        let store = Arc::new(Store::new(StoreOptions {
            budget_bytes: BUDGET_BYTES,
            eviction: EvictionPolicy::Lru,
        }));
        let identity = Identity {
            cluster_uid: cluster.clone(),
            node_id: node_id(0),
            incarnation: OWN_LIFE,
        };
        let state = Arc::new(ClusterState::new(identity, Arc::clone(&store)));
        let node = Arc::new(Node::new(NodeOptions {
            store,
            routing: Arc::clone(&state) as Arc<dyn Routing>,
            password: None,
            clients_max: 10,
            threads: 1,
            started_at_ms: 0,
            run_id: 0,
        }));
        Self { state, node }
    }

    /// Adopts it or not, as its epoch and its validity say, and serves by what is adopted then.
    fn adopt(&mut self, document: RingDocument) {
        let before = self.state.epoch();
        let (is_valid, epoch) = (document.validate().is_ok(), document.epoch);
        match self.state.adopt(document) {
            Ok(is_new) => assert_eq!((is_valid, is_new), (true, epoch > before), "epoch {epoch}"),
            Err(Refusal::OlderEpoch { .. }) => assert!(is_valid && epoch < before, "epoch {epoch}"),
            Err(Refusal::Document(_)) => assert!(!is_valid, "a valid document was refused"),
        }
        assert_eq!(
            self.state.epoch(),
            if is_valid { before.max(epoch) } else { before }
        );
        let listed = self.state.progress().state;
        for slot in Slot::all().step_by(97) {
            match self.state.access(slot) {
                Access::ReadWrite | Access::ReadOnly => assert!(listed.is_some(), "served by a stranger"),
                // Whom clients are sent to is a member.
                Access::Elsewhere => assert!(self.state.moved_to(slot).is_some(), "nowhere to go"),
                Access::Down => {}
            }
        }
        self.ask();
    }

    /// A handoff's steps at both of its ends, as far as the document allows.
    fn work(&self, slot: Slot) {
        let (id, life) = (node_id(1), Incarnation(2));
        if let Ok(frozen) = self.state.freeze(slot, (&id, life), 10, 10) {
            assert_ne!(
                self.state.access(slot),
                Access::ReadWrite,
                "a frozen slot is written to"
            );
            let committed = self.state.commit(slot, frozen.freeze_id, 5);
            assert!(committed.is_ok(), "a freeze in force can't be committed");
            assert_ne!(
                self.state.access(slot),
                Access::ReadWrite,
                "a committed slot is written to"
            );
        }
        let (_, wanted) = self.state.wanted();
        if let Some(wanted) = wanted.first()
            && let Ok(ticket) = self.state.begin(wanted.slot)
        {
            assert_ne!(
                self.state.access(wanted.slot),
                Access::ReadWrite,
                "a slot is written to before it is here"
            );
            assert!(
                self.state.activate(ticket).is_ok(),
                "a current pull can't be ended"
            );
            assert_eq!(self.state.access(wanted.slot), Access::ReadWrite);
        }
        self.ask();
    }

    /// What clients see of it.
    fn ask(&self) {
        const REQUESTS: &[u8] = b"CLUSTER SLOTS\r\nCLUSTER NODES\r\nCLUSTER SHARDS\r\nCLUSTER INFO\r\nCLUSTER MYID\r\n\
            INFO\r\nSET a 1\r\nGET a\r\nSET {b}1 1\r\nMGET {b}1 {b}2\r\nDEL a\r\nHELLO 3\r\nCLUSTER SHARDS\r\nCLUSTER SLOTS\r\n";
        let clients = Clients::default();
        let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 6379));
        let Ok(client) = clients.admit((addr, addr), 0, 1, false) else {
            unreachable!("it is the only one")
        };
        let stats = self.node.stats.register_thread();
        let mut pipeline = Pipeline::new(Arc::clone(&self.node), stats, client);
        pipeline.receive(REQUESTS);
        pipeline.process(1_000_000);
        assert!(!pipeline.is_closing() && !pipeline.is_blocked());
        check_replies(pipeline.unsent());
    }
}
