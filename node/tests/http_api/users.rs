//! Who may do what.

use annulus_proto::tenants::{PasswordDigest, Quota, Tenant, TenantId, TenantsDocument, TtlBounds, User};
use sha2::{Digest, Sha256};

use crate::support::http::HttpClient;
use crate::support::{Options, TestServer};

fn tenant(id: u32, name: &str, rules: &str, quota: Quota) -> Tenant {
    Tenant {
        id: TenantId(id),
        namespace: format!("of-{name}"),
        name: name.to_owned(),
        quota,
        ttl: TtlBounds::default(),
        users: vec![User {
            name: name.to_owned(),
            passwords: vec![PasswordDigest(Sha256::digest(format!("secret-{name}")).into())],
            rules: vec![rules.to_owned()],
        }],
    }
}

fn adopt(server: &TestServer, version: u64, tenants: Vec<Tenant>) {
    let document = TenantsDocument {
        version,
        next_id: TenantId(100),
        tenants,
        ..TenantsDocument::empty("test".parse().unwrap())
    };
    assert!(server.node.adopt_tenants(document).unwrap());
}

fn start(tenants: Vec<Tenant>) -> TestServer {
    let server = TestServer::start(&Options {
        password: Some("sesame"),
        ..Options::default()
    });
    adopt(&server, 1, tenants);
    server
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine;
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {encoded}")
}

fn log_in(server: &TestServer, name: &str) -> HttpClient {
    let mut http = HttpClient::connect(server.api_addr);
    http.authorization = Some(basic(name, &format!("secret-{name}")));
    http
}

#[test]
fn every_request_says_who_asks() {
    let server = start(vec![tenant(1, "a", "+@all", Quota::default())]);
    let mut http = HttpClient::connect(server.api_addr);
    let get = |http: &mut HttpClient| http.ask("GET", "/v1/keys/k", &[]);
    let refused = get(&mut http);
    assert_eq!(
        (refused.status, refused.problem().as_str()),
        (401, "unauthorized")
    );
    assert_eq!(
        refused.header("www-authenticate"),
        Some("Basic realm=\"annulus\", charset=\"UTF-8\"")
    );
    for (authorization, status) in [
        (Some(basic("default", "wrong")), 401),
        (Some(basic("default", "sesame")), 404),
        (Some(basic("default", "wrong")), 401),
        // Nobody is somebody because the last request was.
        (None, 401),
        (Some(basic("default", "sesame")), 404),
        (Some(basic("a", "sesame")), 401),
        (Some(basic("a", "secret-a")), 404),
        (None, 401),
        (Some("Bearer x".to_owned()), 401),
        (Some(basic("nobody", "x")), 401),
        (Some(basic("default", "sesame")), 404),
    ] {
        http.authorization = authorization.clone();
        assert_eq!(get(&mut http).status, status, "{authorization:?}");
    }
    // What the interface is, anybody may know.
    http.authorization = None;
    assert_eq!(http.ask("GET", "/v1/openapi.json", &[]).status, 200);
}

#[test]
fn without_a_password_there_is_nothing_to_say_and_a_tenant_may_say_it() {
    let server = TestServer::start(&Options::default());
    adopt(&server, 1, vec![tenant(1, "a", "+@all", Quota::default())]);
    let mut http = HttpClient::connect(server.api_addr);
    assert_eq!(http.put("/v1/keys/k", &[], b"open").status, 204);
    http.authorization = Some(basic("a", "secret-a"));
    assert_eq!(http.ask("GET", "/v1/keys/k", &[]).status, 404);
    assert_eq!(http.put("/v1/keys/k", &[], b"of a").status, 204);
    http.authorization = None;
    assert_eq!(http.ask("GET", "/v1/keys/k", &[]).body, b"open");
    http.authorization = Some(basic("a", "wrong"));
    assert_eq!(http.ask("GET", "/v1/keys/k", &[]).status, 401);
}

