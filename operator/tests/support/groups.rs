//! Groups that several tests make, and what is stored of them.

use std::time::Duration;

use annulus_operator::tenants::ledger::Ledger;
use annulus_proto::tenants::TenantsDocument;
use k8s_openapi::api::core::v1::Secret;
use tokio::time::{Instant, sleep};

use super::world::World;

const DOCUMENT: &str = "/api/v1/namespaces/shop/secrets/demo-tenants";
/// A group whose origin is in its own namespace.
pub const USERS: &str = "keyPrefix: 'user:', origin: {http: {urlTemplate: 'http://users.shop.svc/{key}'}}";
/// One whose origin is outside, and asks for a token that is in a Secret.
pub const ORDERS: &str = "keyPrefix: 'order:', origin: {http: {urlTemplate: 'https://example.com:8443/{key}', headersFrom: [{name: Authorization, secretKeyRef: {name: api, key: token}}]}}";

/// The tenants and groups that nodes are to follow.
pub fn stored(world: &World) -> TenantsDocument {
    let secret: Secret = serde_json::from_value(world.api.get(DOCUMENT).unwrap()).unwrap();
    Ledger::read(&secret.data.unwrap()).unwrap().unwrap().document
}

/// Its groups.
pub fn names(document: &TenantsDocument) -> Vec<String> {
    document
        .groups
        .iter()
        .map(annulus_proto::groups::Group::label)
        .collect()
}

/// Looks after the groups until that holds, as often as a pass asks for.
pub async fn pass_until(world: &mut World, what: &str, holds: impl Fn(&World) -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let again = world.pass().await.unwrap();
        if holds(world) {
            return;
        }
        assert!(Instant::now() < deadline, "not seen: {what}");
        sleep(again.min(Duration::from_secs(1))).await;
    }
}
