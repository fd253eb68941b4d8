//! Two clusters never talk to each other, even when a pod of one gets the address that a pod of the other had.

use std::net::Ipv4Addr;

use annulus_crds::v1alpha1::{ConditionType, Reason};
use annulus_tests::{Cache, Peer, Test, TestNamespace, alone, figure, next_pod_ip, run, seconds, until};
use anyhow::{Context as _, Result, bail, ensure};
use kube::ResourceExt;
use tonic::Code;

use crate::small;

const KEYS: u32 = 500;
const ATTEMPTS: u32 = 5;

/// The members that a node exchanges epochs with, and whether they answer.
async fn peers(cache: &Cache<'_>, pod: &str) -> Result<Vec<(String, bool)>> {
    let page = cache.metrics(pod).await?;
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("annulus_peer_up{peer=\""));
    rows.map(|row| {
        let (peer, value) = row.split_once("\"}").context("a metric without a value")?;
        Ok((peer.to_owned(), value.trim() == "1"))
    })
    .collect()
}

async fn wait_for_next_life(cache: &Cache<'_>, pod: &str, old_uid: &str) -> Result<Ipv4Addr> {
    until(&format!("next life of {pod}"), seconds(60), async || {
        let pods = cache.pods().await?;
        let now = pods.get(pod).context("it is not there")?;
        ensure!(now.uid().as_deref() != Some(old_uid), "it is still the old one");
        cache.pod_ip(pod).await
    })
    .await
}

/// Deletes the pod and returns the address of its next life.
async fn next_life(cache: &Cache<'_>, pod: &str) -> Result<Ipv4Addr> {
    let uid = cache
        .pods()
        .await?
        .get(pod)
        .and_then(ResourceExt::uid)
        .context("no such pod")?;
    cache
        .kubectl(&["delete", "pod", pod, "--grace-period=1", "--wait=false"])
        .await?;
    wait_for_next_life(cache, pod, &uid).await
}

/// The Kubernetes node that a pod runs on.
async fn node_of(cache: &Cache<'_>, pod: &str) -> Result<String> {
    let pod = cache.pods().await?.remove(pod).context("no such pod")?;
    pod.spec.and_then(|spec| spec.node_name).context("no node")
}

/// The second one runs where the first one's pod 0 does: pods get their addresses from their node.
async fn two_clusters<'a>(
    first: &TestNamespace<'a>,
    second: &TestNamespace<'a>,
) -> Result<(Cache<'a>, Cache<'a>)> {
    let a = first.cache("alpha", &small(2, "")).await?;
    a.settled(2, seconds(90)).await?;
    let node = node_of(&a, "alpha-0").await?;
    let there = format!("scheduling: {{nodeSelector: {{kubernetes.io/hostname: {node}}}}}");
    let b = second.cache("beta", &small(2, &there)).await?;
    b.settled(2, seconds(90)).await?;
    Ok((a, b))
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused() {
    run("strangers", async |test| {
        let _alone = alone().await;
        let (first, second) = (test.namespace().await?, test.namespace().await?);
        let (a, b) = two_clusters(&first, &second).await?;
        let (ring_a, ring_b) = (a.document().await?, b.document().await?);
        ensure!(
            ring_a.cluster_uid != ring_b.cluster_uid,
            "two clusters share a UID"
        );
        for (cache, own) in [(&a, "alpha-"), (&b, "beta-")] {
            for pod in cache.pods().await?.into_keys() {
                until("own peers", seconds(20), async || {
                    let peers = peers(cache, &pod).await?;
                    let right =
                        peers.len() == 1 && peers.iter().all(|(peer, up)| *up && peer.starts_with(own));
                    ensure!(right, "{pod}: {peers:?}");
                    Ok(())
                })
                .await?;
            }
        }
        // What a node of the other cluster or its operator would say.
        let mut stranger = Peer::connect(b.pod_ip("beta-0").await?).await?;
        ensure!(
            stranger.exchange(&ring_a).await? == Code::FailedPrecondition,
            "an exchange was answered"
        );
        ensure!(
            stranger.push(&ring_a).await? == Code::FailedPrecondition,
            "a ring was taken"
        );
        let watched = stranger.watch(&ring_a.cluster_uid).await?;
        ensure!(watched == Code::FailedPrecondition, "a report was given");
        // The same from its own cluster is not.
        ensure!(
            stranger.exchange(&ring_b).await? == Code::Ok,
            "its own cluster is refused"
        );
        ensure!(
            stranger.push(&ring_b).await? == Code::Ok,
            "its own ring is refused"
        );
        ensure!(
            stranger.watch(&ring_b.cluster_uid).await? == Code::Ok,
            "its own operator is refused"
        );
        ensure!(b.document().await? == ring_b, "beta's ring has changed");
        b.agreed().await?;
        test.clean_up().await
    })
    .await;
}

/// Lets everybody through to the namespace's pods and out of it, so that what nodes refuse by themselves is seen.
async fn lift_the_fence(namespace: &TestNamespace<'_>) -> Result<()> {
    let policy = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: open}, \
        spec: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}}";
    namespace
        .test
        .kubernetes
        .apply(&namespace.name, policy)
        .await?
        .success()?;
    Ok(())
}

