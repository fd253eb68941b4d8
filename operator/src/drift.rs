//! Whether a live object is as it was built: compare before you write.
//!
//! Everything that was built must be there with the same value; what the API server or others added beside it
//! (defaults, assigned addresses, foreign labels) is left alone. Two things can't be seen by that comparison:
//! a field that an earlier build had and this one has not, for which the hash of the build is kept in an
//! annotation; and a field that somebody else set in the `spec`, for which the cache notes who did
//! ([`foreign_spec_writer`]).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// The field manager of every write of the operator.
pub const FIELD_MANAGER: &str = "annulus-operator";
/// Annotation with the hash of what was built.
pub const HASH_ANNOTATION: &str = "annulus.dev/applied-hash";

/// Why an object must be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drift {
    /// It isn't there.
    Absent,
    /// It was built otherwise before.
    BuiltAnew,
    /// That field has another value.
    Field(String),
    /// Somebody else set a field of its spec.
    ForeignWriter(String),
}

/// The hash of a built object.
pub fn hash(built: &Value) -> String {
    let digest = Sha256::digest(built.to_string().as_bytes());
    let bytes: [u8; 16] = std::array::from_fn(|index| digest[index]);
    format!("{:032x}", u128::from_be_bytes(bytes))
}

/// Compares what was built, without its hash, with what is live.
pub fn drift(built: &Value, hash: &str, live: &Value, foreign_writer: Option<&str>) -> Option<Drift> {
    let recorded = live
        .pointer("/metadata/annotations")
        .and_then(|annotations| annotations.get(HASH_ANNOTATION));
    if recorded.and_then(Value::as_str) != Some(hash) {
        return Some(Drift::BuiltAnew);
    }
    let mut path = String::new();
    if !covers(live, built, &mut path) {
        return Some(Drift::Field(path));
    }
    foreign_writer.map(|writer| Drift::ForeignWriter(writer.to_owned()))
}

/// Who else set fields of the spec: by hand, or through the scale subresource. The controllers of Kubernetes
/// write the status alone.
pub fn foreign_spec_writer(entries: &[ManagedFieldsEntry]) -> Option<String> {
    let foreign = entries.iter().find(|entry| {
        entry.manager.as_deref() != Some(FIELD_MANAGER)
            && entry.subresource.as_deref() != Some("status")
            && entry
                .fields_v1
                .as_ref()
                .is_some_and(|fields| fields.0.get("f:spec").is_some())
    })?;
    Some(foreign.manager.clone().unwrap_or_else(|| "somebody".to_owned()))
}

/// Maps in which a key that somebody added changes what the object does: a Service with one more key in its
/// selector finds no pods.
const EXACT: [&str; 1] = [".spec.selector"];

/// The live object with the maps that must be exactly as built replaced, if any is not.
pub fn without_foreign_keys(built: &Value, mut live: Value) -> Option<Value> {
    let mut changed = false;
    for path in EXACT {
        let pointer = path.replace('.', "/");
        if let (Some(built), Some(live)) = (built.pointer(&pointer), live.pointer_mut(&pointer))
            && has_more_keys(live, built)
        {
            *live = built.clone();
            changed = true;
        }
    }
    changed.then_some(live)
}

fn has_more_keys(live: &Value, built: &Value) -> bool {
    match (live, built) {
        (Value::Object(live), Value::Object(built)) => live.keys().any(|key| !built.contains_key(key)),
        _ => false,
    }
}

/// Whether `live` has everything of `built`; otherwise `path` names the first field that differs.
fn covers(live: &Value, built: &Value, path: &mut String) -> bool {
    if EXACT.contains(&path.as_str()) && has_more_keys(live, built) {
        return false;
    }
    match (live, built) {
        (Value::Object(live), Value::Object(built)) => built.iter().all(|(key, wanted)| {
            let length = path.len();
            path.push('.');
            path.push_str(key);
            let same = covers_field(live, key, wanted, path);
            if same {
                path.truncate(length);
            }
            same
        }),
        (Value::Array(live), Value::Array(built)) => {
            live.len() == built.len()
                && live.iter().zip(built).enumerate().all(|(index, (live, built))| {
                    let length = path.len();
                    path.push('[');
                    path.push_str(&index.to_string());
                    path.push(']');
                    let same = covers(live, built, path);
                    if same {
                        path.truncate(length);
                    }
                    same
                })
        }
        (live, built) => live == built || (is_quantity(path) && same_quantity(live, built)),
    }
}

fn covers_field(live: &Map<String, Value>, key: &str, wanted: &Value, path: &mut String) -> bool {
    match live.get(key) {
        Some(live) => covers(live, wanted, path),
        // The API server leaves out what is empty.
        None => match wanted {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::String(text) => text.is_empty(),
            Value::Number(_) | Value::Bool(true) => false,
        },
    }
}

/// Quantities are stored in a canonical form: `1000m` comes back as `1`.
fn is_quantity(path: &str) -> bool {
    let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
    parent.ends_with(".limits") || parent.ends_with(".requests") || path.ends_with(".sizeLimit")
}

fn same_quantity(live: &Value, built: &Value) -> bool {
    match (quantity(live), quantity(built)) {
        (Some(live), Some(built)) => live == built,
        _ => false,
    }
}

