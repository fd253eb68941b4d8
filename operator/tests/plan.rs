//! The decisions: how many pods each StatefulSet is to have, when the first ring is made, and which pods are
//! replaced. One named row a case.
#![expect(clippy::type_complexity, reason = "rows of tables")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use annulus_operator::plan::{FIRST_RING_GRACE, Hold, Kept, RingStep, autoscale, desired, is_at_rest, plan};
use annulus_operator::view::{PodView, View};
use annulus_ring::{Epoch, Incarnation, RingDocument, Zone};
use support::views::{cluster, id, report, ringed, view};

/// The next document, given that everybody settles at once.
fn advanced(mut seen: View, spec: &str) -> View {
    loop {
        let RingStep::Next { document, .. } = plan(&cluster(spec), &seen).ring else {
            return seen;
        };
        for (node, report) in &mut seen.reports {
            report.epoch = document.epoch;
            let mine = document.handoffs.iter().filter(|handoff| handoff.to == *node);
            report.activated = mine.map(|handoff| handoff.slots).collect();
        }
        seen.document = Some(document);
    }
}

#[test]
fn no_stateful_set_shrinks_before_its_slots_have_left() {
    let left = advanced(ringed(3), "nodes: 2");
    assert!(left.document.as_ref().unwrap().member(&id("c-2")).is_none());
    let mut lost = view(3, 0);
    lost.epoch_told = Epoch(9);
    let rows: [(&str, View, &str, u16, Vec<Kept>); 6] = [
        ("nothing there yet", View::default(), "nodes: 3", 3, vec![]),
        ("as it is", ringed(3), "nodes: 3", 3, vec![]),
        ("more", ringed(3), "nodes: 5", 5, vec![]),
        (
            "fewer, slots still there",
            ringed(3),
            "nodes: 2",
            3,
            vec![Kept::Owns {
                id: id("c-2"),
                slots: 5461,
            }],
        ),
        ("fewer, slots have left", left, "nodes: 2", 2, vec![]),
        (
            "fewer, and the ring is not known",
            lost,
            "nodes: 2",
            3,
            vec![Kept::RingUnknown],
        ),
    ];
    for (name, seen, spec, replicas, kept) in rows {
        let plan = plan(&cluster(spec), &seen);
        assert_eq!(
            (plan.pools[0].replicas, &plan.pools[0].kept),
            (replicas, &kept),
            "{name}"
        );
    }
}

#[test]
fn a_pool_that_left_the_spec_stays_until_the_ring_does_not_need_it() {
    let spec = "pools: [{name: big, nodes: 1}]";
    let before = plan(&cluster(spec), &ringed(2));
    assert_eq!(
        (before.retired[0].name.as_str(), before.retired[0].kept.len()),
        ("c", 2)
    );
    assert_eq!(before.pools[0].pool.stateful_set, "c-big");

    let mut seen = ringed(2);
    seen.pods.insert(
        id("c-big-0"),
        PodView {
            ip: Some("10.0.0.9".parse().unwrap()),
            ready: true,
            ..PodView::default()
        },
    );
    seen.reports.insert(id("c-big-0"), report(9, 1));
    let after = plan(&cluster(spec), &advanced(seen, spec));
    assert_eq!(after.retired[0].kept, []);
}

