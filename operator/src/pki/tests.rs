use super::*;

const START_S: i64 = 1_800_000_000;
const DAY_S: i64 = 24 * 3600;

fn cluster() -> ClusterUid {
    "c-1".parse().unwrap()
}

fn wanted(nodes: &[&str]) -> Wanted {
    Wanted {
        cluster: cluster(),
        nodes: nodes.iter().map(|node| node.parse().unwrap()).collect(),
        hosts: vec!["demo.shop.svc".to_owned(), "127.0.0.1".to_owned()],
        client: true,
    }
}

fn authorities_in(files: &Files) -> usize {
    certificates("test", &files[AUTHORITIES]).unwrap().len()
}

/// Everything is signed by somebody who is trusted at that time, and peers and operator can use what they got.
fn check(stored: &Stored, now_s: i64) {
    let trusted = annulus_proto::certificate::authorities("test", &stored.server[AUTHORITIES]).unwrap();
    let now = rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(now_s.try_into().unwrap()));
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    let leaves = [&stored.server[CERTIFICATE], &stored.client[CERTIFICATE]];
    let peers = stored
        .peers
        .iter()
        .filter(|(name, _)| name.contains(".crt") && *name != AUTHORITIES);
    for pem in leaves.into_iter().chain(peers.map(|(_, pem)| pem)) {
        let chain = certificates("test", pem).unwrap();
        let leaf = webpki::EndEntityCert::try_from(&chain[0]).unwrap();
        let usage = if pem == &stored.client[CERTIFICATE] {
            webpki::KeyUsage::client_auth()
        } else {
            webpki::KeyUsage::server_auth()
        };
        leaf.verify_for_usage(algorithms.all, &trusted.roots, &[], now, usage, None, None)
            .unwrap();
    }
    for node in ["demo-0", "demo-1"] {
        let names = peer_files(&node.parse().unwrap());
        let (Some(certificate), Some(key)) = (stored.peers.get(&names[0]), stored.peers.get(&names[1]))
        else {
            continue;
        };
        let pem = PeerPem {
            certificate,
            key,
            authorities: &stored.peers[AUTHORITIES],
        };
        PeerCredentials::from_pem(&format!("annulus://c-1/node/{node}").parse().unwrap(), pem).unwrap();
    }
    operator_credentials(&cluster(), &stored.authority, now_s).unwrap();
}

#[test]
fn what_is_good_stays() {
    let wanted = wanted(&["demo-0"]);
    let first = renew(&wanted, &Stored::default(), START_S).unwrap();
    check(&first, START_S);
    assert_eq!(renew(&wanted, &first, START_S).unwrap(), first);
    assert_eq!(renew(&wanted, &first, START_S + 19 * DAY_S).unwrap(), first);
    assert!(!first.server.contains_key(AUTHORITY_KEYS) && !first.peers.contains_key(AUTHORITY_KEYS));
}

