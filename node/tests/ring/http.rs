//! Values over HTTP on a ring: any node answers for any key, while slots move and when their owner is gone.

use std::sync::atomic::{AtomicBool, Ordering};

use annulus_ring::{MemberState, Slot};

use crate::documents::{CLUSTER, document, handoff};
use crate::process::third;
use crate::processes::{Process, wait_for};
use crate::support::Client;
use crate::support::http::HttpClient;
use crate::tenants::{self, BOTH};

const KEYS: usize = 300;

async fn start(count: usize, owners: u16) -> (Vec<Process>, annulus_ring::RingDocument) {
    let api = ["--api-bind", "127.0.0.1:0"];
    let processes: Vec<Process> = (0..count).map(|number| Process::member(number, &api)).collect();
    let mut listed = Vec::new();
    for (number, process) in processes.iter().enumerate() {
        listed.push(process.listed(number).await);
    }
    let ring = document(1, &listed[..usize::from(owners)], owners);
    for process in &processes[..usize::from(owners)] {
        assert!(process.push(&ring).await.ready);
    }
    (processes, ring)
}

fn connect(process: &Process) -> HttpClient {
    HttpClient::connect(process.api.unwrap())
}

fn target(key: usize) -> String {
    format!("/v1/keys/key-{key}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn any_node_answers_for_any_key() {
    let (processes, _) = start(3, 3).await;
    let mut clients: Vec<HttpClient> = processes.iter().map(connect).collect();
    for key in 0..KEYS {
        let target = format!("{}?ttl_ms=600000", target(key));
        assert_eq!(
            clients[0]
                .put(&target, &[], format!("value-{key}").as_bytes())
                .status,
            204
        );
    }
    // They are where Redis clients look for them.
    let counts = processes
        .iter()
        .map(|process| Client::connect(process.client).ask("DBSIZE"));
    let counts: Vec<String> = counts.collect();
    assert!(counts.iter().all(|count| count != ":0\r\n"), "{counts:?}");
    for (number, http) in clients.iter_mut().enumerate() {
        for key in 0..KEYS {
            let got = http.ask("GET", &target(key), &[]);
            assert_eq!(got.status, 200, "key-{key} at n{number}");
            assert_eq!(got.body, format!("value-{key}").into_bytes());
            assert!(got.header("annulus-ttl-ms").is_some());
            let known = format!("If-None-Match: {}", got.tag());
            assert_eq!(http.ask("GET", &target(key), &[&known]).status, 304);
        }
    }
    for key in 0..30 {
        let tag = clients[1].ask("GET", &target(key), &[]).tag();
        let condition = format!("If-Match: {tag}");
        assert_eq!(clients[2].put(&target(key), &[&condition], b"new").status, 204);
        assert_eq!(clients[1].put(&target(key), &[&condition], b"newer").status, 412);
        assert_eq!(
            clients[0]
                .ask("DELETE", &target(key), &["If-Match: \"x\""])
                .status,
            412
        );
        assert_eq!(
            clients[0].put(&target(key), &["If-None-Match: *"], b"x").status,
            412
        );
        assert_eq!(clients[1].ask("DELETE", &target(key), &[]).status, 204);
        assert_eq!(clients[2].ask("GET", &target(key), &[]).problem(), "no-such-key");
    }
    // Values of many pieces.
    let value: Vec<u8> = (0..5_000_003_u32).map(|number| number.to_le_bytes()[1]).collect();
    for key in 1000..1004 {
        let put = clients[0].put(&target(key), &[], &value);
        assert_eq!(put.status, 204);
        let got = clients[1].ask("GET", &target(key), &[]);
        assert!(got.status == 200 && got.body == value, "key-{key}");
        let range = clients[2].ask("GET", &target(key), &["Range: bytes=4999999-"]);
        assert_eq!((range.status, &range.body[..]), (206, &value[4_999_999..]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn tenants_are_the_same_on_every_node() {
    let (processes, _) = start(3, 3).await;
    let tenants = tenants::document(CLUSTER, 1, &BOTH);
    for process in &processes {
        tenants::push(process, &tenants).await.unwrap();
    }
    let mut a: Vec<HttpClient> = processes.iter().map(connect).collect();
    let mut b: Vec<HttpClient> = processes.iter().map(connect).collect();
    for (a, b) in a.iter_mut().zip(&mut b) {
        a.authorization = Some("Basic YTph".to_owned());
        b.authorization = Some("Basic Yjpi".to_owned());
    }
    for key in 0..30 {
        assert_eq!(a[key % 3].put(&target(key), &[], b"of a").status, 204);
        for number in 0..3 {
            assert_eq!(a[number].ask("GET", &target(key), &[]).body, b"of a");
            assert_eq!(b[number].ask("GET", &target(key), &[]).status, 404);
            let mut open = connect(&processes[number]);
            assert_eq!(open.ask("GET", &target(key), &[]).status, 404);
        }
        assert_eq!(b[(key + 1) % 3].ask("DELETE", &target(key), &[]).status, 404);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_dead_owner_is_told_of_and_its_successor_answers() {
    let (mut processes, ring) = start(3, 3).await;
    let mut http = connect(&processes[0]);
    let of_dead = (0..10_000).find(|&key| {
        let slot = Slot::for_key(format!("key-{key}").as_bytes());
        ring.ring().owner(slot) == Some(&ring.members[1].id)
    });
    let target = target(of_dead.unwrap());
    assert_eq!(http.put(&target, &[], b"v").status, 204);
    drop(processes.remove(1));
    let got = http.ask("GET", &target, &[]);
    assert_eq!((got.status, got.problem().as_str()), (503, "unavailable"));
    assert!(got.header("retry-after").is_some());
    // Nobody was there to take it, so it is known that nothing was changed.
    assert_eq!(http.put(&target, &[], b"v").problem(), "unavailable");

    // While somebody waits, the ring changes.
    let survivors = [ring.members[0].clone(), ring.members[2].clone()];
    let next = document(2, &survivors, 2);
    let asked = AtomicBool::new(false);
    let put = std::thread::scope(|scope| {
        let put = scope.spawn(|| {
            asked.store(true, Ordering::Release);
            http.put(&target, &[], b"new").status
        });
        wait_for("the request", || asked.load(Ordering::Acquire).then_some(()));
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                for process in &processes {
                    process.push(&next).await;
                }
            });
        });
        put.join().unwrap()
    });
    assert_eq!(put, 204);
    for process in &processes {
        assert_eq!(connect(process).ask("GET", &target, &[]).body, b"new");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn while_slots_move_nobody_is_refused_and_nothing_is_lost() {
    let (processes, ring) = start(4, 3).await;
    let mut members = ring.members.clone();
    let mut newcomer = processes[3].listed(3).await;
    newcomer.state = MemberState::Joining;
    members.push(newcomer);
    let mut second = document(2, &members, 3);
    second.handoffs = vec![
        handoff("0-1364", 0, 3),
        handoff("5461-6825", 1, 3),
        handoff("10922-12286", 2, 3),
    ];
    let is_over = AtomicBool::new(false);
    let rounds: Vec<usize> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|number| {
                let (processes, is_over) = (&processes, &is_over);
                scope.spawn(move || {
                    let mut http = connect(&processes[number]);
                    let mut round = 0;
                    loop {
                        // The round that begins behind the end is the last.
                        let is_last = is_over.load(Ordering::Acquire);
                        round += 1;
                        for key in 0..KEYS {
                            let target = format!("/v1/keys/{number}-{key}");
                            let put = http.put(&target, &[], format!("{round}").as_bytes());
                            assert_eq!(put.status, 204, "{put:?}");
                            let got = http.ask("GET", &target, &[]);
                            assert_eq!((got.status, got.body), (200, format!("{round}").into_bytes()));
                        }
                        if is_last {
                            return round;
                        }
                    }
                })
            })
            .collect();
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                for process in &processes {
                    process.push(&second).await;
                }
                let mut reports = processes[3].watch(60_000).await;
                while !reports.message().await.unwrap().unwrap().settled {}
                let third = third(&second);
                for process in &processes {
                    assert!(process.push(&third).await.ready);
                }
            });
        });
        is_over.store(true, Ordering::Release);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let mut http = connect(&processes[3]);
    for (number, round) in rounds.iter().enumerate() {
        for key in 0..KEYS {
            let got = http.ask("GET", &format!("/v1/keys/{number}-{key}"), &[]);
            assert_eq!(got.body, round.to_string().into_bytes());
        }
    }
}
