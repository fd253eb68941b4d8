//! The Secrets with the credentials: read by name, never listed, and written where a password is new.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use annulus_crds::v1alpha1::{CacheTenant, TenantReason};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use tokio::time::Instant;

use super::admission::Refusal;
use super::error::TenantsError;
use super::memory::{Checked, Remembered, Stamp};
use super::plan::BindingSeen;
use crate::build::binding::{self, Binding, PASSWORD_KEY};
use crate::build::secret::Password;
use crate::drift::FIELD_MANAGER;
use crate::key::TenantKey;
use crate::metrics::Metrics;

/// Requests for Secrets that are under way at the same time.
const AT_ONCE: usize = 16;
/// A binding that was as it should be is looked at again after this time, or up to twice as long, so that those of many
/// tenants don't all come at once.
const CHECK_AGAIN: Duration = Duration::from_mins(5);
/// One that the API server refused is tried again after this time, with a new password, which is a new document.
pub const TRY_AGAIN: Duration = Duration::from_secs(30);

/// A binding that is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What is to be in it.
    pub binding: Binding,
    /// The state of its tenant.
    pub stamp: Stamp,
}

impl Wanted {
    fn place(&self) -> (TenantKey, String) {
        (self.binding.tenant.clone(), self.binding.user.clone())
    }

    /// Whether it must be looked at.
    pub fn is_due(&self, remembered: &Remembered) -> bool {
        let place = self.place();
        let mut hasher = DefaultHasher::new();
        place.hash(&mut hasher);
        let later = CHECK_AGAIN.mul_f64(f64::from(u8::try_from(hasher.finish() % 100).unwrap_or(0)) / 100.0);
        remembered
            .checked
            .get(&place)
            .is_none_or(|checked| checked.stamp != self.stamp || checked.at.elapsed() > CHECK_AGAIN + later)
    }
}

impl Wanted {
    /// Whether the API server refused it just now.
    pub fn was_refused(&self, remembered: &Remembered) -> bool {
        let refused = remembered.refused.get(&self.place());
        refused.is_some_and(|(at, _)| at.elapsed() < TRY_AGAIN)
    }
}

/// What was found of the bindings.
#[derive(Default)]
pub struct Found {
    /// What they hold, by tenant and user.
    pub seen: BTreeMap<TenantKey, BTreeMap<String, BindingSeen>>,
    /// The Secrets that are the tenants' own, to be replaced.
    pub live: BTreeMap<(TenantKey, String), Secret>,
    /// Those that hold the right password and something wrong beside it.
    pub spoilt: Vec<(Wanted, Password)>,
}

/// Looks at each of the bindings.
pub async fn look(
    client: &Client,
    wanted: Vec<Wanted>,
    remembered: &mut Remembered,
) -> Result<Found, TenantsError> {
    let mut answers = futures::stream::iter(wanted)
        .map(|wanted| async move {
            let api: Api<Secret> = Api::namespaced(client.clone(), &wanted.binding.tenant.namespace);
            let name = &wanted.binding.secret;
            let secret = api.get_opt(name).await.map_err(TenantsError::read(name));
            (wanted, secret)
        })
        .buffer_unordered(AT_ONCE);
    let mut found = Found::default();
    while let Some((wanted, secret)) = answers.next().await {
        let place = wanted.place();
        let (seen, password) = judge(&wanted, secret?.as_ref(), &mut found, &place);
        let of_tenant = found.seen.entry(place.0.clone()).or_default();
        of_tenant.insert(place.1.clone(), seen);
        if password {
            let checked = Checked {
                at: Instant::now(),
                stamp: wanted.stamp,
            };
            remembered.checked.insert(place, checked);
        }
    }
    Ok(found)
}

/// What a Secret is to the tenant. The second part tells that it is well.
fn judge(
    wanted: &Wanted,
    secret: Option<&Secret>,
    found: &mut Found,
    place: &(TenantKey, String),
) -> (BindingSeen, bool) {
    let binding = &wanted.binding;
    let Some(secret) = secret else {
        return (BindingSeen::Missing, false);
    };
    let owners = secret.metadata.owner_references.iter().flatten();
    let owner = owners.into_iter().find(|owner| owner.controller == Some(true));
    match owner {
        Some(owner) if owner.uid == binding.tenant_uid => {}
        Some(owner)
            if owner.kind == <CacheTenant as Resource>::kind(&()) && owner.name == binding.tenant.name =>
        {
            return (BindingSeen::Predecessor, false);
        }
        _ => return (BindingSeen::Foreign, false),
    }
    found.live.insert(place.clone(), secret.clone());
    let data = secret.data.clone().unwrap_or_default();
    let password = data
        .get(PASSWORD_KEY)
        .and_then(|password| Password::known(std::str::from_utf8(&password.0).ok()?));
    let Some(password) = password else {
        return (BindingSeen::Missing, false);
    };
    let seen = BindingSeen::Holds(password.digest());
    if data != binding::data(binding, &password) {
        found.spoilt.push((wanted.clone(), password));
    }
    (seen, true)
}

/// Writes the bindings. What is refused is remembered. Returns why some could not be written at this moment.
pub async fn write(
    client: &Client,
    metrics: &Metrics,
    writes: Vec<(Wanted, Password)>,
    live: &BTreeMap<(TenantKey, String), Secret>,
    remembered: &mut Remembered,
) -> BTreeMap<TenantKey, Refusal> {
    let mut answers = futures::stream::iter(writes)
        .map(|(wanted, password)| async move {
            let live = live.get(&wanted.place());
            let outcome = write_one(client, metrics, &wanted.binding, &password, live).await;
            (wanted, outcome)
        })
        .buffer_unordered(AT_ONCE);
    let mut passing = BTreeMap::new();
    while let Some((wanted, outcome)) = answers.next().await {
        let (place, at, secret) = (wanted.place(), Instant::now(), &wanted.binding.secret);
        remembered.refused.remove(&place);
        remembered.checked.remove(&place);
        match outcome {
            Ok(()) => {
                let stamp = wanted.stamp;
                remembered.checked.insert(place, Checked { at, stamp });
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let message = format!("Secret {secret} was made or changed by somebody else; trying again");
                passing.insert(place.0, Refusal::new(TenantReason::NameTaken, message));
            }
            Err(error) => {
                let message = format!("the API server does not take Secret {secret}: {error}");
                let refusal = Refusal::new(TenantReason::SecretRefused, message);
                remembered.refused.insert(place, (at, refusal));
            }
        }
    }
    passing
}

async fn write_one(
    client: &Client,
    metrics: &Metrics,
    binding: &Binding,
    password: &Password,
    live: Option<&Secret>,
) -> Result<(), kube::Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &binding.tenant.namespace);
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    match live {
        None => {
            metrics.wrote("Secret", "create");
            api.create(&params, &binding::build(binding, password)).await?;
        }
        Some(live) => {
            let mut next = live.clone();
            next.data = Some(binding::data(binding, password));
            next.metadata.managed_fields = None;
            metrics.wrote("Secret", "replace");
            api.replace(&binding.secret, &params, &next).await?;
        }
    }
    Ok(())
}
