//! Messages that can't be mapped are refused with the reason; the others come back as they went.

use annulus_proto::{MessageError, Sender, v1};
use annulus_ring::{Epoch, Incarnation, SlotError, SlotRange};

#[test]
fn senders_come_back_as_they_went() {
    let node = Some(("cache-0".parse().unwrap(), Incarnation(7)));
    for node in [None, node] {
        let sender = Sender {
            cluster_uid: "3d0-cafe".parse().unwrap(),
            epoch: Epoch(12),
            node,
        };
        assert_eq!(Sender::try_from(Some(v1::Sender::from(&sender))), Ok(sender));
    }
}

#[test]
fn other_senders_are_refused() {
    let message = |cluster_uid: &str, node_id: &str, incarnation: &'static [u8]| v1::Sender {
        cluster_uid: cluster_uid.to_owned(),
        epoch: 1,
        node_id: node_id.to_owned(),
        incarnation: incarnation.into(),
    };
    let table = [
        (None, "the message has no sender"),
        (Some(v1::Sender::default()), "a cluster UID must be"),
        (Some(message("a b", "", b"")), "a cluster UID must be"),
        (Some(message("c1", "cache-0", b"")), "must be 16 bytes, not 0"),
        (
            Some(message("c1", "cache-0", b"0123456789abcdef0")),
            "must be 16 bytes, not 17",
        ),
        (
            Some(message("c1", "", b"0123456789abcdef")),
            "node id \"\" must be",
        ),
        (
            Some(message("c1", "Cache", b"0123456789abcdef")),
            "node id \"Cache\" must be",
        ),
    ];
    for (sender, expected) in table {
        let error = Sender::try_from(sender.clone()).unwrap_err().to_string();
        assert!(error.contains(expected), "{sender:?}: {error}");
    }
}

#[test]
fn slot_ranges_come_back_as_they_went() {
    for text in ["0", "7-120", "0-16383"] {
        let range: SlotRange = text.parse().unwrap();
        assert_eq!(SlotRange::try_from(v1::SlotRange::from(range)), Ok(range));
    }
}

#[test]
fn other_slot_ranges_are_refused() {
    let table = [
        ((2, 1), MessageError::BackwardRange(2, 1)),
        ((0, 16_384), MessageError::Slot(SlotError(16_384))),
        (
            (u32::MAX, u32::MAX),
            MessageError::Slot(SlotError(u32::MAX.into())),
        ),
    ];
    for ((first, last), expected) in table {
        assert_eq!(SlotRange::try_from(v1::SlotRange { first, last }), Err(expected));
    }
}