/// A quantity in thousandths.
fn quantity(value: &Value) -> Option<u128> {
    const SUFFIXES: [(&str, u128); 14] = [
        ("Ki", 1_000 << 10),
        ("Mi", 1_000 << 20),
        ("Gi", 1_000 << 30),
        ("Ti", 1_000 << 40),
        ("Pi", 1_000 << 50),
        ("Ei", 1_000 << 60),
        ("m", 1),
        ("k", 1_000_000),
        ("M", 1_000_000_000),
        ("G", 1_000_000_000_000),
        ("T", 1_000_000_000_000_000),
        ("P", 1_000_000_000_000_000_000),
        ("E", 1_000_000_000_000_000_000_000),
        ("", 1_000),
    ];
    let text = value.as_str()?;
    let (suffix, factor) = SUFFIXES.into_iter().find(|(suffix, _)| text.ends_with(suffix))?;
    let digits = text.strip_suffix(suffix)?;
    let (digits, factor) = match digits.split_once(['e', 'E']) {
        Some((digits, exponent)) => (
            digits,
            factor.checked_mul(10_u128.checked_pow(exponent.parse().ok()?)?)?,
        ),
        None => (digits, factor),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let number: u128 = format!("{whole}{fraction}").parse().ok()?;
    Some(number.checked_mul(factor)? / 10_u128.checked_pow(fraction.len().try_into().ok()?)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    type Edit = fn(&mut Value);

    fn live_of(built: &Value) -> Value {
        let mut live = built.clone();
        live["metadata"]["annotations"] = json!({ HASH_ANNOTATION: hash(built), "of": "others" });
        live
    }

    #[test]
    fn what_was_built_must_be_there_and_others_may_add() {
        let built = json!({
            "metadata": {"name": "c", "labels": {"a": "1"}},
            "spec": {"replicas": 3, "selector": {"app": "c"}, "list": [{"name": "x"}], "off": false, "none": [], "limits": {"cpu": "1000m", "memory": "1024Mi"}},
        });
        let rows: [(&str, Edit, Option<&str>); 11] = [
            ("untouched", |_| {}, None),
            (
                "a default added",
                |live| live["spec"]["extra"] = json!("Always"),
                None,
            ),
            (
                "a default in a list",
                |live| live["spec"]["list"][0]["protocol"] = json!("TCP"),
                None,
            ),
            (
                "a foreign label",
                |live| live["metadata"]["labels"]["b"] = json!("2"),
                None,
            ),
            (
                "a canonical quantity",
                |live| live["spec"]["limits"] = json!({"cpu": "1", "memory": "1Gi"}),
                None,
            ),
            (
                "empty fields left out",
                |live| {
                    live["spec"]
                        .as_object_mut()
                        .unwrap()
                        .retain(|key, _| key != "off" && key != "none");
                },
                None,
            ),
            (
                "another value",
                |live| live["spec"]["replicas"] = json!(5),
                Some(".spec.replicas"),
            ),
            (
                "another quantity",
                |live| live["spec"]["limits"]["cpu"] = json!("1001m"),
                Some(".spec.limits.cpu"),
            ),
            (
                "a list entry added",
                |live| live["spec"]["list"] = json!([{"name": "x"}, {"name": "y"}]),
                Some(".spec.list"),
            ),
            (
                "a key added to a selector",
                |live| live["spec"]["selector"]["b"] = json!("2"),
                Some(".spec.selector"),
            ),
            (
                "a label removed",
                |live| live["metadata"]["labels"] = json!({}),
                Some(".metadata.labels.a"),
            ),
        ];
        for (name, edit, field) in rows {
            let mut live = live_of(&built);
            edit(&mut live);
            let expected = field.map(|field| Drift::Field(field.to_owned()));
            assert_eq!(drift(&built, &hash(&built), &live, None), expected, "{name}");
        }
    }

    #[test]
    fn what_was_added_to_a_selector_is_taken_out() {
        let built = json!({"spec": {"selector": {"app": "c"}}});
        let mut live = json!({"spec": {"selector": {"app": "c"}, "clusterIP": "10.0.0.1"}});
        assert_eq!(without_foreign_keys(&built, live.clone()), None);
        let whole = live.clone();
        live["spec"]["selector"]["b"] = json!("2");
        assert_eq!(without_foreign_keys(&built, live), Some(whole));
    }

    #[test]
    fn a_field_that_is_no_longer_built_is_seen_by_the_hash() {
        let before = json!({"spec": {"a": 1, "b": 2}});
        let now = json!({"spec": {"a": 1}});
        assert_eq!(
            drift(&now, &hash(&now), &live_of(&before), None),
            Some(Drift::BuiltAnew)
        );
    }

    #[test]
    fn who_else_wrote_the_spec_is_seen_from_managed_fields() {
        let entry = |manager: &str, subresource: Option<&str>, fields: Value| {
            serde_json::from_value::<ManagedFieldsEntry>(json!({
                "manager": manager, "operation": "Update", "fieldsV1": fields, "subresource": subresource,
            }))
            .unwrap()
        };
        let spec = json!({"f:spec": {"f:replicas": {}}});
        let rows = [
            ("ours", entry(FIELD_MANAGER, None, spec.clone()), None),
            (
                "status",
                entry("kube-controller-manager", Some("status"), json!({"f:status": {}})),
                None,
            ),
            (
                "metadata",
                entry("kubectl-label", None, json!({"f:metadata": {}})),
                None,
            ),
            (
                "scaled",
                entry("kubectl", Some("scale"), spec.clone()),
                Some("kubectl"),
            ),
            ("edited", entry("kubectl-edit", None, spec), Some("kubectl-edit")),
        ];
        for (name, entry, expected) in rows {
            assert_eq!(foreign_spec_writer(&[entry]).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn quantities_are_compared_by_value() {
        for (a, b, same) in [
            ("0.5", "500m", true),
            ("1e3", "1k", true),
            ("64Mi", "65536Ki", true),
            ("100m", "200m", false),
            ("x", "x1", false),
        ] {
            assert_eq!(same_quantity(&json!(a), &json!(b)), same, "{a} {b}");
        }
    }
}
