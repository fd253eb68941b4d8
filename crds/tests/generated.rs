//! The YAML that people install is the YAML that the types say.

use std::fs;
use std::path::Path;

use annulus_crds::v1alpha1::{GroupReason, Reason, TenantReason};

#[test]
fn generated_yaml_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for folder in ["crds/generated", "charts/annulus/crd"] {
        for (name, yaml) in annulus_crds::manifests() {
            let path = root.join(folder).join(&name);
            let found = fs::read_to_string(&path).unwrap_or_default();
            assert!(found == yaml, "{} is stale: run `make generate`", path.display());
        }
    }
}

#[test]
fn every_reason_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = fs::read_to_string(root.join("docs/status.md")).unwrap();
    let reasons = Reason::ALL.map(Reason::as_str).into_iter();
    let reasons = reasons.chain(TenantReason::ALL.map(TenantReason::as_str));
    for reason in reasons.chain(GroupReason::ALL.map(GroupReason::as_str)) {
        assert!(
            page.contains(&format!("| `{reason}` |")),
            "docs/status.md lacks {reason}"
        );
    }
}
