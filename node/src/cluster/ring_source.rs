//! Ring documents from files: the one that is mounted and changes under our feet, and the one that we keep.
//!
//! A file is only ever a source among others: a document from it is adopted under the same rules as a pushed one,
//! and a file that is missing, unreadable or stale is said so once, and looked at again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use annulus_ring::{DocumentError, Epoch, RING_DOCUMENT_KEY, Refusal, RingDocument};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use super::ClusterState;

/// How often the ring file is looked at. A mounted ConfigMap takes up to a minute to change anyway.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Larger than any document: a ConfigMap holds 1 MiB.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Adopts a document and says in the log what became of it. `from` names the source.
pub fn adopt_and_log(state: &ClusterState, document: RingDocument, from: &str) -> Result<bool, Refusal> {
    let (epoch, members) = (document.epoch, document.members.len());
    let handoff_slots: u32 = document
        .handoffs
        .iter()
        .map(|handoff| u32::from(handoff.slots.len()))
        .sum();
    let outcome = state.adopt(document);
    match &outcome {
        Ok(true) => {
            let listed = state.progress().state.map(|member| member.to_string());
            let listed = listed.as_deref().unwrap_or("not listed");
            info!(%epoch, from, members, handoff_slots, this_node = listed, "adopted a ring document");
        }
        Ok(false) => debug!(%epoch, from, "a ring document of the epoch that is adopted already"),
        Err(refusal @ Refusal::OlderEpoch { .. }) => info!(from, %refusal, "refused a ring document"),
        Err(refusal) => warn!(from, %refusal, "refused a ring document"),
    }
    outcome
}

/// Adopts what the files have at boot. The kept document speaks of an earlier life, so that nothing is served by
/// it, but it says who the other members are.
pub fn adopt_at_boot(state: &ClusterState, ring_file: Option<&Path>, data_dir: Option<&Path>) {
    let kept = data_dir.map(|dir| (dir.join(RING_DOCUMENT_KEY), "data folder"));
    let mounted = ring_file.map(|path| (path.to_owned(), "ring file"));
    for (path, from) in kept.into_iter().chain(mounted) {
        match read_file(&path).map(|content| content.map(|json| RingDocument::from_json(&json))) {
            Ok(None) => info!(path = %path.display(), "no ring document yet"),
            Ok(Some(Ok(document))) => drop(adopt_and_log(state, document, from)),
            Ok(Some(Err(error))) => warn!(path = %path.display(), %error, "ignored a ring document"),
            Err(error) => warn!(path = %path.display(), %error, "can't read the ring document"),
        }
    }
}

/// The file's content; `None` while there is no such file.
fn read_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => Err(io::Error::other(format!(
            "{} bytes are more than a ring document has",
            metadata.len()
        ))),
        Ok(_) => fs::read(path).map(Some),
    }
}

/// What the last look at the file found, so that only changes are acted on and logged.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Missing,
    Content(Vec<u8>),
    Failure(String),
}

/// Adopts the file's document whenever its content changes; for ever.
pub async fn watch_ring_file(state: Arc<ClusterState>, path: PathBuf) {
    let mut ticks = interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = Seen::Missing;
    loop {
        ticks.tick().await;
        let file = path.clone();
        let read = tokio::task::spawn_blocking(move || read_file(&file))
            .await
            .unwrap_or_else(|error| Err(error.into()));
        let now = match read {
            Ok(Some(content)) => Seen::Content(content),
            Ok(None) => Seen::Missing,
            Err(error) => Seen::Failure(error.to_string()),
        };
        if now == seen {
            continue;
        }
        match &now {
            Seen::Missing => warn!(path = %path.display(), "the ring file is gone; keeping the ring"),
            Seen::Failure(error) => {
                warn!(path = %path.display(), error, "can't read the ring file; keeping the ring");
            }
            Seen::Content(json) => match RingDocument::from_json(json) {
                Ok(document) => drop(adopt_and_log(&state, document, "ring file")),
                Err(error) => {
                    warn!(path = %path.display(), %error, "ignored the ring file; keeping the ring");
                }
            },
        }
        seen = now;
    }
}

/// Writes every adopted document into the folder; for ever. A failure costs nothing but the next boot's start.
pub async fn keep_documents(state: Arc<ClusterState>, dir: PathBuf) {
    let mut changes = state.changes();
    let mut kept = Epoch::NONE;
    loop {
        changes.mark_unchanged();
        if state.epoch() > kept
            && let Some(document) = state.document()
        {
            kept = document.epoch;
            let folder = dir.clone();
            let written = tokio::task::spawn_blocking(move || keep(&folder, &document)).await;
            if let Err(error) = written.unwrap_or_else(|error| Err(error.into())) {
                warn!(dir = %dir.display(), %error, "can't keep the ring document");
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Replaces the kept document in one step: a crash leaves the old or the new one. A document of a higher epoch
/// that another life of this node kept stays.
fn keep(dir: &Path, document: &RingDocument) -> io::Result<()> {
    let path = dir.join(RING_DOCUMENT_KEY);
    if let Some(json) = read_file(&path)? {
        match RingDocument::from_json(&json).and_then(|kept| document.supersedes(&kept)) {
            Ok(false) => return Ok(()),
            Err(error @ DocumentError::OtherCluster { .. }) => {
                return Err(io::Error::other(error.to_string()));
            }
            // Unreadable: replaced.
            Ok(true) | Err(_) => {}
        }
    }
    let unfinished = dir.join(format!("{RING_DOCUMENT_KEY}.{}", std::process::id()));
    let mut file = File::create(&unfinished)?;
    file.write_all(document.to_json().as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, &path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests;
