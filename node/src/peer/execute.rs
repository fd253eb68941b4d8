//! Commands that clients have given to other nodes, executed here because this node serves their slot.
//!
//! Nothing is executed before all of it has come: a sender that breaks off has changed nothing.

use std::sync::Arc;
use std::time::Duration;

use annulus_proto::tenants::TenantId;
use annulus_proto::v1::{ExecuteReply, ExecuteRequest};
use bytes::Bytes;
use futures::{Stream, stream};
use tonic::{Status, Streaming};

use super::{CHUNK_BYTES_MAX, PeerContext};
use crate::charge::Charge;
use crate::clock;
use crate::connection::{Answered, INPUT_BYTES_MAX, Pipeline};
use crate::store::Keyspace;

/// The next piece of a request is waited for so long.
const PIECE_TIMEOUT: Duration = Duration::from_secs(5);

async fn next(requests: &mut Streaming<ExecuteRequest>) -> Result<ExecuteRequest, Status> {
    match tokio::time::timeout(PIECE_TIMEOUT, requests.message()).await {
        Ok(Ok(Some(message))) => Ok(message),
        Ok(Ok(None)) => Err(Status::invalid_argument(
            "the request ended before its last message",
        )),
        Ok(Err(status)) => Err(Status::invalid_argument(format!(
            "the request broke off: {status}"
        ))),
        Err(_) => Err(Status::failed_precondition("the request came too slowly")),
    }
}

/// The message that says who asks.
pub(super) async fn first_message(
    requests: &mut Streaming<ExecuteRequest>,
) -> Result<ExecuteRequest, Status> {
    next(requests).await
}

/// Executes commands whose first message was checked.
pub(super) async fn execute(
    context: &PeerContext,
    first: ExecuteRequest,
    mut requests: Streaming<ExecuteRequest>,
) -> Result<impl Stream<Item = Result<ExecuteReply, Status>> + Send + use<>, Status> {
    let node = &context.node;
    let keyspace = match TenantId(first.tenant) {
        TenantId::CLUSTER => Keyspace::default(),
        // Its quota is not known before its document has come.
        tenant => node
            .store
            .find_space(tenant)
            .map(Keyspace::from)
            .ok_or_else(|| Status::failed_precondition("this node doesn't know the tenant yet"))?,
    };
    let client = node.clients.of_peer(clock::now_ms());
    let mut pipeline = Pipeline::detached(node.clone(), context.thread_stats.clone(), client);
    pipeline.enter(keyspace.clone());
    let mut message = first;
    loop {
        let commands = pipeline.commands();
        if commands.len() + message.commands.len() > INPUT_BYTES_MAX {
            return Err(Status::resource_exhausted("the commands are too long"));
        }
        commands.extend_from_slice(&message.commands);
        if !pipeline.has_room() {
            return Err(Status::resource_exhausted("there is no memory for the commands"));
        }
        if message.last {
            break;
        }
        message = next(&mut requests).await?;
    }
    match pipeline.answer().await {
        Answered::Whole => {}
        // The commands were executed, and only their replies have no room.
        Answered::NoRoom => return Err(Status::unavailable("there is no memory for the replies")),
        Answered::Over => return Err(Status::internal("the commands are not the protocol")),
    }
    let replies = Bytes::from(pipeline.take_replies());
    // They are held until they are sent.
    let mut charge = Charge::new(Arc::clone(node), &keyspace);
    if !charge.set(replies.len(), &context.thread_stats) {
        return Err(Status::unavailable("there is no memory for the replies"));
    }
    let mut replies = charge.around(replies);
    let mut bytes = replies.len() as u64;
    let mut pieces = Vec::with_capacity(replies.len() / CHUNK_BYTES_MAX + 1);
    loop {
        let piece = replies.split_to(replies.len().min(CHUNK_BYTES_MAX));
        pieces.push(Ok(ExecuteReply {
            replies: piece,
            bytes: std::mem::take(&mut bytes),
        }));
        if replies.is_empty() {
            return Ok(stream::iter(pieces));
        }
    }
}