#[test]
fn nodes_follow_the_memory_in_use() {
    let policy = "autoscaling: {minNodes: 2, maxNodes: 6, targetMemoryPercent: 75, cooldownSeconds: 60}";
    let rested = Duration::from_mins(1);
    // Nodes, percent in use on each of them, time at rest, nodes wanted.
    let rows: [(u8, u64, Duration, Option<u16>); 11] = [
        (3, 75, rested, None),
        (3, 76, rested, Some(4)),
        (3, 100, rested, Some(4)),
        (4, 100, rested, Some(6)),
        (6, 100, rested, None),
        (3, 76, Duration::from_secs(59), None),
        (4, 49, rested, None),
        (4, 48, rested, Some(3)),
        (2, 1, rested, None),
        (1, 1, Duration::ZERO, Some(2)),
        (7, 60, Duration::ZERO, Some(6)),
    ];
    for (nodes, percent, rested, expected) in rows {
        let cluster = cluster(&format!("nodes: {nodes}, {policy}"));
        let mut seen = ringed(nodes);
        for report in seen.reports.values_mut() {
            (report.used_bytes, report.budget_bytes) = (percent << 20, 100 << 20);
        }
        let wanted = autoscale(&cluster, &seen, rested).map(|resize| resize.nodes);
        assert_eq!(wanted, expected, "{nodes} nodes with {percent} % for {rested:?}");
        assert!(is_at_rest(&seen, &plan(&cluster, &seen)), "{nodes} nodes");
    }
    let mut silent = ringed(3);
    silent.reports.remove(&id("c-1"));
    let cluster = cluster(&format!("nodes: 3, {policy}"));
    assert!(!is_at_rest(&silent, &plan(&cluster, &silent)));
    // Nodes that have yet to tell.
    assert_eq!(autoscale(&cluster, &ringed(3), rested), None);
}

