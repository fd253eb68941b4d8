//! What clients are told about the ring, and when they are sent elsewhere.
#![expect(clippy::unwrap_used, reason = "tests fail where they stand")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use annulus_node::routing::{Access, ClusterView, MemberView, Routing};
use annulus_ring::{Address, ClusterUid, Epoch, MemberState, NodeId, Slot, SlotRange};
use support::{Options, TestServer, encode};

fn range(first: u16, last: u16) -> SlotRange {
    SlotRange {
        first: Slot::new(first).unwrap(),
        last: Slot::new(last).unwrap(),
    }
}

fn member(cluster: &ClusterUid, name: &str, ranges: Vec<SlotRange>) -> MemberView {
    let id: NodeId = name.parse().unwrap();
    MemberView {
        wire_id: id.wire_id(cluster),
        id,
        address: Some(Address {
            host: format!("{name}.pods.example"),
            client_host: Some(format!("{name}.example")),
            client_port: 6379,
            client_tls_port: None,
            peer_port: 16_379,
        }),
        zone: None,
        state: MemberState::Active,
        ranges,
        copies: Vec::new(),
    }
}

/// Two members; this one has slots 0 to 99 and 200 to 299. What it does with them can be changed.
struct Two {
    view: Arc<ClusterView>,
    own_access: AtomicU8,
}

impl Two {
    fn new(epoch: Epoch) -> Arc<Self> {
        let cluster: ClusterUid = "test".parse().unwrap();
        let members = if epoch == Epoch::NONE {
            Vec::new()
        } else {
            vec![
                member(&cluster, "node-0", vec![range(0, 99), range(200, 299)]),
                member(&cluster, "node-1", vec![range(100, 199), range(300, 16_383)]),
            ]
        };
        let own_id = "node-0".parse().unwrap();
        let view = Arc::new(ClusterView {
            cluster_uid: cluster,
            own_id,
            epoch,
            members,
        });
        Arc::new(Self {
            view,
            own_access: AtomicU8::new(0),
        })
    }
}

impl Routing for Two {
    fn access(&self, slot: Slot) -> Access {
        if self.view.epoch == Epoch::NONE {
            return Access::Down;
        }
        if !self.view.members[0]
            .ranges
            .iter()
            .any(|range| range.contains(slot))
        {
            return Access::Elsewhere;
        }
        match self.own_access.load(Ordering::Relaxed) {
            0 => Access::ReadWrite,
            1 => Access::ReadOnly,
            _ => Access::Down,
        }
    }

    fn moved_to(&self, slot: Slot) -> Option<Address> {
        (self.access(slot) == Access::Elsewhere)
            .then(|| self.view.members[1].address.clone())
            .flatten()
    }

    fn view(&self) -> Arc<ClusterView> {
        Arc::clone(&self.view)
    }
}

/// A key of that slot.
fn key_in(slot: u16) -> String {
    (0..10_000_000)
        .map(|number| format!("key-{number}"))
        .find(|key| Slot::for_key(key.as_bytes()).number() == slot)
        .unwrap()
}

#[test]
fn a_command_goes_where_its_slot_is() {
    let routing = Two::new(Epoch(7));
    let server = TestServer::start(&Options {
        routing: routing.clone(),
        ..Options::default()
    });
    let mut client = server.connect();
    let (own, others) = (key_in(250), key_in(150));
    client.check(&format!("SET {own} value"), "+OK\r\n");
    client.check(&format!("GET {others}"), "-MOVED 150 node-1.example:6379\r\n");
    client.check(
        &format!("SET {others} value"),
        "-MOVED 150 node-1.example:6379\r\n",
    );
    client.check(
        &format!("MGET {own} {others}"),
        "-CROSSSLOT Keys in request don't hash to the same slot\r\n",
    );
    routing.own_access.store(1, Ordering::Relaxed);
    client.check(&format!("GET {own}"), "$5\r\nvalue\r\n");
    for write in [
        format!("SET {own} other"),
        format!("DEL {own}"),
        "FLUSHALL".to_owned(),
    ] {
        assert!(client.ask(&write).starts_with("-TRYAGAIN "), "{write}");
    }
    routing.own_access.store(2, Ordering::Relaxed);
    client.check(&format!("GET {own}"), "-CLUSTERDOWN Hash slot not served\r\n");
    client.check("KEYS *", "*0\r\n");
    client.check("SCAN 0", "*2\r\n$1\r\n0\r\n*0\r\n");
    routing.own_access.store(0, Ordering::Relaxed);
    client.check(&format!("GET {own}"), "$5\r\nvalue\r\n");
    assert_eq!(server.node.stats.totals().moved_replies, 2);
}

