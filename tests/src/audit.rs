//! Who asked the API server for what, from its audit log.
//!
//! A window of the log lies between two marks. A mark is a request that nobody else makes, so no clock is needed
//! and nothing between is missed.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use serde::Deserialize;

use crate::kubernetes::{Kubernetes, cluster_dir};
use crate::rights::Right;
use crate::wait::{seconds, until};

/// The audit log of the development cluster.
pub struct AuditLog<'a> {
    kubernetes: &'a Kubernetes,
    path: PathBuf,
}

/// A place in the log.
pub struct Mark(String);

/// A request that the API server has answered.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    verb: String,
    user: User,
    #[serde(default)]
    object_ref: Object,
    #[serde(default)]
    response_status: Outcome,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Outcome {
    code: u16,
}

#[derive(Debug, Clone, Deserialize)]
struct User {
    username: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Object {
    #[serde(rename = "apiGroup")]
    group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

impl Request {
    /// Whether that user made it.
    pub fn is_from(&self, user: &str) -> bool {
        self.user.username == user
    }

    /// Whether it could change something, other than a Lease.
    pub fn is_write(&self) -> bool {
        matches!(
            self.verb.as_str(),
            "create" | "update" | "patch" | "delete" | "deletecollection"
        ) && self.object_ref.resource != "leases"
    }

    /// Whether it was refused because the user has not the right. Other refusals have the same code.
    pub fn is_forbidden(&self) -> bool {
        let decision = self.annotations.get("authorization.k8s.io/decision");
        decision.is_some_and(|decision| decision == "forbid")
    }

    /// Whether it made an object.
    pub fn has_created(&self) -> bool {
        self.response_status.code == 201
    }

    /// The right that it needs.
    pub fn right(&self) -> Right {
        let Object {
            group,
            resource,
            subresource,
            ..
        } = &self.object_ref;
        let slash = if subresource.is_empty() { "" } else { "/" };
        Right {
            group: group.clone(),
            resource: format!("{resource}{slash}{subresource}"),
            verb: self.verb.clone(),
        }
    }

    /// Verb and object.
    pub fn describe(&self) -> String {
        let Object {
            group: _,
            resource,
            subresource,
            namespace,
            name,
        } = &self.object_ref;
        format!("{} {resource}/{subresource} {namespace}/{name}", self.verb)
    }
}

impl<'a> AuditLog<'a> {
    /// The log, or `None` when this cluster's can't be read; says so.
    pub fn of(kubernetes: &'a Kubernetes) -> Option<Self> {
        let path = cluster_dir().join("logs/audit.log");
        if kubernetes.is_development && path.exists() {
            return Some(Self { kubernetes, path });
        }
        crate::figure(
            "API writes",
            "not counted: only the development cluster's audit log can be read",
        );
        None
    }

    /// Marks this moment.
    pub async fn mark(&self) -> Result<Mark> {
        let mark = format!("annulus-test-mark-{:016x}", RandomState::new().hash_one(0));
        let api: Api<ConfigMap> = Api::namespaced(self.kubernetes.client.clone(), "default");
        api.get_opt(&mark).await?;
        Ok(Mark(mark))
    }

    /// The requests between the two marks.
    pub async fn between(&self, from: &Mark, to: &Mark) -> Result<Vec<Request>> {
        let text = until("marks in the audit log", seconds(10), async || {
            let mut text = tokio::fs::read_to_string(&self.path).await?;
            if !text.contains(&from.0) {
                text = self.newest_rotated().await? + &text;
            }
            let (_, after) = text
                .split_once(&from.0)
                .context("the first mark is not in the log")?;
            let (between, _) = after
                .split_once(&to.0)
                .context("the second mark is not in the log")?;
            // The rest of the line with the first mark, and the beginning of that with the second, are cut off.
            let between = between.split_once('\n').map_or("", |(_, rest)| rest);
            Ok(between
                .rsplit_once('\n')
                .map_or("", |(lines, _)| lines)
                .to_owned())
        })
        .await?;
        text.lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("in the audit log: {line}")))
            .collect()
    }

    /// All requests of a user about objects, as far back as the log goes.
    pub async fn of_user(&self, user: &str) -> Result<Vec<Request>> {
        let mut requests = Vec::new();
        for path in self.rotated().await?.iter().chain([&self.path]) {
            let text = tokio::fs::read_to_string(path).await?;
            // The last line may be only half written.
            let lines = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
            for line in lines.lines().filter(|line| line.contains(user)) {
                let request: Request =
                    serde_json::from_str(line).with_context(|| format!("in the audit log: {line}"))?;
                if request.is_from(user) && !request.object_ref.resource.is_empty() {
                    requests.push(request);
                }
            }
        }
        Ok(requests)
    }

    async fn newest_rotated(&self) -> Result<String> {
        match self.rotated().await?.iter().max() {
            Some(newest) => Ok(tokio::fs::read_to_string(newest).await?),
            None => Ok(String::new()),
        }
    }

    /// The parts of the log that came before.
    async fn rotated(&self) -> Result<Vec<PathBuf>> {
        let folder = self.path.parent().context("the log has no folder")?;
        let mut entries = tokio::fs::read_dir(folder).await?;
        let mut rotated = Vec::new();
        while let Some(entry) = entries.next_entry().await? {
            if entry.file_name().to_string_lossy().starts_with("audit-") {
                rotated.push(entry.path());
            }
        }
        Ok(rotated)
    }
}
