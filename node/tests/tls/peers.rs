//! Between nodes, and between operator and node: who proves that it belongs to the cluster, and as whom it may speak.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use annulus_node::cluster::{ClusterState, Identity};
use annulus_node::node::{Node, NodeOptions};
use annulus_node::peer::{self, PeerContext};
use annulus_node::routing::Routing;
use annulus_node::store::{EvictionPolicy, Store, StoreOptions};
use annulus_proto::credentials::{LiveCredentials, PeerCredentials, PeerPem, connector};
use annulus_proto::identity::PeerIdentity;
use annulus_proto::v1;
use annulus_proto::v1::peer_client::PeerClient;
use annulus_ring::Incarnation;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::authority::{Authority, Pem};

const CLUSTER: &str = "c-1";

fn identity(text: &str) -> PeerIdentity {
    text.parse().unwrap()
}

fn credentials(authority: &Authority, name: &str) -> Arc<LiveCredentials> {
    credentials_trusting(authority, name, &authority.certificate)
}

fn credentials_trusting(authority: &Authority, name: &str, trusted: &str) -> Arc<LiveCredentials> {
    let Pem { certificate, key } = authority.sign(&[name]);
    let pem = PeerPem {
        certificate: certificate.as_bytes(),
        key: key.as_bytes(),
        authorities: trusted.as_bytes(),
    };
    let read = PeerCredentials::from_pem(&identity(name), pem).unwrap();
    Arc::new(LiveCredentials::new(read))
}

/// A node `n0` of cluster `c-1` that serves peers.
struct Peer {
    addr: SocketAddr,
    credentials: Arc<LiveCredentials>,
    stop: CancellationToken,
}

impl Peer {
    async fn start(authority: &Authority) -> Self {
        Self::start_with(credentials(authority, "annulus://c-1/node/n0")).await
    }

    async fn start_with(credentials: Arc<LiveCredentials>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let store = Arc::new(Store::new(StoreOptions {
            budget_bytes: 1 << 20,
            eviction: EvictionPolicy::Lru,
        }));
        let own = Identity {
            cluster_uid: CLUSTER.parse().unwrap(),
            node_id: "n0".parse().unwrap(),
            incarnation: Incarnation(1),
        };
        let state = Arc::new(ClusterState::new(own, Arc::clone(&store)));
        let node = Arc::new(Node::new(NodeOptions {
            store,
            routing: Arc::clone(&state) as Arc<dyn Routing>,
            password: None,
            clients_max: 1,
            threads: 1,
            started_at_ms: 1,
            run_id: 1,
        }));
        let context = Arc::new(PeerContext::new(state, node));
        let stop = CancellationToken::new();
        let live = Arc::clone(&credentials);
        tokio::spawn(peer::serve(listener, Some(live), context, stop.clone()));
        Self {
            addr,
            credentials,
            stop,
        }
    }

    /// A client that means `meant`.
    fn client(&self, own: &Arc<LiveCredentials>, meant: &str) -> PeerClient<Channel> {
        let host = self.addr.ip().to_string();
        let connector = connector(Arc::clone(own), host, self.addr.port(), identity(meant));
        let endpoint = Endpoint::from_static("http://node").connect_timeout(Duration::from_secs(5));
        PeerClient::new(endpoint.connect_with_connector_lazy(connector))
    }

