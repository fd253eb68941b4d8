//! A cluster, and proxies in front of it that clients go through.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use annulus_client::Client;

use super::cluster::Cluster;
use super::proxy::{Faults, Proxy};

pub struct World {
    pub cluster: Cluster,
    pub proxies: Vec<Proxy>,
    pub faults: Arc<Faults>,
}

impl World {
    pub async fn start() -> Self {
        let cluster = Cluster::start().await;
        let faults = Arc::new(Faults::default());
        let mut proxies = Vec::new();
        for address in cluster.addresses() {
            proxies.push(Proxy::start(address, Arc::clone(&faults)).await);
        }
        Self {
            cluster,
            proxies,
            faults,
        }
    }

    /// A client whose near cache is behind the proxies.
    pub async fn client(&self, lease: Duration, checks: bool) -> Client {
        let shown = self.cluster.addresses();
        let behind = self.proxies.iter().map(|proxy| proxy.address.clone());
        let map: HashMap<String, String> = shown.iter().cloned().zip(behind).collect();
        let builder = Client::builder(shown)
            .lease(lease)
            .map_address(move |shown| map.get(shown).cloned().unwrap_or_else(|| shown.to_owned()));
        let builder = if checks { builder } else { builder.without_checks() };
        builder.connect().await.unwrap()
    }
}
