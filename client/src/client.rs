//! The client: who reads from memory, who asks which node, and what goes by the cluster connection of `redis`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use annulus_ring::Slot;
use bytes::Bytes;
use futures::future::join_all;
use parking_lot::{Mutex, RwLock};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, FromRedisValue, ToRedisArgs, cmd};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::near::{Lookup, NearCache};
use crate::node::Node;
use crate::settings::{Clock, Counters, Settings, Shared};
use crate::slots::{Slots, with_host_of};
use crate::stats::Stats;
use crate::stream::{Answer, Handshake, Request};

/// A read follows so many `MOVED` before the cluster connection is asked.
const MOVES_MAX: usize = 4;

/// The owners of slots are asked for at most this often.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);

/// Between two attempts to send a command.
const RETRY_MIN_MS: u64 = 10;
const RETRY_MAX_MS: u64 = 500;

/// Why something failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The cluster, or the way to it.
    #[error("{0}")]
    Redis(#[from] redis::RedisError),
    /// The addresses or options that were given.
    #[error("{0}")]
    Options(String),
    /// None of the addresses could be asked for the owners of slots.
    #[error("no node at {0} answers CLUSTER SLOTS: check the addresses, the password and the network")]
    NoSlots(String),
}

/// How a client is to be; [`Client::builder`] begins one.
#[derive(Clone)]
pub struct Builder {
    seeds: Vec<String>,
    settings: Settings,
    capacity_bytes: usize,
}

impl Builder {
    /// The user to log in as; `default` unless said.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.settings.user = Some(user.into());
        self
    }

    /// The user's password; without one there is no login.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.settings.password = Some(password.into());
        self
    }

    /// How old an answer may be at most: a second unless said, 10 ms at least. Each node is asked four times in it.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease;
        self
    }

    /// How many bytes the near cache may take, keys and what keeps them included: 64 MiB unless said.
    #[must_use]
    pub fn capacity_bytes(mut self, bytes: usize) -> Self {
        self.capacity_bytes = bytes;
        self
    }

    /// How long anything is kept at most, whatever its own time to live: a minute unless said. With servers that don't count
    /// their invalidations it is what bounds the age of an answer.
    #[must_use]
    pub fn ttl_max(mut self, ttl_max: Duration) -> Self {
        self.settings.ttl_max = ttl_max;
        self
    }

    /// How long a read waits for a node's own connection before it goes the way of other commands: a second unless said. It
    /// bounds attempts to connect, too.
    #[must_use]
    pub fn read_timeout(mut self, read_timeout: Duration) -> Self {
        self.settings.read_timeout = read_timeout;
        self
    }

    /// How long a command of the cluster connection may take altogether, attempts to reach the nodes included, before it fails: five
    /// seconds unless said. What became of a write that failed so isn't known.
    #[must_use]
    pub fn command_timeout(mut self, command_timeout: Duration) -> Self {
        self.settings.command_timeout = command_timeout;
        self
    }

    /// Where the near cache connects to in place of `host:port`, the address that the cluster shows. Other commands go to the
    /// address that is shown.
    #[must_use]
    pub fn map_address(mut self, map: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        self.settings.address_map = Some(Arc::new(map));
        self
    }

    /// Serves whatever no invalidation has come for, however old: for tests that show what the checks are good for.
    #[doc(hidden)]
    #[must_use]
    pub fn without_checks(mut self) -> Self {
        self.settings.checks = false;
        self
    }

    /// Connects. The first answers come from the nodes; then the near cache fills.
    pub async fn connect(self) -> Result<Client, Error> {
        const LEASE_MIN: Duration = Duration::from_millis(10);
        if self.settings.lease < LEASE_MIN {
            return Err(Error::Options(format!(
                "the lease is {:?}: write {LEASE_MIN:?} or more, since each node is asked four times in it",
                self.settings.lease
            )));
        }
        let seeds: Result<Vec<Arc<str>>, Error> = self.seeds.iter().map(|seed| parse_seed(seed)).collect();
        let seeds = seeds?;
        let mut cluster = ClusterClient::builder(seeds.iter().map(|seed| format!("redis://{seed}")))
            .connection_timeout(self.settings.read_timeout)
            // Without these a command waits for a cluster that is away for as long as it takes, and then for minutes more.
            .response_timeout(self.settings.command_timeout)
            .min_retry_wait(RETRY_MIN_MS)
            .max_retry_wait(RETRY_MAX_MS);
        if let Some(user) = &self.settings.user {
            cluster = cluster.username(user);
        }
        if let Some(password) = &self.settings.password {
            cluster = cluster.password(password);
        }
        let cluster = cluster.build()?.get_async_connection().await?;
        let client = Client(Arc::new(Inner {
            shared: Arc::new(Shared {
                settings: self.settings,
                clock: Clock::start(),
                near: Arc::new(NearCache::new(self.capacity_bytes)),
                counters: Counters::default(),
            }),
            seeds,
            cluster,
            slots: RwLock::new(Slots::empty()),
            nodes: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
        }));
        if client.0.refresh().await {
            Ok(client)
        } else {
            Err(Error::NoSlots(client.0.seeds.join(", ")))
        }
    }
}

