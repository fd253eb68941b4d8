//! The real program: how it ends, how it finds its ring, and slots on their way between processes.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};

use annulus_ring::{MemberState, RingDocument, Slot};

use crate::documents::{document, handoff, id, member};
use crate::processes::{Process, wait_for};
use crate::support::{Client, encode};

/// A client that is in the middle of a reply and doesn't read on.
fn stuck_client(process: &Process) -> Client {
    let mut client = Client::connect(process.client);
    client.send(encode(&[b"SET", b"large", &vec![b'v'; 8 << 20]]));
    client.expect("+OK\r\n");
    for _ in 0..8 {
        client.command("GET large");
    }
    let mut other = Client::connect(process.client);
    wait_for("the replies are under way", || {
        let stats = other.ask("INFO commandstats");
        stats.contains("cmdstat_get:").then_some(())
    });
    client
}

#[test]
fn the_first_signal_ends_the_process_cleanly() {
    for signal in ["TERM", "INT"] {
        let mut process = Process::standalone(&[]);
        assert_eq!(process.get("/readyz"), (200, "ready\n".to_owned()));
        let mut idle = Client::connect(process.client);
        assert_eq!(idle.ask("PING"), "+PONG\r\n");
        // Half a command: never to be finished.
        let mut half_open = Client::connect(process.client);
        half_open.send("*2\r\n$3\r\nGET\r\n$5\r\nab");
        process.signal(signal);
        assert_eq!(process.wait_for_exit().code(), Some(0), "{}", process.log());
        assert_eq!(idle.rest(), b"");
        assert!(TcpStream::connect(process.client).is_err());
    }
}

#[test]
fn while_it_stops_the_process_is_not_ready_and_a_second_signal_ends_it() {
    let mut process = Process::standalone(&["--shutdown-grace-ms", "600000"]);
    let stuck = stuck_client(&process);
    process.signal("TERM");
    wait_for("not ready", || {
        (process.get("/readyz") == (503, "not ready: stopping\n".to_owned())).then_some(())
    });
    assert_eq!(process.get("/healthz").0, 200);
    wait_for("no new clients", || {
        TcpStream::connect(process.client).is_err().then_some(())
    });
    process.signal("TERM");
    assert_eq!(process.wait_for_exit().code(), Some(1));
    drop(stuck);
}

#[test]
fn the_grace_period_bounds_the_end() {
    let mut process = Process::standalone(&["--shutdown-grace-ms", "100"]);
    let stuck = stuck_client(&process);
    process.signal("TERM");
    assert_eq!(process.wait_for_exit().code(), Some(0));
    assert!(
        process.log().contains("cut off at the end of the grace period"),
        "{}",
        process.log()
    );
    drop(stuck);
}

#[test]
fn wrong_usage_says_what_to_write_and_ends_with_2() {
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_annulus-node"))
            .args(arguments)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let table: [(&[&str], i32, &str); 4] = [
        (
            &["serve", "--node-id", "n0"],
            2,
            "--node-id needs --cluster-uid too",
        ),
        (&["serve", "--log-level", "=="], 2, "write error, warn, info"),
        (
            &["serve", "--password-file", "/nowhere/password"],
            2,
            "can't read --password-file /nowhere/password",
        ),
        (
            &["serve", "--bind", "192.0.2.1:1"],
            1,
            "can't listen on 192.0.2.1:1, given by --bind",
        ),
    ];
    for (arguments, code, expected) in table {
        let (found, message) = run(arguments);
        assert_eq!(found, Some(code), "{arguments:?}: {message}");
        assert!(message.contains(expected), "{arguments:?}: {message}");
    }
}

