use super::*;
use crate::cluster::Identity;
use crate::store::{EvictionPolicy, Store, StoreOptions};

fn json(cluster: &str, epoch: u64) -> String {
    format!(
        r#"{{"clusterUid":"{cluster}","epoch":{epoch},"replicationFactor":1,"tokens":{{"n0":[16383]}},"members":[{{
            "id":"n0","incarnation":"00000000000000000000000000000007","weight":100,"state":"active",
            "address":{{"host":"127.0.0.1","clientPort":1,"peerPort":2}}}}]}}"#
    )
}

fn state() -> Arc<ClusterState> {
    let identity = Identity {
        cluster_uid: "c1".parse().unwrap(),
        node_id: "n0".parse().unwrap(),
        incarnation: annulus_ring::Incarnation(7),
    };
    let options = StoreOptions {
        budget_bytes: 1 << 20,
        eviction: EvictionPolicy::Lru,
    };
    Arc::new(ClusterState::new(identity, Arc::new(Store::new(options))))
}

/// Replaces a file as the kubelet does: what is seen is always whole.
fn replace(path: &Path, content: &str) {
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, content).unwrap();
    fs::rename(unfinished, path).unwrap();
}

async fn wait_for_epoch(state: &ClusterState, epoch: u64) {
    let mut changes = state.changes();
    let reached = async {
        while state.epoch() != Epoch(epoch) {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reached)
        .await
        .unwrap_or_else(|_| panic!("epoch {epoch} within 20 s"));
}

#[tokio::test]
async fn a_ring_file_is_picked_up_whenever_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(RING_DOCUMENT_KEY);
    let state = state();
    let watch = tokio::spawn(watch_ring_file(Arc::clone(&state), path.clone()));
    replace(&path, &json("c1", 3));
    wait_for_epoch(&state, 3).await;
    // None of these is adopted, and none stops the watch.
    for content in [json("c1", 2), json("c2", 9), "{".to_owned()] {
        replace(&path, &content);
        tokio::time::sleep(POLL_INTERVAL / 8).await;
    }
    replace(&path, &json("c1", 4));
    wait_for_epoch(&state, 4).await;
    watch.abort();
}

#[test]
fn at_boot_the_higher_epoch_of_the_two_files_counts() {
    let dir = tempfile::tempdir().unwrap();
    let (data, mounted) = (dir.path().join("data"), dir.path().join("mounted"));
    fs::create_dir(&data).unwrap();
    let table = [((5, 4), 5), ((4, 5), 5), ((4, 4), 4)];
    for ((kept_epoch, mounted_epoch), expected) in table {
        replace(&data.join(RING_DOCUMENT_KEY), &json("c1", kept_epoch));
        replace(&mounted, &json("c1", mounted_epoch));
        let state = state();
        adopt_at_boot(&state, Some(&mounted), Some(&data));
        assert_eq!(state.epoch(), Epoch(expected));
    }
    fs::write(data.join(RING_DOCUMENT_KEY), "nonsense").unwrap();
    fs::write(&mounted, json("c2", 7)).unwrap();
    let state = state();
    adopt_at_boot(&state, Some(&mounted), Some(&data));
    assert_eq!(
        state.epoch(),
        Epoch::NONE,
        "unreadable and foreign documents are ignored"
    );
}

#[tokio::test]
async fn adopted_documents_are_kept_and_a_higher_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let read = || RingDocument::from_json(&fs::read(dir.path().join(RING_DOCUMENT_KEY)).ok()?).ok();
    let kept = |epoch| async move {
        for _ in 0..2000 {
            if read().is_some_and(|document| document.epoch == Epoch(epoch)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("epoch {epoch} is not kept within 10 s");
    };
    let state = state();
    let task = tokio::spawn(keep_documents(Arc::clone(&state), dir.path().to_owned()));
    for epoch in [1, 2] {
        state
            .adopt(RingDocument::from_json(json("c1", epoch).as_bytes()).unwrap())
            .unwrap();
        kept(epoch).await;
    }
    task.abort();
    keep(
        dir.path(),
        &RingDocument::from_json(json("c1", 1).as_bytes()).unwrap(),
    )
    .unwrap();
    kept(2).await;
    let names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    assert_eq!(names, [RING_DOCUMENT_KEY], "nothing unfinished is left");
}
