//! A node with tenants: `victim` and `other` have a user of the same name, whose password is `secret-` and that name.

use std::time::{Duration, Instant};

use annulus_node::store::EvictionPolicy;
use annulus_proto::tenants::{PasswordDigest, Quota, Tenant, TenantId, TenantsDocument, TtlBounds, User};
use sha2::{Digest, Sha256};

use crate::support::{Client, Options, TestServer};

/// The password of the user `default`.
pub const ROOT: &str = "secret-root";

pub fn digest(password: &str) -> PasswordDigest {
    PasswordDigest(Sha256::digest(password).into())
}

pub fn user(name: &str, rules: &str) -> User {
    User {
        name: name.to_owned(),
        passwords: vec![digest(&format!("secret-{name}"))],
        rules: vec![rules.to_owned()],
    }
}

/// A tenant with one user of its name, who may do everything.
pub fn tenant(id: u32, name: &str) -> Tenant {
    Tenant {
        id: TenantId(id),
        namespace: format!("secret-namespace-of-{name}"),
        name: name.to_owned(),
        quota: Quota::default(),
        ttl: TtlBounds::default(),
        users: vec![user(name, "+@all")],
    }
}

pub fn options() -> Options {
    Options {
        password: Some(ROOT),
        budget_bytes: 64 << 20,
        eviction: EvictionPolicy::TinyLfu,
        ..Options::default()
    }
}

pub fn start(options: &Options, tenants: Vec<Tenant>) -> TestServer {
    let server = TestServer::start(options);
    adopt(&server, 1, tenants);
    server
}

/// The node follows these tenants from now on.
pub fn adopt(server: &TestServer, version: u64, tenants: Vec<Tenant>) {
    let document = TenantsDocument {
        version,
        next_id: TenantId(100),
        tenants,
        ..TenantsDocument::empty("test".parse().unwrap())
    };
    assert!(server.node.adopt_tenants(document).unwrap());
}

pub fn log_in(server: &TestServer, name: &str) -> Client {
    let mut client = server.connect();
    client.check(&format!("AUTH {name} secret-{name}"), "+OK\r\n");
    client
}

pub fn root(server: &TestServer) -> Client {
    let mut client = server.connect();
    client.check(&format!("AUTH {ROOT}"), "+OK\r\n");
    client
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
        std::thread::sleep(Duration::from_micros(200));
    }
}
