//! Finds the addresses of an origin: never the machine's own, whatever a name stands for.
//!
//! The system's resolver keeps a thread for as long as a name server keeps it waiting, and nobody can end that. So a group looks
//! up a name once at a time, whoever asks for it meanwhile: a group whose name server is silent has one thread wait for it, not
//! all that there are.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::Shared;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tower::Service;

/// Why an origin isn't asked.
pub const LOCAL: &str = "is at a loopback or link-local address, which is never asked";

/// Where clouds tell a machine's secrets, apart from link-local addresses: Azure, Alibaba, Oracle.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
];
/// The same: Amazon, Google.
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// Whether an address of `64:ff9b::/96` (RFC 6052) leads to such an IPv4 address.
fn is_local_by_nat64(address: Ipv6Addr) -> bool {
    let [prefix @ .., high, low] = address.segments();
    let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
    prefix == [0x64, 0xff9b, 0, 0, 0, 0] && is_local(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
}

/// Whether an address is the machine's own, or one beside it.
pub fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.octets()[0] == 0
                || METADATA_V4.contains(&v4)
        }
        IpAddr::V6(v6) => match v6.to_ipv4() {
            // Mapped and compatible addresses reach what their IPv4 address reaches; ::1 and :: are among them.
            Some(v4) => v6.is_loopback() || is_local(IpAddr::V4(v4)),
            None => {
                v6.is_multicast()
                    || v6.is_unicast_link_local()
                    || METADATA_V6.contains(&v6)
                    || is_local_by_nat64(v6)
            }
        },
    }
}

/// The addresses of a name, or why there are none.
type Found = Result<Arc<[SocketAddr]>, Arc<io::Error>>;

/// Look-ups under way, by name.
#[derive(Clone, Default)]
struct Lookups(Arc<Mutex<HashMap<Name, Shared<oneshot::Receiver<Found>>>>>);

impl Lookups {
    /// The look-up of that name that is under way, or a new one. It goes on when nobody waits for it any more.
    fn join<F>(&self, name: &Name, begin: impl FnOnce() -> F) -> Shared<oneshot::Receiver<Found>>
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        let mut under_way = self.0.lock();
        if let Some(lookup) = under_way.get(name) {
            return lookup.clone();
        }
        let (end, lookup) = oneshot::channel();
        let lookup = lookup.shared();
        under_way.insert(name.clone(), lookup.clone());
        let (lookups, name, addresses) = (self.clone(), name.clone(), begin());
        tokio::spawn(async move {
            let found = addresses.await.map(Arc::from).map_err(Arc::new);
            lookups.0.lock().remove(&name);
            // There may be nobody left who waits.
            end.send(found).unwrap_or_default();
        });
        lookup
    }
}

/// Resolves names to addresses that may be asked.
#[derive(Clone)]
pub struct Resolver {
    inner: GaiResolver,
    lookups: Lookups,
    may_be_local: bool,
}

impl Resolver {
    /// One for a group, whose origin may or may not be beside the node.
    pub fn new(may_be_local: bool) -> Self {
        Self {
            inner: GaiResolver::new(),
            lookups: Lookups::default(),
            may_be_local,
        }
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (inner, may_be_local) = (&mut self.inner, self.may_be_local);
        let lookup = self.lookups.join(&name, || {
            let found = inner.call(name.clone());
            async { Ok(found.await?.collect()) }
        });
        Box::pin(async move {
            let ended = || io::Error::from(io::ErrorKind::Interrupted);
            let found = lookup.await.map_err(|_| ended())?;
            let found = found.map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
            let mut addresses = found.to_vec();
            addresses.retain(|address| may_be_local || !is_local(address.ip()));
            if addresses.is_empty() {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, LOCAL));
            }
            Ok(addresses.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beside_a_node_is_told_from_the_rest() {
        for (address, expected) in [
            ("127.0.0.1", true),
            ("127.8.9.1", true),
            ("169.254.169.254", true),
            ("0.0.0.0", true),
            ("0.1.2.3", true),
            ("224.0.0.1", true),
            ("255.255.255.255", true),
            ("::1", true),
            ("::", true),
            ("::ffff:127.0.0.1", true),
            ("::ffff:169.254.169.254", true),
            ("fe80::1", true),
            ("ff02::1", true),
            ("168.63.129.16", true),
            ("100.100.100.200", true),
            ("fd00:ec2::254", true),
            ("64:ff9b::a9fe:a9fe", true),
            ("64:ff9b::a00:1", false),
            ("10.96.0.10", false),
            ("192.168.1.1", false),
            ("203.0.113.7", false),
            ("::ffff:10.0.0.1", false),
            ("fd00::1", false),
        ] {
            assert_eq!(is_local(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_at_a_time() {
        let (lookups, name): (_, Name) = (Lookups::default(), "users.shop.svc".parse().unwrap());
        let (answer, answered) = oneshot::channel();
        let begin = || async { Ok(answered.await.unwrap()) };
        let first = lookups.join(&name, begin);
        let second = lookups.join(&name, || async { panic!("it is under way") });
        // Whoever began it may go.
        drop(first);
        let address: SocketAddr = "10.1.2.3:0".parse().unwrap();
        answer.send(vec![address]).unwrap();
        assert_eq!(*second.await.unwrap().unwrap(), [address]);
        let again = lookups.join(&name, || async { Err(io::ErrorKind::NotFound.into()) });
        let error = again.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(lookups.0.lock().is_empty());
    }
}
