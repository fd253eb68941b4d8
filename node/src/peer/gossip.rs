//! Nodes tell each other which epoch they have, and whoever has the lower one fetches the document.
//!
//! Only a node without any ring is given one unasked: it knows nobody to ask.
//!
//! This is how a ring reaches a node that the operator can't reach. It decides nothing else: a member that
//! doesn't answer is counted as down for the metrics, not taken out of anything.

use std::sync::Arc;
use std::time::Duration;

use annulus_proto::v1::peer_client::PeerClient;
use annulus_proto::v1::{ExchangeRequest, FetchRingRequest, PushRingRequest};
use annulus_proto::{MessageError, Sender};
use annulus_ring::{DocumentError, Epoch, Member, Refusal, RingDocument};
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use tonic::transport::Channel;
use tonic::{Request, Status};
use tracing::debug;

use super::PeerContext;
use super::links::{Links, Purpose};
use crate::cluster::ring_source::adopt_and_log;

const INTERVAL: Duration = Duration::from_secs(1);
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(1);
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether each other member answered last time, by name.
pub type PeersUp = Mutex<std::collections::BTreeMap<String, bool>>;

#[derive(Debug, thiserror::Error)]
enum GossipError {
    #[error(transparent)]
    Call(#[from] Status),
    #[error(transparent)]
    Link(#[from] tonic::transport::Error),
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the answer comes from cluster {0}")]
    OtherCluster(annulus_ring::ClusterUid),
}

/// Exchanges epochs with every other member, once a second and at once when somebody spoke of a higher one; for
/// ever.
pub async fn gossip(context: Arc<PeerContext>, links: Arc<Links>, peers_up: Arc<PeersUp>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = context.newer_epoch.notified() => {}
        }
        let Some(document) = context.state.document() else {
            continue;
        };
        links.retain(&document);
        let own = &context.state.identity().node_id;
        let others: Vec<&Member> = document
            .members
            .iter()
            .filter(|member| member.id != *own)
            .collect();
        let outcomes = join_all(others.iter().map(|member| exchange(&context, &links, member))).await;

        let mut up = std::collections::BTreeMap::new();
        for (member, outcome) in others.iter().zip(outcomes) {
            if let Err(error) = &outcome {
                debug!(peer = %member.id, %error, "no exchange with a peer");
            }
            up.insert(member.id.to_string(), outcome.is_ok());
        }
        *peers_up.lock() = up;
    }
}

async fn exchange(context: &PeerContext, links: &Links, member: &Member) -> Result<(), GossipError> {
    let mut client = links.client(member, Purpose::Gossip)?;
    let mut request = Request::new(ExchangeRequest {
        sender: Some(context.sender()),
    });
    request.set_timeout(EXCHANGE_TIMEOUT);
    let answer = bounded(EXCHANGE_TIMEOUT, client.exchange(request)).await?;
    let (theirs, ours) = (own_cluster(context, answer.sender)?, context.state.epoch());
    if theirs == Epoch::NONE && ours > theirs {
        return push(context, &mut client).await;
    }
    if theirs <= ours {
        return Ok(());
    }

    let mut request = Request::new(FetchRingRequest {
        sender: Some(context.sender()),
    });
    request.set_timeout(FETCH_TIMEOUT);
    let answer = bounded(FETCH_TIMEOUT, client.fetch_ring(request)).await?;
    own_cluster(context, answer.sender)?;
    let document = RingDocument::from_json(&answer.document)?;
    // Several peers may have had the same news.
    if document.epoch > context.state.epoch() {
        adopt_and_log(&context.state, document, "peer")?;
    }
    Ok(())
}

/// Who has no ring knows nobody to fetch it from.
async fn push(context: &PeerContext, client: &mut PeerClient<Channel>) -> Result<(), GossipError> {
    let Some(document) = context.state.document() else {
        return Ok(());
    };
    let document = document.to_json().into();
    let request = Request::new(PushRingRequest {
        sender: Some(context.sender()),
        document,
    });
    bounded(FETCH_TIMEOUT, client.push_ring(request)).await?;
    Ok(())
}

/// The answer's epoch, when it comes from this cluster.
fn own_cluster(
    context: &PeerContext,
    sender: Option<annulus_proto::v1::Sender>,
) -> Result<Epoch, GossipError> {
    let sender = Sender::try_from(sender)?;
    if sender.cluster_uid == context.state.identity().cluster_uid {
        Ok(sender.epoch)
    } else {
        Err(GossipError::OtherCluster(sender.cluster_uid))
    }
}

/// The timeout in a request's metadata is the server's to keep; this one is ours.
pub(super) async fn bounded<T>(
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!(
            "no answer within {} ms",
            limit.as_millis()
        ))),
    }
}