#[test]
fn tenants_have_keys_of_their_own() {
    let server = start(vec![
        tenant(1, "a", "+@all", Quota::default()),
        tenant(2, "b", "+@all", Quota::default()),
    ]);
    let (mut a, mut b) = (log_in(&server, "a"), log_in(&server, "b"));
    assert_eq!(a.put("/v1/keys/k", &[], b"of a").status, 204);
    assert_eq!(b.ask("GET", "/v1/keys/k", &[]).status, 404);
    assert_eq!(b.put("/v1/keys/k", &[], b"of b").status, 204);
    assert_eq!(a.ask("GET", "/v1/keys/k", &[]).body, b"of a");
    assert_eq!(b.ask("DELETE", "/v1/keys/k", &[]).status, 204);
    assert_eq!(a.ask("GET", "/v1/keys/k", &[]).body, b"of a");
}

#[test]
fn rules_are_those_of_the_commands() {
    let server = start(vec![
        tenant(1, "reader", "+get", Quota::default()),
        tenant(2, "writer", "+set", Quota::default()),
        tenant(3, "cleaner", "+del", Quota::default()),
    ]);
    let user = |name: &str, expected: [u16; 3]| {
        let mut http = log_in(&server, name);
        let found = [
            http.put("/v1/keys/k?ttl_ms=90000", &[], b"v").status,
            http.ask("GET", "/v1/keys/k", &[]).status,
            http.ask("DELETE", "/v1/keys/k", &[]).status,
        ];
        assert_eq!(found, expected, "{name}");
    };
    user("reader", [403, 404, 403]);
    user("writer", [204, 403, 403]);
    user("cleaner", [403, 403, 404]);
    // Who may not ask for the time to live isn't told, and gets the value.
    adopt(
        &server,
        2,
        vec![tenant(1, "reader", "+get +set", Quota::default())],
    );
    let mut reader = log_in(&server, "reader");
    assert_eq!(reader.put("/v1/keys/k?ttl_ms=90000", &[], b"v").status, 204);
    let got = reader.ask("GET", "/v1/keys/k", &[]);
    assert_eq!((got.status, got.header("annulus-ttl-ms")), (200, None));
    adopt(
        &server,
        3,
        vec![tenant(1, "reader", "+get +pttl", Quota::default())],
    );
    let got = reader.ask("GET", "/v1/keys/k", &[]);
    assert!(got.header("annulus-ttl-ms").is_some());
    assert_eq!(reader.put("/v1/keys/k", &[], b"v").problem(), "forbidden");
}

#[test]
fn quotas_hold() {
    let quota = Quota {
        ops_per_second: Some(10),
        connections: Some(2),
        value_bytes_max: Some(100),
        ..Quota::default()
    };
    let server = start(vec![tenant(1, "a", "+@all", quota)]);
    let mut http = log_in(&server, "a");
    let long = http.put("/v1/keys/k", &[], &[b'v'; 101]);
    assert_eq!((long.status, long.problem().as_str()), (413, "too-large"));
    let mut http = log_in(&server, "a");
    assert_eq!(http.put("/v1/keys/k", &[], &[b'v'; 100]).status, 204);

    // A connection counts once, however many requests come on it.
    let mut second = log_in(&server, "a");
    assert_eq!(second.ask("HEAD", "/v1/keys/other", &[]).status, 404);
    let mut third = log_in(&server, "a");
    let refused = third.ask("GET", "/v1/keys/k", &[]);
    assert_eq!(
        (refused.status, refused.problem().as_str()),
        (429, "too-many-connections")
    );
    assert!(refused.header("retry-after").is_some());

    let throttled = (0..1000)
        .map(|_| http.ask("GET", "/v1/keys/other", &[]))
        .find(|response| response.status != 404)
        .expect("ten a second are soon used up");
    assert_eq!(
        (throttled.status, throttled.problem().as_str()),
        (429, "throttled")
    );
    assert!(throttled.header("retry-after").is_some());
}

#[test]
fn a_user_that_is_gone_is_cut_off() {
    let server = start(vec![tenant(1, "a", "+@all", Quota::default())]);
    let mut http = log_in(&server, "a");
    assert_eq!(http.put("/v1/keys/k", &[], b"v").status, 204);
    adopt(&server, 2, Vec::new());
    assert!(http.is_over());
    let mut http = log_in(&server, "a");
    assert_eq!(http.ask("GET", "/v1/keys/k", &[]).status, 401);
}
