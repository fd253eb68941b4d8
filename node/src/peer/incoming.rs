//! Connections as they come, and who speaks on them.

use std::sync::Arc;
use std::time::Duration;

use annulus_proto::credentials::{Caller, LiveCredentials, PeerStream};
use annulus_proto::identity::PeerIdentity;
use annulus_proto::{Sender, v1};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tonic::{Request, Status};
use tracing::{debug, info, warn};

use super::PeerContext;

/// How long to wait after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a handshake may take, and how many may be under way: peers and operator make a handful of connections each.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const HANDSHAKES_MAX: usize = 256;

/// Accepts connections; who is slow with a handshake delays nobody else.
pub(super) async fn accept_all(
    listener: TcpListener,
    credentials: Option<Arc<LiveCredentials>>,
    accepted: mpsc::Sender<PeerStream>,
) {
    let room = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let stream = accept(&listener).await;
        let Some(credentials) = credentials.clone() else {
            if accepted.send(PeerStream::Plain(stream)).await.is_err() {
                return;
            }
            continue;
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            debug!("refused a peer's connection, there are {HANDSHAKES_MAX} handshakes already");
            continue;
        };
        let accepted = accepted.clone();
        tokio::spawn(async move {
            let from = stream.peer_addr().ok();
            let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, credentials.accept(stream));
            match handshake.await {
                // The service has ended if nobody takes it.
                Ok(Ok(stream)) => drop(accepted.send(stream).await),
                Ok(Err(error)) => info!(?from, %error, "refused a peer's connection"),
                Err(_) => info!(?from, "refused a peer's connection, its handshake took too long"),
            }
            drop(place);
        });
    }
}

/// The next connection. Out of file descriptors, it waits for some to be freed.
pub(crate) async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((connection, _)) => {
                if let Err(error) = connection.set_nodelay(true) {
                    debug!(%error, "a connection without TCP_NODELAY");
                }
                return connection;
            }
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Who is at the other end of the connection that the request came on, and what it says.
pub(super) fn opened<T>(request: Request<T>) -> (Caller, T) {
    let caller = request.extensions().get().cloned().unwrap_or(Caller(None));
    (caller, request.into_inner())
}

/// Refuses another cluster's message before anything else in it is looked at, and who speaks in another's name.
pub(super) fn check(
    context: &PeerContext,
    caller: &Caller,
    sender: Option<v1::Sender>,
) -> Result<Sender, Status> {
    let own = &context.state.identity().cluster_uid;
    if let Some(sender) = &sender
        && sender.cluster_uid != own.as_str()
    {
        info!(found = sender.cluster_uid, expected = %own, node = sender.node_id, "refused another cluster's message");
        return Err(Status::failed_precondition(format!(
            "this node belongs to cluster {own}, not to {:?}",
            sender.cluster_uid
        )));
    }
    let sender = Sender::try_from(sender).map_err(|error| Status::invalid_argument(error.to_string()))?;
    if let Some(identity) = &caller.0 {
        check_identity(identity, &sender)?;
    }
    if sender.node.is_some() && sender.epoch > context.state.epoch() {
        context.newer_epoch.notify_one();
    }
    Ok(sender)
}

/// A certificate speaks for itself alone.
fn check_identity(identity: &PeerIdentity, sender: &Sender) -> Result<(), Status> {
    let named = sender.node.as_ref().map(|(id, _)| id);
    if *identity.cluster() == sender.cluster_uid && identity.node() == named {
        return Ok(());
    }
    let named = named.map_or("the operator", |id| id.as_str());
    warn!(%identity, named, "refused a message in another's name");
    Err(Status::permission_denied(format!(
        "{identity} can't speak as {named}"
    )))
}
