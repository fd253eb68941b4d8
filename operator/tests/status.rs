//! What the conditions say, one named row a situation; and that a status stands still while nothing changes.
#![expect(
    clippy::unwrap_used,
    clippy::too_many_lines,
    clippy::type_complexity,
    reason = "tests: helpers may panic, tables may be long and wide"
)]

mod support;

use annulus_crds::v1alpha1::CacheClusterStatus;
use annulus_operator::plan::plan;
use annulus_operator::status::{Obstacle, Outcome, status};
use annulus_operator::validate::{Installation, validate};
use annulus_operator::view::View;
use annulus_ring::{Epoch, Incarnation, MemberState};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use support::views::{cluster, id, ringed, view};

fn at(seconds: i64) -> Time {
    Time(Timestamp::from_second(seconds).unwrap())
}

fn told(spec: &str, view: &View, obstacle: Option<Obstacle>) -> CacheClusterStatus {
    let cluster = cluster(spec);
    let plan = plan(&cluster, view);
    let outcome = Outcome::Seen {
        cluster: &cluster,
        view,
        plan: &plan,
        obstacle,
    };
    status(&CacheClusterStatus::default(), 4, &outcome, &at(1))
}

fn conditions(status: &CacheClusterStatus) -> [String; 3] {
    let row = |type_: &str| {
        let condition = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == type_)
            .unwrap();
        format!("{} {}: {}", condition.status, condition.reason, condition.message)
    };
    [row("Ready"), row("Progressing"), row("Degraded")]
}

#[test]
fn each_situation_has_its_words() {
    type Edit = fn(&mut View);
    const FINE: &str = "False AsSpecified: nothing that the spec asks for is missing";
    let silent: Edit = |seen| {
        seen.reports.remove(&id("c-1"));
    };
    let rows: [(&str, &str, View, Edit, Option<Obstacle>, [&str; 3]); 12] = [
        (
            "at rest",
            "nodes: 3",
            ringed(3),
            |_| {},
            None,
            [
                "True AsSpecified: all slots are served by 3 nodes",
                "False AsSpecified: the cluster is as the spec says",
                FINE,
            ],
        ),
        (
            "nothing there yet",
            "nodes: 2",
            View::default(),
            |_| {},
            None,
            [
                "False WaitingForNodes: no ring yet: waiting for c-0, c-1",
                "True WaitingForNodes: no ring yet: waiting for c-0, c-1",
                FINE,
            ],
        ),
        (
            "an image that can't be pulled",
            "nodes: 2",
            view(2, 0),
            |seen| {
                seen.reports.clear();
                seen.pods.get_mut(&id("c-0")).unwrap().trouble = Some("can't pull image x:1".to_owned());
            },
            None,
            [
                "False WaitingForNodes: no ring yet: waiting for c-0, c-1 (c-0: can't pull image x:1)",
                "True WaitingForNodes: no ring yet: waiting for c-0, c-1 (c-0: can't pull image x:1)",
                FINE,
            ],
        ),
        (
            "everybody answers",
            "nodes: 2",
            view(2, 0),
            |_| {},
            None,
            [
                "False RingNotCreated: every node answers, the first ring is being made",
                "True RingNotCreated: every node answers, the first ring is being made",
                FINE,
            ],
        ),
        (
            "a member is silent",
            "nodes: 3",
            ringed(3),
            silent,
            None,
            [
                "False NodeUnreachable: 5461 slots are not served: no answer from c-1",
                "True WaitingForNodes: waiting for c-1",
                "True NodeUnreachable: 5461 slots are not served: no answer from c-1",
            ],
        ),
        (
            "a node has an older ring",
            "nodes: 3",
            ringed(3),
            |seen| {
                seen.document.as_mut().unwrap().epoch = Epoch(2);
                seen.reports.get_mut(&id("c-0")).unwrap().epoch = Epoch(2);
                seen.reports.get_mut(&id("c-1")).unwrap().epoch = Epoch(2);
            },
            None,
            [
                "False DistributingRing: epoch 2 has not reached c-2",
                "True DistributingRing: epoch 2 has not reached c-2",
                FINE,
            ],
        ),
        (
            "a newcomer is awaited",
            "nodes: 3",
            ringed(2),
            |_| {},
            None,
            [
                "False WaitingForNodes: waiting for c-2",
                "True WaitingForNodes: c-2 does not answer yet",
                FINE,
            ],
        ),
        (
            "a newcomer is being filled",
            "nodes: 3",
            ringed(3),
            |seen| {
                seen.document.as_mut().unwrap().members[2].state = MemberState::Joining;
                seen.reports.get_mut(&id("c-2")).unwrap().ready = false;
            },
            None,
            [
                "False MovingSlots: being filled: c-2",
                "True MovingSlots: c-2 has its share of the ring",
                FINE,
            ],
        ),
        (
            "a member restarted",
            "nodes: 3",
            ringed(3),
            |seen| {
                seen.reports.get_mut(&id("c-1")).unwrap().incarnation = Incarnation(77);
            },
            None,
            [
                "False WaitingForNodes: waiting for c-1",
                "True MovingSlots: c-1 restarted, its 5461 slots are empty now",
                FINE,
            ],
        ),
        (
            "copies are asked for",
            "nodes: 3, replication: {factor: 2}",
            ringed(3),
            |seen| {
                seen.document.as_mut().unwrap().replication_factor = 2;
            },
            None,
            [
                "True AsSpecified: all slots are served by 3 nodes",
                "True CopiesMissing: c-0 is still being given copies of 5461 slots; c-1 is still being given copies of 5467 \
                 slots; c-2 is still being given copies of 5456 slots",
                "True CopiesMissing: 16384 of 16384 slots have fewer than 2 copies: c-0 is still being given copies of 5461 \
                 slots; c-1 is still being given copies of 5467 slots; c-2 is still being given copies of 5456 slots",
            ],
        ),
        (
            "paused",
            "nodes: 3, pause: true",
            ringed(3),
            |_| {},
            Some(Obstacle::Paused),
            [
                "True AsSpecified: all slots are served by 3 nodes",
                "False Paused: pause is true: the operator changes nothing until it is false or removed",
                FINE,
            ],
        ),
        (
            "refused while it serves",
            "nodes: 3",
            ringed(3),
            |_| {},
            Some(Obstacle::ApplyFailed("no".to_owned())),
            [
                "True AsSpecified: all slots are served by 3 nodes",
                "False ApplyFailed: no",
                "True ApplyFailed: no",
            ],
        ),
    ];
    for (name, spec, mut seen, edit, obstacle, expected) in rows {
        edit(&mut seen);
        let found = conditions(&told(spec, &seen, obstacle));
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                expected == "*" || found == expected,
                "{name}:\n  {found}\nshould be\n  {expected}"
            );
        }
    }
}

