//! What keeps strangers out, each shown alone: the network fence, certificates, and users with passwords.

use std::path::Path;

use annulus_tests::{Binding, Bystander, Cache, TestNamespace, figure, run, seconds, until};
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use tokio::time::Instant;

use super::small;
use super::tenants::{allow, tenancy};

const CLIENTS: u16 = 6379;
const TLS: u16 = 6380;
const PEERS: u16 = 16379;
const METRICS: u16 = 9121;

/// Waits until exactly these of a node's ports are open to that pod.
async fn sees(who: &str, pod: &Bystander, cache: &Cache<'_>, open: &[u16]) -> Result<()> {
    let node = cache.pod_ip(&format!("{}-0", cache.name)).await?.to_string();
    let what = format!("{who} sees the ports {open:?} of {}", cache.name);
    until(&what, seconds(20), async || {
        for port in [CLIENTS, TLS, PEERS, METRICS] {
            let is_open = pod.reaches(&node, port).await?;
            ensure!(
                is_open == open.contains(&port),
                "port {port} is {}",
                if is_open { "open" } else { "closed" }
            );
        }
        Ok(())
    })
    .await
}

/// What redis-cli says in that pod, of the node that answers at the Service.
async fn said(pod: &Bystander, cache: &Cache<'_>, arguments: &[&str]) -> Result<String> {
    let host = cache.service_ip().await?;
    let all: Vec<&str> = ["-h", &host].iter().chain(arguments).copied().collect();
    let answer = pod.redis(&all, None).await?;
    Ok(answer.stdout + &answer.stderr)
}

