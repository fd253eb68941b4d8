//! A cluster of three nodes, an origin, and a group between them.

use std::net::Ipv4Addr;

use annulus_tests::{Cache, Origin, Test, seconds, until};
use anyhow::{Context as _, Result, ensure};
use redis::Value;
use serde_json::json;

/// More than the crowd that asks at once.
const CLIENTS_MAX: u32 = 25_000;

pub struct World<'a> {
    pub cache: Cache<'a>,
    pub origin: Origin,
    pub password: String,
    pub nodes: Vec<Ipv4Addr>,
    test: &'a Test,
}

impl<'a> World<'a> {
    /// With copies of everything.
    pub async fn start(test: &'a Test) -> Result<Self> {
        Self::start_with(test, ", replication: {factor: 2, acks: 1}").await
    }

    /// With this beside what every cluster here has.
    pub async fn start_with(test: &'a Test, more: &str) -> Result<Self> {
        let namespace = test.namespace().await?;
        let spec = format!(
            "{{nodes: 3, resources: {{requests: {{cpu: 300m, memory: 256Mi}}, limits: {{memory: 1Gi}}}}{more}}}"
        );
        let cache = namespace.ready_cache("demo", &spec).await?;
        let origin = Origin::start(&test.kubernetes, &namespace.name, "users").await?;
        let (password, nodes) = (cache.password().await?, cache.pod_ips().await?);
        let nodes: Vec<Ipv4Addr> = nodes.into_values().collect();
        let world = Self {
            cache,
            origin,
            password,
            nodes,
            test,
        };
        for node in &world.nodes {
            let mut connection = world.cache.connect_to(*node).await?;
            let mut set = redis::cmd("CONFIG");
            set.arg("SET").arg("maxclients").arg(CLIENTS_MAX);
            let _: Value = set.query_async(&mut connection).await?;
        }
        Ok(world)
    }

    /// The group `name` of keys that begin with `<name>:`; `spec` is what stands beside `clusterRef`, `keyPrefix` and the
    /// origin's URL, and `http` what stands beside that.
    pub async fn group(&self, name: &str, http: &str, spec: &str) -> Result<()> {
        let mut wanted: serde_json::Value = serde_yaml::from_str(spec)?;
        let mut http: serde_json::Value = serde_yaml::from_str(http)?;
        http["urlTemplate"] = json!(self.origin.template());
        wanted["clusterRef"] = json!({"name": self.cache.name});
        wanted["keyPrefix"] = json!(format!("{name}:"));
        wanted["origin"] = json!({"http": http});
        let object = json!({
            "apiVersion": "annulus.dev/v1alpha1",
            "kind": "CacheGroup",
            "metadata": {"name": name},
            "spec": wanted,
        });
        let kubernetes = &self.test.kubernetes;
        kubernetes
            .apply(&self.cache.namespace, &object.to_string())
            .await?
            .success()?;
        let (group, ready) = (format!("cachegroup/{name}"), "condition=Ready");
        self.cache
            .kubectl(&["wait", &group, "--for", ready, "--timeout", "60s"])
            .await?;
        // The origin's Service leads to its pod a moment after the pod is ready.
        let mut connection = self.cache.connect().await?;
        let mut tries = 0;
        until("the first load", seconds(30), async || {
            // A key that couldn't be loaded isn't tried again for a while.
            tries += 1;
            let mut get = redis::cmd("GET");
            get.arg(format!("{name}:warm-{tries}"));
            let _: Value = get.query_async(&mut connection).await?;
            Ok(())
        })
        .await
    }

    /// Removes it, so that what comes next has the machine to itself.
    pub async fn end(self) -> Result<()> {
        self.test.clean_up().await
    }

    /// A metric of a group, of all nodes together.
    pub async fn metric(&self, metric: &str, labels: &[&str]) -> Result<u64> {
        let mut sum = 0;
        for pod in self.cache.pod_ips().await?.into_keys() {
            let text = self.cache.metrics(&pod).await?;
            for line in text.lines().filter(|line| line.starts_with(metric)) {
                if labels.iter().all(|label| line.contains(label)) {
                    let value = line.rsplit(' ').next().context("a line without a value")?;
                    sum += value.parse::<u64>().with_context(|| line.to_owned())?;
                }
            }
        }
        Ok(sum)
    }

    /// Waits until the group's filter is there on each node.
    pub async fn filtered(&self, keys: u64) -> Result<()> {
        until("the filter on all nodes", seconds(60), async || {
            let found = self.metric("annulus_group_filter_keys", &[]).await?;
            ensure!(found == 3 * keys, "{found} keys in three filters");
            Ok(())
        })
        .await
    }
}
