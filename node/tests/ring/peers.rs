//! What a node answers the operator and other nodes, and whom it refuses.

use std::time::Duration;

use annulus_node::routing::Routing;
use annulus_proto::v1;
use annulus_ring::{Access, Epoch, Slot};
use tokio::time::timeout;
use tonic::Code;

use crate::documents::{CLUSTER, document, handoff};
use crate::member::{TestMember, operator};

#[tokio::test]
async fn every_message_of_another_cluster_is_refused_before_anything_else() {
    let member = TestMember::start(0).await;
    let mut client = member.client().await;
    // The rest of the messages is nonsense on purpose: it must not even be looked at.
    let sender = || {
        Some(v1::Sender {
            cluster_uid: "c2".to_owned(),
            node_id: "??".to_owned(),
            ..v1::Sender::default()
        })
    };
    let document = "nonsense".into();
    let refused = [
        client
            .push_ring(v1::PushRingRequest {
                sender: sender(),
                document,
            })
            .await
            .err(),
        client
            .watch(v1::WatchRequest {
                sender: sender(),
                interval_ms: 0,
            })
            .await
            .err(),
        client
            .exchange(v1::ExchangeRequest { sender: sender() })
            .await
            .err(),
        client
            .fetch_ring(v1::FetchRingRequest { sender: sender() })
            .await
            .err(),
        client
            .prepare_slot(v1::PrepareSlotRequest {
                sender: sender(),
                slot: 99_999,
                freeze_ms: 0,
                has_copy: false,
            })
            .await
            .err(),
        client
            .commit_slot(v1::CommitSlotRequest {
                sender: sender(),
                slot: 99_999,
                freeze_id: 0,
            })
            .await
            .err(),
        client
            .publish(v1::PublishRequest {
                sender: sender(),
                publications: vec![v1::Publication::default()],
            })
            .await
            .err(),
    ];
    for status in refused {
        let status = status.unwrap();
        assert_eq!(
            (status.code(), status.message()),
            (
                Code::FailedPrecondition,
                r#"this node belongs to cluster c1, not to "c2""#
            )
        );
    }
}

#[tokio::test]
async fn malformed_messages_are_refused_with_the_reason() {
    let member = TestMember::start(0).await;
    let mut client = member.client().await;
    let node = || {
        Some(v1::Sender {
            node_id: "n1".to_owned(),
            incarnation: vec![0; 16].into(),
            ..operator(CLUSTER).unwrap()
        })
    };
    let prepare = |sender, slot| v1::PrepareSlotRequest {
        sender,
        slot,
        freeze_ms: 1,
        has_copy: false,
    };
    let refused = [
        (
            client.exchange(v1::ExchangeRequest { sender: None }).await.err(),
            Code::InvalidArgument,
            "no sender",
        ),
        (
            client
                .push_ring(v1::PushRingRequest {
                    sender: operator(CLUSTER),
                    document: "{".into(),
                })
                .await
                .err(),
            Code::InvalidArgument,
            "cannot be read",
        ),
        (
            client.prepare_slot(prepare(node(), 16_384)).await.err(),
            Code::InvalidArgument,
            "out of range",
        ),
        (
            client.prepare_slot(prepare(operator(CLUSTER), 1)).await.err(),
            Code::InvalidArgument,
            "only a node",
        ),
        (
            client
                .publish(v1::PublishRequest {
                    sender: operator(CLUSTER),
                    publications: Vec::new(),
                })
                .await
                .err(),
            Code::InvalidArgument,
            "only a node",
        ),
        (
            client.prepare_slot(prepare(node(), 1)).await.err(),
            Code::FailedPrecondition,
            "not in a handoff",
        ),
        (
            client
                .commit_slot(v1::CommitSlotRequest {
                    sender: node(),
                    slot: 1,
                    freeze_id: 1,
                })
                .await
                .err(),
            Code::Aborted,
            "not in force",
        ),
        (
            client
                .fetch_ring(v1::FetchRingRequest { sender: node() })
                .await
                .err(),
            Code::NotFound,
            "no ring yet",
        ),
    ];
    for (status, code, message) in refused {
        let status = status.unwrap();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(message), "{status}");
    }
}

#[tokio::test]
async fn pushed_rings_are_adopted_and_a_lower_epoch_learns_the_higher_one() {
    let member = TestMember::start(0).await;
    let mut client = member.client().await;
    for (pushed, expected) in [(4, 4), (2, 4), (4, 4), (5, 5)] {
        let document = document(pushed, std::slice::from_ref(&member.listed), 1)
            .to_json()
            .into();
        let report = client
            .push_ring(v1::PushRingRequest {
                sender: operator(CLUSTER),
                document,
            })
            .await
            .unwrap();
        let report = report.into_inner();
        assert_eq!(report.sender.unwrap().epoch, expected);
        assert!(report.ready && report.settled);
    }
    let mut other = document(9, std::slice::from_ref(&member.listed), 1);
    other.cluster_uid = "c2".parse().unwrap();
    let document = other.to_json().into();
    let status = client
        .push_ring(v1::PushRingRequest {
            sender: operator(CLUSTER),
            document,
        })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(member.state.epoch(), Epoch(5));
}

