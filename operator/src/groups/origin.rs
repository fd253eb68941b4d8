//! Where nodes connect to for a group, and whether they may.
//!
//! Nodes open connections to what somebody else wrote, from inside the cluster's namespace and through its network policy. So
//! the groups of tenants reach only Services of their own namespace and what the cluster's owner lists. Names alone don't bind
//! anybody (a Service may lead elsewhere): the network policy that follows from [`destinations`] does, where it is enforced.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use annulus_crds::v1alpha1::GroupReason;
use annulus_proto::groups::{Group, KEY_PLACEHOLDER};

use super::GroupRefusal;
use crate::key::ClusterKey;

/// The last labels of a Service's full name.
const CLUSTER_DOMAIN: &str = "cluster.local";
/// Longest URL, its placeholder included.
const URL_LENGTH_MAX: usize = 2_048;

/// Where a URL leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Whether with TLS.
    pub secure: bool,
    /// A name or an address, in lower case, without brackets and without a dot at its end.
    pub host: String,
    /// The port that the URL names, or that of its scheme.
    pub port: u16,
}

/// Reads an absolute URL. The error says what is wrong and what to write.
pub fn target(url: &str) -> Result<Target, &'static str> {
    if url.len() > URL_LENGTH_MAX {
        return Err("must be at most 2048 characters");
    }
    let (secure, rest) = match url.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        _ => return Err("must begin with http:// or https://"),
    };
    let (authority, _) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains(KEY_PLACEHOLDER) {
        return Err("must not have {key} in its host: write it into the path or the query");
    }
    if authority.contains('@') {
        return Err(
            "must not have a user or a password in it: send a header, from a Secret with headersFrom",
        );
    }
    let filled = url.replace(KEY_PLACEHOLDER, "key");
    if filled.contains(['{', '}']) {
        return Err("must not have braces other than those of {key}");
    }
    if filled.contains('#') {
        return Err("must not have a fragment (#…), which is never sent");
    }
    let is_plain = filled
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if !is_plain || filled.parse::<http::Uri>().is_err() {
        return Err(
            "is no URL: write for example http://users.shop.svc/users/{key}, with special characters percent-encoded",
        );
    }
    let (host, port) = split_port(authority).ok_or("must have a host, and a port only as a number")?;
    Ok(Target {
        secure,
        host,
        port: port.unwrap_or(if secure { 443 } else { 80 }),
    })
}

/// The host and the port; `None` for anything that could be read in more than one way.
fn split_port(authority: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, behind) = rest.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        match behind.strip_prefix(':') {
            None if !behind.is_empty() => return None,
            port => (host, port),
        }
    } else {
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        let is_inside = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let is_label = |label: &str| !label.is_empty() && label.bytes().all(is_inside);
        (Some(host).filter(|host| host.split('.').all(is_label))?, port)
    };
    let port = match port {
        None => None,
        Some(digits) if !digits.bytes().all(|byte| byte.is_ascii_digit()) => return None,
        Some(digits) => Some(digits.parse().ok().filter(|port| *port > 0)?),
    };
    Some((host.to_ascii_lowercase(), port))
}

/// The namespace of the Service that a full name stands for: `name.<namespace>.svc`, with the cluster's domain or without.
fn service_namespace(host: &str) -> Option<&str> {
    let short = host
        .strip_suffix(CLUSTER_DOMAIN)
        .and_then(|host| host.strip_suffix('.'))
        .unwrap_or(host);
    let (_, namespace) = short.strip_suffix(".svc")?.rsplit_once('.')?;
    Some(namespace)
}

/// Whether a group of a tenant in that namespace may have values from there. In the cluster's own namespace everything is allowed.
pub fn may_reach(
    target: &Target,
    namespace: &str,
    cluster: &ClusterKey,
    allowed: &[String],
) -> Result<(), GroupRefusal> {
    let host = target.host.as_str();
    let is_own = service_namespace(host) == Some(namespace)
        || host.split_once('.').is_some_and(|(_, rest)| rest == namespace);
    let is_listed = || allowed.iter().any(|pattern| matches(pattern, host));
    if namespace == cluster.namespace || is_own || is_listed() {
        return Ok(());
    }
    let message = if host.contains(['.', ':']) {
        format!(
            "nodes of CacheCluster {cluster} don't connect to {host} for groups of namespace {namespace}: name a Service of this \
             namespace, as name.{namespace}.svc, or have the cluster's owner list the host in spec.groups.allowedOrigins"
        )
    } else {
        format!(
            "{host} would be looked up in namespace {}, where the nodes are: write {host}.{namespace}.svc",
            cluster.namespace
        )
    };
    Err(GroupRefusal::new(GroupReason::OriginNotAllowed, message))
}