/// A script goes where its keys are; one without keys runs here and finds only what is here.
#[test]
fn a_script_goes_where_its_keys_are() {
    let routing = Two::new(Epoch(7));
    let server = TestServer::start(&Options {
        routing: routing.clone(),
        ..Options::default()
    });
    let mut client = server.connect();
    let (own, others) = (key_in(250), key_in(150));
    let mut eval = |command: &str, script: &str, keys: &[&str]| {
        let count = keys.len().to_string();
        let words = [command, script, &count];
        let words = words.iter().chain(keys).map(|word| word.as_bytes());
        client.send(encode(&words.collect::<Vec<_>>()));
        String::from_utf8(client.reply()).unwrap()
    };
    let (set, get) = (
        "return redis.call('set', KEYS[1], 'v')",
        "return redis.call('get', KEYS[1])",
    );
    assert_eq!(eval("EVAL", set, &[&own]), "+OK\r\n");
    assert_eq!(
        eval("EVAL", set, &[&others]),
        "-MOVED 150 node-1.example:6379\r\n"
    );
    assert_eq!(
        eval("EVAL_RO", get, &[&others]),
        "-MOVED 150 node-1.example:6379\r\n"
    );
    let elsewhere = eval("EVAL", &format!("return redis.call('get', '{others}')"), &[]);
    let expected = "-ERR Script attempted to access a non local key in a cluster node script: ";
    assert!(elsewhere.starts_with(expected), "{elsewhere}");
    routing.own_access.store(1, Ordering::Relaxed);
    assert!(eval("EVAL", set, &[&own]).starts_with("-TRYAGAIN "));
    assert!(eval("EVAL", &format!("return redis.call('get', '{own}')"), &[]).starts_with("-TRYAGAIN "));
    assert_eq!(eval("EVAL_RO", get, &[&own]), "$1\r\nv\r\n");
    assert_eq!(eval("EVAL", "return 1", &[]), ":1\r\n");
}

#[test]
fn without_a_ring_the_cluster_is_down() {
    let server = TestServer::start(&Options {
        routing: Two::new(Epoch::NONE),
        ..Options::default()
    });
    let mut client = server.connect();
    client.check("GET key", "-CLUSTERDOWN The cluster is down\r\n");
    client.check("PING", "+PONG\r\n");
    client.check("CLUSTER SLOTS", "*0\r\n");
    client.check("CLUSTER SHARDS", "*0\r\n");
    assert!(client.ask("CLUSTER INFO").contains("cluster_state:fail\r\n"));
    let nodes = client.ask("CLUSTER NODES");
    assert!(
        nodes.contains(&format!(" {}@0 myself,master - 0 0 0 connected\n", server.addr)),
        "{nodes}"
    );
}

#[test]
fn the_ring_is_the_same_in_every_reply() {
    let routing = Two::new(Epoch(7));
    let ids: Vec<String> = routing
        .view
        .members
        .iter()
        .map(|member| member.wire_id.clone())
        .collect();
    let (first, second) = (&ids[0], &ids[1]);
    let server = TestServer::start(&Options {
        routing,
        ..Options::default()
    });
    let mut client = server.connect();
    let row = |range: (u16, u16), host: &str, id: &str| {
        let (first, last) = range;
        let len = host.len();
        format!("*3\r\n:{first}\r\n:{last}\r\n*4\r\n${len}\r\n{host}\r\n:6379\r\n$40\r\n{id}\r\n*0\r\n")
    };
    let slots = [
        row((0, 99), "node-0.example", first),
        row((100, 199), "node-1.example", second),
        row((200, 299), "node-0.example", first),
        row((300, 16_383), "node-1.example", second),
    ];
    client.check("CLUSTER SLOTS", format!("*4\r\n{}", slots.concat()));
    let nodes = format!(
        "{first} node-0.example:6379@16379 myself,master - 0 0 7 connected 0-99 200-299\n\
         {second} node-1.example:6379@16379 master - 0 0 7 connected 100-199 300-16383\n"
    );
    client.check("CLUSTER NODES", format!("${}\r\n{nodes}\r\n", nodes.len()));
    client.check("CLUSTER MYID", format!("$40\r\n{first}\r\n"));
    let node = |host: &str, id: &str| {
        format!(
            "*1\r\n*14\r\n$2\r\nid\r\n$40\r\n{id}\r\n$4\r\nport\r\n:6379\r\n$2\r\nip\r\n$14\r\n{host}\r\n$8\r\nendpoint\r\n\
             $14\r\n{host}\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$18\r\nreplication-offset\r\n:0\r\n$6\r\nhealth\r\n$6\r\nonline\r\n"
        )
    };
    let shard = |slots: [u16; 4], node: String| {
        let slots = slots.map(|slot| format!(":{slot}\r\n")).concat();
        format!("*4\r\n$5\r\nslots\r\n*4\r\n{slots}$5\r\nnodes\r\n{node}")
    };
    let shards = [
        shard([0, 99, 200, 299], node("node-0.example", first)),
        shard([100, 199, 300, 16_383], node("node-1.example", second)),
    ];
    client.check("CLUSTER SHARDS", format!("*2\r\n{}", shards.concat()));
    let info = client.ask("CLUSTER INFO");
    for field in [
        "cluster_state:ok",
        "cluster_slots_assigned:16384",
        "cluster_known_nodes:2",
        "cluster_size:2",
        "cluster_current_epoch:7",
    ] {
        assert!(info.contains(&format!("{field}\r\n")), "{field} in {info}");
    }
}

#[test]
fn a_node_on_its_own_gives_the_address_that_the_client_has() {
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    let slots = client.ask("CLUSTER SLOTS");
    let port = server.addr.port();
    assert!(
        slots.starts_with(&format!(
            "*1\r\n*3\r\n:0\r\n:16383\r\n*4\r\n$9\r\n127.0.0.1\r\n:{port}\r\n$40\r\n"
        )),
        "{slots}"
    );
}
