//! The values of a group's headers: those that its Secrets hold, or those that were read last where these can't be read. Pure.
//!
//! Invariants: only what the API server has told of a Secret takes a group's values away; that it can't be read says nothing.
//! Values that were read before are sent to nowhere but where they were sent before.

use std::collections::BTreeMap;
use std::time::Duration;

use annulus_crds::v1alpha1::GroupReason;
use annulus_proto::groups::Group;
use k8s_openapi::ByteString;
use tokio::time::Instant;

use super::GroupRefusal;
use super::origin::target;
use super::validate::{ValidGroup, is_header_value};

/// Values that were found are looked at again after this time, or up to a minute later with the pass that is due then.
const CHECK_AGAIN: Duration = Duration::from_mins(1);
/// What was missing is looked for again after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// What couldn't be read is tried again after this time at first, and twice as long after each failure.
const TRY_AGAIN_MIN: Duration = Duration::from_secs(1);
const TRY_AGAIN_MAX: Duration = Duration::from_mins(1);

/// Headers, name and value.
pub type Headers = Vec<(String, String)>;
/// What a Secret holds.
pub type Data = BTreeMap<String, ByteString>;

/// What the API server says of a Secret.
#[derive(Debug, Clone)]
pub enum Answer<'a> {
    /// That it holds this, or that there is none.
    Told(Option<&'a Data>),
    /// It couldn't be read, for this reason.
    Unreadable(&'a str),
}

/// The values of a group's headers. `answer` is about a Secret of its namespace. What was told to be missing or unusable comes
/// before what can't be read, whose reason is [`GroupReason::SecretUnreadable`].
pub fn headers<'a>(group: &ValidGroup, answer: impl Fn(&str) -> Answer<'a>) -> Result<Headers, GroupRefusal> {
    let refuse = |reason, message: String| Err(GroupRefusal::new(reason, message));
    let mut headers = Vec::with_capacity(group.headers_from.len());
    let mut unreadable = None;
    for from in &group.headers_from {
        let place = format!("{}/{}", group.key.namespace, from.secret);
        let data = match answer(&from.secret) {
            Answer::Told(Some(data)) => data,
            Answer::Unreadable(problem) => {
                unreadable.get_or_insert_with(|| {
                    let message = format!(
                        "can't read Secret {place}, which headersFrom names for {}: {problem}. It is tried again",
                        from.name
                    );
                    GroupRefusal::new(GroupReason::SecretUnreadable, message)
                });
                continue;
            }
            Answer::Told(None) => {
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
    unreadable.map_or(Ok(headers), Err)
}

/// What is known of a group's headers since its Secrets were looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// Which group of that name, and which version of its spec.
    of: (String, i64),
    at: Instant,
    /// How often its Secrets couldn't be read since they last could.
    failures: u32,
    headers: Result<Headers, GroupRefusal>,
}

impl Looked {
    /// After a look at `now` that [found](headers) this.
    pub fn after(
        group: &ValidGroup,
        found: Result<Headers, GroupRefusal>,
        before: Before<'_>,
        now: Instant,
    ) -> Self {
        let (failures, headers) = match found {
            Err(refusal) if refusal.reason == GroupReason::SecretUnreadable => {
                let failures = before.look(group).map_or(0, |last| last.failures);
                (failures.saturating_add(1), before.good(group).ok_or(refusal))
            }
            told => (0, told),
        };
        Self {
            of: (group.uid.clone(), group.generation),
            at: now,
            failures,
            headers,
        }
    }

    /// Whether it is about the group as it is now.
    pub fn is_of(&self, group: &ValidGroup) -> bool {
        (self.of.0.as_str(), self.of.1) == (group.uid.as_str(), group.generation)
    }

    /// When the Secrets were looked at.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// When they are to be looked at again.
    pub fn due_at(&self) -> Instant {
        let doublings = self.failures.saturating_sub(1).min(16);
        self.at
            + match &self.headers {
                _ if self.failures > 0 => TRY_AGAIN_MIN.saturating_mul(1 << doublings).min(TRY_AGAIN_MAX),
                Ok(_) => CHECK_AGAIN,
                Err(_) => LOOK_AGAIN,
            }
    }

    /// Whether all was as it should be: the next look may wait for a pass that has other causes.
    pub fn is_good(&self) -> bool {
        self.failures == 0 && self.headers.is_ok()
    }
}

/// What was known of a group before its Secrets are looked at.
#[derive(Debug, Clone, Copy)]
pub struct Before<'a> {
    /// Since the last look.
    pub last: Option<&'a Looked>,
    /// The group in the stored document: what an earlier leader, or an earlier version of the spec, left with the nodes.
    pub stored: Option<&'a Group>,
}

impl Before<'_> {
    /// The headers of a group whose Secrets have to wait for their turn: what it had.
    pub fn unlooked(&self, group: &ValidGroup) -> Result<Headers, GroupRefusal> {
        match self.look(group) {
            Some(last) => last.headers.clone(),
            None => self.stored(group).ok_or_else(|| {
                let message = "there are many Secrets to be read for groups: those of this one have not had their turn yet";
                GroupRefusal::new(GroupReason::SecretUnreadable, message)
            }),
        }
    }

    fn look(&self, group: &ValidGroup) -> Option<&Looked> {
        self.last.filter(|last| last.is_of(group))
    }

    /// The values that were read last.
    fn good(&self, group: &ValidGroup) -> Option<Headers> {
        match self.look(group).map(|last| &last.headers) {
            Some(Ok(headers)) => Some(headers.clone()),
            // It was told that there are none any more.
            Some(Err(refusal)) if refusal.reason != GroupReason::SecretUnreadable => None,
            _ => self.stored(group),
        }
    }

    /// The values in the stored document, if they are of headers of the same names and were sent to the same places.
    fn stored(&self, group: &ValidGroup) -> Option<Headers> {
        let stored = self.stored?;
        let filter = stored.filter.as_ref().map(|filter| filter.keys_url.as_str());
        let urls = [stored.origin.url_template.as_str()].into_iter().chain(filter);
        let known: Vec<_> = urls.filter_map(|url| target(url).ok()).collect();
        if !group.targets.iter().all(|target| known.contains(target)) {
            return None;
        }
        let names = group.headers_from.iter();
        names
            .map(|from| {
                let mut headers = stored.origin.headers.iter();
                headers.find(|(name, _)| *name == from.name).cloned()
            })
            .collect()
    }
}
