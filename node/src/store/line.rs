//! One slot's line: the entries of the cluster's own keyspace, and behind a pointer those of tenants.
//!
//! All of them are behind the slot's one lock, so that what holds for a slot, handoffs, freezes, the journal, transactions,
//! holds for all tenants at once. While a guard works in a tenant's keyspace, the tenant's map stands where the cluster's own
//! stands otherwise, and that one is parked: whatever works on `map` need not know whose it is.

use annulus_proto::tenants::TenantId;

use super::slot_map::SlotMap;

/// What a tenant's place in a slot costs, beside its entries and their index: a place in a list, its share of the list's
/// allocation, and the allocation that the first tenant of the slot makes.
pub(super) const PLACE_BYTES: u64 = (size_of::<(TenantId, SlotMap)>() + size_of::<Others>() + 32) as u64;

/// What tenants have in the slot.
#[derive(Default)]
struct Others {
    /// By id. None of the maps is empty but that of a tenant that is worked for.
    maps: Vec<(TenantId, SlotMap)>,
    /// The cluster's own entries, while a tenant's are in their place.
    parked: SlotMap,
}

/// A slot's entries.
#[derive(Default)]
pub(super) struct Line {
    /// Those of the keyspace that is worked in.
    pub(super) map: SlotMap,
    others: Option<Box<Others>>,
}

impl Line {
    /// The entries of a keyspace, if there are any, while nobody works in a tenant's.
    pub(super) fn of(&self, tenant: TenantId) -> Option<&SlotMap> {
        if tenant == TenantId::CLUSTER {
            return Some(&self.map);
        }
        let others = self.others.as_ref()?;
        let place = others.place(tenant).ok()?;
        Some(&others.maps[place].1)
    }

    /// The tenants that have entries here; the one that is worked in may be missing.
    pub(super) fn tenants(&self) -> impl Iterator<Item = TenantId> {
        self.others
            .iter()
            .flat_map(|others| others.maps.iter().map(|(tenant, _)| *tenant))
    }

    /// Whether any tenant has entries here, but for one that is worked in.
    pub(super) fn has_tenants(&self) -> bool {
        self.others.is_some()
    }

    /// From now on `map` is the tenant's, until [`leave`](Self::leave).
    pub(super) fn enter(&mut self, tenant: TenantId) {
        let others = self.others.get_or_insert_default();
        let map = match others.place(tenant) {
            Ok(place) => std::mem::take(&mut others.maps[place].1),
            Err(_) => SlotMap::default(),
        };
        others.parked = std::mem::replace(&mut self.map, map);
    }

    /// From now on `map` is the cluster's own again.
    pub(super) fn leave(&mut self, tenant: TenantId) {
        let Some(others) = &mut self.others else { return };
        let map = std::mem::replace(&mut self.map, std::mem::take(&mut others.parked));
        match (others.place(tenant), map.len() > 0) {
            (Ok(place), true) => others.maps[place].1 = map,
            (Err(place), true) => {
                // What is counted for a place is one place.
                others.maps.reserve_exact(1);
                others.maps.insert(place, (tenant, map));
            }
            (Ok(place), false) => {
                others.maps.remove(place);
                others.maps.shrink_to_fit();
            }
            (Err(_), false) => {}
        }
        if others.maps.is_empty() {
            self.others = None;
        }
    }
}

impl Others {
    fn place(&self, tenant: TenantId) -> Result<usize, usize> {
        self.maps.binary_search_by_key(&tenant, |(id, _)| *id)
    }
}