#[test]
fn the_password_is_asked_for_and_never_logged() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "sesame-7f3\n").unwrap();
    let process = Process::standalone(&["--password-file", file.to_str().unwrap(), "--log-level", "trace"]);
    let mut client = Client::connect(process.client);
    assert!(client.ask("GET k").starts_with("-NOAUTH"));
    assert!(client.ask("AUTH wrong").starts_with("-WRONGPASS"));
    assert_eq!(client.ask("AUTH sesame-7f3"), "+OK\r\n");
    assert!(!process.log().contains("sesame"), "{}", process.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_member_finds_its_ring_in_the_file_and_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let (ring, data) = (folder.path().join("ring.json"), folder.path().join("data"));
    std::fs::create_dir(&data).unwrap();
    let flags = [
        "--ring-file",
        ring.to_str().unwrap(),
        "--data-dir",
        data.to_str().unwrap(),
    ];
    let process = Process::member(0, &flags);
    assert_eq!(
        process.get("/readyz"),
        (503, "not ready: no ring yet\n".to_owned())
    );
    assert!(
        Client::connect(process.client)
            .ask("GET k")
            .starts_with("-CLUSTERDOWN")
    );
    let listed = process.listed(0).await;
    // The kubelet replaces what a link leads to.
    std::fs::write(folder.path().join("1"), document(1, &[listed], 1).to_json()).unwrap();
    std::os::unix::fs::symlink("1", &ring).unwrap();
    wait_for("ready", || (process.get("/readyz").0 == 200).then_some(()));
    assert_eq!(Client::connect(process.client).ask("SET k v"), "+OK\r\n");
    wait_for("the ring is kept", || std::fs::read(data.join("ring.json")).ok());
    drop(process);

    // Another life of the same node: it knows the ring, and serves nothing by it.
    let process = Process::member(0, &flags);
    let (status, why) = process.get("/readyz");
    assert_eq!(
        (status, why.as_str()),
        (
            503,
            "not ready: the ring of epoch 1 does not list this life of the node\n"
        )
    );
    assert!(
        Client::connect(process.client)
            .ask("GET k")
            .starts_with("-CLUSTERDOWN")
    );
}

/// A cluster client: follows MOVED, and tries again where it is told to.
struct ClusterClient {
    connections: BTreeMap<SocketAddr, Client>,
    first: SocketAddr,
    moved: u32,
}

impl ClusterClient {
    fn new(first: SocketAddr) -> Self {
        Self {
            connections: BTreeMap::new(),
            first,
            moved: 0,
        }
    }

    fn ask(&mut self, words: &str) -> String {
        wait_for(words, || {
            let mut address = self.first;
            // Between commit and activation the two nodes name each other for a moment.
            for _ in 0..4 {
                let connection = self
                    .connections
                    .entry(address)
                    .or_insert_with(|| Client::connect(address));
                let reply = connection.ask(words);
                let Some(moved) = reply.strip_prefix("-MOVED ") else {
                    return (!reply.starts_with("-TRYAGAIN")).then_some(reply);
                };
                address = moved.trim_end().split_once(' ').unwrap().1.parse().unwrap();
                self.moved += 1;
            }
            None
        })
    }
}

const KEYS: usize = 2000;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn three_processes_give_a_fourth_its_share_and_every_key_stays_readable() {
    let processes: Vec<Process> = (0..4).map(|number| Process::member(number, &[])).collect();
    let mut listed = Vec::new();
    for (number, process) in processes.iter().enumerate() {
        listed.push(process.listed(number).await);
    }
    let first = document(1, &listed[..3], 3);
    for process in &processes[..3] {
        let report = process.push(&first).await;
        assert!(report.ready, "{report:?}");
        assert_eq!(process.get("/readyz").0, 200);
    }
    let mut client = ClusterClient::new(processes[0].client);
    for key in 0..KEYS {
        assert_eq!(client.ask(&format!("SET key-{key} value-{key}")), "+OK\r\n");
    }
    assert!(client.moved > 0);

    // The newcomer is to get the first quarter of everybody's arc.
    listed[3].state = MemberState::Joining;
    let mut second = document(2, &listed, 3);
    second.handoffs = vec![
        handoff("0-1364", 0, 3),
        handoff("5461-6825", 1, 3),
        handoff("10922-12286", 2, 3),
    ];
    let mut reports = processes[3].watch(60_000).await;
    for process in &processes {
        process.push(&second).await;
    }
    assert!(processes[3].get("/readyz").1.contains("joining at epoch 2"));
    // While slots move: reads and writes go on.
    for key in 0..KEYS {
        assert_eq!(
            client.ask(&format!("GET key-{key}")),
            bulk(&format!("value-{key}"))
        );
        assert_eq!(client.ask(&format!("SET key-{key} changed-{key}")), "+OK\r\n");
    }
    let settled = async {
        loop {
            let report = reports.message().await.unwrap().unwrap();
            if report.settled && report.sender.as_ref().unwrap().epoch == 2 {
                return report;
            }
        }
    };
    let report = tokio::time::timeout(crate::processes::PATIENCE, settled)
        .await
        .unwrap();
    assert_eq!(
        report
            .activated
            .iter()
            .map(|range| range.last - range.first + 1)
            .sum::<u32>(),
        3 * 1365
    );

    let third = third(&second);
    for process in &processes {
        assert!(process.push(&third).await.ready);
    }
    client.moved = 0;
    for key in 0..KEYS {
        assert_eq!(
            client.ask(&format!("GET key-{key}")),
            bulk(&format!("changed-{key}"))
        );
    }
    assert!(client.moved > 0);
    check_redirections(&processes, &third);
    let (_, metrics) = processes[3].get("/metrics");
    assert!(
        metrics.contains("annulus_handoff_slots_total{direction=\"in\"} 4095\n"),
        "{metrics}"
    );
    assert!(metrics.contains("annulus_slots_owned 4095\n"), "{metrics}");
    for mut process in processes {
        process.signal("TERM");
        assert_eq!(process.wait_for_exit().code(), Some(0), "{}", process.log());
    }
}

