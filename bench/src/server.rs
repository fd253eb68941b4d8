//! Server processes: started on one core, watched through /proc.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::protocol::Protocol;

/// How long a server may take until it accepts connections.
const START_MAX: Duration = Duration::from_secs(20);

/// A server that can be measured.
#[derive(Debug, Clone)]
pub struct Kind {
    /// What tables call it, its version included.
    pub name: String,
    /// What it speaks.
    pub protocol: Protocol,
    flavour: Flavour,
    /// The program, and what stands before its own arguments.
    command: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flavour {
    Annulus,
    Redis,
    Memcached,
}

impl Kind {
    /// The cache node.
    pub fn annulus(node: &Path) -> Option<Self> {
        // Servers run in another folder.
        let command = vec![node.canonicalize().ok()?.to_str()?.to_owned()];
        Self::known("annulus", Flavour::Annulus, command)
    }

    /// What is installed on this machine.
    pub fn installed() -> Vec<Self> {
        [
            Self::known("redis", Flavour::Redis, vec!["redis-server".to_owned()]),
            Self::known("memcached", Flavour::Memcached, vec!["memcached".to_owned()]),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// A server whose packages were unpacked into a folder, run by that folder's own loader and libraries.
    pub fn unpacked(name: &str, folder: &Path) -> Option<Self> {
        let at = |path: &str| folder.join(path).to_str().map(str::to_owned);
        let (program, flavour) = [
            ("usr/bin/valkey-server", Flavour::Redis),
            ("usr/bin/redis-server", Flavour::Redis),
            ("usr/bin/memcached", Flavour::Memcached),
        ]
        .into_iter()
        .find(|(program, _)| folder.join(program).exists())?;
        let loader = [
            "usr/lib64/ld-linux-x86-64.so.2",
            "lib64/ld-linux-x86-64.so.2",
            "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
        ]
        .into_iter()
        .find(|loader| folder.join(loader).exists())?;
        let libraries = at("usr/lib/x86_64-linux-gnu")?;
        let command = vec![at(loader)?, "--library-path".to_owned(), libraries, at(program)?];
        Self::known(name, flavour, command)
    }

    /// `None` when it can't be started at all.
    fn known(name: &str, flavour: Flavour, command: Vec<String>) -> Option<Self> {
        let flag = if flavour == Flavour::Memcached {
            "-V"
        } else {
            "--version"
        };
        let output = Command::new(&command[0])
            .args(&command[1..])
            .arg(flag)
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text
            .split([' ', '=', '\n'])
            .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
            .unwrap_or_default()
            .to_owned();
        Some(Self {
            name: format!("{name} {version}").trim().to_owned(),
            protocol: match flavour {
                Flavour::Memcached => Protocol::Memcached,
                Flavour::Annulus | Flavour::Redis => Protocol::Resp,
            },
            flavour,
            command,
        })
    }

    fn arguments(&self, port: u16, threads: usize) -> Vec<String> {
        let text = match self.flavour {
            Flavour::Annulus => {
                format!(
                    "serve --bind 127.0.0.1:{port} --max-memory 8GiB --threads {threads} --log-level error"
                )
            }
            Flavour::Redis => format!(
                "--bind 127.0.0.1 --port {port} --appendonly no --maxmemory 8gb --maxmemory-policy allkeys-lru --io-threads {threads} --save"
            ),
            Flavour::Memcached => {
                format!("-l 127.0.0.1 -p {port} -U 0 -m 8192 -c 4096 -u root -t {threads}")
            }
        };
        let mut arguments: Vec<String> = text.split(' ').map(str::to_owned).collect();
        if self.flavour == Flavour::Redis {
            arguments.push(String::new());
        }
        arguments
    }
}

/// A server that runs. It ends with this value.
pub struct Server {
    /// Which.
    pub kind: Kind,
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
}

impl Server {
    /// Starts it on these cores (`0` or `0,1`) and waits until it accepts connections.
    pub fn start(kind: &Kind, cores: &str, threads: usize) -> io::Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let child = Command::new("taskset")
            .args(["-c", cores])
            .args(&kind.command)
            .args(kind.arguments(port, threads))
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()?;
        let server = Self {
            kind: kind.clone(),
            address,
            child,
        };
        let begin = Instant::now();
        while TcpStream::connect(address).is_err() {
            if begin.elapsed() > START_MAX {
                return Err(io::Error::other(format!("{} does not start", kind.name)));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// The time that all of its threads spent on a core, in nanoseconds.
    pub fn cpu_ns(&self) -> io::Result<u64> {
        let mut total = 0;
        for task in fs::read_dir(self.proc("task"))? {
            let schedstat = fs::read_to_string(task?.path().join("schedstat"))?;
            let first = schedstat
                .split(' ')
                .next()
                .and_then(|text| text.parse::<u64>().ok());
            total += first.ok_or_else(|| io::Error::other("schedstat has no time"))?;
        }
        Ok(total)
    }

    /// What it has in memory, in bytes.
    pub fn resident_bytes(&self) -> io::Result<u64> {
        let status = fs::read_to_string(self.proc("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line
            .and_then(|line| line.trim().split(' ').next())
            .and_then(|text| text.parse::<u64>().ok());
        kib.map(|kib| kib * 1024)
            .ok_or_else(|| io::Error::other("status has no VmRSS"))
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.child.id()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            self.child.wait().map(drop).unwrap_or_default();
        }
    }
}
