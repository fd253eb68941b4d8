//! Read-through groups by their names.

use annulus_proto::tenants::TenantId;
use bytes::Bytes;

use crate::node::Node;

/// How the keys of that group of the tenant begin; `None` when no such group is known.
pub(super) fn key_prefix(node: &Node, tenant: TenantId, group: &[u8]) -> Option<Bytes> {
    let name = std::str::from_utf8(group).ok()?;
    let group = node.groups.named(tenant, name)?;
    Some(Bytes::copy_from_slice(group.prefix().as_bytes()))
}
