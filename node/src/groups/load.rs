//! One load of one key: begun once, waited for by whoever reads the key meanwhile.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::Shared;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::routing::Tenure;

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
    /// When the node served the key's slot: what is loaded is for no other time.
    tenure: Tenure,
    end: Mutex<Option<oneshot::Sender<Loaded>>>,
    outcome: Shared<oneshot::Receiver<Loaded>>,
}

impl Load {
    pub(super) fn new(tenure: Tenure) -> Arc<Self> {
        let (end, outcome) = oneshot::channel();
        Arc::new(Self {
            is_superseded: AtomicBool::new(false),
            tenure,
            end: Mutex::new(Some(end)),
            outcome: outcome.shared(),
        })
    }

    pub(super) fn tenure(&self) -> Tenure {
        self.tenure
    }

    pub(super) fn supersede(&self) {
        self.is_superseded.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_superseded(&self) -> bool {
        self.is_superseded.load(Ordering::Relaxed)
    }

    /// Whether everybody was told.
    pub(super) fn is_over(&self) -> bool {
        self.end.lock().is_none()
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
    outcome: Shared<oneshot::Receiver<Loaded>>,
    loaded: Option<Loaded>,
}

/// The loads that a command waits for, and then what they brought.
#[derive(Default)]
pub struct Awaited {
    waited: Vec<Waited>,
    places: HashMap<Box<[u8]>, usize, foldhash::fast::RandomState>,
    /// How many of the first are over.
    over: usize,
}

impl Awaited {
    pub(super) fn push(&mut self, key: &[u8], load: &Load) {
        self.places.insert(key.into(), self.waited.len());
        self.waited.push(Waited {
            outcome: load.outcome.clone(),
            loaded: None,
        });
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.waited.is_empty()
    }

    /// Whether all are.
    pub fn is_over(&self) -> bool {
        self.over == self.waited.len()
    }

    /// What was brought for a key, once all are over.
    pub(super) fn of(&self, key: &[u8]) -> Option<&Loaded> {
        let place = *self.places.get(key)?;
        self.waited.get(place)?.loaded.as_ref()
    }

    /// Ready when all are over.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // One after the other: who waits for all of them needs to be woken by one at a time only.
        while let Some(waited) = self.waited.get_mut(self.over) {
            let loaded = match Pin::new(&mut waited.outcome).poll(context) {
                Poll::Ready(Ok(loaded)) => loaded,
                Poll::Ready(Err(_)) => Loaded::Failed("the load ended early: try again".into()),
                Poll::Pending => return Poll::Pending,
            };
            waited.loaded = Some(loaded);
            self.over += 1;
        }
        Poll::Ready(())
    }
}
