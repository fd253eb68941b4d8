//! A node with one group, `user:`, and its origin.

use std::time::{Duration, Instant};

use annulus_node::groups::{Group, loader};
use annulus_node::store::EvictionPolicy;
use annulus_proto::groups::Group as Described;
use annulus_proto::tenants::{Tenant, TenantId, TenantsDocument};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

use crate::origin::Origin;
pub use crate::origin::described;
use crate::support::{Client, Options, TestServer};

pub struct World {
    pub server: TestServer,
    pub origin: Origin,
    stop: CancellationToken,
}

impl World {
    pub fn start(change: impl FnOnce(&mut Described)) -> Self {
        let origin = Origin::start();
        let mut group = described(&origin);
        change(&mut group);
        let world = Self::without_groups(origin);
        world.follow(1, Vec::new(), vec![group]);
        world
    }

    pub fn without_groups(origin: Origin) -> Self {
        let server = TestServer::start(&Options {
            eviction: EvictionPolicy::TinyLfu,
            threads: 2,
            clients_max: 20_000,
            ..Options::default()
        });
        let stop = CancellationToken::new();
        loader::start(Arc::clone(&server.node), stop.clone()).unwrap();
        Self { server, origin, stop }
    }

    pub fn follow(&self, version: u64, tenants: Vec<Tenant>, groups: Vec<Described>) {
        let document = TenantsDocument {
            version,
            next_id: TenantId(100),
            tenants,
            groups,
            ..TenantsDocument::empty("test".parse().unwrap())
        };
        assert!(self.server.node.adopt_tenants(document).unwrap());
    }

    pub fn group(&self) -> Arc<Group> {
        Arc::clone(&self.server.node.groups.all()[0])
    }

    pub fn connect(&self) -> Client {
        self.server.connect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Waits for what comes soon.
#[track_caller]
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "waited too long: {what}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A bulk reply.
pub fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}