/// Whether a host is what the cluster's owner listed: the same, or below `*.suffix`.
fn matches(pattern: &str, host: &str) -> bool {
    let pattern = pattern.to_ascii_lowercase();
    let pattern = pattern.strip_suffix('.').unwrap_or(&pattern);
    match pattern.strip_prefix('*') {
        Some(suffix) => {
            suffix.len() > 1 && suffix.starts_with('.') && host.len() > suffix.len() && host.ends_with(suffix)
        }
        None => host == pattern,
    }
}

/// Whereto nodes must be able to connect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Destinations {
    /// Pods of these namespaces, at any port: a Service's port is not that of its pods.
    pub namespaces: BTreeSet<String>,
    /// Anything, at these ports.
    pub ports: BTreeSet<u16>,
}

/// Whereto nodes must be able to connect for these groups.
pub fn destinations(cluster: &ClusterKey, groups: &[Group]) -> Destinations {
    let mut destinations = Destinations::default();
    for group in groups {
        let filter = group.filter.iter().map(|filter| &filter.keys_url);
        for url in filter.chain([&group.origin.url_template]) {
            let Ok(target) = target(url) else { continue };
            let labels: Vec<&str> = target.host.split('.').collect();
            let (namespace, is_certain) = match (service_namespace(&target.host), labels.as_slice()) {
                _ if target.host.contains(':') => (None, false),
                (Some(namespace), _) => (Some(namespace), true),
                // Looked up where the nodes are.
                (None, [_]) => (Some(cluster.namespace.as_str()), true),
                (None, [_, namespace]) => (Some(*namespace), *namespace == group.namespace),
                _ => (None, false),
            };
            destinations.namespaces.extend(namespace.map(str::to_owned));
            if !is_certain {
                destinations.ports.insert(target.port);
            }
        }
    }
    destinations
}

#[cfg(test)]
mod tests {
    use annulus_crds::v1alpha1::CacheGroup;

    use super::super::validate::validate;
    use super::*;

    #[test]
    fn urls_are_read_in_one_way_or_not_at_all() {
        for (url, host, port) in [
            ("http://users.blog.svc/{key}", "users.blog.svc", 80),
            ("https://Users.Blog.svc./u?id={key}", "users.blog.svc", 443),
            ("http://127.0.0.1:8000/{key}", "127.0.0.1", 8000),
            ("http://[fd00::1]:81/{key}", "fd00::1", 81),
            ("http://a", "a", 80),
        ] {
            let target = target(url).unwrap();
            assert_eq!((target.host.as_str(), target.port), (host, port), "{url}");
            assert_eq!(target.secure, url.starts_with("https"), "{url}");
        }
        // Where two checks object, whichever comes first tells why.
        for (url, problem) in [
            ("users.blog.svc/{key}", "begin with http"),
            ("ftp://users.blog.svc/{key}", "begin with http"),
            ("HTTP://users.blog.svc/{key}", "begin with http"),
            ("http://{key}.blog.svc/", "host"),
            ("http://users.blog.svc@example.com/{key}", "user"),
            ("http://users.blog.svc:80@example.com/{key}", "user"),
            ("http://users.blog.svc\\@example.com/{key}", "user"),
            ("http://users.blog.svc\\.example.com/{key}", "no URL"),
            ("http://users.blog.svc/{id}", "braces"),
            ("http://users.blog.svc/{key}#{key}", "fragment"),
            ("http://users.blog.svc/ {key}", "no URL"),
            ("http://users.blog.svc/ü{key}", "no URL"),
            ("http://users.blog.svc/\r\n{key}", "no URL"),
            ("http:///{key}", "no URL"),
            ("http://users..svc/{key}", "must have a host"),
            ("http://users.blog.svc:http/{key}", ""),
            ("http://users.blog.svc:0/{key}", "must have a host"),
            ("http://users.blog.svc:99999/{key}", ""),
            ("http://[fd00::1/{key}", ""),
            ("http://[users]/{key}", "must have a host"),
            ("http://%75sers.blog.svc/{key}", ""),
        ] {
            let said = target(url).unwrap_err();
            assert!(said.contains(problem), "{url}: {said}");
        }
    }

