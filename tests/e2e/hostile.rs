//! A tenant with valid credentials tries every command of the table on what another tenant and the cluster's own
//! clients have, on a real cluster.
//!
//! It does so twice: while they have planted something, and after that is gone. Every reply must be the same, and none
//! may hold a planted secret, a word which the hostile tenant never says.

// Two programs share it: each leaves out a part.
#[path = "../../node/tests/tenants/attempts.rs"]
mod attempts;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use annulus_node::command::table;
use annulus_tests::{Binding, figure, run};
use anyhow::{Context as _, Result, bail, ensure};

use super::small;
use super::tenants::{allow, tenancy};
use attempts::{Attempt, Known, SCRIPT, comparable, show};

const SECRET: &str = "secret";
/// A tenant rests for up to ten seconds after long commands.
const PATIENCE: Duration = Duration::from_secs(30);
/// The victims are looked at after so many attempts.
const CHECK_EVERY: usize = 64;
/// Replies that differ are asked for again: a connection may be counted a moment after it has ended.
const TRIES: usize = 5;

/// Somebody with credentials, at one node.
#[derive(Clone)]
struct Who {
    node: SocketAddr,
    user: String,
    password: String,
}

impl Who {
    fn new(node: Ipv4Addr, binding: &Binding) -> Self {
        Self {
            node: (node, 6379).into(),
            user: binding.username.clone(),
            password: binding.password.clone(),
        }
    }

    fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect(self.node)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut connection = Connection(stream);
        let reply = connection.ask(&format!("AUTH {} {}", self.user, self.password))?;
        ensure!(reply == "+OK\r\n", "{reply}");
        Ok(connection)
    }

    /// All that comes when these commands are said on a connection of their own.
    fn say(&self, commands: &[Attempt]) -> Result<String> {
        let mut connection = self.connect()?;
        connection.0.write_all(&encode(commands))?;
        let mut all = Vec::new();
        // A client that is ended by its own command may find its connection reset.
        connection.0.read_to_end(&mut all).ok();
        Ok(String::from_utf8_lossy(&all).into_owned())
    }
}

fn encode(commands: &[Attempt]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for command in commands {
        bytes.extend(format!("*{}\r\n", command.len()).into_bytes());
        for word in command {
            bytes.extend(format!("${}\r\n", word.len()).into_bytes());
            bytes.extend(word);
            bytes.extend(b"\r\n");
        }
    }
    bytes
}

fn words(line: &str) -> Attempt {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

/// A connection whose replies are read up to that of a PING, so that nothing has to be parsed.
struct Connection(TcpStream);

impl Connection {
    /// What comes up to that end.
    fn exchange(&mut self, said: &[u8], end: &[u8]) -> Result<String> {
        self.0.write_all(said)?;
        let (mut all, mut part) = (Vec::new(), [0; 4096]);
        while !all.ends_with(end) {
            let so_far = || String::from_utf8_lossy(&all).into_owned();
            let len = match self.0.read(&mut part) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.with_context(so_far)?,
            };
            ensure!(len > 0, "the connection was closed: {}", so_far());
            all.extend_from_slice(&part[..len]);
        }
        Ok(String::from_utf8(all)?)
    }

    fn say(&mut self, command: Attempt) -> Result<String> {
        const END: &str = "$7\r\nthe-end\r\n";
        let reply = self.exchange(&encode(&[command, words("PING the-end")]), END.as_bytes())?;
        Ok(reply.trim_end_matches(END).to_owned())
    }

    fn ask(&mut self, line: &str) -> Result<String> {
        self.say(words(line))
    }
}

/// Somebody whose things are to stay unseen.
struct Victim {
    works: Connection,
    listens: Connection,
    watches: Connection,
}

