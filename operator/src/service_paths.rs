//! Whether clients get through to a pod by the Service of its own.
//!
//! Each machine learns of a pod's address a second or so after the pod has it. A client that is sent to a Service in the
//! meantime loses its first packet, which TCP misses after a second, or is refused. So a new pod is given slots once a
//! connection to its Service is made: from the operator's machine, the others are hardly later. What can't be connected to
//! for seconds (a network plugin that lets nobody through, say) is not waited for any longer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use crate::key::ClusterKey;

const PATIENCE: Duration = Duration::from_secs(5);
/// A packet that was lost is not worth the second after which TCP sends it again.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);
const BETWEEN: Duration = Duration::from_millis(50);

/// The paths to all pods, by cluster. Cloning shares them.
#[derive(Clone)]
pub struct ServicePaths {
    clusters: Arc<Mutex<HashMap<ClusterKey, BTreeMap<String, Path>>>>,
    wake: UnboundedSender<ClusterKey>,
    patience: Duration,
}

struct Path {
    service: SocketAddr,
    open: bool,
    task: AbortHandle,
}

impl Drop for Path {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ServicePaths {
    /// No paths. A cluster's key is sent to `wake` when one of its paths is found to be open.
    pub fn new(wake: UnboundedSender<ClusterKey>) -> Self {
        Self {
            clusters: Arc::default(),
            wake,
            patience: PATIENCE,
        }
    }

    /// Tries the paths to these pods of the cluster, by UID, and forgets others. Returns those that are open.
    pub fn open(&self, key: &ClusterKey, pods: &BTreeMap<&str, SocketAddr>) -> BTreeSet<String> {
        let mut clusters = self.clusters.lock();
        let paths = clusters.entry(key.clone()).or_default();
        paths.retain(|uid, path| pods.get(uid.as_str()) == Some(&path.service));
        for (uid, service) in pods {
            if !paths.contains_key(*uid) {
                let task = tokio::spawn(self.clone().try_path(key.clone(), (*uid).to_owned(), *service));
                let path = Path {
                    service: *service,
                    open: false,
                    task: task.abort_handle(),
                };
                paths.insert((*uid).to_owned(), path);
            }
        }
        let open = paths.iter().filter(|(_, path)| path.open);
        open.map(|(uid, _)| uid.clone()).collect()
    }

    /// Forgets a cluster.
    pub fn forget(&self, key: &ClusterKey) {
        self.clusters.lock().remove(key);
    }

    async fn try_path(self, key: ClusterKey, uid: String, service: SocketAddr) {
        let begun = Instant::now();
        while !matches!(
            timeout(CONNECT_TIMEOUT, TcpStream::connect(service)).await,
            Ok(Ok(_))
        ) {
            if begun.elapsed() > self.patience {
                warn!(cluster = %key, %service, "no connection to the Service of a node; clients are sent there all the same");
                break;
            }
            sleep(BETWEEN).await;
        }
        let path_opened = self
            .clusters
            .lock()
            .get_mut(&key)
            .and_then(|paths| paths.get_mut(&uid))
            .filter(|path| path.service == service)
            .map(|path| path.open = true);
        if path_opened.is_some() && self.wake.send(key.clone()).is_err() {
            debug!(cluster = %key, "nobody reconciles any more");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    #[tokio::test]
    async fn a_path_is_open_once_somebody_accepts_and_is_tried_anew_for_another_pod() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service = listener.local_addr().unwrap();
        let (wake, mut wakes) = unbounded_channel();
        let paths = ServicePaths::new(wake);
        let key = ClusterKey::new("shop", "demo");

        let first = BTreeMap::from([("pod-1", service)]);
        assert!(paths.open(&key, &first).is_empty(), "nothing is known yet");
        assert_eq!(wakes.recv().await, Some(key.clone()));
        assert_eq!(paths.open(&key, &first), BTreeSet::from(["pod-1".to_owned()]));

        let second = BTreeMap::from([("pod-2", service)]);
        assert!(paths.open(&key, &second).is_empty(), "another pod");
        assert_eq!(wakes.recv().await, Some(key.clone()));
        assert_eq!(paths.open(&key, &second), BTreeSet::from(["pod-2".to_owned()]));
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let (wake, mut wakes) = unbounded_channel();
        let patience = Duration::from_millis(100);
        let paths = ServicePaths {
            patience,
            ..ServicePaths::new(wake)
        };
        let key = ClusterKey::new("shop", "demo");
        // Nobody listens at port 1.
        let pods = BTreeMap::from([("pod-1", SocketAddr::from(([127, 0, 0, 1], 1)))]);
        let begun = Instant::now();
        assert!(paths.open(&key, &pods).is_empty());
        assert_eq!(wakes.recv().await, Some(key.clone()));
        assert!(begun.elapsed() > patience);
        assert_eq!(paths.open(&key, &pods).len(), 1);
    }
}
