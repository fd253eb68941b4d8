//! The document and the router say the same.

use std::collections::BTreeSet;

use serde_json::Value;

use super::DOCUMENT;
use super::problem::Problem;
use super::target::Target;

fn document() -> Value {
    serde_json::from_str(DOCUMENT).unwrap()
}

/// What a part of the document stands for.
fn resolve<'a>(document: &'a Value, part: &'a Value) -> &'a Value {
    match part["$ref"].as_str() {
        Some(reference) => document.pointer(reference.strip_prefix('#').unwrap()).unwrap(),
        None => part,
    }
}

#[test]
fn every_path_and_method_of_the_document_is_the_routers_and_the_other_way_round() {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let mut kinds = BTreeSet::new();
    for (path, item) in paths {
        let target = Target::parse(&path.replace("{key}", "k").replace("{group}", "g")).unwrap();
        let methods: BTreeSet<String> = item
            .as_object()
            .unwrap()
            .keys()
            .filter(|name| *name != "parameters")
            .map(|name| name.to_uppercase())
            .collect();
        let known: BTreeSet<String> = target.methods().split(", ").map(str::to_owned).collect();
        assert_eq!(methods, known, "{path}");
        kinds.insert(match target {
            Target::Key(_) => "key",
            Target::InGroup { .. } => "group",
            Target::Document => "document",
        });
    }
    assert_eq!(kinds.len(), 3);
}

#[test]
fn every_status_of_the_document_is_one_that_the_method_answers_and_the_other_way_round() {
    const READS: &[&str] = &["get", "head"];
    const WRITES: &[&str] = &["put", "delete"];
    const ALL: &[&str] = &["get", "head", "put", "delete"];
    let of_reply = Problem::of_reply;
    let problems: Vec<(Problem, &[&str])> = vec![
        (Problem::bad_request("x"), ALL),
        (Problem::unauthorized("x"), ALL),
        (of_reply("NOPERM x"), ALL),
        (Problem::no_such_key(), &["get", "head", "delete"]),
        (of_reply("WRONGTYPE x"), ALL),
        (Problem::precondition_failed(), ALL),
        (Problem::timeout(), &["put"]),
        (Problem::too_large(1), &["put"]),
        (Problem::range_not_satisfiable(1), &["get"]),
        (of_reply("THROTTLED x"), ALL),
        (of_reply(""), ALL),
        (Problem::unavailable("x"), ALL),
        (Problem::no_room(), ALL),
        (Problem::uncertain("x"), WRITES),
        (of_reply("OOM x"), &["put"]),
        (of_reply("ORIGIN x"), READS),
    ];
    let successes: [(u16, &[&str]); 5] = [
        (200, READS),
        (201, &["put"]),
        (204, WRITES),
        (206, &["get"]),
        (304, READS),
    ];
    let document = document();
    for (path, item) in document["paths"].as_object().unwrap() {
        if path.ends_with("openapi.json") {
            continue;
        }
        for (method, operation) in item.as_object().unwrap() {
            let Some(responses) = operation["responses"].as_object() else {
                continue;
            };
            let described: BTreeSet<u16> = responses.keys().map(|status| status.parse().unwrap()).collect();
            let of_method = |methods: &[&str]| methods.contains(&method.as_str());
            let possible = problems
                .iter()
                .filter(|(_, methods)| of_method(methods))
                .map(|(problem, _)| problem.status.as_u16());
            let successes = successes
                .iter()
                .filter(|(_, methods)| of_method(methods))
                .map(|(status, _)| *status);
            assert_eq!(described, possible.chain(successes).collect(), "{method} {path}");
            for (problem, methods) in &problems {
                let status = problem.status.as_str();
                if of_method(methods) && method != "head" {
                    let response = resolve(&document, &responses[status]);
                    let schema = &response["content"]["application/problem+json"]["schema"];
                    assert_eq!(
                        schema["$ref"], "#/components/schemas/Problem",
                        "{method} {path} {status}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    fn look(document: &Value, part: &Value) {
        match part {
            Value::Object(fields) => {
                resolve(document, part);
                fields.values().for_each(|field| look(document, field));
            }
            Value::Array(elements) => elements.iter().for_each(|element| look(document, element)),
            _ => {}
        }
    }
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    look(&document, &document);
}
