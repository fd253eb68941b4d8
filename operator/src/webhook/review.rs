//! From the body of a request to the body of an answer.

use std::sync::Arc;
use std::time::Duration;

use annulus_crds::v1alpha1::{CacheCluster, CacheGroup, CacheTenant, TenantReason};
use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::core::admission::{AdmissionRequest, AdmissionReview};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{debug, info};

use super::decision::Decision;
use super::known::Known;
use super::tenant::Around;
use super::{cluster, group, pod, tenant};
use crate::key::ClusterKey;
use crate::metrics::Metrics;

/// So many answers at a time read from the API server before they refuse: whoever asks for a lot doesn't have the operator
/// ask for as much.
const LIVE_READS: usize = 2;
/// For so long: the API server waits three seconds for an answer.
const LIVE_READ_TIME: Duration = Duration::from_secs(1);

/// What is asked, by path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// May this `CacheTenant` be stored?
    CheckTenant,
    /// Which labels does it get?
    LabelTenant,
    /// May this `CacheGroup` be stored?
    CheckGroup,
    /// What does this change of a `CacheCluster` do to its tenants?
    CheckCluster,
    /// What does this pod get?
    InjectPod,
}

impl Question {
    /// Every one.
    pub const ALL: [Self; 5] = [
        Self::CheckTenant,
        Self::LabelTenant,
        Self::CheckGroup,
        Self::CheckCluster,
        Self::InjectPod,
    ];

    /// Where it is asked.
    pub fn path(self) -> &'static str {
        match self {
            Self::CheckTenant => "/validate/cachetenants",
            Self::LabelTenant => "/mutate/cachetenants",
            Self::CheckGroup => "/validate/cachegroups",
            Self::CheckCluster => "/validate/cacheclusters",
            Self::InjectPod => "/mutate/pods",
        }
    }

    /// The question of that path.
    pub fn of(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|question| question.path() == path)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The body is not what the API server would send.
    #[error("the body is no AdmissionReview of this kind: {0}")]
    Body(#[from] serde_json::Error),
    /// The review asks nothing.
    #[error("the AdmissionReview has no {0}")]
    Lacks(&'static str),
    /// An answer that can't be written.
    #[error(transparent)]
    Patch(#[from] kube::core::admission::SerializePatchError),
}

impl ReviewError {
    /// What HTTP calls it.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Body(_) | Self::Lacks(_) => StatusCode::BAD_REQUEST,
            Self::Patch(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Answers questions.
#[derive(Clone)]
pub struct Reviewer {
    known: Known,
    metrics: Metrics,
    live_reads: Arc<Semaphore>,
}

impl Reviewer {
    /// Answers by what is known.
    pub fn new(known: Known, metrics: Metrics) -> Self {
        Self {
            known,
            metrics,
            live_reads: Arc::new(Semaphore::new(LIVE_READS)),
        }
    }

    /// The answer to a body.
    pub async fn answer(&self, question: Question, body: &[u8]) -> Result<Vec<u8>, ReviewError> {
        let answered = match question {
            Question::CheckTenant => self.check_tenant(body).await,
            Question::LabelTenant => respond(question, &read(body)?, |request, object| {
                Ok(tenant::label(&placed(object, request)))
            }),
            Question::CheckGroup => respond(question, &read(body)?, |request, object: &CacheGroup| {
                let group = placed(object, request);
                Ok(group::check(&group, request.old_object.as_ref()))
            }),
            Question::CheckCluster => respond(question, &read(body)?, |request, object: &CacheCluster| {
                let before = request
                    .old_object
                    .as_ref()
                    .ok_or(ReviewError::Lacks("oldObject"))?;
                let tenants = self.known.tenants_of(&ClusterKey::from(object));
                let labels = |namespace: &str| self.known.namespaces.labels(namespace);
                let installation = &self.known.installation;
                Ok(cluster::check(object, before, &tenants, labels, installation))
            }),
            Question::InjectPod => respond(question, &read(body)?, |request, object| {
                let namespace = request
                    .namespace
                    .as_deref()
                    .ok_or(ReviewError::Lacks("namespace"))?;
                Ok(self.inject(object, namespace))
            }),
        };
        let outcome = match &answered {
            Ok((_, true)) => "allowed",
            Ok((_, false)) => "denied",
            Err(_) => "failed",
        };
        self.metrics.reviewed(question.path(), outcome);
        answered.map(|(body, _)| body)
    }

    async fn check_tenant(&self, body: &[u8]) -> Result<(Vec<u8>, bool), ReviewError> {
        let request: AdmissionRequest<CacheTenant> = read(body)?;
        let object = request.object.as_ref().ok_or(ReviewError::Lacks("object"))?;
        let (object, before) = (placed(object, &request), request.old_object.as_ref());
        let mut decision = tenant::check(&object, before, &self.known.around(&object));
        let is_by_caches = match &decision {
            Decision::Allow { .. } => false,
            Decision::Deny { reason, .. } => *reason != TenantReason::InvalidSpec.as_str(),
        };
        if is_by_caches && let Some(around) = self.around_now(&object).await {
            decision = tenant::check(&object, before, &around);
        }
        finish(Question::CheckTenant, &request, decision)
    }

    /// What is around a tenant now; `None` where the caches must do, since others are reading or it takes too long.
    async fn around_now(&self, object: &CacheTenant) -> Option<Around> {
        let _permit = self.live_reads.try_acquire().ok()?;
        let around = timeout(LIVE_READ_TIME, self.known.around_now(object)).await;
        around
            .inspect_err(|_| debug!("the API server takes too long, going by the caches"))
            .ok()
    }

    fn inject(&self, object: &Pod, namespace: &str) -> Decision {
        match pod::asks(object, namespace) {
            Ok(None) => Decision::allow(),
            Ok(Some(asks)) => pod::inject(object, &asks, self.known.tenant(&asks.tenant).as_ref()),
            Err(message) => Decision::Deny {
                reason: "InvalidAnnotation",
                message,
            },
        }
    }
}

fn read<K: Resource + DeserializeOwned>(body: &[u8]) -> Result<AdmissionRequest<K>, ReviewError> {
    let review: AdmissionReview<K> = serde_json::from_slice(body)?;
    review.try_into().map_err(|_| ReviewError::Lacks("request"))
}

fn respond<K: Resource>(
    question: Question,
    request: &AdmissionRequest<K>,
    decide: impl FnOnce(&AdmissionRequest<K>, &K) -> Result<Decision, ReviewError>,
) -> Result<(Vec<u8>, bool), ReviewError> {
    let object = request.object.as_ref().ok_or(ReviewError::Lacks("object"))?;
    finish(question, request, decide(request, object)?)
}

fn finish<K: Resource>(
    question: Question,
    request: &AdmissionRequest<K>,
    decision: Decision,
) -> Result<(Vec<u8>, bool), ReviewError> {
    let is_allowed = decision.is_allowed();
    if let Decision::Deny { reason, message } = &decision {
        let (path, namespace, name) = (question.path(), request.namespace.as_deref(), &request.name);
        info!(path, namespace, name, reason, message, "denied");
    }
    let body = serde_json::to_vec(&decision.into_review(request)?)?;
    Ok((body, is_allowed))
}

/// The object as it will be stored: one that is just being made may not have its namespace written in it.
fn placed<K: Resource + Clone>(object: &K, request: &AdmissionRequest<K>) -> K {
    let mut object = object.clone();
    if object.meta().namespace.is_none() {
        object.meta_mut().namespace.clone_from(&request.namespace);
    }
    object
}
