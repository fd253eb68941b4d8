//! Several real processes that have copies of one another's slots, and an operator that is one function call.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use annulus_proto::v1;
use annulus_ring::{
    Advance, Desired, Epoch, Incarnation, NodeId, Observed, Placement, PlacementParams, RingDocument,
    RingSettings, Slot, SlotRange, SlotSet, Weight, advance,
};
use parking_lot::{Mutex, RwLock};

use crate::documents::{CLUSTER, id, member};
use crate::member::operator;
use crate::processes::{PATIENCE, Process};
use crate::support::{Client, encode};

/// The processes, and what their operator knows.
pub struct Cluster {
    pub nodes: BTreeMap<usize, Process>,
    pub document: Option<RingDocument>,
    /// Numbers of the nodes that are to be on the ring.
    pub desired: BTreeSet<usize>,
    /// Members that the operator takes for dead.
    pub failed: BTreeSet<NodeId>,
    /// What clients go by.
    pub map: Map,
    factor: u8,
    /// What nodes are told with the next document.
    pub settings: RingSettings,
}

/// Which address serves which slot, as the last document says.
#[derive(Clone, Default)]
pub struct Map(Arc<RwLock<Option<RingDocument>>>);

impl Map {
    pub fn address(&self, key: &str) -> Option<std::net::SocketAddr> {
        let document = self.0.read();
        let document = document.as_ref()?;
        let owner = document.ring().owner(Slot::for_key(key.as_bytes()))?.clone();
        let address = &document.member(&owner)?.address;
        Some(
            format!("{}:{}", address.host, address.client_port)
                .parse()
                .unwrap(),
        )
    }
}

impl Cluster {
    /// So many processes, with that many copies of each slot, of which one write needs so many beside the owner's.
    pub async fn start(nodes: usize, factor: u8, acks: u8) -> Self {
        Self::start_with(
            nodes,
            factor,
            RingSettings {
                acks,
                ..RingSettings::default()
            },
        )
        .await
    }

