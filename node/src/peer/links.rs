//! Connections to the other members.
//!
//! A connection belongs to one life of one member at one address; when a document says otherwise a new one is
//! made. Gossip, handoffs and published messages have connections of their own, so that none delays another.
//! Connections are made when they are first used, and a broken one is made again by the next call.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annulus_proto::credentials::{LiveCredentials, connector};
use annulus_proto::identity::PeerIdentity;
use annulus_proto::v1::peer_client::PeerClient;
use annulus_ring::{Address, Incarnation, Member, NodeId, RingDocument};
use parking_lot::Mutex;
use tonic::transport::{Channel, Endpoint};

use super::MESSAGE_BYTES_MAX;

/// A member that doesn't answer within this is as good as away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a silent connection is trusted, and how long its answer to a ping may take.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// What may be on its way unread: a few chunks for a stream, more for all of them.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Small messages that must not wait.
    Gossip,
    /// Slots.
    Handoff,
    /// Changes of slots that have copies.
    Replication,
    /// What clients publish.
    Messages,
    /// What clients ask this node for and others serve.
    Commands,
}

/// The connections of this node.
#[derive(Default)]
pub struct Links {
    credentials: Option<Arc<LiveCredentials>>,
    clients: Mutex<BTreeMap<(NodeId, Purpose), Link>>,
}

struct Link {
    incarnation: Incarnation,
    address: Address,
    client: PeerClient<Channel>,
}

impl Links {
    /// No connections yet; each will prove who it is with these credentials, and that the member is the one that was meant.
    pub fn secured(credentials: Option<Arc<LiveCredentials>>) -> Self {
        Self {
            credentials,
            clients: Mutex::default(),
        }
    }

    /// A client for the member. Must be called on a runtime; it doesn't wait for the connection.
    pub fn client(
        &self,
        member: &Member,
        purpose: Purpose,
    ) -> Result<PeerClient<Channel>, tonic::transport::Error> {
        let life = (member.id.clone(), member.incarnation, member.address.clone());
        self.client_of(life, purpose)
    }

    /// The same for a life of a member at an address.
    pub fn client_of(
        &self,
        (id, incarnation, address): (NodeId, Incarnation, Address),
        purpose: Purpose,
    ) -> Result<PeerClient<Channel>, tonic::transport::Error> {
        let mut clients = self.clients.lock();
        let key = (id, purpose);
        if let Some(link) = clients.get(&key)
            && (link.incarnation, &link.address) == (incarnation, &address)
        {
            return Ok(link.client.clone());
        }
        let client = connect((&key.0, &address), self.credentials.as_ref())?;
        let link = Link {
            incarnation,
            address,
            client: client.clone(),
        };
        clients.insert(key, link);
        Ok(client)
    }

    /// Closes the connections to whoever is not in the document any more.
    pub fn retain(&self, document: &RingDocument) {
        self.clients.lock().retain(|(id, _), link| {
            document
                .member(id)
                .is_some_and(|member| member.incarnation == link.incarnation)
        });
    }
}

fn connect(
    (id, address): (&NodeId, &Address),
    credentials: Option<&Arc<LiveCredentials>>,
) -> Result<PeerClient<Channel>, tonic::transport::Error> {
    let Address { host, peer_port, .. } = address;
    let uri = if host.contains(':') {
        format!("http://[{host}]:{peer_port}")
    } else {
        format!("http://{host}:{peer_port}")
    };
    let endpoint = Endpoint::from_shared(uri)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let channel = match credentials {
        None => endpoint.connect_lazy(),
        Some(credentials) => {
            let cluster = credentials.now().own().cluster().clone();
            let peer = PeerIdentity::Node(cluster, id.clone());
            let connector = connector(Arc::clone(credentials), host.clone(), *peer_port, peer);
            endpoint.connect_with_connector_lazy(connector)
        }
    };
    Ok(PeerClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX))
}
