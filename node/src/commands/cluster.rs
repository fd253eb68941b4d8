//! `CLUSTER …`: the ring in the words of Redis Cluster.
//!
//! `SLOTS`, `SHARDS`, `NODES` and `MOVED` agree about ids and addresses, because all of them come from one
//! [`ClusterView`]. Every member is a master, and may have copies of what others own; only `SLOTS` can say that, and says
//! it only to those who have said `READONLY`: a client that doesn't ask for copies can't be confused by them.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use annulus_ring::{Epoch, MemberState, Slot};

use crate::error::{CommandError, Outcome};
use crate::execute::Context;
use crate::resp::{Args, Reply};
use crate::routing::{ClusterView, Listed, MemberView};

pub use crate::commands::keyspace::{count_keys_in_slot, get_keys_in_slot};

/// Where clients reach a member: never unknown, never "wherever you are".
struct Endpoint {
    host: String,
    port: u16,
    peer_port: u16,
}

impl Endpoint {
    fn of(member: &MemberView, context: &Context<'_>) -> Self {
        if let Some(address) = &member.address {
            return Self {
                host: address.client_host().to_owned(),
                port: address.port_for(context.session.client.secure.load(Ordering::Relaxed)),
                peer_port: address.peer_port,
            };
        }
        // The client has reached this address, so it can again.
        let local = context.session.client.local;
        Self {
            host: local.ip().to_canonical().to_string(),
            port: local.port(),
            peer_port: 0,
        }
    }
}

fn is_down(member: &MemberView) -> bool {
    member.state == MemberState::Down
}

/// `CLUSTER SLOTS`
pub fn slots(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    let view = context.node.routing.view();
    let reads_copies = context.session.client.readonly.load(Ordering::Relaxed);
    let listed = if reads_copies {
        view.ranges_with_copies()
    } else {
        view.ranges()
    };
    reply.array(listed.len());
    for Listed { range, owner, copies } in listed {
        reply.array(3 + copies.len());
        reply.integer(range.first.number().into());
        reply.integer(range.last.number().into());
        for member in std::iter::once(owner).chain(copies) {
            let endpoint = Endpoint::of(member, context);
            reply.array(4);
            reply.bulk(endpoint.host.as_bytes());
            reply.integer(endpoint.port.into());
            reply.bulk(member.wire_id.as_bytes());
            reply.array(0);
        }
    }
    Ok(())
}

/// `CLUSTER SHARDS`
pub fn shards(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    let view = context.node.routing.view();
    reply.array(view.members.len());
    for member in &view.members {
        let endpoint = Endpoint::of(member, context);
        reply.map(2);
        reply.bulk(b"slots");
        reply.array(2 * member.ranges.len());
        for range in &member.ranges {
            reply.integer(range.first.number().into());
            reply.integer(range.last.number().into());
        }
        reply.bulk(b"nodes");
        reply.array(1);
        let ports = ports(member, &endpoint, context);
        reply.map(6 + ports.len());
        reply.bulk(b"id");
        reply.bulk(member.wire_id.as_bytes());
        for (name, port) in ports {
            reply.bulk(name);
            reply.integer(port.into());
        }
        reply.bulk(b"ip");
        reply.bulk(endpoint.host.as_bytes());
        reply.bulk(b"endpoint");
        reply.bulk(endpoint.host.as_bytes());
        reply.bulk(b"role");
        reply.bulk(b"master");
        reply.bulk(b"replication-offset");
        reply.integer(0);
        reply.bulk(b"health");
        reply.bulk(if is_down(member) { b"fail" } else { b"online" });
    }
    Ok(())
}

/// All ports of a member, by the names that clients look for.
fn ports(member: &MemberView, endpoint: &Endpoint, context: &Context<'_>) -> Vec<(&'static [u8], u16)> {
    let (port, tls_port): (&[u8], &[u8]) = (b"port", b"tls-port");
    match &member.address {
        Some(address) => {
            let plain = Some(address.client_port).filter(|port| *port != 0);
            let plain = plain.map(|number| (port, number));
            let secure = address.client_tls_port.map(|number| (tls_port, number));
            plain.into_iter().chain(secure).collect()
        }
        None if context.session.client.secure.load(Ordering::Relaxed) => vec![(tls_port, endpoint.port)],
        None => vec![(port, endpoint.port)],
    }
}