    /// The same with other settings, too.
    pub async fn start_with(nodes: usize, factor: u8, settings: RingSettings) -> Self {
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            document: None,
            desired: (0..nodes).collect(),
            failed: BTreeSet::new(),
            map: Map::default(),
            factor,
            settings,
        };
        for number in 0..nodes {
            cluster.boot(number);
        }
        cluster.settle().await;
        cluster
    }

    pub fn boot(&mut self, number: usize) {
        let process = Process::member(number, &["--api-bind", "127.0.0.1:0"]);
        self.nodes.insert(number, process);
    }

    /// What each process says that answers.
    async fn observe(&self) -> Vec<Observed> {
        let mut observed = Vec::new();
        for (&number, process) in &self.nodes {
            if self.failed.contains(&id(number)) {
                continue;
            }
            if let Some(report) = report(process).await {
                observed.push(as_observed(number, process, &report));
            }
        }
        observed
    }

    /// One look and one decision; whether the ring is as desired.
    pub async fn step(&mut self) -> bool {
        let desired = Desired {
            cluster_uid: CLUSTER.parse().unwrap(),
            members: self
                .desired
                .iter()
                .map(|&number| Placement {
                    id: id(number),
                    weight: Weight::DEFAULT,
                    zone: None,
                })
                .collect(),
            params: PlacementParams {
                replication_factor: self.factor,
                tokens_per_member: 8,
            },
            settings: self.settings,
            handoff_slots_max: 16_384,
        };
        let observed = self.observe().await;
        match advance(self.document.as_ref(), &desired, &observed, &self.failed) {
            Advance::Steady => {
                let epoch = self.document.as_ref().map(|document| document.epoch);
                observed.iter().all(|node| Some(node.epoch) == epoch)
            }
            Advance::Waiting(_) => false,
            Advance::Next { document, .. } => {
                self.document = Some(document);
                self.push().await;
                false
            }
        }
    }

    async fn push(&mut self) {
        let document = self.document.clone().unwrap();
        for (number, process) in &self.nodes {
            if !self.failed.contains(&id(*number)) {
                try_push(process, &document).await;
            }
        }
        *self.map.0.write() = Some(document);
    }

    /// Looks and decides until the ring is as desired.
    pub async fn settle(&mut self) {
        let settled = async {
            while !self.step().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let settled = tokio::time::timeout(PATIENCE, settled).await;
        assert!(settled.is_ok(), "the ring doesn't settle: {:?}", self.document);
    }

    /// Looks and decides until everybody but that one has what it needs. Its own handoffs wait for it.
    pub async fn settle_without(&mut self, number: usize) {
        let dead = id(number);
        let settled = async {
            loop {
                self.step().await;
                let document = self.document.as_ref().unwrap();
                let owns_nothing = !document.tokens.contains_key(&dead);
                let wanted = document.wanted_replicas();
                let complete = wanted.iter().all(|(id, slots)| {
                    document
                        .replicas
                        .get(id)
                        .is_some_and(|listed| slots.difference(listed).is_empty())
                });
                if owns_nothing && complete {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let settled = tokio::time::timeout(PATIENCE, settled).await;
        assert!(settled.is_ok(), "the ring doesn't settle: {:?}", self.document);
    }

    /// Ends a process at once, and takes note of its death.
    pub fn kill(&mut self, number: usize) {
        self.nodes.remove(&number).unwrap();
        self.failed.insert(id(number));
    }

    /// A client of the node that owns the key.
    pub fn client(&self, key: &str) -> Client {
        Client::connect(self.map.address(key).unwrap())
    }

    /// The version of the ring.
    pub fn epoch(&self) -> Epoch {
        self.document.as_ref().unwrap().epoch
    }

    /// Which node owns the key.
    pub fn owner(&self, key: &str) -> usize {
        let document = self.document.as_ref().unwrap();
        let owner = document
            .ring()
            .owner(Slot::for_key(key.as_bytes()))
            .unwrap()
            .clone();
        self.nodes
            .keys()
            .copied()
            .find(|&number| id(number) == owner)
            .unwrap()
    }

    /// Which node has the copy of the key's slot.
    pub fn copy(&self, key: &str) -> usize {
        let document = self.document.as_ref().unwrap();
        let slot = Slot::for_key(key.as_bytes());
        let has = |number: &usize| document.is_replica(&id(*number), slot);
        self.nodes.keys().copied().find(has).unwrap()
    }
}

fn as_observed(number: usize, process: &Process, report: &v1::NodeReport) -> Observed {
    let sender = report.sender.as_ref().unwrap();
    let incarnation = Incarnation::from_bytes(&sender.incarnation).unwrap();
    let ranges = |ranges: &[v1::SlotRange]| -> SlotSet {
        let range = |range: &v1::SlotRange| SlotRange {
            first: Slot::try_from(range.first).unwrap(),
            last: Slot::try_from(range.last).unwrap(),
        };
        ranges.iter().map(range).collect()
    };
    Observed {
        id: id(number),
        incarnation,
        address: member(
            number,
            incarnation,
            process.client.port(),
            process.peer.unwrap().port(),
        )
        .address,
        epoch: Epoch(sender.epoch),
        activated: ranges(&report.activated),
        settled: report.settled,
        declared: report
            .declared
            .iter()
            .map(|copies| (copies.node_id.parse().unwrap(), ranges(&copies.slots)))
            .collect(),
        leaving: report.leaving,
    }
}

async fn report(process: &Process) -> Option<v1::NodeReport> {
    let request = v1::WatchRequest {
        sender: operator(CLUSTER),
        interval_ms: 60_000,
    };
    let mut peer = process.try_operator().await?;
    let mut reports = peer.watch(request).await.ok()?.into_inner();
    reports.message().await.ok()?
}

async fn try_push(process: &Process, document: &RingDocument) {
    let request = v1::PushRingRequest {
        sender: operator(CLUSTER),
        document: document.to_json().into(),
    };
    if let Some(mut peer) = process.try_operator().await {
        peer.push_ring(request).await.ok();
    }
}

/// Clients that write numbers, each to keys of its own, and remember what was acknowledged.
pub struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<std::thread::JoinHandle<()>>,
    pub acked: Arc<Mutex<BTreeMap<String, u64>>>,
    pub writes: Arc<AtomicU64>,
    pub errors: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Load {
    pub fn start(map: &Map, writers: usize, keys: u64) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            writers: Vec::new(),
            acked: Arc::default(),
            writes: Arc::default(),
            errors: Arc::default(),
        };
        for writer in 0..writers {
            let (map, stop, acked) = (map.clone(), Arc::clone(&load.stop), Arc::clone(&load.acked));
            let (count, errors) = (Arc::clone(&load.writes), Arc::clone(&load.errors));
            let write = move || {
                let mut clients: BTreeMap<std::net::SocketAddr, Client> = BTreeMap::new();
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let key = format!("w{writer}-{}", number % keys);
                    // Whatever comes of it, a later number is written to the same key: what is read back may be newer.
                    match write_one(&map, &mut clients, &key, number) {
                        Ok(()) => {
                            acked.lock().insert(key, number);
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => *errors.lock().entry(error).or_default() += 1,
                    }
                }
            };
            load.writers.push(std::thread::spawn(write));
        }
        load
    }

    /// Waits until so many more writes are acknowledged.
    pub fn wait_for_writes(&self, count: u64) {
        let target = self.writes.load(Ordering::Relaxed) + count;
        crate::processes::wait_for("acknowledged writes", || {
            (self.writes.load(Ordering::Relaxed) >= target).then_some(())
        });
    }

    /// Ends it, and reads everything back that was acknowledged.
    pub fn check(mut self, map: &Map) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers.drain(..) {
            writer.join().unwrap();
        }
        let mut clients: BTreeMap<std::net::SocketAddr, Client> = BTreeMap::new();
        let mut lost = Vec::new();
        for (key, acked) in self.acked.lock().iter() {
            let client = clients
                .entry(map.address(key).unwrap())
                .or_insert_with_key(|address| Client::connect(*address));
            client.send(encode(&[b"GET", key.as_bytes()]));
            let reply = String::from_utf8(client.reply()).unwrap();
            let found = reply
                .split("\r\n")
                .nth(1)
                .and_then(|value| value.parse::<u64>().ok());
            if found.is_none_or(|found| found < *acked) {
                lost.push(format!("{key}: acknowledged {acked}, found {reply:?}"));
            }
        }
        eprintln!(
            "{} writes acknowledged, errors {:?}",
            self.writes.load(Ordering::Relaxed),
            self.errors.lock()
        );
        assert!(
            lost.is_empty(),
            "{} lost: {:?}",
            lost.len(),
            &lost[..lost.len().min(10)]
        );
    }
}

fn write_one(
    map: &Map,
    clients: &mut BTreeMap<std::net::SocketAddr, Client>,
    key: &str,
    number: u64,
) -> Result<(), String> {
    let address = map.address(key).ok_or("no map")?;
    let client = match clients.entry(address) {
        Entry::Occupied(client) => client.into_mut(),
        Entry::Vacant(place) => {
            place.insert(Client::try_connect(address).map_err(|error| error.kind().to_string())?)
        }
    };
    let reply = client
        .try_ask(&[b"SET", key.as_bytes(), number.to_string().as_bytes()])
        .map_err(|error| error.kind().to_string());
    match reply {
        Ok(reply) if reply == b"+OK\r\n" => Ok(()),
        Ok(reply) => Err(String::from_utf8_lossy(&reply)
            .split(' ')
            .next()
            .unwrap_or_default()
            .to_owned()),
        Err(error) => {
            clients.remove(&address);
            Err(error)
        }
    }
}
