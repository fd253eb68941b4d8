//! Hot keys, read at nodes that neither serve them nor have copies.

use std::time::{Duration, Instant};

use annulus_ring::RingSettings;

use crate::cluster::Cluster;
use crate::processes::{Process, wait_for};
use crate::support::Client;

const STALENESS_MAX: Duration = Duration::from_millis(200);

async fn start(reads_per_second: u64) -> Cluster {
    let settings = RingSettings {
        mirror_reads_per_second: reads_per_second,
        mirror_staleness_max_ms: 200,
        ..RingSettings::default()
    };
    Cluster::start_with(3, 1, settings).await
}

fn read_only(process: &Process) -> Client {
    let mut client = Client::connect(process.client);
    client.check("READONLY", "+OK\r\n");
    client
}

/// Asks a node that isn't the owner until it answers itself.
fn mirrored(client: &mut Client, expected: &str) {
    wait_for("a mirror", || (client.ask("GET k") == expected).then_some(()));
}

#[expect(clippy::disallowed_methods, reason = "the bound is a time")]
fn now() -> Instant {
    Instant::now()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_mirror_is_never_older_than_the_bound() {
    let cluster = start(20).await;
    let owner = cluster.owner("k");
    let mut writer = cluster.client("k");
    let others: Vec<usize> = (0..3).filter(|number| *number != owner).collect();
    for number in others {
        let mut client = read_only(&cluster.nodes[&number]);
        writer.check("SET k 0", "+OK\r\n");
        mirrored(&mut client, "$1\r\n0\r\n");
        for round in 1..10 {
            writer.check(&format!("SET k {round}"), "+OK\r\n");
            let written = now();
            // As often as it can, until long after the bound.
            while written.elapsed() < 2 * STALENESS_MAX {
                let asked = written.elapsed();
                let reply = client.ask("GET k");
                let is_new = reply == format!("$1\r\n{round}\r\n") || reply.starts_with("-MOVED");
                assert!(
                    is_new || asked < STALENESS_MAX,
                    "{reply} asked for {asked:?} after the write"
                );
            }
        }
        // What is removed is gone, and what expires, too.
        writer.check("DEL k", ":1\r\n");
        mirrored(&mut client, "$-1\r\n");
        // Others see nothing of it.
        assert!(
            Client::connect(cluster.nodes[&number].client)
                .ask("GET k")
                .starts_with("-MOVED")
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_not_hot_or_wanted_is_moved() {
    let cluster = start(0).await;
    let owner = cluster.owner("k");
    cluster.client("k").check("SET k v", "+OK\r\n");
    let other = (0..3).find(|number| *number != owner).unwrap();
    let mut client = read_only(&cluster.nodes[&other]);
    for _ in 0..1000 {
        assert!(client.ask("GET k").starts_with("-MOVED"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn without_its_owner_a_mirror_ends() {
    let mut cluster = start(20).await;
    let owner = cluster.owner("k");
    cluster.client("k").check("SET k v", "+OK\r\n");
    let other = (0..3).find(|number| *number != owner).unwrap();
    let mut client = read_only(&cluster.nodes[&other]);
    mirrored(&mut client, "$1\r\nv\r\n");
    cluster.kill(owner);
    wait_for("the end of its time", || {
        client.ask("GET k").starts_with("-MOVED").then_some(())
    });
    for _ in 0..100 {
        assert!(client.ask("GET k").starts_with("-MOVED"));
    }
}