/// `host:port`, of an address that may be written as a URL.
fn parse_seed(seed: &str) -> Result<Arc<str>, Error> {
    let address = seed.strip_prefix("redis://").unwrap_or(seed);
    let refused = |why: &str| Err(Error::Options(format!("{seed}: {why}; write HOST:PORT")));
    if address.contains("://") {
        return refused("the near cache speaks plain TCP only");
    }
    if address.contains(['@', '/']) {
        return refused("user, password and database are no part of the address");
    }
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(address.into()),
        _ => refused("there is no port"),
    }
}

/// A connection to a cluster, and the near cache in front of it. Clones are the same client.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    seeds: Vec<Arc<str>>,
    cluster: ClusterConnection,
    slots: RwLock<Slots>,
    nodes: Mutex<HashMap<Arc<str>, Node>>,
    refreshing: tokio::sync::Mutex<()>,
}

/// Its keys are not to be found in the near cache before the write, and what was read meanwhile is not kept.
struct Overtaking<'a>(&'a NearCache, &'a [u8]);

impl<'a> Overtaking<'a> {
    fn new(near: &'a NearCache, key: &'a [u8]) -> Self {
        near.overtake(key);
        Self(near, key)
    }
}

impl Drop for Overtaking<'_> {
    fn drop(&mut self) {
        self.0.overtake(self.1);
    }
}

impl Client {
    /// A client of the cluster that has a node at one of these addresses, `host:port` each.
    pub fn builder<A: Into<String>>(addresses: impl IntoIterator<Item = A>) -> Builder {
        Builder {
            seeds: addresses.into_iter().map(Into::into).collect(),
            settings: Settings {
                user: None,
                password: None,
                lease: Duration::from_secs(1),
                ttl_max: Duration::from_mins(1),
                read_timeout: Duration::from_secs(1),
                command_timeout: Duration::from_secs(5),
                address_map: None,
                checks: true,
            },
            capacity_bytes: 64 << 20,
        }
    }

    /// The string at the key, from memory if it may be served from there; `None` where there is none.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, Error> {
        let (key, shared) = (key.as_ref(), &self.0.shared);
        match shared.near.look_up(key, shared.clock.now_ns()) {
            Lookup::Hit(value) => Ok(value),
            Lookup::Miss | Lookup::Unchecked => self.0.read(Bytes::copy_from_slice(key)).await,
        }
    }

    /// The strings at the keys, in their order, each as by [`get`](Self::get): they may be of different moments.
    pub async fn mget<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Bytes>>, Error> {
        join_all(keys.into_iter().map(|key| self.get(key)))
            .await
            .into_iter()
            .collect()
    }

    /// Sets the key. Who reads it through this client afterwards gets this value or a later one.
    pub async fn set(&self, key: impl AsRef<[u8]>, value: impl ToRedisArgs) -> Result<(), Error> {
        let key = key.as_ref();
        self.write(key, cmd("SET").arg(key).arg(value)).await
    }

    /// The same for a value that expires, in milliseconds at the finest.
    pub async fn set_for(
        &self,
        key: impl AsRef<[u8]>,
        value: impl ToRedisArgs,
        ttl: Duration,
    ) -> Result<(), Error> {
        let key = key.as_ref();
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        self.write(key, cmd("SET").arg(key).arg(value).arg("PX").arg(ttl_ms))
            .await
    }

    /// Removes the key, and says whether it was there.
    pub async fn del(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        let key = key.as_ref();
        self.write(key, cmd("DEL").arg(key)).await
    }

    /// Sends a command that changes that key, whichever it is: as with [`set`](Self::set), who reads the key through this client
    /// afterwards finds the change.
    pub async fn write<T: FromRedisValue>(&self, key: &[u8], command: &Cmd) -> Result<T, Error> {
        let _overtaking = Overtaking::new(&self.0.shared.near, key);
        self.command(command).await
    }

    /// Sends any command by a cluster connection, past the near cache. What it changes is read afresh within a round trip, as are
    /// changes of other clients.
    pub async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        Ok(command.query_async(&mut self.0.cluster.clone()).await?)
    }

    /// What the client has done so far.
    pub fn stats(&self) -> Stats {
        Stats::of(&self.0.shared)
    }
}

