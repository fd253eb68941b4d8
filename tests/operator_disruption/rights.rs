//! The operator has exactly the rights that it needs: each was used in the tests before this one, and nothing that it asked
//! for was refused for want of a right.

use annulus_tests::rights::{Right, granted, rules_of, used};
use annulus_tests::{AuditLog, OPERATOR_NAMESPACE, figure, run};
use anyhow::ensure;

/// Rights that no test uses, and why the operator has them all the same.
const UNUSED: &[(&str, &str)] = &[
    (
        "delete statefulsets.apps",
        "ends the set of a pool that was taken out of the spec, which no test does",
    ),
    (
        "update services",
        "takes back what somebody else added and a patch can't; tests add to a StatefulSet and to a selector",
    ),
    (
        "update poddisruptionbudgets.policy",
        "takes back what somebody else added to the spec, which no test does to this kind",
    ),
    (
        "update networkpolicies.networking.k8s.io",
        "takes back what somebody else added to the spec, which no test does to this kind",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_right_of_the_operator_is_needed_and_none_is_missing() {
    run("rights", async |test| {
        let Some(audit) = AuditLog::of(&test.kubernetes) else {
            return Ok(());
        };
        let user = &test.operator.user;
        let account = user.rsplit(':').next().unwrap_or_default();
        let rules = rules_of(&test.kubernetes.client, OPERATOR_NAMESPACE, account).await?;
        let granted = granted(&rules);
        ensure!(!granted.is_empty(), "no role is bound to {user}");
        let requests = audit.of_user(user).await?;
        figure("rights of the operator", granted.len());
        let forbidden: Vec<String> = requests
            .iter()
            .filter(|request| request.is_forbidden())
            .map(annulus_tests::Request::describe)
            .collect();
        ensure!(
            forbidden.is_empty(),
            "the operator asked for what its roles don't allow; add the rights to charts/annulus/templates/rbac.yaml: \
             {forbidden:#?}"
        );
        let seen = used(requests.iter());
        let is_listed = |right: &Right| UNUSED.iter().any(|(listed, _)| *listed == right.to_string());
        let unused: Vec<String> = granted
            .difference(&seen)
            .filter(|right| !is_listed(right))
            .map(ToString::to_string)
            .collect();
        ensure!(
            unused.is_empty(),
            "rights that the operator did not use since the cluster was started; was `tests/run-all e2e` run before this \
             test? If so, take them out of charts/annulus/templates/rbac.yaml, or say in UNUSED what they are for: {unused:#?}"
        );
        // The list of exceptions doesn't outlive its reasons.
        for (listed, _) in UNUSED {
            let is_granted = granted.iter().any(|right| right.to_string() == *listed);
            ensure!(is_granted, "UNUSED lists {listed}, which the roles don't give");
        }
        Ok(())
    })
    .await;
}