#[test]
fn the_first_ring_waits_for_everybody_and_then_for_nobody() {
    let answering = |nodes: &[u8], since: Option<Duration>| {
        let mut seen = view(3, 0);
        seen.reports
            .retain(|node, _| nodes.iter().any(|number| *node == id(&format!("c-{number}"))));
        seen.since_first_answer = since;
        seen
    };
    let rows = [
        ("nobody answers", answering(&[], None), None),
        (
            "one answers, just now",
            answering(&[1], Some(Duration::from_secs(1))),
            None,
        ),
        (
            "the others had their time",
            answering(&[1], Some(FIRST_RING_GRACE)),
            Some(1),
        ),
        (
            "everybody answers",
            answering(&[0, 1, 2], Some(Duration::ZERO)),
            Some(3),
        ),
        (
            "nobody answers any more",
            answering(&[], Some(FIRST_RING_GRACE)),
            None,
        ),
    ];
    for (name, seen, members) in rows {
        let step = plan(&cluster("nodes: 3"), &seen).ring;
        match members {
            None => assert!(matches!(step, RingStep::Waiting(_)), "{name}: {step:?}"),
            Some(members) => {
                let RingStep::Next { document, .. } = step else {
                    panic!("{name}: {step:?}")
                };
                assert_eq!(
                    (document.epoch, document.members.len()),
                    (Epoch(1), members),
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn a_lost_or_older_ring_is_put_back_before_anything_else() {
    let document = ringed(3).document.unwrap();
    let newer = RingDocument {
        epoch: Epoch(5),
        ..document.clone()
    };
    let nobody_knows = View {
        epoch_told: Epoch(7),
        ..view(3, 0)
    };
    let rows: [(&str, View, RingStep); 3] = [
        (
            "nodes have one, it was not read yet",
            view(3, 4),
            RingStep::Recovering,
        ),
        (
            "nodes have a newer one",
            View {
                document: Some(document),
                stored: true,
                ..view(3, 5)
            },
            RingStep::Recovering,
        ),
        (
            "it was read from a node",
            View {
                document: Some(newer.clone()),
                stored: false,
                ..view(3, 5)
            },
            RingStep::Restore(newer),
        ),
    ];
    for (name, seen, step) in rows {
        // Another spec, so that a plan which went on would show.
        assert_eq!(plan(&cluster("nodes: 2"), &seen).ring, step, "{name}");
    }
    let RingStep::Next { document, .. } = plan(&cluster("nodes: 3"), &nobody_knows).ring else {
        panic!()
    };
    assert_eq!(document.epoch, Epoch(8), "epochs only grow");
}

#[test]
fn pods_with_an_older_template_are_replaced_when_nothing_is_lost_or_one_by_one() {
    type Edit = fn(&mut View);
    let old =
        |seen: &mut View, node: &str| seen.pods.get_mut(&id(node)).unwrap().revision = Some("old".to_owned());
    let rows: [(&str, Edit, Vec<(&str, bool)>, Vec<Hold>); 7] = [
        ("all as they should be", |_| {}, vec![], vec![]),
        (
            "the newest revision is not known yet",
            |seen| seen.sets[0].revision = None,
            vec![],
            vec![],
        ),
        (
            "two serve",
            |seen| seen.sets[0].revision = Some("newer".to_owned()),
            vec![("c-0", true)],
            vec![
                Hold::Turn {
                    id: id("c-1"),
                    other: id("c-0"),
                },
                Hold::Turn {
                    id: id("c-2"),
                    other: id("c-0"),
                },
            ],
        ),
        (
            "one never served",
            |seen| {
                let pod = seen.pods.get_mut(&id("c-1")).unwrap();
                (pod.revision, pod.ready) = (Some("old".to_owned()), false);
                seen.reports.remove(&id("c-1"));
            },
            vec![("c-1", false)],
            vec![],
        ),
        (
            "one serves, another is not ready",
            |seen| {
                seen.pods.get_mut(&id("c-2")).unwrap().ready = false;
                seen.pods.get_mut(&id("c-0")).unwrap().revision = Some("old".to_owned());
            },
            vec![],
            vec![Hold::OtherNotReady {
                id: id("c-0"),
                other: id("c-2"),
            }],
        ),
        (
            "one serves, another is on its way out",
            |seen| {
                seen.pods.get_mut(&id("c-2")).unwrap().terminating = true;
                seen.pods.get_mut(&id("c-0")).unwrap().revision = Some("old".to_owned());
            },
            vec![],
            vec![Hold::OtherNotReady {
                id: id("c-0"),
                other: id("c-2"),
            }],
        ),
        (
            "one serves, the ring is changing",
            |seen| {
                seen.pods.get_mut(&id("c-0")).unwrap().revision = Some("old".to_owned());
                seen.reports.get_mut(&id("c-1")).unwrap().incarnation = Incarnation(99);
            },
            vec![],
            vec![Hold::RingChanging(id("c-0"))],
        ),
    ];
    for (name, edit, replaced, holds) in rows {
        let mut seen = ringed(3);
        edit(&mut seen);
        let plan = plan(&cluster("nodes: 3"), &seen);
        let chosen: Vec<_> = plan
            .replace
            .iter()
            .map(|pod| (pod.id.to_string(), pod.serving))
            .collect();
        let expected: Vec<_> = replaced
            .into_iter()
            .map(|(node, serving)| (node.to_owned(), serving))
            .collect();
        assert_eq!((chosen, plan.holds), (expected, holds), "{name}");
    }
    let mut seen = ringed(1);
    old(&mut seen, "c-0");
    assert_eq!(
        plan(&cluster("nodes: 1"), &seen).replace[0].uid,
        "uid-0",
        "the decision is about that very pod"
    );
}

#[test]
fn a_zone_is_where_the_pod_runs_or_else_where_the_ring_last_knew_it_or_else_the_pools() {
    let mut seen = ringed(3);
    seen.document.as_mut().unwrap().members[1].zone = Some(Zone("b".to_owned()));
    seen.pods.get_mut(&id("c-0")).unwrap().zone = Some(Zone("a".to_owned()));
    let zones: BTreeMap<_, _> = desired(&cluster("nodes: 3"), |node| seen.zone(node))
        .members
        .into_iter()
        .map(|member| (member.id.to_string(), member.zone.map(|zone| zone.0)))
        .collect();
    let expected = [("c-0", Some("a")), ("c-1", Some("b")), ("c-2", None)];
    assert_eq!(
        zones,
        expected
            .into_iter()
            .map(|(node, zone)| (node.to_owned(), zone.map(str::to_owned)))
            .collect()
    );

    let bound = desired(&cluster("pools: [{name: p, nodes: 1, zone: z}]"), |_| None);
    assert_eq!(bound.members[0].zone, Some(Zone("z".to_owned())));
}
