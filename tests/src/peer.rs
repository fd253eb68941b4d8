//! The peer protocol from the outside, to say things to nodes that they must refuse.

use std::net::Ipv4Addr;

use annulus_crds::v1alpha1::defaults::PEER_PORT;
use annulus_proto::Sender;
use annulus_proto::v1::peer_client::PeerClient;
use annulus_proto::v1::{ExchangeRequest, PushRingRequest, WatchRequest};
use annulus_ring::{ClusterUid, Epoch, RingDocument};
use anyhow::{Context as _, Result};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// A connection to a node's peer port.
pub struct Peer {
    client: PeerClient<Channel>,
}

impl Peer {
    /// Connects.
    pub async fn connect(ip: Ipv4Addr) -> Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{ip}:{PEER_PORT}"))?
            .connect()
            .await?;
        Ok(Self {
            client: PeerClient::new(channel),
        })
    }

    /// Tells the node, as a member of that document's ring, which epoch that member has.
    pub async fn exchange(&mut self, document: &RingDocument) -> Result<Code> {
        let member = document.members.first().context("a ring without members")?;
        let node = Some((member.id.clone(), member.incarnation));
        let sender = Sender {
            cluster_uid: document.cluster_uid.clone(),
            epoch: document.epoch,
            node,
        };
        let request = ExchangeRequest {
            sender: Some((&sender).into()),
        };
        Ok(code(&self.client.exchange(request).await))
    }

    /// Pushes a ring, as the operator does.
    pub async fn push(&mut self, document: &RingDocument) -> Result<Code> {
        let request = PushRingRequest {
            sender: Some((&operator(&document.cluster_uid, document.epoch)).into()),
            document: document.to_json().into_bytes().into(),
        };
        Ok(code(&self.client.push_ring(request).await))
    }

    /// Asks for reports, as the operator of that cluster does.
    pub async fn watch(&mut self, cluster_uid: &ClusterUid) -> Result<Code> {
        let request = WatchRequest {
            sender: Some((&operator(cluster_uid, Epoch::NONE)).into()),
            interval_ms: 1000,
        };
        let mut stream = match self.client.watch(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Ok(status.code()),
        };
        Ok(code(&stream.message().await))
    }
}

fn operator(cluster_uid: &ClusterUid, epoch: Epoch) -> Sender {
    Sender {
        cluster_uid: cluster_uid.clone(),
        epoch,
        node: None,
    }
}

fn code<T>(answer: &Result<T, Status>) -> Code {
    answer.as_ref().map_or_else(Status::code, |_| Code::Ok)
}
