//! Whoever is at the other end of a connection: who that is, and what it has executed.
//!
//! A request becomes one or two commands in a pipeline, as if a Redis client had sent them; so everything that holds for those
//! holds here. Commands about a slot of another node are taken there as they are.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use annulus_ring::Slot;
use bytes::{Bytes, BytesMut};
use hyper::header::HeaderValue;
use tokio::time::{Instant, sleep};

use super::credentials;
use super::problem::Problem;
use super::replies::{Item, read, write_command};
use crate::charge::Charge;
use crate::clients::Client;
use crate::command::{Entry, table};
use crate::connection::{Answered, Pipeline};
use crate::node::Node;
use crate::peer::{ForwardError, Forwarder};
use crate::stats::ThreadStats;

/// So long it is tried again while slots move and owners change.
const PATIENCE: Duration = Duration::from_secs(3);
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Replies up to so many bytes are copied, so that the pipeline keeps its buffer.
const COPIED_BYTES_MAX: usize = 16 << 10;

/// Who is connected.
pub(super) struct Caller {
    pub(super) node: Arc<Node>,
    pipeline: Pipeline,
    forwarder: Option<Arc<Forwarder>>,
    /// By which header the connection was let in.
    authorization: Option<HeaderValue>,
}

/// Replies to the commands of one request.
pub(super) struct Replies {
    bytes: Bytes,
    at: usize,
}

impl Replies {
    /// The next one; an error is a problem.
    pub(super) fn next(&mut self) -> Result<Item, Problem> {
        match read(&self.bytes, &mut self.at) {
            Some(Item::Error(text)) => Err(Problem::of_reply(&String::from_utf8_lossy(&self.bytes[text]))),
            Some(item) => Ok(item),
            None => Err(Problem::of_reply("")),
        }
    }

    /// The next one as a value.
    pub(super) fn next_value(&mut self) -> Result<Option<Bytes>, Problem> {
        match self.next()? {
            Item::Bulk(value) => Ok(Some(self.bytes.slice(value))),
            Item::Null => Ok(None),
            _ => Err(Problem::of_reply("")),
        }
    }
}

/// What the first reply says about trying again.
fn may_retry(replies: &[u8]) -> bool {
    [&b"-MOVED "[..], b"-TRYAGAIN ", b"-CLUSTERDOWN "]
        .iter()
        .any(|code| replies.starts_with(code))
}

impl Caller {
    pub(super) fn new(
        node: Arc<Node>,
        stats: Arc<ThreadStats>,
        client: Arc<Client>,
        forwarder: Option<Arc<Forwarder>>,
    ) -> Self {
        Self {
            pipeline: Pipeline::detached(Arc::clone(&node), stats, client),
            node,
            forwarder,
            authorization: None,
        }
    }

    /// Where the commands of the next request are written.
    pub(super) fn commands(&mut self) -> &mut BytesMut {
        self.pipeline.commands()
    }

    /// Takes what is written, while other commands are to be executed.
    pub(super) fn take_commands(&mut self) -> BytesMut {
        self.pipeline.take_commands()
    }

    /// Puts it back.
    pub(super) fn put_commands(&mut self, commands: BytesMut) {
        self.pipeline.put_commands(commands);
    }

    /// Whether there is memory for the commands that are written.
    pub(super) fn has_room(&mut self) -> bool {
        self.pipeline.has_room()
    }

    /// The request is answered: nothing of it is needed any more.
    pub(super) fn finish(&mut self) {
        self.pipeline.clear_commands();
        self.pipeline.clear_replies();
    }

    /// Whose keys it works with.
    pub(super) fn tenant(&self) -> annulus_proto::tenants::TenantId {
        self.pipeline.session().keyspace.id()
    }

    /// The longest value that it may write.
    pub(super) fn value_bytes_max(&self) -> usize {
        let bytes_max = self.node.settings.bulk_bytes_max();
        self.pipeline
            .session()
            .keyspace
            .tenant()
            .map_or(bytes_max, |space| {
                usize::try_from(space.limits.value_bytes_max())
                    .unwrap_or(usize::MAX)
                    .min(bytes_max)
            })
    }

    /// Whether its user may ask how long a key lives.
    pub(super) fn may_ask_ttl(&self) -> bool {
        static PTTL: LazyLock<Option<&'static Entry>> = LazyLock::new(|| table().find(b"pttl"));
        let login = self.pipeline.session().login.as_ref();
        login.is_none_or(|login| PTTL.is_some_and(|entry| login.user().may(entry)))
    }

