//! Which of an account's rights it was seen to use: its rules on the one side, the audit log on the other.

use std::collections::BTreeSet;

use anyhow::Result;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use kube::{Api, Client};

use crate::audit::Request;

/// A verb on a resource of a group; subresources are resources of their own, `cacheclusters/status`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// The API group, empty for the core.
    pub group: String,
    /// What it is about.
    pub resource: String,
    /// What may be done.
    pub verb: String,
}

impl std::fmt::Display for Right {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            group,
            resource,
            verb,
        } = self;
        let dot = if group.is_empty() { "" } else { "." };
        write!(formatter, "{verb} {resource}{dot}{group}")
    }
}

/// Every right that these rules give.
pub fn granted(rules: &[PolicyRule]) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for rule in rules {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                rights.extend(rule.verbs.iter().map(|verb| Right {
                    group: group.clone(),
                    resource: resource.clone(),
                    verb: verb.clone(),
                }));
            }
        }
    }
    rights
}

/// Every right that these requests needed. An apply that made its object needed the right to create it, too.
pub fn used<'a>(requests: impl Iterator<Item = &'a Request>) -> BTreeSet<Right> {
    requests
        .filter(|request| !request.is_forbidden())
        .flat_map(|request| {
            let right = request.right();
            let made = (right.verb == "patch" && request.has_created()).then(|| Right {
                verb: "create".to_owned(),
                ..right.clone()
            });
            [Some(right), made]
        })
        .flatten()
        .collect()
}

/// The rules of every role that is bound to the `ServiceAccount`.
pub async fn rules_of(client: &Client, namespace: &str, account: &str) -> Result<Vec<PolicyRule>> {
    let is_bound = |subjects: Option<&Vec<Subject>>| {
        subjects.into_iter().flatten().any(|subject| {
            subject.kind == "ServiceAccount"
                && subject.name == account
                && subject.namespace.as_deref() == Some(namespace)
        })
    };
    let cluster_roles: Api<ClusterRole> = Api::all(client.clone());
    let mut rules = Vec::new();
    let of_cluster_role = async |role: &RoleRef| -> Result<Vec<PolicyRule>> {
        Ok(cluster_roles.get(&role.name).await?.rules.unwrap_or_default())
    };
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    for binding in bindings.list(&kube::api::ListParams::default()).await? {
        if is_bound(binding.subjects.as_ref()) {
            rules.extend(of_cluster_role(&binding.role_ref).await?);
        }
    }
    let bindings: Api<RoleBinding> = Api::all(client.clone());
    for binding in bindings.list(&kube::api::ListParams::default()).await? {
        if !is_bound(binding.subjects.as_ref()) {
            continue;
        }
        if binding.role_ref.kind == "ClusterRole" {
            rules.extend(of_cluster_role(&binding.role_ref).await?);
        } else {
            let place = binding.metadata.namespace.unwrap_or_default();
            let in_place: Api<Role> = Api::namespaced(client.clone(), &place);
            let role = in_place.get(&binding.role_ref.name).await?;
            rules.extend(role.rules.unwrap_or_default());
        }
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(verb: &str, group: &str, resource: &str, code: u16, decision: &str) -> Request {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let line = serde_json::json!({
            "verb": verb, "user": {"username": "operator"}, "responseStatus": {"code": code},
            "objectRef": {"apiGroup": group, "resource": resource, "subresource": subresource},
            "annotations": {"authorization.k8s.io/decision": decision},
        });
        serde_json::from_value(line).unwrap()
    }

    fn words(rights: &BTreeSet<Right>) -> Vec<String> {
        rights.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_was_used_is_taken_from_what_is_granted() {
        let rules: Vec<PolicyRule> = serde_json::from_value(serde_json::json!([
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
            {"apiGroups": ["apps"], "resources": ["statefulsets", "statefulsets/scale"], "verbs": ["create", "patch"]},
        ]))
        .unwrap();
        let requests = [
            request("list", "", "pods", 200, "allow"),
            request("get", "", "pods", 403, "forbid"),
            request("patch", "apps", "statefulsets", 201, "allow"),
            request("patch", "apps", "statefulsets/scale", 200, "allow"),
        ];
        let granted = granted(&rules);
        assert_eq!(granted.len(), 6);
        let used = used(requests.iter());
        let unused: BTreeSet<Right> = granted.difference(&used).cloned().collect();
        assert_eq!(words(&unused), ["get pods", "create statefulsets/scale.apps"]);
        let forbidden = requests.iter().filter(|request| request.is_forbidden());
        assert_eq!(forbidden.count(), 1);
    }
}
