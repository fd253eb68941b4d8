//! What is secret is in no log, metric, reply, argument or environment variable of a node.

use annulus_proto::tenants::{PasswordDigest, Quota, Tenant, TenantId, TenantsDocument, TtlBounds, User};
use sha2::{Digest, Sha256};

use crate::processes::Process;
use crate::support::Client;

const ROOT: &str = "sesame-of-the-root";
const TENANT: &str = "sesame-of-a-tenant";
/// Nearly right is worth as much to whoever reads it.
const MISTYPED: &str = "sesame-of-a-tenanr";

fn digest(password: &str) -> [u8; 32] {
    Sha256::digest(password).into()
}

/// As documents have it.
fn hex(bytes: [u8; 32]) -> String {
    let quoted = serde_json::to_string(&PasswordDigest(bytes)).unwrap();
    quoted.trim_matches('"').to_owned()
}

#[test]
fn no_password_is_shown_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let document = TenantsDocument {
        version: 1,
        next_id: TenantId(2),
        tenants: vec![Tenant {
            id: TenantId(1),
            namespace: "shop".to_owned(),
            name: "cache".to_owned(),
            quota: Quota::default(),
            ttl: TtlBounds::default(),
            users: vec![User {
                name: "a".to_owned(),
                passwords: vec![PasswordDigest(digest(TENANT))],
                rules: vec!["+@all".to_owned()],
            }],
        }],
        ..TenantsDocument::empty("standalone".parse().unwrap())
    };
    let (password, tenants) = (
        file("password", ROOT.as_bytes()),
        file("tenants.json", &document.to_json()),
    );
    let node = Process::standalone(&[
        "--password-file",
        &password,
        "--tenants-file",
        &tenants,
        "--log-level",
        "trace",
    ]);
    let mut root = Client::connect(node.client);
    root.check(&format!("AUTH {ROOT}"), "+OK\r\n");
    root.check("CONFIG SET slowlog-log-slower-than 0", "+OK\r\n");
    root.check(&format!("AUTH default {ROOT}"), "+OK\r\n");
    let mut tenant = Client::connect(node.client);
    for words in [
        format!("AUTH a {MISTYPED}"),
        format!("AUTH a {TENANT} more"),
        format!("HELLO 2 AUTH a {MISTYPED}"),
        format!("HELLO 9 AUTH a {TENANT}"),
    ] {
        let reply = tenant.ask(&words);
        assert!(reply.starts_with('-'), "{words}: {reply}");
    }
    tenant.check(&format!("AUTH a {TENANT}"), "+OK\r\n");
    tenant.ask(&format!("HELLO 2 AUTH a {TENANT}"));
    // What is no password is shown.
    tenant.check("SET visible 1", "+OK\r\n");

    let mut shown: Vec<(String, String)> = Vec::new();
    for (who, client) in [("root", &mut root), ("tenant", &mut tenant)] {
        for words in [
            "INFO everything",
            "SLOWLOG GET 100",
            "CLIENT LIST",
            "CLIENT INFO",
            "CONFIG GET *",
            "MEMORY STATS",
            "LATENCY HISTORY command",
            "ACL WHOAMI",
            "ACL GETUSER a",
            "ACL GETUSER default",
            "CLUSTER NODES",
        ] {
            shown.push((format!("{who}: {words}"), client.ask(words)));
        }
    }
    let (_, metrics) = node.get("/metrics");
    shown.push(("metrics".to_owned(), metrics));
    shown.push(("log".to_owned(), node.log()));
    for what in ["cmdline", "environ"] {
        let bytes = std::fs::read(format!("/proc/{}/{what}", node.id())).unwrap();
        shown.push((what.to_owned(), String::from_utf8_lossy(&bytes).into_owned()));
    }
    for (place, text) in &shown {
        for password in [ROOT, TENANT, MISTYPED] {
            assert!(!text.contains(password), "{place} shows {password}:\n{text}");
            let digest = hex(digest(password));
            assert!(
                digest.len() == 64 && !text.to_lowercase().contains(&digest),
                "{place} shows a digest"
            );
        }
    }
    // It was looked in the right places: commands are there, passwords are left out of them.
    let text = |place: &str| &shown.iter().find(|(found, _)| found == place).unwrap().1;
    assert!(text("tenant: SLOWLOG GET 100").contains("visible"));
    assert!(text("root: SLOWLOG GET 100").contains("(redacted)"));
    assert!(text("log").lines().count() > 1, "{}", text("log"));
    assert!(text("metrics").contains("shop/cache"));
}