    #[test]
    fn tenants_reach_their_own_services_and_what_is_listed() {
        let cluster = ClusterKey::new("platform", "shared");
        let allowed = [
            "api.example.com".to_owned(),
            "*.Internal.example".to_owned(),
            "10.0.0.9".to_owned(),
        ];
        for (host, from, holds) in [
            ("users.blog", "blog", true),
            ("users.blog.svc", "blog", true),
            ("users.blog.svc.cluster.local", "blog", true),
            ("web-0.web.blog.svc", "blog", true),
            ("users.shop.svc", "blog", false),
            ("blog.svc", "blog", false),
            ("users.blog.svc.example.com", "blog", false),
            ("blog.svc.cluster.local", "blog", false),
            ("users", "blog", false),
            ("localhost", "blog", false),
            ("blog", "blog", false),
            ("users.blog.example.com", "blog", false),
            ("kubernetes.default.svc", "blog", false),
            ("169.254.169.254", "blog", false),
            ("10.0.0.9", "blog", true),
            ("api.example.com", "blog", true),
            ("x.api.example.com", "blog", false),
            ("example.com", "blog", false),
            ("a.internal.example", "blog", true),
            ("a.b.internal.example", "blog", true),
            ("internal.example", "blog", false),
            ("ainternal.example", "blog", false),
            ("anything.example.org", "platform", true),
            ("users", "platform", true),
        ] {
            let target = target(&format!("http://{host}/{{key}}")).unwrap();
            let answer = may_reach(&target, from, &cluster, &allowed);
            assert_eq!(answer.is_ok(), holds, "{host} from {from}: {answer:?}");
        }
        let message = |host: &str| {
            let target = target(&format!("http://{host}/{{key}}")).unwrap();
            may_reach(&target, "blog", &cluster, &[]).unwrap_err().message
        };
        assert!(
            message("users").contains("write users.blog.svc"),
            "{}",
            message("users")
        );
        assert!(message("a.b.c").contains("name.blog.svc"), "{}", message("a.b.c"));
    }

    #[test]
    fn nodes_are_let_out_to_where_groups_lead_and_no_further() {
        let cluster = ClusterKey::new("platform", "shared");
        let group = |namespace: &str, url: &str| {
            let text = format!(
                "{{metadata: {{name: g, namespace: {namespace}}}, spec: {{clusterRef: {{name: c}}, keyPrefix: x, ttl: {{hard: 1m}}, origin: {{http: {{urlTemplate: '{url}/{{key}}'}}}}}}}}"
            );
            let mut object: CacheGroup = serde_yaml::from_str(&text).unwrap();
            object.metadata.uid = Some("u".to_owned());
            validate(&object).unwrap().group
        };
        let rows: [(&str, &str, &[&str], &[u16]); 9] = [
            ("blog", "http://users.blog.svc:8080", &["blog"], &[]),
            ("blog", "http://users.blog.svc.cluster.local", &["blog"], &[]),
            ("blog", "http://users.blog", &["blog"], &[]),
            ("platform", "http://users", &["platform"], &[]),
            ("platform", "http://users.shop.svc", &["shop"], &[]),
            // A Service of a namespace `com`, or a domain: nobody knows.
            ("platform", "https://example.com", &["com"], &[443]),
            ("blog", "https://api.example.com:8443", &[], &[8443]),
            ("blog", "http://10.0.0.9:81", &[], &[81]),
            ("blog", "http://[fd00::1]:82", &[], &[82]),
        ];
        for (namespace, url, namespaces, ports) in rows {
            let expected = Destinations {
                namespaces: namespaces.iter().map(|&name| name.to_owned()).collect(),
                ports: ports.iter().copied().collect(),
            };
            assert_eq!(
                destinations(&cluster, &[group(namespace, url)]),
                expected,
                "{url}"
            );
        }
    }
}