#[tokio::test]
async fn a_watcher_is_told_of_changes_long_before_the_next_interval() {
    let (source, target) = (TestMember::start(0).await, TestMember::start(1).await);
    let listed = [source.listed.clone(), target.listed.clone()];
    let request = v1::WatchRequest {
        sender: operator(CLUSTER),
        interval_ms: 60_000,
    };
    let mut reports = target.client().await.watch(request).await.unwrap().into_inner();
    let first = reports.message().await.unwrap().unwrap();
    assert_eq!((first.sender.unwrap().epoch, first.ready), (0, false));

    let mut moving = document(2, &listed, 1);
    moving.handoffs = vec![handoff("0-99", 0, 1)];
    source.adopt(&document(1, &listed, 1));
    source.adopt(&moving);
    target.adopt(&moving);
    let settled = async {
        loop {
            let report = reports.message().await.unwrap().unwrap();
            if report.settled {
                return report;
            }
        }
    };
    let report = timeout(Duration::from_secs(20), settled)
        .await
        .expect("settled is reported soon");
    assert_eq!(report.activated, [v1::SlotRange { first: 0, last: 99 }]);
}

#[tokio::test]
async fn a_node_that_the_operator_does_not_reach_gets_the_ring_from_a_peer() {
    let (informed, other) = (TestMember::start(0).await, TestMember::start(1).await);
    let listed = [informed.listed.clone(), other.listed.clone()];
    other.adopt(&document(1, &listed, 2));
    informed.adopt(&document(8, &listed, 2));
    other.wait("epoch 8", |progress| progress.epoch == Epoch(8)).await;
    // And a node that knows nobody is told by whoever knows it.
    let newcomer = TestMember::start(2).await;
    let listed = [
        informed.listed.clone(),
        other.listed.clone(),
        newcomer.listed.clone(),
    ];
    informed.adopt(&document(9, &listed, 2));
    for member in [&other, &newcomer] {
        member
            .wait("epoch 9", |progress| progress.epoch == Epoch(9))
            .await;
    }
    assert_eq!(informed.peers_up.lock().get("n1"), Some(&true));
}

#[tokio::test]
async fn a_node_of_another_cluster_at_a_member_s_address_is_left_alone() {
    let member = TestMember::start(0).await;
    let stranger = TestMember::start_in("c2", 1).await;
    // A pod of another cluster has got the address that n1 had, and even its name.
    let mut ours = document(2, &[member.listed.clone(), stranger.listed.clone()], 1);
    ours.handoffs = vec![handoff("0-9", 0, 1)];
    member.adopt(&document(1, &[member.listed.clone(), stranger.listed.clone()], 1));
    member.adopt(&ours);
    let mut theirs = document(7, std::slice::from_ref(&stranger.listed), 1);
    theirs.cluster_uid = "c2".parse().unwrap();
    // It owns what it owns of its own, and its ring lists our address in turn.
    stranger.adopt(&theirs);
    let down = async {
        while member.peers_up.lock().get("n1") != Some(&false) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), down)
        .await
        .expect("a stranger counts as down");
    assert_eq!(
        (member.state.epoch(), stranger.state.epoch()),
        (Epoch(2), Epoch(7))
    );
}

#[tokio::test]
async fn a_freeze_ends_when_its_target_goes_away() {
    let source = TestMember::start(0).await;
    let target = crate::documents::member(1, annulus_ring::Incarnation(7), 1, 1);
    let listed = [source.listed.clone(), target];
    let slot = Slot::new(5).unwrap();
    source.adopt(&document(1, &listed, 1));
    let mut moving = document(2, &listed, 1);
    moving.handoffs = vec![handoff("5-6", 0, 1)];
    source.adopt(&moving);
    let mut sender = operator(CLUSTER).unwrap();
    (sender.node_id, sender.incarnation) = (
        "n1".to_owned(),
        annulus_ring::Incarnation(7).to_bytes().to_vec().into(),
    );
    let request = |slot, freeze_ms| v1::PrepareSlotRequest {
        sender: Some(sender.clone()),
        slot,
        freeze_ms,
        has_copy: false,
    };

    // It got everything, and never commits: the freeze runs out.
    let mut client = source.client().await;
    let mut chunks = client.prepare_slot(request(5, 100)).await.unwrap().into_inner();
    assert!(chunks.message().await.unwrap().unwrap().freeze_id > 0);
    assert_eq!(source.write(slot, b"k", vec![]), Access::ReadOnly);
    wait_for_access(&source, slot).await;

    // It goes away in the middle of a large slot: the freeze ends long before its time.
    let large = Slot::new(6).unwrap();
    assert_eq!(
        source.write(large, b"large", vec![7; 64 << 20]),
        Access::ReadWrite
    );
    let mut chunks = client
        .prepare_slot(request(6, 60_000))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(chunks.message().await.unwrap().unwrap().freeze_id, 0);
    assert_eq!(source.write(large, b"k", vec![]), Access::ReadOnly);
    drop((chunks, client));
    wait_for_access(&source, large).await;
}

async fn wait_for_access(source: &TestMember, slot: Slot) {
    let thawed = async {
        while source.state.access(slot) != Access::ReadWrite {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), thawed)
        .await
        .expect("writes are accepted again");
}