fn plant(who: &Who) -> Result<(Victim, Known)> {
    let mut victim = Victim {
        works: who.connect()?,
        listens: who.connect()?,
        watches: who.connect()?,
    };
    let works = &mut victim.works;
    for line in [
        "CLIENT SETNAME secret-client",
        "SET {v}text secret-value",
        "RPUSH {v}list secret-element 1",
        "SADD {v}set secret-member 1",
        "HSET {v}hash secret-field secret-value",
        "ZADD {v}zset 1 secret-member 2 1",
        "SET {v}secret-key 1 PX 10000000",
    ] {
        let reply = works.ask(line)?;
        ensure!(!reply.starts_with('-'), "{line}: {reply}");
    }
    let script = works.say(vec![b"SCRIPT".to_vec(), b"LOAD".to_vec(), SCRIPT.into()])?;
    let listens = &mut victim.listens;
    listens.ask("HELLO 3")?;
    for line in [
        "CLIENT TRACKING ON BCAST",
        "SUBSCRIBE {v}news secret-channel",
        "PSUBSCRIBE {v}* secret-*",
        "SSUBSCRIBE {v}news {v}secret-channel",
    ] {
        listens.ask(line)?;
    }
    let reply = victim.watches.ask("WATCH {v}text {v}none")?;
    ensure!(reply == "+OK\r\n", "WATCH: {reply}");
    victim.watches.exchange(b"MULTI\r\nPING\r\n", b"+QUEUED\r\n")?;
    let mut client_ids = Vec::new();
    for connection in [&mut victim.works, &mut victim.listens] {
        let id = connection.ask("CLIENT ID")?;
        client_ids.push(id.trim_start_matches(':').trim_end().to_owned());
    }
    let own = victim.works.ask("CLIENT INFO")?;
    let field = |name: &str| -> Result<String> {
        let mut fields = own.split_whitespace();
        let found = fields.find_map(|word| word.strip_prefix(name));
        Ok(found.context("no such field in CLIENT INFO")?.to_owned())
    };
    let known = Known {
        user: who.user.clone(),
        client_ids,
        addresses: vec![field("addr=")?, field("laddr=")?],
        script: script.lines().nth(1).context("no digest")?.to_owned(),
    };
    Ok((victim, known))
}

impl Victim {
    /// Everything is as it was planted, and no message has come.
    fn check(&mut self, tried: &str) -> Result<()> {
        for (line, expected) in [
            ("GET {v}text", "$12\r\nsecret-value\r\n"),
            (
                "LRANGE {v}list 0 -1",
                "*2\r\n$14\r\nsecret-element\r\n$1\r\n1\r\n",
            ),
            ("SCARD {v}set", ":2\r\n"),
            (
                "HGETALL {v}hash",
                "*2\r\n$12\r\nsecret-field\r\n$12\r\nsecret-value\r\n",
            ),
            ("ZRANGE {v}zset 0 -1", "*2\r\n$13\r\nsecret-member\r\n$1\r\n1\r\n"),
            ("DBSIZE", ":6\r\n"),
            ("TTL {v}text", ":-1\r\n"),
            ("CLIENT GETNAME", "$13\r\nsecret-client\r\n"),
        ] {
            let found = self.works.ask(line)?;
            ensure!(found == expected, "after {tried}: {line}: {found}");
        }
        let heard = self.listens.ask("CLIENT ID")?;
        ensure!(
            heard.starts_with(':') && heard.matches("\r\n").count() == 1,
            "after {tried}: {heard}"
        );
        Ok(())
    }

    /// Nothing that was watched has changed, and the script is known; then nothing is left of it all.
    fn dig_up(mut self, known: &Known) -> Result<()> {
        let executed = self.watches.exchange(b"EXEC\r\nPING end\r\n", b"$3\r\nend\r\n")?;
        ensure!(
            executed.starts_with("*1\r\n+PONG\r\n"),
            "a watched key has changed: {executed}"
        );
        let exists = self.works.ask(&format!("SCRIPT EXISTS {}", known.script))?;
        ensure!(exists == "*1\r\n:1\r\n", "the script is gone: {exists}");
        let channels = self.works.ask("PUBSUB CHANNELS *")?;
        ensure!(channels.contains("secret-channel"), "{channels}");
        for line in ["FLUSHALL", "SCRIPT FLUSH"] {
            let reply = self.works.ask(line)?;
            ensure!(reply == "+OK\r\n", "{line}: {reply}");
        }
        Ok(())
    }
}

/// Tries one command, with nothing in the hostile tenant's own keyspace.
fn attempt(hostile: &Who, attempt: &Attempt) -> Result<String> {
    // What one did may be seen by its next connection, which is no leak.
    let mut commands: Vec<Attempt> = ["FLUSHALL", "SCRIPT FLUSH", "SLOWLOG RESET"].map(words).into();
    commands.push(attempt.clone());
    commands.push(words("QUIT"));
    let reply = hostile.say(&commands)?;
    let reply = reply
        .strip_prefix("+OK\r\n+OK\r\n+OK\r\n")
        .context(reply.clone())?;
    // Its own counters go on from the first time to the second.
    let kept = reply.split_inclusive('\n').filter(|line| {
        let own = ["keyspace_hits:", "keyspace_misses:", "evicted_keys:"];
        !own.iter().any(|counter| line.starts_with(counter))
    });
    Ok(kept.collect())
}

