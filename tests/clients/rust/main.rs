//! redis-rs in cluster mode against a Redis Cluster, its blocking and its async client: see
//! tests/clients/README.md.

use std::fmt::{Debug, Display};
use std::hash::{BuildHasher as _, RandomState};
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use redis::cluster::{ClusterClient, ClusterConnection};
use redis::cluster_async;
use redis::{Cmd, FromRedisValue, RedisResult, cmd};
use tokio::time::Instant;

const BATCH: usize = 100;
const COUNTERS: usize = 100;
const GROUP: usize = 10;
const ERRORS_SHOWN: usize = 5;
const ERRORS_MAX: usize = 20;
/// The library repeats a command for minutes before it reports that the cluster is down.
const PATIENCE: Duration = Duration::from_secs(100);

/// The two ways that the library offers.
enum Connection {
    Blocking(Box<ClusterConnection>),
    Async(tokio::runtime::Runtime, cluster_async::ClusterConnection),
}

impl Connection {
    fn open(host: &str, port: u16, password: &str, is_async: bool) -> Result<Self> {
        let mut builder = ClusterClient::builder(vec![format!("redis://{host}:{port}")]);
        if !password.is_empty() {
            builder = builder.password(password);
        }
        let client = builder.build()?;
        if !is_async {
            return Ok(Self::Blocking(Box::new(client.get_connection()?)));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let connection = runtime.block_on(client.get_async_connection())?;
        Ok(Self::Async(runtime, connection))
    }

    fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        match self {
            Self::Blocking(connection) => command.query(connection.as_mut()),
            Self::Async(runtime, connection) => runtime.block_on(command.query_async(connection)),
        }
    }

    /// The blocking client spreads a pipeline over the slots' owners. The async one takes a pipeline for one slot
    /// only, so its batch is sent as commands that are in flight together.
    fn ask_together<T: FromRedisValue>(&mut self, commands: Vec<Cmd>) -> RedisResult<Vec<T>> {
        match self {
            Self::Blocking(connection) => {
                let mut pipeline = redis::cluster::cluster_pipe();
                for command in commands {
                    pipeline.add_command(command);
                }
                pipeline.query(connection.as_mut())
            }
            Self::Async(runtime, connection) => runtime.block_on(futures::future::try_join_all(
                commands.into_iter().map(|command| {
                    let mut connection = connection.clone();
                    async move { command.query_async(&mut connection).await }
                }),
            )),
        }
    }
}

/// Counts errors, prints the first five and gives up at twenty.
#[derive(Default)]
struct Checked {
    errors: usize,
}

impl Checked {
    fn fail(&mut self, what: impl Display) -> Result<()> {
        self.errors += 1;
        if self.errors <= ERRORS_SHOWN {
            writeln!(std::io::stderr(), "error: {what}")?;
        }
        if self.errors >= ERRORS_MAX {
            bail!("gave up after {} errors", self.errors);
        }
        Ok(())
    }

    fn expect<T: PartialEq + Debug>(
        &mut self,
        what: impl Display,
        found: RedisResult<T>,
        wanted: &T,
    ) -> Result<()> {
        match found {
            Ok(found) if found == *wanted => Ok(()),
            Ok(found) => self.fail(format_args!("{what}: got {found:?}, not {wanted:?}")),
            Err(error) => self.fail(format_args!("{what}: {error}")),
        }
    }
}

