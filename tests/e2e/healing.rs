//! What belongs to a cluster comes back when it is deleted, and is put right when it is edited.

use annulus_tests::{Cache, figure, run, seconds, until};
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use tokio::time::Instant;

use super::small;

const KEYS: u32 = 300;

async fn deleted_object_comes_back(cache: &Cache<'_>, kind: &str, name: &str) -> Result<()> {
    let key = (kind.to_owned(), name.to_owned());
    let before = cache.owned().await?;
    let old = before
        .get(&key)
        .with_context(|| format!("{kind} {name} is not owned"))?;
    let epoch = cache.document().await?.epoch;
    let lives = cache.lives().await?;
    let mut connection = cache.connect().await?;
    cache.fill(&mut connection, KEYS).await?;

    let begin = Instant::now();
    cache.kubectl(&["delete", kind, name, "--wait=false"]).await?;
    until(&format!("{kind} {name} made again"), seconds(60), async || {
        let now = cache.owned().await?;
        let new = now.get(&key).context("it is not there")?;
        ensure!(new.uid != old.uid, "it is still the old one");
        Ok(())
    })
    .await?;
    let again = begin.elapsed();
    cache.ready(seconds(90)).await?;
    let document = cache.settled(3, seconds(90)).await?;
    ensure!(
        document.epoch >= epoch,
        "epoch {} came after {epoch}",
        document.epoch
    );

    // A new password reaches the nodes through the kubelet, which takes its time with mounted Secrets.
    until(
        "every node accepts the present password",
        seconds(150),
        async || {
            cache.agreed().await?;
            Ok(())
        },
    )
    .await?;
    let mut connection = cache.connect().await?;
    let missing = cache.missing(&mut connection, KEYS).await?;
    let same_pods = cache.lives().await? == lives;
    if kind == "StatefulSet" {
        // Its pods went with it, and their data with them.
        cache.fill(&mut connection, KEYS).await?;
    } else {
        ensure!(same_pods, "deleting the {kind} restarted pods");
        ensure!(missing == 0, "deleting the {kind} lost {missing} of {KEYS} keys");
        ensure!(
            document.epoch == epoch,
            "deleting the {kind} moved the epoch from {epoch} to {}",
            document.epoch
        );
    }
    figure(
        &format!("deleted {kind} {name}"),
        format_args!(
            "there again after {:.1} s, usable after {:.1} s, {missing} of {KEYS} keys lost",
            again.as_secs_f64(),
            begin.elapsed().as_secs_f64()
        ),
    );
    let now = cache.owned().await?;
    ensure!(
        now.keys().eq(before.keys()),
        "owned objects were {:?}, are {:?}",
        before.keys(),
        now.keys()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_objects_come_back() {
    run("deleted_objects", async |test| {
        let namespace = test.namespace().await?;
        let cache = namespace.ready_cache("demo", &small(3, "")).await?;
        let owned = cache.owned().await?;
        for (kind, name) in [
            ("ConfigMap", "demo-ring"),
            ("PodDisruptionBudget", "demo"),
            ("Service", "demo"),
            ("Service", "demo-nodes"),
            ("ServiceAccount", "demo"),
            ("StatefulSet", "demo"),
        ] {
            ensure!(
                owned.contains_key(&(kind.to_owned(), name.to_owned())),
                "no {kind} {name} in {:?}",
                owned.keys()
            );
        }
        // Whatever is owned, so that a kind that a later version adds is not forgotten; the Secret has its own test.
        for (kind, name) in owned.keys().filter(|(kind, _)| kind != "Secret") {
            deleted_object_comes_back(&cache, kind, name)
                .await
                .with_context(|| format!("{kind} {name}"))?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_password_comes_back_and_is_accepted() {
    run("deleted_password", async |test| {
        let namespace = test.namespace().await?;
        let cache = namespace.ready_cache("demo", &small(3, "")).await?;
        deleted_object_comes_back(&cache, "Secret", "demo-auth").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orphaned_pods_are_adopted_without_a_restart() {
    run("orphaned_pods", async |test| {
        let namespace = test.namespace().await?;
        let cache = namespace.ready_cache("demo", &small(3, "")).await?;
        let lives = cache.lives().await?;
        let epoch = cache.document().await?.epoch;
        let mut connection = cache.connect().await?;
        cache.fill(&mut connection, KEYS).await?;
        let sets: Api<StatefulSet> = cache.api();
        let old = sets.get("demo").await?.metadata.uid;
        cache
            .kubectl(&["delete", "statefulset", "demo", "--cascade=orphan"])
            .await?;
        until("StatefulSet made again with its pods", seconds(60), async || {
            let set = sets.get("demo").await?;
            ensure!(set.metadata.uid != old, "it is still the old one");
            let status = set.status.context("no status")?;
            ensure!(
                status.replicas == 3 && status.ready_replicas == Some(3),
                "{status:?}"
            );
            Ok(())
        })
        .await?;
        cache.ready(seconds(60)).await?;
        ensure!(cache.lives().await? == lives, "pods were replaced or restarted");
        ensure!(cache.document().await?.epoch == epoch, "the epoch moved");
        ensure!(cache.missing(&mut connection, KEYS).await? == 0, "keys were lost");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_by_hand_are_put_right() {
    run("edits_by_hand", async |test| {
        let namespace = test.namespace().await?;
        let cache = namespace.ready_cache("demo", &small(3, "")).await?;
        let sets: Api<StatefulSet> = cache.api();
        let services: Api<Service> = cache.api();
        let wanted_set = sets.get("demo").await?.spec.context("no spec")?;
        let wanted_service = services.get("demo").await?.spec.context("no spec")?;
        let container = wanted_set
            .template
            .spec
            .as_ref()
            .context("no pod spec")?
            .containers[0]
            .name
            .clone();
        let lives = cache.lives().await?;

        let image = format!("{container}=example.com/not-this:1");
        let edits: [(&str, Vec<&str>); 7] = [
            ("image", vec!["set", "image", "statefulset/demo", &image]),
            (
                "environment",
                vec!["set", "env", "statefulset/demo", "ADDED_BY_HAND=1"],
            ),
            ("more replicas", vec!["scale", "statefulset/demo", "--replicas=4"]),
            (
                "update strategy",
                vec![
                    "patch",
                    "statefulset/demo",
                    "--type=merge",
                    "--patch",
                    r#"{"spec":{"updateStrategy":{"type":"RollingUpdate"}}}"#,
                ],
            ),
            (
                "selector",
                vec![
                    "patch",
                    "service/demo",
                    "--type=merge",
                    "--patch",
                    r#"{"spec":{"selector":{"annulus.dev/cluster":"other"}}}"#,
                ],
            ),
            (
                "added selector",
                vec![
                    "patch",
                    "service/demo",
                    "--type=merge",
                    "--patch",
                    r#"{"spec":{"selector":{"added":"by-hand"}}}"#,
                ],
            ),
            (
                "ports",
                vec![
                    "patch",
                    "service/demo",
                    "--type=json",
                    "--patch",
                    r#"[{"op":"replace","path":"/spec/ports/0/targetPort","value":1}]"#,
                ],
            ),
        ];
        for (what, edit) in &edits {
            let begin = Instant::now();
            cache.kubectl(edit).await.with_context(|| (*what).to_owned())?;
            until(&format!("{what} put right"), seconds(30), async || {
                let set = sets.get("demo").await?.spec.context("no spec")?;
                ensure!(
                    set == wanted_set,
                    "the StatefulSet is {set:?}, not {wanted_set:?}"
                );
                let service = services.get("demo").await?.spec.context("no spec")?;
                ensure!(
                    service == wanted_service,
                    "the Service is {service:?}, not {wanted_service:?}"
                );
                Ok(())
            })
            .await?;
            figure(
                &format!("edit by hand, {what}"),
                format_args!("put right after {:.1} s", begin.elapsed().as_secs_f64()),
            );
        }
        cache.settled(3, seconds(60)).await?;
        until("only the three pods left", seconds(60), async || {
            let now = cache.lives().await?;
            ensure!(now == lives, "pods were {lives:?}, are {now:?}");
            Ok(())
        })
        .await?;
        cache.agreed().await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_that_was_set_back_by_hand_is_stored_again() {
    run("ring_set_back", async |test| {
        let namespace = test.namespace().await?;
        let cache = namespace.ready_cache("demo", &small(2, "")).await?;
        // Another epoch, so that there is an older one.
        let old = cache.document().await?.to_json();
        cache.apply(&small(3, "")).await?.success()?;
        let document = cache.settled(3, seconds(90)).await?;
        let lives = cache.lives().await?;
        for (what, text) in [
            ("an older ring", old.as_str()),
            ("no ring at all", "{}"),
            ("nonsense", "nonsense"),
        ] {
            let patch = serde_json::json!({"data": {"ring.json": text}}).to_string();
            cache
                .kubectl(&["patch", "configmap/demo-ring", "--type=merge", "--patch", &patch])
                .await?;
            until(
                &format!("ring stored again after {what}"),
                seconds(60),
                async || {
                    let stored = cache.document().await?;
                    ensure!(stored.epoch >= document.epoch, "epoch {} is stored", stored.epoch);
                    ensure!(stored.tokens == document.tokens, "the tokens have changed");
                    Ok(())
                },
            )
            .await?;
        }
        cache.ready(seconds(30)).await?;
        ensure!(cache.lives().await? == lives, "pods were replaced or restarted");
        cache.agreed().await?;
        Ok(())
    })
    .await;
}