/// Gives beta-0 the address that alpha-0 has now, while alpha is paused. `None` where that can't be arranged.
async fn hand_address_over(test: &Test, a: &Cache<'_>, b: &Cache<'_>) -> Result<Option<Ipv4Addr>> {
    let address = a.pod_ip("alpha-0").await?;
    let node = node_of(a, "alpha-0").await?;
    ensure!(
        next_life(a, "alpha-0").await? != address,
        "alpha-0 got its own address again"
    );
    for attempt in 1..=ATTEMPTS {
        if !next_pod_ip(&test.kubernetes, &node, address)? {
            return Ok(None);
        }
        if next_life(b, "beta-0").await? == address {
            figure(
                "re-used address",
                format_args!("beta-0 got alpha-0's {address} at attempt {attempt}"),
            );
            return Ok(Some(address));
        }
    }
    bail!("{address} went to somebody else {ATTEMPTS} times")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reused_address_joins_nobody() {
    run("reused_address", async |test| {
        let _alone = alone().await;
        let (first, second) = (test.namespace().await?, test.namespace().await?);
        for namespace in [&first, &second] {
            lift_the_fence(namespace).await?;
        }
        let (a, b) = two_clusters(&first, &second).await?;
        // A paused cluster's ring keeps naming the address of alpha-0's first life.
        let paused = Reason::Paused.as_str();
        a.apply(&small(2, "pause: true")).await?.success()?;
        a.condition(ConditionType::Progressing, "False", paused, seconds(30))
            .await?;
        let stale = a.document().await?;
        let Some(address) = hand_address_over(test, &a, &b).await? else {
            figure(
                "re-used address",
                "not tried: the addresses of this cluster can't be chosen",
            );
            return Ok(());
        };

        // beta goes on with its own ring; alpha-1 knocks at the address, and is refused.
        let ring_b = b.settled(2, seconds(60)).await?;
        ensure!(
            a.document().await? == stale,
            "the ring of a paused cluster has changed"
        );
        until("refusal of alpha-1's exchange", seconds(30), async || {
            let log = b.kubectl(&["logs", "beta-0"]).await?;
            let refused = log.contains("refused another cluster's message") && log.contains("alpha-1");
            ensure!(refused, "beta-0 says: {log}");
            let peers = peers(&a, "alpha-1").await?;
            ensure!(
                peers == [("alpha-0".to_owned(), false)],
                "alpha-1 has an answer: {peers:?}"
            );
            Ok(())
        })
        .await?;
        for pod in ["beta-0", "beta-1"] {
            let peers = peers(&b, pod).await?;
            ensure!(
                peers.iter().all(|(peer, _)| peer.starts_with("beta-")),
                "{pod}: {peers:?}"
            );
        }
        // No client of alpha that follows its ring to that address gets in.
        ensure!(
            a.connect_to(address).await.is_err(),
            "alpha's password opens beta"
        );

        a.apply(&small(2, "")).await?.success()?;
        let healed = a.settled(2, seconds(60)).await?;
        ensure!(healed.cluster_uid == stale.cluster_uid, "alpha has another UID");
        let named = healed
            .members
            .iter()
            .any(|member| member.address.host == address.to_string());
        ensure!(!named, "alpha still names {address}");
        ensure!(b.document().await? == ring_b, "beta's ring has changed");
        a.agreed().await?;
        b.agreed().await?;

        let mut connection = b.connect().await?;
        b.fill(&mut connection, KEYS).await?;
        ensure!(b.missing(&mut connection, KEYS).await? == 0, "beta lost keys");
        let mut connection = a.connect().await?;
        let missing = a.missing(&mut connection, KEYS).await?;
        ensure!(missing == KEYS, "{} of beta's keys are in alpha", KEYS - missing);
        test.clean_up().await
    })
    .await;
}
