//! The values of headers that are in Secrets: read by name in the group's own namespace, never listed, never watched.
//!
//! No look fails: what can't be read, or has to wait for its turn, is as it was ([`super::headers`], [`super::turns`]). Nor does it
//! hold up a pass for more than three seconds, or two passes that follow each other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use annulus_proto::groups::Group;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::GroupRefusal;
use super::headers::{Answer, Before, Data, Headers, Looked, headers};
use super::turns::{Allowance, Due, Place, choose};
use super::validate::ValidGroup;
use crate::context::Context;
use crate::key::GroupKey;

/// Requests for Secrets that are under way at the same time.
const AT_ONCE: usize = 16;
/// One takes no longer.
const READ_TIME: Duration = Duration::from_secs(2);
/// None begins later in a look than this.
const LOOK_TIME: Duration = Duration::from_secs(1);

/// What is remembered of the Secrets of a cluster's groups.
#[derive(Default)]
pub struct Remembered {
    looked: HashMap<GroupKey, Looked>,
    allowance: Allowance,
    /// Those that have not had their first turn.
    waiting: BTreeSet<GroupKey>,
}

impl Remembered {
    /// Whether the Secrets of the group as it is now have not been looked at yet.
    pub fn waits(&self, group: &GroupKey) -> bool {
        self.waiting.contains(group)
    }
}

/// What a look brought.
pub struct Look {
    /// The values of each group's headers; those of groups that have none in Secrets are left out.
    pub headers: BTreeMap<GroupKey, Result<Headers, GroupRefusal>>,
    /// When to look again, unless all is well.
    pub again: Option<Duration>,
}

/// What became of a read: what the Secret holds, if there is one, or why it couldn't be read.
type ReadOutcome = Result<Option<Data>, String>;

/// Looks at the Secrets that are due and have their turn. `stored` are the groups of the stored document.
pub async fn look(
    ctx: &Context,
    groups: &[&ValidGroup],
    stored: &[Group],
    remembered: &mut Remembered,
) -> Look {
    let now = Instant::now();
    let with_any: Vec<&ValidGroup> = groups
        .iter()
        .copied()
        .filter(|group| !group.headers_from.is_empty())
        .collect();
    let present: BTreeSet<&GroupKey> = with_any.iter().map(|group| &group.key).collect();
    remembered.looked.retain(|key, _| present.contains(key));
    let due: Vec<Due<'_>> = with_any
        .iter()
        .filter_map(|group| {
            let last = remembered.looked.get(&group.key);
            let last = last.filter(|last| last.is_of(group));
            let is_due = last.is_none_or(|last| last.due_at() <= now);
            is_due.then(|| Due {
                group,
                looked_at: last.map(Looked::at),
            })
        })
        .collect();
    let (chosen, places) = choose(&due, remembered.allowance.left(now));
    remembered.allowance.spend(places.len(), now);
    let wanted = places.len();
    let found = read_all(ctx, places, now).await;
    let at = Instant::now();
    if found.len() < wanted || at.saturating_duration_since(now) >= READ_TIME {
        remembered.allowance.hold(at);
    }
    let by_key: HashMap<GroupKey, &Group> = stored
        .iter()
        .map(|group| (GroupKey::new(&group.namespace, &group.name), group))
        .collect();
    for group in chosen {
        let place = |name: &str| (group.key.namespace.clone(), name.to_owned());
        let mut named = group.headers_from.iter();
        if !named.all(|from| found.contains_key(&place(&from.secret))) {
            continue;
        }
        let values = headers(group, |name| match found.get(&place(name)) {
            Some(Ok(data)) => Answer::Told(data.as_ref()),
            Some(Err(problem)) => Answer::Unreadable(problem),
            None => Answer::Unreadable("it was not read"),
        });
        let before = Before {
            last: remembered.looked.get(&group.key),
            stored: by_key.get(&group.key).copied(),
        };
        let looked = Looked::after(group, values, before, at);
        remembered.looked.insert(group.key.clone(), looked);
    }
    settle(&with_any, &by_key, remembered, at)
}

/// What all groups have now, looked at or not.
fn settle(
    groups: &[&ValidGroup],
    stored: &HashMap<GroupKey, &Group>,
    remembered: &mut Remembered,
    now: Instant,
) -> Look {
    let (mut headers, mut again) = (BTreeMap::new(), None::<Instant>);
    remembered.waiting.clear();
    for group in groups {
        let before = Before {
            last: remembered.looked.get(&group.key),
            stored: stored.get(&group.key).copied(),
        };
        headers.insert(group.key.clone(), before.unlooked(group));
        let last = before.last.filter(|last| last.is_of(group));
        if last.is_none() {
            remembered.waiting.insert(group.key.clone());
        }
        if last.is_some_and(|last| last.is_good() && last.due_at() > now) {
            continue;
        }
        // Who is due still had no turn.
        let due_at = last.map(Looked::due_at).filter(|due_at| *due_at > now);
        let due_at = due_at.unwrap_or_else(|| remembered.allowance.renewed_at(now));
        again = Some(again.map_or(due_at, |again| again.min(due_at)));
    }
    Look {
        headers,
        again: again.map(|at| at.saturating_duration_since(now)),
    }
}

/// What became of each read; those that didn't get to begin are left out.
async fn read_all(ctx: &Context, places: BTreeSet<Place>, started: Instant) -> BTreeMap<Place, ReadOutcome> {
    let found: BTreeMap<Place, ReadOutcome> = futures::stream::iter(places)
        .map(|place| async move {
            if started.elapsed() >= LOOK_TIME {
                return None;
            }
            let outcome = timeout(READ_TIME, read(&ctx.client, &place)).await;
            let outcome = outcome
                .unwrap_or_else(|_| Err(format!("the API server did not answer within {READ_TIME:?}")));
            Some((place, outcome))
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    let failed = || {
        found
            .iter()
            .filter_map(|(place, read)| Some((place, read.as_ref().err()?)))
    };
    for _ in failed() {
        ctx.metrics.failed("group_secrets", "read");
    }
    if let Some(((namespace, name), problem)) = failed().next() {
        let secrets = failed().count();
        warn!(
            secrets,
            namespace, name, problem, "can't read Secrets of groups, going on with what was read before"
        );
    }
    found
}

async fn read(client: &Client, (namespace, name): &Place) -> ReadOutcome {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    match api.get_opt(name).await {
        Ok(secret) => Ok(secret.map(|secret| secret.data.unwrap_or_default())),
        Err(kube::Error::Api(status)) if !status.message.is_empty() => Err(status.message.clone()),
        Err(error) => Err(error.to_string()),
    }
}