fn credentials(binding: &Binding) -> [&str; 4] {
    ["--user", &binding.username, "--pass", &binding.password]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_fence_admits_bound_namespaces_only() {
    run("fence", async |test| {
        let (platform, bound, stranger) = (
            test.namespace().await?,
            test.namespace().await?,
            test.namespace().await?,
        );
        let cache = platform
            .ready_cache("shared", &small(2, &tenancy("fence")))
            .await?;
        let (inside, outside) = (bound.bystander().await?, stranger.bystander().await?);
        let neighbour = platform.bystander().await?;
        // Allowed is not yet bound.
        allow(&bound, "fence").await?;
        allow(&stranger, "fence").await?;
        sees("an allowed namespace", &inside, &cache, &[]).await?;
        let tenant = bound.tenant("cache");
        let begin = Instant::now();
        tenant.apply(&cache, "quota: {memory: 8Mi}").await?;
        tenant.ready().await?;
        sees("a bound namespace", &inside, &cache, &[CLIENTS]).await?;
        figure(
            "CacheTenant applied, its pods get through",
            format_args!("after {:.2} s", begin.elapsed().as_secs_f64()),
        );
        sees("a stranger", &outside, &cache, &[]).await?;
        sees("the cluster's namespace", &neighbour, &cache, &[CLIENTS, METRICS]).await?;
        let binding = tenant.binding().await?;
        let login = credentials(&binding);
        let pong = said(&inside, &cache, &[&login[..], &["PING"]].concat()).await?;
        ensure!(pong == "PONG\n", "{pong}");
        // The same credentials, stolen.
        let nothing = said(&outside, &cache, &[&login[..], &["PING"]].concat()).await?;
        ensure!(
            nothing.contains("Could not connect") || nothing.is_empty(),
            "{nothing}"
        );
        bound.kubectl(&["delete", "cachetenant", "cache"]).await?;
        sees("a namespace without its tenant", &inside, &cache, &[]).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_fence_users_and_passwords_keep_strangers_out() {
    run("fence_acl", async |test| {
        let (platform, bound, stranger) = (
            test.namespace().await?,
            test.namespace().await?,
            test.namespace().await?,
        );
        let open = tenancy("acl").replacen('{', "{networkPolicy: Open, ", 1);
        let cache = platform.ready_cache("shared", &small(1, &open)).await?;
        allow(&bound, "acl").await?;
        let tenant = bound.tenant("cache");
        tenant.apply(&cache, "quota: {memory: 8Mi}").await?;
        tenant.ready().await?;
        let binding = tenant.binding().await?;
        let outside = stranger.bystander().await?;
        sees("a stranger", &outside, &cache, &[CLIENTS, METRICS]).await?;
        let refused = said(&outside, &cache, &["GET", "key"]).await?;
        ensure!(refused.contains("NOAUTH"), "{refused}");
        let guess = ["--user", &binding.username, "--pass", "guess", "PING"];
        let refused = said(&outside, &cache, &guess).await?;
        ensure!(refused.contains("WRONGPASS"), "{refused}");
        // With what the binding says, which a stranger can't read.
        let pong = said(
            &outside,
            &cache,
            &[&credentials(&binding)[..], &["PING"]].concat(),
        )
        .await?;
        ensure!(pong == "PONG\n", "{pong}");
        Ok(())
    })
    .await;
}

/// Writes a Secret's files.
async fn files_of(cache: &Cache<'_>, secret: &str, folder: &Path) -> Result<()> {
    let secret: Secret = cache.api().get(secret).await?;
    std::fs::create_dir_all(folder)?;
    for (name, value) in secret.data.context("an empty Secret")? {
        std::fs::write(folder.join(name), value.0)?;
    }
    Ok(())
}

async fn tls_cache<'a>(namespace: &TestNamespace<'a>, name: &str) -> Result<Cache<'a>> {
    let tls = "tenancy: {networkPolicy: Open}, tls: {enabled: true, clientAuth: Required, peers: true}";
    namespace.ready_cache(name, &small(2, tls)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_fence_certificates_keep_strangers_out() {
    run("fence_tls", async |test| {
        let (platform, stranger) = (test.namespace().await?, test.namespace().await?);
        let (cache, other) = tokio::try_join!(tls_cache(&platform, "one"), tls_cache(&platform, "other"))?;
        let folder = tempfile::tempdir()?;
        let [trust, own, foreign, peers, foreign_peers] =
            ["trust", "own", "foreign", "peers", "foreign-peers"].map(|name| folder.path().join(name));
        files_of(&cache, "one-tls", &trust).await?;
        files_of(&cache, "one-client-tls", &own).await?;
        files_of(&other, "other-client-tls", &foreign).await?;
        files_of(&cache, "one-peers", &peers).await?;
        files_of(&other, "other-peers", &foreign_peers).await?;
        let outside = stranger.bystander().await?;
        sees("a stranger", &outside, &cache, &[TLS, METRICS]).await?;
        let (host, password) = (cache.service_ip().await?, cache.password().await?);
        let ping = async |identity: Option<&Path>| -> Result<String> {
            let files = identity
                .map(|folder| ["tls.crt", "tls.key"].map(|name| folder.join(name).display().to_string()));
            let mut arguments = vec!["-h", &host, "-p", "6380", "--pass", &password];
            if let Some([certificate, key]) = &files {
                arguments.extend(["--cert", certificate, "--key", key]);
            }
            arguments.push("PING");
            let answer = outside.redis(&arguments, Some(&trust)).await?;
            Ok(answer.stdout)
        };
        // The right password each time; the certificate alone decides.
        ensure!(ping(Some(&own)).await? == "PONG\n", "its own client is refused");
        ensure!(
            ping(None).await?.is_empty(),
            "a client without a certificate gets in"
        );
        ensure!(
            ping(Some(&foreign)).await?.is_empty(),
            "another cluster's client gets in"
        );

        // Between nodes: this machine is not fenced off, so that the certificate alone decides here, too.
        let node = cache.pod_ip("one-0").await?.to_string();
        let handshake = async |identity: Option<(&Path, &str)>| -> Result<String> {
            let connect = format!("{node}:{PEERS}");
            let authorities = peers.join("ca.crt").display().to_string();
            let mut program = vec![
                "timeout",
                "3",
                "openssl",
                "s_client",
                "-brief",
                "-alpn",
                "h2",
                "-connect",
                &connect,
                "-CAfile",
                &authorities,
            ];
            let files = identity.map(|(folder, pod)| {
                ["crt", "key"].map(|kind| folder.join(format!("{pod}.{kind}")).display().to_string())
            });
            if let Some([certificate, key]) = &files {
                program.extend(["-cert", certificate, "-key", key]);
            }
            let line = format!("(sleep 2; echo) | {}", program.join(" "));
            let answer = tokio::process::Command::new("bash")
                .args(["-c", &line])
                .output()
                .await?;
            Ok(String::from_utf8_lossy(&answer.stdout).into_owned()
                + &String::from_utf8_lossy(&answer.stderr))
        };
        let known = handshake(Some((&peers, "one-1"))).await?;
        ensure!(!known.contains("alert") && known.contains("TLSv1.3"), "{known}");
        let nobody = handshake(None).await?;
        ensure!(nobody.contains("alert"), "{nobody}");
        let foreigner = handshake(Some((&foreign_peers, "other-1"))).await?;
        ensure!(foreigner.contains("alert"), "{foreigner}");
        Ok(())
    })
    .await;
}
