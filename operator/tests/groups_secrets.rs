//! Headers from Secrets, a row each: what a look changes, what is kept where nothing can be read, and whose turn it is.
#![expect(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "tests: helpers may panic, tables may be long"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annulus_crds::v1alpha1::{CacheGroup, GroupReason};
use annulus_operator::groups::headers::{Answer, Before, Data, Looked, headers};
use annulus_operator::groups::turns::{Allowance, Due, HOLD, READS_MAX, WINDOW, choose};
use annulus_operator::groups::validate::{ValidGroup, validate};
use annulus_proto::groups::Group;
use k8s_openapi::ByteString;
use tokio::time::Instant;

const SPEC: &str = "keyPrefix: 'user:', ttl: {hard: 10m}, origin: {http: {urlTemplate: 'http://users.blog.svc/{key}', headers: [{name: accept, value: text}], headersFrom: [{name: Authorization, secretKeyRef: {name: api, key: token}}, {name: x-more, secretKeyRef: {name: more, key: it}}]}}";

fn is(data: &Data) -> Answer<'_> {
    Answer::Told(Some(data))
}

fn group(generation: i64, spec: &str) -> ValidGroup {
    named("blog", "users", generation, spec)
}

fn named(namespace: &str, name: &str, generation: i64, spec: &str) -> ValidGroup {
    let text = format!(
        "{{apiVersion: annulus.dev/v1alpha1, kind: CacheGroup, metadata: {{name: {name}, namespace: {namespace}, uid: u, generation: {generation}}}, spec: {{clusterRef: {{name: c, namespace: n}}, {spec}}}}}"
    );
    let object: CacheGroup = serde_yaml::from_str(&text).unwrap();
    validate(&object).unwrap()
}

/// A Secret with that under the keys that the group names.
fn secret(value: &str) -> Data {
    let value = ByteString(value.as_bytes().to_vec());
    BTreeMap::from([("token".to_owned(), value.clone()), ("it".to_owned(), value)])
}