fn work(connection: &mut Connection, prefix: &str, keys: usize, checked: &mut Checked) -> Result<()> {
    let key = |i: usize| format!("{prefix}:{i}");
    let ok = "OK".to_owned();

    for i in 0..keys {
        let found = connection.ask(cmd("SET").arg(key(i)).arg(format!("value {i}")));
        checked.expect(format_args!("SET {i}"), found, &ok)?;
    }
    for i in 0..keys {
        let found = connection.ask(cmd("GET").arg(key(i)));
        checked.expect(format_args!("GET {i}"), found, &format!("value {i}"))?;
    }

    for first in (0..keys).step_by(GROUP) {
        let members = first..(first + GROUP).min(keys);
        let name = |i: usize| format!("{{{prefix}-{first}}}:{i}");
        let mut mset = cmd("MSET");
        let mut mget = cmd("MGET");
        for i in members.clone() {
            mset.arg(name(i)).arg(format!("tagged {i}"));
            mget.arg(name(i));
        }
        checked.expect(format_args!("MSET {first}"), connection.ask(&mset), &ok)?;
        let wanted: Vec<String> = members.map(|i| format!("tagged {i}")).collect();
        checked.expect(format_args!("MGET {first}"), connection.ask(&mget), &wanted)?;
    }

    for i in 0..keys {
        let found = connection.ask(cmd("EXPIRE").arg(key(i)).arg(1000));
        checked.expect(format_args!("EXPIRE {i}"), found, &1)?;
        match connection.ask::<i64>(cmd("TTL").arg(key(i))) {
            Ok(901..=1000) => {}
            other => checked.fail(format_args!("TTL {i}: got {other:?}"))?,
        }
    }

    let counters = COUNTERS.min(keys);
    for i in 0..keys {
        let found = connection.ask(cmd("INCR").arg(format!("{prefix}-counter:{}", i % counters)));
        checked.expect(format_args!("INCR {i}"), found, &(i / counters + 1))?;
    }

    for first in (0..keys).step_by(BATCH) {
        let batch = first..(first + BATCH).min(keys);
        let command = |name: &str, i: usize| cmd(name).arg(key(i)).clone();
        let sets = batch
            .clone()
            .map(|i| command("SET", i).arg(format!("piped {i}")).clone())
            .collect();
        let wanted = vec![ok.clone(); batch.len()];
        checked.expect(
            format_args!("pipeline of SET from {first}"),
            connection.ask_together(sets),
            &wanted,
        )?;
        let gets = batch.clone().map(|i| command("GET", i)).collect();
        let wanted: Vec<String> = batch.map(|i| format!("piped {i}")).collect();
        checked.expect(
            format_args!("pipeline of GET from {first}"),
            connection.ask_together(gets),
            &wanted,
        )?;
    }

    for i in 0..keys {
        checked.expect(
            format_args!("DEL {i}"),
            connection.ask(cmd("DEL").arg(key(i))),
            &1,
        )?;
    }
    for i in 0..keys {
        let found = connection.ask::<Option<String>>(cmd("GET").arg(key(i)));
        checked.expect(format_args!("GET {i} after DEL"), found, &None)?;
    }
    Ok(())
}

/// The version in Cargo.lock.
fn library_version() -> &'static str {
    include_str!("../../../Cargo.lock")
        .split_once("name = \"redis\"\nversion = \"")
        .and_then(|(_, rest)| rest.split('"').next())
        .unwrap_or("unknown")
}

fn main() -> Result<ExitCode> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_async = arguments.first().is_some_and(|first| first == "--async");
    if is_async {
        arguments.remove(0);
    }
    let (host, port, keys) = match arguments.as_slice() {
        [host, port] => (host, port, 10_000),
        [host, port, keys] => (host, port, keys.parse().context("KEYS must be a number")?),
        _ => bail!("usage: redis-rs [--async] HOST PORT [KEYS]"),
    };
    let port = port.parse().context("PORT must be a number")?;
    let password = std::env::var("ANNULUS_PASSWORD").unwrap_or_default();
    let client = if is_async { "redis-rs-async" } else { "redis-rs" };

    let mut checked = Checked::default();
    let begin = Instant::now();
    let report = move |errors: usize| {
        writeln!(
            std::io::stdout(),
            "client={client} version={} keys={keys} errors={errors} seconds={:.1}",
            library_version(),
            begin.elapsed().as_secs_f64()
        )
    };
    let (_running, ended) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            eprintln!("error: not done within {PATIENCE:?}");
            drop(report(1));
            std::process::exit(1);
        }
    });
    match Connection::open(host, port, &password, is_async) {
        Err(error) => {
            writeln!(std::io::stderr(), "error: connecting: {error:#}")?;
            checked.errors += 1;
        }
        Ok(mut connection) => {
            // Values of an earlier run against the same cluster must not satisfy this one.
            let prefix = format!(
                "{client}-{}-{:x}",
                std::process::id(),
                RandomState::new().hash_one(port)
            );
            if let Err(error) = work(&mut connection, &prefix, keys, &mut checked) {
                writeln!(std::io::stderr(), "error: {error}")?;
            }
        }
    }
    report(checked.errors)?;
    Ok(if checked.errors == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
