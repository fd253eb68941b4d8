//! The YAML that people install is the YAML that the types say.

use std::fs;
use std::path::Path;

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