#[test]
fn progress_of_a_handoff_is_no_reason_to_write() {
    let spec = "nodes: 2";
    let mut seen = ringed(3);
    let annulus_operator::plan::RingStep::Next { document, .. } = plan(&cluster(spec), &seen).ring else {
        panic!()
    };
    seen.reports.values_mut().for_each(|report| {
        report.epoch = document.epoch;
        report.settled = false;
    });
    let handoff = document.handoffs[0].clone();
    seen.document = Some(document);
    let before = told(spec, &seen, None);
    seen.reports
        .get_mut(&handoff.to)
        .unwrap()
        .activated
        .insert(handoff.slots.first);
    assert_eq!(told(spec, &seen, None), before);
    assert!(before.ring.unwrap().slots_to_move > 0);
}

#[test]
fn rows_and_counts_speak_of_pods_and_members() {
    let mut seen = ringed(3);
    seen.pods.remove(&id("c-2"));
    seen.reports.remove(&id("c-2"));
    let mut newcomer = seen.pods[&id("c-0")].clone();
    newcomer.ready = false;
    seen.pods.insert(id("c-3"), newcomer);
    let status = told("nodes: 4", &seen, None);
    let rows: Vec<_> = status
        .members
        .iter()
        .map(|row| (row.name.as_str(), row.state.as_str(), row.slots, row.ready))
        .collect();
    assert_eq!(
        rows,
        [
            ("c-0", "active", 5462, true),
            ("c-1", "active", 5461, true),
            ("c-2", "active", 5461, false),
            ("c-3", "pending", 0, false)
        ]
    );
    assert_eq!((status.nodes, status.ready_nodes, status.ring_epoch), (3, 2, 1));
    assert_eq!(status.endpoint, "c.n.svc:6379");
    assert_eq!(
        status.selector,
        "annulus.dev/cluster=c,app.kubernetes.io/name=annulus"
    );
    assert_eq!(status.observed_generation, Some(4));
}

#[test]
fn a_transition_has_its_time_and_nothing_else_does() {
    let cluster = cluster("nodes: 3");
    let step = |previous: &CacheClusterStatus, seen: &View, now: i64| {
        let plan = plan(&cluster, seen);
        status(
            previous,
            1,
            &Outcome::Seen {
                cluster: &cluster,
                view: seen,
                plan: &plan,
                obstacle: None,
            },
            &at(now),
        )
    };
    let healthy = ringed(3);
    let mut broken = ringed(3);
    broken.reports.remove(&id("c-1"));
    let first = step(&CacheClusterStatus::default(), &healthy, 10);
    assert_eq!(
        step(&first, &healthy, 20),
        first,
        "nothing changed, so nothing is written"
    );
    let second = step(&first, &broken, 30);
    let times: Vec<_> = second
        .conditions
        .iter()
        .map(|condition| condition.last_transition_time.clone())
        .collect();
    assert_eq!(times, [at(30), at(30), at(30)]);
    broken.pods.get_mut(&id("c-1")).unwrap().trouble = Some("crashes".to_owned());
    let third = step(&second, &broken, 40);
    assert_ne!(third, second, "the message is another one");
    assert_eq!(third.conditions[0].last_transition_time, at(30));
}

#[test]
fn an_invalid_spec_keeps_the_facts_and_says_what_to_write() {
    let before = told("nodes: 3", &ringed(3), None);
    let text = "{apiVersion: annulus.dev/v1alpha1, kind: CacheCluster, metadata: {name: c, namespace: n, uid: u-1}, spec: {nodes: 0}}";
    let installation = Installation {
        node_image: Some("node:1".to_owned()),
        ..Installation::default()
    };
    let invalid = validate(&serde_yaml::from_str(text).unwrap(), &installation).unwrap_err();
    let after = status(&before, 5, &Outcome::Invalid(&invalid), &at(9));
    assert_eq!(
        (&after.members, after.ring_epoch, after.observed_generation),
        (&before.members, 1, Some(5))
    );
    let [ready, ..] = conditions(&after);
    assert_eq!(
        ready,
        "False InvalidSpec: the spec is not usable, and nothing is changed until it is corrected: spec.nodes: must be 1 to 200; to stop a cluster, delete it"
    );
}