impl Inner {
    async fn read(self: &Arc<Self>, key: Bytes) -> Result<Option<Bytes>, Error> {
        let read = self.read_from_owner(&key);
        if let Ok(Some(value)) = timeout(self.shared.settings.read_timeout, read).await {
            return Ok(value);
        }
        self.refresh_soon();
        Counters::add(&self.shared.counters.passed_on);
        let value: Option<Vec<u8>> = cmd("GET")
            .arg(&key[..])
            .query_async(&mut self.cluster.clone())
            .await?;
        Ok(value.map(Bytes::from))
    }

    /// Reads over the connection of the slot's owner; `None` when nobody there could say.
    async fn read_from_owner(self: &Arc<Self>, key: &Bytes) -> Option<Option<Bytes>> {
        let slot = Slot::for_key(key);
        for _ in 0..MOVES_MAX {
            let owner = Arc::clone(self.slots.read().owner(slot)?);
            let (answer, answered) = oneshot::channel();
            let request = Request {
                reading: self.shared.near.begin_read(key.clone()),
                answer,
            };
            if !self.send(&owner, request) {
                return None;
            }
            match answered.await.ok()? {
                Answer::Value(value) => return Some(value),
                Answer::Moved(moved) => {
                    let address = with_host_of(&moved.address, &owner);
                    self.slots.write().set(moved.slot, &address);
                    self.refresh_soon();
                }
                Answer::Refused => return None,
            }
        }
        None
    }

    fn send(&self, owner: &Arc<str>, request: Request) -> bool {
        self.nodes
            .lock()
            .entry(Arc::clone(owner))
            .or_insert_with(|| Node::start(Arc::clone(&self.shared), Arc::clone(owner)))
            .send(request)
    }

    /// Asks for the owners of slots, unless somebody does already.
    fn refresh_soon(self: &Arc<Self>) {
        if self.refreshing.try_lock().is_ok() {
            let inner = Arc::clone(self);
            tokio::spawn(async move { inner.refresh().await });
        }
    }

    fn keep_wanted(&self, slots: &Slots) {
        let now_ns = self.shared.clock.now_ns();
        let mut nodes = self.nodes.lock();
        nodes.retain(|address, node| node.is_wanted(slots.names(address), now_ns));
    }

    /// Asks one node after the other for the owners of slots, and says whether one told.
    async fn refresh(&self) -> bool {
        let Ok(_refreshing) = self.refreshing.try_lock() else {
            return false;
        };
        let mut addresses: Vec<Arc<str>> = self.nodes.lock().keys().cloned().collect();
        addresses.extend(self.seeds.iter().cloned());
        for address in addresses {
            let ask = async {
                let mut connection = Handshake::connect(&self.shared, &address).await.ok()?;
                let reply = connection.ask(cmd("CLUSTER").arg("SLOTS")).await.ok()?;
                Slots::parse(&reply, &address)
            };
            if let Ok(Some(slots)) = timeout(self.shared.settings.read_timeout, ask).await {
                self.keep_wanted(&slots);
                *self.slots.write() = slots;
                tokio::time::sleep(REFRESH_PAUSE).await;
                return true;
            }
        }
        tokio::time::sleep(REFRESH_PAUSE).await;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for seed in ["a:1", "redis://a:1", "[::1]:7001"] {
            parse_seed(seed).unwrap();
        }
        for seed in ["a", "rediss://a:1", "redis://user:secret@a:1", ":1", "a:1/0"] {
            let error = parse_seed(seed).unwrap_err().to_string();
            assert!(error.contains("HOST:PORT"), "{error}");
        }
    }
}
