//! What belongs to a cluster comes back when it is deleted, and is put right when it is edited.

use annulus_tests::{Cache, figure, run, seconds, until};
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use kube::Api;
use kube::api::PostParams;
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
        // A Service of a node has another address afterwards, which the ring tells clients.
        ensure!(
            document.epoch == epoch || name.ends_with("-node"),
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
            ("NetworkPolicy", "demo-annulus"),
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

/// An edit by hand: what it changes, and the arguments of kubectl that make it.
const EDITS: [(&str, &[&str]); 7] = [
    (
        "image",
        &["set", "image", "statefulset/demo", "node=example.com/not-this:1"],
    ),
    (
        "environment",
        &["set", "env", "statefulset/demo", "ADDED_BY_HAND=1"],
    ),
    ("more replicas", &["scale", "statefulset/demo", "--replicas=4"]),
    (
        "update strategy",
        &[
            "patch",
            "statefulset/demo",
            "--patch",
            r#"{"spec":{"updateStrategy":{"type":"RollingUpdate"}}}"#,
        ],
    ),
    (
        "selector",
        &[
            "patch",
            "service/demo",
            "--patch",
            r#"{"spec":{"selector":{"annulus.dev/cluster":"other"}}}"#,
        ],
    ),
    (
        "added selector",
        &[
            "patch",
            "service/demo",
            "--patch",
            r#"{"spec":{"selector":{"added":"by-hand"}}}"#,
        ],
    ),
    (
        "port",
        &[
            "patch",
            "service/demo",
            "--type=json",
            "--patch",
            r#"[{"op":"replace","path":"/spec/ports/0/targetPort","value":1}]"#,
        ],
    ),
];

/// The parts of a cluster that are edited.
#[derive(PartialEq)]
struct Specs {
    set: StatefulSetSpec,
    service: ServiceSpec,
}

impl Specs {
    async fn of(cache: &Cache<'_>) -> Result<Self> {
        let set: StatefulSet = cache.api().get("demo").await?;
        let service: Service = cache.api().get("demo").await?;
        Ok(Self {
            set: set.spec.context("no spec")?,
            service: service.spec.context("no spec")?,
        })
    }

    /// What is still as edited.
    async fn ensure_put_right(&self, cache: &Cache<'_>) -> Result<()> {
        let now = Self::of(cache).await?;
        ensure!(
            now.set == self.set,
            "the StatefulSet is {}",
            serde_json::to_string(&now.set)?
        );
        ensure!(
            now.service == self.service,
            "the Service is {}",
            serde_json::to_string(&now.service)?
        );
        Ok(())
    }

    /// Puts the Service right, so that one edit which is left alone does not hide those after it.
    async fn restore_service(&self, cache: &Cache<'_>) -> Result<()> {
        let api: Api<Service> = cache.api();
        let mut service = api.get("demo").await?;
        service.spec = Some(self.service.clone());
        api.replace("demo", &PostParams::default(), &service).await?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_by_hand_are_put_right() {
    run("edits_by_hand", async |test| {
        let namespace = test.namespace().await?;
        let cache = namespace.ready_cache("demo", &small(3, "")).await?;
        let wanted = Specs::of(&cache).await?;
        let mut lives = cache.lives().await?;
        let mut wrong = Vec::new();
        for (what, edit) in EDITS {
            let begin = Instant::now();
            cache.kubectl(edit).await?;
            let put_right = until("not put right", seconds(20), async || {
                wanted.ensure_put_right(&cache).await
            });
            match put_right.await {
                Ok(()) => figure(
                    &format!("edit by hand, {what}"),
                    format_args!("put right after {:.1} s", begin.elapsed().as_secs_f64()),
                ),
                Err(error) => {
                    wrong.push(format!("{what}: {error:#}"));
                    wanted.restore_service(&cache).await?;
                }
            }
            cache.settled(3, seconds(60)).await?;
            let now = cache.lives().await?;
            for (pod, life) in &mut lives {
                let Some(now) = now.get(pod) else { continue };
                if now != life {
                    wrong.push(format!("{what}: {pod} was {life:?}, is {now:?}"));
                    *life = now.clone();
                }
            }
        }
        ensure!(wrong.is_empty(), "{wrong:#?}");
        until("only the three pods left", seconds(60), async || {
            let now = cache.lives().await?;
            ensure!(now.keys().eq(lives.keys()), "pods were {lives:?}, are {now:?}");
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
