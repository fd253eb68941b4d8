//! What a client sees of a slot that changes hands while it writes.

use annulus_proto::v1;
use annulus_ring::{Incarnation, Slot};

use crate::documents::{CLUSTER, document, handoff, key_below, member};
use crate::member::operator;
use crate::processes::Process;
use crate::support::Client;

const TARGET: Incarnation = Incarnation(7);

/// A process whose first slots are to be given to `n1`, which is played by the test.
async fn source() -> Process {
    let process = Process::member(0, &[]);
    let listed = [process.listed(0).await, member(1, TARGET, 1, 1)];
    process.push(&document(1, &listed, 1)).await;
    let mut moving = document(2, &listed, 1);
    moving.handoffs = vec![handoff("0-99", 0, 1)];
    process.push(&moving).await;
    process
}

fn target() -> v1::Sender {
    v1::Sender {
        node_id: "n1".to_owned(),
        incarnation: TARGET.to_bytes().to_vec().into(),
        epoch: 2,
        ..operator(CLUSTER).unwrap()
    }
}

/// Freezes the slot, as far as that it could be committed.
async fn freeze(process: &Process, slot: Slot, freeze_ms: u32) -> (tonic::Streaming<v1::SlotChunk>, u64) {
    let request = v1::PrepareSlotRequest {
        sender: Some(target()),
        slot: slot.number().into(),
        freeze_ms,
        has_copy: false,
    };
    let mut peer = process.operator().await;
    let mut chunks = peer.prepare_slot(request).await.unwrap().into_inner();
    let freeze_id = chunks.message().await.unwrap().unwrap().freeze_id;
    assert!(freeze_id > 0);
    (chunks, freeze_id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_waits_for_the_end_of_a_freeze() {
    let process = source().await;
    let (key, slot) = key_below(100);
    let mut client = Client::connect(process.client);
    client.check(&format!("SET {key} old"), "+OK\r\n");
    let _chunks = freeze(&process, slot, 300).await;
    // Reads go on, also behind others' writes.
    let mut writer = Client::connect(process.client);
    writer.command(&format!("SET {key} new"));
    client.check(&format!("GET {key}"), "$3\r\nold\r\n");
    writer.expect("+OK\r\n");
    client.check(&format!("GET {key}"), "$3\r\nnew\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_goes_with_its_slot() {
    let process = source().await;
    let (key, slot) = key_below(100);
    let (_chunks, freeze_id) = freeze(&process, slot, 30_000).await;
    let mut writer = Client::connect(process.client);
    writer.command("MULTI");
    writer.expect("+OK\r\n");
    writer.command(&format!("SET {key} new"));
    writer.expect("+QUEUED\r\n");
    writer.command("EXEC");
    let request = v1::CommitSlotRequest {
        sender: Some(target()),
        slot: slot.number().into(),
        freeze_id,
    };
    process.operator().await.commit_slot(request).await.unwrap();
    let reply = String::from_utf8(writer.reply()).unwrap();
    assert!(reply.starts_with(&format!("-MOVED {slot} ")), "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_ever() {
    let process = source().await;
    let (key, slot) = key_below(100);
    let _chunks = freeze(&process, slot, 60_000).await;
    let mut writer = Client::connect(process.client);
    let reply = writer.ask(&format!("SET {key} new"));
    assert!(reply.starts_with("-TRYAGAIN "), "{reply}");
}