/// Waits until the hostile tenant has no other connection. Each question takes its time.
fn alone(hostile: &Who) -> Result<()> {
    for _ in 0..5000 {
        let info = hostile.say(&[words("INFO clients"), words("QUIT")])?;
        if info.contains("connected_clients:1\r\n") {
            return Ok(());
        }
    }
    bail!("connections of the hostile tenant don't end")
}

fn counts_clients(attempt: &Attempt) -> bool {
    matches!(
        attempt.first().map(|word| word.to_ascii_lowercase()).as_deref(),
        Some(b"client" | b"info" | b"memory" | b"pubsub")
    )
}

struct Figures {
    attempts: usize,
    commands: usize,
    leaks: Vec<String>,
}

fn attack(hostile: &Who, victims: &[Who]) -> Result<Figures> {
    let mut planted = Vec::new();
    for who in victims {
        planted.push(plant(who)?);
    }
    let known: Vec<&Known> = planted.iter().map(|(_, known)| known).collect();
    let all = attempts::attempts(&known);
    let mut leaks = Vec::new();
    let mut heard: BTreeMap<usize, String> = BTreeMap::new();
    for (number, each) in all.iter().enumerate() {
        if counts_clients(each) {
            alone(hostile)?;
        }
        let reply = attempt(hostile, each)?;
        if reply.contains(SECRET) {
            leaks.push(format!("{}: a secret shows: {reply}", show(each)));
        }
        heard.insert(number, reply);
        if number % CHECK_EVERY == 0 {
            for (victim, _) in &mut planted {
                victim.check(&show(each))?;
            }
        }
    }
    for (mut victim, known) in planted {
        victim.check("everything")?;
        victim.dig_up(&known)?;
    }
    for (number, each) in all.iter().enumerate() {
        let with = comparable(each, &heard[&number]);
        let mut without = String::new();
        let is_same = (0..TRIES).any(|_| {
            if counts_clients(each) {
                alone(hostile).ok();
            }
            without = attempt(hostile, each).unwrap_or_else(|error| error.to_string());
            comparable(each, &without) == with
        });
        if !is_same {
            leaks.push(format!(
                "{}: {}\nand where nothing is: {without}",
                show(each),
                heard[&number]
            ));
        }
    }
    let tried: BTreeSet<Vec<u8>> = all.iter().map(|each| each[0].to_ascii_lowercase()).collect();
    for entry in table().commands() {
        ensure!(
            tried.contains(entry.command.name.as_bytes()),
            "{} was not tried",
            entry.full_name
        );
    }
    Ok(Figures {
        attempts: all.len(),
        commands: tried.len(),
        leaks,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_tenant_learns_nothing() {
    run("hostile", async |test| {
        let platform = test.namespace().await?;
        let cache = platform
            .ready_cache("shared", &small(2, &tenancy("hostile")))
            .await?;
        let mut bindings = Vec::new();
        for name in ["victim", "hostile"] {
            let namespace = test.namespace().await?;
            allow(&namespace, "hostile").await?;
            let tenant = namespace.tenant(name);
            tenant.apply(&cache, "quota: {memory: 8Mi}").await?;
            tenant.ready().await?;
            bindings.push(tenant.binding().await?);
        }
        let root = Binding {
            username: "default".to_owned(),
            password: cache.password().await?,
            ..bindings[0].clone()
        };
        // The node where the guessed keys are; the others know only what is not in a slot.
        let slot = annulus_ring::Slot::for_key(b"{v}");
        let document = cache.document().await?;
        let owner = document
            .ring()
            .owner(slot)
            .context("a slot without an owner")?
            .to_string();
        let node = cache.pod_ip(&owner).await?;
        let who = |binding: &Binding| Who::new(node, binding);
        let (hostile, victims) = (who(&bindings[1]), [who(&bindings[0]), who(&root)]);
        let told = who(&root)
            .connect()?
            .ask("CONFIG SET slowlog-log-slower-than 0")?;
        ensure!(told == "+OK\r\n", "{told}");
        let figures = tokio::task::spawn_blocking(move || attack(&hostile, &victims)).await??;
        figure(
            "a hostile tenant",
            format_args!(
                "{} attempts with {} commands, {} leaks",
                figures.attempts,
                figures.commands,
                figures.leaks.len()
            ),
        );
        ensure!(figures.leaks.is_empty(), "{}", figures.leaks.join("\n"));
        Ok(())
    })
    .await;
}