    /// What comes of an exchange in the name of that node, or of the operator.
    async fn exchange(&self, own: &Arc<LiveCredentials>, meant: &str, cluster: &str, name: &str) -> Code {
        let request = v1::ExchangeRequest {
            sender: Some(v1::Sender {
                cluster_uid: cluster.to_owned(),
                node_id: name.to_owned(),
                incarnation: if name.is_empty() { vec![] } else { vec![7; 16] }.into(),
                epoch: 0,
            }),
        };
        match self.client(own, meant).exchange(request).await {
            Ok(_) => Code::Ok,
            // With TLS 1.3 the client may have begun to speak before the server refuses its certificate.
            Err(status) if status.code() == Code::Unknown => Code::Unavailable,
            Err(status) => status.code(),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

const OWN: &str = "annulus://c-1/node/n0";

#[tokio::test]
async fn only_the_own_cluster_gets_in() {
    let (authority, other) = (Authority::new("c-1"), Authority::new("c-1"));
    let peer = Peer::start(&authority).await;
    let (ok, refused) = (Code::Ok, Code::Unavailable);
    for (what, own, expected) in [
        ("a node", credentials(&authority, "annulus://c-1/node/n1"), ok),
        // By the same authority, and by the authority of that cluster.
        (
            "a node of another cluster",
            credentials(&authority, "annulus://c-2/node/n1"),
            refused,
        ),
        (
            "a node that another authority signed",
            credentials_trusting(&other, "annulus://c-1/node/n1", &authority.certificate),
            refused,
        ),
    ] {
        let code = peer.exchange(&own, OWN, CLUSTER, "n1").await;
        assert_eq!(code, expected, "{what}");
    }
    let operator = credentials(&authority, "annulus://c-1/operator");
    assert_eq!(peer.exchange(&operator, OWN, CLUSTER, "").await, ok);
    let operator = credentials(&authority, "annulus://c-2/operator");
    assert_eq!(peer.exchange(&operator, OWN, CLUSTER, "").await, refused);
}

#[tokio::test]
async fn who_shows_nothing_is_refused() {
    let peer = Peer::start(&Authority::new("c-1")).await;
    // Without TLS.
    let endpoint = Endpoint::from_shared(format!("http://{}", peer.addr)).unwrap();
    let request = v1::FetchRingRequest {
        sender: Some(v1::Sender {
            cluster_uid: CLUSTER.to_owned(),
            ..v1::Sender::default()
        }),
    };
    let answer = match endpoint.connect().await {
        Ok(channel) => PeerClient::new(channel).fetch_ring(request).await.is_ok(),
        Err(_) => false,
    };
    assert!(!answer);
    // With TLS and without a certificate.
    let trusting = crate::authority::client_config(&Authority::new("any"), None);
    let addr = peer.addr;
    let answer = tokio::task::spawn_blocking(move || crate::authority::connect(addr, &trusting).is_ok());
    assert!(!answer.await.unwrap());
}

#[tokio::test]
async fn nobody_speaks_in_anothers_name() {
    let authority = Authority::new("c-1");
    let peer = Peer::start(&authority).await;
    let node = credentials(&authority, "annulus://c-1/node/n1");
    let operator = credentials(&authority, "annulus://c-1/operator");
    for (own, cluster, name, expected) in [
        (&node, CLUSTER, "n1", Code::Ok),
        (&node, CLUSTER, "n2", Code::PermissionDenied),
        (&node, CLUSTER, "", Code::PermissionDenied),
        (&node, "c-2", "n1", Code::FailedPrecondition),
        (&operator, CLUSTER, "", Code::Ok),
        (&operator, CLUSTER, "n1", Code::PermissionDenied),
    ] {
        let code = peer.exchange(own, OWN, cluster, name).await;
        assert_eq!(code, expected, "as {name:?} of {cluster}");
    }
    // The messages of a stream, too.
    let change = v1::ReplicateRequest {
        sender: Some(v1::Sender {
            cluster_uid: CLUSTER.to_owned(),
            node_id: "n2".to_owned(),
            incarnation: vec![7; 16].into(),
            epoch: 0,
        }),
        ..v1::ReplicateRequest::default()
    };
    let messages = tokio_stream::iter([change]);
    let mut replies = peer
        .client(&node, OWN)
        .replicate(messages)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        replies.message().await.unwrap_err().code(),
        Code::PermissionDenied
    );
}

#[tokio::test]
async fn a_client_talks_to_nobody_but_the_node_that_it_meant() {
    let authority = Authority::new("c-1");
    let peer = Peer::start(&authority).await;
    let operator = credentials(&authority, "annulus://c-1/operator");
    for (meant, expected) in [
        (OWN, Code::Ok),
        ("annulus://c-1/node/n1", Code::Unavailable),
        ("annulus://c-2/node/n0", Code::Unavailable),
        ("annulus://c-1/operator", Code::Unavailable),
    ] {
        assert_eq!(
            peer.exchange(&operator, meant, CLUSTER, "").await,
            expected,
            "{meant}"
        );
    }
    let stranger = Authority::new("c-1");
    let trusting_another = credentials_trusting(&authority, "annulus://c-1/operator", &stranger.certificate);
    assert_eq!(
        peer.exchange(&trusting_another, OWN, CLUSTER, "").await,
        Code::Unavailable
    );
}

#[tokio::test]
async fn authorities_change_with_an_overlap() {
    let (old, new) = (Authority::new("c-1"), Authority::new("c-1"));
    let both = format!("{}{}", old.certificate, new.certificate);
    let peer = Peer::start(&old).await;
    let operator = "annulus://c-1/operator";
    let by_old = credentials_trusting(&old, operator, &both);
    let by_new = credentials_trusting(&new, operator, &both);
    let outcomes = |expected: [Code; 2]| {
        let (peer, by_old, by_new) = (&peer, &by_old, &by_new);
        async move {
            for (own, expected) in [by_old, by_new].into_iter().zip(expected) {
                assert_eq!(peer.exchange(own, OWN, CLUSTER, "").await, expected);
            }
        }
    };
    outcomes([Code::Ok, Code::Unavailable]).await;
    let mut kept = peer.client(&by_old, OWN);
    let ask = || v1::ExchangeRequest {
        sender: Some(v1::Sender {
            cluster_uid: CLUSTER.to_owned(),
            ..v1::Sender::default()
        }),
    };
    kept.exchange(ask()).await.unwrap();
    for (signed_by, trusted, expected) in [
        (&old, both.as_str(), [Code::Ok, Code::Ok]),
        (&new, both.as_str(), [Code::Ok, Code::Ok]),
        (&new, new.certificate.as_str(), [Code::Unavailable, Code::Ok]),
    ] {
        let Pem { certificate, key } = signed_by.sign(&[OWN]);
        let pem = PeerPem {
            certificate: certificate.as_bytes(),
            key: key.as_bytes(),
            authorities: trusted.as_bytes(),
        };
        let read = PeerCredentials::from_pem(&identity(OWN), pem).unwrap();
        peer.credentials.replace(read);
        outcomes(expected).await;
    }
    kept.exchange(ask()).await.expect("an open connection goes on");
}

#[test]
fn credentials_are_a_pair_and_name_their_owner() {
    let authority = Authority::new("c-1");
    let (one, other) = (authority.sign(&[OWN]), authority.sign(&[OWN]));
    let nobody = authority.sign(&["n0.example"]);
    let several = authority.sign(&[OWN, "annulus://c-1/operator"]);
    for (certificate, key, expected) in [
        (&one, &one, ""),
        (&one, &other, "can't be used"),
        (&nobody, &nobody, "names no annulus:// identity"),
        (&several, &several, "more than one"),
    ] {
        let pem = PeerPem {
            certificate: certificate.certificate.as_bytes(),
            key: key.key.as_bytes(),
            authorities: authority.certificate.as_bytes(),
        };
        let read = PeerCredentials::from_pem(&identity(OWN), pem);
        let error = read.err().map_or_else(String::new, |error| error.to_string());
        assert!(
            error.contains(expected) && error.is_empty() == expected.is_empty(),
            "{error}"
        );
        let other_name = PeerCredentials::from_pem(&identity("annulus://c-1/node/n1"), pem);
        assert!(other_name.is_err());
    }
}
