use clap::Parser;

use super::*;

const MIB: u64 = 1 << 20;

fn machine() -> Machine {
    Machine {
        cgroup_limit_bytes: Some(512 * MIB),
        physical_bytes: Some(16 * 1024 * MIB),
        parallelism: NonZeroUsize::new(3).unwrap(),
    }
}

fn resolved(arguments: &str) -> Result<Config, String> {
    let words = ["annulus-node", "serve"]
        .into_iter()
        .chain(arguments.split_whitespace());
    let Command::Serve(flags) = Cli::try_parse_from(words)
        .map_err(|error| error.to_string())?
        .command;
    resolve(&flags, &machine(), None).map_err(|error| error.to_string())
}

#[test]
fn a_node_without_flags_is_a_ring_of_its_own() {
    let config = resolved("").unwrap();
    assert_eq!(config.role, Role::Standalone);
    assert_eq!(config.bind, Some("127.0.0.1:6379".parse().unwrap()));
    assert_eq!(config.tls, None);
    assert_eq!(config.http_bind, None);
    assert_eq!(
        (config.budget_bytes / MIB, config.budget_source),
        (435, BudgetSource::CgroupLimit)
    );
    assert_eq!(config.threads.get(), 3);
    assert_eq!(config.announce_host, None);
    assert_eq!(config.standalone_identity().1.as_str(), "node");
    assert_eq!(config.clients_max, 10_000);
    assert_eq!(config.shutdown_grace, Duration::from_secs(10));
    assert_eq!(config.hand_over, Duration::from_mins(4));
}

#[test]
fn a_member_has_a_peer_and_an_http_address() {
    let config =
        resolved("--cluster-uid 3d0 --node-id cache-0 --ring-file /ring/ring.json --bind 0.0.0.0:7001")
            .unwrap();
    let Role::Member(member) = config.role else {
        panic!("not a member")
    };
    assert_eq!(member.node_id.as_str(), "cache-0");
    assert_eq!(member.peer_bind, "127.0.0.1:16379".parse().unwrap());
    assert_eq!(
        member.ring_file.as_deref(),
        Some(std::path::Path::new("/ring/ring.json"))
    );
    assert_eq!(config.http_bind, Some("127.0.0.1:9121".parse().unwrap()));
}

#[test]
fn what_is_given_counts() {
    let config = resolved(
        "--max-memory 100MiB --threads 2 --announce-host node-0.example --zone west --max-clients 7 \
         --eviction-policy noeviction --shutdown-grace-ms 250 --hand-over-ms 900 --http-bind [::1]:0 --bind [::1]:7001",
    )
    .unwrap();
    assert_eq!(
        (config.budget_bytes, config.budget_source),
        (100 * MIB, BudgetSource::Flag)
    );
    assert_eq!(config.threads.get(), 2);
    assert_eq!(config.announce_host.as_deref(), Some("node-0.example"));
    assert_eq!(config.zone, Some(Zone("west".to_owned())));
    assert_eq!(config.clients_max, 7);
    assert_eq!(config.eviction_policy, EvictionFlag::Noeviction);
    assert_eq!(config.shutdown_grace, Duration::from_millis(250));
    assert_eq!(config.hand_over, Duration::from_millis(900));
}

#[test]
fn refusals_say_what_to_write_instead() {
    let table = [
        ("--cluster-uid c1", "--cluster-uid needs --node-id too"),
        ("--node-id cache-0", "--node-id needs --cluster-uid too"),
        ("--cluster-uid c1 --node-id Cache_0", "a-z, 0-9 and '-'"),
        ("--ring-file r.json", "--ring-file is for members of a ring"),
        (
            "--data-dir d",
            "give --cluster-uid and --node-id too, or leave it out",
        ),
        ("--peer-bind 127.0.0.1:1", "--peer-bind is for members"),
        (
            "--http-bind 127.0.0.1:6379",
            "--bind and --http-bind are both 127.0.0.1:6379",
        ),
        ("--http-bind 0.0.0.0:6379", "give them different ports"),
        ("--bind 6379", "invalid value '6379' for '--bind"),
        ("--max-memory 512m", "write 512Mi or 512M"),
        (
            "--max-memory 1k",
            "--max-memory 1000 is too little; write at least 1Mi",
        ),
        (
            "--max-memory 513Mi",
            "over this container's memory limit of 512Mi; write at most 435.2Mi",
        ),
        ("--threads 0", "invalid value '0' for '--threads"),
        ("--threads 257", "write 1 to 256"),
        ("--announce-host http://x", "without port"),
        ("--announce-host 10.0.0.1:6379", "without port"),
        ("--announce-host 10.0.0.1 --bind 0.0.0.0:0", "a port other than 0"),
        ("--zone=", "--zone is empty"),
        ("--bind off", "--bind off leaves no port for clients"),
        ("--bind on", "write IP:PORT, or off"),
        ("--tls-cert c", "--tls-cert needs --tls-bind too"),
        ("--tls-bind 127.0.0.1:1", "--tls-bind needs --tls-cert too"),
        (
            "--tls-bind 127.0.0.1:1 --tls-cert c",
            "--tls-bind needs --tls-key too",
        ),
        (
            "--tls-bind 127.0.0.1:6379 --tls-cert c --tls-key k",
            "--bind and --tls-bind are both",
        ),
        (
            "--tls-bind 127.0.0.1:1 --tls-cert c --tls-key k --tls-client-auth required",
            "--tls-client-auth needs --tls-client-ca too",
        ),
        (
            "--tls-bind 127.0.0.1:1 --tls-cert c --tls-key k --tls-client-ca a --tls-client-auth none",
            "of no use",
        ),
        ("--peer-tls-ca a", "--peer-tls-ca is for members"),
        (
            "--cluster-uid c1 --node-id a --peer-tls-ca a",
            "--peer-tls-ca needs --peer-tls-cert too",
        ),
        ("--max-clients 0", "invalid value '0' for '--max-clients"),
        ("--shutdown-grace-ms 3600001", "write at most 3600000"),
        ("--evict", "tip: a similar argument exists"),
        ("--log-format xml", "possible values: auto, text, json"),
    ];
    for (arguments, expected) in table {
        let message = resolved(arguments).expect_err(arguments);
        assert!(message.contains(expected), "{arguments}: {message}");
    }
}

#[test]
fn clients_may_be_served_with_tls_alone() {
    use crate::tls::{ClientAuth, ClientTlsFiles};
    let words = "--bind off --tls-bind 0.0.0.0:6380 --tls-cert c --tls-key k";
    let files = |clients: Option<(&str, ClientAuth)>| {
        let clients = clients.map(|(path, auth)| (PathBuf::from(path), auth));
        ClientTlsFiles {
            certificate: PathBuf::from("c"),
            key: PathBuf::from("k"),
            clients,
        }
    };
    for (more, expected) in [
        ("", None),
        ("--tls-client-auth none", None),
        ("--tls-client-ca a", Some(("a", ClientAuth::Required))),
        (
            "--tls-client-ca a --tls-client-auth optional",
            Some(("a", ClientAuth::Optional)),
        ),
    ] {
        let config = resolved(&format!("{words} {more}")).unwrap();
        assert_eq!(config.bind, None);
        let address = "0.0.0.0:6380".parse().unwrap();
        assert_eq!(config.tls, Some((address, files(expected))), "{more}");
    }
}

#[test]
fn a_container_that_is_too_small_is_told_so() {
    let machine = Machine {
        cgroup_limit_bytes: Some(MIB),
        ..machine()
    };
    let error = resolve(&ServeFlags::default(), &machine, None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("raise the limit to 16Mi or more"), "{error}");
}