fn values(authorization: &str, more: &str) -> Vec<(String, String)> {
    [("authorization", authorization), ("x-more", more)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

/// What nodes have of the group, with those values.
fn stored(group: &ValidGroup, headers: Vec<(String, String)>) -> Group {
    let mut stored = group.group.clone();
    stored.origin.headers.extend(headers);
    stored
}

/// After a look at a time that found this of the two Secrets.
fn looked(group: &ValidGroup, [api, more]: [Answer<'_>; 2], before: Before<'_>, now: Instant) -> Looked {
    let found = headers(
        group,
        |name| if name == "api" { api.clone() } else { more.clone() },
    );
    Looked::after(group, found, before, now)
}

fn in_use(group: &ValidGroup, last: &Looked) -> Result<Vec<(String, String)>, GroupReason> {
    let before = Before {
        last: Some(last),
        stored: None,
    };
    before.unlooked(group).map_err(|refusal| refusal.reason)
}

#[test]
fn what_cannot_be_read_takes_nothing_away() {
    const AWAY: Answer<'static> = Answer::Unreadable("away");
    let (new, spoilt, empty) = (secret("new"), secret("two\nlines"), Data::new());
    let none = Answer::Told(None);
    let now = Instant::now();
    let mine = group(1, SPEC);
    let nothing = Before {
        last: None,
        stored: None,
    };
    let had = |data: &Data| looked(&mine, [is(data), is(data)], nothing, now);
    let (good, lost) = (
        had(&secret("old")),
        looked(&mine, [none.clone(), none.clone()], nothing, now),
    );
    let unread = looked(&mine, [AWAY, AWAY], nothing, now);
    let with_nodes = stored(&mine, values("left", "left"));
    let kept = Ok(values("old", "old"));
    let left = Ok(values("left", "left"));
    let (missing, unreadable, invalid) = (
        Err(GroupReason::SecretMissing),
        Err(GroupReason::SecretUnreadable),
        Err(GroupReason::SecretInvalid),
    );
    let rows = [
        (
            "all is there",
            [is(&new), is(&new)],
            Some(&good),
            None,
            Ok(values("new", "new")),
        ),
        (
            "one can't be read",
            [is(&new), AWAY],
            Some(&good),
            None,
            kept.clone(),
        ),
        ("none can be read", [AWAY, AWAY], Some(&good), None, kept.clone()),
        (
            "the last good ones come before those of the document",
            [AWAY, AWAY],
            Some(&good),
            Some(&with_nodes),
            kept,
        ),
        (
            "one is gone",
            [is(&new), none.clone()],
            Some(&good),
            Some(&with_nodes),
            missing.clone(),
        ),
        (
            "one is gone, and one can't be read",
            [AWAY, none.clone()],
            Some(&good),
            Some(&with_nodes),
            missing.clone(),
        ),
        (
            "a key is gone",
            [is(&empty), is(&new)],
            Some(&good),
            Some(&with_nodes),
            missing.clone(),
        ),
        (
            "one is spoilt",
            [AWAY, is(&spoilt)],
            Some(&good),
            Some(&with_nodes),
            invalid,
        ),
        ("there were none", [AWAY, AWAY], None, None, unreadable.clone()),
        (
            "a new leader",
            [AWAY, is(&new)],
            None,
            Some(&with_nodes),
            left.clone(),
        ),
        (
            "a new leader that couldn't read before",
            [AWAY, AWAY],
            Some(&unread),
            Some(&with_nodes),
            left,
        ),
        (
            "they were gone",
            [AWAY, AWAY],
            Some(&lost),
            Some(&with_nodes),
            unreadable,
        ),
        (
            "they come back",
            [is(&new), is(&new)],
            Some(&lost),
            None,
            Ok(values("new", "new")),
        ),
    ];
    for (name, answers, last, stored, expected) in rows {
        let after = looked(&mine, answers, Before { last, stored }, now);
        assert_eq!(in_use(&mine, &after), expected, "{name}");
    }
    let refused = looked(&mine, [AWAY, AWAY], nothing, now);
    let message = Before {
        last: Some(&refused),
        stored: None,
    };
    let message = message.unlooked(&mine).unwrap_err().message;
    assert!(
        message.contains("can't read Secret blog/api") && message.contains("away"),
        "{message}"
    );
}

#[test]
fn values_of_the_document_are_used_for_the_same_headers_and_places() {
    let with_nodes = stored(&group(1, SPEC), values("left", "left"));
    let rows = [
        ("the same", SPEC.to_owned(), true),
        ("another time to live", SPEC.replace("10m", "20m"), true),
        ("another path", SPEC.replace("/{key}", "/v2/{key}"), true),
        (
            "another header of its own",
            SPEC.replace("accept", "x-accept"),
            true,
        ),
        ("another name", SPEC.replace("x-more", "x-other"), false),
        (
            "another host",
            SPEC.replace("users.blog.svc", "orders.blog.svc"),
            false,
        ),
        ("another port", SPEC.replace("blog.svc/", "blog.svc:8080/"), false),
        ("with TLS", SPEC.replace("http://", "https://"), false),
        (
            "a list of keys elsewhere",
            format!("{SPEC}, bloomFilter: {{keysURL: 'http://keys.blog.svc/'}}"),
            false,
        ),
        (
            "a list of keys at the same place",
            format!("{SPEC}, bloomFilter: {{keysURL: 'http://users.blog.svc/keys'}}"),
            true,
        ),
    ];
    let now = Instant::now();
    for (name, spec, is_kept) in rows {
        let changed = group(2, &spec);
        let before = Before {
            last: None,
            stored: Some(&with_nodes),
        };
        let waiting = before.unlooked(&changed).map_err(|refusal| refusal.reason);
        let tried = looked(
            &changed,
            [Answer::Unreadable("away"), Answer::Unreadable("away")],
            before,
            now,
        );
        let expected = if is_kept {
            Ok(values("left", "left"))
        } else {
            Err(GroupReason::SecretUnreadable)
        };
        assert_eq!(waiting, expected, "{name}, waiting for its turn");
        assert_eq!(in_use(&changed, &tried), expected, "{name}, not readable");
    }
    // What was read for another version is not this one's; what nodes have is.
    let old = secret("old");
    let good = looked(
        &group(1, SPEC),
        [Answer::Told(Some(&old)), Answer::Told(Some(&old))],
        Before {
            last: None,
            stored: None,
        },
        now,
    );
    let before = Before {
        last: Some(&good),
        stored: Some(&with_nodes),
    };
    let changed = group(2, SPEC);
    assert_eq!(before.unlooked(&changed), Ok(values("left", "left")));
}

#[test]
fn what_cannot_be_read_is_tried_again_with_growing_pauses() {
    let (mine, old) = (group(1, SPEC), secret("old"));
    let now = Instant::now();
    let pause = |looked: &Looked| looked.due_at().duration_since(now).as_secs();
    let nothing = Before {
        last: None,
        stored: None,
    };
    let mut last = looked(
        &mine,
        [Answer::Told(Some(&old)), Answer::Told(Some(&old))],
        nothing,
        now,
    );
    assert_eq!((pause(&last), last.is_good()), (60, true));
    let mut pauses = Vec::new();
    for _ in 0..40 {
        let away = Answer::Unreadable("away");
        let before = Before {
            last: Some(&last),
            stored: None,
        };
        last = looked(&mine, [away, Answer::Told(Some(&old))], before, now);
        assert!(!last.is_good() && in_use(&mine, &last).is_ok());
        pauses.push(pause(&last));
    }
    assert_eq!(pauses[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(pauses[39], 60);
    // A changed group is looked at at once, and begins with short pauses.
    let changed = group(2, SPEC);
    assert!(!last.is_of(&changed));
    let before = Before {
        last: Some(&last),
        stored: None,
    };
    let away = Answer::Unreadable("away");
    last = looked(&changed, [away.clone(), away], before, now);
    assert_eq!(pause(&last), 1);
    let gone = looked(&changed, [Answer::Told(None), Answer::Told(None)], nothing, now);
    assert_eq!((pause(&gone), gone.is_good()), (10, false));
}

#[test]
fn namespaces_take_turns_and_the_oldest_look_comes_first() {
    let start = Instant::now();
    let spec = |secret: &str| {
        format!(
            "keyPrefix: 'a:', ttl: {{hard: 10m}}, origin: {{http: {{urlTemplate: 'http://a.b.svc/{{key}}', headersFrom: [{{name: a, secretKeyRef: {{name: {secret}, key: a}}}}]}}}}"
        )
    };
    let crowd: Vec<ValidGroup> = (0..500)
        .map(|number| named("crowd", &format!("g{number}"), 1, &spec(&format!("s{number}"))))
        .collect();
    let quiet = named("quiet", "g", 1, &spec("s"));
    let shared = named("crowd", "shared", 1, &spec("s3"));
    // Those of the crowd were looked at one after the other, the quiet one after them all.
    let mut looked_at: BTreeMap<_, Instant> = crowd
        .iter()
        .zip(0..)
        .map(|(group, number)| (&group.key, start + Duration::from_millis(number)))
        .collect();
    looked_at.insert(&quiet.key, start + Duration::from_secs(9));
    let everybody = || crowd.iter().chain([&quiet]);
    let mut turns = BTreeMap::new();
    for round in 1..=6 {
        let due: Vec<Due<'_>> = everybody()
            .map(|group| Due {
                group,
                looked_at: looked_at.get(&group.key).copied(),
            })
            .collect();
        let (chosen, secrets) = choose(&due, READS_MAX);
        assert_eq!((chosen.len(), secrets.len()), (READS_MAX, READS_MAX));
        let names: BTreeSet<&str> = chosen.iter().map(|group| group.key.namespace.as_str()).collect();
        assert!(names.contains("quiet"), "nobody waits behind another namespace");
        for group in chosen {
            *turns.entry(group.key.clone()).or_insert(0) += 1;
            looked_at.insert(&group.key, start + Duration::from_secs(10 + round));
        }
    }
    let of_crowd: Vec<i32> = crowd
        .iter()
        .map(|group| turns.get(&group.key).copied().unwrap_or_default())
        .collect();
    assert!(
        of_crowd.iter().all(|turns| (1..=2).contains(turns)),
        "in 6 rounds of 99 each of 500 comes once or twice: {of_crowd:?}"
    );
    // Newcomers don't wait, and whoever names what is read anyhow comes along.
    let due = |group| Due {
        group,
        looked_at: looked_at.get(&group.key).copied(),
    };
    let newcomer = named("crowd", "new", 1, &spec("new"));
    let all: Vec<Due<'_>> = crowd[..4].iter().chain([&newcomer]).map(due).collect();
    let (chosen, _) = choose(&all, 1);
    assert_eq!(chosen, [&newcomer]);
    let all: Vec<Due<'_>> = [&crowd[3], &crowd[4], &shared]
        .map(|group| Due {
            group,
            looked_at: (group.key != crowd[3].key).then_some(start),
        })
        .to_vec();
    let (chosen, secrets) = choose(&all, 1);
    assert_eq!((chosen, secrets.len()), (vec![&crowd[3], &shared], 1));
}

#[test]
fn passes_that_come_quickly_share_one_allowance() {
    let start = Instant::now();
    let mut allowance = Allowance::default();
    assert_eq!(
        (allowance.left(start), allowance.renewed_at(start)),
        (READS_MAX, start)
    );
    allowance.spend(READS_MAX - 10, start);
    let soon = start + WINDOW / 2;
    assert_eq!(allowance.left(soon), 10);
    allowance.spend(10, soon);
    assert_eq!(allowance.left(soon), 0);
    let later = allowance.renewed_at(soon);
    assert_eq!((later, allowance.left(later)), (start + WINDOW, READS_MAX));
    allowance.spend(1, later);
    assert_eq!(allowance.left(later), READS_MAX - 1);
    // Where the API server takes long it is left alone.
    allowance.hold(later);
    let soon = later + HOLD / 2;
    assert_eq!(
        (allowance.left(soon), allowance.renewed_at(soon)),
        (0, later + HOLD)
    );
    assert_eq!(allowance.left(later + HOLD), READS_MAX);
}