/// `CLUSTER NODES`
pub fn nodes(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    let view = context.node.routing.view();
    let mut text = String::new();
    if view.own().is_none() {
        // A node without ring, or one that the ring doesn't list, still knows itself.
        let local = context.session.client.local;
        let host = local.ip().to_canonical();
        let port = local.port();
        line(
            &mut text,
            &view.own_wire_id(),
            (&host.to_string(), port, 0),
            "myself,master",
            view.epoch,
            "connected",
        );
        text.push('\n');
    }
    for member in &view.members {
        let endpoint = Endpoint::of(member, context);
        let flags = match (member.id == view.own_id, is_down(member)) {
            (true, _) => "myself,master",
            (false, false) => "master",
            (false, true) => "master,fail",
        };
        let link = if is_down(member) {
            "disconnected"
        } else {
            "connected"
        };
        let address = (endpoint.host.as_str(), endpoint.port, endpoint.peer_port);
        line(&mut text, &member.wire_id, address, flags, view.epoch, link);
        for range in &member.ranges {
            write!(text, " {range}").unwrap_or_default();
        }
        text.push('\n');
    }
    reply.verbatim(&text);
    Ok(())
}

/// A line of `CLUSTER NODES` without its slots. Writing to a String can't fail.
fn line(text: &mut String, id: &str, address: (&str, u16, u16), flags: &str, epoch: Epoch, link: &str) {
    let (host, port, peer_port) = address;
    write!(
        text,
        "{id} {host}:{port}@{peer_port} {flags} - 0 0 {epoch} {link}"
    )
    .unwrap_or_default();
}

/// `CLUSTER INFO`
pub fn info(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    let view = context.node.routing.view();
    let assigned = view.slots_assigned();
    let failed: u32 = view
        .members
        .iter()
        .filter(|member| is_down(member))
        .flat_map(slots_of)
        .sum();
    let is_ok = is_complete(&view) && failed == 0;
    let size = view
        .members
        .iter()
        .filter(|member| !member.ranges.is_empty())
        .count();
    reply.verbatim(&format!(
        "cluster_enabled:1\r\ncluster_state:{}\r\ncluster_slots_assigned:{assigned}\r\ncluster_slots_ok:{}\r\n\
         cluster_slots_pfail:0\r\ncluster_slots_fail:{failed}\r\ncluster_known_nodes:{}\r\ncluster_size:{size}\r\n\
         cluster_current_epoch:{}\r\ncluster_my_epoch:{}\r\ncluster_stats_messages_sent:0\r\n\
         cluster_stats_messages_received:0\r\ntotal_cluster_links_buffer_limit_exceeded:0\r\n",
        if is_ok { "ok" } else { "fail" },
        assigned - failed,
        view.members.len().max(1),
        view.epoch,
        view.epoch,
    ));
    Ok(())
}

fn slots_of(member: &MemberView) -> impl Iterator<Item = u32> {
    member.ranges.iter().map(|range| u32::from(range.len()))
}

fn is_complete(view: &ClusterView) -> bool {
    view.slots_assigned() == u32::from(annulus_ring::SLOT_COUNT)
}

/// `CLUSTER MYID`, and `CLUSTER MYSHARDID`: a shard is its one master.
pub fn my_id(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    reply.bulk(context.node.routing.view().own_wire_id().as_bytes());
    Ok(())
}

/// `CLUSTER KEYSLOT key`
pub fn key_slot(_: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    reply.integer(Slot::for_key(args.at(2)).number().into());
    Ok(())
}

/// `CLUSTER LINKS`: nodes keep no permanent links to each other.
pub fn links(_: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    reply.array(0);
    Ok(())
}

/// `CLUSTER REPLICAS id`, and `CLUSTER SLAVES id`: no member is only that.
pub fn replicas(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let view = context.node.routing.view();
    if !view
        .members
        .iter()
        .any(|member| member.wire_id.as_bytes() == args.at(2))
    {
        return Err(CommandError::Other(format!(
            "ERR Unknown node {}",
            super::text(args.at(2))
        )));
    }
    reply.array(0);
    Ok(())
}
