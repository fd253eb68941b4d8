//! Reads that are answered from copies.

use annulus_proto::v1;
use annulus_proto::v1::slot_change::Step;
use annulus_ring::{Incarnation, RingSettings, Slot, SlotSet};
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::cluster::Cluster;
use crate::documents::{CLUSTER, document, id, key_below, member};
use crate::processes::{Process, wait_for};
use crate::support::{Client, encode};

/// `n0` has the slots below it.
const FIRST_OF_THE_COPY: u16 = 8192;

fn read_only(process: &Process) -> Client {
    let mut client = Client::connect(process.client);
    client.check("READONLY", "+OK\r\n");
    client
}

fn is_moved(client: &mut Client, command: &str) -> bool {
    client.ask(command).starts_with("-MOVED")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_answers_reads_and_nothing_else() {
    let cluster = Cluster::start(3, 2, 1).await;
    let (owner, copy) = (cluster.owner("{k}"), cluster.copy("{k}"));
    let mut writer = cluster.client("{k}");
    writer.check("SET {k} v", "+OK\r\n");
    writer.check("RPUSH {k}list a b", ":2\r\n");

    let mut client = Client::connect(cluster.nodes[&copy].client);
    assert!(is_moved(&mut client, "GET {k}"));
    client.check("READONLY", "+OK\r\n");
    client.check("GET {k}", "$1\r\nv\r\n");
    client.check("MGET {k} {k}none", "*2\r\n$1\r\nv\r\n$-1\r\n");
    client.check("LRANGE {k}list 0 -1", "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
    client.check("EVAL_RO return(redis.call('get',KEYS[1])) 1 {k}", "$1\r\nv\r\n");
    let script = "#!lua flags=no-writes\nreturn redis.call('get',KEYS[1])";
    client.send(encode(&[b"EVAL", script.as_bytes(), b"1", b"{k}"]));
    client.expect("$1\r\nv\r\n");
    for command in [
        "SET {k} w",
        "GETDEL {k}",
        "EXPIRE {k} 100",
        "EVAL return(redis.call('get',KEYS[1])) 1 {k}",
        "WATCH {k}",
    ] {
        assert!(is_moved(&mut client, command), "{command}");
    }
    // What was acknowledged is there.
    writer.check("SET {k} w", "+OK\r\n");
    client.check("GET {k}", "$1\r\nw\r\n");

    client.check("MULTI", "+OK\r\n");
    client.check("GET {k}", "+QUEUED\r\n");
    client.check("STRLEN {k}", "+QUEUED\r\n");
    client.check("EXEC", "*2\r\n$1\r\nw\r\n:1\r\n");
    client.check("MULTI", "+OK\r\n");
    client.check("GET {k}", "+QUEUED\r\n");
    assert!(is_moved(&mut client, "SET {k} x"));
    assert!(client.ask("EXEC").starts_with("-EXECABORT"));

    let info = client.ask("INFO replication");
    assert!(info.contains("copy_reads:8\r\n"), "{info}");
    let (_, metrics) = cluster.nodes[&copy].get("/metrics");
    assert!(metrics.contains("annulus_copy_reads_total 8\n"), "{metrics}");

    // Nobody would tell it of changes.
    assert!(client.ask("HELLO 3").starts_with('%'));
    client.check("CLIENT TRACKING ON", "+OK\r\n");
    assert!(is_moved(&mut client, "GET {k}"));
    client.check("CLIENT TRACKING OFF", "+OK\r\n");
    client.check("GET {k}", "$1\r\nw\r\n");
    client.check("READWRITE", "+OK\r\n");
    assert!(is_moved(&mut client, "GET {k}"));

    let neither = (0..3).find(|&number| number != owner && number != copy).unwrap();
    assert!(is_moved(&mut read_only(&cluster.nodes[&neither]), "GET {k}"));
    let mut at_owner = read_only(&cluster.nodes[&owner]);
    at_owner.check("SET {k} y", "+OK\r\n");
    at_owner.check("GET {k}", "$1\r\ny\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_listed_for_those_who_read_them() {
    let cluster = Cluster::start(3, 2, 1).await;
    let mut client = Client::connect(cluster.nodes[&0].client);
    let everybodys = client.ask("CLUSTER SLOTS");
    let own = client.ask("CLUSTER MYID");
    client.check("READONLY", "+OK\r\n");
    let reader_s = client.ask("CLUSTER SLOTS");
    client.check("READWRITE", "+OK\r\n");
    assert_eq!(client.ask("CLUSTER SLOTS"), everybodys);
    // Each of the ids stands at the end of a member of a range.
    let members = |reply: &str| reply.matches("$40\r\n").count();
    let ranges = |reply: &str| reply.matches("\r\n*3\r\n").count() + reply.matches("\r\n*4\r\n:").count();
    assert_eq!(members(&everybodys), ranges(&everybodys));
    // All ranges but one of each owner have an owner and a copy.
    assert_eq!(members(&reader_s), 2 * ranges(&reader_s) - 3, "{reader_s}");
    assert!(reader_s.contains(own.strip_prefix("$40\r\n").unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_entry_is_not_seen_in_a_copy_whatever_its_owner_does() {
    let cluster = Cluster::start(3, 2, 1).await;
    let (owner, copy) = (cluster.owner("k"), cluster.copy("k"));
    let mut client = read_only(&cluster.nodes[&copy]);
    cluster.client("k").check("SET k v PX 2000", "+OK\r\n");
    client.check("GET k", "$1\r\nv\r\n");
    cluster.nodes[&owner].signal("STOP");
    wait_for("the expiry", || (client.ask("GET k") == "$-1\r\n").then_some(()));
    client.check("EXISTS k", ":0\r\n");
    client.check("PTTL k", ":-2\r\n");
    // The owner still is the one to remove it.
    assert!(client.ask("INFO replication").contains("copied_keys:1\r\n"));
    cluster.nodes[&owner].signal("CONT");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_owner_and_operator_a_copy_is_read() {
    let mut cluster = Cluster::start(3, 2, 1).await;
    let (owner, copy) = (cluster.owner("k"), cluster.copy("k"));
    cluster.client("k").check("SET k v", "+OK\r\n");
    cluster.kill(owner);
    let mut client = read_only(&cluster.nodes[&copy]);
    for _ in 0..10 {
        client.check("GET k", "$1\r\nv\r\n");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(is_moved(&mut client, "SET k w"));
    assert!(is_moved(
        &mut Client::connect(cluster.nodes[&copy].client),
        "GET k"
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_bound_a_copy_is_read_while_its_owner_is_heard() {
    let cluster = Cluster::start_with(
        3,
        2,
        RingSettings {
            acks: 1,
            copy_staleness_max_ms: 2000,
            ..RingSettings::default()
        },
    )
    .await;
    let (owner, copy) = (cluster.owner("k"), cluster.copy("k"));
    let mut writer = cluster.client("k");
    writer.check("SET k v", "+OK\r\n");
    let mut client = read_only(&cluster.nodes[&copy]);
    wait_for("the first answer", || {
        (client.ask("GET k") == "$1\r\nv\r\n").then_some(())
    });
    cluster.nodes[&owner].signal("STOP");
    client.check("GET k", "$1\r\nv\r\n");
    wait_for("the end of the bound", || {
        is_moved(&mut client, "GET k").then_some(())
    });
    assert!(is_moved(&mut client, "GET k"));
    cluster.nodes[&owner].signal("CONT");
    wait_for("the owner to be heard", || {
        (client.ask("GET k") == "$1\r\nv\r\n").then_some(())
    });
    // While there is much to be sent, too.
    for round in 0..500 {
        writer.check(&format!("SET k {round}"), "+OK\r\n");
        let reply = client.ask("GET k");
        let value = reply.split("\r\n").nth(1).and_then(|value| value.parse().ok());
        assert!(
            reply.starts_with("-MOVED") || value == Some(round),
            "{round} {reply}"
        );
    }
    client.check("GET k", "$3\r\n499\r\n");
}

/// A node that has copies of what `n0` owns, played by the test.
struct Played {
    copy: Process,
    requests: mpsc::Sender<v1::ReplicateRequest>,
    replies: Streaming<v1::ReplicateReply>,
}

impl Played {
    async fn start(copy_staleness_max_ms: u64) -> Self {
        let copy = Process::member(1, &[]);
        let members = [member(0, Incarnation(1), 9, 9), copy.listed(1).await];
        let mut document = document(1, &members, 2);
        document.replication_factor = 2;
        document.settings.copy_staleness_max_ms = copy_staleness_max_ms;
        let owned: SlotSet = document.ring().slots_of(&id(0));
        document.replicas.insert(id(1), owned);
        copy.push(&document).await;
        let (requests, mut receiver) = mpsc::channel(1);
        let messages = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
        let mut peer = copy.operator().await;
        let opening = tokio::spawn(async move { peer.replicate(messages).await });
        let replies = opening.await.unwrap().unwrap().into_inner();
        Self {
            copy,
            requests,
            replies,
        }
    }

    /// Sends one step of the slot, and what is covered; the copy's clock when it answers.
    async fn send(&mut self, slot: Slot, step: Option<(Step, &str, &str)>, covers_ms: u64) -> u64 {
        let change = |(step, key, value): (Step, &str, &str)| v1::SlotChange {
            removed_of_tenants: Vec::new(),
            slot: slot.number().into(),
            step: step.into(),
            entries: (!key.is_empty())
                .then(|| v1::Entry {
                    tenant: 0,
                    key: key.to_owned().into(),
                    value: Some(v1::entry::Value::Text(value.to_owned().into())),
                    ..v1::Entry::default()
                })
                .into_iter()
                .collect(),
            removed: Vec::new(),
        };
        let request = v1::ReplicateRequest {
            sender: Some(v1::Sender {
                cluster_uid: CLUSTER.to_owned(),
                epoch: 1,
                node_id: id(0).to_string(),
                incarnation: Incarnation(1).to_bytes().to_vec().into(),
            }),
            lsn: 0,
            sent_ms: 0,
            changes: step.map(change).into_iter().collect(),
            stream: 1,
            covers_ms,
        };
        self.requests.send(request).await.unwrap();
        let reply = self.replies.message().await.unwrap().unwrap();
        assert_eq!(reply.refusal(), v1::replicate_reply::Refusal::None);
        reply.clock_ms
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_not_read_before_it_is_whole() {
    let mut played = Played::start(0).await;
    let (key, slot) = key_below(FIRST_OF_THE_COPY);
    let get = format!("GET {key}");
    let mut client = read_only(&played.copy);
    assert!(is_moved(&mut client, &get));
    played.send(slot, Some((Step::Begin, "", "")), 0).await;
    played.send(slot, Some((Step::Apply, &key, "a")), 0).await;
    assert!(is_moved(&mut client, &get));
    played.send(slot, Some((Step::Complete, "", "")), 0).await;
    client.check(&get, "$1\r\na\r\n");
    // Filled again, it keeps what it had.
    played.send(slot, Some((Step::Begin, "", "")), 0).await;
    client.check(&get, "$1\r\na\r\n");
    played.send(slot, Some((Step::Apply, &key, "b")), 0).await;
    client.check(&get, "$1\r\nb\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bound_counts_from_what_the_owner_is_known_to_have_sent() {
    let mut played = Played::start(3000).await;
    let (key, slot) = key_below(FIRST_OF_THE_COPY);
    let get = format!("GET {key}");
    let mut client = read_only(&played.copy);
    played.send(slot, Some((Step::Begin, "", "")), 0).await;
    played.send(slot, Some((Step::Apply, &key, "a")), 0).await;
    let whole_ms = played.send(slot, Some((Step::Complete, "", "")), 0).await;
    // Heard of, but that may be long on its way.
    assert!(is_moved(&mut client, &get));
    played.send(slot, None, whole_ms).await;
    client.check(&get, "$1\r\na\r\n");
    // Heartbeats alone don't help while something waits to be sent.
    wait_for("the end of the bound", || {
        is_moved(&mut client, &get).then_some(())
    });
    let clock_ms = played.send(slot, None, whole_ms).await;
    assert!(clock_ms > whole_ms + 3000);
    assert!(is_moved(&mut client, &get));
    played.send(slot, None, clock_ms).await;
    client.check(&get, "$1\r\na\r\n");
}