#[test]
fn only_what_changes_is_made_anew() {
    let first = renew(&wanted(&["demo-0"]), &Stored::default(), START_S).unwrap();
    let more = renew(&wanted(&["demo-0", "demo-1"]), &first, START_S).unwrap();
    check(&more, START_S);
    assert_eq!(more.peers["demo-0.crt"], first.peers["demo-0.crt"]);
    assert!(more.peers.contains_key("demo-1.key"));
    assert_eq!((&more.server, &more.authority), (&first.server, &first.authority));
    assert_eq!(renew(&wanted(&["demo-0"]), &more, START_S).unwrap(), first);

    let renamed = Wanted {
        hosts: vec!["other.shop.svc".to_owned()],
        client: false,
        ..wanted(&["demo-0"])
    };
    let next = renew(&renamed, &first, START_S).unwrap();
    assert_ne!(next.server[CERTIFICATE], first.server[CERTIFICATE]);
    assert_eq!((next.client, next.peers), (Files::new(), first.peers.clone()));

    // Addresses come and go with nodes: one more is one to be named, one less is no reason to change anything.
    let at = |addresses: &[&str]| {
        let mut wanted = wanted(&["demo-0"]);
        wanted
            .hosts
            .extend(addresses.iter().map(|address| (*address).to_owned()));
        wanted
    };
    let two = renew(&at(&["10.0.0.1", "fd00::2"]), &first, START_S).unwrap();
    check(&two, START_S);
    assert_ne!(two.server[CERTIFICATE], first.server[CERTIFICATE]);
    assert_eq!(renew(&at(&["10.0.0.1"]), &two, START_S).unwrap(), two);
    let third = renew(&at(&["10.0.0.1", "10.0.0.3"]), &two, START_S).unwrap();
    assert_ne!(third.server[CERTIFICATE], two.server[CERTIFICATE]);

    let spoilt = Stored {
        server: Files::from([
            (CERTIFICATE.to_owned(), b"spoilt".to_vec()),
            (KEY.to_owned(), Vec::new()),
        ]),
        ..more
    };
    check(
        &renew(&wanted(&["demo-0", "demo-1"]), &spoilt, START_S).unwrap(),
        START_S,
    );
}

#[test]
fn certificates_are_made_anew_after_two_thirds_of_their_life() {
    let wanted = wanted(&["demo-0"]);
    let first = renew(&wanted, &Stored::default(), START_S).unwrap();
    let later_s = START_S + 20 * DAY_S + 3600;
    let next = renew(&wanted, &first, later_s).unwrap();
    check(&next, later_s);
    assert_eq!(next.authority, first.authority);
    for (before, after, name) in [
        (&first.server, &next.server, CERTIFICATE),
        (&first.client, &next.client, CERTIFICATE),
        (&first.peers, &next.peers, "demo-0.crt"),
    ] {
        assert_ne!(before[name], after[name]);
    }
}

/// Seven years, day by day: whoever has the certificates of the day before and whoever has those of today always agree.
#[test]
fn authorities_follow_each_other_with_an_overlap() {
    let wanted = wanted(&["demo-0"]);
    let mut stored = renew(&wanted, &Stored::default(), START_S).unwrap();
    let mut counts = BTreeSet::new();
    let mut authorities_seen = BTreeSet::new();
    for day in 1..7 * 365 {
        let now_s = START_S + day * DAY_S;
        let next = renew(&wanted, &stored, now_s).unwrap();
        for (signed, trusting) in [(&stored, &next), (&next, &stored), (&next, &next)] {
            check(
                &Stored {
                    server: Files::from([
                        (CERTIFICATE.to_owned(), signed.server[CERTIFICATE].clone()),
                        (AUTHORITIES.to_owned(), trusting.server[AUTHORITIES].clone()),
                    ]),
                    ..next.clone()
                },
                now_s,
            );
        }
        counts.insert(authorities_in(&next.authority));
        for certificate in certificates("test", &next.authority[AUTHORITIES]).unwrap() {
            authorities_seen.insert(certificate.to_vec());
        }
        stored = next;
    }
    assert_eq!(counts, BTreeSet::from([1, 2]));
    assert_eq!(authorities_seen.len(), 4);
}

#[test]
fn authorities_that_cant_be_read_are_made_anew() {
    let wanted = wanted(&["demo-0"]);
    let first = renew(&wanted, &Stored::default(), START_S).unwrap();
    let other = renew(&wanted, &Stored::default(), START_S).unwrap();
    let mut mixed = first.clone();
    let other_key = other.authority[AUTHORITY_KEYS].clone();
    mixed.authority.insert(AUTHORITY_KEYS.to_owned(), other_key);
    let mut without_key = first.clone();
    without_key.authority.remove(AUTHORITY_KEYS);
    for spoilt in [mixed, without_key] {
        let next = renew(&wanted, &spoilt, START_S).unwrap();
        assert_ne!(next.authority[AUTHORITIES], first.authority[AUTHORITIES]);
        check(&next, START_S);
    }
}
