//! Telling objects how they are: the statuses of `CacheTenant`s and `CacheGroup`s, written where they changed, with the events
//! that a change is worth.
//!
//! What a status says is decided elsewhere. One that can't be written holds up no other.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::Instant;

use crate::context::Context;
use crate::drift::FIELD_MANAGER;
use crate::events::EventReason;
use crate::tenants::memory::Tenancy;

/// Statuses that are written at the same time.
const AT_ONCE: usize = 16;
/// How long a cache may lag behind a status that was written.
const STATUS_LAG: Duration = Duration::from_secs(5);

/// Kinds whose objects are told how they are.
pub trait Told:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// The kind's name.
    const KIND: &'static str;
    /// Tells its objects apart.
    type Key: Clone + Eq + Ord + Hash + for<'a> From<&'a Self>;
    /// What they are told.
    type Status: Clone + Default + PartialEq + Serialize + Send + Sync;

    /// What the object says of itself, as the caches have it.
    fn status(&self) -> Option<&Self::Status>;

    /// The event that one status after another is worth.
    fn event(previous: &Self::Status, next: &Self::Status) -> Option<(EventReason, String)>;
}

/// A status that is to be written.
pub struct News<K: Told> {
    object: Arc<K>,
    /// What it was.
    pub previous: K::Status,
    /// What it is to be.
    pub status: K::Status,
}

impl<K: Told> News<K> {
    /// What is new of an object, if anything is. `next` says it from what was, the generation and the time.
    pub fn of(
        object: &Arc<K>,
        previous: K::Status,
        next: impl FnOnce(&K::Status, i64, &Time) -> K::Status,
    ) -> Option<Self> {
        let generation = object.meta().generation.unwrap_or_default();
        let status = next(&previous, generation, &Time(Timestamp::now()));
        (status != previous).then(|| Self {
            object: Arc::clone(object),
            previous,
            status,
        })
    }

    /// Whose.
    pub fn key(&self) -> K::Key {
        K::Key::from(self.object.as_ref())
    }
}

/// What became of news.
pub struct Telling<K: Told> {
    /// Those that were written.
    pub written: Vec<News<K>>,
    /// The first that couldn't be.
    pub failure: Option<(K::Key, Box<kube::Error>)>,
}

/// The statuses that were written last, and when: caches may not show them yet.
pub struct Statuses<K: Told>(HashMap<K::Key, (K::Status, Instant)>);

impl<K: Told> Default for Statuses<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Told> Statuses<K> {
    /// What the object was told last.
    pub fn previous(&self, object: &K) -> K::Status {
        let written = self.0.get(&K::Key::from(object));
        let written = written.filter(|(_, at)| at.elapsed() < STATUS_LAG);
        written.map_or_else(
            || object.status().cloned().unwrap_or_default(),
            |(status, _)| status.clone(),
        )
    }

    /// Forgets all others.
    pub fn retain(&mut self, present: &BTreeSet<K::Key>) {
        self.0.retain(|key, _| present.contains(key));
    }

    /// Writes them, where the operator looks after the namespace.
    pub async fn tell(&mut self, shell: &Tenancy, ctx: &Context, news: Vec<News<K>>) -> Telling<K> {
        let writable = news.into_iter().filter(|news| {
            let namespace = news.object.namespace().unwrap_or_default();
            shell.scope_of(&namespace).is_some()
        });
        let mut answers = futures::stream::iter(writable)
            .map(|news| async move {
                let outcome = write(ctx, &news).await;
                (news, outcome)
            })
            .buffer_unordered(AT_ONCE);
        let (mut written, mut failure) = (Vec::new(), None);
        while let Some((news, outcome)) = answers.next().await {
            match outcome {
                Ok(()) => {
                    if let Some((reason, note)) = K::event(&news.previous, &news.status) {
                        ctx.events.publish_of(news.object.as_ref(), reason, note);
                    }
                    self.0.insert(news.key(), (news.status.clone(), Instant::now()));
                    written.push(news);
                }
                // It is gone, or another one has its name.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(source) => {
                    failure.get_or_insert_with(|| (news.key(), Box::new(source)));
                }
            }
        }
        Telling { written, failure }
    }
}

async fn write<K: Told>(ctx: &Context, news: &News<K>) -> Result<(), kube::Error> {
    let (namespace, name) = (
        news.object.namespace().unwrap_or_default(),
        news.object.name_any(),
    );
    let body = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": name, "namespace": namespace, "uid": news.object.uid()},
        "status": news.status,
    });
    let params = PatchParams {
        force: true,
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &namespace);
    ctx.metrics.wrote(K::KIND, "apply_status");
    api.patch_status(&name, &params, &Patch::Apply(&body)).await?;
    Ok(())
}
