//! A pipeline without a socket: somebody writes commands into it, has them answered, and takes the replies.
//!
//! What commands wait for is the same as on a connection: their turn, their rate, a slot that is moving, a load, a pause,
//! copies. The
//! commands stay until they are taken or cleared, so that one that belongs to another node can be sent there as it is.

use std::future::poll_fn;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::sleep;

use super::{Pipeline, WaitsFor};
use crate::buffers;
use crate::clients::{Client, Stop};
use crate::node::Node;
use crate::session::Session;
use crate::stats::ThreadStats;
use crate::store::Keyspace;

/// A pause ends without telling who isn't listed as a client.
const PAUSE_LOOK: Duration = Duration::from_millis(10);

/// What came of having commands answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// All replies are there.
    Whole,
    /// There is no room for the commands or their replies.
    NoRoom,
    /// The connection was told to end at once, or what was written is not the protocol.
    Over,
}

impl Pipeline {
    /// A pipeline that nothing is sent from.
    pub fn detached(node: Arc<Node>, stats: Arc<ThreadStats>, client: Arc<Client>) -> Self {
        let mut pipeline = Self::new(node, stats, client);
        pipeline.output_bytes_soft_max = usize::MAX;
        pipeline.keeps_executed = true;
        pipeline
    }

    /// Works with that keyspace: who asks, and whether it may, was found out elsewhere.
    pub fn enter(&mut self, keyspace: Keyspace) {
        self.session.keyspace = keyspace;
        self.session.authenticated = true;
    }

    /// Who is connected.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The counters of its thread.
    pub fn stats(&self) -> &ThreadStats {
        &self.stats
    }

    /// Forgets who is connected.
    pub fn reset_session(&mut self) {
        self.session.reset(&self.node);
    }

    /// Where commands are written.
    pub fn commands(&mut self) -> &mut BytesMut {
        if self.input.capacity() == 0 {
            self.input = buffers::take_input();
        }
        &mut self.input
    }

    /// Tells the store what the written commands take; `false` when there is no room for them.
    pub fn has_room(&mut self) -> bool {
        self.charge()
    }

    /// Has all commands answered that were written, those that were answered before too.
    pub async fn answer(&mut self) -> Answered {
        self.executed_bytes = 0;
        loop {
            if self.execute().await == Stop::Kill {
                return if self.broken {
                    self.broken = false;
                    Answered::NoRoom
                } else {
                    Answered::Over
                };
            }
            if self.session.closing {
                return Answered::Over;
            }
            match self.waits_for {
                None => return Answered::Whole,
                Some(reason) => {
                    if self.wait(reason).await == Stop::Kill {
                        return Answered::Over;
                    }
                }
            }
        }
    }

    async fn wait(&mut self, reason: WaitsFor) -> Stop {
        if reason == WaitsFor::Load {
            return self.wait_for_load().await;
        }
        let look_again = match reason {
            WaitsFor::Pause => Some(PAUSE_LOOK),
            reason => reason.look_again(),
        };
        let Some(look_again) = look_again else {
            return Stop::No;
        };
        let mut timer = pin!(sleep(look_again));
        poll_fn(|context| match self.session.client.poll_stop(context.waker()) {
            Stop::Kill => Poll::Ready(Stop::Kill),
            Stop::No | Stop::Drain => timer.as_mut().poll(context).map(|()| Stop::No),
        })
        .await
    }

    async fn wait_for_load(&mut self) -> Stop {
        poll_fn(|context| match self.session.client.poll_stop(context.waker()) {
            Stop::Kill => Poll::Ready(Stop::Kill),
            Stop::No | Stop::Drain => self.poll_load(context).map(|()| Stop::No),
        })
        .await
    }

    /// The replies that nobody has taken yet.
    pub fn replies(&self) -> &[u8] {
        self.unsent_replies()
    }

    /// Takes the replies with their buffer.
    pub fn take_replies(&mut self) -> Vec<u8> {
        let replies = self.reply.take_buffer();
        self.charge();
        replies
    }

    /// Forgets the replies.
    pub fn clear_replies(&mut self) {
        buffers::give_output(self.reply.take_buffer());
        self.charge();
    }

    /// Takes the commands to send them elsewhere. They count as held until they are put back, or others are written.
    pub fn take_commands(&mut self) -> BytesMut {
        self.executed_bytes = 0;
        mem::take(&mut self.input)
    }

    /// Puts commands back.
    pub fn put_commands(&mut self, commands: BytesMut) {
        self.input = commands;
    }

    /// Forgets the commands.
    pub fn clear_commands(&mut self) {
        self.executed_bytes = 0;
        self.input.clear();
        self.release_input();
    }
}
