//! Which node serves which slot, as the nodes have said.

use std::sync::Arc;

use annulus_ring::{SLOT_COUNT, Slot};
use redis::Value;

/// What a node answers for a slot that it doesn't serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Which.
    pub slot: Slot,
    /// Who serves it, `host:port`; nothing before the colon stands for the node that said so.
    pub address: String,
}

impl Moved {
    /// Reads what stands behind `MOVED`: `3999 10.0.0.7:6379`.
    pub fn parse(details: &str) -> Option<Self> {
        let (slot, address) = details.split_once(' ')?;
        Some(Self {
            slot: Slot::new(slot.parse().ok()?).ok()?,
            address: address.to_owned(),
        })
    }
}

/// The address, with the host of who said it where it names none.
pub fn with_host_of(address: &str, said_by: &str) -> String {
    match (address.strip_prefix(':'), said_by.rsplit_once(':')) {
        (Some(port), Some((host, _))) => format!("{host}:{port}"),
        _ => address.to_owned(),
    }
}

/// Addresses of the owners of all slots.
#[derive(Debug, Clone)]
pub struct Slots(Vec<Option<Arc<str>>>);

impl Slots {
    /// Nobody serves anything.
    pub fn empty() -> Self {
        Self(vec![None; usize::from(SLOT_COUNT)])
    }

    /// Reads a reply to `CLUSTER SLOTS` from the node at `said_by`; `None` when it is none, or names nobody.
    pub fn parse(reply: &Value, said_by: &str) -> Option<Self> {
        let Value::Array(ranges) = reply else { return None };
        let mut slots = Self::empty();
        for range in ranges {
            let Value::Array(parts) = range else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(owner), ..] = parts.as_slice() else {
                return None;
            };
            let host = match owner.first()? {
                Value::BulkString(host) => String::from_utf8_lossy(host).into_owned(),
                Value::SimpleString(host) => host.clone(),
                _ => String::new(),
            };
            let Value::Int(port) = owner.get(1)? else {
                return None;
            };
            let address: Arc<str> = with_host_of(&format!("{host}:{port}"), said_by).into();
            let range = usize::try_from(*first).ok()?..=usize::try_from(*last).ok()?;
            for owner in slots.0.get_mut(range)? {
                *owner = Some(Arc::clone(&address));
            }
        }
        slots.0.iter().any(Option::is_some).then_some(slots)
    }

    /// Who serves the slot.
    pub fn owner(&self, slot: Slot) -> Option<&Arc<str>> {
        self.0[slot.index()].as_ref()
    }

    /// Somebody has said who serves it.
    pub fn set(&mut self, slot: Slot, address: &str) {
        self.0[slot.index()] = Some(address.into());
    }

    /// Whether that node serves anything.
    pub fn names(&self, address: &str) -> bool {
        self.0.iter().flatten().any(|owner| &**owner == address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(number: u16) -> Slot {
        Slot::new(number).unwrap()
    }

    #[test]
    fn a_node_that_names_no_host_means_its_own() {
        let reply = "*2\r\n*3\r\n:0\r\n:10\r\n*2\r\n$0\r\n\r\n:7001\r\n\
                     *4\r\n:11\r\n:16383\r\n*3\r\n$8\r\n10.0.0.2\r\n:7002\r\n$2\r\nid\r\n*2\r\n$8\r\n10.0.0.1\r\n:7001\r\n";
        let reply = redis::parse_redis_value(reply.as_bytes()).unwrap();
        let mut slots = Slots::parse(&reply, "10.0.0.1:7001").unwrap();
        let owner = |slots: &Slots, number| slots.owner(slot(number)).unwrap().to_string();
        assert_eq!(owner(&slots, 10), "10.0.0.1:7001");
        assert_eq!(owner(&slots, 11), "10.0.0.2:7002");
        assert_eq!(owner(&slots, 16_383), "10.0.0.2:7002");
        slots.set(slot(11), "10.0.0.3:7003");
        assert_eq!(owner(&slots, 11), "10.0.0.3:7003");
        assert!(slots.names("10.0.0.3:7003") && !slots.names("10.0.0.4:7004"));
        assert_eq!(Moved::parse("11 :7001").unwrap().address, ":7001");
        assert_eq!(with_host_of(":7001", "10.0.0.9:7009"), "10.0.0.9:7001");
        assert_eq!(Moved::parse("16384 a:1"), None);
    }

    #[test]
    fn nobody_is_no_answer() {
        for reply in ["*0\r\n", "+OK\r\n", "*1\r\n*1\r\n:1\r\n"] {
            let reply = redis::parse_redis_value(reply.as_bytes()).unwrap();
            assert!(Slots::parse(&reply, "a:1").is_none());
        }
    }
}
