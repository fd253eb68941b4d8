//! The real program, whose files are swapped while clients work.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use annulus_node::tls::ClientAuth;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::authority::{Authority, Mounted, SecureClient, client_config, connect};

/// A running node that takes clients with TLS alone; it is killed when the test ends.
struct Process {
    child: Child,
    dir: tempfile::TempDir,
    addr: SocketAddr,
}

impl Process {
    fn start(mounted: &Mounted) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (addresses, log) = (dir.path().join("addresses.json"), dir.path().join("log"));
        let files = mounted.client_files(ClientAuth::None);
        let child = Command::new(env!("CARGO_BIN_EXE_annulus-node"))
            .args([
                "serve",
                "--bind",
                "off",
                "--tls-bind",
                "127.0.0.1:0",
                "--threads",
                "2",
            ])
            .arg("--tls-cert")
            .arg(files.certificate)
            .arg("--tls-key")
            .arg(files.key)
            .args(["--max-memory", "64MiB", "--addresses-file"])
            .arg(&addresses)
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(log).unwrap())
            .spawn()
            .unwrap();
        let mut process = Self {
            child,
            dir,
            addr: "127.0.0.1:0".parse().unwrap(),
        };
        let addresses = process.wait_for("its addresses", || std::fs::read(&addresses).ok());
        let addresses: serde_json::Value = serde_json::from_slice(&addresses).unwrap();
        assert!(addresses["client"].is_null());
        process.addr = addresses["clientTls"].as_str().unwrap().parse().unwrap();
        process
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    fn wait_for<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        for _ in 0..6000 {
            if let Some(found) = look() {
                return found;
            }
            pause(Duration::from_millis(5));
        }
        panic!("not within 30 s: {what}\n{}", self.log());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[expect(clippy::disallowed_methods, reason = "between two looks")]
fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

fn shown(client: &SecureClient) -> CertificateDer<'static> {
    client.stream.conn.peer_certificates().unwrap()[0]
        .clone()
        .into_owned()
}

fn first(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn certificates_change_under_load_and_no_command_fails() {
    let authority = Authority::new("servers");
    let first_pem = authority.sign(&["localhost"]);
    let mut mounted = Mounted::new(&[("tls.crt", &first_pem.certificate), ("tls.key", &first_pem.key)]);
    let process = Process::start(&mounted);
    let config = client_config(&authority, None);
    let mut kept = connect(process.addr, &config).unwrap();
    assert_eq!(shown(&kept), first(&first_pem.certificate));

    let (stop, commands) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load: Vec<_> = (0..3)
        .map(|_| {
            let (stop, commands, config) = (Arc::clone(&stop), Arc::clone(&commands), Arc::clone(&config));
            let addr = process.addr;
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut client = connect(addr, &config).unwrap();
                    for _ in 0..50 {
                        client.check("SET key value", "+OK\r\n");
                        client.check("GET key", "$5\r\nvalue\r\n");
                        commands.fetch_add(2, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();

    for _ in 0..3 {
        let next = authority.sign(&["localhost"]);
        mounted.swap(&[("tls.crt", &next.certificate), ("tls.key", &next.key)]);
        process.wait_for("the new certificate", || {
            let client = connect(process.addr, &config).unwrap();
            (shown(&client) == first(&next.certificate)).then_some(())
        });
        kept.check("PING", "+PONG\r\n");
    }
    stop.store(true, Ordering::Relaxed);
    for thread in load {
        thread.join().unwrap();
    }
    assert!(commands.load(Ordering::Relaxed) > 300);
    kept.check("PING", "+PONG\r\n");
}

#[test]
fn files_that_cant_be_used_change_nothing_and_are_told_once() {
    let authority = Authority::new("servers");
    let (pem, other) = (authority.sign(&["localhost"]), authority.sign(&["localhost"]));
    let mut mounted = Mounted::new(&[("tls.crt", &pem.certificate), ("tls.key", &pem.key)]);
    let process = Process::start(&mounted);
    let config = client_config(&authority, None);
    let warnings = || process.log().matches("the last good one holds").count();
    // A key of another certificate, nothing at all, and no files: each is a reason of its own.
    for (index, files) in [
        vec![("tls.crt", other.certificate.as_str()), ("tls.key", &pem.key)],
        vec![("tls.crt", ""), ("tls.key", "")],
        vec![],
    ]
    .into_iter()
    .enumerate()
    {
        mounted.swap(&files);
        process.wait_for("a warning", || (warnings() == index + 1).then_some(()));
        pause(Duration::from_millis(2500));
        assert_eq!(warnings(), index + 1, "{}", process.log());
        let client = connect(process.addr, &config).unwrap();
        assert_eq!(shown(&client), first(&pem.certificate));
    }
    mounted.swap(&[("tls.crt", &other.certificate), ("tls.key", &other.key)]);
    process.wait_for("the other certificate", || {
        let client = connect(process.addr, &config).unwrap();
        (shown(&client) == first(&other.certificate)).then_some(())
    });
}
