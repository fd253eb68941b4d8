//! One load of one key: begun once, waited for by whoever reads the key meanwhile.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::Shared;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// What a load brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// The value.
    Value(Bytes),
    /// The origin doesn't have it.
    Absent,
    /// It can't be loaded, for this reason.
    Failed(Arc<str>),
}

/// A load that is under way, or over.
pub struct Load {
    /// The key was written since: what is loaded may be older, and isn't kept.
    is_superseded: AtomicBool,
    end: Mutex<Option<oneshot::Sender<Loaded>>>,
    outcome: Shared<oneshot::Receiver<Loaded>>,
}

impl Load {
    pub(super) fn new() -> Arc<Self> {
        let (end, outcome) = oneshot::channel();
        Arc::new(Self {
            is_superseded: AtomicBool::new(false),
            end: Mutex::new(Some(end)),
            outcome: outcome.shared(),
        })
    }

    pub(super) fn supersede(&self) {
        self.is_superseded.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_superseded(&self) -> bool {
        self.is_superseded.load(Ordering::Relaxed)
    }

    /// Tells everybody who waits.
    pub(super) fn finish(&self, loaded: Loaded) {
        if let Some(end) = self.end.lock().take() {
            // There may be nobody left.
            end.send(loaded).unwrap_or_default();
        }
    }
}

struct Waited {
    key: Box<[u8]>,
    outcome: Shared<oneshot::Receiver<Loaded>>,
    loaded: Option<Loaded>,
}

/// The loads that a command waits for, and then what they brought.
#[derive(Default)]
pub struct Awaited(Vec<Waited>);

impl Awaited {
    pub(super) fn push(&mut self, key: &[u8], load: &Load) {
        self.0.push(Waited {
            key: key.into(),
            outcome: load.outcome.clone(),
            loaded: None,
        });
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all are.
    pub fn is_over(&self) -> bool {
        self.0.iter().all(|waited| waited.loaded.is_some())
    }

    /// What was brought for a key, once all are over.
    pub(super) fn of(&self, key: &[u8]) -> Option<&Loaded> {
        let waited = self.0.iter().find(|waited| *waited.key == *key)?;
        waited.loaded.as_ref()
    }

    /// Ready when all are over.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut are_over = true;
        for waited in self.0.iter_mut().filter(|waited| waited.loaded.is_none()) {
            match Pin::new(&mut waited.outcome).poll(context) {
                Poll::Ready(Ok(loaded)) => waited.loaded = Some(loaded),
                Poll::Ready(Err(_)) => {
                    waited.loaded = Some(Loaded::Failed("the load ended early: try again".into()));
                }
                Poll::Pending => are_over = false,
            }
        }
        if are_over { Poll::Ready(()) } else { Poll::Pending }
    }
}
