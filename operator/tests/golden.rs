//! What is built from each fixture, down to the last field. A pod template that changes here rolls every
//! cluster when the operator is upgraded: accept a new snapshot only when that is meant.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]

use annulus_operator::build::build;
use annulus_operator::plan::plan;
use annulus_operator::validate::{Installation, validate};
use annulus_operator::view::View;
use serde::Serialize;

fn yaml(object: &impl Serialize) -> String {
    serde_yaml::to_string(object).unwrap()
}

#[test]
fn objects_of_each_fixture() {
    insta::glob!("fixtures/*.yaml", |path| {
        let cluster = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let installation = Installation {
            node_image: Some("registry.example.com/annulus-node:0.1.0".to_owned()),
            namespace: Some("annulus-system".to_owned()),
        };
        let cluster = validate(&cluster, &installation).unwrap();
        let plan = plan(&cluster, &View::default());
        let built = build(&cluster, &plan.pools);
        let mut documents = vec![
            yaml(&built.service_account),
            yaml(&built.client_service),
            yaml(&built.nodes_service),
            yaml(&built.ring_config_map),
            yaml(&built.pod_disruption_budget),
            yaml(&built.network_policy),
        ];
        documents.extend(built.node_services.first().map(yaml));
        documents.extend(built.stateful_sets.iter().map(yaml));
        insta::assert_snapshot!(documents.join("---\n"));
    });
}