    /// Finds out who asks, by the header of the request. Whoever sends the same as before stays who it was.
    pub(super) async fn identify(&mut self, authorization: Option<&HeaderValue>) -> Result<(), Problem> {
        if self.authorization.as_ref() == authorization && self.pipeline.session().authenticated {
            return Ok(());
        }
        if self.authorization.take().is_some() {
            self.pipeline.reset_session();
        }
        let Some(header) = authorization else {
            return if self.pipeline.session().authenticated {
                Ok(())
            } else {
                Err(Problem::unauthorized(
                    "send a user and its password as HTTP Basic authentication",
                ))
            };
        };
        let (user, password) = credentials::parse(header).ok_or_else(|| {
            Problem::unauthorized("the header Authorization is not one of HTTP Basic authentication")
        })?;
        write_command(self.commands(), &[b"AUTH", &user, &password]);
        let answered = self.answer().await;
        let outcome = answered.and_then(|mut replies| replies.next());
        self.finish();
        if let Err(problem) = outcome {
            self.pipeline.reset_session();
            return Err(problem);
        }
        self.authorization = Some(header.clone());
        Ok(())
    }

    /// Has what is written executed here.
    async fn answer(&mut self) -> Result<Replies, Problem> {
        self.pipeline.clear_replies();
        match self.pipeline.answer().await {
            Answered::Whole => {}
            Answered::NoRoom => return Err(Problem::no_room()),
            Answered::Over => return Err(Problem::unavailable("the connection was told to end").and_end()),
        }
        let replies = self.pipeline.replies();
        let bytes = if replies.len() <= COPIED_BYTES_MAX {
            let bytes = Bytes::copy_from_slice(replies);
            self.pipeline.clear_replies();
            bytes
        } else {
            let replies = self.pipeline.take_replies();
            self.charged(Bytes::from(replies))?
        };
        Ok(Replies { bytes, at: 0 })
    }

    /// Has what is written executed by whoever serves the key's slot. All of it is about that key.
    pub(super) async fn execute(&mut self, key: &[u8], writes: bool) -> Result<Replies, Problem> {
        let slot = Slot::for_key(key);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let replies = self.answer().await?;
            if !may_retry(&replies.bytes) {
                return Ok(replies);
            }
            let mut reason = None;
            if replies.bytes.starts_with(b"-MOVED ") {
                match self.forward(slot).await {
                    Ok(replies) if !may_retry(&replies.bytes) => return Ok(replies),
                    Ok(replies) => reason = Some(replies),
                    Err(ForwardError::Unknown(why)) if writes => {
                        return Err(Problem::uncertain(format!(
                            "the node that serves the key didn't answer: {why}"
                        )));
                    }
                    Err(error @ ForwardError::NoRoom) if writes => {
                        return Err(Problem::uncertain(error.to_string()));
                    }
                    Err(ForwardError::NoRoom) => return Err(Problem::no_room()),
                    Err(ForwardError::NotExecuted(_) | ForwardError::Unknown(_)) => {}
                }
            }
            if Instant::now() >= deadline {
                return if reason.is_some() || !replies.bytes.starts_with(b"-MOVED ") {
                    Ok(reason.unwrap_or(replies))
                } else {
                    Err(Problem::unavailable(
                        "the node that serves the key can't be reached",
                    ))
                };
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Has what is written executed by another node.
    async fn forward(&mut self, slot: Slot) -> Result<Replies, ForwardError> {
        let Some(forwarder) = self.forwarder.clone() else {
            let why = "this node has no way to others".to_owned();
            return Err(ForwardError::NotExecuted(why));
        };
        let commands = self.pipeline.take_commands().freeze();
        let charge = Charge::new(Arc::clone(&self.node), &self.pipeline.session().keyspace);
        let held = (charge, self.pipeline.stats());
        let replies = forwarder.execute(slot, self.tenant(), commands.clone(), held);
        let replies = replies.await;
        // Without a copy, unless a part of them is still on its way.
        self.pipeline.put_commands(
            commands
                .try_into_mut()
                .unwrap_or_else(|shared| BytesMut::from(&shared[..])),
        );
        replies.map(|bytes| Replies { bytes, at: 0 })
    }

    /// Bytes that count as held by connections until they are sent.
    fn charged(&self, bytes: Bytes) -> Result<Bytes, Problem> {
        if bytes.len() <= COPIED_BYTES_MAX {
            return Ok(bytes);
        }
        let mut charge = Charge::new(Arc::clone(&self.node), &self.pipeline.session().keyspace);
        if charge.set(bytes.len(), self.pipeline.stats()) {
            Ok(charge.around(bytes))
        } else {
            Err(Problem::no_room())
        }
    }
}
