//! What a group goes on knowing when it is described anew.
//!
//! What was learned holds as long as a load would teach the same again. Every field of the description is named here, so that a
//! new one isn't forgotten.

use annulus_proto::groups::{Group, Origin};

/// What holds still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a kind of knowledge")]
pub struct Holds {
    /// Which keys there are, and where: anything at all.
    pub keys: bool,
    /// What loads that are under way will bring.
    pub loads: bool,
    /// That keys are not there.
    pub absences: bool,
    /// That keys can't be loaded.
    pub failures: bool,
    /// How often the origin has failed.
    pub breaker: bool,
    /// Which keys the origin has.
    pub filter: bool,
}

impl Holds {
    /// Whether nothing was learned that doesn't hold.
    pub fn is_all(self) -> bool {
        let Self {
            keys,
            loads,
            absences,
            failures,
            breaker,
            filter,
        } = self;
        keys && loads && absences && failures && breaker && filter
    }
}

/// What was learned of a group and holds when it is described like that.
pub fn holds(before: &Group, after: &Group) -> Holds {
    let Group {
        // Where what is remembered belongs.
        tenant: _,
        namespace: _,
        name: _,
        key_prefix,
        origin,
        // These say what to do with what is stored.
        soft_ttl_ms: _,
        hard_ttl_ms: _,
        jitter_percent: _,
        stale_ms: _,
        negative_ttl_ms,
        failure_ttl_ms,
        value_bytes_max,
        filter,
    } = after;
    let Origin {
        url_template,
        headers,
        ca_pem,
        may_be_local,
        timeout_ms,
        retries,
        backoff_ms,
        backoff_max_ms,
        concurrent_max,
        breaker_failures,
        breaker_open_ms,
    } = origin;
    let former = &before.origin;
    let keys = (key_prefix, url_template) == (&before.key_prefix, &former.url_template);
    // By other headers, the origin may be another one, or take us for somebody else.
    let source =
        keys && (headers, ca_pem, may_be_local) == (&former.headers, &former.ca_pem, &former.may_be_local);
    let tries = (timeout_ms, retries, backoff_ms, backoff_max_ms)
        == (
            &former.timeout_ms,
            &former.retries,
            &former.backoff_ms,
            &former.backoff_max_ms,
        );
    let rules = (breaker_failures, breaker_open_ms) == (&former.breaker_failures, &former.breaker_open_ms);
    let bounds = (value_bytes_max, concurrent_max) == (&before.value_bytes_max, &former.concurrent_max);
    Holds {
        keys,
        loads: source,
        absences: source && *negative_ttl_ms == before.negative_ttl_ms,
        failures: source && tries && bounds && *failure_ttl_ms == before.failure_ttl_ms,
        breaker: source && tries && rules,
        filter: source && *filter == before.filter,
    }
}

#[cfg(test)]
mod tests {
    use annulus_proto::groups::Filter;

    use super::super::tests::described;
    use super::*;

    #[test]
    fn what_would_be_learned_again_holds() {
        type Change = fn(&mut Group);
        let table: [(&str, Change, &str); 19] = [
            ("nothing", |_| {}, "klafbc"),
            ("prefix", |group| group.key_prefix = "users:".to_owned(), ""),
            (
                "URL",
                |group| group.origin.url_template = "http://b/{key}".to_owned(),
                "",
            ),
            (
                "headers",
                |group| group.origin.headers.push(("a".to_owned(), "b".to_owned())),
                "k",
            ),
            (
                "certificates",
                |group| group.origin.ca_pem = Some(String::new()),
                "k",
            ),
            ("addresses", |group| group.origin.may_be_local = true, "k"),
            ("timeout", |group| group.origin.timeout_ms += 1, "klac"),
            ("retries", |group| group.origin.retries += 1, "klac"),
            ("backoff", |group| group.origin.backoff_ms += 1, "klac"),
            (
                "longest backoff",
                |group| group.origin.backoff_max_ms += 1,
                "klac",
            ),
            ("requests", |group| group.origin.concurrent_max += 1, "klabc"),
            ("breaker", |group| group.origin.breaker_failures += 1, "klafc"),
            (
                "breaker's time",
                |group| group.origin.breaker_open_ms += 1,
                "klafc",
            ),
            ("soft TTL", |group| group.soft_ttl_ms += 1, "klafbc"),
            ("hard TTL", |group| group.hard_ttl_ms += 1, "klafbc"),
            ("negative TTL", |group| group.negative_ttl_ms += 1, "klfbc"),
            ("failure TTL", |group| group.failure_ttl_ms += 1, "klabc"),
            ("longest value", |group| group.value_bytes_max += 1, "klabc"),
            (
                "filter",
                |group| {
                    group.filter = Some(Filter {
                        keys_url: "http://b/".to_owned(),
                        refresh_ms: 1,
                        false_positives_per_million: 1,
                        keys_max: 1,
                    });
                },
                "klafb",
            ),
        ];
        let before = described("user:");
        for (what, change, expected) in table {
            let mut after = before.clone();
            change(&mut after);
            let holds = holds(&before, &after);
            let found = [
                (holds.keys, 'k'),
                (holds.loads, 'l'),
                (holds.absences, 'a'),
                (holds.failures, 'f'),
                (holds.breaker, 'b'),
                (holds.filter, 'c'),
            ];
            let found: String = found
                .iter()
                .filter(|(holds, _)| *holds)
                .map(|(_, of)| *of)
                .collect();
            assert_eq!(found, expected, "{what}");
            assert_eq!(holds.is_all(), found.len() == 6, "{what}");
        }
    }
}
