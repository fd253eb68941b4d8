//! Waiting for a condition, with a deadline.

use std::time::Duration;

use anyhow::{Result, anyhow};
use futures::StreamExt as _;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::runtime::watcher;
use kube::{Api, Resource};
use tokio::time::{Instant, sleep, timeout_at};

/// Things that can't be watched are asked for this often.
const POLL: Duration = Duration::from_millis(200);

/// A number of seconds.
pub fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Asks until the probe succeeds. Its error says what is still missing, and is part of the failure at the deadline.
pub async fn until<T>(
    what: &str,
    deadline: Duration,
    mut probe: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    let mut last = anyhow!("nothing was seen yet");
    loop {
        match timeout_at(end, probe()).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(missing)) => last = missing,
            Err(_) => return Err(last.context(format!("{what}: not within {deadline:?}"))),
        }
        if Instant::now() + POLL > end {
            return Err(last.context(format!("{what}: not within {deadline:?}")));
        }
        sleep(POLL).await;
    }
}

/// Watches one object until the check of it succeeds; `None` is given to the check while there is no such object.
pub(crate) async fn watched<K, T>(
    api: Api<K>,
    name: &str,
    what: &str,
    deadline: Duration,
    mut check: impl FnMut(Option<&K>) -> Result<T>,
) -> Result<T>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    let end = Instant::now() + deadline;
    let mut last = anyhow!("nothing was seen yet");
    let mut changes = std::pin::pin!(watcher::watch_object(api, name));
    loop {
        match timeout_at(end, changes.next()).await {
            Ok(Some(Ok(object))) => match check(object.as_ref()) {
                Ok(found) => return Ok(found),
                Err(missing) => last = missing,
            },
            Ok(Some(Err(error))) => last = error.into(),
            Ok(None) => return Err(anyhow!("{what}: the watch ended")),
            Err(_) => return Err(last.context(format!("{what}: not within {deadline:?}"))),
        }
    }
}

/// Watches until there is an object of that name.
pub async fn appeared<K>(api: Api<K>, name: &str, deadline: Duration) -> Result<()>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    let what = format!("{name} there");
    watched(api, name, &what, deadline, |object| {
        object.map(|_| ()).ok_or_else(|| anyhow!("it is not"))
    })
    .await
}
