//! The values of headers that are in Secrets: read by name in the group's own namespace, never listed, never watched.
//!
//! A Secret that is missing or unusable leaves its groups out. One that can't be read at this moment ends the pass, which is tried
//! again: an API server that is away must not take a group from nodes that have it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use annulus_crds::v1alpha1::GroupReason;
use futures::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::time::Instant;

use super::GroupRefusal;
use super::validate::{ValidGroup, is_header_value};
use crate::key::GroupKey;
use crate::tenants::reconcile::TenantsError;

/// Requests for Secrets that are under way at the same time.
const AT_ONCE: usize = 16;
/// Values that were found are looked at again after this time, or up to a minute later with the pass that is due then.
const CHECK_AGAIN: Duration = Duration::from_mins(1);
/// What was missing is looked for again after this time.
pub const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Headers, name and value.
pub type Headers = Vec<(String, String)>;
/// What a Secret holds.
type Data = BTreeMap<String, ByteString>;

/// What was found for a group.
#[derive(Clone)]
pub struct Looked {
    /// Which one, and which version of its spec.
    of: (String, i64),
    at: Instant,
    headers: Result<Headers, GroupRefusal>,
}

/// What was found, by group.
pub type Remembered = HashMap<GroupKey, Looked>;

/// The values of each group's headers; those of groups that have none in Secrets are left out.
pub async fn look(
    client: &Client,
    groups: &[&ValidGroup],
    remembered: &mut Remembered,
) -> Result<BTreeMap<GroupKey, Result<Headers, GroupRefusal>>, TenantsError> {
    let with_any = || groups.iter().filter(|group| !group.headers_from.is_empty());
    let present: BTreeSet<&GroupKey> = with_any().map(|group| &group.key).collect();
    remembered.retain(|key, _| present.contains(key));
    let due: Vec<&ValidGroup> = with_any()
        .copied()
        .filter(|group| is_due(group, remembered.get(&group.key)))
        .collect();
    let wanted: BTreeSet<(String, String)> = due
        .iter()
        .flat_map(|group| {
            let secrets = group.headers_from.iter();
            secrets.map(|from| (group.key.namespace.clone(), from.secret.clone()))
        })
        .collect();
    let mut answers = futures::stream::iter(wanted)
        .map(|(namespace, name)| async move {
            let content = read(client, &namespace, &name).await;
            ((namespace, name), content)
        })
        .buffer_unordered(AT_ONCE);
    let mut found = BTreeMap::new();
    while let Some((place, content)) = answers.next().await {
        found.insert(place, content?);
    }
    let at = Instant::now();
    for group in due {
        let headers = headers(group, |name| {
            match found.get(&(group.key.namespace.clone(), name.to_owned())) {
                Some(Ok(data)) => Ok(data.as_ref()),
                Some(Err(problem)) => Err(problem.clone()),
                None => Ok(None),
            }
        });
        let of = (group.uid.clone(), group.generation);
        remembered.insert(group.key.clone(), Looked { of, at, headers });
    }
    let known = remembered.iter();
    Ok(known
        .map(|(key, looked)| (key.clone(), looked.headers.clone()))
        .collect())
}

fn is_due(group: &ValidGroup, looked: Option<&Looked>) -> bool {
    looked.is_none_or(|looked| {
        let after = if looked.headers.is_ok() {
            CHECK_AGAIN
        } else {
            LOOK_AGAIN
        };
        let (uid, generation) = &looked.of;
        (uid, generation) != (&group.uid, &group.generation) || looked.at.elapsed() >= after
    })
}

/// The Secret, where it is there; or why it can't be read, if that is about this one alone.
async fn read(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Result<Option<Data>, String>, TenantsError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    match api.get_opt(name).await {
        Ok(secret) => Ok(Ok(secret.map(|secret| secret.data.unwrap_or_default()))),
        // Not allowed, or a name that the API server doesn't take; all else may pass.
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422) => {
            Ok(Err(status.message.clone()))
        }
        Err(error) => Err(TenantsError::read(name)(error)),
    }
}

/// The values of a group's headers. `content` is what a Secret of its namespace holds, or why it can't be read.
pub fn headers<'a>(
    group: &ValidGroup,
    content: impl Fn(&str) -> Result<Option<&'a Data>, String>,
) -> Result<Headers, GroupRefusal> {
    let refuse = |reason, message: String| Err(GroupRefusal::new(reason, message));
    let mut headers = Vec::with_capacity(group.headers_from.len());
    for from in &group.headers_from {
        let place = format!("{}/{}", group.key.namespace, from.secret);
        let data = match content(&from.secret) {
            Ok(Some(data)) => data,
            Err(problem) => {
                return refuse(
                    GroupReason::SecretMissing,
                    format!("can't read Secret {place}: {problem}"),
                );
            }
            Ok(None) => {
                let message = format!(
                    "there is no Secret {place}, which headersFrom names for {}",
                    from.name
                );
                return refuse(GroupReason::SecretMissing, message);
            }
        };
        let Some(value) = data.get(&from.key) else {
            let message = format!(
                "Secret {place} has no key {}, which headersFrom names for {}",
                from.key, from.name
            );
            return refuse(GroupReason::SecretMissing, message);
        };
        // Who writes a Secret from a file has a line's end in it.
        let value = std::str::from_utf8(&value.0).map(|text| text.trim_end_matches(['\r', '\n']));
        match value {
            Ok(value) if is_header_value(value) => headers.push((from.name.clone(), value.to_owned())),
            _ => {
                let message = format!(
                    "key {} of Secret {place} can't be the value of a header: it must be at most 4096 characters of ASCII, on one line",
                    from.key
                );
                return refuse(GroupReason::SecretInvalid, message);
            }
        }
    }
    Ok(headers)
}