/// The handoffs done: the newcomer owns what it has been given.
pub fn third(second: &RingDocument) -> RingDocument {
    let mut third = second.clone();
    third.epoch.0 = 3;
    third.handoffs.clear();
    third.members[3].state = MemberState::Active;
    let tokens = [1364, 6825, 12_286].map(|number| Slot::new(number).unwrap());
    third.tokens.insert(id(3), tokens.to_vec());
    RingDocument::from_json(third.to_json().as_bytes()).unwrap()
}

/// Every process names the owner of every slot, or serves it.
fn check_redirections(processes: &[Process], document: &RingDocument) {
    let keys: Vec<String> = (0..100).map(|key| format!("key-{key}")).collect();
    for (number, process) in processes.iter().enumerate() {
        let mut client = Client::connect(process.client);
        for key in &keys {
            let slot = Slot::for_key(key.as_bytes());
            let ring = document.ring();
            let owner = document.member(ring.owner(slot).unwrap()).unwrap();
            let reply = client.ask(&format!("EXISTS {key}"));
            if owner.id == id(number) {
                assert_eq!(reply, ":1\r\n", "{key} at n{number}");
            } else {
                let expected = format!("-MOVED {slot} 127.0.0.1:{}\r\n", owner.address.client_port);
                assert_eq!(reply, expected, "{key} at n{number}");
            }
        }
    }
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_source_that_dies_in_a_handoff_leaves_the_target_waiting_and_saying_so() {
    let (source, target) = (Process::member(0, &[]), Process::member(1, &[]));
    let listed = [source.listed(0).await, target.listed(1).await];
    source.push(&document(1, &listed, 1)).await;
    let mut moving = document(2, &listed, 1);
    moving.handoffs = vec![handoff("0-99", 0, 1)];
    drop(source);
    let mut reports = target.watch(100).await;
    target.push(&moving).await;
    let waits = async {
        loop {
            let report = reports.message().await.unwrap().unwrap();
            assert!(
                !report.settled || report.sender.unwrap().epoch < 2,
                "nothing was handed over"
            );
            if report.handoff_waits.starts_with("slots from n0 wait: slot ") {
                return;
            }
        }
    };
    tokio::time::timeout(crate::processes::PATIENCE, waits)
        .await
        .unwrap();
    // The operator gives the dead member's slots to the living one.
    let mut last = document(
        3,
        &[listed[1].clone(), member(2, annulus_ring::Incarnation(1), 1, 1)],
        1,
    );
    last.members.truncate(1);
    let report = target.push(&last).await;
    assert!(report.settled && report.handoff_waits.is_empty(), "{report:?}");
    assert_eq!(Client::connect(target.client).ask("SET k v"), "+OK\r\n");
}
