//! Fetches hot keys of other nodes' slots from their owners, for [`Mirrors`](crate::store::Mirrors).

use std::sync::Arc;

use annulus_ring::Slot;
use bytes::{Bytes, BytesMut};
use tokio::time::{Duration, timeout};

use super::Forwarder;
use crate::api::replies::{Item, read, write_command};
use crate::charge::Charge;
use crate::node::Node;
use crate::stats::ThreadStats;
use crate::store::{Fetch, Keyspace};

/// What takes longer is of no use any more.
const FETCH_TIMEOUT: Duration = Duration::from_secs(1);

/// Fetches what is asked for, each by itself; for ever.
pub async fn mirror(node: Arc<Node>, forwarder: Forwarder) {
    let Some(mut fetches) = node.store.mirrors.fetches_to_do() else {
        return;
    };
    let (forwarder, stats) = (Arc::new(forwarder), node.stats.register_thread());
    while let Some(fetch) = fetches.recv().await {
        tokio::spawn(fetch_one(
            Arc::clone(&node),
            Arc::clone(&forwarder),
            Arc::clone(&stats),
            fetch,
        ));
    }
}

async fn fetch_one(node: Arc<Node>, forwarder: Arc<Forwarder>, stats: Arc<ThreadStats>, fetch: Fetch) {
    let mut commands = BytesMut::new();
    write_command(&mut commands, &[b"GET", &fetch.key]);
    write_command(&mut commands, &[b"PTTL", &fetch.key]);
    let clock = node.store.journal.clock();
    // Before the owner is asked: what it says was so at some moment after this one.
    let asked_ms = clock.now_ms();
    let slot = Slot::for_key(&fetch.key);
    let keyspace = node.store.find_space(fetch.tenant).map(Keyspace::from);
    let charge = Charge::new(Arc::clone(&node), &keyspace.unwrap_or_default());
    let answer = timeout(
        FETCH_TIMEOUT,
        forwarder.execute(slot, fetch.tenant, commands.freeze(), (charge, &stats)),
    )
    .await;
    let answer = answer.ok().and_then(Result::ok);
    let told = answer.as_ref().and_then(value_and_ttl);
    // What is mirrored is no reply any more.
    let told = told.map(|(value, ttl_ms)| (value.map(|value| Bytes::copy_from_slice(&value)), ttl_ms));
    drop(answer);
    node.store.mirrors.fetched(&fetch, asked_ms, told);
}

/// What the replies to `GET` and `PTTL` say: the value, if there is one, and in how many milliseconds it expires, if it
/// does.
fn value_and_ttl(replies: &Bytes) -> Option<(Option<Bytes>, Option<u64>)> {
    let mut at = 0;
    let value = match read(replies, &mut at)? {
        Item::Bulk(place) => Some(replies.slice(place)),
        Item::Null => None,
        _ => return None,
    };
    match read(replies, &mut at)? {
        // -1: it doesn't expire; -2: it is not there, since a moment ago perhaps.
        Item::Integer(ttl_ms) => Some((value, u64::try_from(ttl_ms).ok())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_owner_answers_is_a_value_and_its_time() {
        let value = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        for (replies, expected) in [
            ("$1\r\na\r\n:-1\r\n", Some((value("a"), None))),
            ("$1\r\na\r\n:30\r\n", Some((value("a"), Some(30)))),
            ("$-1\r\n:-2\r\n", Some((None, None))),
            ("-MOVED 1 a:2\r\n-MOVED 1 a:2\r\n", None),
            ("-WRONGTYPE no\r\n:-1\r\n", None),
            ("$1\r\na\r\n", None),
        ] {
            let replies = Bytes::from_static(replies.as_bytes());
            assert_eq!(value_and_ttl(&replies), expected);
        }
    }
}
