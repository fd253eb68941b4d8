//! Takes what clients publish to the other members of the ring.
//!
//! Each member has a queue and a sender of its own, so that a slow one delays nobody. One call is under way to a
//! member at a time, and what it carried is never sent again: a message arrives at most once, and in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annulus_proto::v1::{self, PublishRequest};
use annulus_ring::{Epoch, NodeId};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;
use tonic::{Request, Status};
use tracing::debug;

use super::PeerContext;
use super::backoff::Backoff;
use super::gossip::bounded;
use super::links::{Links, Purpose};
use crate::pubsub::relay::{Outbox, Publication};

/// A member that hasn't taken a batch within this is as good as away.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error(transparent)]
    Call(#[from] Status),
    #[error(transparent)]
    Link(#[from] tonic::transport::Error),
    #[error("the ring doesn't list it any more")]
    NotListed,
}

/// Has a sender for each other member of the adopted ring; for ever.
pub async fn relay_messages(context: Arc<PeerContext>, links: Arc<Links>) {
    let mut ring = context.state.changes();
    let mut epoch = Epoch::NONE;
    let mut senders: BTreeMap<NodeId, AbortHandle> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        ring.mark_unchanged();
        if context.state.epoch() != epoch
            && let Some(document) = context.state.document()
        {
            epoch = document.epoch;
            let own = &context.state.identity().node_id;
            let others = document.members.into_iter().map(|member| member.id);
            let outboxes = context.node.relay.set_peers(others.filter(|id| id != own));
            senders.retain(|id, sender| {
                let stays = outboxes.contains_key(id);
                if !stays {
                    sender.abort();
                }
                stays
            });
            for (id, outbox) in outboxes {
                senders.entry(id).or_insert_with_key(|id| {
                    let (context, links) = (Arc::clone(&context), Arc::clone(&links));
                    tasks.spawn(send_all(context, links, id.clone(), outbox))
                });
            }
        }
        while tasks.try_join_next().is_some() {}
        if ring.changed().await.is_err() {
            return;
        }
    }
}

async fn send_all(context: Arc<PeerContext>, links: Arc<Links>, peer: NodeId, outbox: Arc<Outbox>) {
    let counters = &context.node.relay.counters;
    let mut backoff = Backoff::new(context.state.identity().incarnation.0);
    loop {
        let batch = outbox.take().await;
        let count = batch.len() as u64;
        match send(&context, &links, &peer, batch).await {
            Ok(()) => {
                counters.sent.add(count);
                backoff.reset();
            }
            Err(error) => {
                counters.dropped.add(count);
                debug!(%peer, messages = count, %error, "published messages may not have reached a peer");
                sleep(backoff.next()).await;
            }
        }
    }
}

async fn send(
    context: &PeerContext,
    links: &Links,
    peer: &NodeId,
    batch: Vec<Publication>,
) -> Result<(), RelayError> {
    let member = context.state.member(peer).ok_or(RelayError::NotListed)?;
    let mut client = links.client(&member, Purpose::Messages)?;
    let publications = batch.into_iter().map(|publication: Publication| v1::Publication {
        tenant: publication.tenant.0,
        channel: publication.channel,
        payload: publication.payload,
    });
    let request = Request::new(PublishRequest {
        sender: Some(context.sender()),
        publications: publications.collect(),
    });
    bounded(PUBLISH_TIMEOUT, client.publish(request)).await?;
    Ok(())
}
